"""Hostile documents: each is refused or harmless, in time, and nothing is fetched or read."""

import json
import time
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import msgspec
import psutil
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scheduler.config import Specs
from scheduler.documents.client import Operation
from scheduler.documents.compiler import compiled
from scheduler.documents.document import read
from scheduler.documents.messages import (
    Compile,
    Compiled,
    Finding,
    Fine,
    Limits,
    Read,
    Review,
    Reviewed,
)
from scheduler.documents.notation import Wrong
from scheduler.documents.review import reviewed
from scheduler.specs.aide import Aides

ALICE = UUID(int=1)
LIMITS = Limits(max_bytes=8 << 20, max_depth=100, max_operations=5000)
SECONDS = 4.0
"""CPU time that a document has here."""
START: dict[str, Any] = {"openapi": "3.1.0", "info": {"title": "T", "version": "1"}, "paths": {}}
ANSWERS = {"responses": {"200": {"description": "fine"}}}


def bomb(levels: int, width: int) -> bytes:
    lines = ["openapi: 3.0.0", "x0: &x0 [a, a, a, a, a, a, a, a]"]
    lines += [f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * width)}]" for n in range(1, levels)]
    return "\n".join(lines).encode()


def schemas(**named: Any) -> bytes:
    return json.dumps({**START, "components": {"schemas": named}}).encode()


def operation(**fields: Any) -> bytes:
    return json.dumps({**START, "paths": {"/a": {"post": {**ANSWERS, **fields}}}}).encode()


def parameter(**schema: Any) -> bytes:
    one = {"name": "q", "in": "query", "required": True, "schema": schema}
    return operation(parameters=[one])


def doubling(levels: int) -> dict[str, Any]:
    """`allOf` of two of the same, again and again."""
    named: dict[str, Any] = {
        f"S{n}": {"allOf": [{"$ref": f"#/components/schemas/S{n + 1}"}] * 2} for n in range(levels)
    }
    return {**named, f"S{levels}": {"type": "object"}}


CYCLE = {"type": "object", "required": ["next"],
         "properties": {"next": {"$ref": "#/components/schemas/Node"}}}  # fmt: skip
SHARED = {
    "name": "q",
    "in": "query",
    "schema": {"type": "string", "enum": [f"v{n}" for n in range(100_000)]},
}
NOT_READ = {
    "empty": b"",
    "nul": b"\0",
    "nul-in-text": b"openapi: 3.0.0\nx: a\0b",
    "nul-escaped-yaml": b'openapi: 3.0.0\nx: "a\\0b"',
    "nul-escaped-json": b'{"openapi": "3.0.0", "x": {"a\\u0000b": 1}}',
    "not-utf8": b"openapi: 3.0.0\nx: \xff",
    "utf16": "openapi: 3.0.0".encode("utf-16"),
    "surrogate": b'{"openapi": "3.0.0", "x": "\\ud800"}',
    "surrogate-key": b'{"openapi": "3.0.0", "\\ud800": 1}',
    "surrogate-yaml": b'openapi: 3.0.0\nx: "\\ud800"',
    "alias-bomb": bomb(30, 9),
    "alias-to-itself": b"openapi: 3.0.0\nx: &x [*x]",
    "alias-to-nothing": b"openapi: 3.0.0\nx: *x",
    "merge-bomb": b"openapi: 3.0.0\nx0: &x0 {a: 1, b: 2}\n"
    + b"".join(b"x%d: &x%d {<<: [%s], k%d: *x%d, l%d: *x%d}\n"
               % (n, n, b", ".join([b"*x%d" % (n - 1)] * 9), n, n - 1, n, n - 1)
               for n in range(1, 40)),
    "50-megabytes": b"openapi: 3.0.0\nx: " + b"a" * (50 << 20),
    "deep-yaml": b"openapi: 3.0.0\nx: " + b"[" * 10_000,
    "deep-yaml-closed": b"openapi: 3.0.0\nx: " + b"[" * 10_000 + b"]" * 10_000,
    "deep-blocks": b"openapi: 3.0.0\n" + b"".join(b" " * n + b"x:\n" for n in range(2000)),
    "deep-json": b'{"openapi": "3.0.0", "x": ' + b"[" * 10_000 + b"]" * 10_000 + b"}",
    "deep-objects": b'{"x":' * 10_000 + b"1" + b"}" * 10_000,
    "dashes": b"openapi: 3.0.0\nx:\n " + b"- " * 10_000,
    "question-marks": b"openapi: 3.0.0\nx:\n " + b"? " * 10_000,
    "python-tag": b"openapi: 3.0.0\nx: !!python/object/apply:os.system [id]",
    "python-name": b"openapi: 3.0.0\nx: !!python/name:os.system",
    "own-tag": b"openapi: 3.0.0\nx: !secret a",
    "binary-tag": b"openapi: 3.0.0\nx: !!binary aGk=",
    "list-for-key": b"openapi: 3.0.0\n? [a, b]\n: c",
    "twice-yaml": b"openapi: 3.0.0\nx: {a: 1, a: 2}",
    "twice-json": b'{"openapi": "3.0.0", "x": {"a": 1, "a": 2}}',
    "two-documents": b"openapi: 3.0.0\n---\nopenapi: 3.0.0",
    "1e400": b'{"openapi": "3.0.0", "x": 1e400}',
    "infinity": b'{"openapi": "3.0.0", "x": Infinity}',
    "inf-yaml": b"openapi: 3.0.0\nx: .inf",
    "5000-digits": b'{"openapi": "3.0.0", "x": ' + b"9" * 5000 + b"}",
    "swagger": b'swagger: "2.0"',
    "3.2": b"openapi: 3.2.0",
    "html": b"<!DOCTYPE html><html><body>Sign in</body></html>",
    "openapi-object": b"openapi: {a: b}",
}  # fmt: skip
ERRORS = {
    "paths-list": json.dumps({**START, "paths": []}).encode(),
    "paths-text": json.dumps({**START, "paths": "/a"}).encode(),
    "info-list": json.dumps({**START, "info": []}).encode(),
    "no-info": b"openapi: 3.0.0\npaths: {}",
    "item-null": b"openapi: 3.0.0\ninfo: {title: a, version: 1}\npaths: {/a: {get: null}}",
    "no-responses": b"openapi: 3.0.0\ninfo: {title: a, version: 1}\npaths: {/a: {get: {}}}",
    "long-path": json.dumps({**START, "paths": {"/" + "a" * 1001: {"get": ANSWERS}}}).encode(),
    "ref-loop": schemas(A={"$ref": "#/components/schemas/B"}, B={"$ref": "#/components/schemas/A"}),
    "ref-itself": schemas(A={"$ref": "#/components/schemas/A"}),
    "ref-nowhere": schemas(A={"$ref": "#/components/schemas/B"}),
    "ref-root": schemas(A={"$ref": "#"}),
    "ref-of-another-kind": operation(parameters=[{"$ref": "#/info"}]),
    "ref-to-text": operation(requestBody={"$ref": "#/info/title"}),
    "broken-pattern": schemas(A={"type": "string", "pattern": "("}),
    "bad-default": schemas(A={"type": "integer", "default": "x"}),
    "no-such-scheme": operation(security=[{"nobody": []}]),
    "no-such-variable": json.dumps({**START, "servers": [{"url": "https://{host}"}]}).encode(),
    "redos-default": schemas(A={"type": "string", "pattern": "^(a+)+$", "default": "a" * 40 + "!"}),
    "shared-enum": json.dumps({
        **START,
        "components": {"parameters": {"q": SHARED}},
        "paths": {
            f"/p{n}": {"get": {"parameters": [{"$ref": "#/components/parameters/q"}], **ANSWERS}}
            for n in range(1000)
        },
    }).encode(),
    "many-operations": json.dumps(
        {**START, "paths": {f"/p{n}": {"get": ANSWERS} for n in range(5001)}}
    ).encode(),
}  # fmt: skip
HARMLESS = {
    "key-of-a-megabyte": json.dumps({**START, "x-" + "k" * (1 << 20): 1}).encode(),
    "schema-loop": schemas(Node=CYCLE, A={"anyOf": [
        {"type": "array", "items": {"$ref": "#/components/schemas/A"}}, {"type": "string"}]}),
    "all-of-loop": schemas(A={"allOf": [{"$ref": "#/components/schemas/A"}]}),
    "all-of-doubling": schemas(**doubling(60)),
    "body-of-a-loop": json.dumps({
        **START,
        "components": {"schemas": {"Node": CYCLE}},
        "paths": {"/a": {"post": {**ANSWERS, "requestBody": {"required": True, "content": {
            "application/json": {"schema": {"$ref": "#/components/schemas/Node"}}}}}}},
    }).encode(),
    "redos": parameter(type="string", pattern="^(([a-z])+.)+[A-Z]([a-z])+$"),
    "redos-example": parameter(type="string", pattern="^(a+)+$", example="a" * 60 + "!"),
    "many-values": parameter(type="string", enum=[f"v{n}" for n in range(100_000)]),
    "large-sample": parameter(type="array", minItems=10**9, items={
        "type": "array", "minItems": 10**9, "items": {"type": "string", "minLength": 10**9}}),
    "wide-sample": parameter(type="object", minProperties=10**9),
    "numbers": parameter(type="number", minimum=1e308, multipleOf=1e-300),
    "large-numbers": schemas(A={"type": "integer", "maximum": 10**300, "default": 10**30}),
    "large-number-default": parameter(type="integer", default=10**30),
    "code": json.dumps({**START, "info": {
        "title": '"""\nimport os; os.system("id")', "version": "{{7*7}}",
        "description": "<script>alert(1)</script>${jndi:ldap://127.0.0.1/}"}}).encode(),
    "path-up": json.dumps({**START, "paths": {"/../../etc/passwd": {
        "get": {**ANSWERS, "operationId": "../../../etc/cron.d/x"}}}}).encode(),
    "path-of-controls": json.dumps({**START, "paths": {"/a\r\nHost: b": {"get": ANSWERS}}}).encode(),
    "braces": json.dumps({**START, "paths": {"/{": {"get": ANSWERS}, "/{}{a": {"get": ANSWERS}}}
                         ).encode(),
    "metadata-server": json.dumps({
        **START, "servers": [{"url": "http://169.254.169.254/latest"}]}).encode(),
}  # fmt: skip


PLACES = {
    "parameters": ["paths", "/a", "get", "parameters", 0],
    "schema": ["components", "schemas", "A"],
    "property": ["components", "schemas", "B", "properties", "b"],
    "path": ["paths", "/b"],
    "response": ["paths", "/a", "get", "responses", "200"],
    "example": ["components", "schemas", "C", "example"],
    "default": ["components", "schemas", "C", "default"],
    "extension": ["x-any", "deep"],
}
QUERY = {"name": "q", "in": "query", "schema": {"type": "string"}}
OUT = (
    "{url}",
    "{url}#/a",
    "file:///etc/passwd",
    "passwd",
    "../passwd",
    "/etc/passwd",
    "//{host}/a",
)


@pytest.fixture(scope="module")
async def aides() -> AsyncIterator[Aides]:
    async with Aides(Specs()) as found:
        yield found


def memory(name: str) -> int:
    (child,) = [each for each in psutil.Process().children() if name in each.cmdline()]
    return child.memory_info().rss


@pytest.mark.parametrize("name", NOT_READ)
async def test_what_is_no_document_is_refused_at_once_with_a_reason(aides, name):
    started = time.monotonic()
    answer = await aides.ask(ALICE, Read(NOT_READ[name], LIMITS), SECONDS)
    assert isinstance(answer, Finding), answer
    assert 10 < len(answer.message) < 700
    assert answer.message.isprintable()
    assert time.monotonic() - started < 10
    assert memory("scheduler.documents.reader") < 600 << 20


@pytest.mark.parametrize("name", ERRORS)
async def test_what_is_wrong_deeper_down_is_found_when_it_is_compiled(aides, name):
    read_first = await aides.ask(ALICE, Read(ERRORS[name], LIMITS), SECONDS)
    assert isinstance(read_first, Fine)
    answer = await aides.ask(ALICE, Compile(ERRORS[name], LIMITS), SECONDS)
    assert isinstance(answer, Finding), answer
    assert 10 < len(answer.message) < 700
    assert answer.message.isprintable()


@pytest.mark.parametrize("name", HARMLESS)
async def test_what_only_looks_dangerous_is_compiled_and_reviewed(aides, name):
    answer = await aides.ask(ALICE, Compile(HARMLESS[name], LIMITS), SECONDS)
    assert isinstance(answer, Compiled), answer
    review = Review(answer.document, answer.operations, "https://example.com")
    reviewed = await aides.ask(ALICE, review, SECONDS)
    assert isinstance(reviewed, Reviewed), reviewed


def placed(path: list[Any], value: Any) -> bytes:
    """A document with this at a place of it."""
    document: Any = {**START, "components": {"schemas": {"B": {}, "C": {"type": "object"}}}}
    document["paths"] = {"/a": {"get": {"parameters": [QUERY], **ANSWERS}}}
    document = json.loads(json.dumps(document))
    node = document
    for step in path[:-1]:
        node = node[step] if isinstance(node, list) else node.setdefault(step, {})
    node[path[-1]] = value
    return json.dumps(document).encode()


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("out", OUT)
async def test_no_reference_leads_out_of_a_document(aides, receiver, place, out):
    host = receiver.url.split("/")[2]
    source = placed(PLACES[place], {"$ref": out.format(url=receiver.url, host=host)})
    answer = await aides.ask(ALICE, Compile(source, LIMITS), SECONDS)
    assert isinstance(answer, Finding)
    assert "leads out of this document" in answer.message
    assert "$ref" in answer.message.split(": ")[0]
    assert "root:" not in answer.message
    assert receiver.requests == []


async def test_nothing_else_that_names_an_address_is_fetched(aides, receiver):
    url = receiver.url
    document = {
        **START,
        "jsonSchemaDialect": url,
        "servers": [{"url": url}],
        "externalDocs": {"url": url},
        "components": {
            "schemas": {
                "A": {"$id": url, "$schema": url, "type": "object", "required": ["b"],
                      "properties": {"b": {"$ref": "#/components/schemas/B"}}},
                "B": {"type": "string", "externalDocs": {"url": url}},
            },
            "examples": {"E": {"externalValue": url}},
            "links": {"L": {"operationRef": url}},
        },
        "paths": {"/a": {"post": {**ANSWERS, "requestBody": {"required": True, "content": {
            "application/json": {"schema": {"$ref": "#/components/schemas/A"},
                                 "examples": {"E": {"$ref": "#/components/examples/E"}}}}}}}},
    }  # fmt: skip
    answer = await aides.ask(ALICE, Compile(json.dumps(document).encode(), LIMITS), SECONDS)
    assert isinstance(answer, Compiled), answer
    reviewed = await aides.ask(ALICE, Review(answer.document, answer.operations, None), SECONDS)
    assert reviewed == Reviewed({})
    assert receiver.requests == []


@pytest.mark.parametrize("key", ["$dynamicRef", "$recursiveRef"])
async def test_no_dynamic_reference_leads_out_of_a_document(aides, receiver, key):
    source = schemas(A={key: f"{receiver.url}#node"})
    answer = await aides.ask(ALICE, Compile(source, LIMITS), SECONDS)
    assert isinstance(answer, Finding)
    assert answer.message.startswith(f"components.schemas.A.{key}: ")
    assert receiver.requests == []


@pytest.mark.parametrize("to", ["URL", "other.yaml#/Dog", "Cat"])
async def test_a_discriminator_maps_to_schemas_of_the_document_alone(aides, receiver, to):
    named = {"propertyName": "kind", "mapping": {"dog": to.replace("URL", receiver.url)}}
    one = {"oneOf": [{"$ref": "#/components/schemas/Dog"}], "discriminator": named}
    answer = await aides.ask(ALICE, Compile(schemas(A=one, Dog={}), LIMITS), SECONDS)
    assert isinstance(answer, Finding)
    assert answer.message.startswith("components.schemas.A.discriminator.mapping.dog: ")
    assert receiver.requests == []


async def test_one_operation_that_takes_long_does_not_hold_up_the_review_of_others(aides):
    slow = parameter(type="string", pattern="^(a+)+$", example="a" * 60 + "!")
    document = json.loads(slow)
    document["paths"]["/b"] = {"get": ANSWERS, "trace": ANSWERS}
    answer = await aides.ask(ALICE, Compile(json.dumps(document).encode(), LIMITS), SECONDS)
    review = Review(answer.document, answer.operations, "https://example.com")
    reviewed = await aides.ask(ALICE, review, SECONDS)
    assert reviewed == Reviewed({"TRACE /b": "TRACE is not sent"})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4)
    ),
    max_leaves=20,
)
WORDS = st.sampled_from([
    "openapi", "info", "paths", "/a", "/a/{b}", "get", "post", "parameters", "name", "in", "query",
    "path", "schema", "$ref", "#/components/schemas/A", "components", "schemas", "A", "type",
    "object", "allOf", "properties", "required", "requestBody", "content", "application/json",
    "responses", "200", "servers", "url", "variables", "security", "securitySchemes", "style", "b",
    "multipart/form-data", "encoding", "default", "enum", "items", "array", "discriminator",
    "mapping", "propertyName", "example", "examples", "minimum", "pattern", "<<", "nullable",
])  # fmt: skip
NODES = st.recursive(
    WORDS | st.booleans() | st.integers(-3, 3) | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=5),
    max_leaves=30,
)
QUICK = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def endpoints_of(answer: Compiled) -> set[str]:
    return {msgspec.json.decode(each, type=Operation).endpoint for each in answer.operations}


def tried(source: bytes) -> None:
    try:
        answer = compiled(Compile(source, LIMITS))
    except Wrong as wrong:
        assert str(wrong).isprintable() and str(wrong)
    else:
        reviewed_too = reviewed(Review(answer.document, answer.operations, None))
        assert set(reviewed_too.refused) <= endpoints_of(answer)


@QUICK
@given(
    st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "ignore"))
)
def test_bytes_of_any_kind_are_read_or_refused(source):
    try:
        read(source, LIMITS)
    except Wrong as wrong:
        assert str(wrong).isprintable() and str(wrong)


@QUICK
@given(JSON)
def test_yaml_and_json_of_any_shape_are_read_alike_or_refused(value):
    text = json.dumps({"openapi": "3.0.0", "x": value})
    try:
        found = read(text.encode(), LIMITS)
    except Wrong as wrong:
        assert str(wrong).isprintable()
        return
    as_yaml = yaml.safe_dump(found).encode()
    assert read(as_yaml, LIMITS) == found


@QUICK
@given(NODES, NODES, NODES, st.sampled_from(["3.0.3", "3.1.0"]))
def test_documents_of_any_shape_are_compiled_or_refused(paths, parts, rest, version):
    document = {"openapi": version, "info": {"title": "a", "version": "1"}, "paths": paths}
    tried(json.dumps({**document, "components": parts, "servers": rest}).encode())


@QUICK
@given(NODES, NODES, NODES, st.sampled_from(["3.0.3", "3.1.0"]))
def test_operations_of_any_shape_are_compiled_or_refused(one, schema, content, version):
    operation = {
        "parameters": [{"name": "b", "in": "query", "required": True, "schema": schema}],
        "requestBody": {"required": True, "content": content},
        **ANSWERS,
        **(one if isinstance(one, dict) else {}),
    }
    document = {"openapi": version, "info": {"title": "a", "version": "1"}}
    document["paths"] = {"/a/{b}": {"post": operation}, "/a": {"get": ANSWERS}}
    document["components"] = {"schemas": {"A": schema}}
    tried(json.dumps(document).encode())
