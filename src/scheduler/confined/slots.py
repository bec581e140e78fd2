"""A slot for each run: a number, a lock that says it lives, and a private directory.

    <directory>/60706.lock   held by the supervisor: where it is free, nobody looks after the run
    <directory>/60706/       the run's own; there as long as anything of the run may be

So whoever takes a lock and finds the directory knows what a supervisor that was killed has left,
whichever process of whichever replica it was.
"""

import contextlib
import fcntl
import itertools
import os
import stat
import time
from pathlib import Path

from scheduler.confined import ending, shared
from scheduler.confined.job import Rules

DIES_S = 5.0
"""What was killed is gone within this, where its disk answers."""
AT_ONCE = 1000
"""Names of a directory looked at in one go: there may be millions."""


class Slot:
    """One that is ours while its lock is open."""

    def __init__(self, rules: Rules, number: int, lock: int) -> None:
        self.number = number
        self.home = Path(rules.directory) / str(number)
        self._rules = rules
        self._lock = lock

    def furnish(self) -> None:
        """Make the private directory."""
        self.home.mkdir(0o700)
        rules = self._rules
        if rules.alone:
            os.chown(self.home, self.number, self.number)
        elif rules.drops:
            # The user has other runs, too: this one is let in by its group alone.
            os.chown(self.home, 0, self.number)
            self.home.chmod(0o770)

    def clear(self) -> None:
        """Kill what a run left running here, and remove its directory. Raises OSError."""
        if os.path.lexists(self.home) or os.path.lexists(_pile(self.home)):
            deadline = time.monotonic() + DIES_S
            while self.strays() and time.monotonic() < deadline:
                ending.kill(self.strays)
                time.sleep(0.005)
            self.empty()

    def empty(self) -> None:
        """Remove what a run whose processes have ended has left. Raises OSError."""
        rules = self._rules
        if rules.drops:
            uid = self.number if rules.uid is None else rules.uid
            shared.remove(uid, self.number, self.number + rules.slots)
        remove(self.home)

    def strays(self) -> set[int]:
        """Return the processes that are marked as this slot's."""
        rules = self._rules
        if rules.alone:
            return ending.of_user(self.number)
        return ending.of_group(self.number) if rules.drops else ending.working_in(str(self.home))

    def release(self) -> None:
        """Give the slot back."""
        os.close(self._lock)


def take(rules: Rules) -> Slot:
    """Return a slot that nobody has, cleared. Raises OSError where there is none."""
    check(rules.directory)
    numbers = range(rules.first, rules.first + rules.slots)
    start = int.from_bytes(os.urandom(4), "big")  # not each time the same after a fork
    for n in range(rules.slots):
        slot = _try(rules, numbers[(start + n) % rules.slots])
        if slot is None:
            continue
        try:
            slot.clear()
        except OSError:  # what cannot be removed stands in nobody's way: there are more
            slot.release()
            continue
        return slot
    raise OSError(f"all {rules.slots} slots are taken; a larger commands.ids makes more")


def sweep(rules: Rules) -> None:
    """End and remove what is left in slots that nobody looks after."""
    check(rules.directory)
    for path in list(Path(rules.directory).iterdir()):
        number = int(path.stem) if path.suffix in ("", ".gone") and path.stem.isdigit() else -1
        if 0 <= number - rules.first < rules.slots and (slot := _try(rules, number)) is not None:
            with contextlib.suppress(OSError):  # the others are to go all the same
                slot.clear()
            slot.release()


def check(directory: str) -> None:
    """Make the directory, and see that it is ours alone. Raises OSError."""
    place = Path(directory)
    with contextlib.suppress(FileExistsError):
        place.mkdir(parents=True)
        place.chmod(0o711)
    found = place.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise PermissionError(
            f"{directory} is not a directory of the server's user that nobody else may write to"
        )


def _try(rules: Rules, number: int) -> Slot | None:
    path = Path(rules.directory) / f"{number}.lock"
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return Slot(rules, number, lock)


# Removing ----------------------------------------------------------------------------------------


def remove(path: Path) -> None:
    """Remove a directory whose owner may have made it as deep, wide and closed as it wanted.

    Each directory in it is first moved up to a pile beside it, and nothing is followed: so no path
    grows, and neither a stack, nor memory, nor open files. Other runs may have been let in, and be
    at work there: what is looked into is ours alone from then on.
    """
    with contextlib.suppress(FileExistsError):
        _pile(path).mkdir(0o700)
    top = os.open(_pile(path), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if os.path.lexists(path):
            _seize(str(path))
            os.rename(path, _new_name(), dst_dir_fd=top)
        while found := _some(top):
            for name in found:
                _remove_flat(name, top)
    finally:
        os.close(top)
    _pile(path).rmdir()


def _pile(path: Path) -> Path:
    return path.with_name(f"{path.name}.gone")


def _remove_flat(name: str, top: int) -> None:
    """Remove one of the pile; the directories in it join the pile."""
    if not _seize(name, top):
        os.unlink(name, dir_fd=top)
        return
    folder = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=top)
    try:
        while entries := _some(folder):
            for entry in entries:
                try:
                    os.unlink(entry, dir_fd=folder)
                except OSError:
                    _seize(entry, folder)  # else not even its owner may move it
                    os.rename(entry, _new_name(), src_dir_fd=folder, dst_dir_fd=top)
    finally:
        os.close(folder)
    os.rmdir(name, dir_fd=top)


def _seize(name: str, folder: int | None = None) -> bool:
    """Make a directory ours, and closed to all others; False where it is none.

    By a handle, for a name may be that of another thing a moment later, or of a link to one.
    """
    how = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        handle = os.open(name, how, dir_fd=folder)
    except NotADirectoryError:
        return False
    try:
        if os.geteuid() == 0:
            os.chown(f"/proc/self/fd/{handle}", 0, 0)  # its owner could open it again
        Path(f"/proc/self/fd/{handle}").chmod(0o700)
    finally:
        os.close(handle)
    return True


def _new_name() -> str:
    return os.urandom(16).hex()


def _some(folder: int) -> list[str]:
    with os.scandir(folder) as entries:
        return [entry.name for entry in itertools.islice(entries, AT_ONCE)]
