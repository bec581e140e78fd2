"""Who changed what, and when: a row for each change, in its transaction, and no secret in it."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg

from conftest import App
from pages import field, signed_in, statements
from scheduler import audit
from scheduler.audit import Entry, Found
from scheduler.db import utc
from scheduler.service import By
from scheduler.tasks.bulk import INSERT_AT_ONCE
from test_tasks_page import act, follow, undone

HOURLY = {"name": "Hourly", "url": "http://127.0.0.1:9/", "frequency": 1, "unit": "hour"}
NOW = 1_800_000_000_000


async def told(app: App, ref: str, service: str = "alice", **of: Any) -> list[Found]:
    """What the audit has of a thing, the oldest first."""
    async with app.database.api.connect() as conn:
        found = await audit.page(
            conn, uuid.UUID(app.ids[service]), ref, before=None, most=100, **of
        )
    return found[::-1]


def said(of: Found) -> dict[str, tuple[str | None, str | None]]:
    return {each.name: (each.before, each.after) for each in of.changes}


async def token_of(conn: asyncpg.Connection, app: App, service: str = "alice") -> uuid.UUID:
    ask = "SELECT id FROM token WHERE service_id = $1"
    return await conn.fetchval(ask, uuid.UUID(app.ids[service]))


async def test_a_task_is_told_from_its_creation_to_its_end(app: App, alice, conn):
    await alice.post("/tasks", json={**HOURLY, "id": "t"})
    await alice.patch("/tasks/t", json={"name": "Two-hourly", "frequency": 2, "tags": ["a", "b"]})
    await alice.patch("/tasks/t", json={"status": "paused", "paused_until": "2090-01-01T00:00:00Z"})
    await alice.patch("/tasks/t", json={"status": "active"})
    await alice.patch("/tasks/t", json={"status": "disabled"})
    await alice.delete("/tasks/t")
    found = await told(app, "t")
    verbs = [each.verb for each in found]
    assert verbs == ["created", "edited", "paused", "resumed", "disabled", "deleted"]
    assert [each.version for each in found] == [1, 2, 3, 4, 5, 5]
    assert said(found[1]) == {
        "name": ("Hourly", "Two-hourly"), "frequency": ("1", "2"), "tags": ("", "a, b"),
    }  # fmt: skip
    until = "2090-01-01T00:00:00.000Z"
    assert said(found[2]) == {"status": ("active", "paused"), "paused_until": (None, until)}
    assert said(found[3]) == {"status": ("paused", "active"), "paused_until": (until, None)}
    assert said(found[5]) == {"name": ("Two-hourly", None)}
    assert {each.by for each in found} == {By("api", await token_of(conn, app))}
    assert len({each.key for each in found}) == 1
    assert [each.at for each in found] == sorted(each.at for each in found)


async def test_what_changes_nothing_and_what_fails_is_not_told(app: App, alice):
    await alice.post("/tasks", json={**HOURLY, "id": "t"})
    whole = (await alice.get("/tasks/t")).json()
    assert (await alice.put("/tasks/t", json=whole)).status_code == 200
    assert (await alice.patch("/tasks/t", json={"frequency": -1})).status_code == 400
    assert (await alice.post("/tasks", json={**HOURLY, "id": "t"})).status_code == 409
    assert [each.verb for each in await told(app, "t")] == ["created"]


async def test_a_page_says_by_which_door_and_another_service_is_told_nothing(app: App, alice, conn):
    await alice.post("/tasks", json={**HOURLY, "id": "t"})
    async with signed_in(app) as visitor:
        form = field((await visitor.get("/dashboard/tasks/t")).text, "form")
        await visitor.post("/dashboard/tasks/t/pause", data={"form": form})
    assert [each.by.way for each in await told(app, "t")] == ["api", "dashboard"]
    assert (await told(app, "t"))[1].by.token_id == await token_of(conn, app)
    assert await told(app, "t", "bob") == []


async def test_a_time_that_is_moved_by_hand_is_an_edit(app: App, alice):
    await alice.post("/tasks", json={"id": "once", "name": "Once", "url": HOURLY["url"]})
    at = "2090-01-01T00:00:00.000Z"
    await alice.post("/tasks/once/schedule", json={"at": at})
    assert said((await told(app, "once"))[1]) == {"scheduled_at": (None, at)}


async def test_calendars_are_told_too(app: App, alice):
    await alice.post("/calendars", json={"name": "c", "dates": ["2027-01-01"]})
    await alice.patch("/calendars/c", json={"dates": ["2027-01-02"]})
    await alice.delete("/calendars/c")
    found = await told(app, "c", kind="calendar")
    assert [(each.verb, each.version) for each in found] == [
        ("created", 1), ("edited", 2), ("deleted", 2),
    ]  # fmt: skip
    assert await told(app, "c") == []


async def test_what_is_undone_is_told(app: App, visitor, alice):
    await alice.post("/tasks", json={**HOURLY, "id": "t"})
    await undone(visitor, await follow(visitor, await act(visitor, "pause", "t")))
    await undone(visitor, await follow(visitor, await act(visitor, "delete", "t")))
    found = await told(app, "t")
    verbs = [each.verb for each in found]
    assert verbs == ["created", "paused", "resumed", "deleted", "brought back"]
    assert found[2].reason == "the pause was undone"
    assert {each.by.way for each in found[1:]} == {"dashboard"}


SECRETS = [
    {"url": "https://127.0.0.1/?token=planted-2&a=b"},
    {"header": {"Authorization": "Bearer planted-3", "X-Mine": "planted-4"},
     "secret_headers": ["X-Mine"]},
    {"payload": {"password": "planted-5", "then": "x" * 500}},
    {"payload": "x" * 3990 + " https://user:planted-6@127.0.0.1/" + "y" * 9000},
    {"description": "call it with Bearer planted-7"},
]  # fmt: skip


async def test_no_secret_is_in_the_audit_and_what_is_long_is_cut(app: App, alice, conn):
    await alice.post("/tasks", json={**HOURLY, "id": "t", "header": {"Authorization": "planted-0"}})
    for fields in SECRETS:
        assert (await alice.patch("/tasks/t", json=fields)).status_code == 200, fields
    await alice.patch("/tasks/t", json={"header": {"Authorization": "planted-8", "X-Mine": "z"}})
    rows = await conn.fetch("SELECT * FROM audit")
    assert sum(row["kind"] == "task" for row in rows) == 7
    assert "planted" not in str([dict(row) for row in rows])
    found = await told(app, "t")
    assert said(found[1])["url"][1] == "https://127.0.0.1/?token=********&a=b"
    assert found[4].changes[0].after and "characters)" in found[4].changes[0].after
    assert len(found[4].changes[0].after) < 500
    assert said(found[6]) == {"header": ("********", "********")}  # changed, and no more is said


async def test_many_tasks_are_told_by_one_statement_a_piece(app: App, alice):
    body = [{**HOURLY, "id": f"t{n}"} for n in range(2 * INSERT_AT_ONCE)]
    with statements(app) as seen:
        assert (await alice.post("/tasks/bulk", json=body)).status_code == 201
    assert sum("INTO audit" in each for each in seen) == 3  # and one for all of them
    (last,) = await told(app, f"t{2 * INSERT_AT_ONCE - 1}")
    assert (last.verb, last.by.way) == ("created", "api")


async def test_changes_of_one_millisecond_stand_in_the_order_of_their_versions(app: App):
    service = uuid.UUID(app.ids["alice"])
    async with app.database.api.begin() as conn:
        for version in (2, 3, 1):
            entry = Entry(ref="t", verb="edited", version=version)
            await audit.write(conn, service, By("api"), [entry], utc(NOW))
        nul = [Entry(ref="t", verb="edited", version=4, changes=[audit.Change("x", "\x00", None)])]
        await audit.write(conn, service, By("api"), nul, utc(NOW))
    found = await told(app, "t")
    assert [each.version for each in found] == [1, 2, 3, 4]
    assert found[3].changes[0].before == "\ufffd"
    async with app.database.api.connect() as conn:
        first = await audit.page(conn, service, "t", before=None, most=2)
        rest = await audit.page(conn, service, "t", before=first[-1].id, most=9)
        assert await audit.page(conn, service, "\x00", before=None, most=9) == []
    assert [each.version for each in (*first, *rest)] == [4, 3, 2, 1]


async def test_the_last_pause_is_found_behind_many_edits(app: App):
    service = uuid.UUID(app.ids["alice"])
    async with app.database.api.begin() as conn:
        for version in range(1, 30):
            entry = Entry(ref="t", verb="paused" if version in (3, 5) else "edited",
                          version=version, reason=f"why {version}")  # fmt: skip
            await audit.write(conn, service, By("api"), [entry], utc(NOW + version))
        found = await audit.newest(conn, service, "t", 3)
    assert [each.version for each in found] == [29, 28, 27, 5]
    assert found[-1].reason == "why 5"


async def test_the_audit_goes_with_history_and_with_its_service(app: App, alice, bob):
    for client in (alice, bob):
        await client.post("/tasks", json={**HOURLY, "id": "t"})
    before, service = datetime.now(UTC), uuid.UUID(app.ids["alice"])
    async with app.database.api.begin() as conn:
        old = [Entry(ref="old", verb="edited") for _ in range(5)]
        await audit.write(conn, service, By(), old, before - timedelta(days=90))
    async with app.database.api.begin() as conn:
        limit = before - timedelta(days=1)
        place = await audit.prune(conn, limit, most=3)
        assert place is not None
        assert await audit.prune(conn, limit, place, most=3) is None
    assert await told(app, "old") == [] and len(await told(app, "t")) == 1
    async with app.database.api.begin() as conn:
        assert not await audit.remove_service(conn, service, 10)
    assert await told(app, "t") == [] and len(await told(app, "t", "bob")) == 1


async def test_a_damaged_row_of_the_audit_is_read_as_far_as_it_goes(app: App, alice, conn):
    await alice.post("/tasks", json={**HOURLY, "id": "t"})
    await conn.execute("""UPDATE audit SET changes = '{"a": 1}'""")
    (found,) = await told(app, "t")
    assert (found.verb, found.changes) == ("created", [])


async def test_a_header_that_becomes_secret_is_masked_in_what_was_told_before(alice, conn):
    task = {"id": "late", "name": "n", "url": "http://127.0.0.1:9/"}
    await alice.post("/tasks", json={**task, "header": {"X-Open": "1", "X-Mine": "planted"}})
    await alice.patch("/tasks/late", json={"header": {"X-Open": "2", "X-Mine": "planted too"}})
    assert "planted" in str(await conn.fetch("SELECT changes FROM audit"))
    await alice.patch(
        "/tasks/late",
        json={"header": {"X-Open": "3", "X-Mine": "planted three"}, "secret_headers": ["x-mine"]},
    )
    rows = await conn.fetch("SELECT changes FROM audit ORDER BY at")
    assert "planted" not in str(rows) and "X-Open: 3, X-Mine: ********" in str(rows)
