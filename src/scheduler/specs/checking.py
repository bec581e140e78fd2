"""Whether a request fits its operation: its parameters and its body, read back and held against
their schemas by openapi-core. Runs in the child process.

Patterns are Python's, and some make it search for ever: whoever asks has to end the process.
"""

import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

import msgspec
from jsonschema.exceptions import ValidationError
from jsonschema.protocols import Validator
from jsonschema_path import SchemaPath

from scheduler.specs import contents, reading
from scheduler.specs.casting import Schema, Schemas
from scheduler.specs.messages import Request
from scheduler.specs.reading import Text, Unread
from scheduler.specs.sentences import required, sentence
from scheduler.specs.validators import factory

MAX_PLANS = 1000
OF_THE_BODY: Final = {"accept", "authorization", "content-type"}
"""Header parameters of these names are not looked at (OpenAPI 3.1, 4.8.12.2)."""
EXPRESSION = re.compile(r"\{([^{}]+)\}")
LITERAL: Final = "/%:@!$&'()*+,;="
CHECKED = "x-checked"


class Checked(msgspec.Struct, frozen=True):
    """A parameter of an operation, ready to be checked."""

    name: str
    place: str
    required: bool
    style: str
    explode: bool
    schema: Schema
    media_type: str | None
    """It is written as this, and not by a style."""
    validator: Validator


class Plan(msgspec.Struct, frozen=True):
    """An operation, ready to be checked."""

    template: str
    parameters: list[Checked]
    body_required: bool
    media: dict[str, tuple[dict[str, Any], Validator | None]]
    """By media type: its object, and what checks its schema."""


class Checker:
    """Checks requests against the operations of one document."""

    def __init__(self, document: dict[str, Any]) -> None:
        """Take a document that is valid, with texts for keys, and local references alone."""
        self._document = document
        self._schemas = Schemas(document)
        self._factory = factory(str(document.get("openapi", "")))
        self._plans: OrderedDict[str, Plan | None] = OrderedDict()

    def check(self, endpoint: str, request: Request) -> str | None:
        """Return what is wrong with a request, None where nothing is, or nothing can be said.

        What the document does not name is not looked at; neither are servers and security.
        """
        plan = self._plan(endpoint)
        if plan is None:
            return None
        sent = _Sent(request, plan.template)
        for parameter in plan.parameters:
            wrong = self._check_parameter(parameter, sent)
            if wrong:
                return wrong
        return self._check_body(plan, sent)

    # Plans

    def _plan(self, endpoint: str) -> Plan | None:
        if endpoint in self._plans:
            self._plans.move_to_end(endpoint)
        else:
            try:
                self._plans[endpoint] = self._planned(endpoint)
            except Exception:  # noqa: BLE001 - what cannot be read cannot be judged
                self._plans[endpoint] = None
            if len(self._plans) > MAX_PLANS:
                self._plans.popitem(last=False)
        return self._plans[endpoint]

    def _planned(self, endpoint: str) -> Plan | None:
        method, _, template = endpoint.partition(" ")
        at = self._schemas.at
        path = at(self._document.get("paths", {}).get(template))
        operation = at(path.get(method.lower())) if path else None
        if not operation:
            return None
        named = [
            at(each) for each in [*path.get("parameters", []), *operation.get("parameters", [])]
        ]
        parameters = list(
            {(each["in"], each["name"]): each for each in named if _counts(each)}.values()
        )
        body = at(operation.get("requestBody", {}))
        media = {key.lower(): at(each) for key, each in body.get("content", {}).items()}
        schemas = [_schema(each) for each in (*parameters, *media.values())]
        validators = self._validators(schemas)
        return Plan(
            template,
            [
                _checked(each, schema, validator)
                for each, schema, validator in zip(parameters, schemas, validators, strict=False)
            ],
            bool(body.get("required")),
            {
                key: (each, validator if "schema" in each else None)
                for (key, each), validator in zip(
                    media.items(), validators[len(parameters) :], strict=True
                )
            },
        )

    def _validators(self, schemas: list[Schema]) -> list[Validator]:
        """Return what checks each schema; references in them lead into the document."""
        spec = SchemaPath.from_dict({**self._document, CHECKED: schemas})
        return [
            self._factory.create(spec, spec / CHECKED / index).validator
            for index in range(len(schemas))
        ]

    # Checks

    def _check_parameter(self, parameter: Checked, sent: "_Sent") -> str | None:
        try:
            text = self._read(parameter, sent)
            if contents.JSON.fullmatch(parameter.media_type or ""):
                value = contents.from_json(parameter.name, text)
            else:
                value = self._schemas.cast(parameter.schema, text, parameter.validator)
            errors = list(parameter.validator.iter_errors(value))
        except KeyError:
            return required(parameter.name) if parameter.required else None
        except contents.Wrong as wrong:
            return str(wrong)
        except Exception:  # noqa: BLE001 - what cannot be read cannot be judged
            return None
        hidden = parameter.place in {"header", "cookie"}
        return _worded(parameter.name, errors, hidden=hidden)

    def _read(self, parameter: Checked, sent: "_Sent") -> Text:
        name, style, explode = parameter.name, parameter.style, parameter.explode
        form = "one" if parameter.media_type else self._schemas.form(parameter.schema)
        if parameter.place == "path":
            if name not in sent.path:
                raise Unread(name)
            return reading.in_path(sent.path[name], name, style, form, explode=explode)
        if parameter.place == "header":
            return reading.in_header(sent.headers[name.lower()], form, explode=explode)
        pairs = sent.query if parameter.place == "query" else sent.cookies
        properties = self._schemas.properties(parameter.schema)
        return reading.in_pairs(pairs, name, style, form, properties, explode=explode)

    def _check_body(self, plan: Plan, sent: "_Sent") -> str | None:
        if not sent.body:
            return required("req_body") if plan.body_required else None
        found = contents.media(plan.media, sent.headers.get("content-type", ""))
        media, validator = found or ({}, None)
        if validator is None:
            return None
        try:
            value = contents.read(
                sent.headers["content-type"], sent.body, media, self._schemas, validator
            )
            errors = list(validator.iter_errors(value))
        except contents.Wrong as wrong:
            return str(wrong)
        except Exception:  # noqa: BLE001 - what cannot be read cannot be judged
            return None
        return _worded("req_body", errors, hidden=False)


class _Sent:
    """A request, taken apart."""

    def __init__(self, request: Request, template: str) -> None:
        self.body = request.body
        self.headers = {name.lower(): value for name, value in request.headers}
        where, _, query = request.url.partition("?")
        self.query = reading.pairs(query)
        self.cookies = reading.cookies(self.headers.get("cookie", ""))
        self.path = _taken_apart(template.partition("#")[0].partition("?")[0], where)


def _taken_apart(template: str, url: str) -> Mapping[str, str]:
    """Return what stands in a path for each name, without those that cannot be told apart."""
    parts = EXPRESSION.split(template)
    found: list[dict[str, str]] = []
    for some in ("[^/]*", "[^/]*?"):
        pattern = "".join(
            f"({some})" if index % 2 else re.escape(quote(part, LITERAL))
            for index, part in enumerate(parts)
        )
        match = re.search(f"{pattern}$", url)
        found.append(dict(zip(parts[1::2], match.groups(), strict=True)) if match else {})
    return {name: value for name, value in found[0].items() if found[1].get(name) == value}


def _counts(parameter: dict[str, Any]) -> bool:
    return parameter["in"] != "header" or parameter["name"].lower() not in OF_THE_BODY


def _schema(found: dict[str, Any]) -> Schema:
    if "schema" in found:
        return found["schema"]
    for each in found.get("content", {}).values():
        return each.get("schema", {})
    return {}


def _checked(parameter: dict[str, Any], schema: Schema, validator: Validator) -> Checked:
    place = parameter["in"]
    style = parameter.get("style", "form" if place in {"query", "cookie"} else "simple")
    return Checked(
        name=parameter["name"],
        place=place,
        required=bool(parameter.get("required")),
        style=style,
        explode=parameter.get("explode", style == "form"),
        schema=schema,
        media_type=next(iter(parameter.get("content", {})), None),
        validator=validator,
    )


def _worded(name: str, errors: list[ValidationError], *, hidden: bool) -> str | None:
    return sentence(name, errors, hidden=hidden) if errors else None
