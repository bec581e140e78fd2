"""Structured logs, with secrets masked, on standard error and for the store."""

import logging
import os
import re
import string
import sys
import time
from collections.abc import Iterable, MutableMapping
from contextvars import ContextVar
from functools import lru_cache
from types import TracebackType
from typing import Any

import structlog
from structlog.typing import Processor

from scheduler import config
from scheduler.logbuffer import Buffer, as_json
from scheduler.masking import MASK, is_hidden, know, mask_value, mask_words

TRACE_ID: ContextVar[str | None] = ContextVar("trace_id", default=None)
"""16 letters and digits; the same in a request's answer and its log lines."""
UNSTORED: ContextVar[bool] = ContextVar("unstored", default=False)
"""What is logged here is not for the store: the store itself says it."""

ALPHABET = string.ascii_letters + string.digits
LETTERS = bytes(ord(ALPHABET[byte % len(ALPHABET)]) for byte in range(256))
"""For each byte a letter or digit, nearly as often; one call for all is ten times as quick."""
LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
}
API, WORKER = "scheduler.api", "scheduler.worker"
"""What a line's `service` may be."""
DETAIL = re.compile(
    r"^(?:DETAIL|CONTEXT): .*?"
    r"(?=^(?:HINT: |\[SQL: |\(Background on |The above exception |During handling of |Traceback )"
    r"|\Z)",
    re.DOTALL | re.MULTILINE,
)
"""What Postgres adds to an error: `Failing row contains (...)`, the values of a key, a bad line."""
ARGUMENT = re.compile(r"(invalid input for query argument \$\d+): .*")
"""What the driver says of a value that it cannot send: the value."""
TEXT_MOST = 32 << 10
"""Characters of a trace, or of what else is said in one field."""

Event = MutableMapping[str, Any]


def trace_id() -> str:
    """Return a new trace id."""
    return os.urandom(16).translate(LETTERS).decode()


class Masked:
    """A value that is masked already; masking it again would know less of it."""

    def __init__(self, value: Any) -> None:
        self.value = value


# Times --------------------------------------------------------------------------------------------


@lru_cache(64)
def _second(at: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at))


def timestamp(at: float) -> str:
    """Return `2025-06-03T18:14:36.606Z` of seconds since 1970."""
    whole_ms = int(at * 1000)
    return f"{_second(whole_ms // 1000)}.{whole_ms % 1000:03d}Z"


def latency(took_s: float) -> str:
    """Return `0.2 ms`."""
    return f"{round(took_s * 1000, 1)} ms".replace(".0 ", " ")


# The steps from what is said to a line ------------------------------------------------------------


def cut(text: str) -> str:
    """Return an error's words without the values that the database or its driver quotes."""
    if "DETAIL" in text or "CONTEXT" in text:
        text = DETAIL.sub("", text)
    return ARGUMENT.sub(r"\1", text) if "query argument" in text else text


UNSEEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""What a terminal acts upon, or does not show, but for the tab and the newline."""


def visible(text: str) -> str:
    """Return text with its control characters written out."""
    if text.isascii() and text.isprintable():
        return text
    return UNSEEN.sub(lambda found: ascii(found[0])[1:-1], text.replace("\r\n", "\n"))


def _masked(_logger: Any, _method: str, event: Event) -> Event:
    if event.pop(CLEAN, False):
        return event
    for name, value in event.items():
        if value is None or value is True or value is False:
            continue
        if isinstance(value, Masked):
            event[name] = _seen(value.value)
            continue
        if name not in OURS and is_hidden(name):
            event[name] = MASK
        elif isinstance(value, str):
            event[name] = visible(mask_words(cut(_shortened(value))))
        elif not isinstance(value, (int, float)):
            event[name] = _seen(mask_value(value))
    return event


def _shortened(text: str) -> str:
    """Leave out the middle of a long text, whole lines of it: the end of a trace says most."""
    if len(text) <= TEXT_MOST:
        return text
    head, tail = text[: TEXT_MOST // 4], text[-TEXT_MOST * 3 // 4 :]
    if "\n" not in head or "\n" not in tail:
        return text[:TEXT_MOST]
    return f"{head.rpartition(chr(10))[0]}\n...\n{tail.partition(chr(10))[2]}"


CLEAN = "_clean"
"""A line with this is `cleaned` already, value by value: there is one for every request."""


def cleaned(text: str) -> str:
    """Return a text as a line may hold it; the same ones come again and again."""
    return _cleaned(text) if len(text) < 200 else _cleaned.__wrapped__(text)


@lru_cache(512)
def _cleaned(text: str) -> str:
    return visible(mask_words(text[:TEXT_MOST]))


OURS = {"event", "X-TRACE-ID", "@timestamp", "data", "exception"}


def _seen(value: Any) -> Any:
    if isinstance(value, str):
        return visible(cut(value))
    if isinstance(value, dict):
        return {visible(name): _seen(each) for name, each in value.items()}
    return [_seen(each) for each in value] if isinstance(value, list) else value


def _named(service: str) -> Processor:
    def named(_logger: Any, method: str, event: Event) -> Event:
        """Put a line's own fields first, and say what happened last, as they are documented."""
        now = time.time()
        at = event.pop("@timestamp", None) or timestamp(now)
        first: Event = {
            "level": LEVEL_NAMES.get(method, method),
            "@timestamp": at,
            "data": at[:19].replace("T", " "),
        }
        trace = event.pop("X-TRACE-ID", None) or TRACE_ID.get()
        if trace is not None:
            first["X-TRACE-ID"] = trace
        first["service"] = event.pop("service", service)
        message = event.pop("event", "")
        for name in ("level", "data"):
            event.pop(name, None)
        return {**first, **event, "message": message}

    return named


# The store's buffer -------------------------------------------------------------------------------

BUFFER = Buffer()
"""This process's; off unless `log.store` is on."""


def _buffered(_logger: Any, _method: str, event: Event) -> Event:
    if BUFFER.on and not UNSTORED.get():
        BUFFER.add(event)
    return event


# Lines --------------------------------------------------------------------------------------------

BARE = re.compile(r"[^\s\"'=\\]+\Z")
LEVEL_NAMES = {"warning": "warn", "exception": "error", "critical": "error"}
SHORT_LEVEL = {"debug": "DBG", "info": "INF", "warn": "WRN", "error": "ERR"}
INDENT = "  | "
"""What no line begins with, but those of a trace."""


def text_line(line: Event) -> str:
    """Return a line as text: `6:14PM ERR message name=value name="two words"`, names in order.

    A trace follows on lines of its own, indented; nothing that was logged makes a line otherwise.
    """
    at = str(line["@timestamp"])
    hour = int(at[11:13])
    clock = f"{hour % 12 or 12}:{at[14:16]}{'AM' if hour < 12 else 'PM'}"
    level = SHORT_LEVEL.get(line["level"], "???")
    parts = [clock, level, _one_line(str(line["message"]))]
    parts += [
        f"{name}={_value(value)}"
        for name, value in sorted(line.items())
        if name not in ("level", "message", "exception")
    ]
    if "exception" in line:
        parts += ["\n" + INDENT + str(line["exception"]).strip().replace("\n", "\n" + INDENT)]
    return " ".join(parts).replace(" \n", "\n")


def _one_line(text: str) -> str:
    return text.replace("\n", "\\n")


def _value(value: Any) -> str:
    if isinstance(value, str):
        if BARE.match(value):
            return value
        simple = value.isprintable() and '"' not in value and "\\" not in value
        return f'"{value}"' if simple else as_json(value)
    return str(value) if isinstance(value, int) else as_json(value)


def _as_text(_logger: Any, _method: str, event: Event) -> str:
    return text_line(event)


def _as_json(_logger: Any, _method: str, event: Event) -> str:
    return as_json(event)


# Setting up ---------------------------------------------------------------------------------------


_level = logging.INFO


def debugging() -> bool:
    """Say whether lines for debugging are wanted, before one is made."""
    return _level <= logging.DEBUG


class Handler(logging.StreamHandler):  # type: ignore[type-arg]
    """Takes the libraries' lines the same way, whether or not they are written."""

    def __init__(self, *, silent: bool) -> None:
        super().__init__(sys.stderr)
        self._silent = silent

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, or only keep it for the store."""
        if self._silent:
            self.format(record)
        else:
            super().emit(record)


def configure(settings: config.Log, service: str = API, *, known: Iterable[str] = ()) -> None:
    """Set up logging for the process.

    `service` is the name of lines that do not say another; `known` the secrets of the process's
    own settings, which are masked wherever they stand.
    """
    global _level
    know(known)
    _cleaned.cache_clear()
    BUFFER.on = settings.store
    level = _level = LEVELS[settings.level]
    shared: list[Processor] = [
        structlog.processors.format_exc_info,
        _masked,
        _named(service),
        _buffered,
    ]
    renderer: Processor = _as_json if settings.format == "json" else _as_text
    silent = structlog.ReturnLoggerFactory()
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr) if settings.stdout else silent,
        cache_logger_on_first_use=False,
    )
    _quiet(settings, shared, renderer)
    sys.excepthook = _last_words


def _last_words(kind: type[BaseException], error: BaseException, at: TracebackType | None) -> None:
    """Log what ends the program: its trace may quote what is secret."""
    if issubclass(kind, Exception):
        structlog.get_logger().error("the program broke", exc_info=error)
    else:
        sys.__excepthook__(kind, error, at)


def _quiet(settings: config.Log, shared: list[Processor], renderer: Processor) -> None:
    """Send the libraries' own lines, from warnings up, the same way."""
    handler = Handler(silent=not settings.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *shared],
            processors=[renderer],
        )
    )
    root = logging.getLogger()
    wanted = settings.stdout or settings.store
    root.handlers[:] = [handler] if wanted else [logging.NullHandler()]
    root.setLevel(max(logging.WARNING, LEVELS[settings.level]))
    # What it would say of a failed start is a trace; the process says it in a sentence.
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL + 1)
    # It says so each time a tick is still busy when the next one comes.
    logging.getLogger("apscheduler").setLevel(logging.ERROR)
