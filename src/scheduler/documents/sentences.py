"""What is wrong with a value, in a sentence that says what would be right."""

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

from jsonschema.exceptions import ValidationError, best_match

from scheduler.masking import is_hidden

CALLED: Final = {
    "array": "an array", "boolean": "true or false", "integer": "an integer", "null": "null",
    "number": "a number", "object": "an object", "string": "a string",
}  # fmt: skip
BOUNDS: Final = {
    "minimum": "at least", "maximum": "at most",
    "exclusiveMinimum": "more than", "exclusiveMaximum": "less than",
    "multipleOf": "a multiple of",
}  # fmt: skip
SIZES: Final = {
    "minLength": "at least {} characters", "maxLength": "at most {} characters",
    "minItems": "at least {} items", "maxItems": "at most {} items",
    "minProperties": "at least {} properties", "maxProperties": "at most {} properties",
}  # fmt: skip
MAX_SHOWN = 80
PLAIN = re.compile(r"[\w$@-]{1,80}")


def required(place: str) -> str:
    """Say that something is missing."""
    return f"{place} is required and must be specified"


def place(name: str, path: Iterable[str | int]) -> str:
    """Return where something stands, like `req_body.pets[0].name`."""
    return name + "".join([_step(each) for each in path])


def _step(each: str | int) -> str:
    if isinstance(each, int):
        return f"[{each}]"
    return f".{each}" if PLAIN.fullmatch(each) else f"[{json.dumps(each[:MAX_SHOWN])}]"


def sentence(name: str, errors: Sequence[ValidationError], *, hidden: bool = False) -> str:
    """Say what is wrong with a value; `hidden` where it must not be shown."""
    found = min(errors, key=lambda each: [str(part) for part in each.absolute_path])
    while found.context and not _is_choice_of_types(found):
        found = _closest(found)
    path = list(found.absolute_path)
    where = place(name, path)
    hidden = hidden or any(is_hidden(str(each)) for each in (name, *path))
    return _said(where, found, "" if hidden else shown(found.instance))


def _is_choice_of_types(error: ValidationError) -> bool:
    own = list(error.absolute_path)
    return all(
        each.validator == "type" and list(each.absolute_path) == own for each in error.context or []
    )


def _closest(error: ValidationError) -> ValidationError:
    """Return what is wrong with the alternative that the value comes closest to."""
    context = error.context or []
    other = [each for each in context if each.validator != "type" or each.relative_path]
    best = best_match(iter(other or context))
    # best_match itself goes down into what it finds
    return best if isinstance(best, ValidationError) else error


def shown(value: Any) -> str:
    """Return the end of a sentence with a value, cut where it is long."""
    if isinstance(value, list | dict):
        return ", is an array" if isinstance(value, list) else ", is an object"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return f", is {text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + '…'}"


def _said(where: str, error: ValidationError, value: str) -> str:
    word, wanted = str(error.validator), error.validator_value
    schema: dict[str, Any] = error.schema if isinstance(error.schema, dict) else {}
    if word == "required":
        names = [each for each in wanted if error.message.startswith(repr(each))]
        return required(place(where, names[:1]))
    if word == "type":
        return f"{where} must be {_types([wanted])}{value}"
    if "discriminator" in schema and word in {"oneOf", "anyOf", "allOf"} and not error.context:
        return _undiscriminated(where, error.instance, schema["discriminator"], value)
    if error.context:
        return f"{where} must be {_types([each.validator_value for each in error.context])}{value}"
    if word in BOUNDS:
        bound = _exclusive(word, schema)
        return f"{where} must be {BOUNDS[bound]} {json.dumps(wanted)}{value}"
    if word in SIZES:
        size = SIZES[word].format(wanted)
        return f"{where} must have {size if wanted != 1 else _singular(size)}{value}"
    return f"{where} {_other(word, wanted, error)}{value}"


def is_of_the_document(error: ValidationError) -> bool:
    """Tell whether it is the document that is wrong: it maps a word to a schema it has not."""
    schema = error.schema if isinstance(error.schema, dict) else {}
    mapped = schema.get("discriminator", {}).get("mapping", {})
    return (
        bool(mapped)
        and error.message.endswith("could not be resolved")
        and any(repr(each) in error.message for each in mapped.values())
    )


def _undiscriminated(where: str, instance: Any, discriminator: dict[str, Any], value: str) -> str:
    name = discriminator["propertyName"]
    if not isinstance(instance, dict):
        return f"{where} must be an object{value}"
    if name not in instance:
        return required(place(where, [name]))
    known = discriminator.get("mapping")
    return f"{where}.{name} must name a schema{f', one of {_values(known)}' if known else ''}"


def _other(word: str, wanted: Any, error: ValidationError) -> str:
    match word:
        case "enum":
            return f"must be {'one of ' if len(wanted) > 1 else ''}{_values(wanted)}"
        case "const":
            return f"must be {_values([wanted])}"
        case "pattern":
            return f"must match {str(wanted)[:MAX_SHOWN]}"
        case "format":
            return f"must have the format {wanted}"
        case "uniqueItems":
            return "must not hold anything twice"
        case "additionalProperties" | "unevaluatedProperties":
            known = error.schema.get("properties", {}) if isinstance(error.schema, dict) else {}
            names = ", ".join(list(known)[:20])
            return f"must have no other properties{f' than {names}' if names else ''}"
        case "oneOf" | "anyOf" | "allOf":
            return f"must fit {'exactly one' if word == 'oneOf' else 'one'} of its schemas"
        case _:
            return f"must fit `{word}` of its schema"


def _exclusive(word: str, schema: dict[str, Any]) -> str:
    """Return the bound that is meant: 3.0 has its exclusiveMinimum beside the minimum."""
    beside = f"exclusive{word.capitalize()}"
    return beside if schema.get(beside) is True else word


def _singular(size: str) -> str:
    return size.replace("properties", "property").removesuffix("s")


def _types(wanted: Iterable[Any]) -> str:
    names: dict[str, None] = {}
    for each in wanted:
        names |= dict.fromkeys([each] if isinstance(each, str) else each)
    return " or ".join(CALLED.get(each, each) for each in names)


def _values(values: Iterable[Any]) -> str:
    texts = [json.dumps(each, ensure_ascii=False, default=str) for each in values]
    return ", ".join(texts[:20]) + (", …" if len(texts) > 20 else "")
