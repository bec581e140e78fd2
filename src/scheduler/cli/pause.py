"""`scheduler pause` and `scheduler resume`: whether the replicas of a database run anything."""

import click

from scheduler import config
from scheduler.admin import acts
from scheduler.cli.database import with_database
from scheduler.cli.output import say
from scheduler.db import Database


@click.command()
@click.option("-r", "--reason", metavar="TEXT", help="What callers are told; default that you did.")
@click.pass_obj
def pause(file: str | None, /, reason: str | None) -> None:
    """Let no replica of this database run anything, until `scheduler resume`.

    Calls under way end. The API and the pages go on; what falls due meanwhile is judged by each
    task's misfire rule at the resume. Every replica hears of it within two seconds.

    \b
    Examples:
      scheduler pause
      scheduler pause --reason "the shop is moving"
    """

    async def work(database: Database) -> str:
        before = await acts.pause(database, reason)
        if before is not None and reason is None:
            return f"It is paused already: {before.reason}."
        return f"Paused: {reason or acts.BY_HAND}. `scheduler resume` ends it."

    say(with_database(config.load(file=file), work))


@click.command()
@click.pass_obj
def resume(file: str | None, /) -> None:
    """End a pause; a copied database is an installation of its own from then on.

    What was missed is judged by each task's misfire rule. Of a copy make sure first that the
    scheduler it was copied from is stopped, or that both may call the same targets.

    \b
    Example:
      scheduler resume
    """

    async def work(database: Database) -> str:
        before = await acts.resume(database)
        if before is None:
            return "It was not paused."
        return f"Resumed; it was paused: {before.reason}."

    say(with_database(config.load(file=file), work))
