"""`scheduler tasks explain` and `backfill`, against the whole program."""

import json

import pytest

from conftest import App, eventually
from scheduler.cli import cli
from test_backfill import HOUR, hourly, stamp
from test_cli_tasks import Run, running
from test_dispatcher import arrived
from test_queue import now_ms


@pytest.fixture
def tasks(app: App) -> Run:
    return running(app, cli, "tasks")


async def test_a_backfill_is_counted_and_asked_for(tasks, alice, receiver, conn):
    first = await hourly(alice, receiver) - 3 * HOUR
    span = ["--from", stamp(first), "--to", stamp(first + 2 * HOUR)]
    counted = await tasks("backfill", "t", *span, "--dry-run")
    assert counted.exit_code == 0, counted.output
    assert "3 instants" in counted.stdout and "3 have none" in counted.stdout
    one = await tasks("backfill", "t", "--from", span[1], "--to", span[1], "--dry-run")
    assert "1 instant from" in one.stdout and "1 has none" in one.stdout
    refused = await tasks("backfill", "t", *span, stdin="n\n")
    assert refused.exit_code == 1 and "Make 3 runs" in refused.stderr
    assert await conn.fetchval("SELECT count(*) FROM run WHERE scheduled_for < now()") == 0
    made = await tasks("backfill", "--id", "t", *span, "--per-minute", "60000", stdin="y\n")
    assert made.exit_code == 0, made.output
    assert "3 made" in made.stdout
    await eventually(arrived(receiver, 3))
    again = await tasks("backfill", "t", *span, "-o", "json", "--yes")
    found = json.loads(again.stdout)
    assert (found["existing"], found["lacking"], found["made"]) == (3, 0, 0)


async def test_a_backfill_goes_through_all_pages_and_says_where_a_quota_stopped_it(
    run_app, receiver
):
    settings = {"TASKS_BACKFILL_MOST": "4", "QUOTAS_MAX_RUNS_PER_MINUTE": "6"}
    async with run_app(**settings) as app, app.client("alice") as alice:
        tasks = running(app, cli, "tasks")
        first = await hourly(alice, receiver) - 9 * HOUR
        counted = await tasks("backfill", "t", "--from", stamp(first), "--dry-run", "-o", "json")
        assert json.loads(counted.stdout)["lacking"] == 9
        made = await tasks("backfill", "t", "--from", stamp(first), "--yes")
        assert made.exit_code == 1, made.output
        assert "4 made" in made.stdout
        assert f"there is more, from {stamp(first + 3 * HOUR + 1)} on" in made.stderr
        await eventually(arrived(receiver, 4))


async def test_explain_is_for_people_and_for_programs(tasks, alice, receiver):
    at = await hourly(alice, receiver)
    told = await tasks("explain", "t", "--at", stamp(at))
    assert told.exit_code == 0, told.output
    assert told.stdout.startswith(f"Fires at {stamp(at)}.")
    assert "Before" in told.stdout and "overlap is skip" in told.stdout
    not_then = await tasks("explain", "--id", "t", "--at", stamp(at + 1))
    assert not_then.stdout.startswith("Does not fire")
    found = json.loads((await tasks("explain", "t", "--at", stamp(at), "-o", "json")).stdout)
    assert found["verdict"] == "due"
    assert (await tasks("explain", "t", "--at", "then")).exit_code == 1
    assert (await tasks("explain", "none", "--at", "now")).exit_code == 1
    assert now_ms() < at
