"""What is called, and with what, as words on the command line."""

import re
from typing import Any

import msgspec
from msgspec import Raw

from scheduler.cli.failures import Usage
from scheduler.cli.task_fields import Fields, read_file

ENDPOINT = re.compile(r"\s*(?:([A-Za-z]+)\s+)?(/\S*)\s*")


def endpoint_of(words: str) -> tuple[str, str]:
    """Return method and path of an endpoint like `GET /pets/{id}`. Raises Usage."""
    found = ENDPOINT.fullmatch(words)
    if found is None:
        raise Usage("the endpoint is a method and a path, like 'GET /pets/{id}'")
    return (found[1] or "GET").upper(), found[2]


def pairs(words: tuple[str, ...], flag: str) -> Fields:
    """Return NAME=TEXT and NAME:=JSON as an object; what is repeated becomes an array.

    Raises Usage.
    """
    found = dict[str, list[Any]]()
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name.rstrip(":"):
            raise Usage(f"{flag} is NAME=TEXT, or NAME:=JSON for what is no text")
        said: str | Raw = value
        if name.endswith(":"):
            name, said = name[:-1], json_of(value, f"{flag} {name}=")
        found.setdefault(name, []).append(said)
    return {name: values if len(values) > 1 else values[0] for name, values in found.items()}


def content(text: str) -> bytes:
    """Return a text, or what the file holds that is meant with @. Raises Usage."""
    if text.startswith("@"):
        return read_file(text[1:])
    return text.encode(errors="surrogateescape")


def json_of(text: str | bytes, what: str) -> Raw:
    """Return JSON as it is written: its numbers keep their digits. Raises Usage."""
    sent = text.encode(errors="surrogateescape") if isinstance(text, str) else text
    try:
        msgspec.json.decode(sent)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as e:
        raise Usage(f"{what} is not JSON: {e}") from None
    return Raw(sent.strip())


def body_of(data: str | None, words: str | None) -> Fields:
    """Return the body that --data or --text gives. Raises Usage."""
    if data is not None and words is not None:
        raise Usage("--data and --text are two bodies; give one")
    if data is not None:
        return {"req_body": json_of(content(data), "--data")}
    if words is None:
        return {}
    try:
        return {"req_body": content(words).decode()}
    except UnicodeDecodeError:
        raise Usage("--text is not UTF-8 text; send other bytes as base64") from None
