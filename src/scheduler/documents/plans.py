"""An operation of a document, ready for requests to be checked against it."""

import re
from typing import Any, Final
from urllib.parse import quote

import msgspec
from jsonschema.protocols import Validator
from jsonschema_path import SchemaPath
from openapi_core.validation.schemas.factories import SchemaValidatorsFactory

from scheduler.documents.casting import Schema, Schemas
from scheduler.documents.reading import Form

OF_THE_BODY: Final = {"accept", "authorization", "content-type"}
"""Header parameters of these names are not looked at (OpenAPI 3.1, 4.8.12.2)."""
EXPRESSION = re.compile(r"\{([^{}]+)\}")
LITERAL: Final = "/%:@!$&'()*+,;="
CHECKED = "x-checked"


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """A parameter of an operation."""

    name: str
    place: str
    required: bool
    style: str
    explode: bool
    schema: Schema
    form: Form
    """Which shape of it a style writes."""
    properties: set[str]
    media_type: str | None
    """It is written as this, and not by a style."""
    hidden: bool
    """Its value is not shown."""
    may_be_empty: bool
    validator: Validator | None
    """None where the document has its schema wrong."""


class Body(msgspec.Struct, frozen=True):
    """One form that a body can have."""

    media: dict[str, Any]
    """As the document has it, with a schema."""
    validator: Validator


class Plan(msgspec.Struct, frozen=True):
    """An operation."""

    names: list[str]
    """In its path, in their order."""
    patterns: list[re.Pattern[str]]
    """Of the end of a URL, with a group for each name: as much as it can be, and as little."""
    parameters: list[Checked]
    body_required: bool
    bodies: dict[str, Body | None]
    """By media type; None where it says nothing that can be checked."""


def plan(
    document: dict[str, Any], schemas: Schemas, factory: SchemaValidatorsFactory, endpoint: str
) -> Plan | None:
    """Return an operation, None where the document has none of that name."""
    method, _, template = endpoint.partition(" ")
    path = schemas.at(document.get("paths", {}).get(template, {}))
    operation = schemas.at(path.get(method.lower()))
    if operation is None:
        return None
    named = [
        schemas.at(each) for level in (path, operation) for each in level.get("parameters", [])
    ]
    parameters = list({(each["in"], each["name"]): each for each in named}.values())
    body = schemas.at(operation.get("requestBody", {}))
    media = {key.lower(): schemas.at(each) for key, each in body.get("content", {}).items()}
    given = [_schema(each) for each in (*parameters, *media.values())]
    # references in them lead into the document, so they are looked at as a part of it
    spec = SchemaPath.from_dict({**document, CHECKED: given})
    validators = [_validator(factory, spec, index) for index in range(len(given))]
    names, patterns = _path(template.partition("#")[0].partition("?")[0])
    keys = _keys(document)
    return Plan(
        names,
        patterns,
        [
            _checked(schemas, each, schema, validator, keys)
            for each, schema, validator in zip(parameters, given, validators, strict=False)
            if each["in"] != "header" or each["name"].lower() not in OF_THE_BODY
        ],
        body.get("required") is True,
        {
            key: Body(each, validator) if validator and "schema" in each else None
            for (key, each), validator in zip(
                media.items(), validators[len(parameters) :], strict=True
            )
        },
    )


def _schema(found: dict[str, Any]) -> Schema:
    """Return the schema of a parameter or of a media type."""
    inside: dict[str, Any] = next(iter(found.get("content", {}).values()), {})
    return found.get("schema", inside.get("schema", {}))


def _validator(factory: SchemaValidatorsFactory, spec: SchemaPath, index: int) -> Validator | None:
    try:
        return factory.create(spec, spec / CHECKED / index).validator
    except Exception:  # noqa: BLE001 - what cannot be read cannot be judged
        return None


def _keys(document: dict[str, Any]) -> set[str]:
    """Return the names of what security schemes put into queries, headers and cookies."""
    schemes = document.get("components", {}).get("securitySchemes", {}).values()
    return {each["name"] for each in schemes if isinstance(each.get("name"), str)}


def _path(template: str) -> tuple[list[str], list[re.Pattern[str]]]:
    parts = EXPRESSION.split(template)
    patterns = [
        "".join(
            f"({some})" if index % 2 else re.escape(quote(part, LITERAL))
            for index, part in enumerate(parts)
        )
        for some in ("[^/]*", "[^/]*?")
    ]
    return parts[1::2], [re.compile(f"{each}$") for each in patterns]


def _checked(
    schemas: Schemas,
    parameter: dict[str, Any],
    schema: Schema,
    validator: Validator | None,
    keys: set[str],
) -> Checked:
    name, place = parameter["name"], parameter["in"]
    style = parameter.get("style", "form" if place in {"query", "cookie"} else "simple")
    content = parameter.get("content")
    return Checked(
        name=name,
        place=place,
        required=place == "path" or parameter.get("required") is True,
        style=style,
        explode=parameter.get("explode", style == "form"),
        schema=schema,
        form=schemas.form(schema) if validator and not content else "one",
        properties=set(schemas.properties(schema)) if validator else set(),
        media_type=next(iter(content)) if content else None,
        may_be_empty=parameter.get("allowEmptyValue") is True,
        hidden=place in {"header", "cookie"} or name in keys,
        validator=validator,
    )
