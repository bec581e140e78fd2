"""Schemas: what those of a document obviously say about a value, through references and `allOf`."""

from collections.abc import Iterator
from typing import Any

from scheduler.documents.references import resolved


def parts(document: dict[str, Any], schema: Any) -> Iterator[dict[str, Any]]:
    """Yield a schema and what it is combined of with `allOf`, each once."""
    seen: set[int] = set()
    waiting = [schema]
    while waiting:
        one = resolved(document, waiting.pop())
        if not isinstance(one, dict) or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        waiting += reversed(one.get("allOf") or ())


def said(document: dict[str, Any], schema: Any, key: str) -> Any:
    """Return what a schema says first under a key; None where it says nothing."""
    return next((one[key] for one in parts(document, schema) if key in one), None)


def type_of(document: dict[str, Any], schema: Any) -> str | None:
    """Return the one type that a value has, null apart; None where there is none, or several."""
    for one in parts(document, schema):
        names = _names(one.get("type"))
        for key in ("anyOf", "oneOf"):
            for each in one.get(key) or ():
                found = resolved(document, each)
                names += _names(found.get("type")) or ["?"] if isinstance(found, dict) else ["?"]
        kinds = set(names) - {"null"}
        if kinds:
            only = kinds.pop()
            return only if not kinds and only != "?" else None
    return None


def _names(written: Any) -> list[str]:
    if isinstance(written, str):
        return [written]
    return [name for name in written if isinstance(name, str)] if isinstance(written, list) else []


def choices(document: dict[str, Any], schema: Any) -> list[Any] | None:
    """Return the values that are allowed, where they are listed."""
    for one in parts(document, schema):
        if isinstance(one.get("enum"), list):
            return list(one["enum"])
        if "const" in one:
            return [one["const"]]
    return None


def properties(document: dict[str, Any], schema: Any) -> dict[str, Any]:
    """Return the properties of an object, by name; those named first win."""
    found: dict[str, Any] = {}
    for one in parts(document, schema):
        named = one.get("properties")
        for name, each in named.items() if isinstance(named, dict) else ():
            found.setdefault(name, each)
    return found


def is_binary(document: dict[str, Any], schema: Any) -> bool:
    """Tell whether a value is bytes that are sent as they are (OpenAPI 3.1, 4.8.14.4)."""
    items = said(document, schema, "items")
    if items is not None and type_of(document, schema) == "array":
        return is_binary_item(document, items)
    return is_binary_item(document, schema)


def is_binary_item(document: dict[str, Any], schema: Any) -> bool:
    """Tell the same of one value."""
    if said(document, schema, "format") == "binary":
        return True
    media = said(document, schema, "contentMediaType")
    return isinstance(media, str) and said(document, schema, "contentEncoding") is None
