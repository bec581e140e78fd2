"""`scheduler migrate`: the schema, up and down."""

import sys

import click

from scheduler import config, migrate, reaching, replicas, services
from scheduler.cli.database import with_url
from scheduler.cli.failures import Failed
from scheduler.cli.output import ask
from scheduler.config import Settings
from scheduler.db import Database
from scheduler.errors import StartupError
from scheduler.migrate import Status


@click.group("migrate")
def migrate_group() -> None:
    """Bring the database's schema up to date, or back."""


@migrate_group.command()
@click.pass_obj
def up(file: str | None) -> None:
    """Migrate to the newest revision."""
    settings = config.load(file=file)

    async def work(url: str) -> Status:
        return await migrate.up(await reaching.direct(settings.database.listen_url, url))

    _show(with_url(settings, work, make=True))


@migrate_group.command()
@click.argument("revision")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def down(file: str | None, revision: str, *, yes: bool) -> None:
    """Migrate back to REVISION; every replica must be stopped, and `base` drops all there is.

    What goes for good is said, and asked about.
    """
    settings = config.load(file=file)

    async def work(url: str) -> Status:
        await _judge(settings, url, drops=revision == "base" and not yes)
        if revision != "base":
            _agree(await migrate.lost(url, revision), yes=yes)
        direct = await reaching.direct(settings.database.listen_url, url)
        return await migrate.down(direct, revision)

    _show(with_url(settings, work))


async def _judge(settings: Settings, url: str, *, drops: bool) -> None:
    """Raise where replicas would go on without their tables, or someone thinks better of it."""
    found = await migrate.status(url)
    if found.current is None:
        return
    database = Database(url, settings.database)
    try:
        async with database.api.connect() as conn:
            living = await replicas.living(conn) if found.is_current else 0
            empty = await services.is_empty(conn)
    finally:
        await database.close()
    if living:
        raise StartupError(
            f"{living} {'replica runs' if living == 1 else 'replicas run'} on this database; stop "
            "every one first. One that was killed counts for 15 seconds"
        )
    if drops and not empty and not ask("Drop every service, task and run, for good?"):
        raise Failed("nothing was done")


def _agree(lost: dict[str, int], *, yes: bool) -> None:
    """Say what a way down drops. Raises where someone thinks better of it."""
    if not lost:
        return
    what = ", ".join(f"{table} ({count:,})" for table, count in lost.items())
    click.echo(f"this drops for good, with so many rows: {what}", err=True)
    if not yes and not ask("Go on?"):
        raise Failed("nothing was done")


@migrate_group.command()
@click.pass_obj
def status(file: str | None) -> None:
    """Say where the database stands; exits 1 where there is something to do."""
    found = with_url(config.load(file=file), migrate.status)
    _show(found)
    if not found.fits:
        sys.exit(1)


def _show(found: Status) -> None:
    current = found.current or "empty"
    if found.is_newer:
        click.echo(
            f"revision {current}, of a newer version; this one, of {found.head}, still runs with it"
        )
        return
    word = "current" if found.is_current else f"not current: this version has {found.head}"
    click.echo(f"revision {current}, {word}")
