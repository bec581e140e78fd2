"""Reading what a task does: which action a body means, and an HTTP request's fields."""

from collections.abc import Collection
from typing import Any, get_args

import msgspec
from msgspec import UNSET

from scheduler import sealing
from scheduler.actions import Action, Command, Http
from scheduler.actions.http import Method
from scheduler.actions.step import Step
from scheduler.masking import MASK
from scheduler.target import check_header, check_url
from scheduler.tasks.command import read_command
from scheduler.tasks.reading import Reader, short

HEADERS_MOST = 100
"""As many as servers commonly take (Apache's LimitRequestFields)."""


OF_HTTP = ("method", "header", "headers", "payload", "follow_redirects", "secret_headers")
OF_COMMAND = ("env",)
"""Fields that only mean something beside `url`, and beside `command`."""


def means_command(reader: Reader) -> bool:
    """Say whether the task is a command once the body is applied."""
    fields = reader.fields
    return bool(fields.command or (isinstance(reader.before.action, Command) and not fields.url))


def read_action(reader: Reader) -> Action | Step:
    """Return the action that the body makes of the stored one.

    The field of another kind makes another action, of which nothing is stored yet.
    """
    stored, fields = reader.before.action, reader.fields
    if fields.url and fields.command:
        reader.say("command", "a task has a url or a command, and both are sent; send one of them")
        return stored
    if means_command(reader):
        _check_others(reader, OF_HTTP, "an HTTP request", "command")
        return read_command(reader, stored if isinstance(stored, Command) else Command(""))
    _check_others(reader, OF_COMMAND, "a command", "url")
    return _http(reader, stored if isinstance(stored, Http) else Http(url=""))


def _check_others(reader: Reader, others: Collection[str], what: str, kind: str) -> None:
    """Note the fields of another kind of action that are sent, and say something."""
    for field in others:
        sent = getattr(reader.fields, field)
        if not sent or (field == "payload" and bytes(memoryview(sent)) in SAYS_NOTHING):
            continue
        reader.say(field, f"belongs to {what}, and this task has a {kind}; leave it out")


SAYS_NOTHING = (b"", b"null", b'""')


def _http(reader: Reader, stored: Http) -> Http:
    payload, is_json = _payload(reader, stored)
    action = Http(
        url=_url(reader, stored.url),
        method=_method(reader, stored.method),
        header={},
        payload=payload,
        json=is_json,
        follow_redirects=bool(reader.sent("follow_redirects", stored.follow_redirects)),
        secret_headers=_secret_headers(reader, stored),
    )
    return msgspec.structs.replace(action, header=_header(reader, action, stored))


def _url(reader: Reader, stored: str) -> str:
    url = reader.sent("url", stored)
    if not url:
        reader.say("url", "is needed: http://host/path or https://host/path; or a command")
        return ""
    try:
        return check_url(url)
    except ValueError as e:
        reader.say("url", str(e))
        return ""


def _method(reader: Reader, stored: Method | None) -> Method | None:
    method = reader.sent("method", stored)
    if not method:
        return None
    if method.upper() not in get_args(Method):
        reader.say("method", f"must be one of {', '.join(get_args(Method))}")
        return None
    return method.upper()  # type: ignore[no-any-return]


def _payload(reader: Reader, stored: Http) -> tuple[str | None, bool]:
    """Return the payload as text, and whether it was sent as an object or array."""
    sent = reader.fields.payload
    if sent is UNSET:
        return stored.payload, stored.json
    kind = bytes(memoryview(sent)[:1])
    is_json = kind in (b"{", b"[")
    if is_json:
        payload = msgspec.json.format(sent, indent=-1).decode()
    elif kind in (b'"', b"n"):
        payload = msgspec.json.decode(sent)
    else:
        reader.say("payload", "must be a text, an object, an array or null")
        payload = None
    if payload == stored.payload:
        return payload, stored.json
    if payload and "\x00" in payload:
        reader.say("payload", "must not hold a NUL character")
    _check_size(reader, "payload", payload or "", "payload_max_bytes")
    return payload, is_json


def _check_size(reader: Reader, field: str, text: str, setting: str) -> None:
    most, size = getattr(reader.most, setting), len(text.encode())
    if size > most:
        reader.say(field, f"must have at most {most} bytes (tasks.{setting}), has {size}")


def _check_header_size(reader: Reader, field: str, header: dict[str, str]) -> None:
    """Check what is sent, which a stored value that is sealed is longer than."""
    most, setting = reader.most.header_max_bytes, "tasks.header_max_bytes"
    size = sum(len(name.encode()) + sealing.plain_size(value) for name, value in header.items())
    if size > most:
        reader.say(field, f"must have at most {most} bytes ({setting}), has {size}")


def _secret_headers(reader: Reader, stored: Http) -> list[str]:
    names: list[str] = reader.sent("secret_headers", stored.secret_headers) or []
    if len(names) > HEADERS_MOST or any("\x00" in name for name in names):
        reader.say("secret_headers", f"at most {HEADERS_MOST} header names, with no NUL in them")
        return stored.secret_headers
    if names != stored.secret_headers:
        _check_size(reader, "secret_headers", "".join(names), "header_max_bytes")
    return names


def _header(reader: Reader, action: Http, stored: Http) -> dict[str, str]:
    field = "header"
    header: Any = reader.fields.header
    if header is UNSET:
        field, header = "headers", reader.fields.headers
    if header is UNSET:
        _check_uncovered(reader, stored.header, action, stored)
        return stored.header
    header = header or {}
    if len(header) > HEADERS_MOST:
        reader.say(field, f"at most {HEADERS_MOST} headers, has {len(header)}")
        return {}
    if isinstance(header, list):
        header = {pair.key: pair.value for pair in header}
    _check_uncovered(reader, [n for n, value in header.items() if value == MASK], action, stored)
    kept = {name.lower(): value for name, value in stored.header.items()}
    secret = action.secrets(header)
    read: dict[str, str] = {}
    names: set[str] = set()
    for name, value in header.items():
        place = f"{field}.{name[:100]}"
        if name.lower() in names:
            reader.say(place, "is there twice; names differ in more than case")
        names.add(name.lower())
        if not isinstance(value, str):
            reader.say(place, f"must be a string, is {short(value)}")
        elif value == MASK and name in secret:
            if name.lower() not in kept:
                reader.say(place, "has no stored value that ******** could keep")
            read[name] = kept.get(name.lower(), "")
        else:
            read[name] = value
            _check(reader, place, name, value)
    if read != stored.header:
        _check_header_size(reader, field, read)
    return read


def _check(reader: Reader, place: str, name: str, value: str) -> None:
    try:
        check_header(name, value)
    except ValueError as e:
        reader.say(place, str(e))


def _check_uncovered(reader: Reader, names: Collection[str], action: Http, stored: Http) -> None:
    """Note the secrets which nobody sends anew, and which would be shown from now on."""
    covered = action.secrets(names)
    for name in stored.secrets(names):
        if name not in covered:
            reader.say("secret_headers", f"{name} was secret; send its value anew to show it")
