"""Behind a pooler in transaction mode, as PgBouncer is: nothing may rest on a connection.

Against a stand-in that always hands out another backend, and against PgBouncer itself where one is
installed.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import asyncpg
import pytest

from conftest import Line, eventually, running
from pooler import Pooler
from scheduler import config, db, migrate, partitions, pgcluster, reaching
from scheduler.db import Database
from scheduler.embedded import EmbeddedPostgres
from scheduler.errors import StartupError

POOLED = {"DATABASE_STATEMENT_CACHE": "0", "DATABASE_MIGRATE": None}


NOBODY = 65534


@contextlib.asynccontextmanager
async def real(postgres: EmbeddedPostgres, folder: Path) -> AsyncIterator[Callable[[str], str]]:
    """PgBouncer on a socket in `folder`; it refuses to be root, and only root may enter ours."""
    (folder / "in").mkdir()
    line = Line(postgres.url, folder / "in")
    await line.mend()
    (folder / "in" / pgcluster.SOCKET).chmod(0o777)
    ini = folder / "pgbouncer.ini"
    ini.write_text(
        f"[databases]\n* = user=postgres host={folder / 'in'} port=5432\n[pgbouncer]\n"
        f"listen_port = 5432\nunix_socket_dir = {folder}\nauth_type = any\n"
        "pool_mode = transaction\ndefault_pool_size = 3\nserver_round_robin = 1\n"
    )
    folder.chmod(0o777)
    program = shutil.which("pgbouncer")
    assert program is not None
    more: dict[str, Any] = {} if os.geteuid() else {"user": NOBODY, "group": NOBODY}
    process = subprocess.Popen(
        [program, str(ini)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **more
    )
    try:
        await eventually(lambda: there_is(folder / pgcluster.SOCKET))
        yield lambda direct: through_socket(direct, folder)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)
        await line.cut()


def through_socket(direct: str, folder: Path) -> str:
    parts = urlsplit(direct)
    return f"postgresql://{parts.netloc}{parts.path}?host={quote(str(folder))}&port=5432"


def there_is(path: Path) -> None:
    assert path.exists()


@pytest.fixture(params=["stand-in", "pgbouncer"])
async def through(
    request: pytest.FixtureRequest, postgres: EmbeddedPostgres
) -> AsyncIterator[Callable[[str], str]]:
    """From a database's own address to the one through the pooler."""
    with tempfile.TemporaryDirectory(prefix="pool") as name:
        folder = Path(name)
        if request.param == "pgbouncer":
            if not shutil.which("pgbouncer"):
                pytest.skip("no PgBouncer here")
            async with real(postgres, folder) as url:
                yield url
            return
        pooler = Pooler(postgres.url, folder)
        await pooler.start()
        try:
            yield pooler.url
        finally:
            await pooler.stop()


async def test_the_whole_program_works_behind_a_pooler(
    through, empty_url, tmp_path, receiver
) -> None:
    """From an empty database: migrate, run, retry, by hand, two replicas, one that hears hints."""
    url = through(empty_url)
    (tmp_path / "two").mkdir()
    async with (
        running(url, tmp_path, **POOLED) as one,
        running(url, tmp_path / "two", **POOLED, DATABASE_LISTEN_URL=empty_url) as two,
        one.client("alice") as alice,
    ):
        await eventually(lambda: both_know(one, two), within=10)
        assert two.engine.signals.listening.is_set()
        assert not one.engine.signals.listening.is_set()
        task = {"name": "a", "url": f"{receiver.url}/a", "frequency": 1, "unit": "second", "overlap": "allow",
                "retry_backoff": {"initial_seconds": 0}}  # fmt: skip
        made = await alice.post("/tasks", json=task)
        assert made.status_code == 201, made.text
        ran = await alice.post(f"/tasks/{made.json()['id']}/execute")
        assert ran.status_code == 200, ran.text
        receiver.then(503)
        bulk = [{"name": f"b{n}", "url": f"{receiver.url}/b", "scheduled_at": "2020-01-01T00:00:00Z"}
                for n in range(60)]  # fmt: skip
        assert (await alice.post("/tasks/bulk", json=bulk)).status_code == 201
        await eventually(lambda: called(receiver, "/b", 60), within=15)
        await eventually(lambda: called(receiver, "/a", 2), within=15)

        async def all_settled() -> None:
            runs = (await alice.get("/runs?state=succeeded&limit=100")).json()["runs"]
            assert len(runs) >= 62
            assert max(run["attempt"] for run in runs) == 2

        await eventually(all_settled, within=10)
        assert (await alice.get("/ready")).status_code == 200
        assert (await alice.delete(f"/tasks/{made.json()['id']}")).status_code == 204


def both_know(one: Any, two: Any) -> None:
    assert not one.engine.membership.alone and not two.engine.membership.alone


def called(receiver: Any, path: str, times: int) -> None:
    assert sum(request.path == path for request in receiver.requests) >= times


async def test_nothing_is_left_on_a_backend(postgres, database_url, tmp_path, receiver) -> None:
    """No prepared statement, lock, listener or setting: the next client would have it."""
    with tempfile.TemporaryDirectory(prefix="pool") as name:
        pooler = Pooler(postgres.url, Path(name))
        await pooler.start()
        url = pooler.url(database_url)
        async with running(url, tmp_path, **POOLED) as app, app.client("alice") as alice:
            made = (await alice.post("/tasks", json={"name": "a", "url": receiver.url})).json()
            assert (await alice.post(f"/tasks/{made['id']}/execute")).status_code == 200
            app.engine.pruning.set()
            await alice.get("/tasks?q=a&status=active")
            app.engine.planning.set()
            before = pooler.transactions
            await eventually(lambda: enough(pooler, before + 30))
        left = await pooler.left_behind(urlsplit(database_url).path[1:])
        await pooler.stop()
    assert left == []
    assert pooler.refused == []


def enough(pooler: Pooler, transactions: int) -> None:
    assert pooler.transactions > transactions


async def test_two_replicas_migrate_at_once_behind_a_pooler(through, empty_url) -> None:
    found = await asyncio.gather(*(migrate.up(through(empty_url)) for _ in range(3)))
    assert all(status.is_current for status in found)
    assert (await migrate.down(through(empty_url), "base")).current is None


async def test_an_old_week_is_dropped_behind_a_pooler(through, database_url, conn) -> None:
    await conn.execute("CREATE TABLE history_20200106 (LIKE history INCLUDING ALL)")
    await conn.execute(
        "ALTER TABLE history ATTACH PARTITION history_20200106 "
        "FOR VALUES FROM ('2020-01-06Z') TO ('2020-01-13Z')"
    )
    settings = config.load(environ={"DATABASE_STATEMENT_CACHE": "0"})
    database = Database(through(database_url), settings.database)
    now = await conn.fetchval("SELECT now()")
    pruned = await partitions.prune(database, now, settings.history)
    await database.close()
    assert pruned.dropped == ["history_20200106"] and pruned.left == []


async def test_a_migration_is_not_cut_by_the_roles_timeout(through, empty_url) -> None:
    """Behind a pooler the engine's timeout is the role's, and a migration may take longer."""
    name = urlsplit(empty_url).path[1:]
    direct = await asyncpg.connect(empty_url)
    await direct.execute(f"ALTER DATABASE {name} SET statement_timeout = '100ms'")
    await direct.close()

    def slow(conn: Any) -> None:
        conn.exec_driver_sql("SELECT pg_sleep(0.2)")

    assert (await migrate._locked(through(empty_url), slow)).current is None


async def test_a_start_that_knows_nothing_of_the_pooler_says_what_to_set(through, empty_url):
    with pytest.raises(StartupError, match="DATABASE_STATEMENT_CACHE=0") as refused:
        await reaching.reachable(through(empty_url))
    assert "DATABASE_LISTEN_URL" in str(refused.value)


def test_a_pooler_is_asked_for_nothing_it_would_refuse():
    plain = db.session(config.Database(), "engine")
    pooled = db.session(config.Database(statement_cache=0), "engine")
    assert set(pooled) == {"application_name"}
    assert {"statement_timeout", "plan_cache_mode", "timezone"} < set(plain)
