"""Samples: values that a schema allows, made of the schema itself, to try a document out."""

import base64
import math
import re
from typing import Any

import msgspec

from scheduler.documents import schemas
from scheduler.documents.references import resolved

DEPTH = 12
MOST = 2000
"""Values in one sample."""
LONGEST = 10_000
"""Characters that a sample, or one of its lists, is filled up to where its schema wants many."""
FORMATS = {
    "date": "2026-01-31",
    "date-time": "2026-01-31T12:00:00Z",
    "time": "12:00:00Z",
    "duration": "PT1H",
    "uuid": "123e4567-e89b-42d3-a456-426614174000",
    "email": "someone@example.com",
    "idn-email": "someone@example.com",
    "hostname": "example.com",
    "idn-hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/",
    "url": "https://example.com/",
    "iri": "https://example.com/",
    "uri-reference": "/example",
    "iri-reference": "/example",
    "uri-template": "/example/{id}",
    "json-pointer": "/example",
    "relative-json-pointer": "0",
    "regex": "a",
    "byte": base64.b64encode(b"example").decode(),
    "binary": base64.b64encode(b"example").decode(),
}
WORDS = ("example", "a", "A", "1", "a1", "A1", "12345", "ABC", "abc-123", "+15550100", "#aabbcc",
         "1.0.0", "2026-01-31", "en", "en-US", "EUR", "a@example.com", "123e4567")  # fmt: skip
UNSURE = {"not", "if", "contains", "propertyNames", "dependentSchemas", "dependentRequired",
          "dependencies", "unevaluatedProperties", "patternProperties"}  # fmt: skip
"""What samples are not made to fit."""


class Sampler:
    """Makes one sample; `examples` says whether those of the document are taken first."""

    def __init__(self, document: dict[str, Any], *, examples: bool) -> None:
        self._document = document
        self._examples = examples
        self._made = 0
        self.sure = True
        """The sample fits its schema, as far as that can be known."""

    def of_media(self, node: Any) -> Any:
        """Return a value of a media type, or of a parameter: its example, or one of its schema."""
        if not isinstance(node, dict):
            return self.of(None)
        if self._examples:
            if "example" in node:
                return node["example"]
            named = node.get("examples")
            for each in named.values() if isinstance(named, dict) else ():
                found = resolved(self._document, each)
                if isinstance(found, dict) and "value" in found:
                    return found["value"]
        return self.of(node.get("schema"))

    def of(self, schema: Any, above: tuple[int, ...] = ()) -> Any:
        """Return a value of a schema; `above` are the ids of those around it."""
        node = resolved(self._document, schema)
        self._made += 1
        if not isinstance(node, dict):
            return "example"
        if id(node) in above or len(above) > DEPTH or self._made > MOST:
            return self._cut(node)
        said = self._said(node)
        if said:
            return said[0]
        parts = list(schemas.parts(self._document, node))
        self.sure &= not any(part.keys() & UNSURE for part in parts)
        above = (*above, id(node))
        for part in parts:
            for key in ("oneOf", "anyOf"):
                if part.get(key):
                    return self._chosen(parts, part, key, above)
        return self._of_type(parts, above)

    def _cut(self, node: dict[str, Any]) -> Any:
        """End a loop, or what has grown too large."""
        self.sure = False
        kind = schemas.type_of(self._document, node)
        return {"object": {}, "array": [], "string": "example", "boolean": True}.get(kind or "")

    def _said(self, node: dict[str, Any]) -> list[Any]:
        """Return the values that a schema names itself."""
        for part in schemas.parts(self._document, node):
            if self._examples:
                if "example" in part:
                    return [part["example"]]
                if isinstance(part.get("examples"), list) and part["examples"]:
                    return list(part["examples"])
            if "const" in part:
                return [part["const"]]
            if part.get("default") is not None:
                return [part["default"]]
            if isinstance(part.get("enum"), list):
                return [each for each in part["enum"] if each is not None] or list(part["enum"])
        return []

    def _chosen(
        self, parts: list[dict[str, Any]], part: dict[str, Any], key: str, above: tuple[int, ...]
    ) -> Any:
        """Return a value of the first choice that leads to an end, and of what stands beside."""
        nodes = [(each, resolved(self._document, each)) for each in part[key]]
        open_to = [pair for pair in nodes if id(pair[1]) not in above and _no_null(pair[1])]
        self.sure &= key == "anyOf" or "discriminator" in part or len(open_to) < 2
        written, node = (open_to or nodes)[0]
        value = self.of(node, above)
        if not isinstance(value, dict):
            return value
        beside = self._object(parts, above)
        named = part.get("discriminator")
        if isinstance(named, dict) and isinstance(named.get("propertyName"), str):
            reference = written.get("$ref", "") if isinstance(written, dict) else ""
            mapping = named.get("mapping")
            names = [name for name, to in (mapping or {}).items() if to == reference]
            value[named["propertyName"]] = names[0] if names else reference.rsplit("/", 1)[-1]
        return {**beside, **value}

    def _of_type(self, parts: list[dict[str, Any]], above: tuple[int, ...]) -> Any:
        kind = schemas.type_of(self._document, parts[0])
        limits = _limits(parts)
        if kind == "object" or (kind is None and any("properties" in part for part in parts)):
            return self._object(parts, above)
        if kind == "array" or (kind is None and any("items" in part for part in parts)):
            return self._array(parts, limits, above)
        if kind in ("integer", "number"):
            return self._number(kind, limits)
        if kind == "boolean":
            return True
        self.sure &= kind == "string"
        return self._string(limits)

    def _object(self, parts: list[dict[str, Any]], above: tuple[int, ...]) -> dict[str, Any]:
        named: dict[str, Any] = {}
        required: dict[str, None] = {}
        for part in parts:
            if isinstance(part.get("properties"), dict):
                named = {**part["properties"], **named}
            if isinstance(part.get("required"), list):
                required.update(dict.fromkeys(part["required"]))
        sent = [name for name in required if not self._only_read(named.get(name))]
        found = {name: self.of(named.get(name), above) for name in sent}
        least = max((part.get("minProperties", 0) for part in parts), default=0)
        for name in named:
            if len(found) >= least:
                break
            if name not in found and not self._only_read(named[name]):
                found[name] = self.of(named[name], above)
        for index in range(len(found), min(least, LONGEST)):
            found[f"example{index}"] = "example"
            self.sure = False
        return found

    def _only_read(self, schema: Any) -> bool:
        """Tell whether a property is answered, and not sent."""
        return schemas.said(self._document, schema, "readOnly") is True

    def _array(
        self, parts: list[dict[str, Any]], limits: dict[str, Any], above: tuple[int, ...]
    ) -> list[Any]:
        least, most = limits.get("minItems", 1) or 1, limits.get("maxItems", math.inf)
        items = next((part["items"] for part in parts if "items" in part), None)
        self.sure &= not any("prefixItems" in part for part in parts)
        self.sure &= least < 2 or not limits.get("uniqueItems")
        if most < 1:
            return []
        one = self.of(items, above)
        if least * len(msgspec.json.encode(one)) > LONGEST:
            self.sure, least = False, 1
        return [one] * least

    def _number(self, kind: str, limits: dict[str, Any]) -> float:
        whole = kind == "integer" or "multipleOf" in limits
        step: float = limits.get("multipleOf") or 1
        low = _bound(limits, "inimum", -math.inf, step / 2 if whole else 0)
        high = _bound(limits, "aximum", math.inf, -step / 2 if whole else 0)
        if low < 1 < high and "multipleOf" not in limits:
            return 1
        if low == -math.inf and high == math.inf:
            return step
        if not whole:
            inside = (low + high) / 2 if high < math.inf else low + 1
            return inside if low > -math.inf else high - 1
        value = math.ceil(low / step) * step if low > -math.inf else math.floor(high / step) * step
        self.sure &= low <= value <= high
        return int(value) if kind == "integer" else value

    def _string(self, limits: dict[str, Any]) -> str:
        least = limits.get("minLength", 0)
        most = limits.get("maxLength", math.inf)
        form = limits.get("format")
        if "contentMediaType" in limits or "contentEncoding" in limits:
            form = "binary"
        word = FORMATS.get(form, "example") if isinstance(form, str) else "example"
        pattern = limits.get("pattern")
        if isinstance(pattern, str):
            fitting = [each for each in (word, *WORDS) if _fits(pattern, each, least, most)]
            self.sure &= bool(fitting)
            return fitting[0] if fitting else word
        if len(word) < least:
            word += "e" * (min(least, LONGEST) - len(word))
        self.sure &= least <= LONGEST and (form in (None, *FORMATS) or len(word) <= most)
        return word[:most] if len(word) > most else word


def _limits(parts: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for part in parts:
        found = {**part, **found}
    return found


def _no_null(node: Any) -> bool:
    return not isinstance(node, dict) or node.get("type") != "null"


def _bound(limits: dict[str, Any], name: str, none: float, inside: float) -> float:
    """Return a bound, with what is excluded (OpenAPI 3.0 says so beside it) left out."""
    found: float = limits.get(f"m{name}", none)
    excluded = limits.get(f"exclusiveM{name}", False)
    if isinstance(excluded, bool):
        return found + inside if excluded else found
    further: float = max(found, excluded) if none < 0 else min(found, excluded)
    return further + inside if further == excluded else further


def _fits(pattern: str, word: str, least: float, most: float) -> bool:
    try:
        return least <= len(word) <= most and re.search(pattern, word) is not None
    except re.error:
        return False
