"""Headers of the parts of multipart bodies: what a document says of them is sent."""

import msgspec
import pytest

from scheduler.documents.client import Operation
from scheduler.documents.compiling import client
from scheduler.documents.messages import Limits
from scheduler.documents.operation import Arguments, build
from scheduler.documents.styles import WrongCall

LIMITS = Limits(max_bytes=1 << 20, max_depth=50, max_operations=10)


def sent(headers, kind="multipart/form-data", components=None, given=b'{"file": "a,b"}') -> bytes:
    """The body of a call whose property `file` has these headers in its encoding."""
    media = {
        "schema": {"type": "object", "properties": {"file": {"type": "string"}}},
        "encoding": {"file": {"contentType": "text/csv", "headers": headers}},
    }
    post = {"requestBody": {"content": {kind: media}}, "responses": {"200": {"description": ""}}}
    document = {
        "openapi": "3.1.0",
        "info": {"title": "T", "version": "1"},
        "servers": [{"url": "http://a.test"}],
        "paths": {"/a": {"post": post}},
        "components": components or {},
    }
    made = client(document, LIMITS).operations[0]
    kept = msgspec.json.decode(msgspec.json.encode(made), type=Operation)
    return build(kept, Arguments(body=given), headers={}, url=None).body


@pytest.mark.parametrize(
    ("header", "line"),
    [
        ({"schema": {"default": 7}}, b"X-Of: 7"),
        ({"schema": {"const": "c", "default": "d"}}, b"X-Of: c"),
        ({"schema": {"enum": ["only"]}}, b"X-Of: only"),
        ({"schema": {"default": ["a", "b"]}}, b"X-Of: a,b"),
        ({"schema": {"default": {"a": 1, "b": 2}}, "explode": True}, b"X-Of: a=1,b=2"),
        ({"content": {"application/json": {"schema": {"default": [1]}}}}, b"X-Of: [1]"),
        ({"required": True, "example": "e"}, b"X-Of: e"),
        ({"required": True, "examples": {"one": {"value": "e1"}}}, b"X-Of: e1"),
        ({"required": True, "schema": {"examples": ["e2"]}}, b"X-Of: e2"),
        ({"$ref": "#/components/headers/Of"}, b"X-Of: there"),
        ({"example": "e"}, None),
        ({"required": True}, None),
        ({"schema": {"default": "a\r\nX-Other: b"}}, None),
        ({"schema": {"default": "a" * 5000}}, None),
    ],
)
def test_a_part_has_the_headers_whose_value_its_document_says(header, line):
    there = {"headers": {"Of": {"schema": {"default": "there"}}}}
    body = sent({"X-Of": header}, components=there)
    assert b'name="file"\r\nContent-Type: text/csv\r\n' in body
    assert b"X-Other" not in body
    assert (b"X-Of" in body) == (line is not None)
    assert line is None or b"\r\n" + line + b"\r\n\r\na,b\r\n--" in body


@pytest.mark.parametrize("name", ["Content-Type", "content-disposition", "Content-Length", "a b"])
def test_what_is_written_of_the_part_itself_stays(name):
    assert sent({name: {"schema": {"default": "x/y"}}}) == sent({})


def test_only_parts_have_headers():
    assert sent({"X-Of": {"schema": {"default": "1"}}}, "application/x-www-form-urlencoded") == (
        b"file=a%2Cb"
    )


def items(count: int) -> bytes:
    return b",".join([b"1"] * count)


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        ("multipart/form-data", b'{"file": [' + items(2_000) + b"]}"),
        ("multipart/form-data", b'{"' + b"n" * 4000 + b'": [' + items(1_000) + b"]}"),
        ("application/x-www-form-urlencoded", b'{"' + b"n" * 4000 + b'": [' + items(1_000) + b"]}"),
    ],
    ids=["headers", "name", "name-of-form"],
)
def test_a_form_does_not_grow_without_end_by_what_each_item_repeats(kind, given):
    headers = {"X-Of": {"schema": {"default": "a" * 4000}}}
    with pytest.raises(WrongCall, match=f"^req_body as {kind}: more than .* give fewer items"):
        sent(headers, kind, given=given)
    few = sent(headers, given=b'{"file": [' + items(100) + b"]}")
    assert few.count(b"X-Of") == 100
