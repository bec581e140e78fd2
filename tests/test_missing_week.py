"""This week's table of history is missing: whoever writes to it first has it made."""

import asyncio

import asyncpg
import pytest

from conftest import App, eventually
from receiver import Answer, Receiver

WEEKS = """
SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = 'history'::regclass
"""
LOCK = "SELECT pg_advisory_lock(hashtext('history partitions'))"


async def drop_all(conn: asyncpg.Connection) -> None:
    for row in await conn.fetch(WEEKS):
        await conn.execute(f"DROP TABLE {row['relname']}")


@pytest.fixture
async def ready(app: App, alice, conn, receiver) -> str:
    """A task with an instant to come and one that is late; the id of the one to come."""
    body = {"id": "t", "name": "n", "url": f"{receiver.url}/x", "frequency": 1, "unit": "hour"}
    assert (await alice.post("/tasks", json=body)).status_code == 201
    made = await alice.post("/tasks/t/schedule", json={"at": "2035-01-01T00:00:00Z"})
    await eventually(lambda: _pruned(app))
    return made.json()["run_id"]


def _pruned(app: App) -> None:
    """The pruning at the start is over, so that nobody makes weeks by the way."""
    assert not app.engine.pruning.is_set()


CHANGES = {
    "cancel": ("POST", "/runs/{run}/cancel", None),
    "cancel many": ("POST", "/runs/cancel", {"kind": "manual"}),
    "resume": ("PATCH", "/tasks/t", {"status": "active"}),
    "delete": ("DELETE", "/tasks/t", None),
}


@pytest.mark.parametrize("change", CHANGES)
async def test_a_request_has_it_made_and_is_done(alice, conn, ready, change):
    method, path, body = CHANGES[change]
    if change == "resume":
        assert (await alice.patch("/tasks/t", json={"status": "paused"})).status_code == 200
        await conn.execute("UPDATE task_plan SET planned_until = now() - interval '3 h'")
        await conn.execute(
            "UPDATE task SET trigger = jsonb_set(trigger, '{anchor}', "
            "to_jsonb((trigger ->> 'anchor')::bigint - 36000000))"
        )
    if change == "delete":
        # Of a kind that nobody claims.
        await conn.execute(
            "UPDATE run SET due = now() - interval '1 h', kind = 'of a newer version'"
        )
    await drop_all(conn)
    answer = await alice.request(method, path.format(run=ready), json=body)
    assert answer.status_code in (200, 204), answer.text
    assert await conn.fetchval("SELECT count(*) FROM history") >= 1


async def test_while_it_cannot_be_made_a_request_is_told_to_wait(alice, conn, database_url, ready):
    other = await asyncpg.connect(database_url)
    await other.execute(LOCK)
    await drop_all(conn)
    answer = await alice.post(f"/runs/{ready}/cancel")
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "2"
    assert "history lacks a table" in answer.json()["error"]["message"]
    await other.close()

    async def check() -> None:
        assert (await alice.post(f"/runs/{ready}/cancel")).status_code == 200

    await eventually(check)


async def test_a_sweep_has_it_made(run_app, conn, receiver):
    async with run_app(WORKER_QUEUE_MOST="1") as app, app.client("alice") as alice:
        never = receiver.otherwise = Answer(200, after=asyncio.Event())
        body = {"id": "q", "name": "n", "url": f"{receiver.url}/x", "overlap": "queue"}
        assert (await alice.post("/tasks", json=body)).status_code == 201
        assert (await alice.post("/tasks/q/execute?async=true")).status_code == 202
        await eventually(lambda: _arrived(receiver))
        await eventually(lambda: _pruned(app))
        await drop_all(conn)
        await conn.execute("""
            INSERT INTO run (id, bucket, service_id, task_key, task_id, kind, version, overlap,
                             priority, scheduled_for, due, attempts, attempts_n, created_at, lanes)
            SELECT gen_random_uuid(), bucket, service_id, key, id, 'task', 1, 'queue', 0,
                   now() - n * interval '1 h', now() - n * interval '1 h', '[]', 0, now(), 1
            FROM task, generate_series(1, 3) n
        """)

        async def check() -> None:
            found = await conn.fetch("SELECT state, reason, count FROM history")
            assert [tuple(row) for row in found] == [("skipped", "overlap", 2)]

        await eventually(check, 15)
        never.after.set()


def _arrived(receiver: Receiver) -> None:
    assert receiver.requests


async def test_without_any_history_verify_says_that_it_covers_nothing(alice, conn, ready):
    await drop_all(conn)
    answer = await alice.get("/runs/verify")
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["from"] == found["to"]
    assert (found["checked"], found["missing"], found["next_cursor"]) == (0, [], None)
