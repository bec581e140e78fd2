"""An embedded database of an older Postgres: refused, and moved to this version's by a copy."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from conftest import quick_folder
from scheduler import disk, migrate, moving, pgcopies
from scheduler.embedded import EmbeddedPostgres
from scheduler.errors import StartupError
from scheduler.pgcluster import DATABASE, SUPERUSER, UPGRADED, Cluster, place_of
from test_backup import contents, refused, run
from test_embedded import cleared, query

OLD = "16"
ROWS = """
INSERT INTO service (id, name, allow_commands, created_at, updated_at)
SELECT gen_random_uuid(), 'service ' || n, false, now(), now() FROM generate_series(1, 500) AS n
"""
AT_HOME = """
UPDATE installation SET place = c.system_identifier || '/' || d.oid
FROM pg_control_system() AS c, pg_database AS d WHERE d.datname = current_database()
"""


def made_by_an_older_scheduler(base: Path) -> None:
    """Make a cluster with the programs of Postgres 16; its own locale provider is not known there."""
    cluster = Cluster(base / "postgres")
    cluster.data.mkdir(parents=True, mode=0o700)
    if os.geteuid() == 0:
        shutil.chown(cluster.data, "postgres", "postgres")
    cluster.use(OLD)
    at = f"--pgdata={place_of(cluster.data)}"
    cluster._run(
        "initdb",
        f"--username={SUPERUSER}",
        "--auth=trust",
        "--locale=C",
        "-E",
        "UTF8",
        "--no-sync",
        at,
    )
    alone = ("--single", "-D", place_of(cluster.data), "-c", "exit_on_error=on")
    cluster._run("postgres", *alone, "template1", say=f"CREATE DATABASE {DATABASE};\n")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with quick_folder(tmp_path_factory.mktemp("upgrade")) as folder:
        yield folder
        cleared(folder)


@pytest.fixture(scope="module")
def made(place: Path) -> tuple[Path, tuple[dict[str, str], list[str]]]:
    """A data directory of Postgres 16 with our schema and some rows, and what is in it."""
    base = place / "made"
    made_by_an_older_scheduler(base)
    cluster = Cluster(base / "postgres")
    cluster.use(OLD)
    with pgcopies.served(cluster):
        url = EmbeddedPostgres(base).url
        with ThreadPoolExecutor(1) as thread:
            thread.submit(lambda: asyncio.run(migrate.up(url))).result()
        query(url, ROWS)
        query(url, AT_HOME)
        assert query(url, "SHOW server_version").startswith(f"{OLD}.")
        return base, contents(url)


@pytest.fixture
def base(place: Path, made: tuple[Path, object]) -> Iterator[Path]:
    """A copy of it."""
    copy = place / "copy"
    subprocess.run(["cp", "-a", made[0], copy], check=True)
    yield copy
    cleared(copy)
    shutil.rmtree(copy)


def major(base: Path, folder: str = "data") -> str | None:
    return Cluster(base / "postgres", folder).major


def there(base: Path) -> list[str]:
    return sorted(path.name for path in (base / "postgres").iterdir())


def holds_what_it_held(base: Path, made: tuple[Path, tuple[dict[str, str], list[str]]]) -> None:
    postgres = EmbeddedPostgres(base)
    postgres.start()
    try:
        rows, schema = contents(postgres.url)
        before, schema_before = made[1]
        changed = {table for table in rows if rows[table] != before.get(table)}
        assert changed == {"installation"}  # it has no place yet, and is no copy
        assert schema == schema_before
        assert query(postgres.url, "SELECT place IS NULL FROM installation") is True
        assert query(postgres.url, "SHOW server_version").startswith("18.")
    finally:
        postgres.stop()


def test_the_start_on_an_older_major_names_the_command(base: Path):
    with pytest.raises(StartupError, match=r"of Postgres 16, .* run `scheduler upgrade`"):
        EmbeddedPostgres(base).start()
    assert major(base) == OLD


def test_an_upgrade_keeps_everything_and_the_old_directory(base: Path, made):
    done = run(base, "upgrade")
    assert done.exit_code == 0, done.output
    assert "data-16" in done.stderr
    assert major(base) == "18" and major(base, "data-16") == OLD
    assert there(base) == ["data", "data-16", "lock", "start.log"]
    holds_what_it_held(base, made)
    assert "already" in run(base, "upgrade").stderr


def test_a_running_scheduler_and_an_old_copy_in_the_way_are_refused(base: Path):
    running = EmbeddedPostgres(base)
    running.lock()
    assert "in use by another scheduler" in refused(base, "upgrade")
    running.stop()
    (base / "postgres" / "data-16").mkdir()
    assert "move it away" in refused(base, "upgrade")
    assert major(base) == OLD


def test_a_disk_without_room_for_the_copy_is_refused_first(base: Path, monkeypatch):
    monkeypatch.setattr(disk, "free", lambda _: 50 << 20)
    assert "has 50 MiB free" in refused(base, "upgrade")
    assert major(base) == OLD and "data-16" not in there(base)


KILLED = """
import os, signal, sys
from pathlib import Path
from scheduler import moving
moving.upgrade(Path(sys.argv[1]), moved=lambda _: os.kill(os.getpid(), signal.SIGKILL))
"""


def test_killed_while_it_copies_the_old_one_is_whole_and_the_next_upgrade_works(base: Path, made):
    killed = subprocess.run([sys.executable, "-c", KILLED, str(base)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert major(base) == OLD
    assert run(base, "upgrade").exit_code == 0
    holds_what_it_held(base, made)


class Cut(BaseException):
    """The end of a process."""


@pytest.mark.parametrize(
    ("owner", "name", "left"), [(moving, "_swapped", OLD), (Cluster, "recover", None)]
)
def test_cut_at_the_swap_either_the_old_or_the_new_is_there(
    base: Path, made, owner, name, left, monkeypatch
):
    calls = []

    def cut(*_: object) -> None:
        calls.append(name)
        if name == "_swapped" or len(calls) == 2:
            raise Cut

    with monkeypatch.context() as patch, pytest.raises(Cut):
        patch.setattr(owner, name, cut)
        moving.upgrade(base)
    assert major(base) == left
    assert UPGRADED in there(base)
    if left is None:
        holds_what_it_held(base, made)
        assert major(base, "data-16") == OLD
    else:
        assert run(base, "upgrade", "--delete-old").exit_code == 0
        assert there(base) == ["data", "lock", "start.log"]
    assert major(base) == "18" and UPGRADED not in there(base)
