"""What a run leaves in the memory of the machine: System V shared memory, queues, semaphores.

They outlive whoever made them, and no limit of a process counts them.
"""

import contextlib
import ctypes
from pathlib import Path

from scheduler.confined import ending

TABLES = Path("/proc/sysvipc")
REMOVE = 0
"""IPC_RMID, of shmctl(2), msgctl(2) and semctl(2)."""
LIBC = ctypes.CDLL(None)


def remove(uid: int, gid: int, keeper: int) -> None:
    """Remove what a group's processes made, as their user: root itself may not everywhere."""
    found = {kind: _made_by(kind, gid) for kind in ("shm", "msg", "sem")}
    if any(found.values()):
        ending.as_user(uid, keeper, lambda: _remove(found))


def _made_by(kind: str, gid: int) -> list[int]:
    """Return the ids of those that a group made: its maker's group stays with each of them."""
    with contextlib.suppress(OSError):
        names, *rows = (
            line.split() for line in (TABLES / kind).read_text().splitlines() if line.strip()
        )
        made = names.index("cgid")
        return [int(row[1]) for row in rows if int(row[made]) == gid]
    return []


def _remove(found: dict[str, list[int]]) -> None:
    for number in found["shm"]:
        LIBC.shmctl(number, REMOVE, None)
    for number in found["msg"]:
        LIBC.msgctl(number, REMOVE, None)
    for number in found["sem"]:
        LIBC.semctl(number, 0, REMOVE)
