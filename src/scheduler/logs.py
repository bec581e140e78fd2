"""Structured logs, with secrets masked, on standard error."""

import logging
import re
import secrets
import string
import sys
from collections.abc import MutableMapping
from contextvars import ContextVar
from typing import Any

import structlog
from structlog.typing import Processor

from scheduler import config
from scheduler.masking import MASK, is_secret, mask

TRACE_ID: ContextVar[str | None] = ContextVar("trace_id", default=None)
"""16 letters and digits; the same in a request's answer and its log lines."""

ALPHABET = string.ascii_letters + string.digits
LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
}
DETAIL = re.compile(
    r"^(?:DETAIL|CONTEXT): .*?"
    r"(?=^(?:HINT: |\[SQL: |\(Background on |The above exception |During handling of |Traceback )"
    r"|\Z)",
    re.DOTALL | re.MULTILINE,
)
"""What Postgres adds to an error: `Failing row contains (...)`, the values of a key, a bad line."""
ARGUMENT = re.compile(r"(invalid input for query argument \$\d+): .*")
"""What the driver says of a value that it cannot send: the value."""
SECRET_TOO = re.compile(r"password|credential", re.IGNORECASE)
"""With the names of headers, what of a log line's fields is masked."""


def trace_id() -> str:
    """Return a new trace id."""
    return "".join(secrets.choice(ALPHABET) for _ in range(16))


Event = MutableMapping[str, Any]


def _is_secret(name: str) -> bool:
    return is_secret(name) or SECRET_TOO.search(name) is not None


def cut(text: str) -> str:
    """Return an error's words without the values that the database or its driver quotes."""
    return ARGUMENT.sub(r"\1", DETAIL.sub("", text))


def _cut(_logger: Any, _method: str, event: Event) -> Event:
    for name, value in event.items():
        if isinstance(value, str):
            event[name] = cut(value)
    return event


def _masked(_logger: Any, _method: str, event: Event) -> Event:
    for name, value in event.items():
        if name != "event" and _is_secret(name) and value is not None:
            event[name] = MASK
        elif isinstance(value, str):
            event[name] = mask(value)
        elif isinstance(value, dict):
            event[name] = {k: MASK if _is_secret(str(k)) else v for k, v in value.items()}
    return event


def _traced(_logger: Any, _method: str, event: Event) -> Event:
    trace = TRACE_ID.get()
    if trace is not None:
        event.setdefault("X-TRACE-ID", trace)
    return event


def configure(settings: config.Log, service: str = "scheduler.api") -> None:
    """Set up logging for the process; `service` is the name that every line carries."""
    level = LEVELS[settings.level]

    def _named(_logger: Any, _method: str, event: Event) -> Event:
        event["service"] = service
        return event

    shared: list[Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="@timestamp"),
        _named,
        _traced,
        structlog.processors.format_exc_info,
        _cut,
        _masked,
    ]
    renderer: Processor = (
        structlog.processors.JSONRenderer()
        if settings.format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), timestamp_key="@timestamp")
    )
    silent = structlog.ReturnLoggerFactory()
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr) if settings.stdout else silent,
        cache_logger_on_first_use=False,
    )
    _quiet(settings, shared, renderer)


def _quiet(settings: config.Log, shared: list[Processor], renderer: Processor) -> None:
    """Send the libraries' own lines, from warnings up, the same way."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler] if settings.stdout else [logging.NullHandler()]
    root.setLevel(logging.WARNING)
    # What it would say of a failed start is a trace; the process says it in a sentence.
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL + 1)
    # It says so each time a tick is still busy when the next one comes.
    logging.getLogger("apscheduler").setLevel(logging.ERROR)
