"""Reading an operation: which endpoint of which spec is called, and what with."""

import msgspec
from msgspec import UNSET, UnsetType

from scheduler.actions import Operation
from scheduler.specs.model import fold
from scheduler.tasks.headers import pairs, read_headers, sent_headers
from scheduler.tasks.method import read_method
from scheduler.tasks.reading import Reader, short

NAME_MOST = 200
"""Characters of a spec's name."""
ENDPOINT_MOST = 2000
"""Characters of a path."""


def read_operation(reader: Reader, stored: Operation) -> Operation:
    """Return the operation that the body makes of the stored one.

    Whether the spec has it, and takes these parameters, is checked when all else is right.
    """
    return msgspec.structs.replace(
        stored,
        service=_service(reader, stored.service),
        endpoint=_endpoint(reader, stored.endpoint),
        method=read_method(reader, stored.method) or "GET",
        headers=_headers(reader, stored),
        query_params=_object(reader, "query_params", stored.query_params),
        url_params=_object(reader, "url_params", stored.url_params),
        req_body=_json(reader, "req_body", stored.req_body),
        cache=reader.sent("cache", stored.cache),
    )


def _service(reader: Reader, stored: str) -> str:
    name: str = fold(reader.sent("service", stored) or "")
    if not name:
        reader.say("service", "is needed: the name of a spec; POST /v1/api/spec makes one")
    else:
        _check_text(reader, "service", name, NAME_MOST)
    return name


def _endpoint(reader: Reader, stored: str) -> str:
    path: str = reader.sent("endpoint", stored) or ""
    if not path.startswith("/"):
        reader.say(
            "endpoint",
            "is needed: a path as the document writes it, like /pets/{id}; its method is "
            "a field of its own",
        )
    else:
        _check_text(reader, "endpoint", path, ENDPOINT_MOST)
    return path


def _check_text(reader: Reader, field: str, text: str, most: int) -> None:
    if len(text) > most:
        reader.say(field, f"must have at most {most} characters, has {len(text)}")
    if "\x00" in text:
        reader.say(field, "must not hold a NUL character")


def _headers(reader: Reader, stored: Operation) -> dict[str, str]:
    field, sent = sent_headers(reader, ("headers", "header"))
    if sent is UNSET:
        return stored.headers
    header = pairs(reader, field, sent)
    return {} if header is None else read_headers(reader, field, header, stored.headers, stored)


def _object(reader: Reader, field: str, stored: str | None) -> str | None:
    """Return an object as its JSON text."""
    text = _json(reader, field, stored)
    if text == '""':
        return None
    if text is not None and not text.startswith("{"):
        value = msgspec.json.decode(text)
        reader.say(field, f'must be an object, like {{"name": "value"}}, is {short(value)}')
        return None
    return text


def _json(reader: Reader, field: str, stored: str | None) -> str | None:
    """Return any value as its JSON text, with numbers as they were written."""
    sent: msgspec.Raw | UnsetType = getattr(reader.fields, field)
    if sent is UNSET:
        return stored
    if bytes(memoryview(sent)[:1]) == b"n":  # nothing else in JSON begins with it
        return None
    text = msgspec.json.format(sent, indent=-1).decode()
    most, size = reader.most.payload_max_bytes, len(text.encode())
    if size > most:
        reader.say(field, f"must have at most {most} bytes (tasks.payload_max_bytes), has {size}")
    return text
