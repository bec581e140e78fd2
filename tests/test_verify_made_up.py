"""`/runs/verify` of rules, calendars and what was made up for."""

from datetime import timedelta

import pytest

from conftest import eventually
from scheduler.db import ms, rfc3339, utc
from scheduler.run import run_id
from test_backfill import HOUR, backfill, hourly, instants
from test_dispatcher import arrived
from test_ledger import create
from test_queue import now_ms
from test_verify import verified

DAY = 24 * HOUR


async def test_an_rrule_is_right_since_its_last_edit_and_what_is_lost_is_named(
    alice, receiver, conn
):
    start = utc(now_ms() - HOUR).strftime("%Y%m%dT%H%M%SZ")
    rule = f"DTSTART:{start}\nRRULE:FREQ=SECONDLY;INTERVAL=10"
    await create(alice, id="t", url=receiver.url, rrule=rule)
    found = await verified(alice)
    assert (found["missing"], found["doubled"]) == ([], [])
    assert found["checked"] >= 5
    lost = await conn.fetchval(
        "DELETE FROM run WHERE id = (SELECT id FROM run WHERE scheduled_for > now() + "
        "interval '15 s' ORDER BY scheduled_for LIMIT 1) RETURNING scheduled_for"
    )
    found = await verified(alice)
    assert [each["at"] for each in found["missing"]] == [rfc3339(ms(lost))]
    edited = rule.replace("INTERVAL=10", "INTERVAL=20")
    assert (await alice.patch("/tasks/t", json={"rrule": edited})).status_code == 200
    found = await verified(alice)
    assert (found["missing"], found["doubled"]) == ([], [])


@pytest.mark.parametrize("many", [True, False])
async def test_what_was_made_up_for_beside_a_row_of_skipped_ones_is_no_second_run(
    alice, receiver, conn, many
):
    """A row of several instants, or one that a calendar excluded and that is one row by itself."""
    first = await hourly(alice, receiver) - 6 * HOUR
    last = first + 2 * HOUR if many else first
    await conn.execute(
        "UPDATE task SET created_at = $1, updated_at = $1", utc(first) - timedelta(minutes=1)
    )
    row = await conn.fetchrow("SELECT * FROM task")
    await conn.execute(
        "INSERT INTO history (id, bucket, service_id, task_key, task_id, kind, version, "
        "scheduled_for, state, reason, attempts, attempts_n, created_at, finished_at, truncated, "
        "count, gap_from, gap_to) VALUES ($1, $2, $3, $4, 't', 'task', 1, $5, 'skipped', "
        "'calendar', '[]', 0, now(), now(), false, $6, $7, $8)",
        run_id(row["key"], row["bucket"], "task", first), row["bucket"], row["service_id"],
        row["key"], utc(first), 3 if many else 1,
        utc(first) if many else None, utc(last) if many else None,
    )  # fmt: skip
    before = await verified(alice)
    assert len(before["missing"]) == (3 if many else 5)
    await backfill(alice, first, last)
    await eventually(arrived(receiver, 3 if many else 1))
    assert set(instants(receiver).values()) == {1}

    async def right() -> None:
        found = await verified(alice)
        assert found["doubled"] == []
        assert found["missing"] == before["missing"]

    await eventually(right)
    await backfill(alice, first, now_ms() - 1)
    found = await verified(alice)
    assert (found["missing"], found["doubled"]) == ([], [])
