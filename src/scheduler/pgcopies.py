"""What a cluster holds, poured out of it and into another one, by pg_dump and pg_restore.

They run as the account that Postgres runs as, and talk to us through pipes: a file that is made
of what they say is ours, wherever it is.
"""

import signal
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import IO

from scheduler.errors import StartupError
from scheduler.pgbinaries import Programs
from scheduler.pgcluster import DATABASE, PORT, SUPERUSER, Cluster, last_line, place_of

PIECE = 1 << 20
POLL = 0.02
STOP = 60.0

DUMP = (
    "--format=custom",
    "--no-owner",
    "--no-privileges",
    "--no-unlogged-table-data",
    "--lock-wait-timeout=60s",  # a migration may hold the tables
)
FILL = (
    "--no-owner",
    "--no-privileges",
    "--exit-on-error",
    "--single-transaction",
)
QUICK = {
    # Until it is whole nobody needs it after a crash; it is written through before it gets its
    # place. In the transaction that makes a table, COPY then writes no WAL.
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "autovacuum": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_locks_per_transaction": "1024",  # years of weeks, each with its indexes, at once
    "logging_collector": "off",
}


@contextmanager
def served(cluster: Cluster, **settings: str) -> Iterator[None]:
    """Have a cluster's server run for the block; the caller knows that none runs on it.

    After `use`. Raises StartupError when it does not start.
    """
    child = cluster.launch(**settings)
    try:
        while not cluster.ready(child.pid):
            if child.poll() is not None:
                raise StartupError(f"Postgres did not start: {cluster.last_words()}")
            time.sleep(POLL)
        yield
    finally:
        _stop(child)


def _stop(child: "subprocess.Popen[bytes]") -> None:
    child.send_signal(signal.SIGINT)
    try:
        child.wait(STOP)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def dumped(
    cluster: Cluster, programs: Programs, *, snapshot: str | None = None, compress: bool = True
) -> Iterator[bytes]:
    """Yield the cluster's database, as pg_dump's custom format; its server runs.

    `snapshot` is one that a transaction has exported. Raises StartupError.
    """
    arguments = [*DUMP, *([f"--snapshot={snapshot}"] if snapshot else [])]
    arguments += ["--compress=gzip:4" if compress else "--compress=none"]
    with tempfile.TemporaryFile() as said:
        child = _client(cluster, programs, "pg_dump", arguments, said, stdout=subprocess.PIPE)
        out = _pipe(child.stdout)
        with _ended(child), out:
            while piece := out.read(PIECE):
                yield piece
            child.wait()
        _check(child, said, "The database could not be read")


def fill(cluster: Cluster, programs: Programs, pieces: Iterable[bytes]) -> None:
    """Fill the database of a new cluster, whose server runs, with what `dumped` yielded.

    Raises StartupError.
    """
    with tempfile.TemporaryFile() as said:
        child = _client(cluster, programs, "pg_restore", FILL, said, stdin=subprocess.PIPE)
        into = _pipe(child.stdin)
        with _ended(child):
            with suppress(BrokenPipeError):  # it has ended, and says why
                for piece in pieces:
                    into.write(piece)
            with suppress(BrokenPipeError):
                into.close()
            child.wait()
        _check(child, said, "The database could not be filled")
    ask(cluster, programs, "ANALYZE")


def ask(cluster: Cluster, programs: Programs, statement: str) -> str:
    """Return what psql answers, bare. Raises StartupError."""
    arguments = ["--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--single-transaction"]
    arguments += ["--set=ON_ERROR_STOP=1", f"--command={statement}"]
    with tempfile.TemporaryFile() as said:
        child = _client(cluster, programs, "psql", arguments, said, stdout=subprocess.PIPE)
        with _ended(child), _pipe(child.stdout) as out:
            answer = out.read()
            child.wait()
        _check(child, said, "The database could not be asked")
    return answer.decode().strip()


def _client(
    cluster: Cluster,
    programs: Programs,
    name: str,
    arguments: Iterable[str],
    said: IO[bytes],
    *,
    stdin: int = subprocess.DEVNULL,
    stdout: int = subprocess.DEVNULL,
) -> "subprocess.Popen[bytes]":
    """Start a client in the data directory: the socket there is found however long its path."""
    at = [f"--host={place_of(cluster.data)}", f"--port={PORT}", f"--username={SUPERUSER}"]
    return subprocess.Popen(
        [programs.path(name), *at, f"--dbname={DATABASE}", *arguments],
        stdin=stdin,
        stdout=stdout,
        stderr=said,
        cwd=cluster.data,
        **programs.spawned,
    )


@contextmanager
def _ended(child: "subprocess.Popen[bytes]") -> Iterator[None]:
    """See that a client does not outlive the block."""
    try:
        yield
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()


def _pipe(end: IO[bytes] | None) -> IO[bytes]:
    if end is None:
        raise RuntimeError("the client has no pipe")
    return end


def _check(child: "subprocess.Popen[bytes]", said: IO[bytes], what: str) -> None:
    if child.returncode:
        said.seek(0)
        raise StartupError(f"{what}: {last_line(said.read().decode(errors='replace'))}")
