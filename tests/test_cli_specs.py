"""`scheduler specs` and `scheduler processes`, against the whole program."""

import asyncio
import json
import sys
import zipfile
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from conftest import App, eventually
from receiver import Receiver
from scheduler.cli import cli, process_call, process_fields, spec_change, spec_show
from scheduler.cli.failures import Usage
from test_cli import environ
from test_cli_tasks import Run, completed, credentials, failed, running, told

FILMOT = """\
openapi: 3.0.3
info: {title: Filmot, version: 1.0.0}
servers: [{url: URL}]
paths:
  /getsearchchannels:
    get:
      summary: Find channels
      parameters:
        - {name: term, in: query, required: true, schema: {type: string}}
      responses: {"200": {description: channels}}
  /getsearchsubtitles:
    get:
      parameters:
        - {name: query, in: query, required: true, schema: {type: string}}
        - {name: channel, in: query, schema: {type: string}}
      responses: {"200": {description: subtitles}}
  /videos/{id}:
    post:
      parameters:
        - {name: id, in: path, required: true, schema: {type: integer}}
      requestBody: {content: {application/json: {schema: {type: object}}}}
      responses: {"200": {description: done}}
"""
ANSWER = b'[{"r": 2312517590, "label": "Science Channel"}]\n'
KEY = "THEi6IKsE3mshLA9rbwj6DMQLAI1p1BHU0qjsn1xqbzwX5ArMB"


@pytest.fixture
def specs(app: App) -> Run:
    return running(app, cli, "specs")


@pytest.fixture
def processes(app: App) -> Run:
    return running(app, cli, "processes")


@pytest.fixture
def document(tmp_path: Path, receiver: Receiver) -> Path:
    path = tmp_path / "openapi.yaml"
    path.write_text(FILMOT.replace("URL", receiver.url))
    return path


async def filmot(specs: Run, document: Path, *more: str) -> str:
    """Register the spec, and wait until it can be called."""
    result = await specs(
        "add", str(document), "--name", "Filmot", "-H", f"x-rapidapi-key={KEY}", "--wait", *more,
        "-o", "json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    trace_id = json.loads(result.stdout)["trace_id"]
    assert process_call.SPECS_PATH and len(trace_id) == 16
    return str(trace_id)


# Specs --------------------------------------------------------------------------------------------


async def test_a_spec_lives_from_add_to_delete(specs, document, tmp_path):
    trace_id = await filmot(specs, document)
    listed = (await specs("list")).stdout.splitlines()
    assert listed[0].split() == ["Trace", "ID", "Name", "Status", "Updated", "Error"]
    assert listed[1].split()[:3] == [trace_id, "filmot", "SUCCESS"]
    assert [each["name"] for each in told(await specs("list", "-o", "json"))] == ["filmot"]

    for which in (("filmot",), ("FILMOT",), (trace_id,), ("--id", "Filmot"), ("--id", trace_id)):
        status = told(await specs("status", *which, "-o", "json"))
        assert status["status"] == "SUCCESS" and len(status["step"]) == 5
    shown = (await specs("get", "filmot", "--client")).stdout
    assert "SUCCESS" in shown and "Endpoints" in shown and KEY not in shown
    assert told(await specs("get", "filmot", "-o", "json"))["headers"] == {"x-rapidapi-key": KEY}
    assert (await specs("get", "filmot", "--spec")).stdout_bytes == document.read_bytes()

    changed = tmp_path / "changed.yaml"
    changed.write_text(document.read_text().replace("/getsearchchannels", "/channels"))
    result = await specs("update", "--id", "filmot", str(changed), "--wait")
    assert (result.exit_code, result.stdout) == (0, "Spec filmot is changed.\n"), result.output
    result = await specs("update", trace_id, "--name", "Other", "--header", "X-A: b")
    assert result.exit_code == 0, result.output
    found = told(await specs("get", "other", "--client", "-o", "json"))
    assert found["headers"] == {"X-A": "b"} and "GET /channels" in found["client"]["endpoints"]

    assert (await specs("delete", "other", "--yes")).exit_code == 0
    failed(await specs("get", "other"), 1, "there is no spec other")
    failed(await specs("status", trace_id), 1, f"there is no spec {trace_id}")


async def test_operations_are_listed_and_a_client_for_them_is_downloaded(
    app, specs, document, tmp_path, monkeypatch
):
    await filmot(specs, document)
    assert await completed(app, "specs op") == ["operations"]
    assert await completed(app, "processes run FIL") == ["filmot"]
    assert await completed(app, "specs get --id f") == ["filmot"]
    lines = (await specs("operations", "filmot")).stdout.splitlines()
    assert lines[0].split() == ["Endpoint", "Parameters", "Summary", "Cannot", "be", "called"]
    assert lines[1].split() == ["GET", "/getsearchchannels", "term*", "Find", "channels"]
    assert lines[2].split() == ["GET", "/getsearchsubtitles", "query*", "channel"]
    assert lines[3].split() == ["POST", "/videos/{id}", "id*", "(body)"]
    found = told(await specs("operations", "filmot", "-o", "json"))
    assert list(found["endpoints"]) == [" ".join(line.split()[:2]) for line in lines[1:]]

    monkeypatch.chdir(tmp_path)
    assert "filmot-client.zip is written" in (await specs("client", "filmot")).stdout
    with zipfile.ZipFile("filmot-client.zip") as archive:
        assert "filmot-client/filmot_client/client.py" in archive.namelist()
    result = await specs("client", "--id", "filmot", "-o", "-")
    assert result.stdout_bytes == Path("filmot-client.zip").read_bytes()
    failed(await specs("client", "filmot", "-o", "no/such/file"), 1, "cannot be written")


async def test_tasks_that_do_not_fit_their_spec_any_more_are_listed(specs, document, alice):
    await filmot(specs, document)
    operation = {"service": "filmot", "endpoint": "/getsearchchannels", "method": "GET"}
    task = {"id": "channels", "name": "Channels", "query_params": {"term": "x"}, **operation}
    assert (await alice.post("/tasks", json=task)).status_code == 201
    fitting = await specs("impact", "filmot")
    assert "fits it" in fitting.stdout, fitting.output
    document.write_text(document.read_text().replace("/getsearchchannels", "/channels"))
    assert (await specs("update", "filmot", str(document), "--wait")).exit_code == 0
    result = await specs("impact", "--id", "filmot")
    failed(result, 1, "1 of 1 tasks")
    assert result.stdout.splitlines()[1].split()[:4] == [
        "channels", "Channels", "GET", "/getsearchchannels",
    ]  # fmt: skip
    found = json.loads((await specs("impact", "filmot", "-o", "json")).stdout)
    assert [each["task_id"] for each in found] == ["channels"]


async def test_a_document_that_is_wrong_ends_the_wait_with_its_error(specs, document):
    document.write_text(document.read_text().replace("responses: {", "answers: {"))
    result = await specs("add", str(document), "--name", "wrong", "--wait")
    failed(result, 1, "paths./getsearchchannels.get")
    assert "is added" in result.stdout
    failed(await specs("status", "wrong"), 1, "paths./getsearchchannels.get")


async def test_what_is_refused_at_once_names_the_flag(specs, document):
    failed(await specs("add", str(document)), 1, "--name: ")
    failed(await specs("add", "-", "--name", "x", stdin="swagger: '2.0'"), 1, "spec", "2.0")
    failed(await specs("add", "http://x/openapi.yaml", "--name", "x"), 2, "download it first")
    failed(await specs("add", "/no/such", "--name", "x"), 2, "/no/such cannot be read")
    failed(await specs("add", str(document), "--name", "x", "-H", "nothing"), 2, "NAME=VALUE")
    failed(await specs("get"), 2, "which spec?")
    failed(await specs("get", "nothing"), 1, "there is no spec nothing")
    await filmot(specs, document)
    failed(await specs("update", "filmot"), 2, "update what?")
    failed(await specs("add", str(document), "--name", "FILMOT"), 1, "filmot")
    failed(await specs("delete", "filmot"), 2, "--yes")


async def test_one_that_waits_for_its_review_says_so_and_is_reviewed(run_app, document):
    async with run_app(SPECS_REVIEW="manual") as app:
        specs = running(app, cli, "specs")
        assert (await specs("add", str(document), "--name", "x")).exit_code == 0

        async def waits() -> None:
            assert told(await specs("status", "x", "-o", "json"))["status"] == "READY_CLIENT"

        await eventually(waits, 20)
        result = await specs("update", "x", "--header", "a=b", "--wait", "--timeout", "0")
        failed(result, 1, "READY_CLIENT after 0 s", "scheduler specs review")
        assert (await specs("review", "x")).exit_code == 0

        async def reviewed() -> None:
            assert told(await specs("status", "x", "-o", "json"))["status"] == "SUCCESS"

        await eventually(reviewed)


# Processes ----------------------------------------------------------------------------------------


async def test_a_call_is_made_and_its_answer_printed_byte_for_byte(
    specs, processes, document, receiver
):
    await filmot(specs, document)
    receiver.then(body=ANSWER, headers={"Content-Type": "application/json"})
    result = await processes(
        "run", "Filmot", "GET /getsearchchannels", "-q", "term=Science Channel", "--wait"
    )
    assert result.exit_code == 0, result.output
    assert result.stdout_bytes == ANSWER
    assert receiver.last.path == "/getsearchchannels?term=Science%20Channel"
    assert receiver.last.header("x-rapidapi-key") == KEY

    binary = bytes(range(256))
    receiver.then(body=binary, headers={"Content-Type": "image/png"})
    result = await processes(
        "run", "filmot", "get /getsearchsubtitles", "-q", "query=a", "-q", "page:=2",
        "-H", "X-RapidAPI-Key: mine", "--no-cache", "--wait",
    )  # fmt: skip
    assert result.stdout_bytes == binary
    assert receiver.last.path == "/getsearchsubtitles?query=a&page=2"
    assert receiver.last.header("x-rapidapi-key") == "mine"


async def test_a_call_is_followed_by_its_trace_id(specs, processes, document, receiver, tmp_path):
    await filmot(specs, document)
    receiver.then(body=ANSWER)
    (tmp_path / "body.json").write_text('{"name": 12345678901234567890}')
    result = await processes(
        "run", "filmot", "POST /videos/{id}", "-u", "id=7", "-d", f"@{tmp_path / 'body.json'}",
        "--priority", "5",
    )  # fmt: skip
    trace_id = result.stdout.strip()
    assert result.exit_code == 0 and len(trace_id) == 16
    answered = await processes("response", trace_id, "--wait")
    assert answered.stdout_bytes == ANSWER
    assert (receiver.last.path, receiver.last.body) == (
        "/videos/7",
        b'{"name": 12345678901234567890}',
    )
    assert told(await processes("status", trace_id, "-o", "json"))["status"] == "SUCCESS"
    shown = (await processes("get", "--id", trace_id)).stdout
    assert "filmot: POST /videos/{id}" in shown and "id: 7" in shown
    file = tmp_path / "answer"
    assert (await processes("response", "--id", trace_id, "-o", str(file))).exit_code == 0
    assert file.read_bytes() == ANSWER


async def test_a_call_that_fails_is_a_sentence_and_exit_code_1(
    specs, processes, document, receiver
):
    await filmot(specs, document)
    result = await processes("run", "filmot", "GET /getsearchchannels", "--wait")
    words = "Error executing API call: API call failed: term is required and must be specified"
    failed(result, 1, words, "scheduler runs list --trace-id")
    assert result.stdout == "" and not receiver.requests
    trace_id = told(await processes("run", "filmot", "GET /x", "-o", "json"))["trace_id"]

    async def ended() -> None:
        failed(await processes("status", trace_id), 1, "/x")

    await eventually(ended)
    failed(await processes("response", trace_id), 1, "/x", trace_id)
    receiver.then(status=418, body="short and stout")
    failed(await processes("run", "filmot", "POST /videos/{id}", "-u", "id=7", "--wait"), 1, "418")


async def test_a_call_that_is_to_come_is_cancelled(specs, processes, document, receiver):
    await filmot(specs, document)
    result = await processes(
        "run", "filmot", "GET /getsearchchannels", "-q", "term=x", "--at", "+1h"
    )
    trace_id = result.stdout.strip()
    failed(await processes("response", trace_id), 1, "it is WAITING", "--wait")
    cancelled = await processes("cancel", trace_id)
    assert cancelled.stdout == f"Process {trace_id} is cancelled.\n", cancelled.output
    failed(await processes("status", trace_id), 1, "cancelled")
    failed(await processes("cancel", "nothing"), 1, "nothing")
    failed(await processes("run", "x", "POST /pets", "--priority", "500"), 1, "--priority")
    assert not receiver.requests


def offline(*words: str, stdin: str | None = None) -> Result:
    """Run `scheduler processes` where no server is."""
    nowhere = {"SCHEDULER_URL": "http://127.0.0.1:1", "SCHEDULER_SERVICE_ID": "x"}
    env = {**nowhere, "SCHEDULER_TOKEN": "x"}
    return CliRunner().invoke(cli, ["processes", *words], input=stdin, env=env)


def test_wrong_words_are_named():
    failed(offline("run", "x", "/pets and more"), 2, "GET /pets/{id}")
    failed(offline("run", "x", "GET /pets", "-q", "nothing"), 2, "--query", "NAME:=JSON")
    failed(offline("run", "x", "GET /pets", "-u", "id:=x"), 2, "--path id:=", "JSON")
    failed(offline("run", "x", "POST /pets", "-d", "{"), 2, "--data", "JSON")
    failed(offline("run", "x", "POST /pets", "-d", "1", "--text", "x"), 2, "two bodies")
    failed(offline("status"), 2, "which process?")
    failed(offline("status", "nothing"), 3, "cannot be reached")


# The examples of the older program ----------------------------------------------------------------

CHANNELS = """\
{
  "spec": {
    "headers": {
      "x-rapidapi-host": "filmot-tube-metadata-archive.p.rapidapi.com",
      "x-rapidapi-key": "KEY"
    },
    "url": "URL"
  },
  "scheduler_process": {
    "method": "GET",
    "endpoint": "/getsearchchannels",
    "query_params": {"term": "Science Channel"}
  }
}
"""
SUBTITLES = """\
{
  "spec":{
    "headers":{
      "x-rapidapi-host": "filmot-tube-metadata-archive.p.rapidapi.com",
      "x-rapidapi-key":"KEY"
    },
    "url":"URL"
  },
  "scheduler_process":{
    "method":"GET",
    "endpoint":"/getsearchsubtitles",
    "query_params":{
      "query":"hello world",
      "lang":"en",
      "page":1
    }
  }
}
"""


def example(text: str, receiver: Receiver) -> str:
    return text.replace("KEY", "my-key").replace("URL", receiver.url)


@pytest.mark.parametrize("registered", [True, False])
async def test_the_examples_of_the_older_program_print_the_answer(
    specs, processes, document, receiver, registered
):
    if registered:
        await filmot(specs, document)
    receiver.then(body=ANSWER)
    result = await processes("call", stdin=example(CHANNELS, receiver))
    assert result.exit_code == 0, result.output
    assert result.stdout_bytes == ANSWER
    assert receiver.last.path == "/getsearchchannels?term=Science%20Channel"
    assert receiver.last.header("x-rapidapi-key") == "my-key"
    receiver.then(body=b"subtitles")
    result = await processes("call", stdin=example(SUBTITLES, receiver))
    assert result.stdout_bytes == b"subtitles"
    assert receiver.last.path == "/getsearchsubtitles?query=hello%20world&lang=en&page=1"
    names = [each["name"] for each in told(await specs("list", "-o", "json"))]
    if registered:
        assert names == ["filmot"]
        return
    assert len(names) == 2 and all(name.startswith("cli-127.0.0.1-") for name in names)
    assert (await processes("call", stdin=example(CHANNELS, receiver))).stdout_bytes == b"ok"
    stored = told(await specs("list", "-o", "json"))
    assert len(stored) == 2, "it is used again"
    assert [each["headers"] for each in stored] == [{}, {}], "what came with a call is not kept"


async def test_a_described_call_is_checked_and_a_named_one_goes_where_it_is_named(
    specs, processes, document, receiver
):
    await filmot(specs, document)
    for body in (b"one", b"two"):  # never from the cache
        receiver.then(body=body)
        assert (await processes("call", stdin=example(CHANNELS, receiver))).stdout_bytes == body
    call = json.loads(example(CHANNELS, receiver))
    del call["scheduler_process"]["query_params"]
    result = await processes("call", stdin=json.dumps(call))
    failed(result, 1, "term is required and must be specified")
    call = {"scheduler_process": {**call["scheduler_process"], "service": "Filmot"}}
    failed(await processes("call", stdin=json.dumps(call)), 1, "term is required")
    call["scheduler_process"]["query_params"] = {"term": "x"}
    assert (await processes("call", stdin=json.dumps(call))).stdout_bytes == b"ok"
    assert receiver.last.header("x-rapidapi-key") == KEY
    named = {"spec": {"name": "filmot"}, "scheduler_process": dict(call["scheduler_process"])}
    del named["scheduler_process"]["service"]
    assert (await processes("call", stdin=json.dumps(named))).stdout_bytes == b"ok"


async def test_equal_calls_at_once_share_one_spec(app, specs, receiver):
    async def one(n: int) -> bytes:
        call = {
            "spec": {"url": f"{receiver.url}/"},
            "scheduler_process": {
                "method": "POST", "endpoint": "/e/{id}", "url_params": {"id": "a/b"},
                "req_body": {"n": n},
            },
        }  # fmt: skip
        words = (sys.executable, "-m", "scheduler", "processes", "call")
        program = await asyncio.create_subprocess_exec(
            *words, stdin=PIPE, stdout=PIPE, stderr=PIPE, env=environ(**credentials(app))
        )
        said, why = await program.communicate(json.dumps(call).encode())
        assert program.returncode == 0, why
        return said

    assert await asyncio.gather(*(one(n) for n in range(3))) == [b"ok"] * 3
    assert sorted(call.path for call in receiver.requests) == ["/e/a%2Fb"] * 3
    assert {call.body for call in receiver.requests} == {b'{"n":%d}' % n for n in range(3)}
    assert len(told(await specs("list", "-o", "json"))) == 1


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        ("", "scheduler_process"),
        ("[]", "scheduler_process"),
        ('{"spec": {}}', "scheduler_process"),
        ('{"spec": {}, "scheduler_process": {}, "x": 1}', "x"),
        ('{"scheduler_process": {"endpoint": "/x"}}', "scheduler_process.method"),
        ('{"scheduler_process": {"method": "GET", "endpoint": 1}}', "scheduler_process.endpoint"),
        ('{"scheduler_process": {"method": "GET", "endpoint": "/x"}}', "spec.url"),
        (
            '{"spec": {"url": "ftp://x"}, "scheduler_process": {"method": "GET", "endpoint": "/"}}',
            "https://example.com",
        ),
        (
            '{"spec": {"headers": 1}, "scheduler_process": {"method": "GET", "endpoint": "/"}}',
            "spec.headers",
        ),
    ],
)
def test_what_is_no_call_is_said(sent, words):
    failed(offline("call", stdin=sent), 2, words)


# Words --------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.text("abc", min_size=1), st.text("=: xy")), max_size=5))
def test_what_stands_after_the_first_equals_sign_is_the_text(words):
    found = process_fields.pairs(tuple(f"{name}={text}" for name, text in words), "--query")
    expected: dict[str, Any] = {}
    for name, text in words:
        expected.setdefault(name, []).append(text)
    assert found == {name: v if len(v) > 1 else v[0] for name, v in expected.items()}


@given(
    st.dictionaries(
        st.text("abcXYZ-", min_size=1),
        st.text("=: xy", max_size=5).map(str.lstrip),
        max_size=3,
    ),
    st.sampled_from(["=", ": "]),
)
def test_headers_are_written_in_either_way(headers, between):
    lines = tuple(f"{name}{between}{value}" for name, value in headers.items())
    if between == "=":
        assert spec_change.headers_of(lines) == headers
    else:
        found = spec_change.headers_of(lines)
        assert {name: value.strip() for name, value in found.items()} == {
            name: value.strip() for name, value in headers.items()
        }


def test_headers_merge_without_regard_to_case():
    assert process_call.merged({"A": "1", "b": "2"}, {"a": "3", "c": "4"}) == {
        "b": "2", "a": "3", "c": "4",
    }  # fmt: skip


def test_a_document_that_cannot_be_read_has_no_summaries():
    for source in (b"", b"[", b"paths: [", b"paths: 1", b"paths: {/x: {get: 1}}", b"\xff"):
        assert spec_show._said(source) == {}


def test_an_endpoint_is_a_method_and_a_path():
    assert process_fields.endpoint_of(" post /pets/{id} ") == ("POST", "/pets/{id}")
    assert process_fields.endpoint_of("/pets") == ("GET", "/pets")
    with pytest.raises(Usage):
        process_fields.endpoint_of("pets")
