"""The OpenAPI document: complete, the same each time, and true of every route."""

import asyncio
import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import schemathesis
import yaml
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events, from_schema

from conftest import TOKENS, App, RunApp
from scheduler import app as application
from scheduler import openapi
from scheduler.described import fields, routes

DOCS = Path(__file__).parent.parent / "docs"
SRC = Path(openapi.__file__).parent
DOCUMENT = application.document()
OPERATIONS = list(openapi.operations(DOCUMENT))


# The document ------------------------------------------------------------------------------------


async def test_the_copies_in_docs_are_what_is_served(anonymous):
    served = (await anonymous.get("/docs/openapi.json")).json()
    assert json.loads((DOCS / "openapi.json").read_text()) == served, "run make openapi"
    assert yaml.safe_load((DOCS / "openapi.yml").read_text()) == served, "run make openapi"
    text = (await anonymous.get("/docs/openapi.yml")).text
    assert yaml.safe_load(text) == served
    for each in (text, (DOCS / "openapi.yml").read_text()):  # few who read YAML take them
        assert not any(isinstance(token, yaml.AliasToken) for token in yaml.scan(each))


def test_the_document_is_the_same_in_every_process():
    program = "import json; from scheduler import app; print(json.dumps(app.document()))"
    made = {
        subprocess.run(
            [sys.executable, "-c", program], env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True, check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }  # fmt: skip
    assert [json.loads(text) for text in made] == [json.loads(json.dumps(DOCUMENT))]


@pytest.mark.parametrize(("path", "method", "operation"), OPERATIONS)
def test_every_refusal_has_the_one_shape(path, method, operation):
    refused = {status: a for status, a in operation["responses"].items() if status >= "400"}
    assert "500" in refused
    for status, answer in refused.items():
        assert answer == {"$ref": f"#/components/responses/{status}"}
        shared = DOCUMENT["components"]["responses"][status]
        schema = shared["content"]["application/json"]["schema"]
        assert schema == {"$ref": "#/components/schemas/Error"}
        assert "X-Trace-Id" in shared["headers"]
    for status, answer in operation["responses"].items():
        assert status in refused or "X-Trace-Id" in answer["headers"]


@pytest.mark.parametrize(("path", "method", "operation"), OPERATIONS)
async def test_what_wants_credentials_says_so(path, method, operation, anonymous):
    answer = await anonymous.request(method, path.replace("{", "").replace("}", ""))
    assert (answer.status_code in (401, 403)) == bool(  # 403: no admin.token is set
        operation.get("security") and {} not in operation["security"]
    )


READ = re.compile(
    r"""(?:query(?:_params)?\.get\(|sent\.get\(|asked\.time\(sent,|_flag\(\w+,)\s*["'](\w+)["']"""
)


def test_what_handlers_read_of_the_query_is_in_the_document():
    declared = {
        parameter["name"]
        for _, _, operation in OPERATIONS
        for parameter in operation.get("parameters", [])
        if parameter["in"] == "query"
    }
    others = {"dashboard", "cli"}  # pages, and what asks the API
    files = [path for path in SRC.glob("*/*.py") if path.parent.name not in others]
    read = {name for path in files for name in READ.findall(path.read_text())}
    assert len(read) > 12
    assert read <= declared, "add operation_class=asks(...) to the handler"


def test_an_operation_says_what_it_may_refuse_by_what_it_is():
    plain: dict[str, Any] = {"responses": {"200": {}}}
    ours = {**plain, "security": openapi.SERVICE}
    admins = {**plain, "security": openapi.ADMIN, "requestBody": {}}
    assert openapi.statuses("/x", "get", plain) == {400, 500}
    assert openapi.statuses("/x", "get", ours) == {400, 401, 500, 503}
    assert openapi.statuses("/x/{id}", "get", ours) == {400, 401, 404, 405, 500, 503}
    assert openapi.statuses("/x/{id}", "delete", ours) == {400, 401, 404, 405, 409, 500, 503}
    assert openapi.statuses("/x", "post", admins) == {400, 401, 403, 409, 413, 500, 503}


# Words and examples ------------------------------------------------------------------------------


def schemas(at: str, schema: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """A schema and all within it, with where they stand."""
    if isinstance(schema, list):
        for n, below in enumerate(schema):
            yield from schemas(f"{at}[{n}]", below)
    if not isinstance(schema, dict):
        return
    yield at, schema
    for name, field_schema in schema.get("properties", {}).items():
        yield from schemas(f"{at}.{name}", field_schema)
    for word in ("anyOf", "oneOf", "allOf", "items", "additionalProperties"):
        yield from schemas(f"{at}/{word}", schema.get(word))


EVERY_SCHEMA = [
    each
    for name, schema in DOCUMENT["components"]["schemas"].items()
    for each in schemas(name, schema)
]


def bodies(operation: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """What an operation takes and answers, by media type."""
    for kind, media in operation.get("requestBody", {}).get("content", {}).items():
        yield kind, media
    for answer in operation["responses"].values():
        for kind, media in answer.get("content", {}).items():
            yield kind, media


def test_every_field_says_what_it_means_and_has_an_example():
    for at, schema in EVERY_SCHEMA:
        for name, own in schema.get("properties", {}).items():
            assert own.get("description", "").endswith("."), f"{at}.{name}: described/"
            assert "examples" in own, f"{at}.{name}: described/"
    for name, schema in DOCUMENT["components"]["schemas"].items():
        assert schema.get("description", "").endswith("."), f"{name}: described/"


@pytest.mark.parametrize(("path", "method", "operation"), OPERATIONS)
def test_every_operation_says_what_it_does_and_shows_it(path, method, operation):
    assert operation["summary"] and operation["description"]
    (tag,) = operation["tags"]
    assert tag in {each["name"] for each in DOCUMENT["tags"]}
    for parameter in operation.get("parameters", []):
        assert parameter["description"] and "example" in parameter, parameter["name"]
    for _, media in bodies(operation):
        assert "example" in media, "described/routes.py"


def test_every_word_is_used_and_the_groups_are_described():
    used = {at.rpartition("/")[0] or at for at, _ in EVERY_SCHEMA}
    names = {at.rpartition(".")[2] for at in used}
    for key in fields.FIELDS:
        schema, _, name = key.rpartition(".")
        assert key in used if schema else name in names, key
    assert {tag for _, _, each in OPERATIONS for tag in each["tags"]} == set(routes.TAGS)
    assert DOCUMENT["info"]["description"] and DOCUMENT["servers"]
    operations = {each["operationId"] for _, _, each in OPERATIONS}
    for table in (routes.SENT, routes.ANSWERED):
        assert all(any(o == k or o.startswith(f"{k}_") for o in operations) for k in table)


def test_every_reference_leads_somewhere_and_every_schema_is_one():
    for reference in re.findall(r'"\$ref": "([^"]+)"', json.dumps(DOCUMENT)):
        there: Any = DOCUMENT
        for part in reference.removeprefix("#/").split("/"):
            there = there[part]
    for at, schema in EVERY_SCHEMA:
        assert jsonschema_rs.meta.is_valid(schema), at


def test_an_array_says_what_it_holds():
    """Generators of clients leave out whatever uses one that does not."""
    for at, schema in EVERY_SCHEMA:
        for each in json_objects(schema):
            if "array" in (each.get("type") or ()):
                assert "items" in each or "prefixItems" in each, at


def json_objects(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
    for each in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from json_objects(each)


def fits(example: Any, schema: dict[str, Any]) -> None:
    whole = {**schema, "components": DOCUMENT["components"]}
    jsonschema_rs.Draft202012Validator(whole, validate_formats=True).validate(example)


def test_a_schema_takes_no_header_that_is_no_text_and_nothing_of_a_later_version():
    fields = DOCUMENT["components"]["schemas"]["TaskFields"]["properties"]
    for name, value in [
        ("header", {"A": 1}),
        ("headers", {"A": None}),
        ("env", {"A": 1}),
        ("endpoint", {}),
        ("query_params", [1]),
    ]:
        with pytest.raises(jsonschema_rs.ValidationError):
            fits(value, fields[name])
    fits({"A": "b"}, fields["headers"])
    fits([{"key": "A", "value": "b"}], fields["headers"])


def test_every_example_is_one():
    for at, schema in EVERY_SCHEMA:
        for example in schema.get("examples", []):
            nullable = example is None and "null" not in json.dumps(schema.get("type", "null"))
            assert not nullable, at
            if example is not None:
                fits(example, schema)
    for _, _, operation in OPERATIONS:
        for kind, media in bodies(operation):
            if "ndjson" not in kind:
                fits(media["example"], media["schema"])
    for answer in DOCUMENT["components"]["responses"].values():
        for media in answer["content"].values():
            fits(media["example"], media["schema"])


FIRST = (
    "create_service", "create_calendar", "create_task", "create_tasks", "create_schedule",
    "create_spec",
)  # fmt: skip
LAST = ("delete_task", "delete_calendar", "delete_schedule", "delete_spec", "delete_service")
NOT_YET = {"review_spec": 409, "get_package": 409}
"""What a spec that was created just now is not ready for, or is already past."""


def in_order(operation: dict[str, Any]) -> int:
    name = operation["operationId"]
    return (
        FIRST.index(name) - len(FIRST)
        if name in FIRST
        else LAST.index(name) + 1
        if name in LAST
        else 0
    )


async def test_every_example_can_be_sent_and_is_answered_as_promised(run_app: RunApp, receiver):
    async with run_app(EGRESS_ALLOW="127.0.0.1", ADMIN_TOKEN=ADMIN) as app:
        clients = {"ours": app.client("alice"),
                   "admin": app.client(None, Authorization=f"Bearer {ADMIN}")}  # fmt: skip
        trace = ""
        for path, method, operation in sorted(OPERATIONS, key=lambda each: in_order(each[2])):
            who = clients["admin" if operation.get("security") == openapi.ADMIN else "ours"]
            content = operation.get("requestBody", {}).get("content", {})
            gone = "{run_id}" in path or "process/{trace_id}" in path
            if (not content and gone) or path.endswith("/execute"):
                continue  # there is no such run, and nothing on this machine to call
            query = {p["name"]: p["example"] for p in operation.get("parameters", [])
                     if p["in"] == "query" and p["name"] not in ("cursor", "token_id")}  # fmt: skip
            at = path.format(task_id="report", service="billing", schedule_id="backup",
                             calendar="holidays", trace_id=trace, offset=0, limit=10)  # fmt: skip
            good = [int(status) for status in operation["responses"] if status < "300"]
            for kind, media in list(content.items()) or [("", {"example": None})]:
                sent = media["example"]
                text = sent if isinstance(sent, str) else json.dumps(sent)
                if "ndjson" in kind:
                    text = text.replace("nightly-", "lined-")
                answer = await who.request(
                    method, at, params=query, content=text if content else None,
                    headers={"Content-Type": kind} if content else {},
                )  # fmt: skip
                if answer.status_code == NOT_YET.get(operation["operationId"]):
                    continue
                assert answer.status_code in good, f"{method} {at} {query}: {answer.text}"
                if operation["operationId"] == "create_spec":
                    trace = answer.json()["trace_id"]
                promised = operation["responses"][str(answer.status_code)].get("content", {})
                for shown in promised.values():
                    alike(answer, shown["example"])
        for client in clients.values():
            await client.aclose()


def alike(answer: Any, example: Any) -> None:
    """An example has the fields of what is really answered."""
    if isinstance(example, dict) and answer.headers["Content-Type"].startswith("application/json"):
        assert answer.json().keys() == example.keys()


# True of every route -----------------------------------------------------------------------------

KNOWN = [f"known-{n}" for n in range(100)]
"""Enough that what deletes some does not meet the end of them."""
TRUE_OF_ALL = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
    "negative_data_rejection",
    "ignored_auth",
    "unsupported_method",
    "allow_header_conformance",
]
"""All but `positive_data_acceptance` and what builds on it: a schema cannot say all that makes a
task wrong (two triggers, a host that may not be called), nor which ids there are."""
TASK_FIELDS = "#/components/schemas/TaskFields"
ADMIN = "admin-token-0123456789"


def aimed(document: dict[str, Any], target: str) -> dict[str, Any]:
    """The document with ids and an address that exist beside any other, and a task that is right.

    Without them little more than 404 and 400 would be seen.
    """
    aimed: dict[str, Any] = json.loads(json.dumps(document))
    url = aimed["components"]["schemas"]["TaskFields"]["properties"]["url"]
    aimed["components"]["schemas"]["TaskFields"]["properties"]["url"] = {
        "anyOf": [{"enum": [target]}, {**url}]
    }
    for _, method, operation in openapi.operations(aimed):
        for parameter in operation.get("parameters", []):
            if parameter["name"] == "task_id" and parameter["in"] == "path":
                parameter["example"] = KNOWN[method == "delete"]
                known = {"type": "string", "pattern": "^known-[1-9]?[0-9]$"}
                parameter["schema"] = {"anyOf": [known, parameter["schema"]]}
        for kind, media in operation.get("requestBody", {}).get("content", {}).items():
            if "ndjson" in kind:
                del media["example"]  # it knows no way to write such a body
            if media["schema"].get("$ref") == TASK_FIELDS:
                media["example"] = {"name": "Made here", "url": target}
    return aimed


def config_for(app: App) -> SchemathesisConfig:
    return SchemathesisConfig.from_dict(
        {
            "base-url": app.url,
            "headers": {"service_id": app.ids["alice"], "token": TOKENS["alice"]},
            "seed": 7,
            "continue-on-failure": True,
            "generation": {"max-examples": 40, "database": "none", "no-shrink": True},
            "phases": {"stateful": {"enabled": False}},
            "checks": {"enabled": False, **{name: {"enabled": True} for name in TRUE_OF_ALL}},
            # One handler with three methods: POST gets it all.
            "operations": [
                {
                    # A process each time.
                    "include-operation-id": ["verify_runs"],
                    "generation": {"max-examples": 4},
                    "phases": {"coverage": {"enabled": False}, "stateful": {"enabled": False}},
                },
                {
                    "include-path-regex": "^/services",
                    "headers": {"Authorization": f"Bearer {ADMIN}"},
                },
                {
                    "include-operation-id": ["change_task_by_put", "change_task_by_patch"],
                    "phases": {"coverage": {"enabled": False}, "stateful": {"enabled": False}},
                },
            ],
        }
    )


@dataclass
class Findings:
    """What came back: how often each status of each operation, and what was not as it should."""

    answers: Counter[str] = field(default_factory=Counter)
    failures: dict[str, str] = field(default_factory=dict)
    seconds: Counter[str] = field(default_factory=Counter)
    ended: str = ""

    def take(self, event: Any) -> None:
        if isinstance(event, events.NonFatalError | events.FatalError):
            self.failures["the engine"] = str(getattr(event, "info", event))
        if isinstance(event, events.EngineFinished):
            self.ended = event.stop_reason.value
        if not isinstance(event, events.ScenarioFinished):
            return
        self.seconds[f"{event.phase.value} {event.label}"] += event.elapsed_time
        for interaction in event.recorder.interactions.values():
            status = interaction.response.status_code if interaction.response else "none"
            method = interaction.request.method
            if method == (event.label or "").split()[0]:
                self.answers[f"{event.label} {status}"] += 1
        for checks in event.recorder.checks.values():
            for check in checks:
                found = check.failure_info
                if found is not None and not by_design(check.name, found.failure.message):
                    title = f"{event.label}: {check.name}: {found.failure.title}"
                    self.failures[title] = f"{found.failure.message}\n{found.code_sample}"


def by_design(check: str, message: str) -> bool:
    """A wrong body is refused. A wrong query may be nothing at all once it is written as text (an
    empty list), `""` means not sent, and a page that is none is the first one."""
    return check == "negative_data_rejection" and "- body" not in message


def area(path: str) -> str:
    """Which of the tests below a path is in: none of them takes long."""
    return "one task" if path.startswith("/tasks/{") else path.split("/")[1]


def attacked(app: App, target: str, where: str) -> Findings:
    """Send to an area what the schema allows and what it does not."""
    document = aimed(DOCUMENT, target)
    document["paths"] = {k: v for k, v in document["paths"].items() if area(k) == where}
    schema = schemathesis.openapi.from_dict(document, config=config_for(app))
    found = Findings()
    for event in from_schema(schema).execute():
        found.take(event)
    return found


@pytest.mark.timeout(240)
@pytest.mark.parametrize("where", sorted({area(path) for path, _, _ in OPERATIONS}))
async def test_every_route_wrong_in_every_way_answers_what_it_says(
    run_app: RunApp, receiver, where
):
    known = [
        {"id": name, "name": name, "url": receiver.url, "timeout_seconds": 1} for name in KNOWN
    ]
    async with (
        run_app(EGRESS_ALLOW="127.0.0.1", ADMIN_TOKEN=ADMIN) as app,
        app.client("alice") as alice,
    ):
        assert (await alice.post("/tasks/bulk", json=known)).status_code == 201
        found = await asyncio.to_thread(attacked, app, receiver.url, where)
    print(dict(sorted(found.answers.items())), found.seconds.most_common(12), found.ended, sep="\n")
    assert found.ended == "completed"
    assert not found.failures, "\n\n".join(f"{k}\n{v}" for k, v in found.failures.items())
    for path, method, operation in OPERATIONS:
        if area(path) != where:
            continue
        of = f"{method.upper()} {path}"
        seen = {label.split()[-1] for label in found.answers if label.startswith(f"{of} ")}
        assert seen, f"{of} was not called"
        if aimed_at(path, operation):
            assert seen & {"200", "201", "202", "204"}, f"{of} was never answered well: {seen}"


def aimed_at(path: str, operation: dict[str, Any]) -> bool:
    """Whether `aimed` gave it all that a good answer needs."""
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    ours = not body or body["schema"].get("$ref") == TASK_FIELDS
    return ours and re.findall(r"{(\w+)}", path) in ([], ["task_id"])
