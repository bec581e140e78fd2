"""From text to what a schema asks for, and what a schema asks for."""

import json
import re
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import unquote

from jsonschema.protocols import Validator
from openapi_core.util import BOOLEAN_FALSE_VALUES, BOOLEAN_TRUE_VALUES

from scheduler.documents.reading import Form, Text, listed

Schema = Any
"""An object; from 3.1 on also true or false."""
ALL: Final = frozenset({"array", "boolean", "integer", "null", "number", "object", "string"})
OF: Final = {
    bool: "boolean", int: "integer", float: "number", str: "string",
    list: "array", dict: "object", type(None): "null",
}  # fmt: skip
INTEGER = re.compile(r"[+-]?[0-9]{1,4000}")
NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
MAX_DEPTH = 32


class Schemas:
    """The schemas of a document, which refer to one another."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document

    def at(self, found: Any) -> Any:
        """Return what stands where references lead. Raises KeyError where they lead nowhere."""
        for _ in range(MAX_DEPTH):
            if not isinstance(found, dict) or not isinstance(found.get("$ref"), str):
                return found
            found = self._looked_up(found["$ref"])
        raise KeyError("$ref")

    def _looked_up(self, reference: str) -> Any:
        if not reference.startswith("#/"):
            raise KeyError(reference)
        found: Any = self._document
        for part in unquote(reference[2:]).split("/"):
            key = part.replace("~1", "/").replace("~0", "~")
            found = found[int(key)] if isinstance(found, list) else found[key]
        return found

    def kinds(self, schema: Schema, depth: int = 0) -> frozenset[str]:
        """Return the JSON types that a schema lets through; all where it does not say."""
        schema = self.at(schema)
        if not isinstance(schema, dict) or depth > MAX_DEPTH:
            return ALL
        kinds = self._own_kinds(schema)
        for each in schema.get("allOf", []):
            kinds = kinds & self.kinds(each, depth + 1) or kinds
        for word in ("anyOf", "oneOf"):
            if schema.get(word):
                one = [self.kinds(each, depth + 1) for each in schema[word]]
                kinds = kinds & frozenset().union(*one) or kinds
        return kinds

    def _own_kinds(self, schema: dict[str, Any]) -> frozenset[str]:
        named = schema.get("type")
        values = schema.get("enum", [schema["const"]] if "const" in schema else [])
        if named:
            kinds = {named} if isinstance(named, str) else set(named)
        elif values:
            kinds = {OF[type(each)] for each in values}
        else:
            return ALL
        if "number" in kinds:
            kinds.add("integer")
        return frozenset(kinds | ({"null"} if schema.get("nullable") else set()))

    def form(self, schema: Schema) -> Form:
        """Return what a style makes of a value for this schema."""
        kinds = self.kinds(schema) - {"null"}
        found = self.at(schema)
        if kinds == ALL - {"null"} and isinstance(found, dict):
            return "object" if "properties" in found else "array" if "items" in found else "one"
        return "array" if kinds == {"array"} else "object" if kinds == {"object"} else "one"

    def properties(self, schema: Schema, depth: int = 0) -> dict[str, Schema]:
        """Return the properties that an object can have by its schema, of all its parts."""
        schema = self.at(schema)
        if not isinstance(schema, dict) or depth > MAX_DEPTH:
            return {}
        found: dict[str, Schema] = dict(schema.get("properties", {}))
        for word in ("allOf", "anyOf", "oneOf"):
            for each in schema.get(word, []):
                found = self.properties(each, depth + 1) | found
        return found

    def _item(self, schema: Schema, index: int) -> Schema:
        for each in self._parts(schema):
            first = each.get("prefixItems", [])
            if index < len(first):
                return first[index]
            if "items" in each:
                return each["items"]
        return {}

    def _parts(self, schema: Schema, depth: int = 0) -> Iterator[dict[str, Any]]:
        schema = self.at(schema)
        if isinstance(schema, dict) and depth <= MAX_DEPTH:
            yield schema
            for word in ("allOf", "anyOf", "oneOf"):
                for each in schema.get(word, []):
                    yield from self._parts(each, depth + 1)

    def cast(self, schema: Schema, text: Text, validator: Validator) -> Any:
        """Return what a text means to a schema; a text that it cannot mean stays one.

        Where it can mean several things, it is the first that is valid.
        """
        if isinstance(text, dict) and "array" in self.kinds(schema):
            text = self._listed(schema, text)
        if isinstance(text, list):
            items = enumerate(text)
            return [self.cast(self._item(schema, at), each, validator) for at, each in items]
        if isinstance(text, dict):
            known, other = self.properties(schema), self._additional(schema)
            return {
                key: self.cast(known.get(key, other), each, validator) for key, each in text.items()
            }
        meanings = list(self._meanings(schema, text, validator))
        if len(meanings) > 1:
            judge = validator.evolve(schema=schema)
            return next((each for each in meanings if judge.is_valid(each)), meanings[0])
        return meanings[0] if meanings else text

    def _listed(self, schema: Schema, found: dict[str, Text]) -> Text:
        """Return an array that is written in brackets as one."""
        as_array = listed(found)
        sure = as_array is not None and ("" in found or "object" not in self.kinds(schema))
        return as_array if sure else found

    def _additional(self, schema: Schema) -> Schema:
        found = [each.get("additionalProperties") for each in self._parts(schema)]
        return next((each for each in found if isinstance(each, dict)), {})

    def _meanings(self, schema: Schema, text: str, validator: Validator) -> Iterator[Any]:
        kinds = self.kinds(schema)
        if kinds >= ALL:
            yield text
        if "boolean" in kinds and text.lower() in BOOLEAN_TRUE_VALUES + BOOLEAN_FALSE_VALUES:
            yield text.lower() in BOOLEAN_TRUE_VALUES
        if "integer" in kinds and INTEGER.fullmatch(text):
            yield int(text)
        elif kinds & {"number", "integer"} and NUMBER.fullmatch(text):
            yield float(text)
        if "null" in kinds and text in {"", "null"}:
            yield None
        if kinds & {"array", "object"} and text[:1] in {"[", "{"}:
            yield from _parsed(text)
        if "string" in kinds and kinds != ALL:
            yield text
        if "array" in kinds and kinds != ALL:
            yield [self.cast(self._item(schema, 0), text, validator)]


def _parsed(text: str) -> Iterator[Any]:
    try:
        yield json.loads(text)
    except (ValueError, RecursionError):
        return
