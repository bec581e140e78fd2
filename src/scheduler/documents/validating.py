"""Validating: a document is held against the rules of OpenAPI. Child processes only."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Never

import jsonschema_rs
from jsonschema.exceptions import ValidationError
from jsonschema.validators import validator_for
from jsonschema_specifications import REGISTRY as SPECIFICATIONS
from openapi_schema_validator import OAS31Validator, oas31_format_checker
from openapi_schema_validator._specifications import REGISTRY as OPENAPI_SPECIFICATIONS
from openapi_spec_validator import OpenAPIV30SpecValidator, OpenAPIV31SpecValidator
from openapi_spec_validator.schemas import schema_v30, schema_v31
from openapi_spec_validator.validation.exceptions import (
    ExtraParametersError,
    OpenAPIValidationError,
    ParameterDuplicateError,
    UnresolvableParameterError,
)
from openapi_spec_validator.validation.keywords import (
    OpenAPIV30SchemaValidator,
    OpenAPIV30ValueValidator,
    OpenAPIV31SchemaValidator,
    OpenAPIV31ValueValidator,
    OperationValidator,
)
from referencing import Resource

from scheduler.documents.notation import TOP, Path, Wrong, quoted

ELSEWHERE = (ExtraParametersError, ParameterDuplicateError, UnresolvableParameterError)
"""A property that is required and not described is none; the others are of one operation alone."""


class _Placed(OpenAPIValidationError):
    """An error of a keyword, with the place that the keyword itself does not know."""


def _placed(errors: Iterator[ValidationError], parts: Sequence[Any]) -> Iterator[ValidationError]:
    for error in errors:
        if isinstance(error, (_Placed, *ELSEWHERE)):
            yield error
            continue
        placed = _Placed.create_from(error)
        placed.path.extendleft(reversed(parts))
        yield placed


class _Schema30(OpenAPIV30SchemaValidator):
    def __call__(self, schema: Any, *rest: Any, **options: Any) -> Iterator[ValidationError]:
        return _placed(super().__call__(schema, *rest, **options), schema.parts)

    def _collect_properties(self, schema: Any) -> set[str]:  # noqa: ARG002
        return set()  # for ExtraParametersError alone; loops in schemas never ended it


class _Rules:
    """Rules that documents, or schemas, are held against: in Rust, and where it finds a fault, in
    Python, which says what it is. Most have none, and then it takes a thousandth of the time.
    """

    def __init__(self, schema: Any, registry: Any, **options: Any) -> None:
        known = [(uri, registry.contents(uri)) for uri in registry]
        self._quick = jsonschema_rs.validator_for(
            dict(schema),
            registry=jsonschema_rs.Registry(known, retriever=_never),
            validate_formats=bool(options),
        )
        self._thorough = _ready(schema, registry, **options)

    def iter_errors(self, instance: Any) -> Iterator[ValidationError]:
        """Find what is wrong."""
        if not self._is_valid(instance):
            yield from self._thorough.iter_errors(instance)

    def validate(self, instance: Any) -> None:
        """Raise ValidationError for what is best to be mended first."""
        if not self._is_valid(instance):
            self._thorough.validate(instance)

    def _is_valid(self, instance: Any) -> bool:
        try:
            return bool(self._quick.is_valid(instance))
        except ValueError:  # it cannot hold every number, or every depth
            return False


def _never(uri: str) -> Never:
    raise ValueError(f"{uri} is not among the rules, and nothing is fetched")


def _ready(schema: Any, registry: Any, **options: Any) -> Any:
    """Return a validator of documents, or schemas, that has looked through its rules once."""
    contents = dict(schema)
    resource = Resource.from_contents(contents)
    whole = registry.with_resource(resource.id() or "", resource).crawl()
    kind = validator_for(contents)
    return kind(contents, _resolver=whole.resolver(resource.id() or ""), **options)


PATTERNS = jsonschema_rs.validator_for({"format": "regex"}, validate_formats=True)
CLASS_AND_HYPHEN = re.compile(r"\\[dDsSwW]-(?!\])|-\\[dDsSwW]")
IDENTITY = re.compile(r"((?:^|[^\\])(?:\\\\)*)\\([AGZhz])")
RULES_30 = _Rules(schema_v30, SPECIFICATIONS)
RULES_31 = _Rules(schema_v31, SPECIFICATIONS)
RULES_31_SCHEMA = _Rules(
    OAS31Validator.META_SCHEMA, OPENAPI_SPECIFICATIONS, format_checker=oas31_format_checker
)


class _Schema31(OpenAPIV31SchemaValidator):
    def __call__(self, schema: Any, *rest: Any, **options: Any) -> Iterator[ValidationError]:
        return _placed(super().__call__(schema, *rest, **options), schema.parts)

    def _collect_properties(self, schema: Any) -> set[str]:  # noqa: ARG002
        return set()

    def _get_schema_checker(self, schema: Any, value: Any) -> Callable[[Any], None]:  # noqa: ARG002
        return RULES_31_SCHEMA.validate


class _Default30(OpenAPIV30ValueValidator):
    def __call__(self, schema: Any, value: Any) -> Iterator[ValidationError]:
        return _of_default(super().__call__(schema, value), schema, value)


class _Default31(OpenAPIV31ValueValidator):
    def __call__(self, schema: Any, value: Any) -> Iterator[ValidationError]:
        return _of_default(super().__call__(schema, value), schema, value)


def _of_default(
    errors: Iterator[ValidationError], schema: Any, value: Any
) -> Iterator[ValidationError]:
    if value is not None:  # many write null for none
        with suppress(re.error):  # a pattern that is right, and not one of Python's
            yield from _placed(errors, (*schema.parts, "default"))


class _Operation(OperationValidator):
    def __call__(self, url: str, name: str, *rest: Any) -> Iterator[ValidationError]:
        return _placed(super().__call__(url, name, *rest), ("paths", url, name))

    def _get_path_params_from_url(self, url: str) -> Iterator[str]:  # noqa: ARG002
        return iter(())  # for UnresolvableParameterError alone; it trips over braces


class _Validator30(OpenAPIV30SpecValidator):
    keyword_validators = {  # noqa: RUF012
        **OpenAPIV30SpecValidator.keyword_validators,
        "default": _Default30,
        "schema": _Schema30,
        "operation": _Operation,
    }
    schema_validator = RULES_30
    resolver_handlers = {}  # noqa: RUF012


class _Validator31(OpenAPIV31SpecValidator):
    keyword_validators = {  # noqa: RUF012
        **OpenAPIV31SpecValidator.keyword_validators,
        "default": _Default31,
        "schema": _Schema31,
        "operation": _Operation,
    }
    schema_validator = RULES_31
    resolver_handlers = {}  # noqa: RUF012


class Tripped(Wrong):
    """The validator tripped over what its rules do not catch, and does not know the place."""


def validate(document: dict[str, Any]) -> None:
    """Raise Wrong for what is best to be mended first."""
    validator = _Validator30 if document["openapi"].startswith("3.0.") else _Validator31
    try:
        error = next(_errors(validator(document)), None)
    except (RecursionError, MemoryError):
        raise
    except Exception as e:  # noqa: BLE001
        what = quoted(f"{type(e).__name__}: {e}")
        raise Tripped(TOP, f"is no valid OpenAPI document ({what})") from None
    if error is not None:
        raise _wrong(error)


def _errors(validator: Any) -> Iterator[ValidationError]:
    for error in validator.iter_errors():
        if not isinstance(error, ELSEWHERE) and not _is_pattern(error):
            yield error


def _is_pattern(error: ValidationError) -> bool:
    r"""Tell whether it is only that a pattern (ECMA-262) is none of Python's.

    By its annex B, which everyone goes by, `-` beside a class and a letter that needs no escape
    are themselves: `[\w-.]`, and the `\A` and `\z` of other languages.
    """
    if error.validator != "format" or error.validator_value != "regex":
        return False
    strict = CLASS_AND_HYPHEN.sub(lambda found: found[0].replace("-", r"\-"), str(error.instance))
    return any(map(PATTERNS.is_valid, (error.instance, IDENTITY.sub(r"\1\2", strict))))


def _wrong(error: ValidationError) -> Wrong:
    beside = [error]
    while error.context:  # where one of several rules must hold, the one that comes furthest
        beside = error.context
        error = max(beside, key=_telling)
    return Wrong(_path(error.absolute_path), _message(error, beside))


def _telling(error: ValidationError) -> tuple[int, bool]:
    nearly = error.validator == "required" and error.validator_value == ["$ref"]
    return max(len(error.absolute_path), *map(_depth, error.context or ()), 0), not nearly


def _depth(error: ValidationError) -> int:
    return len(error.absolute_path)


def _path(steps: Iterable[Any]) -> Path:
    path = TOP
    for step in steps:
        path = (path, step)
    return path


def _message(error: ValidationError, beside: Iterable[ValidationError]) -> str:
    """Return what is wrong, and what would be right."""
    rule, value = error.validator, error.validator_value
    if rule == "enum":
        right = {str(word): None for other in beside for word in _words(other, error)}
        return f"{quoted(error.instance)} is none of {quoted(', '.join(right))}"
    if rule == "type":
        names = value if isinstance(value, str) else " or ".join(map(str, value or ()))
        return f"{quoted(error.instance)} is no {names}"
    if rule == "required" and isinstance(error.instance, dict):
        missing = [name for name in value or () if name not in error.instance]
        return f"has no {quoted(', '.join(map(str, missing)))}, which is required"
    if list(error.absolute_path) == ["paths"]:
        return f"{quoted(error.message)}; a path begins with /"
    return quoted(error.message)


def _words(other: ValidationError, error: ValidationError) -> list[Any]:
    same = other.validator == "enum" and other.absolute_path == error.absolute_path
    return list(other.validator_value) if same else []
