"""From a document to a call that is checked: compiled, built and held against it."""

import msgspec
import pytest

from scheduler.documents.checking import Checker
from scheduler.documents.compiling import client
from scheduler.documents.messages import Limits, Review
from scheduler.documents.operation import Arguments, build
from scheduler.documents.review import reviewed
from scheduler.documents.styles import WrongCall

LIMITS = Limits(max_bytes=1 << 20, max_depth=100, max_operations=100)
NUMBER = {"type": "integer"}
LIST = {"type": "array", "items": NUMBER}
OBJECT = {"type": "object", "properties": {"a": NUMBER, "b": {"type": "string"}}}
GIVEN = {
    "integer": (5, "x"),
    "array": ([1, 2], [1, "x"]),
    "object": ({"a": 1, "b": "x"}, {"a": "x"}),
}
EACH = [
    (place, style, explode, schema)
    for place, styles in {
        "path": ["simple", "label", "matrix"],
        "query": ["form", "spaceDelimited", "pipeDelimited", "deepObject"],
        "header": ["simple"],
        "cookie": ["form"],
    }.items()
    for style in styles
    for explode in (False, True)
    for schema in (NUMBER, LIST, OBJECT)
]  # fmt: skip


def documented(version, path, operation):
    return {
        "openapi": version,
        "info": {"title": "t", "version": "1"},
        "servers": [{"url": "https://api.example.com/v1"}],
        "paths": {path: {"post": operation | {"responses": {"200": {"description": "done"}}}}},
    }


def said(document, **given):
    """What is said of a call."""
    made = client(document, LIMITS).operations[0]
    request = build(made, Arguments(**given), headers={}, url=None)
    return Checker(document).check(made.endpoint, request)


def refused(document):
    """What cannot be called."""
    made = [msgspec.json.encode(each) for each in client(document, LIMITS).operations]
    return reviewed(Review(msgspec.json.encode(document), made, None)).refused


@pytest.mark.parametrize("version", ["3.0.3", "3.1.0"])
@pytest.mark.parametrize(("place", "style", "explode", "schema"), EACH)
def test_a_parameter_in_any_style_is_sent_and_checked(version, place, style, explode, schema):
    asked = {"name": "p", "in": place, "style": style, "explode": explode, "schema": schema}
    path = "/in/{p}" if place == "path" else "/in"
    document = documented(version, path, {"parameters": [asked | {"required": True}]})
    good, bad = GIVEN[schema["type"]]
    where = "path" if place == "path" else "query"
    assert said(document, **{where: {"p": good}}) is None
    assert said(document, **{where: {"p": bad}}).startswith("p")
    assert refused(document) == {}


FORMS = ["application/x-www-form-urlencoded", "multipart/form-data", "application/json"]
ENCODINGS = [
    {},
    {"list": {"style": "form", "explode": False}, "object": {"style": "deepObject"}},
    {"object": {"contentType": "application/json"}, "list": {"explode": True}},
]


@pytest.mark.parametrize("version", ["3.0.3", "3.1.0"])
@pytest.mark.parametrize("kind", FORMS)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_body_of_any_form_is_sent_and_checked(version, kind, encoding):
    properties = {"number": NUMBER, "list": LIST, "object": OBJECT}
    schema = {"type": "object", "required": ["number"], "properties": properties}
    if kind != FORMS[0]:
        encoding = {}
    content = {kind: {"schema": schema, "encoding": encoding}}
    document = documented(version, "/in", {"requestBody": {"required": True, "content": content}})
    good = {"number": 1, "list": [1, 2], "object": {"a": 1, "b": "x"}}
    assert said(document, body=msgspec.json.encode(good)) is None
    for name in properties:
        wrong = good | {name: {"number": "x", "list": [1, "x"], "object": {"a": "x"}}[name]}
        found = said(document, body=msgspec.json.encode(wrong))
        assert found.startswith(f"req_body.{name}")
    assert refused(document) == {}


LONG = "n" * 900
MANY = [1] * 2000


@pytest.mark.parametrize(
    ("place", "style", "given"),
    [
        ("query", "form", MANY),
        ("query", "deepObject", {"a": MANY}),
        ("cookie", "form", MANY),
        ("path", "matrix", MANY),
        ("query", None, MANY),
        ("query", None, {"a": {LONG: MANY}}),
    ],
)
def test_a_list_under_a_long_name_is_refused_before_it_is_written_out(place, style, given):
    asked = {"name": LONG, "in": place, "style": style, "explode": True, "schema": {}}
    required = {"required": True} if place == "path" else {}
    path = f"/a{{{LONG}}}" if place == "path" else "/a"
    document = documented("3.1.0", path, {"parameters": [asked | required] if style else []})
    with pytest.raises(WrongCall, match="bytes as they are sent; give fewer items"):
        said(document, **{"path" if place == "path" else "query": {LONG: given}})
