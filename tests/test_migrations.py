"""The schema, up and down, and the tables as the code declares them."""

import asyncio
import re
from typing import Any

import asyncpg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy.ext.asyncio import create_async_engine

from conftest import RunApp, running
from scheduler import (
    audit,
    db,
    exclusions,
    history,
    installation,
    logstore,
    migrate,
    planner,
    queue,
    replicas,
    run,
    services,
    state,
    tally,
    task,
    tokens,
    undo,
    versions,
)
from scheduler.dashboard import sessions
from scheduler.dashboard.admin import admin_sessions
from scheduler.errors import StartupError
from scheduler.processes import model as processes
from scheduler.specs import model as specs
from scheduler.specs import responses

OWNERS = (
    audit,
    admin_sessions,
    exclusions,
    history,
    installation,
    logstore,
    planner,
    processes,
    queue,
    replicas,
    responses,
    run,
    services,
    sessions,
    specs,
    state,
    tally,
    task,
    tokens,
    undo,
    versions,
)
"""Importing them declares the tables."""

COLUMNS = """
SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
WHERE c.relkind IN ('r', 'p') AND c.relnamespace = 'public'::regnamespace
  AND a.attnum > 0 AND NOT a.attisdropped ORDER BY 1, 2
"""
CONSTRAINTS = """
SELECT c.relname, k.conname, pg_get_constraintdef(k.oid) FROM pg_constraint k
JOIN pg_class c ON c.oid = k.conrelid WHERE c.relnamespace = 'public'::regnamespace
  AND k.contype <> 'n' ORDER BY 1, 2
"""
INDEXES = """
SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1, 2
"""
EVERYTHING = """
SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace
UNION ALL SELECT typname FROM pg_type WHERE typnamespace = 'public'::regnamespace
UNION ALL SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace
"""
OUR_OWN = re.compile(r"alembic_version|history_\d{8}")
"""Alembic's table, and the partitions of history, which are made as time goes on."""


async def catalog(url: str) -> list[tuple[Any, ...]]:
    """Columns, constraints and indexes of a database, as text."""
    conn = await asyncpg.connect(url)
    rows = [tuple(r) for q in (COLUMNS, CONSTRAINTS, INDEXES) for r in await conn.fetch(q)]
    await conn.close()
    return [row for row in rows if not OUR_OWN.match(row[0])]


async def everything(url: str) -> set[str]:
    conn = await asyncpg.connect(url)
    found = {row[0] for row in await conn.fetch(EVERYTHING)}
    await conn.close()
    return found


def engine(url: str) -> Any:
    return create_async_engine(
        "postgresql+asyncpg://", async_creator=lambda: asyncpg.connect(db.plain(url))
    )


async def test_the_schema_goes_up_and_down_and_up_again(empty_url):
    before = await migrate.status(empty_url)
    assert (before.current, before.is_current) == (None, False)

    top = await migrate.up(empty_url)
    assert top.is_current and top.current == top.head
    first = await catalog(empty_url)
    assert first

    bottom = await migrate.down(empty_url, "base")
    assert (bottom.current, bottom.is_current) == (None, False)
    assert {name for name in await everything(empty_url) if "alembic_version" not in name} == set()

    assert (await migrate.up(empty_url)).is_current
    assert await catalog(empty_url) == first
    assert (await migrate.up(empty_url)).is_current  # nothing to do


async def test_down_takes_the_partitions_along(run_app: RunApp, database_url):
    async with run_app():
        pass
    assert any("history_2" in name for name in await everything(database_url))
    await migrate.down(database_url, "base")
    assert not any("history" in name for name in await everything(database_url))


async def test_the_tables_in_the_code_and_in_the_database_agree(empty_url):
    await migrate.up(empty_url)
    migrated = await catalog(empty_url)
    await migrate.down(empty_url, "base")
    declared = engine(empty_url)
    async with declared.begin() as conn:
        await conn.run_sync(db.metadata.create_all)
    await declared.dispose()

    assert await catalog(empty_url) == migrated


async def test_alembic_finds_nothing_to_do(database_url):
    def ours(_thing: Any, name: str | None, kind: str, *_: Any) -> bool:
        return kind != "table" or not OUR_OWN.match(name or "")

    def compare(connection: Any) -> list[Any]:
        context = MigrationContext.configure(connection, opts={"include_object": ours})
        return compare_metadata(context, db.metadata)

    connected = engine(database_url)
    async with connected.connect() as conn:
        assert await conn.run_sync(compare) == []
    await connected.dispose()


async def test_replicas_migrate_one_at_a_time(empty_url):
    found = await asyncio.gather(*(migrate.up(empty_url) for _ in range(4)))
    assert all(status.is_current for status in found)


async def test_a_newer_database_is_refused_with_a_sentence(database_url, conn):
    await conn.execute("UPDATE alembic_version SET version_num = 'from-the-future'")
    await conn.execute("UPDATE installation SET runs_with = 'from-the-future'")
    before = await catalog(database_url)

    for change in (migrate.up(database_url), migrate.down(database_url, "base")):
        with pytest.raises(StartupError, match="from-the-future"):
            await change

    assert await catalog(database_url) == before


async def test_the_start_migrates_by_default(empty_url, tmp_path):
    async with running(empty_url, tmp_path, DATABASE_MIGRATE=None) as app:
        assert (await migrate.status(empty_url)).is_current
        async with app.client("alice") as alice:
            assert (await alice.get("/ready")).status_code == 200


async def test_a_start_that_may_not_migrate_says_what_to_do(empty_url, tmp_path):
    with pytest.raises(StartupError, match="scheduler migrate up"):
        async with running(empty_url, tmp_path, DATABASE_MIGRATE="false"):
            pass
    assert await everything(empty_url) == set()
