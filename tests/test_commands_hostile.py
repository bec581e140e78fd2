"""Commands that mean harm, and processes that are killed: nothing gets out, nothing is left."""

import asyncio
import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import pytest

import scheduler
from conftest import SECRET_KEY, TOKENS, eventually
from harness import until
from scheduler import config
from scheduler.actions import command_rights
from scheduler.actions.command import Command, CommandPerformer
from scheduler.actions.outcome import Call, Outcome
from scheduler.confined import slots, supervisor
from scheduler.confined.job import LENGTH, Limits, Rules, read_result
from test_commands import (
    ROOT,
    begun,
    commands,
    ended,
    gone,
    needs_root,
    open_folder,
    place,
    run,
    switched_on,
    there,
)

pytestmark = pytest.mark.alone

__all__ = ["commands", "open_folder", "place"]

FIRST_ID = 40_000
"""Of ids that no other program here gives to its commands."""
IDS = {"COMMANDS_FIRST_ID": str(FIRST_ID)}
NUMBERS = itertools.count(os.getpid() * 1000)


def mark() -> str:
    """How long a process sleeps that is to be found again."""
    return f"{next(NUMBERS)}9.25"


def alive(marked: str) -> list[psutil.Process]:
    """The processes that were given this word."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if marked in process.cmdline():
                found.append(process)
    return found


def dead(marked: str) -> None:
    assert alive(marked) == []


def of_commands() -> list[psutil.Process]:
    """The living processes of the users whom commands here are."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if 0 <= process.uids().real - FIRST_ID < 478:
                found.append(process)
    return found


Run = Callable[..., Awaitable[Outcome | None]]


@asynccontextmanager
async def performing(place: Path, **settings: Any) -> AsyncIterator[tuple[CommandPerformer, Run]]:
    """A performer of its own, and a way to have it run a command."""
    chosen = config.Commands(
        **{"kill_seconds": 0.5, "first_id": FIRST_ID, **settings},
        enabled=True,
        same_user=not ROOT,
        directory=str(place / "runs"),
    )

    async def run(command: str, env: dict[str, str] | None = None, timeout_s: float = 20) -> Any:
        deadline = asyncio.get_running_loop().time() + timeout_s
        call = Call(uuid.uuid4(), "t", 1, 0, deadline, lambda: True)
        made = Command(command, env or {})
        return await performer.perform(performer.prepare(made, Command.success), call)

    performer = CommandPerformer(chosen, command_rights.judged(chosen, None))
    async with performer:
        yield performer, run


# What a command may do ---------------------------------------------------------------------------


async def test_a_fork_bomb_is_contained_while_everything_else_goes_on(commands):
    limits = IDS | {"COMMANDS_PROCESSES": "60" if ROOT else "100"}
    async with commands(**limits) as (_, alice):
        bomb = await begun(alice, "perl -e 'fork while 1' & sleep 100", timeout_seconds=6)
        if ROOT:
            await eventually(lambda: at_least(40))
            beside = await run(alice, "echo beside")
            assert beside["response"] == "beside\n"
        began = time.monotonic()
        assert (await alice.get("/tasks")).status_code == 200
        assert time.monotonic() - began < 2
        found = await ended(alice, bomb, 20)

        assert found["state"] == "failed"
        assert of_commands() == []


def at_least(n: int) -> None:
    assert len(of_commands()) >= n


async def test_endless_output_costs_no_more_than_is_kept(place):
    process = psutil.Process()
    async with performing(place, output_bytes=1 << 20) as (_, run):
        await run("true")
        before, began = process.memory_info().rss, time.monotonic()
        found = await run("cat /dev/zero", timeout_s=30)

    assert time.monotonic() - began < 5
    assert (len(found.body), found.truncated, found.succeeded) == (1 << 20, True, False)
    assert process.memory_info().rss - before < 20 << 20


async def test_one_that_ignores_sigterm_is_killed(place):
    marked = mark()
    async with performing(place) as (_, run):
        found = await run(
            f"trap '' TERM; sleep {marked} & while :; do sleep {marked}; done", timeout_s=0.5
        )

        assert found.status_code == 128 + signal.SIGKILL
        assert found.error == "it did not end within 0.5 s"
        dead(marked)


@pytest.mark.parametrize(
    "daemon",
    [
        "sleep {} &",
        "setsid sleep {} &",
        "(setsid sh -c '(trap \"\" TERM HUP; cd /; env -i sleep {} <&- >&- 2>&- &)' &);",
        "nohup setsid sh -c 'sleep {} & sleep {} & wait' > /dev/null 2>&1 &",
    ],
)
@pytest.mark.parametrize("user", ["", pytest.param("daemon", marks=needs_root)])
async def test_what_became_a_daemon_ends_with_its_run(place, daemon, user):
    marked = mark()
    async with performing(place, user=user) as (_, run):
        found = await run(daemon.replace("{}", marked) + " sleep 0.2; echo started")

        assert found.body == b"started\n"
        assert found.succeeded
        dead(marked)


async def test_the_servers_environment_memory_and_files_are_closed(place):
    me = os.getpid()
    async with performing(place) as (performer, run):
        for pid in (me, performer.host.pid):
            for name in ("environ", "mem", "fd/", "maps"):
                found = await run(f"ls -l /proc/{pid}/{name} 1>&2 && head -c 1 /proc/{pid}/{name}")

                assert not found.succeeded, (name, found.body)
                assert b"ermission denied" in found.body, (name, found.body)


@needs_root
@pytest.mark.parametrize("what", ["installation", "another", "etc"])
@pytest.mark.parametrize("user", ["", "daemon"])
async def test_nothing_may_be_written_but_its_own(place, open_folder, what, user):
    async with performing(place, user=user) as (_, run):
        other = asyncio.ensure_future(
            run(f"umask 0; pwd > {open_folder}/where; touch {open_folder}/begun; sleep 100")
        )
        await eventually(lambda: there(open_folder / "begun"))
        target = {
            "installation": str(Path(scheduler.__file__).parent),
            "another": (open_folder / "where").read_text().strip(),
            "etc": "/etc",
        }[what]
        found = await run(f"touch {target}/planted || ls {target}/ > /dev/null && exit 1; exit 1")

        assert b"ermission denied" in found.body
        assert not Path(target, "planted").exists()
        if what == "another":
            assert found.body.count(b"ermission denied") == 2
        other.cancel()
        await other


@needs_root
async def test_runs_cannot_signal_each_other(place, open_folder):
    async with performing(place) as (_, run):
        pid = open_folder / "pid"
        other = asyncio.ensure_future(run(f"echo $$ > {pid}; touch {pid}.there; sleep 1; echo on"))
        await eventually(lambda: there(open_folder / "pid.there"))
        found = await run(f"kill -9 {pid.read_text().strip()}; kill -9 -1; echo still")

        assert b"ermitted" in found.body
        assert (await other).body == b"on\n"


@needs_root
def test_the_data_directory_is_closed(place, open_folder):
    with serving("", place):
        data = place / "data"
        data.chmod(0o711)  # should someone have opened it, what is in it is closed still
        said = "ls postgres/; cat credentials.json; touch x; ls postgres/data"
        done = finished(place, f"cd {data}; {said}; echo done")

    assert done["response"].endswith("done\n")
    assert done["response"].count("ermission denied") == 4, done["response"]


async def test_memory_is_limited(place):
    hog = "head -c 300000000 /dev/zero | tail -c 300000000 > /dev/null"
    async with performing(place, memory_bytes=100 << 20) as (_, run):
        assert (await run(hog.replace("300000000", "3000"))).succeeded
        found = await run(hog)

    assert not found.succeeded
    assert b"memory" in found.body


async def test_cpu_time_is_limited(place):
    async with performing(place, cpu_seconds=1) as (_, run):
        found = await run("while :; do :; done")

    assert found.error == "it used more than 1 s of CPU time (commands.cpu_seconds)"


async def test_the_size_of_a_file_is_limited(place):
    async with performing(place, file_bytes=1 << 20) as (_, run):
        found = await run("exec head -c 5000000 /dev/zero > big")

    assert found.error == "it wrote a file of more than 1048576 bytes (commands.file_bytes)"


async def test_an_environment_too_large_is_said_to_be_that(place):
    async with performing(place) as (_, run):
        found = await run("echo ran", env={"LARGE": "x" * 3_000_000})

    assert found.error == ("the command and its env are larger than the system lets a program have")
    assert not found.retryable


async def test_a_year_is_no_timeout_too_long(place):
    async with performing(place) as (_, run):
        assert (await run("sleep 0.1", timeout_s=31_536_000)).succeeded


async def test_a_directory_made_deep_and_closed_is_removed(place):
    deep = "p=d; n=0; while [ $n -lt 800 ]; do p=$p/d; n=$((n+1)); done"
    deep += "; mkdir -p $p; cd $p; : > f; mkdir -p $p; cd $p; : > f"
    async with performing(place) as (_, run):
        found = await run(f"{deep}; ln -s / root; chmod 0 . ; cd; chmod 0 d; echo made")

        assert found.body == b"made\n"
        await eventually(lambda: gone(place / "runs"))


async def test_a_name_that_is_swapped_while_it_is_removed_is_not_followed(place, monkeypatch):
    home, outside = place / "1", place / "outside"
    (home / "theirs" / "inner").mkdir(parents=True)
    outside.mkdir(mode=0o755)
    if ROOT:
        os.chown(home / "theirs", FIRST_ID, FIRST_ID)
    unlink, swaps = os.unlink, []

    def swapped(name, *, dir_fd):
        """Another run, let into the directory before, changes what the name means."""
        try:
            unlink(name, dir_fd=dir_fd)
        except OSError:
            assert os.fstat(dir_fd).st_uid == os.geteuid()
            assert os.fstat(dir_fd).st_mode & 0o777 == 0o700
            os.rename(name, f"{name}.away", src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
            os.symlink(outside, name, dir_fd=dir_fd)
            swaps.append(name)
            monkeypatch.setattr(os, "unlink", unlink)
            raise

    monkeypatch.setattr(os, "unlink", swapped)
    slots.remove(home)

    assert swaps
    assert outside.stat().st_mode & 0o777 == 0o755
    assert [path.name for path in place.iterdir()] == ["outside"]


@needs_root
@pytest.mark.parametrize("user", ["", "daemon"])
async def test_no_memory_that_was_shared_is_left(place, user):
    assert shared_memory() == 0
    async with performing(place, user=user) as (performer, run):
        found = await run("ipcmk -M 1000000 && ipcmk -Q && ipcmk -S 3")
        assert found.succeeded, found.body
        await eventually(lambda: gone(place / "runs"))
        await eventually(none_shared)

        running = asyncio.ensure_future(run("ipcmk -M 1000000; sleep 100"))
        await eventually(some_shared)
        for supervisor_ in psutil.Process(performer.host.pid).children():
            supervisor_.kill()
        await running
        await eventually(none_shared)


def shared_memory() -> int:
    """How many things the groups of commands here have left in the machine's memory."""
    found = 0
    for kind in ("shm", "msg", "sem"):
        names, *rows = map(str.split, Path("/proc/sysvipc", kind).read_text().splitlines())
        found += sum(0 <= int(row[names.index("cgid")]) - FIRST_ID < 478 for row in rows)
    return found


def none_shared() -> None:
    assert shared_memory() == 0


def some_shared() -> None:
    assert shared_memory() == 1


def test_output_that_another_run_goes_on_writing_is_not_waited_for():
    """A pipe can be handed on, and then its end never comes."""

    def late(*_):
        raise TimeoutError

    heard, told = socket.socketpair()
    limits = Limits(1, 1, 1, 1, 1, 1000, 1.0)
    made = supervisor.Supervisor(told, Rules("", 1, 1, False, None, limits), None, None)
    made._pipe = os.open("/dev/zero", os.O_RDONLY)  # there is always more in it
    made._status = 0  # its shell has ended, so that nothing is to be signalled here
    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(5)
    try:
        made._tell()
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        os.close(made._pipe)
        told.close()

    with heard, heard.makefile("rb") as said:
        result = read_result(said.read(LENGTH.unpack(said.read(4))[0]))
        assert (result.why, result.truncated, result.size) == ("output", True, 1000)


async def test_two_hundred_runs_leave_nothing_behind(place):
    async with performing(place) as (performer, run):
        await run("true")
        host = psutil.Process(performer.host.pid)
        await eventually(lambda: no_child(host))
        before = psutil.Process().num_fds(), host.num_fds()
        for _ in range(10):
            found = await asyncio.gather(*[run("true") for _ in range(20)])
            assert all(each.succeeded for each in found)
        await eventually(lambda: no_child(host))

        assert (psutil.Process().num_fds(), host.num_fds()) == before
        gone(place / "runs")
    assert not host.is_running()


def no_child(process: psutil.Process) -> None:
    assert process.children() == []


# Processes that are killed -----------------------------------------------------------------------


@pytest.mark.parametrize("user", ["", pytest.param("daemon", marks=needs_root)])
async def test_a_supervisor_that_is_killed_takes_its_run_with_it(place, user):
    marked = mark()
    async with performing(place, user=user) as (performer, run):
        running = asyncio.ensure_future(run(f"setsid sleep {marked} & sleep {marked}"))
        await eventually(lambda: at_work(marked, 2))
        for supervisor in psutil.Process(performer.host.pid).children():
            supervisor.kill()
        found = await running

        assert found.unknown
        await eventually(lambda: dead(marked))
        await eventually(lambda: gone(place / "runs"))


def at_work(marked: str, n: int = 1) -> None:
    assert len([p for p in alive(marked) if p.name() == "sleep"]) >= n


async def test_a_host_that_is_killed_is_started_again(place):
    async with performing(place) as (performer, run):
        first = performer.host.pid
        running = asyncio.ensure_future(run("sleep 0.5; echo on"))
        await eventually(lambda: psutil.Process(first).children()[0])
        os.kill(first, signal.SIGKILL)
        found = await run("echo again")

        assert found.body == b"again\n"
        assert performer.host.pid != first
        assert (await running).body == b"on\n"


@contextmanager
def serving(url: str, place: Path, **environ: str) -> Iterator[subprocess.Popen[bytes]]:
    """`scheduler serve` as a process of its own, which is ready."""
    env = {
        "PATH": os.environ["PATH"],
        "DATABASE_URL": url,
        "DATA_DIR": str(place / "data"),
        "SECRET_KEY": SECRET_KEY,
        "SERVER_PORT": "0",
        "AUTH_BOOTSTRAP_SERVICE": "alice",
        "AUTH_BOOTSTRAP_TOKEN": TOKENS["alice"],
        **switched_on(place),
        **IDS,
        **environ,
    }
    log = (place / "log").open("ab")
    with log, subprocess.Popen(
        [sys.executable, "-m", "scheduler", "serve"], env=env, cwd=place, stdout=log, stderr=log
    ) as process:  # fmt: skip
        try:
            until((place / "data" / "credentials.json").exists, 30, "credentials")
            yield process
        finally:
            process.kill()


def ask(place: Path, method: str, path: str, body: Any = None) -> Any:
    """Ask the API as the first service."""
    known = json.loads((place / "data" / "credentials.json").read_text())
    headers = {"service_id": known["service_id"], "token": known["token"]}
    request = urllib.request.Request(
        known["url"] + path,
        None if body is None else json.dumps(body).encode(),
        headers | {"Content-Type": "application/json"},
        method=method,
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.loads(answer.read())


def finished(place: Path, command: str) -> Any:
    """Run a command by hand, and return its run."""
    task = made(place, command)
    answer = ask(place, "POST", f"/tasks/{task}/execute")
    return ask(place, "GET", f"/runs/{answer['run_id']}")


def made(place: Path, command: str) -> str:
    """Create a task as soon as the server answers, and return its id."""

    def create() -> Any:
        with contextlib.suppress(OSError):
            body = {"name": "it", "command": command, "timeout_seconds": 300}
            return ask(place, "POST", "/tasks", body)
        return None

    return until(create, 30, "a task")["id"]


def sleeps(place: Path, marked: str) -> str:
    """Start a command that sleeps, in the foreground and as a daemon, and return its run's id."""

    task = made(place, f"setsid sleep {marked} & sleep {marked}")
    answer = ask(place, "POST", f"/tasks/{task}/execute?async=true")
    until(lambda: len([p for p in alive(marked) if p.name() == "sleep"]) == 2, 20, "at work")
    return answer["id"]


async def test_a_server_that_stops_ends_them_in_time(database_url, place, conn: asyncpg.Connection):
    marked = mark()
    with serving(database_url, place, WORKER_DRAIN_SECONDS="0.5") as server:
        run_id = sleeps(place, marked)
        began = time.monotonic()
        server.terminate()
        assert server.wait(20) in (0, -signal.SIGTERM)

        assert time.monotonic() - began < 15
        dead(marked)
        attempts = json.loads(
            await conn.fetchval("SELECT attempts FROM run WHERE id = $1", uuid.UUID(run_id))
        )
        assert [(a["outcome"], a["error"]) for a in attempts] == [
            ("unknown", "cut short; the command was ended")
        ]
        gone(place / "runs")


async def test_nothing_outlives_a_server_that_is_killed(database_url, place):
    marked = mark()
    with serving(database_url, place) as server:
        sleeps(place, marked)
        (host,) = hosts(server)
        server.kill()
        server.wait()
        until(lambda: not alive(marked), 10, "nothing is left")
        until(lambda: not host.is_running(), 10, "the host is gone")
        gone(place / "runs")


def hosts(server: "subprocess.Popen[bytes]") -> list[psutil.Process]:
    children = psutil.Process(server.pid).children()
    return [p for p in children if any("scheduler.confined" in part for part in p.cmdline())]


async def test_the_next_start_ends_what_survived_all_that_looked_after_it(database_url, place):
    marked = mark()
    with serving(database_url, place) as server:
        sleeps(place, marked)
        (host,) = hosts(server)
        supervisors = host.children()
        for process in (server, host, *supervisors):
            process.send_signal(signal.SIGSTOP)
        for process in (server, host, *supervisors):
            process.kill()
        server.wait()
        until(lambda: not any(p.is_running() for p in supervisors), 10, "they are gone")
        at_work(marked, 2)

    with serving(database_url, place):
        until(lambda: not alive(marked), 20, "nothing is left")
        until(lambda: not left(place / "runs"), 10, "and no directory")


def left(runs: Path) -> list[str]:
    return [path.name for path in runs.iterdir() if path.suffix != ".lock"]
