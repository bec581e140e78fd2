"""`scheduler runs`, against the whole program."""

import asyncio
import contextlib
import json
import re
import shlex
import signal
import socket
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import httpx
import pytest

from conftest import App, eventually
from receiver import Receiver
from scheduler.cli import cli, client
from scheduler.cli.client import Api
from scheduler.cli.run_tail import Tail
from test_cli import environ
from test_cli_tasks import HOSTILE, Run, credentials, failed, running, told

DAY = timedelta(days=1)


@pytest.fixture
def runs(app: App) -> Run:
    return running(app, cli, "runs")


async def executed(alice: httpx.AsyncClient, receiver: Receiver, *statuses: int) -> list[str]:
    """Run a task by hand once for each status; return the runs' ids, the oldest first."""
    if (await alice.get("/tasks/t")).status_code == 404:
        await alice.post("/tasks", json={"id": "t", "name": "x", "url": receiver.url})
    ids = []
    for status in statuses:
        receiver.then(status, f"said {status}")
        ids.append((await alice.post("/tasks/t/execute")).json()["run_id"])
    return ids


# list and get ------------------------------------------------------------------------------------


async def test_runs_are_listed_over_pages_and_filtered(runs, alice, receiver, monkeypatch):
    ids = await executed(alice, receiver, 200, 404, 200, 200)
    monkeypatch.setattr(client, "PAGE", 2)
    listed = told(await runs("list", "-o", "json", "--all"))
    assert [each["id"] for each in listed] == ids[::-1]
    two = await runs("list", "--limit", "3")
    assert two.exit_code == 0 and "--all" in two.stderr
    assert [line.split()[0] for line in two.stdout.splitlines()[1:]] == ids[:0:-1]
    for words, found in (
        ("--state failed", [ids[1]]),
        ("--task t --state succeeded,failed --kind manual", ids[::-1]),
        ("--from now", []),
        ("--to -1d", []),
        ("-q nothing", []),
    ):
        listed = told(await runs("list", "-o", "json", *words.split()))
        assert [each["id"] for each in listed] == found, words
    table = (await runs("list", "--state", "failed")).stdout
    assert "the target answered 404, expected 200-299" in table
    failed(await runs("list", "--state", "odd"), 1, "--state: must be one or more")


async def test_a_run_is_shown_with_its_attempts(runs, alice, receiver):
    body = {"id": "t", "name": "x", "url": f"{receiver.url}/path", "max_retries": 1}
    await alice.post("/tasks", json={**body, "retry_backoff": {"initial_seconds": 0.01}})
    receiver.then(503).then(200, f"two\nlines\x1b[2J{HOSTILE[-5:]}")
    run = (await alice.post("/tasks/t/execute?retry=true")).json()["run_id"]

    async def ended() -> str:
        shown = await runs("get", run)
        assert shown.exit_code == 0 and re.search("^Status +succeeded$", shown.stdout, re.MULTILINE)
        return shown.stdout

    shown = await eventually(ended)
    assert f"GET {receiver.url}/path" in shown
    assert re.search(r"^Response +two\n +lines\\x1b\[2J", shown, re.MULTILINE)
    assert re.search(r"^1 .* 503 ", shown, re.MULTILINE) and re.search(
        r"^2 .* 200 ", shown, re.MULTILINE
    )
    assert told(await runs("get", "--id", run, "-o", "json"))["id"] == run
    for odd in ("verify", "nothing", "../tasks", "00000000-0000-0000-0000-000000000000"):
        failed(await runs("get", odd), 1, odd)
    failed(await runs("get"), 2, "which run")


# replay and cancel -------------------------------------------------------------------------------


async def test_one_run_is_replayed(runs, alice, receiver):
    (run,) = await executed(alice, receiver, 500)
    receiver.then(200)
    again = await runs("replay", run)
    assert again.exit_code == 0 and run in again.stdout

    async def well() -> None:
        assert (await alice.get(f"/runs/{run}")).json()["state"] == "succeeded"

    await eventually(well)
    failed(await runs("cancel", run), 1, "succeeded")


async def test_many_are_counted_and_asked_about_first(runs, alice, receiver):
    ids = await executed(alice, receiver, 500, 500, 500)
    words = ["replay", "--task", "t", "--state", "failed"]
    asked = await runs(*words, stdin="n\n")
    failed(asked, 1, "Replay 3 runs?", "nothing was done")
    assert len(receiver.requests) == 3
    await alice.patch("/tasks/t", json={"overlap": "allow"})
    done = await runs(*words, "-y")
    assert done.exit_code == 0 and "3 replayed, of 3" in done.stdout

    async def well() -> None:
        states = [(await alice.get(f"/runs/{run}")).json()["state"] for run in ids]
        assert states == ["succeeded"] * 3

    await eventually(well)
    assert told(await runs(*words, "-o", "json"))["matched"] == 0
    failed(await runs("replay"), 2, "filters")
    failed(await runs("replay", ids[0], "--task", "t"), 2, "one")


async def test_what_is_to_come_is_cancelled(runs, alice):
    body = {"id": "t", "name": "x", "url": "http://127.0.0.1:9/", "scheduled_at": in_a_while(30)}
    await alice.post("/tasks", json=body)
    done = await runs("cancel", "--task", "t", stdin="y\n")
    assert done.exit_code == 0 and "1 cancelled, of 1" in done.stdout
    assert "Cancel 1 run?" in done.stderr


async def test_what_stayed_as_it_was_is_said_and_exits_1(runs, alice, receiver):
    await executed(alice, receiver, 500, 500)
    await alice.patch("/tasks/t", json={"status": "disabled"})
    done = await runs("replay", "--state", "failed", "-y")
    failed(done, 1, "2 stayed as they were", "disabled")


def in_a_while(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


# verify ------------------------------------------------------------------------------------------


async def test_verify_goes_through_every_page_and_exits_by_what_it_finds(app, runs, alice, conn):
    body = {"name": "x", "url": "http://127.0.0.1:9/", "frequency": 1, "unit": "second"}
    await alice.post("/tasks", json={"id": "t", **body})

    async def compared() -> dict[str, Any]:
        found = told(await runs("verify", "-o", "json", "--to", "+50s"))
        assert found["checked"] > 20
        return found

    found = await eventually(compared)
    assert found["missing"] == found["doubled"] == [] and found["next_cursor"] is None
    await conn.execute(
        "DELETE FROM run WHERE id = (SELECT id FROM run WHERE due > now() + interval '15 s' "
        "ORDER BY due LIMIT 1)"
    )
    bad = await runs("verify", "--to", "+50s")
    failed(bad, 1, "1 missing, 0 doubled")
    assert re.search(r"^t +\d{4}-.*Z +missing$", bad.stdout, re.MULTILINE)


# tail --------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def tailing(app: App, *words: str, **env: str) -> AsyncIterator[Any]:
    """A `scheduler runs tail -o json`, as a process: what it said, as it says it."""
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("scheduler")),
        *["runs", "tail", "-o", "json", "--interval", "0.05", *words],
        env=environ(**credentials(app), **env),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def line(process: Any) -> Any:
    return json.loads(await asyncio.wait_for(process.stdout.readline(), 20))


async def test_tail_shows_runs_as_they_end_and_survives_the_server(run_app, receiver, tmp_path):
    port = free_port()
    settings = {"SERVER_PORT": str(port), "WORKER_DRAIN_SECONDS": "0.1"}
    gate = asyncio.Event()
    async with contextlib.AsyncExitStack() as stack:
        async with run_app(**settings) as app:
            alice = await stack.enter_async_context(app.client("alice"))
            (before,) = await executed(alice, receiver, 200)
            process = await stack.enter_async_context(tailing(app))
            assert (await line(process))["id"] == before  # of the last minutes
            (run,) = await executed(alice, receiver, 404)
            shown = await line(process)
            assert (shown["id"], shown["state"]) == (run, "failed")
            receiver.then(200, after=gate)
            late = (await alice.post("/tasks/t/execute?async=true")).json()["id"]
            await eventually(lambda: _arrived(receiver, 3))
        said = await asyncio.wait_for(process.stderr.readline(), 20)
        assert str(port).encode() in said and b"Still looking" in said
        gate.set()
        async with run_app(**settings) as app:
            alice = await stack.enter_async_context(app.client("alice"))
            assert (await line(process))["id"] == late  # it was cut short, and tried again
            (last,) = await executed(alice, receiver, 200)
            assert (await line(process))["id"] == last
            process.send_signal(signal.SIGINT)
            out, err = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 130
    assert out == b"" and err.strip() == b""


def _arrived(receiver: Receiver, count: int) -> None:
    assert len(receiver.requests) >= count


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


async def test_tail_that_never_reached_the_server_exits_3(app, runs):
    failed(await runs("tail", "--url", "http://127.0.0.1:9"), 3, "http://127.0.0.1:9")
    failed(await runs("tail", "--state", "odd"), 2, "--state")


@pytest.fixture
async def look(app: App) -> AsyncIterator[Any]:
    """Looks of a tail that was begun with these filters, as dictionaries."""
    at = credentials(app)
    pair = (at["SCHEDULER_URL"], at["SCHEDULER_SERVICE_ID"], at["SCHEDULER_TOKEN"])
    with Api(client.find(None, *pair)) as api:
        tails: dict[str, Tail] = {}

        async def looked(**filters: str) -> list[dict[str, Any]]:
            key = str(filters)
            tail = tails.setdefault(key, Tail(api, filters))
            return [json.loads(bytes(raw)) for raw in await asyncio.to_thread(tail.look)]

        yield looked


async def test_tail_shows_a_run_that_ends_long_after_it_was_due(look, alice, receiver, conn):
    (run,) = await executed(alice, receiver, 200)
    week_ago = datetime.now(UTC) - 7 * DAY
    await conn.execute("UPDATE history SET scheduled_for = $1 WHERE id = $2", week_ago, run)
    assert await look() == []
    gate = asyncio.Event()
    receiver.then(200, after=gate)
    assert (await alice.post(f"/runs/{run}/replay")).status_code == 202
    assert await look() == []  # it is live, and remembered
    gate.set()

    async def ended() -> None:
        assert (await alice.get(f"/runs/{run}")).json()["state"] == "succeeded"

    await eventually(ended)
    assert [(each["id"], each["attempt"]) for each in await look()] == [(run, 2)]
    assert await look() == []


async def test_tail_shows_no_run_twice_and_misses_none_of_many(look, alice, receiver):
    body = {"id": "t", "name": "x", "url": receiver.url, "overlap": "allow", "max_retries": 0}
    await alice.post("/tasks", json=body)
    wanted, shown = [], []
    for n in range(40):
        receiver.then(200 if n % 3 else 500)
        wanted.append((await alice.post("/tasks/t/execute?async=true")).json()["id"])
        if n % 4 == 0:
            shown += [each["id"] for each in await look()]

    async def all_shown() -> None:
        shown.extend(each["id"] for each in await look())
        assert sorted(shown) == sorted(wanted)

    await eventually(all_shown)
    assert await look() == []


async def test_tail_follows_states_and_filters(look, alice, receiver):
    both = {"state": "running,failed", "task": "t"}
    await executed(alice, receiver, 200)
    assert await look(**both) == []
    gate = asyncio.Event()
    receiver.then(500, after=gate)
    await alice.post("/tasks/t/execute?async=true")

    async def under_way() -> None:
        assert [each["state"] for each in await look(**both)] == ["running"]

    await eventually(under_way)
    assert await look(task="other") == []
    gate.set()

    async def over() -> None:
        assert [each["state"] for each in await look(**both)] == ["failed"]

    await eventually(over)


async def test_tail_shows_what_is_cancelled_before_it_is_due(look, alice):
    await alice.post(
        "/tasks",
        json={"id": "t", "name": "x", "url": "http://x.test/", "scheduled_at": in_a_while(30)},
    )
    assert await look() == []
    assert (await alice.post("/runs/cancel", json={"task": "t"})).json()["done"] == 1
    assert [each["state"] for each in await look()] == ["cancelled"]
    assert await look() == []


# docs/cli.md -------------------------------------------------------------------------------------

PAGE = Path(__file__).parent.parent / "docs" / "cli.md"


HOLIDAYS = """BEGIN:VCALENDAR
BEGIN:VEVENT
DTSTART;VALUE=DATE:20270101
RRULE:FREQ=YEARLY
END:VEVENT
END:VCALENDAR
"""


PETS = """openapi: 3.1.0
info: {title: Pets, version: "1"}
servers: [{url: TARGET}]
paths:
  /pets: {get: {responses: {"200": {description: all of them}}}}
  /pets/{id}:
    put:
      parameters: [{name: id, in: path, required: true, schema: {type: integer}}]
      requestBody: {content: {application/json: {schema: {type: object}}}}
      responses: {"200": {description: changed}}
"""
CALL = {"service": "pets", "method": "GET", "endpoint": "/pets"}


async def test_every_command_line_of_the_page_does_what_it_says(
    run_app, commands_on, receiver, tmp_path, monkeypatch
):
    """In their order, as they stand there; a tail is begun only: it has no end."""
    monkeypatch.chdir(tmp_path)
    Path("holidays.ics").write_text(HOLIDAYS)
    Path("openapi.yaml").write_text(PETS.replace("TARGET", receiver.url))
    Path("tom.json").write_text('{"name": "Tom"}')
    Path("call.json").write_text(json.dumps({"spec": {}, "scheduler_process": CALL}))
    async with run_app(**commands_on) as app, app.client("alice") as alice:
        await follow_the_page(app, alice, receiver)


async def follow_the_page(app: App, alice: httpx.AsyncClient, receiver: Receiver) -> None:
    blocks = re.findall(r"^```bash\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    assert len(lines) > 20
    run = running(app)
    for line in lines:
        program, *words = shlex.split(line.replace("http://127.0.0.1:9000", receiver.url))
        words = ["tasks", *words] if program == "taskctl" else words
        if "$RUN" in words:
            ended = (await alice.get("/runs", params={"state": "succeeded"})).json()["runs"]
            words[words.index("$RUN")] = ended[-1]["id"]
        if "$TRACE" in words:
            state = "scheduled" if "cancel" in words else "succeeded"
            asked = {"state": state, "kind": "process"}
            found = (await alice.get("/runs", params=asked)).json()["runs"]
            words[words.index("$TRACE")] = found[0]["trace_id"]
        told, to = None, None
        if "<" in words:
            *words, _, name = words
            told = Path(name).read_text()
        elif ">" in words:
            *words, _, name = words
            to = Path(name)
        if "tail" in words:
            group = cli.get_command(click.Context(cli), "runs")
            tail = group.get_command(click.Context(group), "tail")
            assert tail.make_context("tail", words[2:]) is not None
            continue
        done = await run(*words, stdin=told)
        assert done.exit_code == 0, (line, done.output)
        if to is not None:
            to.write_bytes(done.stdout_bytes)
        assert "verify" not in words or "None is missing, none is doubled" in done.stdout
    left = (await alice.get("/tasks")).json()
    assert {task["id"] for task in left} == {"hello", "report", "tidy", "standup"}
    assert [r.path for r in receiver.requests][:2] == ["/hello", "/hello"]
