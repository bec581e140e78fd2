"""The planner: instants against brute force, two planners at once, and edits."""

import asyncio
import contextlib
import itertools
import uuid
from collections.abc import AsyncIterator

import asyncpg
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import eventually
from scheduler import config, edits, planner, planning, queue, task
from scheduler.db import Database, ms, utc
from scheduler.definition import Definition
from scheduler.planning import plan
from scheduler.run import run_id
from scheduler.sweep import Sweep
from scheduler.triggers import Bounds, Interval, Once
from scheduler.triggers.calendar import Event, Rules
from test_queue import ALICE, BOB, ME, MINUTE, claim, definition, enqueue, now_ms

WINDOW = 60_000
HOUR = 3_600_000


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    made = Database(database_url, config.Database())
    yield made
    await made.close()


def every(seconds: int, anchor: int) -> Interval:
    return Interval(seconds, "second", anchor)


# What one pass decides, pure ---------------------------------------------------------------------

NOW = 1_800_000_000_000
GRACE = st.integers(0, 120)
RULES = st.sampled_from(["latest", "all", "skip"])
GRIDS = st.builds(every, st.integers(1, 90), st.integers(NOW - 600_000, NOW + 100_000))


def expected(of: Definition, planned_until: int, now: int, horizon: int):
    """What brute force makes of it: (instants, those passed over)."""
    every_one = list(of.trigger.between(planned_until, horizon))
    late = [at for at in every_one if at <= now - of.misfire_grace_ms]
    rule = of.policy.misfire or "latest"
    if rule == "all":
        late = []
    due = [at for at in every_one if at <= now]
    if rule == "latest" and late and due[-1] == late[-1]:
        late.pop()
    return [at for at in every_one if at not in late], late


@given(GRIDS, st.integers(0, 400_000), st.integers(0, WINDOW), RULES, GRACE)
def test_a_pass_makes_what_brute_force_makes_and_counts_the_rest_exactly(
    trigger, downtime, window, rule, grace
):
    of = definition(trigger=trigger, misfire=rule, misfire_grace_seconds=grace)
    made = plan(of, NOW - downtime, 0, NOW, NOW + window)
    instants, passed_over = expected(of, NOW - downtime, NOW, NOW + window)
    assert made.instants == instants
    if not passed_over:
        assert made.gaps == []
    else:
        assert (made.gaps[0].count, made.gaps[0].first, made.gaps[0].last, made.gaps[0].reason) == (
            len(passed_over), passed_over[0], passed_over[-1], "misfire"
        )  # fmt: skip
    assert made.planned_until == NOW + window
    assert made.next_plan_at == trigger.next(NOW + window)


@given(
    GRIDS, RULES, GRACE, st.lists(st.integers(0, 200_000), min_size=1, max_size=8),
    st.integers(0, WINDOW),
)  # fmt: skip
def test_over_all_passes_every_instant_is_made_once_or_counted_once(
    trigger, rule, grace, rests, window
):
    of = definition(trigger=trigger, misfire=rule, misfire_grace_seconds=grace)
    planned_until = now = NOW - 300_000
    made, skipped = [], 0
    start = planned_until
    for rest in rests:
        now += rest
        done = plan(of, planned_until, 0, now, now + window)
        made += done.instants
        skipped += sum(gap.count for gap in done.gaps)
        assert done.planned_until >= planned_until
        planned_until = done.planned_until
    assert len(made) == len(set(made))
    assert made == sorted(made)
    assert len(made) + skipped == trigger.count(start, planned_until)


def test_a_long_stretch_is_made_in_slices_that_meet():
    of = definition(trigger=every(1, NOW), misfire="all")
    planned_until, made, passes = NOW, [], 0
    while planned_until < NOW + HOUR:
        done = plan(of, planned_until, 0, NOW, NOW + HOUR)
        assert len(done.instants) <= planning.MOST_AT_ONCE
        made += done.instants
        planned_until, passes = done.planned_until, passes + 1
    assert made == list(range(NOW + 1000, NOW + HOUR + 1, 1000))
    assert passes == 4


@pytest.mark.parametrize("status", ["paused", "disabled"])
def test_a_task_that_is_not_active_has_nothing_due(status):
    of = definition(trigger=every(1, NOW), status=status)
    made = plan(of, NOW - HOUR, 0, NOW, NOW + WINDOW)
    assert (made.instants, made.next_plan_at, made.gaps) == ([], None, [])
    assert made.planned_until == NOW - HOUR


def test_once_is_due_once_and_then_never():
    of = definition(trigger=Once(NOW + 5000))
    made = plan(of, NOW, 0, NOW, NOW + WINDOW)
    assert (made.instants, made.next_plan_at) == ([NOW + 5000], None)
    assert plan(of, made.planned_until, 0, NOW, NOW + HOUR).instants == []


def test_a_task_overdue_by_years_costs_no_walk():
    of = definition(trigger=every(1, 0), misfire="latest")
    made = plan(of, 0, 0, NOW, NOW)
    assert made.instants == [NOW - 60_000 + 1000 * n for n in range(1, 61)]
    assert made.gaps[0].count == NOW // 1000 - 60


# Passes over the table ---------------------------------------------------------------------------


async def store(database: Database, of: Definition, now: int, window: int = WINDOW) -> Definition:
    async with database.engine.begin() as conn:
        await task.create(conn, of)
        await planner.create(conn, of, now, window_ms=window, at_once=False)
    return of


async def tick(database: Database, now: int, batch: int = 100, window: int = WINDOW) -> int:
    """Plan until there is nothing left; return how many runs were made."""
    made = 0
    for overdue in (False, True):
        passed = planner.Passed(tasks=1)
        while passed.tasks:
            async with database.engine.begin() as conn:
                passed = await planner.tick(
                    conn, now, window_ms=window, batch=batch, overdue=overdue
                )
            made += passed.runs
    return made


async def instants(conn: asyncpg.Connection, of: Definition) -> list[int]:
    rows = await conn.fetch(
        "SELECT scheduled_for FROM run WHERE task_key = $1 ORDER BY scheduled_for", of.key
    )
    return [ms(row[0]) for row in rows]


async def gaps(conn: asyncpg.Connection, of: Definition) -> list[tuple[str, int, int, int]]:
    rows = await conn.fetch(
        "SELECT reason, count, gap_from, gap_to FROM history "
        "WHERE task_key = $1 AND state = 'skipped' ORDER BY gap_from", of.key
    )  # fmt: skip
    return [(r["reason"], r["count"], ms(r["gap_from"]), ms(r["gap_to"])) for r in rows]


async def test_the_next_half_window_is_always_planned(database, conn):
    start = now_ms()
    of = await store(database, definition(trigger=every(7, start + 100)), start)
    for now in range(start, start + 3 * WINDOW, 1000):
        await tick(database, now)
        made = await instants(conn, of)
        assert made[-1] > now + WINDOW // 2 - 7000
        assert made[-1] <= now + WINDOW
    assert await instants(conn, of) == list(of.trigger.between(start, made[-1]))
    planned = await conn.fetchrow("SELECT * FROM task_plan")
    assert planned["planned_runs"] == len(made)


async def test_what_falls_due_beyond_half_a_window_is_left_alone(database, conn):
    start = now_ms()
    of = await store(database, definition(trigger=every(10, start)), start)
    assert await instants(conn, of) == [start + 10_000 * n for n in range(1, 7)]
    before = await conn.fetchrow("SELECT xmin, * FROM task_plan")
    assert await tick(database, start + 39_999) == 0
    assert await conn.fetchrow("SELECT xmin, * FROM task_plan") == before
    assert await tick(database, start + 40_000) == 4


async def test_planned_until_only_grows(database, conn):
    start = now_ms()
    await store(database, definition(trigger=every(10, start)), start)
    before = await conn.fetchval("SELECT planned_until FROM task_plan")
    await conn.execute("UPDATE task_plan SET next_plan_at = $1", utc(start - HOUR))
    await tick(database, start - HOUR)  # a clock that was stepped back
    assert await conn.fetchval("SELECT planned_until FROM task_plan") >= before
    assert await conn.fetchval("SELECT count(*) FROM run") == 6


async def test_two_planners_at_once_make_each_run_once(database_url, conn):
    database, start = Database(database_url, config.Database(engine_pool=6)), now_ms()
    tasks = [definition(f"t{n}", every(3, start + n)) for n in range(60)]
    async with database.engine.begin() as c:
        for of in tasks:
            await task.create(c, of)
            await planner.create(c, of, start, window_ms=2, at_once=False)
    made = await asyncio.gather(*(tick(database, start + 5, batch=7) for _ in range(6)))
    await database.close()
    wanted = [at for of in tasks for at in of.trigger.between(start, start + 5 + WINDOW)]
    assert await conn.fetchval("SELECT count(*) FROM run") == len(wanted)
    assert sum(made) == len(wanted) - 2  # two were made at creation
    assert await conn.fetchval("SELECT sum(planned_runs) FROM task_plan") == len(wanted)
    rows = await conn.fetch("SELECT id, bucket, task_key, scheduled_for FROM run")
    assert all(
        row["id"] == run_id(row["task_key"], row["bucket"], "task", ms(row["scheduled_for"]))
        for row in rows
    )


async def test_a_backlog_stands_before_nobodys_next_instant(database, conn):
    now = now_ms()
    await store(database, definition("old", every(1, now - HOUR), misfire="all"), now - HOUR)
    on_time = await store(database, definition("next", every(1, now + 500)), now, window=0)
    async with database.engine.begin() as c:
        await planner.tick(c, now, window_ms=WINDOW, batch=1)
    assert await instants(conn, on_time) == list(range(now + 500, now + WINDOW + 1, 1000))


async def test_instants_that_nobody_planned_in_time_become_one_gap(database, conn):
    start = now_ms() - HOUR
    of = await store(database, definition(trigger=every(60, start)), start)
    await conn.execute("DELETE FROM run")
    await tick(database, start + HOUR)
    assert await instants(conn, of) == [start + HOUR, start + HOUR + MINUTE]
    assert await gaps(conn, of) == [
        ("misfire", 58, start + 2 * MINUTE, start + 59 * MINUTE)
    ]  # fmt: skip


async def test_a_long_window_is_made_in_slices(database, conn):
    start = now_ms()
    of = await store(database, definition(trigger=every(1, start)), start, window=HOUR)
    assert len(await instants(conn, of)) == planning.MOST_AT_ONCE
    await tick(database, start, window=HOUR)
    made = await instants(conn, of)
    assert made == list(range(start + 1000, made[-1] + 1, 1000))
    assert made[-1] >= start + HOUR // 2


GARBAGE = {
    "no trigger at all": ("trigger", '"garbage"'),
    "an unknown kind": ("trigger", '{"kind": "sundial"}'),
    "frequency 0": ("trigger", '{"kind":"interval","frequency":0,"unit":"second","anchor":0}'),
    "frequency -60": ("trigger", '{"kind":"interval","frequency":-60,"unit":"second","anchor":0}'),
    "frequency 10^300": (
        "trigger",
        f'{{"kind":"interval","frequency":1{"0" * 300},"unit":"week","anchor":0}}',
    ),
    "anchor 10^18": (
        "trigger",
        '{"kind":"interval","frequency":1,"unit":"second","anchor":1000000000000000000}',
    ),
    "anchor a float": ("trigger", '{"kind":"interval","frequency":1,"unit":"second","anchor":.5}'),
    "a depth bomb": ("trigger", '{"kind":"once","at":' + "[" * 5000 + "]" * 5000 + "}"),
    "a grace without end": ("policy", '{"misfire_grace_seconds": 1e300}'),
    "a policy that is a list": ("policy", "[1]"),
    "an action of no kind": ("action", "{}"),
    "tags that are numbers": ("tags", "[1, 2]"),
}


@pytest.mark.parametrize(("column", "value"), GARBAGE.values(), ids=GARBAGE)
async def test_a_damaged_row_is_set_aside_for_an_hour_and_seen_and_stops_nobody(
    database, conn, column, value
):
    start = now_ms()
    bad = await store(database, definition("bad", every(1, start)), start, window=1)
    good = await store(database, definition("good", every(1, start)), start, window=1)
    value = value.replace(".5", "0.5")
    await conn.execute(f"UPDATE task SET {column} = '{value}' WHERE id = 'bad'")
    await tick(database, start + 5)
    assert len(await instants(conn, good)) == 60
    assert await instants(conn, bad) == []
    row = await conn.fetchrow("SELECT * FROM task_plan WHERE key = $1", bad.key)
    assert ms(row["next_plan_at"]) == start + 5 + HOUR
    assert ms(row["planned_until"]) == start + 1
    failed = await conn.fetch("SELECT state, reason, count FROM history")
    assert [(r["state"], r["count"]) for r in failed] == [("failed", 1)]
    assert "cannot be" in failed[0]["reason"]
    # Mended within the hour and edited: nothing was planned of what it owes.
    assert await tick(database, start + 1000) == 0


@pytest.mark.parametrize("until", ["infinity", "-infinity", "20000-01-01Z", "4000-01-01Z BC"])
async def test_a_damaged_plan_stops_nobody(database, conn, until):
    start = now_ms()
    await store(database, definition("bad", every(1, start)), start, window=1)
    good = await store(database, definition("good", every(1, start)), start, window=1)
    with contextlib.suppress(asyncpg.CheckViolationError):  # or it is refused
        await conn.execute(
            f"UPDATE task_plan SET planned_until = '{until}' WHERE key <> $1", good.key
        )
    await tick(database, start + 5)
    assert len(await instants(conn, good)) == 60


async def test_a_plan_whose_task_is_gone_is_forgotten(database, conn):
    start = now_ms()
    await store(database, definition("gone", every(1, start)), start, window=1)
    good = await store(database, definition("good", every(1, start)), start, window=1)
    await conn.execute("DELETE FROM task WHERE id = 'gone'")
    for _ in range(2):
        await tick(database, start + 5)
    assert len(await instants(conn, good)) == 60
    assert await conn.fetchval("SELECT count(*) FROM task_plan") == 1


# Edits -------------------------------------------------------------------------------------------


async def edit(
    database: Database, before: Definition, at_once: bool = False, **changes
) -> Definition:
    """Do what the API does to change a task."""
    after = msgspec.structs.replace(before, version=before.version + 1, **changes)
    async with database.engine.begin() as conn:
        planned = await planner.lock(conn, before.line)
        assert planned is not None
        await task.change(conn, after)
        await edits.replan(conn, before, after, planned, window_ms=WINDOW, at_once=at_once)
    return after


async def versions(conn: asyncpg.Connection, of: Definition) -> dict[uuid.UUID, int]:
    rows = await conn.fetch("SELECT id, version FROM run WHERE task_key = $1", of.key)
    return {row["id"]: row["version"] for row in rows}


async def test_a_rename_keeps_every_run_and_gives_it_the_new_version(database, conn):
    start = now_ms()
    of = await store(database, definition(trigger=every(10, start + 5000)), start)
    before = await versions(conn, of)
    await edit(database, of, name="other")
    after = await versions(conn, of)
    assert before.keys() <= after.keys()
    assert len(after) <= len(before) + 1  # the window has moved on a little
    assert set(after.values()) == {2}


async def test_a_new_grid_takes_the_old_instants_back(database, conn):
    start = now_ms()
    of = await store(database, definition(trigger=every(10, start + 5000)), start)
    after = await edit(database, of, trigger=every(20, start + 7500))
    made = await instants(conn, of)
    assert made[:3] == [start + 7500, start + 27_500, start + 47_500]
    assert all((at - start - 7500) % 20_000 == 0 for at in made)
    assert set((await versions(conn, after)).values()) == {2}


async def test_held_instants_that_are_still_wanted_get_the_new_version_and_no_double(
    database, conn
):
    start = now_ms()
    of = definition(trigger=every(10, start + 5000), overlap="allow")
    await store(database, of, start)
    held = await claim(database, start + 24_500, room=3)
    held += await claim(database, start + 5000, room=3)
    assert len(held) == 2
    before = await versions(conn, of)
    await edit(database, of, name="other")
    after = await versions(conn, of)
    assert before.keys() <= after.keys()
    assert {after[run.id] for run in held} == {2}
    assert await conn.fetchval("SELECT count(*) FROM run WHERE claimed_by = $1", ME) == 2


async def test_held_instants_that_nobody_wants_keep_the_old_version(database, conn):
    start = now_ms()
    of = await store(database, definition(trigger=every(10, start + 5000)), start)
    (held,) = await claim(database, start + 5000)
    await edit(database, of, trigger=every(20, start + 7500))
    after = await versions(conn, of)
    assert after.pop(held.id) == 1
    assert set(after.values()) == {2}


@pytest.mark.parametrize("status", ["paused", "disabled"])
async def test_a_task_that_is_stopped_has_no_future_and_what_was_due_stays_due(
    database, conn, status
):
    start = now_ms() - 25_000
    of = await store(database, definition(trigger=every(10, start)), start)
    await edit(database, of, status=status)
    assert await instants(conn, of) == [start + 10_000, start + 20_000]
    assert await conn.fetchval("SELECT next_plan_at FROM task_plan") is None
    await tick(database, start + HOUR)
    assert len(await instants(conn, of)) == 2


async def test_a_pause_becomes_one_gap_with_its_exact_count(database, conn):
    start = now_ms() - 10 * MINUTE
    of = await store(database, definition(trigger=every(60, start), status="paused"), start)
    assert await instants(conn, of) == []
    resumed = await edit(database, of, status="active")
    until = ms(await conn.fetchval("SELECT planned_until FROM task_plan")) - WINDOW
    wanted = list(of.trigger.between(start, until))
    assert await gaps(conn, of) == [("paused", len(wanted), wanted[0], wanted[-1])]
    assert 10 <= len(wanted) <= 11
    assert await instants(conn, resumed) == list(of.trigger.between(until, until + WINDOW))


async def test_edits_during_a_pause_count_each_instant_once(database, conn):
    start = now_ms() - 10 * MINUTE
    of = await store(database, definition(trigger=every(1, start), status="paused"), start)
    for name in ("a", "b", "c"):
        of = await edit(database, of, name=name)
    await edit(database, of, status="active")
    until = ms(await conn.fetchval("SELECT planned_until FROM task_plan")) - WINDOW
    rows = await gaps(conn, of)
    assert sum(count for _, count, _, _ in rows) == of.trigger.count(start, until)
    assert all(a[3] < b[2] for a, b in itertools.pairwise(rows))


async def test_a_disabled_task_has_no_due_instants_and_no_gap(database, conn):
    start = now_ms() - 10 * MINUTE
    of = definition(trigger=every(60, start), status="disabled")
    await store(database, of, start)
    await edit(database, of, status="active")
    assert await gaps(conn, of) == []
    assert all(at > start + 9 * MINUTE for at in await instants(conn, of))


@pytest.mark.parametrize(
    ("rule", "runs", "skipped"), [("all", 10, 0), ("latest", 1, 9), ("skip", 1, 9)]
)
async def test_an_edit_of_an_overdue_task_settles_what_it_owed_by_its_old_rule(
    database, conn, rule, runs, skipped
):
    start = now_ms() - 10 * MINUTE - 30_000
    of = definition(trigger=every(60, start), misfire=rule, misfire_grace_seconds=60)
    of = await store(database, of, start, window=1)
    after = await edit(database, of, trigger=Once(start + HOUR))
    owed = await instants(conn, of)
    # The last one is 30 s old, and so within its grace.
    assert owed == [start + MINUTE * n for n in range(11 - runs, 11)]
    assert sum(count for _, count, _, _ in await gaps(conn, of)) == skipped
    assert set((await versions(conn, after)).values()) == {2}


async def test_what_an_edit_cannot_catch_up_with_is_a_gap(database, conn, monkeypatch):
    monkeypatch.setattr(planning, "MOST_AT_ONCE", 10)
    monkeypatch.setattr(edits, "CATCH_UP_PASSES", 3)
    start = now_ms() - 100_500
    of = definition(trigger=every(1, start), misfire="all")
    await store(database, of, start, window=1)
    await edit(database, of, status="disabled")
    made = await instants(conn, of)
    assert made == [start + 1000 * n for n in range(1, 31)]
    ((reason, count, first, last),) = await gaps(conn, of)
    assert (reason, first) == ("misfire", start + 31_000)
    assert count == (last - first) // 1000 + 1
    assert last >= start + 100_000


async def test_an_instant_that_passes_during_an_edit_is_not_lost(database, database_url, conn):
    start = now_ms()
    of = await store(database, definition(trigger=every(1, start), overlap="allow"), start)
    soon = start + 2000
    last = (await instants(conn, of))[-1]
    other = await asyncpg.connect(database_url)
    lock = other.transaction()
    await lock.start()
    await other.execute("SELECT FROM run WHERE scheduled_for = $1 FOR UPDATE", utc(last))
    editing = asyncio.create_task(edit(database, of, name="other"))

    async def passed() -> None:
        assert await conn.fetchval("SELECT clock_timestamp() > $1", utc(soon))

    await eventually(passed)
    assert not editing.done()
    await lock.rollback()
    await other.close()
    await editing
    made = await instants(conn, of)
    assert made == list(of.trigger.between(start, made[-1]))
    assert made[-1] >= last
    assert set((await versions(conn, of)).values()) == {2}


async def test_an_edit_may_ask_for_a_run_now(database, conn):
    start = now_ms()
    of = await store(database, definition(), start)
    await edit(database, of, at_once=True, trigger=Once(start - HOUR))
    (at,) = await instants(conn, of)
    assert start <= at <= now_ms()
    assert await tick(database, start + HOUR) == 0


async def test_an_edit_waits_for_the_planner_and_the_planner_passes_over_an_edit(database, conn):
    start = now_ms()
    of = await store(database, definition(trigger=every(1, start)), start, window=1)
    async with database.engine.begin() as c:
        assert (await planner.lock(c, of.line)).until == start + 1
        assert await tick(database, start + 5) == 0
    assert await tick(database, start + 5) == 60


async def test_overdue_tasks_of_a_crowded_service_wait_and_those_of_others_do_not(database, conn):
    start = now_ms()
    mine = await store(database, definition("a", every(600, start), service=ALICE), start)
    other = await store(database, definition("b", every(600, start), service=BOB), start)
    async with database.engine.begin() as c:
        await planner.tick(
            c, start + HOUR, window_ms=WINDOW, batch=100, overdue=True, crowded=[ALICE]
        )
    assert await instants(conn, mine) == []
    assert await instants(conn, other) == [start + HOUR]


async def test_a_deleted_tasks_plan_is_forgotten(database, conn):
    start = now_ms()
    of = await store(database, definition(trigger=every(1, start)), start)
    async with database.engine.begin() as c:
        await planner.remove(c, of.line)
        assert await planner.lock(c, of.line) is None
    assert await tick(database, start + HOUR) == 0


# The sweep ---------------------------------------------------------------------------------------


async def sweep(database: Database, now: int, *, first: bool = False) -> int:
    walk, skipped, done = Sweep(database, WINDOW, 100), 0, False
    while not done:
        swept = await walk.step(now, first=first, alone=True)
        skipped, done = skipped + swept.skipped, swept.done
    return skipped


DOWN = {
    "latest": ({}, 1),
    "latest within grace": ({"misfire_grace_seconds": 25}, 3),
    "skip": ({"misfire": "skip"}, 1),
    "all": ({"misfire": "all"}, 30),
    "queue": ({"overlap": "queue"}, 1),
    "allow": ({"overlap": "allow"}, 1),
}


@pytest.mark.parametrize("first", ["sweep", "planner", "edit"])
@pytest.mark.parametrize("name", DOWN)
async def test_what_was_planned_before_a_downtime_and_what_was_not_are_judged_as_one(
    database, conn, name, first
):
    policy, left = DOWN[name]
    start = now_ms()
    policy = {"misfire_grace_seconds": 5, **policy}
    of = await store(database, definition(trigger=every(10, start), **policy), start)
    await tick(database, start)  # a window's worth of instants
    now = start + 300_000 + 1
    if first == "sweep":
        await sweep(database, now)
    elif first == "edit":
        async with database.engine.begin() as c:
            _, planned = await planner.locked(c, of.service_id, of.id)
            await edits.replan(c, of, of, planned, window_ms=WINDOW, asked=now)
    await tick(database, now)
    await sweep(database, now)
    due = [at for at in await instants(conn, of) if at <= now]
    assert due == [start + n * 10_000 for n in range(31 - left, 31)]
    gaps = await conn.fetch("SELECT count, gap_from, gap_to FROM history")
    assert [(g["count"], ms(g["gap_from"]), ms(g["gap_to"])) for g in gaps] == (
        [(30 - left, start + 10_000, start + (30 - left) * 10_000)] if left < 30 else []
    )
    async with database.engine.begin() as c:
        _, planned = await planner.locked(c, of.service_id, of.id)
    assert planned.runs == 30 + len(await instants(conn, of)) - left


@pytest.mark.parametrize("first", ["sweep", "planner", "edit"])
@pytest.mark.parametrize("down", [50, 300], ids=["planned", "and not planned"])
async def test_the_last_that_no_calendar_excludes_is_made_up_for(database, conn, down, first):
    start = now_ms()
    now, clear = start + down * 1000 + 1, start + 20_000
    closed = Rules(events=(Event(clear // 1000 + 5, clear // 1000 + 86_400),))
    await conn.execute(
        "INSERT INTO calendar (id, service_id, name, version, definition, created_at, updated_at)"
        " VALUES (gen_random_uuid(), $1, 'closed', 1, $2, now(), now())",
        ALICE,
        msgspec.json.encode(closed).decode(),
    )
    of = definition(trigger=every(10, start), misfire_grace_seconds=5)
    of = msgspec.structs.replace(of, bounds=Bounds(calendars=("closed",)))
    await store(database, of, start)
    await tick(database, start)
    if first == "sweep":
        await sweep(database, now)
    elif first == "edit":
        async with database.engine.begin() as c:
            before, planned = await planner.locked(c, of.service_id, of.id)
            after = msgspec.structs.replace(before, status="paused", version=2)
            await edits.replan(c, before, after, planned, window_ms=WINDOW, asked=now)
    await tick(database, now)
    await sweep(database, now)

    assert clear in await instants(conn, of)
    async with database.engine.begin() as c:
        _, planned = await planner.locked(c, of.service_id, of.id)
    rows = await conn.fetchval(
        "SELECT (SELECT count(*) FROM run) + (SELECT sum(count) FROM history)"
    )
    assert planned.runs == rows


async def test_what_falls_due_behind_a_long_run_is_overlapped_and_was_not_missed(database, conn):
    now = now_ms()
    of = await store(database, definition(misfire_grace_seconds=5), now)
    await enqueue(database, *(planning.new_run(of, now - age * 10_000) for age in (5, 4, 3)))
    head = "UPDATE run SET {} WHERE scheduled_for = (SELECT min(scheduled_for) FROM run)"
    for under_way in ("claimed_by = gen_random_uuid()", "claimed_by = NULL, attempts_n = 1"):
        await conn.execute(head.format(under_way))
        assert await sweep(database, now) == 0
    await conn.execute(head.format("attempts_n = 0"))
    assert await sweep(database, now) == 2


async def test_an_edit_of_other_things_leaves_a_backlog_as_it_is(database, conn):
    start = now_ms()
    of = await store(database, definition(trigger=every(1, start), misfire="all"), start)
    now = start + 8 * HOUR
    async with database.engine.begin() as c:
        _, planned = await planner.locked(c, of.service_id, of.id)
        named = msgspec.structs.replace(of, name="another", version=of.version + 1)
        await edits.replan(c, of, named, planned, window_ms=WINDOW, asked=now)
        _, after = await planner.locked(c, of.service_id, of.id)
    assert after == planned
    assert await conn.fetchval("SELECT count(*) FROM history") == 0
    rows = await conn.fetch("SELECT version, count(*) FROM run GROUP BY version")
    assert [tuple(row) for row in rows] == [(named.version, 60)]


async def test_a_queue_whose_head_is_under_way_waits_for_it_and_was_not_missed(database, conn):
    now = now_ms()
    of = await store(database, definition(overlap="queue", misfire="skip"), now)
    await enqueue(database, *(planning.new_run(of, now - age * MINUTE) for age in (5, 4, 3)))
    head = (
        "UPDATE run SET claimed_by = {} WHERE scheduled_for = (SELECT min(scheduled_for) FROM run)"
    )
    await conn.execute(head.format("gen_random_uuid()"))
    assert await sweep(database, now, first=True) == 0
    await conn.execute(head.format("NULL"))
    assert await sweep(database, now) == 0
    assert await sweep(database, now, first=True) == 3


async def test_what_was_planned_and_then_not_claimed_is_judged_by_its_own_rule(
    database, conn, monkeypatch
):
    monkeypatch.setattr(Sweep, "PIECE", 3)
    now = now_ms()
    tasks = {
        name: definition(name, every(MINUTE // 1000, 0), service=ALICE, **policy)
        for name, policy in {
            "latest": {},
            "skip": {"misfire": "skip"},
            "all": {"misfire": "all"},
            "patient": {"misfire": "skip", "misfire_grace_seconds": 3600},
        }.items()
    }
    for of in tasks.values():
        await store(database, msgspec.structs.replace(of, trigger=None), now)
        await enqueue(
            database, *(planning.new_run(of, now - age * MINUTE) for age in range(10, 1, -1))
        )
    assert await sweep(database, now) == 8 + 9
    left = {name: len(await instants(conn, of)) for name, of in tasks.items()}
    assert left == {"latest": 1, "skip": 0, "all": 9, "patient": 9}
    assert await instants(conn, tasks["latest"]) == [now - 2 * MINUTE]
    total = await conn.fetchval("SELECT sum(count) FROM history WHERE reason = 'misfire'")
    assert total == 17
    assert await sweep(database, now) == 0


async def test_the_sweep_cuts_a_queue_at_a_hundred(database, conn):
    now = now_ms()
    of = await store(database, definition(overlap="queue", misfire="all"), now)
    await enqueue(database, *(planning.new_run(of, now - MINUTE - n) for n in range(130)))
    assert await sweep(database, now) == 30
    assert await instants(conn, of) == [now - MINUTE - n for n in range(129, 29, -1)]


@pytest.mark.parametrize("policy", ['{"misfire_grace_seconds": 1e300}', "[]", '{"misfire": 3}'])
async def test_a_damaged_policy_does_not_stop_the_sweep(database, conn, policy):
    now = now_ms()
    for name in ("bad", "good"):
        of = await store(database, definition(name, misfire="skip"), now)
        await enqueue(database, planning.new_run(of, now - HOUR))
    await conn.execute("UPDATE task SET policy = $1::text::jsonb WHERE id = 'bad'", policy)
    assert await sweep(database, now) == 1


async def test_the_sweep_leaves_runs_that_are_claimed_waiting_or_by_hand(database, conn):
    now = now_ms()
    of = await store(database, definition(misfire="skip", overlap="allow"), now)
    runs = [planning.new_run(of, now - HOUR - n) for n in range(3)]
    runs[2].kind = "manual"
    await enqueue(database, *runs)
    await conn.execute("UPDATE run SET claimed_by = $1 WHERE id = $2", ME, runs[0].id)
    await conn.execute("UPDATE run SET attempts_n = 1 WHERE id = $1", runs[1].id)
    assert await sweep(database, now) == 0
    async with database.engine.begin() as c:
        assert len(await queue.adopt(c, ME)) == 1
