"""`scheduler secrets`: the key that seals stored secrets."""

from collections.abc import Sequence

import click
import msgspec

from scheduler import config, home, installation, keys, replicas, resealing
from scheduler.cli.database import with_database
from scheduler.cli.failures import Failed
from scheduler.cli.output import ask
from scheduler.config import Settings
from scheduler.db import Conn, Database
from scheduler.errors import StartupError
from scheduler.installation import Installation
from scheduler.resealing import Given
from scheduler.sealing import fingerprint, short

Yes = click.option("-y", "--yes", is_flag=True, help="Do not ask.")


@click.group("secrets")
def secrets_group() -> None:
    """The key that seals stored secrets: headers marked secret, and signing secrets."""


@secrets_group.command()
def key() -> None:
    """Print a new key, to be set as SECRET_KEY on every replica.

    \b
    Example:
      export SECRET_KEY=$(scheduler secrets key)
    """
    click.echo(keys.new())


class Status(msgspec.Struct):
    """How the key here and the database stand to each other."""

    here: str | None
    """The short fingerprint of the key here."""
    database: str | None
    """Of the key that seals in the database."""
    sealed: bool
    """Whether everything that is secret is sealed."""
    at: str
    """Where the key here is, or would be."""

    @property
    def words(self) -> str:
        """What to make of it."""
        if self.database is None:
            return "nothing is sealed yet; the next start adopts the key here, or says what to do"
        if self.here is None:
            return "there is no key here: set SECRET_KEY, or put the file back"
        if self.here != self.database:
            return "this is another key: no replica starts with it"
        return "the key fits" + ("" if self.sealed else "; some secrets are not sealed yet")


@secrets_group.command()
@click.option("-o", "--output", type=click.Choice(["pretty", "json"]), default="pretty")
@click.pass_obj
def status(file: str | None, /, output: str) -> None:
    """Show the fingerprint of the key here and in the database; exits 1 where they differ."""
    settings = config.load(file=file)
    found = with_database(settings, lambda database: _status(database, settings))
    if output == "json":
        click.echo(msgspec.json.format(msgspec.json.encode(found)).decode())
    else:
        click.echo(f"{'here':<10}{found.here or 'none'}  ({found.at})")
        click.echo(f"{'database':<10}{found.database or 'none'}")
        click.echo(found.words)
    if found.database is not None and found.here != found.database:
        raise SystemExit(1)


async def _status(database: Database, settings: Settings) -> Status:
    folder = home.data_dir(settings)
    async with database.api.connect() as conn:
        there: Installation = await installation.read(conn)
    mine = keys.here(settings.secret.key, folder)
    return Status(
        here=short(fingerprint(mine)) if mine else None,
        database=short(there.fingerprint) if there.fingerprint else None,
        sealed=there.sealed_at is not None,
        at="SECRET_KEY" if settings.secret.key else str(folder / keys.FILE),
    )


@secrets_group.command()
@Yes
@click.pass_obj
def reset(file: str | None, /, *, yes: bool) -> None:
    """Go on without a key that is lost; every replica must be stopped.

    The key here is adopted, or one is made. Services get new signing secrets, which their targets
    need. Sealed headers are lost: runs of their tasks fail, and name the header, until someone
    sends its value anew.
    """
    if not yes and not ask("Give up every sealed header, for good?"):
        raise Failed("nothing was done")
    settings = config.load(file=file)

    async def work(database: Database) -> list[Given]:
        folder = home.data_dir(settings)
        async with database.api.begin() as conn:
            await _stopped(conn)
            there = (await installation.read(conn)).fingerprint
            mine = keys.here(settings.secret.key, folder) or keys.make(folder)
            if fingerprint(mine) == there:
                raise StartupError(
                    f"the key here, {short(there)}, is the one that the secrets are sealed with: "
                    "nothing is lost, and nothing was given up"
                )
            database.vault.unlock(mine)
            return await resealing.give_up(conn, database.vault)

    found = with_database(settings, work)
    _say(found, "lost the values of secret headers")
    click.echo("Each service has a new signing secret: `scheduler services show NAME --signing`.")


@secrets_group.command()
@Yes
@click.pass_obj
def unseal(file: str | None, /, *, yes: bool) -> None:
    """Store every secret open again, for a version before 0.2; every replica must be stopped."""
    if not yes and not ask("Store every secret open in the database?"):
        raise Failed("nothing was done")
    settings = config.load(file=file)

    async def work(database: Database) -> list[Given]:
        async with database.api.begin() as conn:
            await _stopped(conn)
            return await resealing.unseal(conn, database.vault)

    _say(with_database(settings, work, unlock=True), "have their secret headers open again")
    click.echo("The next start of this version seals them; `scheduler migrate down 0002` goes on.")


async def _stopped(conn: Conn) -> None:
    """Raise StartupError where replicas run: they would go on with what they know."""
    await installation.lock(conn)
    living = await replicas.living(conn)
    if living:
        raise StartupError(
            f"{living} replicas of this database run; stop them first. One that was killed counts "
            "for 15 seconds"
        )


def _say(found: Sequence[Given], what: str) -> None:
    for each in found:
        for name, many in each.changed.items():
            if many or name == "tasks":
                click.echo(f"{each.service}: {many} {name} {what}")
        if each.lost:
            click.echo(
                f"{each.service}: {each.lost} secrets did not open with this key; headers are to "
                "be sent anew, and a signing secret is a new one"
            )
