"""Every list's statement on 100,000 tasks and 200,000 runs: an index behind it, and few rows read."""

import contextlib
import hashlib
import json
import re
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import asyncpg
import pytest
from sqlalchemy import bindparam, event, text
from sqlalchemy.dialects.postgresql import JSONB

from conftest import url_of
from scheduler import (
    audit,
    backfills,
    changelog,
    config,
    dependents,
    exclusions,
    executions,
    history,
    ledger,
    lines,
    moment,
    resealing,
    state,
    task,
    tasklist,
    taskpage,
    taskrows,
    usage,
    versions,
    watch,
)
from scheduler.changelog import Wanted
from scheduler.db import Conn, Database, utc
from scheduler.definition import Definition
from scheduler.ledger import Query
from scheduler.run import Line
from scheduler.schedules import events
from scheduler.service import Service
from scheduler.tasklist import LOOK, Filter
from scheduler.tasks import listing
from test_queue import ALICE, BOB, now_ms

pytestmark = pytest.mark.alone

TASKS = 100_000
MOST = 45_000
"""Rows that a statement may touch: two walks of 20,000."""

FILL = f"""
INSERT INTO task (key, bucket, service_id, id, version, name, description, tags, status, trigger,
                  action, policy, created_at, updated_at, bounds)
SELECT md5('t' || n)::uuid, 1, '{ALICE}', 't' || n, 1,
       'task ' || n || CASE WHEN n % 1000 = 0 THEN ' seldom' ELSE '' END, NULL,
       CASE WHEN n % 1000 = 0 THEN '["rare","often"]' WHEN n % 2 = 0 THEN '["often"]'
            ELSE '[]' END::jsonb,
       CASE WHEN n % 500 = 0 THEN 'paused' WHEN n % 3 = 0 THEN 'disabled' ELSE 'active' END,
       CASE WHEN n % 800 = 0 THEN '{{"kind":"once","at":0}}' WHEN n % 4 = 0 THEN NULL
            ELSE '{{"kind":"interval","frequency":1,"unit":"day","anchor":0}}' END::jsonb,
       CASE n % 100 WHEN 1 THEN jsonb_build_object('kind', 'operation', 'endpoint', '/a', 'service',
                                                   CASE n % 1000 WHEN 1 THEN 'rare' ELSE 'often' END)
            ELSE '{{"kind":"http","url":"http://example.com/path"}}' END, '{{}}',
       now() - n * interval '1 ms', now(),
       CASE WHEN n % 1000 = 0 THEN '{{"calendars":["often","rare"]}}' END::jsonb
FROM generate_series(1, {TASKS}) AS n;
INSERT INTO calendar (id, service_id, name, version, definition, created_at, updated_at)
SELECT md5('c' || n)::uuid, '{ALICE}', CASE n WHEN 1 THEN 'often' ELSE 'c' || n END, 1, '{{}}',
       now(), now() FROM generate_series(1, 2000) AS n;
INSERT INTO task (key, bucket, service_id, id, version, name, description, tags, status, trigger,
                  action, policy, created_at, updated_at)
SELECT md5('b' || n)::uuid, 1, '{BOB}', 'b' || n, 1, 'nothing like it', NULL, '[]', 'active', NULL,
       '{{"kind":"http","url":"http://127.0.0.1/"}}', '{{}}', now() - n * interval '1 ms', now()
FROM generate_series(1, {LOOK + 1}) AS n;
INSERT INTO task_state
SELECT key, bucket, service_id, CASE WHEN right(id, 3) = '007' THEN 'failed' ELSE 'pending' END,
       NULL, NULL, 0, created_at FROM task;
INSERT INTO task_version
SELECT md5('t' || n % 100)::uuid, 1, '{ALICE}', n, 'once', '{{}}', now() - n * interval '1 s'
FROM generate_series(1, {TASKS}) AS n;
INSERT INTO history (id, bucket, service_id, task_key, task_id, kind, version, scheduled_for, state,
                     reason, attempts, attempts_n, created_at, started_at, finished_at, truncated,
                     count)
SELECT gen_random_uuid(), 1, '{ALICE}',
       md5('t' || CASE WHEN n % 4 = 0 THEN 1 ELSE n % {TASKS} END)::uuid, 't', CASE WHEN n % 900 = 0
       THEN 'manual' ELSE 'task' END, 1, now() - n * interval '10 ms',
       CASE WHEN n % 700 = 0 THEN 'failed' WHEN n % 5 = 0 THEN 'skipped' ELSE 'succeeded' END,
       CASE WHEN n % 5 = 0 OR n % 700 = 0 THEN 'overlap' END, '[]', 1, now(), now(),
       now() - n * interval '1 ms', false, 1
FROM generate_series(1, 2 * {TASKS}) AS n;
INSERT INTO run (id, bucket, service_id, task_key, task_id, kind, version, overlap, priority,
                 scheduled_for, due, attempts, attempts_n, created_at)
SELECT gen_random_uuid(), 1, '{ALICE}', md5('t' || n)::uuid, 't', 'task', 1, 'skip', 0,
       now() + n * interval '1 ms', now() + n * interval '1 ms'
       + CASE WHEN n % 100 = 0 THEN interval '1 minute' ELSE interval '0' END, '[]', 0, now()
FROM generate_series(1, 20000) AS n;
INSERT INTO audit (id, bucket, service_id, kind, ref, at, verb, way, changes)
SELECT ('00000000-' || lpad(to_hex(n / 65536), 4, '0') || '-7001-8000-'
        || lpad(to_hex(n), 12, '0'))::uuid, 1, '{ALICE}',
       CASE WHEN n = 1 THEN 'service' WHEN n < 9 THEN 'run' ELSE 'task' END, 't' || n % 100, now(),
       'edited', CASE WHEN n % 9000 = 0 THEN 'dashboard' ELSE 'api' END, '[]'
FROM generate_series(1, {TASKS}) AS n;
"""


@pytest.fixture(scope="module")
async def filled(postgres: Any, maintenance: Any, template: str) -> AsyncIterator[Database]:
    await maintenance.execute(f"CREATE DATABASE plans TEMPLATE {template} STRATEGY file_copy")
    url = url_of(postgres, "plans")
    conn = await asyncpg.connect(url)
    for statement in FILL.split(";\n"):
        if statement.strip():
            await conn.execute(statement)
    await conn.execute("VACUUM ANALYZE task")
    for table in ("calendar", "history", "run", "task_state", "task_version", "audit"):
        await conn.execute(f"VACUUM ANALYZE {table}")
    await conn.close()
    database = Database(url, config.Database())
    yield database
    await database.close()
    await maintenance.execute("DROP DATABASE plans WITH (FORCE)")


@contextlib.contextmanager
def statements(database: Database) -> Iterator[list[tuple[str, Any]]]:
    """Every statement that the API's engine sends, with its parameters."""
    seen: list[tuple[str, Any]] = []

    def note(_conn: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        seen.append((statement, parameters))

    event.listen(database.api.sync_engine, "before_cursor_execute", note)
    yield seen
    event.remove(database.api.sync_engine, "before_cursor_execute", note)


def nodes(plan: Any) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", []):
        yield from nodes(below)


BIG = re.compile(r"^(task|task_state|task_version|run|history_\d+)$")


async def explained(database: Database, seen: list[tuple[str, Any]]) -> None:
    """Run statements as the API's connections do, in one transaction, and look at how."""
    async with database.api.connect() as conn:
        for statement, parameters in seen:
            if "set_config" in statement:
                await conn.exec_driver_sql(statement, parameters)
                continue
            result = await conn.exec_driver_sql(
                f"EXPLAIN (ANALYZE, FORMAT JSON, TIMING OFF) {statement}", parameters
            )
            plan = json.loads(result.scalar_one())[0]["Plan"]
            assert look(plan) <= MOST, json.dumps(plan, indent=1) + statement


def look(plan: Any) -> float:
    """Return how many rows of the large tables a plan touched, all of them by an index."""
    touched = 0.0
    for node in nodes(plan):
        if not BIG.match(node.get("Relation Name", "")):
            continue
        read = sum(node.get(f"Rows Removed by {by}", 0) for by in ("Filter", "Index Recheck"))
        read += node["Actual Rows"]
        assert node["Node Type"] != "Seq Scan" or not read, plan
        touched += read * node["Actual Loops"]
    return touched


def found(plan: Any) -> float:
    """Return how many entries of indexes a plan went through."""
    return sum(
        node["Actual Rows"] * node["Actual Loops"]
        for node in nodes(plan)
        if node["Node Type"] in ("Bitmap Index Scan", "Index Only Scan", "Index Scan")
    )


T1 = uuid.UUID(bytes=hashlib.md5(b"t1", usedforsecurity=False).digest())
NAMED = frozenset
RUNS = {
    "all": {},
    "a task": {"keys": (T1,)},
    "tasks": {"keys": (T1, *(uuid.UUID(int=n) for n in range(1000)))},
    "a task and a reason": {"keys": (T1,), "reason": "overlap"},
    "failed": {"states": NAMED({"failed"})},
    "live": {"states": NAMED({"running", "retrying"})},
    "by hand": {"kinds": NAMED({"manual"})},
    "nothing": {"reason": "nothing"},
    "gone": {"task_id": "nobody"},
    "since": {"since": 0, "states": NAMED({"succeeded"}), "kinds": NAMED({"manual", "task"})},
}


@pytest.mark.parametrize("name", RUNS)
async def test_a_list_of_runs_reads_a_bounded_part_of_an_index(filled, name):
    query = Query(service_id=ALICE, **RUNS[name])
    with statements(filled) as seen:
        async with filled.api.connect() as conn:
            page = await ledger.page(conn, query, now_ms(), after=None, count=100)
    assert page.found or page.following or name == "live"
    await explained(filled, seen)


LISTS = {
    "all": Filter(),
    "active": Filter(status="active"),
    "paused": Filter(status="paused"),
    "disabled": Filter(status="disabled"),
    "once": Filter(trigger="once"),
    "interval": Filter(trigger="interval"),
    "rare": Filter(tag="rare"),
    "often": Filter(tag="often"),
    "no such tag": Filter(tag="none"),
    "seldom": Filter(words=("seldom",)),
    "task": Filter(words=("task",)),
    "no such word": Filter(words=("word",)),
    "command": Filter(action="command"),
    "operation": Filter(action="operation"),
    "several": Filter(status="active", trigger="interval", tag="rare", words=("sel",)),
}


IN_STATE = {
    "rare": Filter(tag="rare"),
    "often": Filter(tag="often"),
    "several": Filter(status="active", trigger="interval", tag="often"),
    "task": Filter(words=("task",)),
}


@pytest.mark.parametrize("name", IN_STATE)
async def test_a_list_of_tasks_in_a_state_reads_a_bounded_part_of_an_index(
    filled, name, monkeypatch
):
    monkeypatch.setattr("test_plans.MOST", 60_000)  # each statement: as far as it is counted
    with statements(filled) as seen:
        async with filled.api.connect() as conn:
            await listing.in_state(
                conn, ALICE, IN_STATE[name], "pending", now_ms(), offset=0, count=101
            )
    await explained(filled, seen)


@pytest.mark.parametrize("name", LISTS)
async def test_a_list_of_tasks_reads_a_bounded_part_of_an_index(filled, name):
    with statements(filled) as seen:
        async with filled.api.connect() as conn:
            await tasklist.page(conn, ALICE, LISTS[name], offset=0, count=101)
    await explained(filled, seen)


ROWS: dict[str, tuple[Filter, str | None, str, int]] = {
    "all": (Filter(), None, "newest", 0),
    "deep": (Filter(), None, "newest", 15_000),
    "by name": (Filter(), None, "name", 0),
    "next": (Filter(), None, "next", 50),
    "failing": (Filter(), None, "failing", 0),
    "rare by name": (Filter(tag="rare"), None, "name", 0),
    "a word": (Filter(words=("seldom",)), None, "next", 0),
    "pending": (Filter(), "pending", "newest", 500),
    "failed and active": (Filter(status="active"), "failed", "name", 0),
    "running": (Filter(), "running", "newest", 0),
}


@pytest.mark.parametrize("name", ROWS)
async def test_a_page_of_the_dashboard_reads_a_bounded_part_of_an_index(filled, name):
    wanted, word, sort, offset = ROWS[name]
    with statements(filled) as seen:
        async with filled.api.connect() as conn:
            listed = await taskrows.page(
                conn, ALICE, wanted, word, sort, now_ms(), offset=offset, count=51
            )
            keys = [of.key for of in listed.tasks]
            facts, _ = await taskrows.facts(conn, ALICE, keys, now_ms(), uuid.UUID(int=1))
    assert len(facts) == len(keys) and (keys or word == "running")
    await explained(filled, seen)


OF_OTHERS = {
    "a word": Filter(words=("task",)),
    "a part of a word": Filter(words=("exam",)),
    "a tag": Filter(tag="often"),
}


@pytest.mark.parametrize("name", OF_OTHERS)
async def test_what_others_wrote_costs_a_list_nothing(filled, name, monkeypatch):
    monkeypatch.setattr("test_plans.look", found)
    monkeypatch.setattr("test_plans.MOST", 2 * LOOK)
    with statements(filled) as seen:
        async with filled.api.connect() as conn:
            page = await tasklist.page(conn, BOB, OF_OTHERS[name], offset=0, count=101)
            assert page.total == 0
            await tasklist.search(conn, BOB, ("task",), 100)
    await explained(filled, seen)


ODD = [
    "a, b",
    ", ",
    '", "',
    '"',
    "\\",
    "[",
    "]",
    "[]",
    '["x"]',
    "\x01",
    "é漢",
    "often, rare",
    "%",
    "x" * 100,
]


async def test_a_tag_is_found_by_its_index_whatever_is_in_it(filled):
    async with filled.api.connect() as conn:
        for first, second in zip(ODD, ODD[1:] + ODD[:1], strict=True):
            values = {"tags": [first, "often", second], "service": ALICE}
            change = text("UPDATE task SET tags = :tags WHERE id = 't5' AND service_id = :service")
            await conn.execute(change.bindparams(bindparam("tags", type_=JSONB)), values)
            for tag in ODD:
                page = await tasklist.page(conn, ALICE, Filter(tag=tag), offset=0, count=2)
                ids = [each.id for each in page.tasks]
                assert (ids, page.total) == ((["t5"], 1) if tag in (first, second) else ([], 0))


@pytest.mark.parametrize(
    ("name", "sought"),
    [
        ("über_uns 12e5 -7", ["üb", "uns", "12e", "-7", "über uns", "UNS über"]),
        ("Release v1.2.3-rc1 (beta)", ["v1.2.3", "2.3", "rc1", "(beta)", "rel bet"]),
        ("漢字 foo²bar", ["漢", "foo", "foo²b"]),
        ("!zz!", ["zz", "!zz", "zz!"]),
    ],
)
async def test_words_are_found_by_their_index_whatever_is_around_them(filled, name, sought):
    async with filled.api.connect() as conn:
        values = {"name": name, "service": ALICE}
        change = text("UPDATE task SET name = :name WHERE id = 't5' AND service_id = :service")
        await conn.execute(change, values)
        for words in sought:
            wanted = Filter(words=tasklist.words_of(words))
            page = await tasklist.page(conn, ALICE, wanted, offset=0, count=2)
            assert [each.id for each in page.tasks] == ["t5"], words


async def _task(conn: Conn) -> Definition:
    return (await task.definitions(conn, [T1]))[T1]


async def calendars_asked(conn: Conn, _what: str) -> None:
    assert len(await dependents.naming(conn, ALICE, "rare", 4)) == 4
    assert not await dependents.naming(conn, BOB, "rare", 4)
    assert len(await dependents.keeping_clear(conn, ALICE, "rare", 21)) == 21
    assert not await dependents.naming(conn, ALICE, "rar", 4)
    await exclusions.page(conn, ALICE, offset=0, most=100)
    await exclusions.held(conn, ALICE, ["often", "c7"])
    await exclusions.current(conn, {(ALICE, f"c{n}") for n in range(2, 22)})


async def schedules_asked(conn: Conn, what: str, now: int) -> None:
    if what == "schedules":
        wanted = Filter(trigger="once")
        assert (await tasklist.page(conn, ALICE, wanted, offset=0, count=11)).tasks
        assert await tasklist.total(conn, ALICE, wanted)
    elif what == "pending events":
        found, total = await events.pending(conn, await _task(conn), now, 0, offset=0, count=10)
        assert len(found) == total == 1
    else:
        found, total = await events.past(conn, await _task(conn), 0, offset=40_000, count=10)
        assert len(found) == 10 and total > 40_000


async def page_asked(conn: Conn, what: str) -> None:
    line, now = Line(T1, 1, ALICE), now_ms()
    if what == "instant":
        ids = backfills.ids_of(line, now - 1)
        await moment.seen(conn, line, ids, now - 1, now, named=True)
        return
    found = await taskpage.seen(conn, line, now, after=None, most=100)
    assert len(found.ended) == 100
    await audit.newest(conn, ALICE, "t1", 5)
    await audit.page(conn, ALICE, "t1", before=None, most=26)


async def asked(conn: Conn, what: str) -> None:
    line = Line(T1, 1, ALICE)
    now = now_ms()
    if what == "executions":
        await executions.page(conn, line, "t1", utc(now), page=0, count=10)
    elif what == "last ends":
        await history.last_ends(conn, ALICE, [T1])
    elif what == "ended ahead":
        keys = [T1, *(uuid.UUID(int=n) for n in range(1000))]
        await history.ended_ahead(conn, ALICE, keys, utc(now))
    elif what == "running":
        await lines.running(conn, ALICE, utc(now), 10_001)
    elif what == "verify":
        await task.triggered(conn, ALICE, (utc(0), uuid.UUID(int=0)), 501)
    elif what == "replaced versions":
        found = await versions.triggers(conn, ALICE, {(T1, 1, n) for n in range(1000)})
        assert len(found) == 1000
        assert await versions.find(conn, ALICE, (T1, 1, 500))
    elif what == "headers":
        step = await resealing.piece(conn, ALICE, resealing.START, lambda *_: "")
        assert step.after and not step.changed
        await resealing.piece(conn, ALICE, step.after, lambda *_: "")
    elif what == "calendars":
        await calendars_asked(conn, what)
    elif what == "calling":
        assert (
            len(await dependents.calling(conn, ALICE, "rare", (utc(0), uuid.UUID(int=0)), 1000))
            == 100
        )
    elif what in ("schedules", "pending events", "past events"):
        await schedules_asked(conn, what, now)
    elif what == "old versions":
        await versions.prune(conn, utc(now))
        await audit.prune(conn, utc(now))
    else:
        await state.page(conn, ALICE, what, [], offset=0, count=101)
        await state.count(conn, ALICE, what, 10_001)


async def looked(conn: Conn, _: str) -> None:
    now = now_ms()
    memory = watch.Memory(live={uuid.uuid4(): (0, 0, True, True) for _ in range(200)})
    memories = {ALICE: memory, BOB: watch.Memory()}
    await watch.look(conn, memories, now, now - 1000)
    await watch.late(conn, memories, now, now - 5000)
    await audit.lately(conn, [ALICE, BOB], now - 10_000, 200)


async def changes_asked(conn: Conn, _: str) -> None:
    for wanted in (Wanted(), Wanted(kinds=("run",)), Wanted(ways=("dashboard",))):
        assert await changelog.of_service(conn, ALICE, wanted, 51) is not None
    await changelog.of_admin(conn, Wanted(kinds=("service", "token")), 51)


OF_ITS_OWN = {
    "changes": changes_asked,
    "a look": looked,
    "calendars": calendars_asked,
    "page of a task": page_asked,
    "instant": page_asked,
}


@pytest.mark.parametrize(
    "what",
    [
        "executions",
        "last ends",
        "ended ahead",
        "running",
        "a look",
        "verify",
        "schedules",
        "pending events",
        "past events",
        "replaced versions",
        "page of a task",
        "changes",
        "instant",
        "old versions",
        "calendars",
        "calling",
        "headers",
        "pending",
        "failed",
        "created",
    ],
)
async def test_what_else_is_read_uses_an_index(filled, what, monkeypatch):
    monkeypatch.setattr("test_plans.MOST", 60_000)  # a total is a sum over 50,000 entries
    with statements(filled) as seen:
        async with filled.api.connect() as conn:
            await OF_ITS_OWN.get(what, asked)(conn, what)
    await explained(filled, seen)


async def test_the_runs_beside_one_are_found_by_an_index(filled):
    query = Query(service_id=ALICE, keys=(T1,), states=frozenset(ledger.END_STATES))
    async with filled.api.connect() as conn:
        (_, one), *_ = (await ledger.page(conn, query, now_ms(), after=None, count=1)).found
    assert isinstance(one, history.Finished)
    with statements(filled) as seen:
        async with filled.api.connect() as conn:
            before, _ = await history.beside(conn, ALICE, one)
    assert before is not None
    await explained(filled, seen)


async def test_what_services_use_is_counted_to_a_limit(filled):
    of = [Service(key, "s", False, utc(now_ms()), utc(now_ms())) for key in (ALICE, BOB)]
    with statements(filled) as seen:
        async with filled.api.connect() as conn:
            used = await usage.of_services(conn, of, now_ms())
            await usage.of_all(conn, now_ms())
    assert used[ALICE].tasks == usage.COUNT_MOST
    await explained(filled, seen)
