"""`scheduler migrate`: the schema, up and down."""

import sys

import click

from scheduler import config, migrate, reaching
from scheduler.cli.database import with_url
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
@click.pass_obj
def down(file: str | None, revision: str) -> None:
    """Migrate back to REVISION; `base` empties the database."""
    settings = config.load(file=file)

    async def work(url: str) -> Status:
        direct = await reaching.direct(settings.database.listen_url, url)
        return await migrate.down(direct, revision)

    _show(with_url(settings, work))


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
