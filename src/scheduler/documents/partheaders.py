"""Headers of the parts of multipart bodies: those of which a document says the value."""

from typing import Any

from scheduler.documents import schemas
from scheduler.documents.references import resolved
from scheduler.documents.styles import JSON, as_json, as_text, plain, shaped, simple
from scheduler.target import check_header

OURS = {"content-disposition", "content-type", "content-length", "content-transfer-encoding"}
"""What is written of the part itself; Content-Type is described elsewhere (OpenAPI 3.1, 4.8.15)."""
VALUE_MOST = 4096
"""Characters."""


def part_headers(document: dict[str, Any], written: Any) -> dict[str, str]:
    """Return the headers that an encoding (OpenAPI 3.1, 4.8.15) has its part sent with.

    Nobody can give one in a call, so its value is what its schema says: the only one that is
    allowed, or the default; of one that is required also the example. One without any, or of a
    value that no header can have, is left out.
    """
    found = {}
    for name, each in written.items() if isinstance(written, dict) else ():
        header = resolved(document, each)
        if not isinstance(header, dict) or name.lower() in OURS:
            continue
        text = _text(header, _value(document, header))
        if text is not None and _sendable(name, text):
            found[name] = text
    return found


def _value(document: dict[str, Any], header: dict[str, Any]) -> Any:
    schema = _schema(header)
    choices = schemas.choices(document, schema)
    if choices is not None and len(choices) == 1:
        return choices[0]
    default = schemas.said(document, schema, "default")
    if default is not None or header.get("required") is not True:
        return default
    return _example(document, header, schema)


def _schema(header: dict[str, Any]) -> Any:
    media = _content(header)[1]
    return header.get("schema", media.get("schema"))


def _content(header: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the media type that a header's value is written as, and what is said of it."""
    content = header.get("content")
    if isinstance(content, dict):
        for kind, media in content.items():
            return kind, media if isinstance(media, dict) else {}
    return "", {}


def _example(document: dict[str, Any], header: dict[str, Any], schema: Any) -> Any:
    for place in (header, _content(header)[1]):
        if "example" in place:
            return place["example"]
        named = place.get("examples")
        for each in named.values() if isinstance(named, dict) else ():
            one = resolved(document, each)
            if isinstance(one, dict) and "value" in one:
                return one["value"]
    listed = schemas.said(document, schema, "examples")
    if isinstance(listed, list) and listed:
        return listed[0]
    return schemas.said(document, schema, "example")


def _text(header: dict[str, Any], value: Any) -> str | None:
    kind, _ = _content(header)
    if value is None:
        return None
    if kind:
        return as_json(value) if JSON.fullmatch(kind) else as_text(value)
    shape = shaped(value)
    return None if shape is None else simple(shape, plain, explode=header.get("explode") is True)


def _sendable(name: str, text: str) -> bool:
    try:
        check_header(name, text)
    except ValueError:
        return False
    return len(text) <= VALUE_MOST
