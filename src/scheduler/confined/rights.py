"""What a shell may do: its user, its limits, and the way there, which cannot be gone back."""

import contextlib
import ctypes
import errno
import os
import resource
import signal
from pathlib import Path

from scheduler.confined.job import Limits, Rules

PR_SET_DUMPABLE = 4
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
"""prctl(2)."""
IGNORED = signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT
"""By the processes around a shell; a keyboard is not for them."""
OOM_FIRST = b"1000"
"""Where memory runs out, commands go before the server (proc_pid_oom_score_adj(5))."""


PRCTL = getattr(ctypes.CDLL(None, use_errno=True), "prctl", None)


def prctl(option: int, value: int) -> None:
    """Set a property of this process (prctl(2)). Raises OSError, also where there is none."""
    if PRCTL is None or PRCTL(option, value, 0, 0, 0) != 0:
        number = errno.ENOSYS if PRCTL is None else ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")


def close_to_others() -> None:
    """Keep this process's memory and environment from others of the same user."""
    prctl(PR_SET_DUMPABLE, 0)


def adopt_orphans() -> None:
    """Become the parent of whatever our children leave behind."""
    prctl(PR_SET_CHILD_SUBREAPER, 1)


def become(uid: int, gid: int) -> None:
    """Become a user for good, with no other group, and nothing to come back by."""
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def confine(rules: Rules, slot: int, running: int) -> None:
    """Take what a shell must not have from this process, which is about to become it.

    `running` counts the processes that its user has already.
    """
    for number in IGNORED:
        signal.signal(number, signal.SIG_DFL)  # what is ignored stays so in what is started
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_bytes(OOM_FIRST)
    os.umask(0o077)
    _limit(rules.limits, running)
    if rules.drops:
        become(slot if rules.uid is None else rules.uid, slot)
    prctl(PR_SET_NO_NEW_PRIVS, 1)


def reset_signals() -> None:
    """Take back what the server's own parent ignored or blocked, but for what Python needs."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_IGN if number in IGNORED else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _limit(limits: Limits, running: int) -> None:
    wanted = {
        resource.RLIMIT_CPU: limits.cpu_seconds,
        resource.RLIMIT_AS: limits.memory_bytes,
        resource.RLIMIT_NPROC: limits.processes + running,
        resource.RLIMIT_FSIZE: limits.file_bytes,
        resource.RLIMIT_NOFILE: limits.open_files,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MSGQUEUE: 0,
    }
    for what, most in wanted.items():
        # SIGXCPU comes at the soft limit, SIGKILL at the hard one.
        both = [most, most + (what == resource.RLIMIT_CPU)]
        ceiling = resource.getrlimit(what)[1]
        if ceiling != resource.RLIM_INFINITY:
            both = [min(value, ceiling) for value in both]
        resource.setrlimit(what, (both[0], both[1]))
