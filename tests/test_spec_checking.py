"""Requests against the operations of a document."""

import base64
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.documents.checking import MAX_BODY, Checker
from scheduler.documents.client import Encoding, Media, Operation, Parameter
from scheduler.documents.messages import Request
from scheduler.documents.operation import Arguments, WrongCall, build

SERVER = "https://api.example.com/v1"
BOTH = pytest.mark.parametrize("version", ["3.0.3", "3.1.0"])


def document(path, item, *, version="3.1.0", **components):
    info = {"title": "t", "version": "1"}
    return {"openapi": version, "info": info, "paths": {path: item}, "components": components}


def parameter(schema, *, name="value", place="query", **more):
    return {"name": name, "in": place, "schema": schema, "required": place == "path", **more}


def check(asked, url, *, template="/pets", version="3.1.0", headers=(), **components):
    """What a checker says of a GET."""
    item = {"get": {"parameters": asked, "responses": {}}}
    checker = Checker(document(template, item, version=version, **components))
    return checker.check(f"GET {template}", Request("GET", f"{SERVER}{url}", list(headers)))


def check_body(
    schema, body, content_type="application/json", *, version="3.1.0", required=True, **more
):
    """What a checker says of a POST."""
    media = {} if schema is None else {"schema": schema}
    encoding = {"encoding": more.pop("encoding")} if "encoding" in more else {}
    content = {content_type.partition(";")[0]: media | encoding}
    item = {"post": {"requestBody": {"required": required, "content": content}, "responses": {}}}
    headers = [("content-type", content_type)]
    written = body if isinstance(body, bytes) else json.dumps(body).encode()
    checker = Checker(document("/pets", item, version=version, **more))
    return checker.check("POST /pets", Request("POST", f"{SERVER}/pets", headers, written))


# The example of old clients ----------------------------------------------------------------------


@pytest.fixture
def filmot():
    text = {"type": "string"}
    return Checker(
        document(
            "/getsearchchannels",
            {"get": {"parameters": [parameter(text, name="term", required=True)]}},
            version="3.0.3",
        )
        | {
            "paths": {
                "/getsearchchannels": {
                    "get": {"parameters": [parameter(text, name="term", required=True)]}
                },
                "/getsearchsubtitles": {
                    "get": {
                        "parameters": [
                            parameter(text, name="query", required=True),
                            parameter(text, name="channel"),
                        ]
                    }
                },
            }
        }
    )


def test_what_is_required_must_be_specified(filmot):
    url = "https://filmot.example.com/getsearchchannels"
    said = filmot.check("GET /getsearchchannels", Request("GET", url, []))
    assert said == "term is required and must be specified"
    assert filmot.check("GET /getsearchchannels", Request("GET", f"{url}?term=Science", [])) is None


def test_what_the_document_does_not_name_passes(filmot):
    url = "https://filmot.example.com/getsearchsubtitles?query=hello%20world&lang=en&page=1"
    assert filmot.check("GET /getsearchsubtitles", Request("GET", url, [("x-key", "k")])) is None


def test_an_operation_that_is_not_there_says_nothing(filmot):
    for endpoint in ("POST /getsearchchannels", "GET /other", "", "GET"):
        assert filmot.check(endpoint, Request("GET", SERVER, [])) is None


# Schemas -----------------------------------------------------------------------------------------

SAID = [
    ({"type": "integer"}, "5", None),
    ({"type": "integer"}, "12345678901234567890", None),
    ({"type": "integer"}, "abc", 'must be an integer, is "abc"'),
    ({"type": "integer"}, "", 'must be an integer, is ""'),
    ({"type": "integer"}, "1.5", "must be an integer, is 1.5"),
    ({"type": "number"}, "1.5e3", None),
    ({"type": "number"}, "NaN", 'must be a number, is "NaN"'),
    ({"type": "number", "multipleOf": 0.01}, "1.10", None),
    ({"type": "number", "multipleOf": 0.1}, "0.3", None),
    ({"type": "number", "multipleOf": 0.01}, "1.101", "must be a multiple of 0.01, is 1.101"),
    ({"type": "boolean"}, "true", None),
    ({"type": "boolean"}, "maybe", 'must be true or false, is "maybe"'),
    ({"type": "string"}, "5", None),
    ({"type": "string", "enum": ["a", "b"]}, "c", 'must be one of "a", "b", is "c"'),
    ({"enum": [1, 2]}, "2", None),
    ({"enum": [1, 2]}, "3", "must be one of 1, 2, is 3"),
    ({"type": "integer", "minimum": 1}, "0", "must be at least 1, is 0"),
    ({"type": "integer", "maximum": 1}, "2", "must be at most 1, is 2"),
    ({"type": "string", "minLength": 3}, "ab", 'must have at least 3 characters, is "ab"'),
    ({"type": "string", "maxLength": 1}, "ab", 'must have at most 1 character, is "ab"'),
    ({"type": "string", "pattern": "^[a-z]+$"}, "a1", 'must match ^[a-z]+$, is "a1"'),
    ({"type": "string", "pattern": "^[a-z]+$"}, "a%0A", 'must match ^[a-z]+$, is "a\\n"'),
    ({"type": "string", "pattern": r"^\p{L}+$"}, "5", None),
    ({"type": "string", "format": "date"}, "2024-02-30", 'must have the format date, is "2024-02-30"'),
    ({"type": "string", "format": "uuid"}, "x", 'must have the format uuid, is "x"'),
    ({"anyOf": [{"type": "integer"}, {"type": "boolean"}]}, "true", None),
    ({"anyOf": [{"type": "integer"}, {"type": "boolean"}]}, "x", 'must be an integer or true or false, is "x"'),
    ({"oneOf": [{"type": "integer", "maximum": 5}, {"type": "string", "maxLength": 1}]}, "50",
     "must be at most 5, is 50"),
    ({"allOf": [{"type": "integer"}, {"minimum": 3}]}, "2", "must be at least 3, is 2"),
    ({"type": "array", "items": {"type": "integer"}}, "1&value=2", None),
    ({"not": {"type": "string"}}, "x", 'must fit `not` of its schema, is "x"'),
    ({}, "x", None),
]  # fmt: skip


@BOTH
@pytest.mark.parametrize(("schema", "sent", "said"), SAID)
def test_a_value_is_held_against_its_schema(version, schema, sent, said):
    expected = said and f"value {said}"
    assert check([parameter(schema)], f"/pets?value={sent}", version=version) == expected


@pytest.mark.parametrize(
    ("schema", "sent", "said"),
    [
        ({"type": "integer", "minimum": 1, "exclusiveMinimum": True}, "1", "must be more than 1, is 1"),
        ({"type": "integer", "maximum": 1, "exclusiveMaximum": True}, "1", "must be less than 1, is 1"),
        ({"type": "integer", "nullable": True}, "null", None),
        ({"type": "string", "format": "byte"}, "eA==", None),
    ],
)  # fmt: skip
def test_schemas_of_3_0(schema, sent, said):
    expected = said and f"value {said}"
    assert check([parameter(schema)], f"/pets?value={sent}", version="3.0.3") == expected


@pytest.mark.parametrize(
    ("schema", "sent", "said"),
    [
        ({"type": "integer", "exclusiveMinimum": 1}, "1", "must be more than 1, is 1"),
        ({"type": "integer", "exclusiveMaximum": 1}, "1", "must be less than 1, is 1"),
        ({"type": ["integer", "null"]}, "5", None),
        ({"type": ["integer", "null"]}, "null", None),
        ({"type": ["integer", "null"]}, "x", 'must be an integer or null, is "x"'),
        ({"type": ["array", "null"], "items": {"type": "integer"}}, "5", None),
        ({"const": 5}, "5", None),
        ({"const": 5}, "6", "must be 5, is 6"),
        ({"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}]}, "1&value=x", None),
        (True, "x", None),
    ],
)  # fmt: skip
def test_schemas_of_3_1(schema, sent, said):
    assert check([parameter(schema)], f"/pets?value={sent}") == (said and f"value {said}")


def test_prefix_items_are_held_one_by_one():
    schema = {"type": "array", "prefixItems": [{"type": "integer"}, {"enum": ["a"]}]}
    said = check([parameter(schema)], "/pets?value=1&value=b")
    assert said == 'value[1] must be "a", is "b"'


@BOTH
def test_arrays_and_objects(version):
    numbers = {"type": "array", "items": {"type": "integer"}, "maxItems": 2, "uniqueItems": True}
    pair = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    deep = {"type": "object", "properties": {"pair": pair, "list": numbers}}
    asked = [
        parameter(numbers, name="n", style="form", explode=False),
        parameter(pair, name="p"),
        parameter(deep, name="d", style="deepObject", explode=True),
    ]

    def said(query):
        return check(asked, f"/pets?{query}", version=version)

    assert said("n=1,2&a=5&d%5Bpair%5D%5Ba%5D=1&d%5Blist%5D=1") is None
    assert said("n=1,x") == 'n[1] must be an integer, is "x"'
    assert said("n=1,1") == "n must not hold anything twice, is an array"
    assert said("n=1,2,3") == "n must have at most 2 items, is an array"
    assert said("a=x") == 'p.a must be an integer, is "x"'
    assert said("d%5Bpair%5D%5Bb%5D=1") == "d.pair.a is required and must be specified"
    assert said("d%5Blist%5D=1&d%5Blist%5D=x") == 'd.list[1] must be an integer, is "x"'


def test_an_array_in_the_style_of_objects_is_repeated():
    numbers = {"type": "array", "items": {"type": "integer"}}
    asked = [parameter(numbers, style="deepObject", explode=False)]
    assert check(asked, "/pets?value=1&value=x") == 'value[1] must be an integer, is "x"'


@BOTH
def test_what_is_listed_as_another_type_stands_for_its_text(version):
    asked = [
        parameter({"type": "string", "enum": [1, 2.5, True, "x"]}, name="s"),
        parameter({"type": "integer", "enum": ["1", "2"]}, name="n"),
    ]

    def said(query):
        return check(asked, f"/pets?{query}", version=version)

    for query in ("s=1", "s=2.5", "s=true", "s=x", "n=1", "n=2"):
        assert said(query) is None, query
    assert said("s=2") == 's must be one of 1, 2.5, true, "x", is "2"'
    assert said("n=3") == 'n must be one of "1", "2", is 3'
    assert said("n=x") == 'n must be an integer, is "x"'


def test_null_is_taken_where_it_is_said_beside_a_reference():
    pet = {"allOf": [{"$ref": "#/components/schemas/Kind"}], "nullable": True}
    pick = {"oneOf": [{"$ref": "#/components/schemas/Kind"}], "nullable": True}
    schema = {"type": "object", "properties": {"pet": pet, "pick": pick, "no": pet["allOf"][0]}}
    kinds = {"Kind": {"type": "string", "enum": ["cat"]}}

    def said(**body):
        return check_body(schema, body, version="3.0.3", schemas=kinds)

    assert said(pet=None, pick=None) is None
    assert said(pet="cat", pick="cat") is None
    assert said(pet="cow") == 'req_body.pet must be "cat", is "cow"'
    assert said(no=None) is not None


@BOTH
def test_arrays_in_brackets_are_read_as_arrays(version):
    number = {"type": "integer"}
    line = {"type": "object", "required": ["n"], "properties": {"n": number}}
    span = {"anyOf": [number, {"type": "object", "properties": {"gt": number}}]}
    asked = [
        parameter({"type": "array", "items": number, "maxItems": 2}, style="deepObject"),
        parameter({"type": "array", "items": line}, name="lines", style="deepObject"),
        parameter(span, name="span", style="deepObject", required=True),
    ]

    def said(query):
        return check(asked, f"/pets?{query}", version=version)

    assert said("span%5Bgt%5D=1&value%5B%5D=1&value%5B%5D=2&lines%5B0%5D%5Bn%5D=1") is None
    assert said("span=1&value%5B%5D=1") is None
    assert said("span=1&value%5B%5D=x") == 'value[0] must be an integer, is "x"'
    assert said("span=1&value%5B0%5D=1&value%5B1%5D=2&value%5B2%5D=3") == (
        "value must have at most 2 items, is an array"
    )
    assert said("span=1&lines%5B0%5D%5Bn%5D=1&lines%5B1%5D%5Bm%5D=1") == (
        "lines[1].n is required and must be specified"
    )


def test_several_values_for_one_are_wrong():
    said = check([parameter({"type": "string"})], "/pets?value=1&value=2")
    assert said == "value must be a string, is an array"


def test_parameters_in_paths_headers_and_cookies():
    number = {"type": "integer"}
    asked = [
        parameter(number, name="id", place="path"),
        parameter(number, name="X-Page", place="header"),
        parameter(number, name="size", place="cookie"),
        parameter({"type": "array", "items": number}, name="X-List", place="header"),
    ]

    def said(id_, *headers):
        return check(asked, f"/a%20b/{id_}", template="/a b/{id}", headers=headers)

    good = (("x-page", "1"), ("Cookie", "a=b; size=5"), ("x-list", "1, 2"))
    assert said("5", *good) is None
    assert said("%20", *good) == 'id must be an integer, is " "'
    assert said("5", ("x-page", "x")) == "X-Page must be an integer"
    assert said("5", ("cookie", "size=x")) == "size must be an integer"
    assert said("5", ("x-list", "1,x")) == "X-List[1] must be an integer"


def test_values_that_may_be_secret_are_not_shown():
    said = check([parameter({"type": "integer"}, name="api_key")], "/pets?api_key=abc")
    assert said == "api_key must be an integer"
    schema = {"type": "object", "properties": {"password": {"type": "string", "minLength": 9}}}
    assert (
        check_body(schema, {"password": "abc"})
        == "req_body.password must have at least 9 characters"
    )


def test_a_value_that_a_security_scheme_names_is_not_shown():
    schemes = {"one": {"type": "apiKey", "in": "query", "name": "appid"}}
    asked = [parameter({"type": "integer"}, name="appid")]
    assert check(asked, "/pets?appid=abc", securitySchemes=schemes) == "appid must be an integer"


def test_long_and_odd_things_are_cut_and_quoted():
    assert len(check([parameter({"type": "integer"})], f"/pets?value={'x' * 5000}")) < 150
    said = check_body({"additionalProperties": {"type": "integer"}}, {"a\n" * 500: "x"})
    assert said.startswith('req_body["a\\na\\n')
    assert len(said) < 300


def test_an_empty_value_passes_where_the_document_allows_it():
    asked = [parameter({"type": "integer"}, allowEmptyValue=True)]
    assert check(asked, "/pets?value=") is None
    assert check(asked, "/pets?value=x") == 'value must be an integer, is "x"'


def test_a_parameter_whose_schema_is_wrong_is_asked_for_all_the_same():
    asked = [parameter({"$ref": "#/components/schemas/Nothing"}, required=True)]
    assert check(asked, "/pets?value=x") is None
    assert check(asked, "/pets") == "value is required and must be specified"


def test_what_cannot_be_told_apart_in_a_path_is_not_judged():
    asked = [parameter({"type": "integer"}, name=each, place="path") for each in "ab"]
    assert check(asked, "/1-x-2", template="/{a}-{b}") is None
    assert check(asked, "/1-x", template="/{a}-{b}") == 'b must be an integer, is "x"'


def test_a_parameter_of_the_path_is_replaced_by_one_of_the_operation():
    number, text = parameter({"type": "integer"}), parameter({"type": "string"})
    item = {"parameters": [number], "get": {"parameters": [text]}, "put": {"responses": {}}}
    checker = Checker(document("/pets", item))
    assert checker.check("GET /pets", Request("GET", f"{SERVER}/pets?value=x", [])) is None
    assert checker.check("PUT /pets", Request("PUT", f"{SERVER}/pets?value=x", [])) is not None


def test_references_are_followed_everywhere():
    components = {
        "parameters": {"Page": parameter({"$ref": "#/components/schemas/Page"}, name="page")},
        "schemas": {"Page": {"$ref": "#/components/schemas/a~1b"}, "a/b": {"type": "integer"}},
    }
    asked = [{"$ref": "#/components/parameters/Page"}]
    assert check(asked, "/pets?page=x", **components) == 'page must be an integer, is "x"'
    assert check(asked, "/pets?page=5", **components) is None


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#/components/schemas/Loop"},
        {"$ref": "#/components/schemas/Nothing"},
        {"$ref": "https://127.0.0.1:1/x"},
        {"$ref": "file:///etc/passwd"},
        {"$schema": "urn:unknown", "type": "integer"},
        {"type": "unknown"},
        {"type": "string", "pattern": "("},
        {"type": "integer", "multipleOf": 0},
        {"oneOf": [{"type": "object"}], "discriminator": {}},
        {"enum": [[1], {"a": 1}]},
    ],
)
def test_what_the_document_has_wrong_lets_pass_or_says_a_sentence(schema):
    loop = {"schemas": {"Loop": {"allOf": [{"$ref": "#/components/schemas/Loop"}]}}}
    said = check([parameter(schema)], "/pets?value=x", **loop)
    assert said is None or re.fullmatch(r"value must .+", said)
    said = check_body(schema, "x", **loop)
    assert said is None or re.fullmatch(r"req_body must .+", said)


def test_a_parameter_with_content_is_read_as_that():
    content = {"application/json": {"schema": {"type": "object", "required": ["a"]}}}
    asked = [{"name": "f", "in": "query", "content": content}]
    assert check(asked, "/pets?f=%7B%22a%22%3A1%7D") is None
    assert check(asked, "/pets?f=%7B%7D") == "f.a is required and must be specified"
    assert check(asked, "/pets?f=%7B") == "f must be JSON"


# Bodies ------------------------------------------------------------------------------------------

PET = {
    "type": "object",
    "required": ["id", "name"],
    "properties": {
        "id": {"type": "integer", "readOnly": True},
        "name": {"type": "string"},
        "age": {"type": "integer", "minimum": 0},
    },
    "additionalProperties": False,
}


@BOTH
@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"pets": [{"name": "x", "age": 1}]}, None),
        ({"pets": [{"id": 7, "name": "x"}]}, None),
        ({"pets": [{"name": "x"}, {"name": 5}]}, "req_body.pets[1].name must be a string, is 5"),
        ({"pets": [{}]}, "req_body.pets[0].name is required and must be specified"),
        ({"pets": [{"name": "x", "age": -1}]}, "req_body.pets[0].age must be at least 0, is -1"),
        ({"pets": [{"name": "x", "other": 1}]},
         "req_body.pets[0] must have no other properties than id, name, age, is an object"),
        ({"pets": {}}, "req_body.pets must be an array, is an object"),
        ({"pets": None}, "req_body.pets must be an array, is null"),
        ([], "req_body must be an object, is an array"),
        (b"{", "req_body must be JSON"),
        (b"", "req_body is required and must be specified"),
    ],
)  # fmt: skip
def test_a_json_body_is_held_against_its_schema(version, body, said):
    schema = {"type": "object", "properties": {"pets": {"type": "array", "items": PET}}}
    assert check_body(schema, body, "application/json; charset=utf-8", version=version) == said


def test_a_long_body_is_for_its_target_to_judge_unless_that_is_asked_for():
    schema = {"type": "array", "items": {"type": "integer"}}
    post = {"requestBody": {"content": {"application/json": {"schema": schema}}}}
    checker = Checker(document("/a", {"post": post}))
    headers = [("content-type", "application/json")]
    request = Request("POST", f"{SERVER}/a", headers, json.dumps(["x"] * 99_000).encode())
    assert len(request.body) > MAX_BODY
    assert checker.check("POST /a", request) is None
    assert checker.check("POST /a", request, len(request.body) - 1) is None
    wrong = 'req_body[0] must be an integer, is "x"'
    assert checker.check("POST /a", request, len(request.body)) == wrong
    assert check_body(schema, ["x"] * 50) == 'req_body[0] must be an integer, is "x"'
    assert check_body(schema, ["x"] * (MAX_BODY // 4)) is None
    assert check_body(schema, [*[1] * 1000, "x"]) == 'req_body[1000] must be an integer, is "x"'


def test_null_where_3_0_allows_it():
    schema = {"type": "object", "properties": {"a": {"type": "string", "nullable": True}}}
    assert check_body(schema, {"a": None}, version="3.0.3") is None
    schema = {"type": "object", "properties": {"a": {"type": ["string", "null"]}}}
    assert check_body(schema, {"a": None}) is None


@BOTH
def test_one_of_several_says_what_is_wrong_with_the_closest(version):
    cat = {"type": "object", "required": ["meow"], "properties": {"meow": {"type": "integer"}}}
    schema = {"oneOf": [{"type": "string"}, cat]}
    assert check_body(schema, {"meow": 1}, version=version) is None
    said = check_body(schema, {"meow": "x"}, version=version)
    assert said == 'req_body.meow must be an integer, is "x"'
    assert check_body({"oneOf": [cat, cat]}, {"meow": 1}, version=version) == (
        "req_body must fit exactly one of its schemas, is an object"
    )


@BOTH
def test_a_discriminator_picks_the_schema(version):
    cat = {"type": "object", "required": ["kind"], "properties": {"meow": {"type": "integer"}}}
    schema = {
        "oneOf": [{"$ref": "#/components/schemas/Cat"}],
        "discriminator": {"propertyName": "kind", "mapping": {"c": "#/components/schemas/Cat"}},
    }

    def said(body):
        return check_body(schema, body, version=version, schemas={"Cat": cat})

    assert said({"kind": "c", "meow": 1}) is None
    assert said({"kind": "Cat", "meow": 1}) is None
    assert said({"kind": "c", "meow": "x"}) == 'req_body.meow must be an integer, is "x"'
    assert said({"kind": "d"}) == 'req_body.kind must name a schema, one of "c"'
    assert said({}) == "req_body.kind is required and must be specified"
    assert said("c") == 'req_body must be an object, is "c"'


def test_a_discriminator_that_maps_to_nothing_is_not_judged():
    schema = {"oneOf": [{}], "discriminator": {"propertyName": "kind", "mapping": {"c": "Cat"}}}
    assert check_body(schema, {"kind": "c"}) is None


@BOTH
@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("a=1&b=x+y&c=1&c=2&o=%7B%22x%22%3A1%7D&other=1", None),
        ("a=x", 'req_body.a must be an integer, is "x"'),
        ("c=1&c=x", 'req_body.c[1] must be an integer, is "x"'),
        ("c=1", None),
        ("csv=1,2&a=1", None),
        ("j=%5B1,2%5D", None),
        ("j=%5B1,%22x%22%5D", 'req_body.j[1] must be an integer, is "x"'),
        ("csv=1,x", 'req_body.csv[1] must be an integer, is "x"'),
        ("d%5Bx%5D=y", 'req_body.d.x must be an integer, is "y"'),
        ("o=%7B%22x%22%3A%22y%22%7D", 'req_body.o.x must be an integer, is "y"'),
    ],
)
def test_a_form_is_held_against_its_schema(version, body, said):
    number, numbers = {"type": "integer"}, {"type": "array", "items": {"type": "integer"}}
    inside = {"type": "object", "properties": {"x": number}}
    properties = {"a": number, "b": {"type": "string"}, "c": numbers, "csv": numbers, "j": numbers}
    properties |= {"d": inside, "o": inside}
    encoding = {"csv": {"explode": False}, "j": {"contentType": "application/json"}}
    encoding |= {"d": {"style": "deepObject", "explode": True}}
    schema = {"type": "object", "properties": properties}
    kind = "application/x-www-form-urlencoded"
    assert check_body(schema, body.encode(), kind, version=version, encoding=encoding) == said


@BOTH
def test_multipart_is_held_against_its_schema(version):
    file = {"type": "string", "format": "binary"} if version == "3.0.3" else {}
    properties = {
        "file": file,
        "files": {"type": "array", "items": file, "maxItems": 2},
        "n": {"type": "integer"},
        "o": {"type": "object", "properties": {"x": {"type": "integer"}}},
    }
    schema = {"type": "object", "required": ["file"], "properties": properties}
    encoding = {each: Encoding(binary=True) for each in ("file", "files")}
    operation = Operation(
        method="POST", path="/pets", servers=[SERVER],
        body=[Media(type="multipart/form-data", encoding=encoding)],
    )  # fmt: skip
    content = {"multipart/form-data": {"schema": schema}}
    item = {"post": {"requestBody": {"content": content}}}
    checker = Checker(document("/pets", item, version=version))

    def said(**body):
        arguments = Arguments.read(headers={}, req_body=json.dumps(body))
        return checker.check("POST /pets", build(operation, arguments, headers={}, url=None))

    data = base64.b64encode(bytes(range(256)) + b"\r\n--").decode()
    assert said(file=data, files=[data, data], n=5, o={"x": 1}, other="x") is None
    assert said(file=data, files=data) is None
    assert (
        said(file=data, files=[data] * 3) == "req_body.files must have at most 2 items, is an array"
    )
    assert said(file=data, n="x") == 'req_body.n must be an integer, is "x"'
    assert said(file=data, o={"x": "y"}) == 'req_body.o.x must be an integer, is "y"'
    assert said(n=5) == "req_body.file is required and must be specified"


@pytest.mark.parametrize(
    ("content_type", "schema", "body", "said"),
    [
        ("text/plain", {"type": "string", "maxLength": 1}, b"ab", 'req_body must have at most 1 character, is "ab"'),
        ("text/plain", {"type": "integer"}, b"5", None),
        ("application/octet-stream", {"type": "string", "format": "binary"}, b"\xff", None),
        ("application/xml", {"type": "object"}, b"<!DOCTYPE x [<!ENTITY a 'b'>]><x>&a;</x>", None),
        ("application/json", None, b"{", None),
        ("multipart/form-data", {"type": "object"}, b"x", None),
    ],
)  # fmt: skip
def test_bodies_of_other_types(content_type, schema, body, said):
    assert check_body(schema, body, content_type) == said


@pytest.mark.parametrize("offered", ["*/*", "application/*", "application/json; charset=utf-8"])
def test_a_content_type_may_be_offered_by_its_kind(offered):
    item = {"post": {"requestBody": {"content": {offered: {"schema": {"type": "object"}}}}}}
    headers = [("Content-Type", "application/json")]
    request = Request("POST", f"{SERVER}/pets", headers, b"5")
    said = Checker(document("/pets", item)).check("POST /pets", request)
    assert said == "req_body must be an object, is 5"


def test_a_content_type_that_is_not_offered_is_not_judged():
    item = {
        "post": {"requestBody": {"content": {"application/json": {"schema": {"type": "object"}}}}}
    }
    checker = Checker(document("/pets", item))
    request = Request("POST", f"{SERVER}/pets", [("Content-Type", "text/csv")], b"x")
    assert checker.check("POST /pets", request) is None


# What is built for a value is read back as that value --------------------------------------------

TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
NAME = st.text(st.characters(codec="utf-8", exclude_characters="[]{}/?#"), min_size=1, max_size=6)
ITEM = TEXT | st.integers() | st.booleans() | st.decimals(-1000, 1000, places=2).map(float)
VALUE = ITEM | st.lists(ITEM, min_size=1, max_size=4) | st.dictionaries(NAME, ITEM, min_size=1, max_size=4)  # fmt: skip
STYLES = [
    ("path", "simple"), ("path", "label"), ("path", "matrix"), ("query", "form"),
    ("query", "spaceDelimited"), ("query", "pipeDelimited"), ("query", "deepObject"),
    ("cookie", "form"),
]  # fmt: skip
TYPES = {str: "string", int: "integer", bool: "boolean", float: "number"}


def exactly(value):
    """A schema that only this value fits."""
    match value:
        case list():
            each = [exactly(item) for item in value]
            return {
                "type": "array",
                "prefixItems": each,
                "minItems": len(each),
                "maxItems": len(each),
            }
        case dict():
            each = {key: exactly(item) for key, item in value.items()}
            return {"type": "object", "properties": each, "required": list(each)}
        case _:
            return {"type": TYPES[type(value)], "const": value}


@pytest.mark.parametrize("explode", [False, True])
@pytest.mark.parametrize(("place", "style"), STYLES)
@given(name=NAME, value=VALUE)
@settings(max_examples=50)
def test_what_is_built_fits_the_schema_of_its_value_and_of_no_other(
    place, style, explode, name, value
):
    explode = explode or style == "deepObject"
    asked = Parameter(name=name, in_=place, style=style, explode=explode, required=True)
    template = "/in/{" + name + "}" if place == "path" else "/in"
    operation = Operation(method="GET", path=template, parameters=[asked], servers=[SERVER])
    given = json.dumps({name: value})
    arguments = Arguments.read(headers={}, query_params=given, url_params=given)
    try:
        request = build(operation, arguments, headers={}, url=None)
    except WrongCall as wrong:
        assert "must not" in str(wrong) or "must hold no" in str(wrong)
        return

    def said(schema):
        more = {"place": place, "style": style, "explode": explode, "required": True}
        item = {"get": {"parameters": [parameter(schema, name=name, **more)]}}
        return Checker(document(template, item)).check(f"GET {template}", request)

    assert said(exactly(value)) is None
    other = (
        [*value, "x"]
        if isinstance(value, list)
        else {"x[": 1}
        if isinstance(value, dict)
        else "\0other"
    )
    assert said(exactly(other)) is not None


@given(
    st.sampled_from(["application/x-www-form-urlencoded", "multipart/form-data", "application/json"]),
    st.dictionaries(NAME, VALUE, min_size=1, max_size=4),
)  # fmt: skip
@settings(max_examples=150)
def test_what_is_built_of_a_body_fits_the_schema_of_its_value(kind, value):
    operation = Operation(method="POST", path="/in", body=[Media(type=kind)], servers=[SERVER])
    arguments = Arguments.read(headers={}, req_body=json.dumps(value))
    request = build(operation, arguments, headers={}, url=None)
    item = {"post": {"requestBody": {"content": {kind: {"schema": exactly(value)}}}}}
    assert Checker(document("/in", item)).check("POST /in", request) is None
