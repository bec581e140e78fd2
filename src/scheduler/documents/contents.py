"""Bodies back from a request as it would be sent: values that a schema can be held against."""

import json
import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any, TypeVar
from urllib.parse import unquote_plus

from jsonschema.protocols import Validator

from scheduler.documents import reading
from scheduler.documents.casting import Schemas

T = TypeVar("T")

JSON = re.compile(r"(?:application|text)/(?:[^;]*\+)?json\s*(?:;.*)?", re.IGNORECASE)
BOUNDARY = re.compile(r"boundary=\"?([^\";]+)")
NAME = re.compile(r'name="([^"]*)"')
ESCAPED = {"%22": '"', "%0D": "\r", "%0A": "\n"}


class Wrong(Exception):
    """What is wrong, in a sentence."""


class Unjudged(Exception):
    """Nothing here can read such a body."""


def from_json(name: str, text: Any) -> Any:
    """Return what a JSON text holds. Raises Wrong."""
    try:
        return json.loads(text)
    except (TypeError, ValueError) as error:
        raise Wrong(f"{name} must be JSON") from error


def media(offered: Mapping[str, T | None], content_type: str) -> T | None:
    """Return what a document says of a content type, None where it says nothing."""
    essence = content_type.partition(";")[0].strip().lower()
    for asked in (content_type.lower(), essence):
        if asked in offered:
            return offered[asked]
    for name, each in offered.items():
        if fnmatchcase(essence, name.partition(";")[0].strip()):
            return each
    return None


def read(
    content_type: str, body: bytes, media: dict[str, Any], schemas: Schemas, validator: Validator
) -> Any:
    """Return what a body holds. Raises Wrong, and Unjudged where it is of no type known here."""
    essence = content_type.partition(";")[0].strip().lower()
    schema = media["schema"]
    if JSON.fullmatch(content_type):
        return from_json("req_body", body)
    if essence == "application/x-www-form-urlencoded":
        return _form(body.decode(), media, schemas, validator)
    if essence == "multipart/form-data":
        return schemas.cast(schema, _parts(content_type, body), validator)
    if essence.startswith("text/") and essence != "text/xml":
        return schemas.cast(schema, body.decode(), validator)
    raise Unjudged(essence)


def _form(text: str, media: dict[str, Any], schemas: Schemas, validator: Validator) -> Any:
    schema, sent = media["schema"], reading.pairs(text)
    known = schemas.properties(schema)
    found: dict[str, Any] = {}
    taken: set[str] = set()
    for name, each in known.items():
        inside = set(schemas.properties(each))
        encoding = media.get("encoding", {}).get(name, {})
        style, explode = _style(encoding)
        form = "one" if _is_json(encoding) else schemas.form(each)
        if form == "object" and (style is None or any(name == key for key, _ in sent)):
            style, explode, form = "form", True, "one"
        try:
            found[name] = reading.in_pairs(
                sent, name, style or "form", form, inside, explode=explode
            )
        except reading.Missing:
            continue
        taken |= {name, *inside} if form == "object" else {name}
    for name, value in sent:
        if name not in taken and "[" not in name:
            reading.gather(found, name, unquote_plus(value))
    return schemas.cast(schema, found, validator)


def _is_json(encoding: dict[str, Any]) -> bool:
    return JSON.fullmatch(encoding.get("contentType", "")) is not None


def _style(encoding: dict[str, Any]) -> tuple[str | None, bool]:
    if not encoding.keys() & {"style", "explode", "allowReserved"}:
        return None, True
    style = encoding.get("style", "form")
    return style, encoding.get("explode", style == "form")


def _parts(content_type: str, body: bytes) -> dict[str, Any]:
    """Return the parts of multipart/form-data (RFC 7578), one that comes twice as an array."""
    boundary = BOUNDARY.search(content_type)
    if not boundary:
        raise Unjudged(content_type)
    found: dict[str, Any] = {}
    for part in body.split(f"--{boundary[1]}".encode())[1:-1]:
        head, _, content = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        name = NAME.search(head.decode())
        if not name:
            raise Unjudged(content_type)
        plain = re.sub("%22|%0D|%0A", lambda match: ESCAPED[match[0]], name[1])
        reading.gather(found, plain, _text(content.removesuffix(b"\r\n")))
    return found


def _text(content: bytes) -> str:
    """Return bytes as a text; where they are none, as one of as many characters."""
    try:
        return content.decode()
    except UnicodeDecodeError:
        return content.decode("latin-1")
