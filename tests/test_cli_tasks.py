"""`scheduler tasks` and `taskctl`, against the whole program."""

import asyncio
import json
import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from conftest import TOKENS, App, eventually
from receiver import Receiver
from scheduler import asked, ledger
from scheduler.cli import cli, client, completers, plain, task_fields, task_many, times
from scheduler.tasks import model
from test_cli import environ

Run = Callable[..., Awaitable[Result]]
TASKCTL = cli.get_command(click.Context(cli), "tasks")
HOSTILE = "a\x1b[31mred\x9b2J\u202egnp.exe\nnext\u200bline"


def credentials(app: App, service: str = "alice") -> dict[str, str]:
    """What the environment says to a command that asks this app."""
    return {
        "SCHEDULER_URL": app.url,
        "SCHEDULER_SERVICE_ID": app.ids.get(service, ""),
        "SCHEDULER_TOKEN": TOKENS[service],
    }


def running(app: App, command: click.Command = cli, *before: str) -> Run:
    """Return what runs a command line against an app, beside the loop that serves it."""

    async def run(*words: str, stdin: str | bytes | None = None, **env: str | None) -> Result:
        said = {**credentials(app), **env}
        invoked = CliRunner().invoke
        return await asyncio.to_thread(invoked, command, [*before, *words], input=stdin, env=said)

    return run


@pytest.fixture
def tasks(app: App) -> Run:
    return running(app, cli, "tasks")


@pytest.fixture
def taskctl(app: App) -> Run:
    return running(app, TASKCTL)


def told(result: Result, code: int = 0) -> Any:
    """The one JSON value that a command printed, and nothing besides."""
    assert result.exit_code == code, result.output
    assert result.stderr == ""
    return json.loads(result.stdout)


def failed(result: Result, code: int, *words: str) -> None:
    """A command ended with this code, and a sentence that holds these words."""
    assert result.exit_code == code, (result.output, result.exception)
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in result.stderr, result.stderr


# The command lines of reference/task-cli.md ------------------------------------------------------


@pytest.mark.parametrize("program", ["scheduler tasks", "taskctl"])
async def test_each_command_line_of_the_older_client_works(app, receiver, program):
    run = running(app, cli, "tasks") if program == "scheduler tasks" else running(app, TASKCTL)
    command = await run(
        "create", "--id", "my-task-1", "--name", "My Task", "--command", "echo hello"
    )
    failed(command, 1, "commands.enabled", "trace id")

    made = await run(
        "create", "--id", "my-task-1", "--name", "My Task", "--url", f"{receiver.url}/hello"
    )
    assert made.exit_code == 0, made.output
    assert "my-task-1" in made.stdout and "created" in made.stdout
    listed = await run("list")
    assert listed.exit_code == 0 and "My Task" in listed.stdout
    got = await run("get", "--id", "my-task-1")
    assert got.exit_code == 0 and re.search(r"^Status +created$", got.stdout, re.MULTILINE)
    then = await run("schedule", "--id", "my-task-1", "--at", "2025-12-01T15:00:00Z")
    assert then.exit_code == 0 and "2025-12-01T15:00:00.000Z" in then.stdout
    await eventually(lambda: _arrived(receiver, 1))

    async def executed() -> None:
        done = await run("execute", "--id", "my-task-1")  # 409 while the scheduled run ends
        assert done.exit_code == 0 and "success" in done.stdout

    await eventually(executed)
    assert _arrived(receiver, 2)[1].path == "/hello"
    renamed = await run("update", "--id", "my-task-1", "--name", "Updated Name")
    assert renamed.exit_code == 0 and "Updated Name" in renamed.stdout
    gone = await run("delete", "--id", "my-task-1")
    assert gone.exit_code == 0 and "my-task-1" in gone.stdout
    failed(await run("get", "--id", "my-task-1"), 1, "my-task-1", "trace id")


def _arrived(receiver: Receiver, count: int) -> list[Any]:
    assert len(receiver.requests) >= count
    return receiver.requests


# Create and update -------------------------------------------------------------------------------


async def test_every_flag_becomes_its_field(tasks, alice, tmp_path):
    body = tmp_path / "body.txt"
    body.write_text("Grüße\n")
    made = told(
        await tasks(
            *["create", "x", "-n", "Name", "-d", "words", "-s", "paused", "--tag", "a"],
            *["--tag", "b", "--url", "http://127.0.0.1:9/x", "--method", "PUT"],
            *["-H", "X-A: 1", "-H", "Authorization: Bearer s", "--secret-header", "X-A"],
            *["--payload", f"@{body}", "--follow-redirects", "--cron", "0 9 * * *"],
            *["--timezone", "Europe/Berlin", "--start-at", "2030-01-01 00:00Z"],
            *["--end-at", "2031-01-01T00:00:00+01:00", "--max-runs", "5", "--jitter", "1.5"],
            *["--max-retries", "2", "--retry-backoff", "1,3,60", "--timeout", "2.5"],
            *["--expected-status", "200-204,404", "--overlap", "queue", "--max-concurrency", "2"],
            *["--misfire", "all", "--misfire-grace", "5", "--max-age", "60", "--priority", "-3"],
            *["-o", "json"],
        )
    )
    kept = (await alice.get("/tasks/x")).json()
    assert kept.items() <= made.items() and made["task_id"] == "x"
    wanted = {
        "name": "Name",
        "description": "words",
        "status": "paused",
        "tags": ["a", "b"],
        "url": "http://127.0.0.1:9/x",
        "method": "PUT",
        "header": {"X-A": "********", "Authorization": "********"},
        "payload": "Grüße\n",
        "follow_redirects": True,
        "cron": "0 9 * * *",
        "timezone": "Europe/Berlin",
        "start_at": "2030-01-01T00:00:00.000Z",
        "end_at": "2030-12-31T23:00:00.000Z",
        "max_runs": 5,
        "jitter_seconds": 1.5,
        "max_retries": 2,
        "retry_backoff": {"initial_seconds": 1, "factor": 3, "max_seconds": 60},
        "timeout_seconds": 2.5,
        "expected_status": ["200-204", 404],
        "overlap": "queue",
        "max_concurrency": 2,
        "misfire": "all",
        "misfire_grace_seconds": 5,
        "max_age_seconds": 60,
        "priority": -3,
    }
    assert {name: kept[name] for name in wanted} == wanted

    flags = [
        "--frequency",
        "10",
        "--unit",
        "minute",
        "--unset",
        "description",
        "--paused-until",
        "+1h",
    ]
    assert (await tasks("update", "x", *flags)).exit_code == 0
    after = (await alice.get("/tasks/x")).json()
    assert (after["frequency"], after["unit"], after["cron"]) == (10, "minute", None)
    assert after["description"] is None and after["name"] == "Name"
    resumes = datetime.fromisoformat(after["paused_until"]) - datetime.now(UTC)
    assert timedelta(minutes=59) < resumes < timedelta(minutes=61)


def test_every_field_of_a_task_has_a_flag():
    answered = {"task_id", "message", "service_id", "state", "created_at", "updated_at"}
    fields = set(model.TaskFields.__struct_fields__) - answered
    flags = {flag["names"][-1] for flag in task_fields.FLAGS}
    assert fields - {"id", "headers"} == flags - {"unset", "json"}


async def test_the_short_flags_are_those_of_the_contract(tasks, tmp_path):
    file = tmp_path / "task.json"
    file.write_text(json.dumps({"url": "http://127.0.0.1:9/", "name": "of the file"}))
    words = ["create", "-i", "x", "-n", "of the flag", "-d", "d", "-s", "paused"]
    made = told(await tasks(*words, "-t", "2090-01-01T00:00:00Z", "-f", str(file), "-o", "json"))
    assert (made["id"], made["name"], made["status"]) == ("x", "of the flag", "paused")
    assert made["description"] == "d"
    failed(await tasks("create", "-i", "y", "-n", "y", "-c", "echo"), 1, "commands.enabled")
    assert [task["id"] for task in told(await tasks("list", "-s", "paused", "-o", "json"))] == ["x"]
    words = ["scheduled", "-f", "2089-12-31T00:00:00Z", "-t", "2090-01-02T00:00:00Z", "-o", "json"]
    assert told(await tasks(*words)) == []  # paused
    update = ["update", "-i", "x", "-s", "active", "-n", "y", "-d", "e", "-t"]
    assert (await tasks(*update, "2090-01-01T12:00:00Z")).exit_code == 0
    assert [task["id"] for task in told(await tasks(*words))] == ["x"]


async def test_json_bodies_are_sent_as_json_and_payloads_as_they_are(tasks, alice, receiver):
    big = '{"n": 12345678901234567890123}'
    assert (
        await tasks("create", "a", "-n", "a", "--url", receiver.url, "--json", big)
    ).exit_code == 0
    assert (
        await tasks("create", "b", "-n", "b", "--url", receiver.url, "--payload", "@-", stdin=big)
    ).exit_code == 0
    for name in ("a", "b"):
        assert (await tasks("execute", name)).exit_code == 0
    as_json, as_text = receiver.requests
    assert as_json.header("content-type") == "application/json"
    assert json.loads(as_json.body) == json.loads(big) == json.loads(as_text.body)
    assert as_text.body.decode() == big and as_text.header("content-type") != "application/json"
    for said, *words in (
        ("--json", "--json", "{"),
        ("--json", "--json", "1", "--payload", "x"),
        ("nowhere", "--payload", "@nowhere"),
    ):
        failed(await tasks("create", "c", "-n", "c", *words), 2, said)


YAML = """
id: y
name: no          # a text, as it would be in JSON
url: http://127.0.0.1:9/
scheduled_at: 2090-01-01T00:00:00Z
follow_redirects: true
payload: {big: 12345678901234567890}
"""


async def test_a_file_may_be_yaml_json_or_standard_input(tasks, alice, tmp_path):
    file = tmp_path / "task.yaml"
    file.write_text(YAML)
    made = told(await tasks("create", "--file", str(file), "--priority", "3", "-o", "json"))
    assert (made["name"], made["priority"], made["follow_redirects"]) == ("no", 3, True)
    assert made["scheduled_at"] == "2090-01-01T00:00:00.000Z"
    assert json.loads(made["payload"]) == {"big": 12345678901234567890}

    got = await tasks("get", "y", "-o", "json")
    file.write_text(got.stdout)
    assert (await tasks("update", "--file", str(file))).exit_code == 0  # changes nothing
    before, after = told(got), (await alice.get("/tasks/y")).json()
    assert {**before, "updated_at": 0} == {**after, "updated_at": 0}

    text = json.dumps({"name": "of stdin", "url": "http://127.0.0.1:9/"})
    made = told(await tasks("create", "z", "--file", "-", "-o", "json", stdin=text))
    assert (made["id"], made["name"]) == ("z", "of stdin")


async def test_a_file_that_is_no_task_is_a_sentence(tasks):
    for content, words in (
        ("", "empty"),
        ("{", "JSON"),
        ("[1]", "JSON"),
        ('{"id": "a"}\n{"id"\n', "task 2"),
        ("a: [", "YAML"),
        ("just words", "YAML"),
        ("a: .nan\n---\n3", "YAML"),
        (b"\xff\xfe", "YAML"),
    ):
        failed(await tasks("create", "-f", "-", stdin=content), 2, words)


async def test_a_list_or_a_task_a_line_is_created_at_once(tasks, alice, tmp_path):
    lines = "".join(f'{{"id": "n{n}", "name": "N", "url": "http://x.test/"}}\n' for n in range(3))
    made = await tasks("create", "--file", "-", "--tag", "many", stdin=lines)
    assert made.exit_code == 0 and "3 tasks created" in made.stdout
    listed = (await alice.get("/tasks?tag=many")).json()
    assert [each["id"] for each in listed] == ["n2", "n1", "n0"]

    two = yaml.safe_dump([{"id": f"m{n}", "name": "M", "url": "http://x.test/"} for n in (1, 2)])
    assert told(await tasks("create", "-f", "-", "-o", "json", stdin=two)) == {
        "created": 2,
        "ids": ["m1", "m2"],
    }
    wrong = json.dumps([{"id": "o1", "name": "O", "url": "http://x.test/"}, {"id": "o2"}])
    failed(await tasks("create", "-f", "-", stdin=wrong), 1, "[1].name", "[1].url")
    assert (await alice.get("/tasks/o1")).status_code == 404
    failed(await tasks("create", "x", "-f", "-", stdin=two), 2, "--id")


async def test_more_than_one_request_holds_is_sent_in_several(run_app, monkeypatch):
    monkeypatch.setattr(task_many, "MOST", 4)
    async with run_app(SERVER_MAX_BODY_BYTES="1024") as app:
        run = running(app, TASKCTL)
        tasks = [
            {"id": f"t{n}", "name": "x" * 150, "url": "http://x.test/", "priority": 0}
            for n in range(10)
        ]
        made = told(await run("create", "-f", "-", "-o", "json", stdin=json.dumps(tasks)))
        assert made == {"created": 10, "ids": [f"t{n}" for n in range(10)]}

        tasks = [{**each, "id": f"u{each['id']}"} for each in tasks]
        tasks[8]["unit"] = "week"
        refused = await run("create", "-f", "-", stdin=json.dumps(tasks))
        failed(refused, 1, "[8].frequency", "the first 8 tasks")


async def test_url_is_the_apis_where_credentials_stand_beside_it(app, receiver):
    """The contract's `--url` of every command, and the field of a task, are one flag."""
    run, none = running(app, TASKCTL), dict.fromkeys(client.WELL_KNOWN)
    pair = ["--service-id", app.ids["alice"], "--token", TOKENS["alice"]]
    words = ["create", "--url", app.url, *pair, "--name", "x"]
    failed(await run(*words, "--command", "echo", **none), 1, "commands.enabled")
    made = told(await run(*words, "--url", receiver.url, "-o", "json", **none))
    assert made["url"] == receiver.url
    # Where anything else names the API, no token goes to what a task calls.
    words = ["create", "--url", receiver.url, *pair, "--name", "x", "-o", "json"]
    assert told(await run(*words))["url"] == receiver.url
    assert told(await run(*words, "--server", app.url, **none))["url"] == receiver.url
    assert receiver.requests == []


# What is refused ---------------------------------------------------------------------------------


async def test_a_refusal_names_the_flags_and_the_trace(tasks):
    words = "create x -n x --url http://127.0.0.1:9/ --frequency 0 --unit second --timeout 0"
    refused = await tasks(*words.split(), "-t", "2030-01-01T00:00:00")
    failed(refused, 1, "--frequency: must be 1", "--timeout: must be", "--scheduled-at: needs an")
    assert re.search(r"trace id [A-Za-z0-9]{16}$", refused.stderr.strip())
    assert refused.stdout == ""
    failed(await tasks("create", "x", "-n", "x"), 1, "--url: is needed")
    failed(await tasks("create", "x", "-n", "x", "-f", "-", stdin='{"fild": 1}'), 1, "fild:")
    failed(await tasks("list", "--trigger", "magic"), 1, "--trigger: must be one of")
    failed(await tasks("get", "nowhere"), 1, "nowhere")
    failed(await tasks("schedule", "x", "--at", "tomorrow"), 1, "--at: must be an RFC 3339")


async def test_wrong_usage_exits_2(tasks):
    for words in (
        ["get"],
        ["get", "a", "--id", "b"],
        ["update", "a"],
        ["update", "--name", "x"],
        ["create", "-H", "no colon"],
        ["create", "--retry-backoff", "1,x"],
        ["create", "--max-runs", "many"],
        ["create", "--cron", "@daily", "--unset", "cron"],
        ["update", "a", "--name", "\udcff"],
        ["preview"],
        ["preview", "a", "--cron", "@daily"],
        ["schedule", "a"],
        ["nonsense"],
        ["list", "--limit", "0"],
    ):
        failed(await tasks(*words), 2)


async def test_ids_cannot_lead_to_other_addresses(tasks):
    for name in ("scheduled", "bulk", "..", "a/executions", "%2e%2e", "../runs", "x?y=1", "x#y"):
        failed(await tasks("get", name), 1)
        failed(await tasks("delete", name), 1)


async def test_nobody_sees_what_belongs_to_another(app, alice):
    await alice.post("/tasks", json={"id": "hers", "name": "x", "url": "http://x.test/"})
    bob = running(app, TASKCTL)
    env = credentials(app, "bob")
    assert told(await bob("list", "-o", "json", **env)) == []
    failed(await bob("get", "hers", **env), 1, "hers")


# The connection ----------------------------------------------------------------------------------


async def test_flags_win_over_the_environment_and_that_over_the_file(app, tmp_path):
    run, none = running(app, TASKCTL), dict.fromkeys(client.WELL_KNOWN)
    home = {"DATA_DIR": str(tmp_path)}  # where the server of this test wrote a file
    file = tmp_path / "credentials.json"
    kept = {"url": app.url, "service_id": "alice", "token": TOKENS["alice"]}
    file.write_text(json.dumps(kept))
    assert told(await run("list", "-o", "json", **none, **home)) == []
    wrong = {"SCHEDULER_TOKEN": "wrong-token"}
    refused = await run("list", **{**none, **home, **wrong})
    failed(refused, 1, "alice", "SCHEDULER_TOKEN", "services rotate")
    assert "wrong-token" not in refused.output
    flags = ["--token", TOKENS["alice"], "--service-id", app.ids["alice"], "--url", app.url]
    away = {"SCHEDULER_URL": "http://127.0.0.1:9", "SCHEDULER_SERVICE_ID": "nobody"}
    assert told(await run("list", "-o", "json", *flags, **{**home, **wrong, **away})) == []


async def test_without_credentials_it_says_what_to_do(app, tmp_path):
    run, none = running(app, TASKCTL), dict.fromkeys(client.WELL_KNOWN)
    (folder := tmp_path / "data").mkdir()
    home = {"DATA_DIR": str(folder)}
    path = folder / "credentials.json"
    failed(await run("list", **none, **home), 2, str(path), "scheduler serve", "SCHEDULER_TOKEN")
    path.write_text("{}")
    failed(await run("list", **none, **home), 2, str(path), "service_id")
    path.unlink()
    path.mkdir()
    failed(await run("list", **none, **home), 2, str(path), "cannot be read")
    half = {**none, **home, "SCHEDULER_URL": app.url, "SCHEDULER_TOKEN": "x-y-z"}
    failed(await run("list", **half), 2, "--service-id")
    failed(await run("list", **{**none, **home, "SCHEDULER_URL": app.url}), 1, "none were sent")
    assert os.listdir(folder) == ["credentials.json"]


async def test_a_client_that_sends_nothing_acts_as_the_anonymous_service(run_app, tmp_path):
    async with run_app(AUTH_ANONYMOUS_SERVICE="alice") as app:
        none = {**dict.fromkeys(client.WELL_KNOWN), "SCHEDULER_URL": app.url}
        words = ["create", "--id", "a", "--name", "x", "--url", "http://x.test/"]
        run = running(app, TASKCTL)
        assert (await run(*words, **none, DATA_DIR=str(tmp_path / "none"))).exit_code == 0


async def test_a_server_that_is_not_there_is_one_sentence_and_exits_3(tasks):
    for url in ("http://127.0.0.1:9", "https://127.0.0.1:9", "http://no.such.host.invalid"):
        away = await tasks("list", "--url", url)
        failed(away, 3, url, "scheduler serve", "scheduler doctor")
        assert len(away.stderr.splitlines()) == 1
        assert TOKENS["alice"] not in away.output


async def test_a_url_that_is_none_is_a_sentence_without_its_secrets(tasks):
    odd = ("127.0.0.1:8080", "ftp://x", "http://", "http://a b/", "http://u:pw@x/", "x")
    for url in (*odd, "http://x:0", "http://x/?token=pw", "http://[::"):
        refused = await tasks("list", "--url", url)
        failed(refused, 2, "URL")
        assert "pw" not in refused.output


async def test_what_is_not_the_scheduler_is_told_so(tasks, receiver):
    receiver.then(502, "<html>\x1b[31mbad").then(200, "hello").then(
        301, headers={"Location": "https://x.test/?token=abc"}
    ).then(drop=True)
    for words in (["502"], ["200"], ["301", "https://x.test/"]):
        refused = await tasks("list", "--url", receiver.url)
        failed(refused, 1, *words)
        assert "abc" not in refused.stderr and "\x1b" not in refused.stderr
    failed(await tasks("delete", "x", "--url", receiver.url), 3, "may have been done")


async def test_proxies_of_the_environment_are_not_asked_for_this_machine(tasks):
    proxy = dict.fromkeys(("HTTP_PROXY", "ALL_PROXY", "http_proxy"), "http://127.0.0.1:9")
    assert told(await tasks("list", "-o", "json", **proxy)) == []


async def test_a_service_is_named_by_any_name(run_app, tmp_path):
    async with run_app(AUTH_BOOTSTRAP_SERVICE="Grüße 東京") as app:
        pair = {"SCHEDULER_SERVICE_ID": "Grüße 東京", "SCHEDULER_TOKEN": TOKENS["alice"]}
        assert told(await running(app, TASKCTL)("list", "-o", "json", **pair)) == []


# Output ------------------------------------------------------------------------------------------


async def test_a_list_follows_every_page(tasks, alice, monkeypatch):
    bodies = [{"id": f"t{n}", "name": "x", "url": "http://x.test/"} for n in range(7)]
    await alice.post("/tasks/bulk", json=bodies)
    monkeypatch.setattr(client, "PAGE", 3)
    wanted = [f"t{n}" for n in reversed(range(7))]
    assert [each["id"] for each in told(await tasks("list", "-o", "json"))] == wanted
    assert [each["id"] for each in told(await tasks("list", "-o", "json", "--limit", "5"))] == (
        wanted[:5]
    )
    heading, *lines = (await tasks("list")).stdout.splitlines()
    assert [line.split()[0] for line in lines] == wanted
    assert heading.split()[:3] == ["ID", "Name", "Status"]


async def test_lists_are_filtered(tasks, alice):
    for body in (
        {"id": "a", "name": "report", "tags": ["daily"], "cron": "0 9 * * *"},
        {"id": "b", "name": "other", "status": "paused", "frequency": 1, "unit": "hour"},
    ):
        await alice.post("/tasks", json={"url": "http://x.test/", **body})
    for words, query in (
        ("--tag daily", {"tag": "daily"}),
        ("-q repo", {"q": "repo"}),
        ("--trigger interval", {"trigger": "interval"}),
        ("--status paused", {"status": "paused"}),
        ("--state created", {"state": "created"}),
        ("--status pending", {"status": "pending"}),
        ("--action http", {"action": "http"}),
    ):
        found = (await alice.get("/tasks", params=query)).json()
        assert told(await tasks("list", "-o", "json", *words.split())) == found
    assert [each["id"] for each in told(await tasks("list", "-q", "repo", "-o", "json"))] == ["a"]
    table = (await tasks("list")).stdout
    assert re.search(r"^b .*paused .*every hour +GET http://x.test/$", table, re.MULTILINE)
    assert re.search(r"^a .*pending +yes .* \(in .*\) +0 9 \* \* \* UTC", table, re.MULTILINE)


async def test_nothing_is_cut_in_a_pipe(tasks, alice):
    name, url = "x" * 200, "http://x.test/" + "y" * 1500
    await alice.post("/tasks", json={"id": "a" * 64, "name": name, "url": url})
    _, line = (await tasks("list")).stdout.splitlines()
    assert line.split()[:2] == ["a" * 64, name] and line.endswith(url)
    shown = (await tasks("get", "a" * 64)).stdout
    assert url in shown and "…" not in shown


async def test_hostile_text_is_shown_and_does_nothing(tasks, alice):
    made = await alice.post(
        "/tasks",
        json={"id": "h", "name": HOSTILE, "description": HOSTILE, "url": "http://x.test/"},
    )
    assert made.status_code == 201, made.text
    for words in (["list"], ["get", "h"], ["list", "-o", "json"], ["get", "h", "-o", "json"]):
        out = (await tasks(*words)).stdout
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b\u202a-\u202e]", out)
    table = (await tasks("list")).stdout
    assert r"a\x1b[31mred\x9b2J\u202egnp.exe\nnext\u200bline" in table
    assert told(await tasks("get", "h", "-o", "json"))["name"] == HOSTILE


@given(st.text())
def test_no_text_gets_past_unseen_and_json_keeps_its_value(text):
    for line in plain.body(text).split("\n"):
        assert all(each.isprintable() or each in plain.KEPT or each.isspace() for each in line)
    assert not set(plain.word(text)) & set("\n\r\t\x1b\x85\u2028")
    encoded = json.dumps({"a": text}, ensure_ascii=False)
    assert json.loads(plain.json(encoded)) == {"a": text}


async def test_colours_are_for_terminals_alone(tasks, alice):
    await alice.post("/tasks", json={"id": "a", "name": "x", "url": "http://x.test/"})
    await tasks("execute", "a", "-o", "json")
    assert "\x1b" not in (await tasks("list")).stdout
    terminal = {"FORCE_COLOR": "1", "TERM": "xterm", "COLUMNS": "200"}
    assert "\x1b[3" in (await tasks("list", **terminal)).stdout
    assert "\x1b[3" not in (await tasks("list", **terminal, NO_COLOR="1")).stdout


# Run, schedule, preview --------------------------------------------------------------------------


async def test_execute_waits_and_says_how_it_ended(tasks, alice, receiver):
    await alice.post("/tasks", json={"id": "a", "name": "x", "url": receiver.url})
    receiver.then(200, "well\n").then(500, "bad").then(200).then(500).then(200)
    well = await tasks("execute", "a")
    assert well.exit_code == 0 and re.search(r"^Response +well$", well.stdout, re.MULTILINE)
    failed_run = await tasks("execute", "a")
    assert failed_run.exit_code == 1 and "500" in failed_run.stdout
    assert told(await tasks("execute", "a", "-a", "-o", "json"))["kind"] == "manual"
    await eventually(lambda: _arrived(receiver, 3))

    async def retried() -> None:
        done = await tasks("execute", "a", "--retry", "-o", "json")
        assert told(done)["attempt"] == 2

    await alice.patch("/tasks/a", json={"retry_backoff": {"initial_seconds": 0.01}})
    await eventually(retried)


async def test_execute_that_does_not_end_in_time_exits_1(tasks, alice, receiver):
    gate = asyncio.Event()
    receiver.then(500).then(200, after=gate)
    backoff = {"initial_seconds": 30, "max_seconds": 30}
    body = {"id": "a", "name": "x", "url": receiver.url, "retry_backoff": backoff}
    await alice.post("/tasks", json={**body, "timeout_seconds": 0.3})
    late = await tasks("execute", "a", "--retry")
    failed(late, 1, "not ended", "runs get")
    assert "retrying" in late.stdout
    gate.set()


async def test_schedule_takes_human_times(tasks, alice):
    await alice.post("/tasks", json={"id": "a", "name": "x", "url": "http://127.0.0.1:9/"})
    told(await tasks("schedule", "a", "--at", "+10m", "-o", "json"))
    due = datetime.fromisoformat((await alice.get("/tasks/a")).json()["scheduled_at"])
    assert abs(due - datetime.now(UTC) - timedelta(minutes=10)) < timedelta(seconds=20)
    shown = await tasks("scheduled", "--to", "+1h")
    assert re.search(r"^a .*\(in 9m \d+s\)", shown.stdout, re.MULTILINE)


async def test_preview_shows_what_a_trigger_yields(tasks, alice):
    flags = ["--cron", "30 2 * * *", "--timezone", "Europe/Berlin", "--count", "3"]
    since = ["--from", "2027-03-27T00:00:00Z"]
    shown = await tasks("preview", *flags, *since)
    assert shown.exit_code == 0 and "At 02:30 every day, Europe/Berlin time" in shown.stdout
    assert "02:30 does not exist on this day; fires at 03:00" in shown.stdout
    await tasks("create", "a", "-n", "x", "--url", "http://x.test/", *flags[:4])
    saved = told(await tasks("preview", "--id", "a", "--count", "3", *since, "-o", "json"))
    assert saved == told(await tasks("preview", *flags, *since, "-o", "json"))
    of_file = await tasks("preview", "-f", "-", stdin="frequency: 1\nunit: day\n")
    assert of_file.exit_code == 0 and len(of_file.stdout.splitlines()) == 13


async def test_executions_are_listed_in_pages(tasks, alice, receiver):
    await alice.post("/tasks", json={"id": "a", "name": "x", "url": receiver.url})
    receiver.then(200).then(404)
    for code in (0, 1):
        assert (await tasks("execute", "a")).exit_code == code
    page = await tasks("executions", "a", "--count", "1")
    assert page.exit_code == 0 and "404" in page.stdout
    assert "1 to 1 of 2; --page 1 has more" in page.stderr
    assert told(await tasks("executions", "a", "-o", "json"))["total_count"] == 2


async def test_pause_and_resume(tasks, alice):
    body = {"id": "a", "name": "x", "url": "http://x.test/", "frequency": 1, "unit": "day"}
    await alice.post("/tasks", json=body)
    assert "paused" in (await tasks("pause", "a")).stdout
    assert told(await tasks("pause", "a", "--until", "+1h", "-o", "json"))["paused_until"]
    assert "active" in (await tasks("resume", "--id", "a")).stdout
    assert (await alice.get("/tasks/a")).json()["status"] == "active"


async def test_delete_prints_nothing_as_json(tasks, alice):
    await alice.post("/tasks", json={"id": "a", "name": "x", "url": "http://x.test/"})
    gone = await tasks("delete", "a", "-o", "json")
    assert (gone.exit_code, gone.output) == (0, "")


# Times -------------------------------------------------------------------------------------------

NOW = datetime(2027, 1, 31, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("now", "2027-01-31T12:00:00.000Z"),
        ("+10m", "2027-01-31T12:10:00.000Z"),
        ("-1h30m", "2027-01-31T10:30:00.000Z"),
        ("in 2d", "2027-02-02T12:00:00.000Z"),
        ("1w ago", "2027-01-24T12:00:00.000Z"),
        ("2027-03-01T00:00:00+01:00", "2027-03-01T00:00:00+01:00"),
        ("2027-03-01 00:00Z", "2027-03-01T00:00:00Z"),
        ("none", ""),
        ("", ""),
        ("tomorrow", "tomorrow"),
        ("10m", "10m"),
        ("18:00", "18:00"),
    ],
)
def test_times_are_read_where_they_mean_one_thing(said, meant):
    assert times.read(said, NOW) == meant


UNIT = st.sampled_from(list(times.UNITS))
SPANS = st.lists(st.tuples(st.integers(0, 99_999), UNIT), min_size=1, max_size=4)


@given(SPANS, st.sampled_from(["+{}", "-{}", "in {}", "{} ago"]))
def test_a_span_is_the_sum_of_its_parts(parts, form):
    ahead = sum(many * times.UNITS[unit] for many, unit in parts)
    ahead *= -1 if form in ("-{}", "{} ago") else 1
    said = form.format("".join(f"{many}{unit}" for many, unit in parts))
    try:
        meant = NOW + timedelta(seconds=ahead)
    except OverflowError:
        with pytest.raises(OverflowError):
            times.read(said, NOW)
    else:
        assert asked.instant(times.read(said, NOW)) == round(meant.timestamp() * 1000)


@given(st.text(max_size=30))
def test_text_that_is_no_time_is_left_to_the_api(text):
    meant = times.read(text, NOW)
    if meant not in ("", text.strip()):
        asked.instant(meant)


# Help and completion -----------------------------------------------------------------------------


def test_every_command_has_help_with_an_example_and_is_in_the_table():
    for room in ("tasks", "runs"):
        group = cli.get_command(click.Context(cli), room)
        for name in group.table:
            command = group.get_command(click.Context(group), name)
            shown = CliRunner().invoke(group, [name, "--help"]).output
            assert f"scheduler {room} {name}" in shown, shown
            assert command.name == name
            assert "SCHEDULER_URL" in shown and "--output" in shown


def program(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).with_name("scheduler"), *words],
        env=environ(**env),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_help_is_there_at_once():
    for words in (["--help"], ["tasks", "--help"], ["runs", "--help"]):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert program(*words).returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        # Its own time: a machine that is busy with the rest of the suite is no finding.
        taken = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        assert taken < 0.3


async def completed(app: App, words: str, name: str = "scheduler", **env: str) -> list[str]:
    """What click's own machinery completes in a process, for bash."""
    *before, last = words.split(" ")
    variable = f"_{name}_complete".upper()
    more = {
        "COMP_WORDS": " ".join([name, *before, last]).strip(),
        "COMP_CWORD": str(len(before) + 1),
        variable: "bash_complete",
    }
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name(name)),
        env=environ(**{**credentials(app), **more, **env}),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 30)
    assert err == b""
    return [line.partition(",")[2] for line in out.decode().splitlines() if line]


async def test_shells_complete_commands_ids_and_words(app, alice):
    for name in ("report", "rest", "other"):
        await alice.post("/tasks", json={"id": name, "name": "x", "url": "http://x.test/"})
    assert await completed(app, "ta") == ["tasks"]
    assert await completed(app, "tasks ex") == ["execute", "explain", "executions"]
    assert sorted(await completed(app, "tasks get re")) == ["report", "rest"]
    assert await completed(app, "execute --id o", "taskctl") == ["other"]
    assert await completed(app, "tasks list --state c") == ["created", "completed"]
    assert await completed(app, "runs list --state failed,sk") == ["failed,skipped"]
    assert "--cron" in await completed(app, "create --c", "taskctl")


async def test_completion_is_silent_where_the_api_does_not_answer(app, receiver, tmp_path):
    gate = asyncio.Event()
    receiver.then(after=gate).then(500, "x")
    begun = time.monotonic()
    assert await completed(app, "tasks get x", SCHEDULER_URL=receiver.url) == []
    assert time.monotonic() - begun < 10  # it holds its answer back for as long as it takes
    gate.set()
    assert await completed(app, "tasks get x", SCHEDULER_URL=receiver.url) == []
    none = {"SCHEDULER_URL": "", "SCHEDULER_TOKEN": "", "DATA_DIR": str(tmp_path / "none")}
    assert await completed(app, "tasks get x", **none) == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_for_both_programs(shell):
    printed = CliRunner().invoke(cli, ["completion", shell])
    assert printed.exit_code == 0, printed.output
    for variable in ("_SCHEDULER_COMPLETE", "_TASKCTL_COMPLETE"):
        assert f"{variable}={shell}_complete" in printed.stdout
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=printed.stdout.encode(), check=True)
    assert CliRunner().invoke(cli, ["completion", "cmd"]).exit_code == 2


def test_the_words_that_are_completed_are_those_of_the_api():
    assert completers.TASK_STATES == model.STATES
    assert completers.LIVE_STATES == ledger.LIVE_STATES
    assert completers.END_STATES == ledger.END_STATES
