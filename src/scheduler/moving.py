"""Moving an embedded database: to a backup, from a backup, and to a newer Postgres.

What is made, is made beside its place and gets its name when it is whole.
"""

import asyncio
import shutil
from collections.abc import Iterable, Iterator
from contextlib import AsyncExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import msgspec
from sqlalchemy import text

from scheduler import (
    __version__,
    backups,
    config,
    disk,
    installation,
    keys,
    migrate,
    pgbinaries,
    pgcopies,
)
from scheduler.backups import Backup, Facts, Manifest, Moved
from scheduler.db import Conn, Database, rfc3339
from scheduler.embedded import EmbeddedPostgres, one_sentence
from scheduler.errors import StartupError
from scheduler.pgcluster import UPGRADED, Cluster, Progress, sync

SLACK = 64 << 20
"""Bytes that a cluster takes besides what is in it."""
LOOK_EVERY = 64 << 20
"""Bytes after which the room on the disk is looked at again."""
LEFT_OVER = {"lock", "start.log"}
"""What a scheduler leaves in an otherwise empty directory."""
SIZE = text("""
SELECT pg_database_size(current_database()) AS bytes,
       current_setting('server_version_num') AS number
""")


class Room(msgspec.Struct, frozen=True):
    """How much of the database's disk a backup leaves free: what the scheduler needs to run."""

    data: Path
    least: int


# Backup -------------------------------------------------------------------------------------------


@contextmanager
def running(base: Path, progress: Progress) -> Iterator[tuple[str, Cluster]]:
    """Join the server that runs on a data directory, or start it for the block; yield its URL.

    Raises StartupError, also where there is no database.
    """
    url = EmbeddedPostgres.join(base)
    postgres = EmbeddedPostgres(base)
    if url is not None:
        yield url, postgres.cluster
        return
    if not postgres.cluster.home.exists():
        raise StartupError(f"There is no database in {base}: is DATA_DIR right?")
    postgres.lock()
    try:
        with one_sentence(base):
            postgres.cluster.recover()
            if postgres.cluster.major is None:
                raise StartupError(f"There is no database in {base}: is DATA_DIR right?")
        postgres.start(progress)
        yield postgres.url, postgres.cluster
    finally:
        postgres.stop()


def back_up(
    base: Path,
    file: IO[bytes],
    *,
    key: bytes | None = None,
    room: Room | None = None,
    progress: Progress = lambda _: None,
    moved: Moved = lambda _: None,
) -> Manifest:
    """Write a backup of a data directory's database to a file, whether it is served or not.

    Raises StartupError.
    """
    at = rfc3339(int(datetime.now(UTC).timestamp() * 1000)) or ""
    with running(base, progress) as (url, cluster), _snapshot(url) as (facts, snapshot):
        pieces = pgcopies.dumped(cluster, cluster.use(), snapshot=snapshot)
        kept = pieces if room is None else keeping(room, pieces)
        return backups.write(file, facts, at, kept, key, moved)


@contextmanager
def _snapshot(url: str) -> Iterator[tuple[Facts, str]]:
    """Read what a database says of itself, and keep it as it is seen now for the block.

    The loop runs at both ends alone: Ctrl-C in between is the block's, and heard at once.
    """
    database = Database(url, config.Database())
    stack = AsyncExitStack()

    async def begin() -> tuple[Facts, str]:
        stack.push_async_callback(database.close)
        connection = await stack.enter_async_context(database.api.connect())
        conn = await connection.execution_options(isolation_level="REPEATABLE READ")
        facts = await _facts(conn)
        return facts, str((await conn.exec_driver_sql("SELECT pg_export_snapshot()")).scalar_one())

    with asyncio.Runner() as runner:
        try:
            yield runner.run(begin())
        finally:
            runner.run(stack.aclose())


async def _facts(conn: Conn) -> Facts:
    size = (await conn.execute(SIZE)).one()
    status = await conn.run_sync(migrate.status_on)
    whose = await installation.about(conn)
    return Facts(
        scheduler=__version__,
        revision=status.current,
        postgres=str(int(size.number) // 10_000),
        database_bytes=size.bytes,
        installation=whose.id if whose else None,
        tzdata=whose.tzdata if whose else None,
        secret_fingerprint=whose.secret_fingerprint if whose else None,
    )


def keeping(room: Room, pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the pieces while the disk of the database keeps its room. Raises StartupError."""
    since = LOOK_EVERY
    for piece in pieces:
        since += len(piece)
        if since >= LOOK_EVERY:
            since = 0
            if (left := disk.free(room.data)) < room.least + LOOK_EVERY:
                raise StartupError(
                    f"The backup was given up: {disk.words(left)} are left on the disk of"
                    f" {room.data}, and with less than {disk.words(room.least)} the scheduler"
                    " stops. Write it to another disk."
                )
        yield piece


# Restore ------------------------------------------------------------------------------------------


def restore(
    base: Path,
    backup: Backup,
    *,
    progress: Progress = lambda _: None,
    moved: Moved = lambda _: None,
) -> None:
    """Make a data directory of a backup. Raises StartupError; then there is no database in it."""
    check_known(backup)
    postgres = EmbeddedPostgres(base)
    with one_sentence(base):
        check_empty(base, backup)
        postgres.lock()
        try:
            check_empty(base, backup)  # nobody else can fill it now
            _check_room(base, backup.manifest.facts.database_bytes)
            cluster = postgres.cluster
            programs = cluster.use()
            progress(f"Making a database in {cluster.home}")
            with cluster.drafted() as draft:
                with pgcopies.served(draft, **pgcopies.QUICK):
                    pgcopies.fill(draft, programs, backup.dump(moved))
                draft.write_through()
                if backup.key is not None:
                    _put_key(base, backup.key)
                draft.move_to(cluster.data)
        finally:
            postgres.stop()


def check_known(backup: Backup) -> None:
    """Raise StartupError for a backup that a newer program, or a newer Postgres, made."""
    facts = backup.manifest.facts
    made = f"{backup.path} was made by scheduler {facts.scheduler}"
    todo = f"This one is {__version__}: restore it with that version, or a newer one."
    if not facts.postgres.isdecimal() or int(facts.postgres) > int(pgbinaries.MAJOR):
        raise StartupError(f"{made} on Postgres {facts.postgres}. {todo}")
    if facts.revision is not None and facts.revision not in migrate.known():
        raise StartupError(f"{made}, whose schema is at {facts.revision}. {todo}")


def check_empty(base: Path, backup: Backup) -> None:
    """Raise StartupError where a data directory has something in it, and OSError."""
    if not base.exists():
        return
    for path in sorted(base.iterdir()):
        if path.name == "lost+found" or (path.name == "postgres" and _is_bare(path)):
            continue
        if path.name == keys.FILE and backup.key in (None, path.read_bytes()):
            continue
        raise StartupError(
            f"{base} is not empty ({path.name} is in it), and nothing is restored over what is"
            " there: name an empty directory with DATA_DIR=... in front of the command, or move"
            " this one away."
        )


def _is_bare(home: Path) -> bool:
    """Say whether nothing was ever made here, or was not made whole."""
    names = {path.name for path in home.iterdir()}
    return all(name in LEFT_OVER or name.startswith("new-") for name in names)


def _check_room(base: Path, needed: int) -> None:
    needed += SLACK
    if (left := disk.free(base)) < needed:
        raise StartupError(
            f"The disk of {base} has {disk.words(left)} free, and the database takes"
            f" {disk.words(needed)}: make room, or name a directory on another disk with DATA_DIR."
        )


def _put_key(base: Path, key: bytes) -> None:
    path = base / keys.FILE
    if not path.exists():
        with backups.whole(path, force=False) as file:
            file.write(key)


# Upgrade ------------------------------------------------------------------------------------------


def upgrade(
    base: Path,
    *,
    delete_old: bool = False,
    progress: Progress = lambda _: None,
    moved: Moved = lambda _: None,
) -> tuple[str, Path | None] | None:
    """Move the database of a data directory to this version's Postgres, by a copy.

    Return the major version it had, and where the old one is kept; None where there is nothing
    to do. Raises StartupError; then the old one is as it was.
    """
    postgres = EmbeddedPostgres(base)
    cluster = postgres.cluster
    with one_sentence(base):
        if not cluster.home.exists():
            raise StartupError(f"There is no database in {base}: is DATA_DIR right?")
        postgres.lock()
        try:
            cluster.recover()
            old = cluster.major
            if old is None:
                raise StartupError(f"There is no database in {base}: is DATA_DIR right?")
            if old == pgbinaries.MAJOR:
                return None
            kept = cluster.home / f"data-{old}"
            if kept.exists():
                raise StartupError(
                    f"{kept} is there already, from an upgrade before: move it away, or delete it."
                )
            postgres.end()  # of a scheduler that was killed
            _check_room(base, _size(cluster.data))
            _copied(cluster, old, progress, moved)
            _swapped(cluster, kept)
            if delete_old:
                progress(f"Deleting {kept}")
                shutil.rmtree(kept)
            return old, None if delete_old else kept
        finally:
            postgres.stop()


def _copied(cluster: Cluster, old: str, progress: Progress, moved: Moved) -> None:
    """Make the new cluster, whole, under a name that `recover` knows."""
    shutil.rmtree(cluster.home / UPGRADED, ignore_errors=True)  # of an upgrade that was cut
    programs = cluster.use()
    progress(f"Copying the database from Postgres {old} to {pgbinaries.MAJOR}")
    with cluster.drafted() as draft:
        cluster.use(old)
        with (
            pgcopies.served(cluster, autovacuum="off"),
            pgcopies.served(draft, **pgcopies.QUICK),
        ):
            pieces = pgcopies.dumped(cluster, programs, compress=False)
            pgcopies.fill(draft, programs, _told(pieces, moved))
            if _is_at_home(cluster, programs):
                pgcopies.ask(draft, programs, installation.MOVE)
        draft.write_through()
        draft.move_to(cluster.home / UPGRADED)


def _is_at_home(cluster: Cluster, programs: pgbinaries.Programs) -> bool:
    """Say whether a database knows its place, and it is this one."""
    there = "SELECT to_regclass('installation') IS NOT NULL"
    if pgcopies.ask(cluster, programs, there) != "t":
        return False
    return pgcopies.ask(cluster, programs, installation.AT_HOME) == "t"


def _swapped(cluster: Cluster, kept: Path) -> None:
    """Put the new cluster in its place; a crash between the two steps is ended by `recover`."""
    cluster.data.rename(kept)
    sync(cluster.home)
    cluster.recover()


def _told(pieces: Iterable[bytes], moved: Moved) -> Iterator[bytes]:
    for piece in pieces:
        yield piece
        moved(len(piece))


def _size(data: Path) -> int:
    """Return the bytes of a cluster's files, but for its log and what it writes ahead."""
    apart = {data / "log", data / "pg_wal"}
    files = (path for path in data.rglob("*") if not apart & {path, *path.parents})
    return sum(path.lstat().st_size for path in files if not path.is_dir())
