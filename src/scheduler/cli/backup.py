"""`scheduler backup`, `restore` and `upgrade`: the embedded database as a whole."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NoReturn

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TransferSpeedColumn,
)

from scheduler import backups, config, disk, home, keys, moving
from scheduler.backups import Manifest, Moved
from scheduler.config import Settings
from scheduler.errors import StartupError
from scheduler.moving import Room
from scheduler.sealing import short

STDOUT = "-"


@click.command()
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--force", is_flag=True, help="Replace FILE where it is there already.")
@click.option("--with-key", is_flag=True, help="Put the key that opens stored secrets in it, too.")
@click.pass_obj
def backup(settings_file: str | None, /, *, file: Path, force: bool, with_key: bool) -> None:
    """Write the embedded database to FILE, or with - to standard output.

    It may serve meanwhile: the backup is the database as it was at one moment.

    \b
    scheduler backup /backups/monday.zip
    scheduler backup - | ssh elsewhere 'cat > monday.zip'
    """
    settings = _embedded("backup", config.load(file=settings_file))
    base = home.data_dir(settings)
    key = _key(base, settings) if with_key else None

    def write(into: IO[bytes], room: Room | None) -> Manifest:
        with _shown("Writing the backup") as moved:
            return moving.back_up(base, into, key=key, room=room, progress=_say, moved=moved)

    if str(file) == STDOUT:
        if sys.stdout.isatty():
            raise click.UsageError("a backup is no text: name a file, or send it on with a pipe")
        if sys.stdout.name == os.devnull:  # put there for what the caller has closed
            raise click.UsageError("standard output is closed: name a file")
        made = write(sys.stdout.buffer, None)
    else:
        with _ending(), backups.whole(file, force=force) as into:
            made = write(into, _room(base, file, settings))
    _say(_done(str(file), made, base, settings))


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.pass_obj
def restore(settings_file: str | None, /, *, file: Path) -> None:
    """Fill an empty data directory from the backup FILE.

    \b
    DATA_DIR=/srv/scheduler scheduler restore /backups/monday.zip
    """
    settings = _embedded("restore", config.load(file=settings_file))
    base = home.data_dir(settings)
    with _ending():
        with _shown("Checking the backup") as moved:
            found = backups.read(file, moved)
        with _shown("Filling the database", found.manifest.dump.bytes) as moved:
            moving.restore(base, found, progress=_say, moved=moved)
    facts = found.manifest.facts
    _say(
        f"Restored {file} of {found.manifest.created_at} to {base} (schema"
        f" {facts.revision or 'none'}, time zones {facts.tzdata or 'unknown'})."
    )
    if found.key is None and facts.secret_fingerprint and not settings.secret.key:
        _say(
            f"The key of its secrets, {short(facts.secret_fingerprint)}, is not in the backup:"
            f" before `scheduler serve` put it at {base / keys.FILE}, or set SECRET_KEY."
        )
    _say(
        "The next `scheduler serve` starts paused, so that nothing runs twice while the"
        " installation that the backup came from may still run: `scheduler resume` ends that."
        " Clients keep their tokens; credentials.json is not in a backup."
    )


@click.command()
@click.option("--delete-old", is_flag=True, help="Keep nothing of the old database.")
@click.pass_obj
def upgrade(settings_file: str | None, /, *, delete_old: bool) -> None:
    """Move the embedded database to the Postgres that this version brings.

    The scheduler must be stopped. The database is copied; the old one is kept beside it.
    """
    settings = _embedded("upgrade", config.load(file=settings_file))
    base = home.data_dir(settings)
    with _ending(), _shown("Copying the database") as moved:
        done = moving.upgrade(base, delete_old=delete_old, progress=_say, moved=moved)
    if done is None:
        _say(f"The database in {base} is of this version's Postgres already.")
        return
    old, kept = done
    _say(f"The database was of Postgres {old} and now is of this version's: `scheduler serve`.")
    if kept is not None:
        _say(f"The old one is kept in {kept}; delete it when all is well.")


def _embedded(command: str, settings: Settings) -> Settings:
    if settings.database.url:
        instead = {
            "backup": "pg_dump --format=custom, or what its host offers",
            "restore": "pg_restore, or what its host offers",
            "upgrade": "pg_upgrade, or what its host offers",
        }[command]
        raise StartupError(
            f"DATABASE_URL is set, and `scheduler {command}` is for the embedded Postgres: use your"
            f" Postgres's own ways ({instead}), and keep SECRET_KEY apart from the backups."
        )
    return settings


def _key(base: Path, settings: Settings) -> bytes:
    if settings.secret.key:
        raise StartupError(
            "The key is in SECRET_KEY, and no file: keep it apart, without --with-key."
        )
    path = base / keys.FILE
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise StartupError(f"There is no key at {path}: leave --with-key out.") from None
    except OSError as e:
        raise StartupError(f"{path} cannot be read: {e.strerror}.") from None


def _room(base: Path, file: Path, settings: Settings) -> Room | None:
    """Return what a backup leaves free, where it is written to the disk of the database."""
    data = base / "postgres"
    if not data.exists() or not disk.same(data, file.absolute().parent):
        return None
    return Room(data, settings.data.min_free_bytes)


def _done(file: str, made: Manifest, base: Path, settings: Settings) -> str:
    facts = made.facts
    where = "to standard output" if file == STDOUT else file
    said = f"Wrote {where}: {disk.words(made.dump.bytes)}, schema {facts.revision or 'none'}."
    if made.key is not None:
        return f"{said} The key that opens its secrets is in it: whoever has the file has both."
    key = "SECRET_KEY" if settings.secret.key else base / keys.FILE
    return (
        f"{said} The key that opens its secrets is not in it; keep a copy of {key} apart from it."
    )


def _say(sentence: str) -> None:
    click.echo(sentence, err=True)


@contextmanager
def _shown(what: str, total: int | None = None) -> Iterator[Moved]:
    """Show on a terminal how many bytes have been moved."""
    console = Console(stderr=True)
    columns = [SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), DownloadColumn()]
    columns += [TransferSpeedColumn(), TimeElapsedColumn()]
    hidden = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as bar:
        task = bar.add_task(what, total=total)
        yield lambda size: bar.advance(task, size)


@contextmanager
def _ending() -> Iterator[None]:
    """Take away what is half done at SIGTERM, too."""

    def end(_signal: int, _frame: object) -> NoReturn:
        raise click.Abort

    before: Callable[..., object] | int | None = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
