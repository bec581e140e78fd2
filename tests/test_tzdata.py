"""Time zones that change: the package's hold, and tasks are planned anew, each once."""

import asyncio
import struct
import subprocess
import sys
import zoneinfo
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

import asyncpg
import msgspec
import pytest
import structlog
from hypothesis import given, strategies

from conftest import eventually
from scheduler import config, planner, planning, resealing
from scheduler.actions.http import Http
from scheduler.clock import Clock
from scheduler.db import Database, ms, utc
from scheduler.definition import Definition
from scheduler.outlook import Standing
from scheduler.retiming import Retiming, stands
from scheduler.runs import verify
from scheduler.triggers import Bounds, Cron, zones
from test_dispatcher import stored
from test_queue import ALICE, definition, now_ms

BERLIN, TOKYO = "Europe/Berlin", "Asia/Tokyo"
WINDOW = 60_000
NEWER = "2999a"


def zone_file(offset: int) -> bytes:
    """A zone that always was so many seconds east of UTC (RFC 9636, version 1)."""
    counts = struct.pack(">6l", 0, 0, 0, 0, 1, 4)
    return b"TZif" + bytes(16) + counts + struct.pack(">lbb", offset, 0, 0) + b"ODD\0"


Move = Callable[[str, int], None]


@pytest.fixture
def move(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Move]:
    """Put a zone elsewhere, in this process, as a newer tzdata would."""
    before = zoneinfo.TZPATH

    def fresh(*path: str) -> None:
        zoneinfo.reset_tzpath(to=path)
        ZoneInfo.clear_cache()
        zones._block.cache_clear()

    def moved(zone: str, offset: int) -> None:
        (tmp_path / zone).parent.mkdir(exist_ok=True)
        (tmp_path / zone).write_bytes(zone_file(offset))
        fresh(str(tmp_path), *before)
        monkeypatch.setattr(zones, "VERSION", NEWER)

    yield moved
    fresh(*before)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    made = Database(database_url, config.Database())
    yield made
    await made.close()


class Told(list[Any]):
    """The keys of the tasks that were planned anew."""

    def __call__(self, key: object, _earliest: int | None) -> None:
        self.append(key)


async def retiming(
    database: Database, told: Any = None, piece: int = 50, others: Any = tuple
) -> Retiming:
    clock = Clock()
    async with database.auto.connect() as conn:
        await clock.sample(conn)
    return Retiming(database, clock, WINDOW, Told() if told is None else told, others, piece)


def offset_of_berlin() -> int:
    return zones.stretch_at(BERLIN, now_ms() // 1000).offset


def cron(name: str, zone: str, expression: str = "*/4 * * * * *", **more: Any) -> Definition:
    made = definition(name, Cron(expression, zone), misfire="all", **more)
    return msgspec.structs.replace(made, bounds=Bounds(max_runs=1000))


async def rows(conn: asyncpg.Connection, name: str) -> tuple[int, list[int], int]:
    """A task's version, its queued instants in ms, and how many were made."""
    version = await conn.fetchval("SELECT version FROM task WHERE id = $1", name)
    queued = await conn.fetch("SELECT scheduled_for FROM run WHERE task_id = $1 ORDER BY 1", name)
    made = await conn.fetchval(
        "SELECT planned_runs FROM task_plan JOIN task USING (key) WHERE id = $1", name
    )
    return version, [ms(row[0]) for row in queued], made


# Whose zones --------------------------------------------------------------------------------------


def test_the_packages_zones_win_over_the_machines(tmp_path: Path):
    (tmp_path / "Europe").mkdir()
    (tmp_path / "Europe" / "Berlin").write_bytes(zone_file(12_345))
    look = f"from scheduler.triggers import zones; print(zones.stretch_at({BERLIN!r}, 0).offset)"
    said = subprocess.run(
        [sys.executable, "-c", look],
        env={"PYTHONTZPATH": str(tmp_path), "PYTHONPATH": ":".join(sys.path)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert said.stdout == "3600\n"


def test_the_version_is_the_one_of_iana():
    assert zones.VERSION > "2020a"
    assert zones.stretch_at(BERLIN, 1_767_225_600).offset == 3600


# Planned anew -------------------------------------------------------------------------------------


async def test_a_queued_run_moves_with_its_zone_and_none_is_lost_or_doubled(
    run_app, replica, receiver, conn, move
):
    async with run_app(WORKER_COUNT="5") as app, app.client("alice") as alice:
        task = {"url": receiver.url, "cron": "*/2 * * * * *", "timezone": BERLIN}
        for name, zone in (("moves", BERLIN), ("stays", TOKYO), ("utc", "UTC")):
            body = {**task, "id": name, "name": name, "timezone": zone}
            assert (await alice.post("/tasks", json=body)).status_code == 201
        updated = (await alice.get("/tasks/moves")).json()["updated_at"]

        def fired() -> None:
            assert any(r.header("x-scheduler-task") == "moves" for r in receiver.requests)

        await eventually(fired, 10)
        move(BERLIN, offset_of_berlin() + 1)
        engine = await replica()

        def retimed() -> None:
            assert engine.retiming.done

        await eventually(retimed)
        since = now_ms()

        async def fired_twice() -> None:
            ended = await conn.fetch(
                "SELECT scheduled_for FROM history WHERE task_id = 'moves' AND scheduled_for > $1",
                utc(since),
            )
            assert len(ended) >= 2
            assert {ms(row[0]) % 2000 for row in ended} == {1000}

        await eventually(fired_twice, 15)
        _, queued, _ = await rows(conn, "moves")
        assert {at % 2000 for at in queued} == {1000}
        for name in ("stays", "utc"):
            version, queued, _ = await rows(conn, name)
            assert version == 1 and {at % 2000 for at in queued} == {0}
        assert (await rows(conn, "moves"))[0] == 2
        assert (await alice.get("/tasks/moves")).json()["updated_at"] == updated
        keys = [r.header("idempotency-key") for r in receiver.requests]
        assert len(keys) == len(set(keys))
        found = await verified(app.database, app.ids["alice"])
        assert (found.missing, found.doubled) == ([], [])
        assert found.checked > 20


async def verified(database: Database, service: Any) -> verify.Verified:
    """What verify finds, with the zones of this process."""
    job = verify.Job(
        url="", database=config.Database(), service_id=service, since=0, until=now_ms() + WINDOW,
        kept=0,
    )  # fmt: skip
    async with database.api.connect() as conn:
        return await verify.check(conn, job)


async def test_verify_judges_no_zone_before_all_is_planned_with_it(database, conn, move):
    await stored(database, cron("moves", BERLIN), cron("utc", "UTC"))
    await (await retiming(database)).step()
    await conn.execute(
        "UPDATE task SET created_at = planned_until - interval '1 minute', "
        "updated_at = planned_until - interval '1 minute' FROM task_plan p WHERE p.key = task.key"
    )
    await conn.execute("UPDATE installation SET tzdata_at = tzdata_at - interval '10 seconds'")
    both = await verified(database, ALICE)
    assert both.checked == 30 and both.missing == []
    move(BERLIN, offset_of_berlin() + 2)
    assert (await verified(database, ALICE)).checked == 15
    await (await retiming(database)).step()
    after = await verified(database, ALICE)
    assert after.checked > 20 and (after.missing, after.doubled) == ([], [])


async def test_of_two_replicas_at_once_each_task_is_planned_anew_once_and_counts_as_before(
    database, conn, move
):
    names = [f"t{n}" for n in range(12)]
    await stored(database, *[cron(name, BERLIN) for name in names], cron("utc", "UTC"))
    first = await retiming(database)
    await first.step()
    assert first.done and (await rows(conn, "t0"))[0] == 1
    move(BERLIN, offset_of_berlin() + 2)
    told = Told()
    both = [await retiming(database, told, piece=2) for _ in range(2)]
    while not all(one.done for one in both):
        await asyncio.gather(*(one.step() for one in both))
    after = now_ms()
    assert len(told) == len(set(told)) == 12
    for name in names:
        version, queued, made = await rows(conn, name)
        assert version == 2
        assert {at % 4000 for at in queued if at > after} == {2000}
        assert made == len(queued) >= 15
    zoned = await conn.fetchrow("SELECT tzdata, tzdata_next, tzdata_after FROM installation")
    assert tuple(zoned) == (NEWER, None, None)


async def test_what_a_replica_with_older_zones_planned_since_is_planned_anew_when_it_is_gone(
    database, conn, move
):
    """As in an upgrade of one replica after the other."""
    await stored(database, *[cron(f"t{n}", BERLIN, "0 12 * * *") for n in range(3)])
    await (await retiming(database)).step()
    move(BERLIN, offset_of_berlin() + 2)
    older, told = [uuid4(), uuid4()], Told()
    walk = await retiming(database, told, others=lambda: older)
    await walk.step()
    assert walk.done and len(told) == 3
    by_new = "SELECT next_plan_at FROM task_plan JOIN task USING (key) WHERE id = 't1'"
    right = await conn.fetchval(by_new)
    since = await conn.fetchval("SELECT tzdata_at FROM installation")
    await conn.execute(
        "UPDATE task_plan SET next_plan_at = next_plan_at - interval '2 seconds' "
        "WHERE key = (SELECT key FROM task WHERE id = 't1')"
    )
    await walk.step()
    older.pop()
    await walk.step()
    assert len(told) == 3 and await conn.fetchval(by_new) < right
    older.pop()
    await walk.step()
    assert walk.done and len(told) == 4
    assert await conn.fetchval(by_new) == right
    assert await conn.fetchval("SELECT tzdata_at FROM installation") > since
    await walk.step()
    assert len(told) == 4


async def test_cut_in_the_midst_it_goes_on_where_it_was_and_does_nothing_twice(
    database, conn, move
):
    await stored(database, *[cron(f"t{n}", BERLIN) for n in range(7)])
    await (await retiming(database)).step()
    move(BERLIN, offset_of_berlin() + 2)
    told = Told()

    def cut(key: object, earliest: int | None) -> None:
        told(key, earliest)
        if len(told) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await (await retiming(database, cut, piece=3)).step()
    at = await conn.fetchrow("SELECT tzdata, tzdata_next, tzdata_after FROM installation")
    assert at["tzdata"] < NEWER
    assert (at["tzdata_next"], at["tzdata_after"]) == (NEWER, told[2])
    rest = Told()
    await (await retiming(database, rest, piece=3)).step()
    assert len(rest) == 2 and not set(rest) & set(told)
    assert {(await rows(conn, f"t{n}"))[0] for n in range(7)} == {2}


async def test_what_is_sealed_while_a_task_is_planned_anew_stays_sealed(
    database, conn, move, monkeypatch
):
    """The task's row is written whole; sealing does not wait for who plans."""
    of = cron("t", BERLIN)
    action = Http(url="http://127.0.0.1:9/", header={"Authorization": "planted"})
    await stored(database, msgspec.structs.replace(of, action=action))
    await (await retiming(database)).step()
    move(BERLIN, offset_of_berlin() + 2)
    database.vault.unlock(bytes(32))
    lock = planner.locked

    async def locked(*args: Any) -> Any:
        found = await lock(*args)
        async with database.auto.connect() as other:
            sealer = resealing.sealer(database.vault)
            assert (await resealing.piece(other, ALICE, resealing.START, sealer)).changed == 1
        return found

    monkeypatch.setattr(planner, "locked", locked)
    await (await retiming(database)).step()
    assert (await rows(conn, "t"))[0] == 2
    header = await conn.fetchval("SELECT action ->> 'header' FROM task")
    assert "sealed" in header and "planted" not in header


async def test_older_zones_than_those_of_the_database_change_nothing_and_are_told(
    database, conn, monkeypatch
):
    await stored(database, cron("t", BERLIN))
    await conn.execute("UPDATE installation SET tzdata = $1", NEWER)
    told = Told()
    with structlog.testing.capture_logs() as logged:
        older = await retiming(database, told)
        await older.step()
    assert older.done and told == []
    assert [line["log_level"] for line in logged] == ["warning"]
    assert logged[0]["planned"] == NEWER
    assert await conn.fetchval("SELECT tzdata FROM installation") == NEWER


async def test_an_instant_that_the_zone_has_moved_into_the_past_is_made_up_for(
    database, conn, move
):
    """It was to come in half an hour, and by the new zone was due half an hour ago."""
    now = now_ms()
    at = (now // 1000 + 1800 + offset_of_berlin()) % 86_400
    daily = f"{at % 60} {at // 60 % 60} {at // 3600} * * *"
    await stored(database, msgspec.structs.replace(cron("t", BERLIN, daily), bounds=Bounds()))
    await conn.execute("UPDATE task_plan SET planned_until = planned_until - interval '2 hours'")
    move(BERLIN, offset_of_berlin() + 3600)
    await (await retiming(database)).step()
    _, queued, made = await rows(conn, "t")
    assert len(queued) == made == 1
    assert abs(now - 1_800_000 - queued[0]) < 1000
    (due,) = await conn.fetchrow("SELECT next_plan_at FROM task_plan")
    assert ms(due) - queued[0] == 86_400_000


# What stands -------------------------------------------------------------------------------------

EXPRESSIONS = ("*/4 * * * * *", "* * * * *", "0 9 * * *", "30 2 * * 0", "0 0 1 1 *")


@given(
    expression=strategies.sampled_from(EXPRESSIONS),
    zone=strategies.sampled_from([BERLIN, TOKYO, "Australia/Lord_Howe", "UTC"]),
    start=strategies.integers(1_600_000_000_000, 2_000_000_000_000),
    later=strategies.integers(0, 20_000),
    most=strategies.none() | strategies.integers(1, 20),
    status=strategies.sampled_from(["active", "paused", "disabled"]),
)
def test_what_the_planner_made_stands(expression, zone, start, later, most, status):
    of = definition("t", Cron(expression, zone), status=status)
    of = msgspec.structs.replace(of, bounds=Bounds(max_runs=most))
    first = planning.first_plan(of, start, window_ms=WINDOW, at_once=False)
    runs = {run.id for run in first.runs if run.at > start + later}
    next_at = first.row["next_plan_at"]
    plan = Standing(first.planned, None if next_at is None else ms(next_at))
    assert stands(of, plan, runs, start + later, WINDOW)
    if runs:
        assert not stands(of, plan, set(list(runs)[1:]), start + later, WINDOW)
    if plan.next and status == "active":
        assert not stands(of, Standing(plan.planned, plan.next + 1000), runs, start, WINDOW)
