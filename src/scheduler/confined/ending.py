"""Finding and killing what a run started, however it hid."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterable
from pathlib import Path

PROC = Path("/proc")

Found = Callable[[], set[int]]


def kill_user(uid: int, keeper: int, number: int) -> None:
    """Send a signal to every process of a user at once: not even a fork bomb outruns it.

    As that user (kill(2): -1); as root it would be the end of the whole machine.
    """
    as_user(uid, keeper, lambda: os.kill(-1, number))


def as_user(uid: int, keeper: int, work: Callable[[], None]) -> None:
    """Have something done by a child whose effective user is another; nobody hears of a failure.

    The child's real user is `keeper`, whom nobody else is: so it can be signalled by none of that
    user's processes.
    """
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setresuid(keeper, uid, keeper)
            if 0 not in os.getresuid() and os.getresuid() == (keeper, uid, keeper):
                work()
        except OSError:  # nobody is there
            pass
        finally:
            os._exit(0)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)


def kill(found: Found) -> None:
    """Kill what is found, and what it starts meanwhile: nothing forks once it is stopped."""
    stopped: set[int] = set()
    while new := found() - stopped:
        send(new, signal.SIGSTOP)
        stopped |= new
    send(stopped, signal.SIGKILL)


def send(pids: Iterable[int], number: int) -> None:
    """Send a signal to each that is still there."""
    for pid in pids:
        with contextlib.suppress(OSError):
            os.kill(pid, number)


def descendants(of: int, without: Iterable[int] = ()) -> set[int]:
    """Return the processes below one, but for some branches."""
    children: dict[int, list[int]] = {}
    for pid in pids():
        with contextlib.suppress(OSError, ValueError, IndexError):
            # The name, in brackets, may hold anything.
            parent = int(_read(pid, "stat").rpartition(b")")[2].split()[1])
            children.setdefault(parent, []).append(pid)
    found: set[int] = set()
    around, kept = [of], set(without)
    while around:
        below = set(children.get(around.pop(), ())) - kept - found
        found |= below
        around += below
    return found


def of_user(uid: int) -> set[int]:
    """Return the living processes of a user."""
    return {pid for pid in pids() if uid in _ids(pid, b"Uid:") and _lives(pid)}


def of_group(gid: int) -> set[int]:
    """Return the living processes in a group: those of a run that has one of its own."""
    return {pid for pid in pids() if gid in _ids(pid, b"Gid:") and _lives(pid)}


def working_in(directory: str) -> set[int]:
    """Return the processes that work in a directory, or were given it as their home."""
    inside, home = f"{directory}/".encode(), f"HOME={directory}".encode()
    found = set()
    for pid in pids() - {os.getpid()}:
        with contextlib.suppress(OSError):
            there = bytes((PROC / str(pid) / "cwd").readlink()).removesuffix(b" (deleted)") + b"/"
            if there.startswith(inside) or home in _read(pid, "environ").split(b"\0"):
                found.add(pid)
    return found


def count_of(uid: int) -> int:
    """Return how many threads a user has: what RLIMIT_NPROC counts."""
    found = 0
    for pid in of_user(uid):
        with contextlib.suppress(OSError):
            found += sum(1 for _ in (PROC / str(pid) / "task").iterdir())
    return found


def pids() -> set[int]:
    """Return all processes."""
    return {int(path.name) for path in PROC.iterdir() if path.name.isdigit()}


def _read(pid: int, name: str) -> bytes:
    return (PROC / str(pid) / name).read_bytes()


def _ids(pid: int, field: bytes) -> list[int]:
    """Return the real, effective, saved and file system ids of a process."""
    with contextlib.suppress(OSError):
        for line in _read(pid, "status").splitlines():
            if line.startswith(field):
                return [int(word) for word in line.split()[1:]]
    return []


def _lives(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return b") Z " not in _read(pid, "stat")
    return False
