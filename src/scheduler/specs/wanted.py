"""Reading what is sent of a spec: strictly, and with every wrong field named."""

import asyncio
import base64
import binascii
import hashlib
import re
from typing import Any

import msgspec
from msgspec import UNSET

from scheduler.config import Specs
from scheduler.errors import Detail
from scheduler.masking import MASK
from scheduler.specs.changes import Sent
from scheduler.specs.model import fold
from scheduler.specs.shown import SpecFields
from scheduler.target import check_header, check_url

NAME_MOST = 200
HEADERS_MOST = 100
HEADERS_BYTES = 16 << 10
"""Of all headers of a spec, names and values."""
SPACE = b" \t\r\n"
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
LARGE = 256 << 10
"""What is longer is decoded and hashed beside the loop."""


class Asked(msgspec.Struct, kw_only=True, frozen=True):
    """What was sent; None where it was not. `url` is UNSET then: null takes it away."""

    name: str | None = None
    headers: dict[str, str] | None = None
    url: str | msgspec.UnsetType | None = UNSET
    sent: Sent | None = None


async def read(fields: SpecFields, settings: Specs) -> tuple[Asked, list[Detail]]:
    """Return what was sent, and what is wrong with it."""
    wrong = list[Detail]()
    asked = Asked(
        name=None if fields.name is UNSET else _name(fields.name, wrong),
        headers=None if fields.headers is UNSET else _headers(fields.headers, wrong),
        url=_url(fields.url, wrong),
        sent=None if fields.spec is UNSET else await _spec(fields.spec, settings, wrong),
    )
    return asked, wrong


def missing(fields: SpecFields) -> list[Detail]:
    """Return what a new spec lacks."""
    needed = {
        "name": (fields.name, "a name for the spec, a string"),
        "headers": (fields.headers, "an object of strings, {} where the API wants none"),
        "spec": (fields.spec, "the OpenAPI document, in base64"),
    }
    return [
        Detail(field, f"is needed: {what}")
        for field, (sent, what) in needed.items()
        if sent is UNSET
    ]


def _name(sent: str, wrong: list[Detail]) -> str:
    name = fold(sent)
    if not 1 <= len(name) <= NAME_MOST:
        wrong.append(Detail("name", f"must have 1 to {NAME_MOST} characters, has {len(name)}"))
    if CONTROL.search(name):
        wrong.append(Detail("name", "must not hold a control character, like a line break"))
    return name


def _headers(sent: dict[str, Any], wrong: list[Detail]) -> dict[str, str]:
    if len(sent) > HEADERS_MOST:
        wrong.append(Detail("headers", f"at most {HEADERS_MOST} headers, has {len(sent)}"))
        return {}
    read, names = dict[str, str](), set[str]()
    for name, value in sent.items():
        place = f"headers.{name[:100]}"
        if name.lower() in names:
            wrong.append(Detail(place, "is there twice; names differ in more than case"))
        names.add(name.lower())
        if not isinstance(value, str):
            kind = type(value).__name__
            wrong.append(Detail(place, f"must be a string, is {KINDS.get(kind, kind)}"))
            continue
        try:
            check_header(name, value)
        except ValueError as e:
            wrong.append(Detail(place, str(e)))
        read[name] = value
    size = sum(len(name.encode()) + len(value.encode()) for name, value in read.items())
    if size > HEADERS_BYTES:
        wrong.append(Detail("headers", f"must have at most {HEADERS_BYTES} bytes, has {size}"))
    return read


KINDS = {
    "NoneType": "null",
    "bool": "a boolean",
    "dict": "an object",
    "float": "a number",
    "int": "a number",
    "list": "an array",
}


def _url(
    sent: str | msgspec.UnsetType | None, wrong: list[Detail]
) -> str | msgspec.UnsetType | None:
    if not sent:  # not sent, null, or ""
        return sent or (UNSET if sent is UNSET else None)
    try:
        return check_url(sent)
    except ValueError as e:
        wrong.append(Detail("url", str(e)))
        return None


async def _spec(sent: str, settings: Specs, wrong: list[Detail]) -> Sent | None:
    try:
        if len(sent) > LARGE:
            return await asyncio.to_thread(_decoded, sent, settings.max_bytes)
        return _decoded(sent, settings.max_bytes)
    except ValueError as e:
        wrong.append(Detail("spec", str(e)))
        return None


def _decoded(sent: str, most: int) -> Sent:
    """Return a document that came in base64 (RFC 4648, 4). Raises ValueError."""
    plain = sent.encode(errors="replace").translate(None, SPACE)
    if not plain:
        raise ValueError("must be an OpenAPI document in base64, is empty")
    try:
        source = base64.b64decode(plain, validate=True)
    except (binascii.Error, ValueError) as e:
        if b"-" in plain[:LARGE] or b"_" in plain[:LARGE]:
            raise ValueError("is base64url, it seems: send base64 with + and / instead") from None
        why = (
            "it ends too early" if "padding" in str(e) else "it has a character that is none of it"
        )
        raise ValueError(f"must be an OpenAPI document in base64: {why}") from None
    if len(source) > most:
        raise ValueError(f"must have at most {most} bytes (specs.max_bytes), has {len(source)}")
    return Sent(source, hashlib.sha256(source).hexdigest())


def kept(headers: dict[str, str], stored: dict[str, str]) -> dict[str, str]:
    """Return headers with what is stored where a mask was sent back."""
    there = {name.lower(): value for name, value in stored.items()}
    return {
        name: there.get(name.lower(), value) if value == MASK else value
        for name, value in headers.items()
    }
