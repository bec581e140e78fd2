"""As whom commands run here, and whether the settings and the server's user allow it at all."""

import os
import pwd
import tempfile
from pathlib import Path

from scheduler import config
from scheduler.confined import rights, slots
from scheduler.confined.job import Limits, Rules
from scheduler.errors import StartupError

OFF = "commands are switched off here: commands.enabled (COMMANDS_ENABLED=true) lets them run"
SAME_USER = (
    "the server is not root, so commands would run as its own user, and could read all that it"
    " can; commands.same_user (COMMANDS_SAME_USER=true) lets them"
)
ROOTS = "/var/tmp/scheduler-commands"  # noqa: S108  (made, and then checked to be ours)


def judged(settings: config.Commands, postgres: int | None) -> Rules | str:
    """Return the rules of commands, or a sentence that says why none may run.

    `postgres` is the user of the embedded Postgres, who is nobody for a command to be. Raises
    StartupError.
    """
    if not settings.enabled:
        return OFF
    if rights.PRCTL is None:
        raise StartupError("commands.enabled: commands need Linux, for its prctl(2)")
    root = os.geteuid() == 0
    if not root and not settings.same_user:
        return SAME_USER
    uid = _user(settings.user, postgres) if root else None
    numbers = range(settings.first_id, settings.first_id + settings.ids)
    if root and postgres in numbers:
        raise StartupError(
            f"commands.first_id, commands.ids: user {postgres}, whom the embedded Postgres runs "
            "as, is in that range; take another"
        )
    directory = settings.directory or (ROOTS if root else _own_directory())
    # The second half of the ids is for those who end what runs as the first half.
    slots = settings.ids // 2
    return Rules(directory, settings.first_id, slots, root, uid, _limits(settings))


def prepare(rules: Rules) -> None:
    """Make the directory of commands, and close this process to them. Raises StartupError."""
    setting = "commands.directory (COMMANDS_DIRECTORY)"
    try:
        slots.check(rules.directory)
        if not rules.drops:
            rights.close_to_others()
    except OSError as e:
        raise StartupError(f"{setting}: {e.filename or ''} {e.strerror or e}") from None
    closed = [place for place in Path(rules.directory).parents if not place.stat().st_mode & 0o001]
    if rules.drops and closed:
        raise StartupError(
            f"{setting}: commands run as users who may not enter {closed[-1]}; name a directory "
            f"elsewhere, or open that one with chmod o+x"
        )


def _user(name: str, postgres: int | None) -> int | None:
    """Return whom `commands.user` names; None where each run is a user of its own."""
    if not name:
        return None
    try:
        uid = int(name) if name.isdecimal() else pwd.getpwnam(name).pw_uid
    except KeyError:
        raise StartupError(
            f"commands.user (COMMANDS_USER): there is no user {name!r} here; add it, or leave the "
            "setting empty: each run is then a user of its own"
        ) from None
    who = {0: "root", postgres: "the user of the embedded Postgres"}.get(uid)
    if who is not None:
        raise StartupError(
            f"commands.user (COMMANDS_USER): {name!r} is {who}; name another, or leave the "
            "setting empty: each run is then a user of its own"
        )
    return uid


def _own_directory() -> str:
    return f"{tempfile.gettempdir()}/scheduler-commands-{os.geteuid()}"


def _limits(settings: config.Commands) -> Limits:
    return Limits(
        cpu_seconds=settings.cpu_seconds,
        memory_bytes=settings.memory_bytes,
        processes=settings.processes,
        file_bytes=settings.file_bytes,
        open_files=settings.open_files,
        output_bytes=settings.output_bytes,
        kill_seconds=settings.kill_seconds,
    )
