"""Reading what a task does: which action a body means, and an HTTP request's fields."""

from collections.abc import Collection, Mapping

import msgspec
from msgspec import UNSET

from scheduler.actions import Action, Command, Http, Operation
from scheduler.actions.step import Step
from scheduler.masking import MASK
from scheduler.target import check_url
from scheduler.tasks.command import read_command
from scheduler.tasks.headers import HEADERS_MOST, pairs, read_headers, sent_headers
from scheduler.tasks.method import read_method
from scheduler.tasks.operation import read_operation
from scheduler.tasks.reading import Reader

NAMED_BY: Mapping[str, type[Action]] = {
    "url": Http,
    "command": Command,
    "service": Operation,
    "endpoint": Operation,
}
"""The fields that say which action a body means."""
CALLED: Mapping[type, str] = {
    Http: "a url",
    Command: "a command",
    Operation: "an operation of a spec",
}
BELONG: Mapping[str, Collection[type]] = {
    "method": (Http, Operation),
    "header": (Http, Operation),
    "headers": (Http, Operation),
    "payload": (Http,),
    "follow_redirects": (Http,),
    "secret_headers": (Http,),
    "env": (Command,),
    "query_params": (Operation,),
    "url_params": (Operation,),
    "req_body": (Operation,),
    "cache": (Operation,),
}
"""Fields that mean something beside some actions only."""
INSTEAD: Mapping[tuple[str, type], str] = {
    ("payload", Operation): "an operation has a req_body",
    ("secret_headers", Operation): "of an operation, those are secret whose names say so",
    ("req_body", Http): "a url has a payload",
}
"""What to say beside that a field is out of place."""
SAYS_NOTHING = (b"", b"null", b'""')


def meant(reader: Reader) -> type:
    """Return the kind of action that the task has once the body is applied."""
    sent = [kind for field, kind in NAMED_BY.items() if getattr(reader.fields, field)]
    return sent[0] if sent else type(reader.before.action)


def read_action(reader: Reader) -> Action | Step:
    """Return the action that the body makes of the stored one.

    The field of another kind makes another action, of which nothing is stored yet.
    """
    stored, kind = reader.before.action, meant(reader)
    for field, other in NAMED_BY.items():
        if other is not kind and getattr(reader.fields, field):
            both = f"{CALLED[kind]} or {CALLED[other]}"
            reader.say(field, f"a task has {both}, and both are sent; send one of them")
            return stored
    _check_others(reader, kind)
    if kind is Command:
        return read_command(reader, stored if isinstance(stored, Command) else Command(""))
    if kind is Operation:
        blank = Operation(service="", endpoint="")
        return read_operation(reader, stored if isinstance(stored, Operation) else blank)
    return _http(reader, stored if isinstance(stored, Http) else Http(url=""))


def _check_others(reader: Reader, kind: type) -> None:
    """Note the fields of other kinds of action that are sent, and say something."""
    for field, kinds in BELONG.items():
        sent = getattr(reader.fields, field)
        if kind in kinds or not sent:
            continue
        if isinstance(sent, msgspec.Raw) and _says_nothing(field, bytes(memoryview(sent))):
            continue
        owners = " or ".join(CALLED[each] for each in kinds)
        why = INSTEAD.get((field, kind))
        why = f" ({why})" if why else ""
        reader.say(field, f"belongs to {owners}, and this task has {CALLED[kind]}{why}; "
                   "leave it out")  # fmt: skip


def _says_nothing(field: str, text: bytes) -> bool:
    return text in SAYS_NOTHING or (text == b"{}" and field.endswith("_params"))


def _http(reader: Reader, stored: Http) -> Http:
    payload, is_json = _payload(reader, stored)
    action = Http(
        url=_url(reader, stored.url),
        method=read_method(reader, stored.method),
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
        reader.say(
            "url",
            "is needed: http://host/path or https://host/path; or a command, or a service and "
            "an endpoint",
        )
        return ""
    try:
        return check_url(url)
    except ValueError as e:
        reader.say("url", str(e))
        return ""


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


def _secret_headers(reader: Reader, stored: Http) -> list[str]:
    names: list[str] = reader.sent("secret_headers", stored.secret_headers) or []
    if len(names) > HEADERS_MOST or any("\x00" in name for name in names):
        reader.say("secret_headers", f"at most {HEADERS_MOST} header names, with no NUL in them")
        return stored.secret_headers
    if names != stored.secret_headers:
        _check_size(reader, "secret_headers", "".join(names), "header_max_bytes")
    return names


def _header(reader: Reader, action: Http, stored: Http) -> dict[str, str]:
    field, sent = sent_headers(reader, ("header", "headers"))
    if sent is UNSET:
        _check_uncovered(reader, stored.header, action, stored)
        return stored.header
    header = pairs(reader, field, sent)
    if header is None:
        return {}
    _check_uncovered(reader, [n for n, value in header.items() if value == MASK], action, stored)
    return read_headers(reader, field, header, stored.header, action)


def _check_uncovered(reader: Reader, names: Collection[str], action: Http, stored: Http) -> None:
    """Note the secrets which nobody sends anew, and which would be shown from now on."""
    covered = action.secrets(names)
    for name in stored.secrets(names):
        if name not in covered:
            reader.say("secret_headers", f"{name} was secret; send its value anew to show it")
