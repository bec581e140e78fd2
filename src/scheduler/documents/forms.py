"""Forms: what an operation can be called with, field by field, with values that fit. In the child.

A body that is an object has its properties as fields; any other is written as JSON.
"""

from typing import Any

import msgspec

from scheduler.documents import schemas
from scheduler.documents.messages import Field, Form
from scheduler.documents.operation import OF_THE_BODY
from scheduler.documents.references import resolved
from scheduler.documents.samples import FORMATS, Sampler
from scheduler.documents.styles import JSON

FIELDS_MOST = 200
"""Of each kind; with more, a body is written as JSON."""
CHOICES_MOST = 200
SAMPLE_MOST = 4000
"""Characters of a value; a longer one is left out."""
BODY_MOST = 100_000
ABOUT_MOST = 300


def form_of(document: dict[str, Any], endpoint: str) -> Form:
    """Return the form of an operation, like `GET /pets/{id}`. Raises LookupError."""
    method, _, path = endpoint.partition(" ")
    item = resolved(document, document["paths"][path])
    node = item[method.lower()]
    nodes: dict[tuple[str, str], dict[str, Any]] = {}
    for each in (*item.get("parameters", ()), *node.get("parameters", ())):
        one = resolved(document, each)
        nodes[one["in"], one["name"]] = one
    named = [one for (place, name), one in nodes.items() if not _unused(place, name)]
    fields = [_parameter(document, one) for one in named[:FIELDS_MOST]]
    about = _text(node.get("description") or node.get("summary"))
    body = resolved(document, node.get("requestBody"))
    content = body.get("content") if isinstance(body, dict) else None
    if not isinstance(content, dict) or not content:
        return Form(fields=fields, about=about)
    kind = next((each for each in content if JSON.fullmatch(each)), next(iter(content)))
    media = content[kind] if isinstance(content[kind], dict) else {}
    return Form(
        fields=fields + _properties(document, media.get("schema")),
        body=_body(document, media),
        body_type=str(kind)[:200],
        body_required=body.get("required") is True,
        about=about,
    )


def _unused(place: str, name: str) -> bool:
    return place == "header" and name.lower() in OF_THE_BODY


def _parameter(document: dict[str, Any], one: dict[str, Any]) -> Field:
    content = one.get("content")
    media = next(iter(content.values()), one) if isinstance(content, dict) else one
    required = one.get("required") is True
    return Field(
        name=one["name"],
        place=one["in"],
        required=required,
        about=_text(one.get("description")),
        **_described(document, media, media.get("schema"), required=required),
    )


def _properties(document: dict[str, Any], schema: Any) -> list[Field]:
    """Return the properties of a body that is an object; none where it is written as JSON."""
    if any(key in part for part in schemas.parts(document, schema) for key in ("oneOf", "anyOf")):
        return []
    named = schemas.properties(document, schema)
    if schemas.type_of(document, schema) not in ("object", None) or len(named) > FIELDS_MOST:
        return []
    needed = {
        name
        for part in schemas.parts(document, schema)
        if isinstance(part.get("required"), list)
        for name in part["required"]
    }
    return [
        Field(
            name=name,
            place="body",
            required=name in needed,
            about=_text(schemas.said(document, each, "description")),
            **_described(document, {"schema": each}, each, required=name in needed),
        )
        for name, each in named.items()
        if schemas.said(document, each, "readOnly") is not True
    ]


def _described(
    document: dict[str, Any], media: dict[str, Any], schema: Any, *, required: bool
) -> dict[str, Any]:
    choices = schemas.choices(document, schema) or []
    shown = required or _has_example(document, media, schema)
    value = Sampler(document, examples=True).of_media(media) if shown else None
    sample = "" if value is None else written(value)
    return {
        "kind": schemas.type_of(document, schema),
        "choices": [written(each) for each in choices[:CHOICES_MOST] if each is not None],
        "sample": sample if len(sample) <= SAMPLE_MOST else "",
    }


def _has_example(document: dict[str, Any], media: dict[str, Any], schema: Any) -> bool:
    if "example" in media or "examples" in media:
        return True
    said = ("example", "examples", "default", "const")
    return any(schemas.said(document, schema, key) is not None for key in said)


def _body(document: dict[str, Any], media: dict[str, Any]) -> str:
    if schemas.is_binary(document, media.get("schema")):
        return written(FORMATS["binary"], bare=False)
    made = Sampler(document, examples=True).of_media(media)
    text = msgspec.json.format(msgspec.json.encode(made), indent=2).decode()
    return text if len(text) <= BODY_MOST else "{}"


def written(value: Any, *, bare: bool = True) -> str:
    """Return a value as it is typed in: a text as it is, anything else as JSON."""
    if bare and isinstance(value, str):
        return value
    return msgspec.json.encode(value).decode()


def _text(said: Any) -> str:
    return said[:ABOUT_MOST] if isinstance(said, str) else ""
