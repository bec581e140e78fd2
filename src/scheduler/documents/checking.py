"""Whether a request fits its operation: its parameters and its body, read back and held against
their schemas by openapi-core. Runs in the child process.

Patterns are Python's, and some make it search for ever: whoever asks has to end the process.
"""

from collections import OrderedDict
from itertools import islice
from typing import Any

from jsonschema.exceptions import ValidationError
from jsonschema.protocols import Validator

from scheduler.documents import contents, reading
from scheduler.documents.casting import Schemas
from scheduler.documents.messages import Request
from scheduler.documents.plans import Checked, Plan, plan
from scheduler.documents.reading import Missing, Text, Unread
from scheduler.documents.sentences import is_of_the_document, required, sentence
from scheduler.documents.validators import factory

MAX_PLANS = 1000
"""Operations that are kept ready, of each document."""
MAX_BODY = 256 << 10
"""Bytes. A longer body is not judged unless asked for: a megabyte takes some three seconds."""
MAX_ERRORS = 100
"""Of one value; the first of them is said."""


class Checker:
    """Checks requests against the operations of one document."""

    def __init__(self, document: dict[str, Any]) -> None:
        """Take a document that is valid, with texts for keys, and local references alone."""
        self.document = document
        self._schemas = Schemas(document)
        self._factory = factory(str(document.get("openapi", "")))
        self._plans: OrderedDict[str, Plan | None] = OrderedDict()

    def check(self, endpoint: str, request: Request, most_bytes: int = MAX_BODY) -> str | None:
        """Return what is wrong with a request, None where nothing is, or nothing can be said.

        What the document does not name is not looked at; neither are servers and security, nor
        what is in a body of more than `most_bytes`.
        """
        found = self._plan(endpoint)
        if found is None:
            return None
        sent = _Sent(request, found)
        for parameter in found.parameters:
            wrong = self._check_parameter(parameter, sent)
            if wrong:
                return wrong
        return self._check_body(found, sent, most_bytes)

    def _plan(self, endpoint: str) -> Plan | None:
        if endpoint in self._plans:
            self._plans.move_to_end(endpoint)
        else:
            try:
                made = plan(self.document, self._schemas, self._factory, endpoint)
            except Exception:  # noqa: BLE001 - what cannot be read cannot be judged
                made = None
            self._plans[endpoint] = made
            if len(self._plans) > MAX_PLANS:
                self._plans.popitem(last=False)
        return self._plans[endpoint]

    def _check_parameter(self, parameter: Checked, sent: "_Sent") -> str | None:
        try:
            text = sent.read(parameter)
        except Missing:
            return required(parameter.name) if parameter.required else None
        except Unread:
            return None
        validator = parameter.validator
        if validator is None or (text == "" and parameter.may_be_empty):
            return None
        try:
            if contents.JSON.fullmatch(parameter.media_type or ""):
                value = contents.from_json(parameter.name, text)
            else:
                value = self._schemas.cast(parameter.schema, text, validator)
            errors = _errors(validator, value)
        except contents.Wrong as wrong:
            return str(wrong)
        except Exception:  # noqa: BLE001 - what cannot be read cannot be judged
            return None
        return _worded(parameter.name, errors, hidden=parameter.hidden)

    def _check_body(self, found: Plan, sent: "_Sent", most_bytes: int) -> str | None:
        if not sent.body:
            return required("req_body") if found.body_required else None
        content_type = sent.headers.get("content-type", "")
        body = contents.media(found.bodies, content_type)
        if body is None or len(sent.body) > most_bytes:
            return None
        try:
            value = contents.read(
                content_type, sent.body, body.media, self._schemas, body.validator
            )
            errors = _errors(body.validator, value)
        except contents.Wrong as wrong:
            return str(wrong)
        except Exception:  # noqa: BLE001 - what cannot be read cannot be judged
            return None
        return _worded("req_body", errors, hidden=False)


class _Sent:
    """A request, taken apart."""

    def __init__(self, request: Request, found: Plan) -> None:
        self.body = request.body
        self.headers = {name.lower(): value for name, value in request.headers}
        where, _, query = request.url.partition("?")
        self.query = reading.pairs(query)
        self.cookies = reading.cookies(self.headers.get("cookie", ""))
        self.path = _taken_apart(found, where)

    def read(self, parameter: Checked) -> Text:
        """Return a parameter, as text. Raises Missing and Unread."""
        name, form, explode = parameter.name, parameter.form, parameter.explode
        if parameter.place == "path":
            if name not in self.path:
                raise Unread(name)
            return reading.in_path(self.path[name], name, parameter.style, form, explode=explode)
        if parameter.place == "header":
            if name.lower() not in self.headers:
                raise Missing(name)
            return reading.in_header(self.headers[name.lower()], form, explode=explode)
        pairs = self.query if parameter.place == "query" else self.cookies
        inside = parameter.properties
        return reading.in_pairs(pairs, name, parameter.style, form, inside, explode=explode)


def _taken_apart(found: Plan, url: str) -> dict[str, str]:
    """Return what stands in a path for each name, without those that cannot be told apart."""
    most, least = (pattern.search(url) for pattern in found.patterns)
    if not most or not least:
        return {}
    groups = zip(found.names, most.groups(), least.groups(), strict=True)
    return {name: value for name, value, other in groups if value == other}


def _errors(validator: Validator, value: Any) -> list[ValidationError]:
    return list(islice(validator.iter_errors(value), MAX_ERRORS))


def _worded(name: str, errors: list[ValidationError], *, hidden: bool) -> str | None:
    try:
        wrong = [each for each in errors if not is_of_the_document(each)]
        return sentence(name, wrong, hidden=hidden) if wrong else None
    except Exception:  # noqa: BLE001 - a schema may be wrong in ways that no sentence knows
        return f"{name} must fit its schema"
