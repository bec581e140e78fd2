"""Bodies of calls: JSON, forms, text and bytes, from the JSON text that was given."""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote_plus

import msgspec

from scheduler.documents.client import Encoding, Media, Operation
from scheduler.documents.styles import (
    JSON,
    WrongCall,
    as_json,
    as_text,
    decoded,
    missing,
    pairs,
    reserved,
    shaped,
    within,
)

FORM = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data"
BYTES = "application/octet-stream"
NAMED = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+/[!#$%&'*+.^_`|~0-9A-Za-z-]+[\x20-\x7e]*")
CHARSET = re.compile(r";\s*charset=\"?([A-Za-z0-9_.:-]+)", re.IGNORECASE)
DEFAULT = Encoding()
GROWTH, BESIDE = 4, 1 << 20
"""A form may take so many times the bytes that were given, and so many beside: each item of a list
is written with the name of the list, and the headers that the document has for it.
"""


class File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A binary property of multipart/form-data, where more than its bytes is given."""

    content: str
    """Base64."""
    filename: str | None = None
    content_type: str | None = None


def body(
    operation: Operation, given: bytes | None, content_type: str | None
) -> tuple[str | None, bytes]:
    """Return the content type of a body, and the body. Raises WrongCall.

    `content_type`, of the caller, picks one of those that the document offers; else it is JSON, or
    the first. A body that the document does not name is JSON; GET and HEAD then have none.
    """
    if given is None or given.strip() == b"null":
        if operation.body_required:
            raise missing("req_body")
        return None, b""
    if operation.method == "HEAD" or (operation.method == "GET" and not operation.body):
        return None, b""
    media = _picked(operation.body, content_type)
    kind = essence(media.type)
    if JSON.fullmatch(media.type):
        return media.type, given
    value = decoded("req_body", given)
    most = GROWTH * len(given) + BESIDE
    if kind == FORM:
        return media.type, _form(media, value, most)
    if kind == MULTIPART:
        return _multipart(media, value, most)
    if media.encoding.get("", DEFAULT).binary:
        return media.type, _bytes("req_body", value)
    return media.type, _encoded(as_text(value), media.type)


def essence(content_type: str) -> str:
    """Return a media type without its parameters, in lower case."""
    return content_type.partition(";")[0].strip().lower()


def _picked(offered: list[Media], content_type: str | None) -> Media:
    if content_type:
        asked = essence(content_type)
        for media in sorted(offered, key=lambda each: each.type.count("*")):
            if _covers(essence(media.type), asked):
                return msgspec.structs.replace(media, type=content_type)
        return Media(type=content_type)
    for media in offered:
        if JSON.fullmatch(media.type):
            return media
    if not offered:
        return Media(type="application/json")
    first = offered[0]
    if not essence(first.type).endswith("*"):
        return first
    stands_for = {"*/*": "application/json", "application/*": "application/json"}
    stands_for["text/*"] = "text/plain"
    return msgspec.structs.replace(first, type=stands_for.get(essence(first.type), BYTES))


def _covers(offered: str, asked: str) -> bool:
    return offered in {asked, "*/*"} or offered == f"{asked.partition('/')[0]}/*"


def _encoded(text: str, content_type: str) -> bytes:
    charset = CHARSET.search(content_type)
    try:
        return text.encode(charset[1] if charset else "utf-8")
    except (LookupError, UnicodeEncodeError):
        raise WrongCall(f"req_body must be text that {content_type} can hold") from None


def _bytes(name: str, value: Any) -> bytes:
    try:
        return base64.b64decode(value if isinstance(value, str) else b"=", validate=True)
    except (binascii.Error, ValueError):
        raise WrongCall(f"{name} must be base64 of the bytes to be sent") from None


def _form(media: Media, value: Any, most: int) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if not isinstance(value, dict):
        raise WrongCall(f"req_body must be an object, for {essence(media.type)}")
    return "&".join(within(most, _fields(media, value), f"req_body as {FORM}")).encode()


def _fields(media: Media, value: dict[str, Any]) -> Iterator[str]:
    for name, each in value.items():
        encoding = media.encoding.get(name)
        if each is None:
            continue
        if isinstance(each, dict) and (encoding is None or encoding.content_type):
            yield f"{quote_plus(name)}={quote_plus(as_json(each))}"
            continue
        yield from _property(name, each, encoding or DEFAULT)


def _property(name: str, value: Any, encoding: Encoding) -> Iterable[str]:
    if JSON.fullmatch(encoding.content_type or ""):
        return [f"{quote_plus(name)}={quote_plus(as_json(value))}"]
    shape = shaped(value)
    if shape is None:
        return ()
    encode = reserved if encoding.allow_reserved else quote_plus
    return pairs(name, encoding.style, value, shape, encode, explode=encoding.explode)


def _multipart(media: Media, value: Any, most: int) -> tuple[str, bytes]:
    """Return multipart/form-data (RFC 7578), with a boundary that follows from its parts."""
    if not isinstance(value, dict):
        raise WrongCall(f"req_body must be an object, for {MULTIPART}")
    parts = list(within(most, _parts(media, value), f"req_body as {MULTIPART}"))
    digest = hashlib.sha256(b"\0".join(parts)).hexdigest()
    boundary = f"scheduler-{digest[:40]}"
    line = f"--{boundary}".encode()
    joined = b"".join(line + b"\r\n" + part + b"\r\n" for part in parts)
    return f"{MULTIPART}; boundary={boundary}", joined + line + b"--\r\n"


def _parts(media: Media, value: dict[str, Any]) -> Iterator[bytes]:
    for name, given in value.items():
        encoding = media.encoding.get(name, DEFAULT)
        for each in given if isinstance(given, list) else [given]:
            if each is not None:
                yield _part(name, each, encoding)


def _part(name: str, value: Any, encoding: Encoding) -> bytes:
    kind = encoding.content_type
    disposition = f'Content-Disposition: form-data; name="{_quoted(name)}"'
    if encoding.binary:
        file = _file(name, value)
        kind = file.content_type or kind
        disposition += f'; filename="{_quoted(file.filename or name)}"'
        content = _bytes(f"req_body.{name}", file.content)
        kind = kind if kind and NAMED.fullmatch(kind) and "*" not in kind else BYTES
    elif isinstance(value, dict | list) or JSON.fullmatch(kind or ""):
        kind = kind or "application/json"
        content = as_json(value).encode()
    else:
        content = as_text(value).encode()
    typed = f"\r\nContent-Type: {kind}" if kind and NAMED.fullmatch(kind) else ""
    more = "".join(f"\r\n{key}: {text}" for key, text in encoding.headers.items())
    return f"{disposition}{typed}{more}\r\n\r\n".encode() + content


def _file(name: str, value: Any) -> File:
    if not isinstance(value, dict):
        return File(content=value if isinstance(value, str) else "=")
    try:
        return msgspec.convert(value, File)
    except msgspec.ValidationError:
        raise WrongCall(
            f"req_body.{name} must be base64, or an object of `content` (base64), `filename` "
            "and `content_type`"
        ) from None


def _quoted(name: str) -> str:
    """Return a name as it stands in quotes: what would end it or its line is percent-encoded."""
    return name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
