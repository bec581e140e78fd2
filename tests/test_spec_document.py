"""Documents: how they are read, what is found in them, and the client they compile to."""

import base64
import json
from typing import Any

import msgspec
import pytest
import yaml

from scheduler.documents import compiling, references
from scheduler.documents.client import Client, Encoding, Media, Operation, Parameter, Scheme
from scheduler.documents.compiler import compiled
from scheduler.documents.document import read
from scheduler.documents.messages import Compile, Limits, Review
from scheduler.documents.notation import Wrong
from scheduler.documents.review import NO_SERVER, reviewed

LIMITS = Limits(max_bytes=1 << 20, max_depth=50, max_operations=100)
README = base64.b64decode(
    "b3BlbmFwaTogMy4wLjMKaW5mbzoKICB0aXRsZTogQVBJCiAgdmVyc2lvbjogMS4wLjAKICBjb250YWN0OiB7fQpzZXJ2"
    "ZXJzOiBbXQpwYXRoczoge30KdGFnczogW10K"
)
ANSWERS = {"responses": {"200": {"description": "fine"}}}


def document(version: str = "3.0.3", **fields: Any) -> dict[str, Any]:
    return {"openapi": version, "info": {"title": "T", "version": "1"}, "paths": {}, **fields}


def client_of(found: dict[str, Any]) -> Client:
    answer = compiled(Compile(json.dumps(found).encode(), LIMITS))
    operations = [msgspec.json.decode(each, type=Operation) for each in answer.operations]
    return msgspec.structs.replace(answer.client, operations=operations)


def one(path: str = "/a", method: str = "get", item: Any = None, **fields: Any) -> Operation:
    """The operation that a document with only one compiles to."""
    more = {name: fields.pop(name) for name in ("servers", "components") if name in fields}
    top = {"security": fields.pop("of_all")} if "of_all" in fields else {}
    paths = {path: {**(item or {}), method: {**ANSWERS, **fields}}}
    (found,) = client_of(document(paths=paths, **more, **top)).operations
    return found


def wrong(found: Any) -> str:
    with pytest.raises(Wrong) as caught:
        compiled(Compile(found if isinstance(found, bytes) else json.dumps(found).encode(), LIMITS))
    return str(caught.value)


# Reading ------------------------------------------------------------------------------------------


def test_the_document_of_the_readme_is_compiled():
    answer = compiled(Compile(README, LIMITS))
    assert json.loads(answer.document)["info"] == {
        "title": "API",
        "version": "1.0.0",
        "contact": {},
    }
    assert answer.client == Client(title="API", version="1.0.0", openapi="3.0.3")
    assert reviewed(Review(answer.document, answer.operations, None)).refused == {}


def test_yaml_and_json_are_read_alike_with_and_without_a_byte_order_mark():
    for source in (README, b"\xef\xbb\xbf" + README, json.dumps(yaml.safe_load(README)).encode()):
        assert read(source, LIMITS) == yaml.safe_load(README)


def test_yaml_has_the_kinds_of_values_of_its_version_1_2():
    text = """
openapi: 3.1.0
info: {title: 2026, version: 1.0}
words: [no, yes, on, off, y, 2026-01-31, 12:30:45, 1_000, 0b1, =, null and void]
true: [true, True, false, FALSE]
nothing: [null, ~, NULL, '']
whole: [0, -7, +7, 010, 0x10, 0o10, 18446744073709551616]
parts: [1.5, .5, 5., 1e3, -1.5E-3]
texts: ['1', "true", !!str 5, |-
  1
]
keys: {200: a, yes: b, null: c, 1.0: d, 2026-01-31: e}
"""
    found = read(text.replace(", |-\n  1\n]", "]").encode(), LIMITS)
    assert found["info"] == {"title": "2026", "version": "1.0"}
    assert found["words"] == ["no", "yes", "on", "off", "y", "2026-01-31", "12:30:45", "1_000",
                              "0b1", "=", "null and void"]  # fmt: skip
    assert found["true"] == [True, True, False, False]
    assert found["nothing"] == [None, None, None, ""]
    assert found["whole"] == [0, -7, 7, 10, 16, 8, 2**64]
    assert [type(each) for each in found["parts"]] == [float] * 5
    assert found["texts"] == ["1", "true", "5"]
    assert set(found["keys"]) == {"200", "yes", "null", "1.0", "2026-01-31"}


def test_large_numbers_are_kept():
    source = b'{"openapi": "3.0.0", "x": [9223372036854775807, 18446744073709551615, 1e300]}'
    assert read(source, LIMITS)["x"] == [2**63 - 1, 2**64 - 1, 1e300]


def test_aliases_are_written_out_and_objects_merged():
    text = b"""
openapi: 3.0.0
x-one: &one {a: 1, b: {c: 2}}
x-two: {<<: *one, a: 3}
x-three: {a: 4, <<: [{d: 5}, *one]}
x-four: [*one, *one]
x-five: {*key : &key k}
""".replace(b"x-five: {*key : &key k}", b"x-key: &key k\nx-five: {*key : 1}")
    found = read(text, LIMITS)
    assert found["x-two"] == {"a": 3, "b": {"c": 2}}
    assert found["x-three"] == {"a": 4, "d": 5, "b": {"c": 2}}
    assert found["x-four"] == [{"a": 1, "b": {"c": 2}}] * 2
    assert found["x-five"] == {"k": 1}


def test_aliases_may_make_a_document_as_long_as_one_may_be_and_no_longer():
    text = b"openapi: 3.0.0\nx: &x [%s]\ny: [%s]"
    short = text % (b", ".join([b"word"] * 100), b", ".join([b"*x"] * 100))
    assert len(read(short, LIMITS)["y"]) == 100
    with pytest.raises(Wrong, match="longer than 1048576 bytes with its aliases written out"):
        read(text % (b", ".join([b"word"] * 1000), b", ".join([b"*x"] * 1000)), LIMITS)


def test_depth_is_counted_through_aliases():
    nested = b"[" * 30 + b"]" * 30
    text = b"openapi: 3.0.0\nx: &x %s\ny: %s*x%s"
    assert read(text % (nested, b"[" * 10, b"]" * 10), LIMITS)
    with pytest.raises(Wrong, match=r"nested deeper than 50 \(specs.max_depth\)"):
        read(text % (nested, b"[" * 30, b"]" * 30), LIMITS)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ('swagger: "2.0"', "swagger: this is Swagger 2.0, which is not supported; convert it to"),
        (
            "a: 1",
            'openapi: is missing; write the version of OpenAPI that it keeps to, like "3.0.3"',
        ),
        ("openapi: 3.0", 'openapi: 3.0 is not supported; write the version .* "3.0.3" or "3.1.0"'),
        ("openapi: 4.0.0", "openapi: 4.0.0 is not supported"),
        ("- openapi: 3.0.0", "is no object; an OpenAPI document is an object with openapi"),
        ("", "is empty; an OpenAPI document is an object"),
        ("a: b: c", "is neither YAML nor JSON at line 1, column 5: mapping values"),
        ('{"a": [1, {"b": 1, "b": 2}]}', r'^a\[1\]: names "b" twice; keep one of them$'),
        ("a: [1, {b: 1, b: 2}]", r'^a\[1\]: names "b" twice; keep one of them$'),
        ("a: {b: [1, !!python/name:os.system x]}", r"^a.b\[1\]: has the tag tag:yaml"),
        ("a: {b: *c}", r"^a.b: \*c names nothing; write it out$"),
    ],
)
def test_what_is_no_document_is_refused_with_the_place_and_what_would_be_right(source, message):
    with pytest.raises(Wrong, match=message):
        read(source.encode(), LIMITS)


def test_a_finding_repeats_little_of_a_document_and_on_one_line():
    long = json.dumps({"openapi": "3.0.0\n\x1b[31m" + "a" * 10_000}).encode()
    with pytest.raises(Wrong) as caught:
        read(long, LIMITS)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 250


# Finding ------------------------------------------------------------------------------------------

IN = "paths./a.get.parameters[0]"


@pytest.mark.parametrize("version", ["3.0.3", "3.1.0"])
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"name": "q", "in": "qury", "schema": {}}, f"{IN}.in: qury is none of "),
        ({"name": "q", "in": "query", "schema": {"type": "strin"}},
         f"{IN}.schema.type: strin is none of array, boolean, integer"),
        ({"name": "q", "in": "query", "schema": {"type": "integer", "default": "x"}},
         f"{IN}.schema.default: x is no integer"),
        ({"name": "q", "in": "query", "schema": {"pattern": "("}}, f"{IN}.schema.pattern: '('"),
        ({"$ref": "#/components/parameters/q"},
         f"{IN}.$ref: #/components/parameters/q names nothing in this document"),
        ({"$ref": "other.yaml#/q"}, f"{IN}.$ref: other.yaml#/q leads out of this document; write"),
        ({"$ref": "#/info"}, f"{IN}: is no parameter; it must have a name and a place (in)"),
    ],
)  # fmt: skip
def test_a_finding_names_its_place(version, given, message):
    paths = {"/a": {"get": {"parameters": [given], **ANSWERS}}}
    assert wrong(document(version, paths=paths)).startswith(message)


def test_a_finding_in_a_document_says_what_would_be_right():
    assert wrong(document(paths={"a": {}})).endswith("a path begins with /")
    assert wrong({"openapi": "3.0.0", "info": {"title": "a"}, "paths": {}}) == (
        "info: has no version, which is required"
    )
    assert wrong(document(paths={"/a": {"get": {}}})) == (
        "paths./a.get: has no responses, which is required"
    )
    twice = {"operationId": "a", **ANSWERS}
    assert wrong(document(paths={"/a": {"get": twice, "put": twice}})).startswith("paths./a.put: ")
    assert wrong(document(servers=[{"url": "https://{host}"}])) == (
        "servers[0].url: names {host}, which has no default; give it one under variables"
    )
    variable = {"default": "c", "enum": ["a", "b"]}
    assert wrong(document(servers=[{"url": "/{v}", "variables": {"v": variable}}])) == (
        "servers[0].variables.v.default: c is none of a, b"
    )
    assert wrong(document(security=[{"key": []}])) == (
        "security[0]: key is no security scheme of components.securitySchemes"
    )
    assert wrong(document(paths={f"/{n}": {"get": ANSWERS} for n in range(101)})) == (
        "paths: has more than 100 operations (specs.max_operations)"
    )


@pytest.mark.parametrize("version", ["3.0.3", "3.1.0"])
@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "pattern": r"^[\p{L}\p{Z}]*$"},
        {"type": "string", "pattern": r"^[\p{L}\p{Z}]*$", "default": "a"},
        {"type": "string", "pattern": "^(?<year>[0-9]+)$"},
        {"type": "string", "pattern": r"^[\w-.]+@([\w-]+\.)+[a-\d]{2,4}$"},
        {"type": "string", "pattern": r"\A[a-z]+\z"},
        {"type": "string", "default": None},
        {"type": "object", "required": ["nobody-describes-it"]},
    ],
)
def test_what_others_take_for_valid_is_taken(version, schema):
    given = {"name": "q", "in": "query", "required": True, "schema": schema}
    found = document(version, paths={"/a": {"get": {**ANSWERS, "parameters": [given]}}})
    assert refused(found) == {}


def test_a_reference_may_be_escaped_and_lead_through_others():
    components = {
        "parameters": {
            "a/b~c d": {"$ref": "#/components/parameters/q"},
            "q": {"name": "q", "in": "query", "schema": {"$ref": "#/components/schemas/S"}},
        },
        "schemas": {"S": {"type": "integer"}},
    }
    found = one(parameters=[{"$ref": "#/components/parameters/a~1b~0c%20d"}], components=components)
    assert found.parameters == [Parameter(name="q", in_="query", type="integer", explode=True)]


def test_what_looks_like_a_reference_in_data_is_none_and_what_changes_their_base_is_left_out():
    schema = {"$id": "http://h/", "properties": {"$ref": {"type": "string"}, "$id": {}}}
    schema["example"] = {"$ref": "#/no/where"}
    found = references.settled(document(components={"schemas": {"A": schema}}))
    schemas = found["components"]["schemas"]
    assert schemas["A"] == {name: each for name, each in schema.items() if name != "$id"}
    assert set(schemas["A"]["properties"]) == {"$ref", "$id"}


# Compiling ----------------------------------------------------------------------------------------


def test_parameters_have_the_style_of_their_place_and_what_their_schemas_say():
    names = [("p", "path"), ("q", "query"), ("h", "header"), ("c", "cookie")]
    given = [
        {"name": name, "in": where, "required": True, "schema": {"type": "string"}}
        for name, where in names
    ]
    given[1]["schema"] = {"allOf": [{"$ref": "#/components/schemas/E"}], "default": "a"}
    enum = {"schemas": {"E": {"type": "string", "enum": ["a", "b"]}}}
    found = one("/a/{p}", parameters=given, components=enum)
    assert [(each.name, each.in_, each.style, each.explode) for each in found.parameters] == [
        ("p", "path", "simple", False),
        ("q", "query", "form", True),
        ("h", "header", "simple", False),
        ("c", "cookie", "form", True),
    ]
    assert found.parameters[1] == Parameter(
        name="q", in_="query", type="string", required=True, default="a", enum=["a", "b"],
        explode=True,
    )  # fmt: skip


def test_the_type_of_a_parameter_is_what_its_schema_obviously_says():
    def kind(**schema: Any) -> str | None:
        fields = {"name": "q", "in": "query", "schema": schema}
        paths = {"/a": {"get": {**ANSWERS, "parameters": [fields]}}}
        return client_of(document("3.1.0", paths=paths)).operations[0].parameters[0].type

    assert kind(type=["integer", "null"]) == "integer"
    assert kind(anyOf=[{"type": "string"}, {"type": "null"}]) == "string"
    assert kind(anyOf=[{"type": "string"}, {"type": "integer"}]) is None
    assert kind(type=["string", "integer"]) is None
    assert kind(oneOf=[{"type": "string"}, {}]) is None
    assert kind() is None


def test_an_operations_parameter_stands_in_place_of_its_paths():
    item = {"parameters": [
        {"name": "a", "in": "query", "schema": {"type": "string"}},
        {"name": "b", "in": "query", "schema": {"type": "string"}},
    ]}  # fmt: skip
    found = one(item=item, parameters=[{"name": "a", "in": "query", "schema": {"type": "integer"}}])
    assert [(each.name, each.type) for each in found.parameters] == [
        ("a", "integer"),
        ("b", "string"),
    ]


def test_header_parameters_that_openapi_ignores_are_only_listed():
    given = [{"name": n, "in": "header", "required": True, "schema": {}}
             for n in ("Accept", "X-One")]  # fmt: skip
    scheme = {"type": "apiKey", "in": "header", "name": "x-key"}
    found = client_of(document(
        paths={"/a": {"get": {"parameters": given, **ANSWERS}}},
        components={"securitySchemes": {"k": scheme, "b": {"type": "http", "scheme": "Basic"}}},
    ))  # fmt: skip
    assert [each.name for each in found.operations[0].parameters] == ["X-One"]
    assert found.headers == ["Accept", "X-One", "x-key", "Authorization"]


def test_bodies_know_how_the_properties_of_forms_are_written():
    schema = {"type": "object", "properties": {
        "file": {"type": "string", "format": "binary"},
        "files": {"type": "array", "items": {"type": "string", "format": "binary"}},
        "plain": {"type": "string"},
        "tags": {"type": "array", "items": {"type": "string"}},
    }}  # fmt: skip
    content = {
        "Application/JSON; charset=UTF-8": {"schema": schema},
        "multipart/form-data": {"schema": schema, "encoding": {"plain": {"contentType": "a/b"}}},
        "application/x-www-form-urlencoded": {
            "schema": schema,
            "encoding": {
                "tags": {"style": "spaceDelimited", "explode": False},
                "plain": {"style": "form"},
            },
        },
        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        "image/png": {},
        "text/plain": {"schema": {"type": "string"}},
    }
    found = one(method="post", requestBody={"required": True, "content": content})
    assert found.body_required
    binary = Encoding(binary=True)
    assert found.body == [
        Media(type="application/json; charset=UTF-8"),
        Media(type="multipart/form-data", encoding={
            "file": binary, "files": binary, "plain": Encoding(content_type="a/b")}),
        Media(type="application/x-www-form-urlencoded", encoding={
            "file": binary, "files": binary, "plain": Encoding(),
            "tags": Encoding(style="spaceDelimited", explode=False)}),
        Media(type="application/octet-stream", encoding={"": binary}),
        Media(type="image/png", encoding={"": binary}),
        Media(type="text/plain"),
    ]  # fmt: skip


def test_servers_have_their_variables_filled_in_and_the_nearest_hold():
    server = {"url": "https://{host}/{v}", "variables": {
        "host": {"default": "h.example"}, "v": {"default": "v1", "enum": ["v1", "v2"]}}}  # fmt: skip
    assert one(servers=[server, {"url": "/relative"}]).servers == [
        "https://h.example/v1", "/relative"]  # fmt: skip
    own = {"servers": [{"url": "https://path.example"}]}
    assert one(item=own, servers=[server]).servers == ["https://path.example"]
    assert one(servers=[]).servers == []
    paths = {"/a": {"get": {**ANSWERS, "servers": [{"url": "https://o.example"}]}}}
    (found,) = client_of(document(paths=paths, servers=[server])).operations
    assert found.servers == ["https://o.example"]


def test_security_of_an_operation_stands_in_place_of_the_documents():
    schemes = {
        "key": {"type": "apiKey", "in": "query", "name": "k"},
        "basic": {"type": "http", "scheme": "basic"},
        "bearer": {"type": "http", "scheme": "Bearer"},
        "login": {"type": "oauth2", "flows": {}},
        "digest": {"type": "http", "scheme": "digest"},
    }
    parts = {"securitySchemes": schemes}
    key = Scheme(kind="apiKey", in_="query", name="k")
    assert one(of_all=[{"key": []}, {}], components=parts).security == [{"key": key}, {}]
    assert one(of_all=[{"key": []}], security=[], components=parts).security == []
    every = [{"basic": [], "bearer": []}, {"login": []}, {"digest": []}]
    assert one(security=every, components=parts).security == [
        {"basic": Scheme(kind="basic"), "bearer": Scheme(kind="bearer")},
        {"login": Scheme(kind="bearer")},
        {"digest": Scheme(kind="other")},
    ]


@pytest.mark.parametrize(
    ("path", "method", "parameters", "reason"),
    [
        ("/a/{b}", "get", [], "its path names b, which is no parameter of it"),
        ("/a", "trace", [], "TRACE is not sent"),
        ("/a/{b", "get", [], "its path has a brace that names no parameter"),
        ("/a b", "get", [], "its path holds a space or a control character; write it like %20"),
        ("/a", "get", [{"name": "q", "in": "query", "schema": {"type": each}}
                       for each in ("string", "integer")],
         "has the parameter q in query twice"),
    ],
)  # fmt: skip
def test_what_cannot_be_called_says_why(path, method, parameters, reason):
    assert one(path, method, parameters=parameters).refused == reason


def test_of_two_paths_that_are_one_template_the_first_can_be_called():
    def item(name: str) -> dict[str, Any]:
        given = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}}]
        return {"parameters": given, "get": ANSWERS}

    found = client_of(document(paths={"/a/{b}": item("b"), "/a/{c}": item("c")})).operations
    assert [each.refused for each in found] == [None, "its path is the same template as /a/{b}"]


def test_a_client_can_be_sent_and_stored():
    schema = {"type": "integer", "default": 10**30, "enum": [10**30, 1]}
    found = client_of(document(paths={"/a": {"get": {
        **ANSWERS, "parameters": [{"name": "q", "in": "query", "schema": schema}]}}}))  # fmt: skip
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(found), type=Client)
    assert again == found == msgspec.json.decode(msgspec.json.encode(found), type=Client)


def test_what_operations_share_is_compiled_once_and_counted_each_time():
    shared = {"name": "q", "in": "query", "schema": {"type": "string", "enum": ["x" * 1000]}}
    paths = {f"/{n}": {"get": {"parameters": [{"$ref": "#/components/parameters/q"}], **ANSWERS}}
             for n in range(100)}  # fmt: skip
    found = references.settled(document(paths=paths, components={"parameters": {"q": shared}}))
    operations = compiling.client(found, LIMITS).operations
    assert len({id(each.parameters[0]) for each in operations}) == 1
    with pytest.raises(Wrong, match="with its references written out"):
        compiling.client(found, Limits(max_bytes=1024, max_depth=50, max_operations=100))


# Reviewing ----------------------------------------------------------------------------------------


def refused(found: dict[str, Any], url: str | None = "https://h.example") -> dict[str, str]:
    answer = compiled(Compile(json.dumps(found).encode(), LIMITS))
    return reviewed(Review(answer.document, answer.operations, url)).refused


def test_an_operation_without_an_address_can_be_called_where_a_url_is_given():
    found = document(paths={"/a": {"get": ANSWERS}})
    assert refused(found, None) == {"GET /a": NO_SERVER}
    assert refused(found) == {}
    found["servers"] = [{"url": "/v1"}]
    assert refused(found, None) == {
        "GET /a": "its server /v1 is relative; send url with the spec or the process"
    }
    assert refused(found) == {}
    found["servers"] = [{"url": "https://h.example/v1"}]
    assert refused(found, None) == {}


SCHEMAS: dict[str, dict[str, Any]] = {
    "formats": {"type": "array", "items": {"type": "string", "format": "date-time"}},
    "pattern": {"type": "string", "pattern": "^[A-Z]{3}$"},
    "nobody-knows-the-pattern": {"type": "string", "pattern": "^q[0-9]{17}z$"},
    "bounds": {"type": "integer", "minimum": 10, "exclusiveMinimum": True, "multipleOf": 7},
    "between": {"type": "number", "minimum": 0.1, "maximum": 0.2},
    "lengths": {"type": "string", "minLength": 30, "maxLength": 31},
    "many": {"type": "array", "minItems": 3, "items": {"type": "integer"}},
    "loop": {"$ref": "#/components/schemas/Node"},
    "all-of": {"allOf": [{"$ref": "#/components/schemas/Node"}, {"required": ["other"]}]},
    "one-of": {"oneOf": [{"type": "object", "required": ["a"], "properties": {
        "a": {"type": "string", "enum": ["x"]}}}, {"type": "string"}]},
    "discriminated": {"oneOf": [{"$ref": "#/components/schemas/Dog"}],
                      "discriminator": {"propertyName": "kind"}},
    "example": {"type": "string", "minLength": 3, "example": "xyz"},
    "wrong-example": {"type": "integer", "example": "seven"},
    "least-properties": {"type": "object", "minProperties": 2,
                         "properties": {"a": {"type": "string"}, "b": {"type": "integer"}}},
    "nullable": {"type": "string", "nullable": True, "enum": [None, "x"]},
    "read-only": {"type": "object", "required": ["id", "name", "kind"], "minProperties": 1,
                  "properties": {"id": {"type": "integer", "readOnly": True},
                                 "name": {"$ref": "#/components/schemas/Stamp"},
                                 "kind": {"allOf": [{"type": "string"}, {"readOnly": True}]},
                                 "note": {"type": "string"}}},
}  # fmt: skip
PARTS = {"schemas": {
    "Node": {"type": "object", "required": ["name"], "properties": {
        "name": {"type": "string"}, "next": {"$ref": "#/components/schemas/Node"},
        "other": {"type": "boolean"}}},
    "Stamp": {"type": "string", "format": "date-time", "readOnly": True},
    "Dog": {"type": "object", "required": ["kind", "age"],
            "properties": {"kind": {"type": "string"}, "age": {"type": "integer"}}},
}}  # fmt: skip


@pytest.mark.parametrize("name", SCHEMAS)
def test_what_the_review_makes_of_a_schema_fits_it(name):
    body = {"required": True, "content": {"application/json": {"schema": SCHEMAS[name]}}}
    paths = {"/a": {"post": {**ANSWERS, "requestBody": body}}}
    assert refused(document(paths=paths, components=PARTS)) == {}


@pytest.mark.parametrize("where", ["query", "header", "cookie", "path"])
def test_the_review_fills_parameters_of_every_place(where):
    given = {
        "name": "b",
        "in": where,
        "required": True,
        "schema": {"type": "integer", "minimum": 5},
    }
    paths = {"/a/{b}" if where == "path" else "/a": {"get": {**ANSWERS, "parameters": [given]}}}
    assert refused(document(paths=paths)) == {}


@pytest.mark.parametrize(
    "kind",
    ["multipart/form-data", "application/x-www-form-urlencoded", "text/plain", "image/png",
     "application/octet-stream", "application/vnd.api+json", "*/*"],
)  # fmt: skip
def test_the_review_writes_bodies_of_every_kind(kind):
    schema: dict[str, Any] = {"type": "string"}
    if "form" in kind:
        schema = {"type": "object", "required": ["a", "file"], "properties": {
            "a": {"type": "array", "items": {"type": "integer"}},
            "file": {"type": "string", "format": "binary"}}}  # fmt: skip
    body = {"required": True, "content": {kind: {"schema": schema}}}
    assert refused(document(paths={"/a": {"post": {**ANSWERS, "requestBody": body}}})) == {}


def test_the_review_lists_what_no_call_can_satisfy():
    given = {"name": "q", "in": "query", "required": True,
             "schema": {"type": "integer", "enum": ["one", "two"]}}  # fmt: skip
    paths = {"/a": {"get": ANSWERS, "trace": ANSWERS}, "/b": {"get": {
        **ANSWERS, "parameters": [given]}}}  # fmt: skip
    found = refused(document(paths=paths, servers=[{"url": "https://h.example"}]), None)
    assert set(found) == {"TRACE /a", "GET /b"}
    assert found["TRACE /a"] == "TRACE is not sent"
    assert found["GET /b"].startswith("a call made of the document itself does not fit it: q must")
    found = refused(document(paths=paths, servers=[{"url": "ftp://h.example"}]), None)
    assert found["GET /a"] == (
        "its server ftp://h.example is no address of http or https; "
        "send url with the spec or the process"
    )
