"""Whose database this is, whether it is paused, and the releases before and after this one."""

import asyncio
import contextlib
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from click.testing import CliRunner
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from conftest import NUMBERS, App, RunApp, eventually, running, url_of
from harness import Scheduler, until
from scheduler import db, installation, migrate, opening
from scheduler.cli import cli
from scheduler.config import Settings
from scheduler.db import Database
from scheduler.errors import StartupError

COPIED = "this database was copied from another installation"


@pytest.fixture
def command(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run a command against this test's database, beside the loop."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", database_url)

    async def run(*words: str) -> str:
        done = await asyncio.to_thread(CliRunner().invoke, cli, words)
        assert done.exit_code == 0, done.output
        return done.output

    return run


@contextlib.asynccontextmanager
async def opened(url: str) -> AsyncIterator[Database]:
    database = Database(url, Settings().database)
    yield database
    await database.close()


# The pause ---------------------------------------------------------------------------------------


async def counts(conn: asyncpg.Connection) -> tuple[int, int]:
    """How many runs are claimed, and how many are not."""
    row = await conn.fetchrow(
        "SELECT count(claimed_by), count(*) FILTER (WHERE claimed_by IS NULL) FROM run"
    )
    return row[0], row[1]


async def test_a_pause_reaches_every_replica_and_nothing_is_claimed_or_sent(
    app, alice, replica, conn, receiver, command
):
    """And at its end what was missed is judged as after a stop: one run, and one gap."""
    other = await replica()
    task = {"id": "t", "name": "x", "url": receiver.url, "frequency": 1, "unit": "second"}
    await alice.post("/tasks", json={**task, "misfire_grace_seconds": 0.5})
    await alice.post("/tasks", json={"id": "hand", "name": "x", "url": receiver.url})
    ended = (await alice.post("/tasks/hand/execute")).json()["run_id"]
    await eventually(lambda: receiver.requests[1])

    assert "Paused: the shop moves" in await command("pause", "-r", "the shop moves")
    assert "already" in await command("pause")
    await eventually(lambda: both_say(app, other, "the shop moves"), within=3)

    async def released() -> None:
        assert (await counts(conn))[0] == 0

    await eventually(released)
    sent = len(receiver.requests)
    ready = await alice.get("/ready")
    assert (ready.status_code, ready.json()["paused"]) == (200, "the shop moves")
    for path in ("/tasks/hand/execute", f"/runs/{ended}/replay"):
        answer = await alice.post(path)
        assert answer.status_code == 409
        assert "the shop moves" in answer.text and "scheduler resume" in answer.text
    later = await alice.post("/tasks/hand/schedule", json={"scheduled_at": "2020-01-01T00:00:00Z"})
    assert later.status_code == 200  # it waits
    assert (await alice.patch("/tasks/hand", json={"name": "y"})).status_code == 200

    async def three_are_overdue() -> None:
        overdue = "SELECT count(*) FROM run WHERE due < now() AND task_id = 't'"
        assert await conn.fetchval(overdue) >= 3

    await eventually(three_are_overdue, within=6)
    assert len(receiver.requests) == sent and (await counts(conn))[0] == 0

    assert "paused: the shop moves" in await command("resume")
    assert "not paused" in await command("resume")
    await eventually(lambda: arrived(receiver, "hand", 2), within=4)

    async def judged() -> None:
        gaps = await conn.fetch("SELECT count FROM history WHERE reason = 'misfire'")
        assert sum(gap[0] for gap in gaps) >= 2

    await eventually(judged)
    assert len(receiver.requests) <= sent + 6  # no storm
    await eventually(lambda: complete(alice), within=8)


def both_say(app: App, other: Any, reason: str | None) -> None:
    assert (app.engine.paused, other.paused) == (reason, reason)


def arrived(receiver: Any, task: str, number: int) -> None:
    assert sum(r.header("X-Scheduler-Task") == task for r in receiver.requests) >= number


async def complete(alice: Any) -> None:
    found = (await alice.get("/runs/verify")).json()
    assert found["checked"] >= 3 and not found["missing"] and not found["doubled"], found


async def test_a_call_under_way_ends_and_is_settled_during_a_pause(
    app, alice, conn, receiver, command
):
    release = asyncio.Event()
    receiver.then(after=release)
    await alice.post("/tasks", json={"id": "t", "name": "x", "url": receiver.url})
    run = (await alice.post("/tasks/t/execute?async=true")).json()["id"]
    await eventually(lambda: receiver.requests[0])
    await command("pause")
    await eventually(lambda: says(app, "someone paused it"), within=3)
    release.set()

    async def succeeded() -> None:
        assert (await alice.get(f"/runs/{run}")).json()["state"] == "succeeded"

    await eventually(succeeded)


def says(app: App, reason: str | None) -> None:
    assert app.engine.paused == reason


# A copy ------------------------------------------------------------------------------------------


@pytest.fixture
async def copy(database_url: str, maintenance: Any, postgres: Any) -> AsyncIterator[Any]:
    """Copy this test's database, as it is, into another of the same Postgres."""
    name = f"copy_{next(NUMBERS)}"

    async def make() -> str:
        source = database_url.split("?", maxsplit=1)[0].rpartition("/")[2]
        await maintenance.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", source
        )
        await maintenance.execute(f"CREATE DATABASE {name} TEMPLATE {source} STRATEGY file_copy")
        return url_of(postgres, name)

    yield make
    await maintenance.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


async def test_a_copied_database_starts_paused_and_sends_nothing_until_it_is_resumed(
    run_app: RunApp, copy, receiver, conn, tmp_path, capsys
):
    holder = uuid4()
    async with run_app() as app, app.client("alice") as alice:
        task = {"id": "t", "name": "x", "url": receiver.url, "frequency": 1, "unit": "second"}
        await alice.post("/tasks", json=task)
        await alice.post("/tasks", json={"id": "held", "name": "x", "url": receiver.url})
        await eventually(lambda: receiver.requests[0])
        place = await conn.fetchval("SELECT place FROM installation")
        assert place and app.engine.paused is None
    # What a replica of the other installation was at, when the copy was made.
    await conn.execute(
        "INSERT INTO replica (id, beat, beat_at, role, host, pid, version, started_at) "
        "VALUES ($1, 7, now(), 'serve', 'h', 1, '0.2.0', now())",
        holder,
    )
    await conn.execute(
        "INSERT INTO run (id, bucket, service_id, task_key, task_id, kind, version, overlap, "
        "priority, scheduled_for, due, attempts, attempts_n, claimed_by, created_at) "
        "SELECT gen_random_uuid(), bucket, service_id, key, id, 'manual', version, 'skip', 0, "
        "now(), now(), '[]', 0, $1, now() FROM task WHERE id = 'held'",
        holder,
    )
    url = await copy()
    sent = len(receiver.requests)
    capsys.readouterr()

    async with running(url, tmp_path) as app, app.client("alice") as alice:
        assert COPIED in capsys.readouterr().out
        assert app.engine.paused and place in app.engine.paused
        ready = await alice.get("/ready")
        assert ready.status_code == 200 and COPIED in ready.json()["paused"]
        assert (await alice.get("/tasks")).status_code == 200
        assert (await alice.post("/tasks/t/execute")).status_code == 409
        there = await asyncpg.connect(url)
        claimed = "SELECT claimed_by FROM run WHERE task_id = 'held'"
        app.engine.membership._read_at = float("-inf")
        for watched in app.engine.membership.others.values():
            watched.since -= 20  # it stood still for long
        await app.engine._beat()
        assert await there.fetchval(claimed) == holder
        assert len(receiver.requests) == sent
    async with running(url, tmp_path) as app:  # it stays so
        assert app.engine.paused and COPIED in app.engine.paused
        async with app.database.api.begin() as c:
            await installation.resume(c, await installation.place(app.database))
        await eventually(lambda: says(app, None), within=3)
        await eventually(lambda: arrived(receiver, "t", sent + 1), within=4)
    async with running(url, tmp_path) as app:
        assert app.engine.paused is None
    await there.close()


async def test_a_copy_that_takes_the_place_of_the_database_under_a_replica_is_paused_before_a_claim(
    run_app: RunApp, copy, receiver, maintenance, database_url
):
    """As where a dump of another installation is restored while replicas wait for the database."""
    async with run_app() as app, app.client("alice") as alice:
        task = {"id": "t", "name": "x", "url": receiver.url, "frequency": 1, "unit": "second"}
        await alice.post("/tasks", json=task)
        await eventually(lambda: receiver.requests[0])
        theirs = (await copy()).split("?", maxsplit=1)[0].rpartition("/")[2]
        ours = database_url.split("?", maxsplit=1)[0].rpartition("/")[2]
        await maintenance.execute(f"DROP DATABASE {ours} WITH (FORCE)")
        await eventually(lambda: holds_nothing(app))  # what was claimed before may be sent
        with pytest.raises(DBAPIError) as gone:
            await installation.place(app.database)
        assert db.is_away(gone.value)
        assert (await alice.get("/tasks")).status_code == 503
        sent = len(receiver.requests)
        await maintenance.execute(f"ALTER DATABASE {theirs} RENAME TO {ours}")
        there = await asyncpg.connect(database_url)

        await eventually(lambda: says_copied(app), within=10)
        overdue = "SELECT count(*) FROM run WHERE due < now()"
        await eventually(lambda: at_least(there, overdue, 3), within=6)
        assert len(receiver.requests) == sent
        async with app.database.api.begin() as c:
            await installation.resume(c, await installation.place(app.database))
        await eventually(lambda: arrived(receiver, "t", sent + 1), within=6)
        assert app.engine.paused is None
        await there.close()


async def test_whoever_loses_the_database_it_is_asked_again_whose_it_is(app, conn, monkeypatch):
    asked: list[Database] = []
    place = installation.place

    async def noted(database: Database) -> str | None:
        asked.append(database)
        return await place(database)

    monkeypatch.setattr(installation, "place", noted)
    await conn.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE application_name = 'scheduler engine' AND datname = current_database()"
    )
    async with app.database.auto.connect() as c:
        with contextlib.suppress(DBAPIError):  # some of the pool's are new already, perhaps
            await c.execute(text("SELECT 1"))
    await eventually(lambda: asked[0], within=5)


def holds_nothing(app: App) -> None:
    assert app.engine.dispatcher.held == 0


def says_copied(app: App) -> None:
    assert app.engine.paused and COPIED in app.engine.paused


async def at_least(conn: asyncpg.Connection, count: str, wanted: int) -> None:
    assert await conn.fetchval(count) >= wanted


async def test_an_installation_that_was_moved_and_resumed_runs_where_others_knew_its_old_place(
    app, conn, command
):
    app.database.place = "7/7"  # as of a start before the move
    await command("pause")
    await eventually(lambda: says(app, "someone paused it"), within=3)
    await command("resume")
    await eventually(lambda: says(app, None), within=3)
    await app.engine.caretaker.look()
    assert app.engine.paused is None
    assert app.database.place == await conn.fetchval("SELECT place FROM installation")


async def test_where_postgres_does_not_say_who_it_is_nothing_is_a_copy(database_url, conn):
    async with opened(database_url) as database:
        assert await opening.settle_in(database, paused=False) is None
        role = f"nobody_{next(NUMBERS)}"
        await conn.execute(f"CREATE ROLE {role} LOGIN")
        await conn.execute("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM public")
        try:
            async with opened(database_url.replace("//postgres@", f"//{role}@")) as less:
                assert await installation.place(less) is None
        finally:
            await conn.execute("GRANT EXECUTE ON FUNCTION pg_control_system() TO public")
            await conn.execute(f"DROP ROLE {role}")
    async with opened(database_url) as database:
        assert await installation.place(database) is not None
        await conn.execute("CREATE TABLE pg_dist_partition ()")  # as on each node of Citus
        assert await installation.place(database) is None
    here = "7/1"
    known = installation.Installation(here, None, None, None)
    assert installation.copied(known, None) is None
    assert installation.copied(known, here) is None
    assert installation.copied(installation.Installation(None, None, None, None), here) is None
    assert installation.copied(known, "7/2")


async def test_a_start_with_the_flag_pauses_every_replica_and_stays_so(database_url):
    async with opened(database_url) as database:
        assert await opening.settle_in(database, paused=True) == opening.FROM_FLAG
        assert await opening.settle_in(database, paused=False) == opening.FROM_FLAG
        async with database.api.begin() as conn:
            await installation.resume(conn, await installation.place(database))
        assert await opening.settle_in(database, paused=False) is None


# The release after this one ----------------------------------------------------------------------

NEWER = '''"""From the next release."""

from alembic import op

revision = "0999"
down_revision = "{head}"


def upgrade() -> None:
    op.execute("ALTER TABLE task ADD COLUMN newer text")
    op.execute("UPDATE installation SET runs_with = '{runs_with}'")


def downgrade() -> None:
    op.execute("ALTER TABLE task DROP COLUMN newer")
'''


@pytest.fixture
def newer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database_url: str) -> Any:
    """Migrate as the next release does."""
    ours = migrate.scripts()

    async def up(runs_with: str) -> None:
        head = (await migrate.status(database_url)).head
        theirs = tmp_path / "migrations"
        shutil.copytree(ours, theirs)
        script = NEWER.format(head=head, runs_with=runs_with)
        (theirs / "versions/0999_newer.py").write_text(script)
        with monkeypatch.context() as patch:
            patch.setattr(migrate, "scripts", lambda: theirs)
            assert (await migrate.up(database_url)).current == "0999"

    return up


async def test_a_newer_release_may_migrate_beside_this_one_which_goes_on_and_starts_again(
    app, alice, newer, run_app: RunApp, receiver, database_url, command
):
    await newer("0003")
    assert (await alice.get("/ready")).status_code == 200
    await alice.post("/tasks", json={"id": "t", "name": "x", "url": receiver.url})
    assert (await alice.post("/tasks/t/execute")).json()["status"] == "success"
    for migrates in ("true", "false"):
        async with run_app(DATABASE_MIGRATE=migrates) as again, again.client("alice") as client:
            assert (await client.get("/ready")).status_code == 200
    found = await migrate.status(database_url)
    assert (found.current, found.fits, found.is_current) == ("0999", True, False)
    assert "still runs with it" in await command("migrate", "status")
    assert "t" in await command("services", "list")
    with pytest.raises(StartupError, match="0999"):
        await migrate.down(database_url, "0002")


async def test_a_newer_release_that_breaks_with_this_one_is_refused(app, alice, newer, run_app):
    await newer("0999")
    assert (await alice.get("/ready")).status_code == 503
    for migrates in ("true", "false"):
        with pytest.raises(StartupError, match=r"0999.*start the newer version"):
            async with run_app(DATABASE_MIGRATE=migrates):
                pass


# Real processes ----------------------------------------------------------------------------------


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Scheduler]:
    credentials = str(tmp_path / "data/credentials.json")
    words = ("serve", "--paused", "--credentials-file", credentials)
    process = Scheduler(tmp_path / "home", data=tmp_path / "data", words=words).ready()
    yield process
    process.close()


def test_a_server_with_its_own_postgres_starts_paused_and_is_resumed(served, tmp_path):
    def scheduler(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "scheduler", *words], cwd=tmp_path, capture_output=True,
            text=True, timeout=30, env={"DATA_DIR": str(tmp_path / "data")}, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    said = served._out.read_text()
    assert "A key that seals stored secrets was made" in said
    assert "PAUSED: started with --paused" in said and served.logged("paused")
    assert served.do("GET", "/ready")["paused"] == "started with --paused"
    assert "paused: started with --paused" in scheduler("resume")
    until(lambda: "paused" not in served.do("GET", "/ready"), 4)
    assert "the key fits" in scheduler("secrets", "status")
