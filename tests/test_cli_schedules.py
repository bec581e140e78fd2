"""`scheduler schedules`, against the whole program."""

import json

import pytest

from conftest import App, eventually
from receiver import Receiver
from scheduler.cli import cli
from test_cli_tasks import Run, failed, running, told

RULE = "FREQ=MONTHLY;BYMONTHDAY=1"


@pytest.fixture
def schedules(app: App) -> Run:
    return running(app, cli, "schedules")


async def created(schedules: Run, receiver: Receiver, *more: str) -> str:
    result = await schedules(
        "create", "-n", "Backup", "--rrule", RULE, "--callback-url", receiver.url, *more,
        "-o", "json",
    )  # fmt: skip
    answer = told(result)
    assert answer.keys() == {"id"}
    return str(answer["id"])


async def test_a_schedule_lives_from_create_to_delete(schedules, receiver):
    made = await created(
        schedules, receiver, "--id", "backup", "-H", "Authorization: Bearer x", "-H", "X-A: b",
        "--json", '{"task": "backup"}', "--timezone", "Europe/Berlin",
    )  # fmt: skip
    assert made == "backup"
    shown = told(await schedules("get", "backup", "-o", "json"))
    assert shown["headers"] == {"Authorization": "********", "X-A": "b"}
    assert (shown["method"], json.loads(shown["body"])) == ("POST", {"task": "backup"})
    pretty = (await schedules("get", "--id", "backup")).stdout
    assert all(word in pretty for word in ("Backup", RULE, receiver.url, "X-A: b", "active"))

    result = await schedules("update", "backup", "--name", "Other", "--method", "PUT")
    assert (result.exit_code, result.stdout) == (0, "Schedule backup is changed.\n")
    after = told(await schedules("get", "backup", "-o", "json"))
    assert {k for k in shown if after[k] != shown[k]} == {"name", "method", "updated_at"}

    assert "is paused" in (await schedules("pause", "backup")).stdout
    assert told(await schedules("get", "backup", "-o", "json"))["status"] == "paused"
    assert "is active" in (await schedules("resume", "--id", "backup")).stdout
    assert told(await schedules("delete", "--id", "backup", "-o", "json")) == {
        "message": "Schedule and associated events deleted."
    }
    failed(await schedules("get", "backup"), 1, "there is no schedule backup")


async def test_what_get_prints_is_a_file_for_update_and_for_create(schedules, receiver, tmp_path):
    made = await created(schedules, receiver, "--body", "hello", "-H", "X-Token: sesame")
    file = tmp_path / "schedule.json"
    file.write_text((await schedules("get", made, "-o", "json")).stdout)
    result = await schedules("update", "--file", str(file), "--name", "Renamed")
    assert result.exit_code == 0, result.output
    assert told(await schedules("get", made, "-o", "json"))["name"] == "Renamed"
    lines = f"name: From YAML\nrrule: {RULE}\ncallback_url: {receiver.url}\n"
    answer = told(await schedules("create", "-f", "-", "-o", "json", stdin=lines))
    assert told(await schedules("get", answer["id"], "-o", "json"))["name"] == "From YAML"
    failed(await schedules("update", "--name", "x"), 2, "which schedule?")
    failed(await schedules("update", made), 2, "nothing to change")


async def test_a_refusal_names_the_flag(schedules, receiver):
    result = await schedules("create", "-n", "x", "--callback-url", "ftp://x", "--rrule", RULE)
    failed(result, 1, "--callback-url: ")
    failed(await schedules("create"), 1, "--name: is needed", "--rrule: ", "--callback-url: ")
    result = await schedules(
        "create", "-n", "x", "--callback-url", receiver.url, "--rrule", RULE, "-H",
        "Authorization: ********",
    )  # fmt: skip
    failed(result, 1, "--header Authorization: ")
    failed(await schedules("get"), 2, "which schedule?")


async def test_all_schedules_are_listed_over_pages(schedules, receiver, monkeypatch):
    monkeypatch.setattr("scheduler.cli.client.PAGE", 2)
    made = [await created(schedules, receiver) for _ in range(5)][::-1]
    assert [each["id"] for each in told(await schedules("list", "-o", "json"))] == made
    few = told(await schedules("list", "--limit", "3", "-o", "json"))
    assert [each["id"] for each in few] == made[:3]
    lines = (await schedules("list")).stdout.splitlines()
    assert lines[0].split() == ["ID", "Name", "Status", "Rule", "Calls"]
    assert [line.split()[0] for line in lines[1:]] == made


async def test_events_are_listed_pending_and_past(schedules, alice, receiver):
    made = await created(schedules, receiver)
    runs = [(await alice.post(f"/tasks/{made}/execute")).json()["run_id"] for _ in range(3)]
    for moment in ("2099-01-01T00:00:00Z", "2099-01-02T00:00:00Z"):
        await alice.post(f"/tasks/{made}/schedule", json={"scheduled_at": moment})

    async def past() -> None:
        found = told(await schedules("history", made, "-o", "json"))
        assert [each["_id"] for each in found["events"]] == runs[::-1]

    await eventually(past)
    result = await schedules("history", "--id", made, "--limit", "2")
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["Event", "Run", "time", "Status", "Since", "Message"]
    assert [line.split()[0] for line in lines[1:]] == runs[:0:-1]
    assert "Event successfully processed" in lines[1]
    assert "1 to 2 of 3; --page 2 has more" in result.stderr
    found = told(await schedules("pending", made, "--limit", "1", "--page", "2", "-o", "json"))
    assert [each["run_time"] for each in found["events"]] == ["2099-01-02T00:00:00.000Z"]
    assert (found["page"], found["limit"], found["total"]) == (2, 1, 2)
    failed(await schedules("pending", "nothing"), 1, "there is no schedule nothing")
