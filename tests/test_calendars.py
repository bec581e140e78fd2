"""Calendars: what a task keeps clear of, from `/calendars` to the ledger."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from conftest import App, eventually
from receiver import Receiver
from scheduler.cli import cli
from test_cli_tasks import running, told
from test_ledger import create
from test_verify import verified

ALWAYS = [{"days": ["MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN"]}]
FILE = """BEGIN:VCALENDAR
VERSION:2.0
BEGIN:VEVENT
UID:xmas@example.com
DTSTART;VALUE=DATE:20251225
DTEND;VALUE=DATE:20251227
RRULE:FREQ=YEARLY
END:VEVENT
END:VCALENDAR
"""


async def made(client: httpx.AsyncClient, name: str = "closed", **fields: Any) -> dict[str, Any]:
    answer = await client.post("/calendars", json={"name": name, **fields})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def rows(client: httpx.AsyncClient, task: str, **query: str) -> list[dict[str, Any]]:
    answer = await client.get("/runs", params={"task": task, "limit": "100", **query})
    found: list[dict[str, Any]] = answer.json()["runs"]
    return found


def wrong(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 400, answer.text
    return [f"{d['field']}: {d['message']}" for d in answer.json()["error"]["details"]]


# The face ----------------------------------------------------------------------------------------


async def test_a_calendar_is_made_read_changed_and_deleted(alice):
    sent = {
        "description": "nobody is there",
        "timezone": "Europe/Berlin",
        "dates": ["2026-05-01", {"from": "2026-12-24", "to": "2026-12-26"}],
        "weekly": [{"days": ["SAT", "SUN"]}, {"days": ["MON"], "from": "22:00", "to": "06:00"}],
        "ical": FILE,
    }
    there = await made(alice, **sent)
    assert {name: there[name] for name in sent} == {
        **sent,
        "weekly": [
            {"days": ["SAT", "SUN"], "from": None, "to": None},
            {"days": ["MON"], "from": "22:00", "to": "06:00"},
        ],
    }
    assert there["events"] == 1
    assert (await alice.get("/calendars/closed")).json() == there
    (listed,) = (await alice.get("/calendars")).json()
    assert listed == {name: value for name, value in there.items() if name != "ical"}

    same = await alice.put("/calendars/closed", json=there)
    assert same.status_code == 200
    assert {**same.json(), "updated_at": None} == {**there, "updated_at": None}
    less = (await alice.patch("/calendars/closed", json={"dates": None, "ical": ""})).json()
    assert (less["dates"], less["ical"], less["events"]) == ([], None, 0)
    assert less["weekly"] == there["weekly"]

    assert (await alice.delete("/calendars/closed")).status_code == 204
    assert (await alice.get("/calendars/closed")).status_code == 404
    assert (await alice.delete("/calendars/closed")).status_code == 404


async def test_a_calendar_is_its_services_alone(alice, bob):
    await made(alice, weekly=ALWAYS)
    for method, path in (
        ("GET", ""), ("PUT", ""), ("PATCH", ""), ("DELETE", ""), ("GET", "/excluded"),
    ):  # fmt: skip
        answer = await bob.request(method, f"/calendars/closed{path}", json={})
        assert answer.status_code == 404, (method, path)
    assert (await bob.get("/calendars")).json() == []
    refused = await bob.post(
        "/tasks", json={"name": "t", "url": "http://x", "calendars": ["closed"]}
    )
    assert wrong(refused) == ["calendars: there is no calendar closed; POST /calendars makes one"]
    assert (await bob.post("/calendars", json={"name": "closed"})).status_code == 201


async def test_a_name_is_taken_once(alice):
    await made(alice)
    again = await alice.post("/calendars", json={"name": "closed"})
    assert again.status_code == 409
    assert "there is a calendar closed already" in again.text


@pytest.mark.parametrize(
    ("sent", "field", "words"),
    [
        ({"name": "no spaces"}, "name", "1 to 64 letters"),
        ({"nane": "x"}, "nane", "did you mean name?"),
        ({"timezone": "Berlin"}, "timezone", "did you mean Europe/Berlin?"),
        ({"dates": ["25.12.2026"]}, "dates[0]", '"2026-12-25"'),
        ({"dates": ["2026-02-30"]}, "dates[0]", "no date that exists"),
        ({"dates": [{"from": "2026-02-02", "to": "2026-02-01"}]}, "dates[0].to", "before from"),
        ({"dates": ["2026-01-01"] * 1001}, "dates", "at most 1000"),
        ({"weekly": [{"days": ["SOMEDAY"]}]}, "weekly[0].days", "MON, TUE"),
        ({"weekly": [{"days": []}]}, "weekly[0].days", "MON, TUE"),
        ({"weekly": [{"days": ["MON"], "from": "25:00"}]}, "weekly[0].from", '"22:00"'),
        ({"weekly": [{"days": ["MON"], "from": "9", "to": "10"}]}, "weekly[0].from", '"22:00"'),
        (
            {"weekly": [{"days": ["MON"], "from": "09:00", "to": "09:00"}]},
            "weekly[0].to",
            "leave both out",
        ),
        ({"ical": "hello"}, "ical", "line 1: must begin with BEGIN:VCALENDAR"),
        ({"ical": FILE.replace("YEARLY", "SECONDLY")}, "ical", "in the event of line 3"),
        ({"description": "a\0b"}, "description", "NUL"),
    ],
)
async def test_what_is_wrong_is_named(alice, sent, field, words):
    said = wrong(await alice.post("/calendars", json={"name": "closed", **sent}))
    assert any(line.startswith(f"{field}: ") and words in line for line in said), said


async def test_a_name_stays(alice):
    await made(alice)
    said = wrong(await alice.patch("/calendars/closed", json={"name": "other"}))
    assert said == ["name: stays as it is: tasks name it; make another calendar"]


async def test_a_service_has_a_hundred_calendars_at_most(alice):
    for n in range(100):
        await made(alice, f"c{n:03}")
    answer = await alice.post("/calendars", json={"name": "more"})
    assert answer.status_code == 409
    assert "at most 100 calendars" in answer.text
    page = await alice.get("/calendars", params={"count": "3", "pageNumber": "1"})
    assert [each["name"] for each in page.json()] == ["c003", "c004", "c005"]
    assert page.headers["X-Total-Count"] == "100"


async def test_what_it_excludes_is_listed(alice):
    await made(alice, timezone="Europe/Berlin", weekly=[{"days": ["SAT", "SUN"]}], ical=FILE)
    answer = await alice.get(
        "/calendars/closed/excluded",
        params={"from": "2026-12-21T00:00:00Z", "to": "2027-01-01T00:00:00Z"},
    )
    assert answer.json() == [
        {
            "from": "2026-12-24T23:00:00.000Z",
            "to": "2026-12-27T23:00:00.000Z",
            "local_from": "2026-12-25T00:00:00.000+01:00",
            "local_to": "2026-12-28T00:00:00.000+01:00",
        }
    ]
    assert wrong(await alice.get("/calendars/closed/excluded?from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z"))  # fmt: skip


# A task ------------------------------------------------------------------------------------------


async def test_a_task_names_calendars_that_are_there(alice):
    await made(alice)
    task = await create(alice, id="t", cron="0 9 * * *", calendars=["closed", "closed"])
    assert task["calendars"] == ["closed"]
    assert wrong(await alice.put("/tasks/t", json={"calendars": ["closed", "gone"]})) == [
        "calendars: there is no calendar gone; POST /calendars makes one"
    ]
    many = [f"c{n}" for n in range(21)]
    assert "at most 20" in wrong(await alice.put("/tasks/t", json={"calendars": many}))[0]
    assert (await alice.put("/tasks/t", json=(await alice.get("/tasks/t")).json())).is_success
    bulk = [{"name": "a", "url": "http://x", "calendars": ["closed"]}]
    assert (await alice.post("/tasks/bulk", json=bulk)).status_code == 201
    bulk += [{"name": "b", "url": "http://x", "calendars": ["gone"]}]
    assert wrong(await alice.post("/tasks/bulk", json=bulk))[0].startswith("[1].calendars: ")


async def test_a_calendar_that_tasks_name_is_not_deleted(alice, bob):
    for client in (alice, bob):
        await made(client)
    await made(alice, "close")
    for n in range(5):
        await create(alice, id=f"t{n}", cron="0 9 * * *", calendars=["closed", "close"])
    answer = await alice.delete("/calendars/closed")
    assert answer.status_code == 409
    assert "tasks keep clear of closed: t" in answer.json()["error"]["message"]
    assert "and others" in answer.json()["error"]["message"]
    assert (await bob.delete("/calendars/closed")).status_code == 204
    for n in range(5):
        await alice.put(f"/tasks/t{n}", json={"calendars": ["close"] if n else []})
    assert (await alice.delete("/calendars/closed")).status_code == 204
    assert (await alice.delete("/calendars/close")).status_code == 409


async def test_one_that_a_hand_deleted_excludes_nothing(alice, conn, receiver):
    await made(alice, weekly=ALWAYS)
    await create(alice, id="t", url=receiver.url, frequency=1, unit="second", calendars=["closed"])
    await conn.execute("DELETE FROM calendar")
    await eventually(lambda: receiver.last)
    whole = (await alice.get("/tasks/t")).json()
    assert whole["calendars"] == ["closed"]
    assert (await alice.put("/tasks/t", json=whole)).status_code == 200


async def test_the_next_instant_is_one_that_is_not_excluded(alice):
    today = datetime.now(UTC)
    days = [(today + timedelta(days=n)).date().isoformat() for n in range(4)]
    await made(alice, dates=days)
    await made(alice, "always", weekly=ALWAYS)
    task = await create(alice, id="t", cron="0 12 * * *", calendars=["closed"])
    expected = (today + timedelta(days=4)).date().isoformat()
    assert task["scheduled_at"] == f"{expected}T12:00:00.000Z"
    assert (await alice.get("/tasks/t")).json()["scheduled_at"] == task["scheduled_at"]
    assert (await alice.get("/tasks")).json()[0]["scheduled_at"] == task["scheduled_at"]
    assert (await alice.get("/tasks/scheduled")).json() == []
    until = (today + timedelta(days=6)).isoformat().replace("+00:00", "Z")
    (found,) = (await alice.get("/tasks/scheduled", params={"to": until})).json()
    assert found["id"] == "t"

    task = await create(alice, id="never", cron="0 12 * * *", calendars=["always"])
    assert (task["scheduled_at"], task["state"]) == (None, "pending")
    assert (await alice.put("/tasks/never", json=task | {"message": None})).is_success


async def test_max_runs_counts_what_is_excluded(alice):
    today = datetime.now(UTC)
    days = [(today + timedelta(days=n)).date().isoformat() for n in range(4)]
    await made(alice, dates=days)
    few = await create(alice, cron="0 12 * * *", calendars=["closed"], max_runs=2)
    assert few["scheduled_at"] is None
    enough = await create(alice, cron="0 12 * * *", calendars=["closed"], max_runs=6)
    assert enough["scheduled_at"] is not None


async def test_preview_says_what_a_calendar_skips(alice):
    await made(alice, dates=["2026-12-25"], timezone="Europe/Berlin")
    fields = {"cron": "0 9 * * *", "timezone": "Europe/Berlin", "calendars": ["closed"]}
    await create(alice, id="t", **fields)
    query = {"count": "2", "from": "2026-12-25T00:00:00Z"}
    for answer in (
        await alice.get("/tasks/t/preview", params=query),
        await alice.post("/tasks/preview", params=query, json=fields),
    ):
        notes = [each["note"] for each in answer.json()["occurrences"]]
        assert notes == ["skipped: calendar closed", None]
    refused = await alice.post("/tasks/preview", json=fields | {"calendars": ["gone"]})
    assert "there is no calendar gone" in wrong(refused)[0]


# Runs --------------------------------------------------------------------------------------------


async def test_what_a_calendar_excludes_is_one_row_and_is_not_sent(alice, receiver: Receiver):
    await made(alice, weekly=ALWAYS)
    url = receiver.url
    await create(alice, id="t", url=url, frequency=1, unit="second", calendars=["closed"])

    async def skipped() -> None:
        found = await rows(alice, "t", state="skipped")
        assert len(found) >= 2
        assert {run["reason"] for run in found} == {"calendar"}
        assert {(run["attempt"], run["started_at"], run["count"]) for run in found} == {
            (0, None, None)
        }
        assert len({run["scheduled_for"] for run in found}) == len(found)

    await eventually(skipped)
    assert not receiver.requests
    assert (await alice.get("/tasks/t")).json()["state"] == "pending"
    assert (await alice.get("/tasks/t/executions")).json()["total_count"] == 0
    found = await verified(alice)
    assert (found["missing"], found["doubled"]) == ([], [])
    assert found["checked"] > 2


async def test_an_edited_calendar_holds_at_once(alice, receiver: Receiver):
    await made(alice, weekly=ALWAYS)
    url = receiver.url
    await create(alice, id="t", url=url, frequency=1, unit="second", calendars=["closed"])

    async def suppressed() -> None:
        assert await rows(alice, "t", reason="calendar")

    await eventually(suppressed)
    assert not receiver.requests
    await alice.patch("/calendars/closed", json={"weekly": []})
    await eventually(lambda: receiver.last, within=3)

    changed = datetime.now(UTC)
    await alice.patch("/calendars/closed", json={"weekly": ALWAYS})
    answered = datetime.now(UTC).isoformat()
    since = changed.isoformat().replace("+00:00", "Z")

    async def again() -> None:
        found = await rows(alice, "t", reason="calendar", **{"from": since})
        assert len(found) >= 2

    await eventually(again)
    late = [r.header("x-scheduler-scheduled-for") or "" for r in receiver.requests]
    assert not [at for at in late if at > answered]


async def test_a_run_by_hand_and_a_replay_go_through(alice, receiver: Receiver):
    await made(alice, weekly=ALWAYS)
    await create(alice, id="t", url=receiver.url, cron="0 9 * * *", calendars=["closed"])
    answer = await alice.post("/tasks/t/execute")
    assert (answer.status_code, answer.json()["status"]) == (200, "success")
    now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    await alice.post("/tasks/t/schedule", json={"scheduled_at": now})
    await eventually(lambda: _sent(receiver, 2))

    await create(
        alice,
        id="once",
        url=receiver.url,
        scheduled_at="2020-01-01T00:00:00Z",
        calendars=["closed"],
    )

    async def suppressed() -> str:
        found = await rows(alice, "once", state="skipped")
        assert len(found) == 1
        return str(found[0]["id"])

    run = await eventually(suppressed)
    assert (await alice.get("/tasks/once")).json()["state"] == "created"
    assert (await alice.post(f"/runs/{run}/replay")).status_code == 202
    await eventually(lambda: _sent(receiver, 3))


def _sent(receiver: Receiver, count: int) -> None:
    assert len(receiver.requests) == count


async def test_a_skipped_run_leaves_the_state_as_the_last_one_left_it(alice, receiver: Receiver):
    await made(alice)
    fields = {"url": receiver.url, "calendars": ["closed"]}
    await create(alice, id="t", scheduled_at="2020-01-01T00:00:00Z", **fields)

    async def completed() -> None:
        assert [t["id"] for t in (await alice.get("/tasks?state=completed")).json()] == ["t"]

    await eventually(completed)
    await alice.patch("/calendars/closed", json={"weekly": ALWAYS})
    await alice.put("/tasks/t", json={"scheduled_at": "2021-01-01T00:00:00Z"})

    async def skipped() -> None:
        assert len(await rows(alice, "t", reason="calendar")) == 1
        await completed()

    await eventually(skipped)
    assert (await alice.get("/tasks/t")).json()["state"] == "completed"


async def test_another_replica_hears_of_an_edit(app: App, alice, replica, receiver: Receiver):
    await made(alice, weekly=ALWAYS)
    other = await replica()
    url = receiver.url
    for n in range(10):
        await create(alice, id=f"t{n}", url=url, frequency=1, unit="second", calendars=["closed"])

    async def suppressed() -> None:
        assert len(await rows(alice, "t0", reason="calendar")) >= 2

    await eventually(suppressed)
    assert not receiver.requests
    heard = []
    other.signals._on_calendars = heard.append
    await alice.patch("/calendars/closed", json={"weekly": []})
    await eventually(lambda: _heard(heard))
    await eventually(lambda: _sent_by_all(receiver))
    found = await verified(alice)
    assert (found["missing"], found["doubled"]) == ([], [])


def _heard(heard: list[Any]) -> None:
    assert heard


def _sent_by_all(receiver: Receiver) -> None:
    assert {r.header("x-scheduler-task") for r in receiver.requests} == {f"t{n}" for n in range(10)}


async def test_a_services_calendars_go_with_it(run_app, conn):
    async with run_app(ADMIN_TOKEN="x" * 40) as app:
        for service in ("alice", "bob"):
            async with app.client(service) as client:
                await made(client, weekly=ALWAYS)
                await create(client, cron="0 9 * * *", calendars=["closed"])
        async with app.client(authorization=f"Bearer {'x' * 40}") as admin:
            assert (await admin.delete("/services/bob")).status_code == 204
    left = await conn.fetch("SELECT service_id FROM calendar")
    assert [str(row["service_id"]) for row in left] == [app.ids["alice"]]


# The command line --------------------------------------------------------------------------------


async def test_the_command_line_makes_shows_changes_and_deletes_them(app: App, tmp_path):
    calendars = running(app, cli, "calendars")
    file = tmp_path / "holidays.ics"
    file.write_text(FILE)
    made = told(
        await calendars(
            "create", "closed", "--date", "2026-05-01", "--date", "2026-12-24/2026-12-26",
            "--weekly", "sat,SUN", "--weekly", "FRI-MON 22:00-06:00", "--ical", str(file),
            "--timezone", "Europe/Berlin", "-o", "json",
        )
    )  # fmt: skip
    assert made["dates"] == ["2026-05-01", {"from": "2026-12-24", "to": "2026-12-26"}]
    assert made["weekly"] == [
        {"days": ["SAT", "SUN"], "from": None, "to": None},
        {"days": ["MON", "FRI", "SAT", "SUN"], "from": "22:00", "to": "06:00"},
    ]
    assert (made["events"], made["timezone"]) == (1, "Europe/Berlin")

    assert "SAT,SUN; MON,FRI,SAT,SUN 22:00-06:00" in (await calendars("get", "closed")).output
    assert "Europe/Berlin" in (await calendars("list")).output
    changed = await calendars(
        "update", "closed", "--weekly", "SUN", "--unset", "ical", "-o", "json"
    )
    assert told(changed)["events"] == 0
    wanted = ("--from", "2026-12-24T00:00:00Z", "--to", "2026-12-26T00:00:00Z")
    (first,) = told(await calendars("excluded", "closed", *wanted, "-o", "json"))
    assert (first["from"], first["to"]) == ("2026-12-24T00:00:00.000Z", "2026-12-26T00:00:00.000Z")

    tasks = running(app, cli, "tasks")
    words = ("create", "t", "-n", "t", "--url", "http://x", "--cron", "0 9 * * *")
    task = told(await tasks(*words, "--calendar", "closed", "-o", "json"))
    assert task["calendars"] == ["closed"]
    refused = await calendars("delete", "closed", "--yes")
    assert (refused.exit_code, "tasks keep clear of closed: t" in refused.output) == (1, True)
    await tasks("delete", "t")
    assert (await calendars("delete", "closed", "--yes")).output == "closed is deleted.\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("create", "c", "--weekly", "MON 9-17"), "--weekly is days and perhaps hours"),
        (("create", "c", "--weekly", "MON-FOO"), "knows the days MON, TUE"),
        (("create", "c", "--ical", "/nowhere.ics"), "cannot be read"),
        (("create", "c", "--date", "tomorrow"), "2026-12-25"),
        (("create", "c", "--date", "2026-13-01"), "--date [0]: is no date"),
        (("create", "c", "--weekly", "SOMEDAY"), "--weekly [0].days: must be some of MON"),
        (("create", "c", "--timezone", "Mars"), "--timezone: is no IANA time zone"),
        (("update", "c"), "update what?"),
        (("get", "c"), "there is no calendar c"),
    ],
)
async def test_the_command_line_says_what_would_be_right(app: App, words, said):
    result = await running(app, cli, "calendars")(*words)
    assert result.exit_code in (1, 2)
    assert said in result.output
