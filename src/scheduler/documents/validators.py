"""What openapi-core checks values with, made exact where it judges wrongly."""

import json
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any

from jsonschema import FormatChecker
from jsonschema.exceptions import ValidationError
from jsonschema.protocols import Validator
from jsonschema.validators import extend
from jsonschema_path import SchemaPath
from openapi_core.validation.schemas import (
    oas30_write_schema_validators_factory,
    oas31_schema_validators_factory,
)
from openapi_core.validation.schemas.factories import SchemaValidatorsFactory


def factory(version: str) -> SchemaValidatorsFactory:
    """Return what makes validators for documents of a version of OpenAPI."""
    return _FACTORIES["3.0" if version.startswith("3.0") else "3.1"]


def _multiple_of(
    validator: Validator, wanted: Any, instance: Any, _: Mapping[str, Any]
) -> Iterator[ValidationError]:
    """Compare decimal numbers as they are written: 1.1 is a multiple of 0.01."""
    if not validator.is_type(instance, "number"):
        return
    try:
        fits = Decimal(str(instance)) % Decimal(str(wanted)) == 0
    except (InvalidOperation, ZeroDivisionError):
        return
    if not fits:
        yield ValidationError(f"{instance!r} is not a multiple of {wanted!r}")


def _pattern(
    validator: Validator, wanted: str, instance: Any, _: Mapping[str, Any]
) -> Iterator[ValidationError]:
    """Search for a pattern; one that Python cannot read (they are ECMA 262) says nothing."""
    if not validator.is_type(instance, "string"):
        return
    try:
        found = _compiled(wanted).search(instance)
    except (re.error, RecursionError, OverflowError):
        return
    if not found:
        yield ValidationError(f"{instance!r} does not match {wanted!r}")


@lru_cache(1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    # ECMA's $ is the very end, and its \d is ASCII
    return re.compile(re.sub(r"(?<!\\)((?:\\\\)*)\$$", r"\1\\Z", pattern), re.ASCII)


def _required(
    validator: Validator, wanted: list[str], instance: Any, schema: Mapping[str, Any]
) -> Iterator[ValidationError]:
    """Ask for properties, but for those that are read only: they are answered, and not sent."""
    if not validator.is_type(instance, "object"):
        return
    for name in wanted:
        if name not in instance and not _only_read(validator, schema, name):
            yield ValidationError(f"{name!r} is a required property")


def _read_only(*_: Any) -> Iterator[ValidationError]:
    """Let what is read only be sent: who changes what a GET answered sends it back. It should not
    be sent, and a target that minds says so (OpenAPI 3.0.3, 4.7.24.2).
    """
    yield from ()


def _only_read(validator: Validator, schema: Mapping[str, Any], name: str) -> bool:
    own = schema.get("properties", {}).get(name)
    resolver: Any = getattr(validator, "_resolver")  # noqa: B009 - as jsonschema's own `$ref` does
    waiting, seen = [(own, resolver)], set[int]()
    while waiting:
        one, where = waiting.pop()
        if not isinstance(one, Mapping) or id(one) in seen:
            continue
        seen.add(id(one))
        if one.get("readOnly") is True:
            return True
        waiting += [(each, where) for each in one.get("allOf") or ()]
        if isinstance(one.get("$ref"), str):
            found = where.lookup(one["$ref"])
            waiting.append((found.contents, found.resolver))
    return False


def _listed(rule: Any) -> Any:
    """Have what is listed, and its own type rules out, like 1 for a string, stand for its text."""

    def held(
        validator: Validator, wanted: list[Any], instance: Any, schema: Mapping[str, Any]
    ) -> Iterator[ValidationError]:
        wrong = list(rule(validator, wanted, instance, schema))
        kinds = schema.get("type") or ()
        kinds = [kinds] if isinstance(kinds, str) else kinds
        if not wrong or not kinds or isinstance(instance, dict | list | None):
            yield from wrong
            return
        odd = [each for each in wanted if not any(validator.is_type(each, kind) for kind in kinds)]
        if not any(each is not None and _text(each) == _text(instance) for each in odd):
            yield from wrong

    return held


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _null_or(rule: Any) -> Any:
    """Have `nullable` hold for what is combined, too: so most write it beside a reference."""

    def held(
        validator: Validator, wanted: Any, instance: Any, schema: Mapping[str, Any]
    ) -> Iterator[ValidationError]:
        if instance is not None or schema.get("nullable") is not True:
            yield from rule(validator, wanted, instance, schema) or ()

    return held


_EXACT: dict[str, Any] = {
    "multipleOf": _multiple_of,
    "pattern": _pattern,
    "readOnly": _read_only,
    "required": _required,
}
COMBINED = ("allOf", "anyOf", "oneOf")


class _Exact(SchemaValidatorsFactory):
    """Makes exact validators; a schema of another dialect is checked as that asks."""

    def __init__(self, original: SchemaValidatorsFactory, *, nullable: bool) -> None:
        super().__init__(original.schema_validator_cls, original.format_checker)
        self._original = original
        rules = original.schema_validator_cls.VALIDATORS
        exact = _EXACT | {"enum": _listed(rules["enum"])}
        exact |= {word: _null_or(rules[word]) for word in COMBINED if nullable}
        self._exact = extend(original.schema_validator_cls, exact)

    def get_validator_cls(self, spec: SchemaPath, schema: SchemaPath) -> type[Validator]:
        asked = self._original.get_validator_cls(spec, schema)
        return self._exact if asked is self.schema_validator_cls else asked

    def get_format_checker(self, *_: Any) -> FormatChecker:
        # the original copies it for each validator
        return self.format_checker


_FACTORIES = {
    "3.0": _Exact(oas30_write_schema_validators_factory, nullable=True),
    "3.1": _Exact(oas31_schema_validators_factory, nullable=False),
}
