"""The OpenAPI document: complete, the same each time, and true of every route."""

import asyncio
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import schemathesis
import yaml
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events, from_schema

from conftest import TOKENS, App, RunApp
from scheduler import app as application
from scheduler import openapi

DOCS = Path(__file__).parent.parent / "docs"
DOCUMENT = application.document()
OPERATIONS = list(openapi.operations(DOCUMENT))


# The document ------------------------------------------------------------------------------------


async def test_the_copies_in_docs_are_what_is_served(anonymous):
    served = (await anonymous.get("/docs/openapi.json")).json()
    assert json.loads((DOCS / "openapi.json").read_text()) == served, "run make openapi"
    assert yaml.safe_load((DOCS / "openapi.yml").read_text()) == served, "run make openapi"
    assert yaml.safe_load((await anonymous.get("/docs/openapi.yml")).text) == served


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
    assert (answer.status_code == 401) == bool(
        operation.get("security") and {} not in operation["security"]
    )


def test_an_operation_says_what_it_may_refuse_by_what_it_is():
    plain: dict[str, Any] = {"responses": {"200": {}}}
    ours = {**plain, "security": openapi.SERVICE}
    admins = {**plain, "security": openapi.ADMIN, "requestBody": {}}
    query = {**plain, "parameters": [{"in": "query", "name": "count"}]}
    assert openapi.statuses("/x", "get", plain) == {500}
    assert openapi.statuses("/x", "get", query) == {400, 500}
    assert openapi.statuses("/x", "get", ours) == {401, 500, 503}
    assert openapi.statuses("/x/{id}", "get", ours) == {401, 404, 405, 500, 503}
    assert openapi.statuses("/x/{id}", "delete", ours) == {401, 404, 405, 409, 500, 503}
    assert openapi.statuses("/x", "post", admins) == {400, 401, 403, 409, 413, 500, 503}


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


def aimed(document: dict[str, Any]) -> dict[str, Any]:
    """The document with ids that exist beside any other, or little more than 404 would be seen."""
    aimed: dict[str, Any] = json.loads(json.dumps(document))
    for _, _, operation in openapi.operations(aimed):
        for parameter in operation.get("parameters", []):
            if parameter["name"] == "task_id" and parameter["in"] == "path":
                parameter["schema"] = {"anyOf": [{"enum": KNOWN}, parameter["schema"]]}
    return aimed


def attacked(app: App) -> tuple[Counter[str], dict[str, str]]:
    """Send what the schema allows and what it does not; return answers by status, and failures."""
    made = SchemathesisConfig.from_dict(
        {
            "base-url": app.url,
            "headers": {"service_id": app.ids["alice"], "token": TOKENS["alice"]},
            "seed": 7,
            "max-time": 50,
            "continue-on-failure": True,
            "generation": {"max-examples": 25, "database": "none", "no-shrink": True},
            "phases": {"stateful": {"enabled": False}},
            "checks": {"enabled": False, **{name: {"enabled": True} for name in TRUE_OF_ALL}},
        }
    )
    schema = schemathesis.openapi.from_dict(aimed(DOCUMENT), config=made)
    answers: Counter[str] = Counter()
    failures: dict[str, str] = {}
    for event in from_schema(schema).execute():
        if isinstance(event, events.NonFatalError | events.FatalError):
            failures["the engine"] = str(getattr(event, "info", event))
        if not isinstance(event, events.ScenarioFinished):
            continue
        recorder = event.recorder
        for interaction in recorder.interactions.values():
            status = interaction.response.status_code if interaction.response else "none"
            answers[f"{event.label} {status}"] += 1
        for checks in recorder.checks.values():
            for check in checks:
                if check.failure_info is not None:
                    failure = check.failure_info
                    failures[f"{event.label}: {check.name}: {failure.failure.title}"] = (
                        f"{failure.failure.message}\n{failure.code_sample}"
                    )
    return answers, failures


async def test_every_route_wrong_in_every_way_answers_what_it_says(run_app: RunApp, receiver):
    async with run_app(EGRESS_ALLOW="127.0.0.1") as app, app.client("alice") as alice:
        for name in KNOWN:
            task = {"id": name, "name": name, "url": receiver.url, "timeout_seconds": 1}
            assert (await alice.post("/tasks", json=task)).status_code == 201
        answers, failures = await asyncio.to_thread(attacked, app)
    print(dict(sorted(answers.items())))
    assert not failures, "\n\n".join(f"{k}\n{v}" for k, v in failures.items())
    for path, method, operation in OPERATIONS:
        of = f"{method.upper()} {path}"
        seen = {label.split()[-1] for label in answers if label.startswith(f"{of} ")}
        assert seen & {"200", "201", "202", "204"}, f"{of} was never answered well: {seen}"
        assert not operation.get("security") or path == "/metrics" or "401" in seen, of
