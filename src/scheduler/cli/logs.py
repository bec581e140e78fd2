"""`scheduler logs`: the log lines that are kept in the database."""

import asyncio
import re
import time
from datetime import datetime

import click
import msgspec

from scheduler import config, db, logstore, services
from scheduler.cli.database import with_database
from scheduler.config import Settings
from scheduler.db import Database
from scheduler.errors import NotFound
from scheduler.instant import FIRST, LAST
from scheduler.logs import API, LEVELS, WORKER, text_line
from scheduler.logstore import Stored, Wanted

EVERY_S = 1.0
"""How often --follow looks."""
FOLLOWED_MOST = 10_000
OVERLAP = 500
"""Numbers that are looked at again."""
PROGRAMS = {"api": API, "worker": WORKER, API: API, WORKER: WORKER}
AGO = re.compile(r"(\d{1,9})([smhdw])")
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
OFF = (
    "No log line is stored, and log.store is off: set LOG_STORE=true (or store: true below log: in "
    "the file of settings) and start the scheduler again."
)
NONE_YET = "No log line is stored yet; a running scheduler with LOG_STORE=true writes them."


class Since(click.ParamType[int]):
    """A time: so long ago, or RFC 3339."""

    name = "time"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Return milliseconds since 1970."""
        said = str(value).strip()
        ago = AGO.fullmatch(said)
        if ago is not None:
            return max(int((time.time() - int(ago[1]) * UNITS[ago[2]]) * 1000), FIRST)
        try:
            at = datetime.fromisoformat(said)
        except ValueError:
            at = None
        if at is None or at.tzinfo is None:
            self.fail(
                f"{said!r} is neither an age like 90s, 15m, 1h, 2d nor a time with its offset like "
                "2025-08-14T12:00:00Z",
                param,
                ctx,
            )
        return min(max(db.ms(at), FIRST), LAST)


class Words(click.ParamType[str]):
    """A text that the database can hold."""

    name = "text"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> str:
        """Return the text as it is."""
        said = str(value)
        try:
            said.encode()
        except UnicodeEncodeError:
            self.fail(f"{said!r} is not UTF-8, as every log line is", param, ctx)
        return said


@click.command("logs")
@click.option("--since", type=Since(), help="From then on: 15m, 1h, 2d, or 2025-08-14T12:00:00Z.")
@click.option("--level", type=click.Choice(list(LEVELS)), help="Lines of this level, and above it.")
@click.option(
    "--trace", type=Words(), metavar="ID", help="Lines of one request or run: its X-Trace-Id."
)
@click.option(
    "--service",
    type=Words(),
    metavar="NAME",
    help="Lines about a service (its name or id), or of a part of the program: api, worker.",
)
@click.option(
    "-q", "words", type=Words(), metavar="TEXT", help="Lines with this text, in any case."
)
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, until Ctrl-C.")
@click.option(
    "--limit", type=click.IntRange(1, 100_000), default=100, show_default=True,
    help="The newest so many lines.",
)  # fmt: skip
@click.option("-o", "--output", type=click.Choice(["pretty", "json"]), default="pretty")
@click.pass_obj
def logs(
    file: str | None, /, since: int | None, level: str | None, trace: str | None,
    service: str | None, words: str | None, limit: int, output: str, *, follow: bool,
) -> None:  # fmt: skip
    """Show log lines that are kept in the database (setting `log.store`).

    \b
    scheduler logs --since 1h --level error
    scheduler logs --trace aKmtdLr6B7KvWiE8
    scheduler logs -f --service billing -o json
    """
    settings = config.load(file=file)
    names = list(LEVELS)
    wanted = Wanted(
        since=since,
        levels=tuple(names[names.index(level) :]) if level else (),
        trace=trace,
        words=words,
    )

    async def work(database: Database) -> None:
        await _show(database, settings, await _about(database, wanted, service), limit, output)
        if follow:
            await _follow(database, await _about(database, wanted, service), output)

    try:
        with_database(settings, work)
    except KeyboardInterrupt:
        if not follow:
            raise


async def _about(database: Database, wanted: Wanted, service: str | None) -> Wanted:
    """Add whose lines are wanted. Raises NotFound."""
    if service is None:
        return wanted
    if service in PROGRAMS:
        return msgspec.structs.replace(wanted, service=PROGRAMS[service])
    async with database.api.connect() as conn:
        found = await services.find(conn, service)
    if found is None:
        raise NotFound(
            f"there is no service {service}; `scheduler services list` lists them, and api and "
            "worker are the parts of the program"
        )
    return msgspec.structs.replace(wanted, service_id=found.id)


async def _show(
    database: Database, settings: Settings, wanted: Wanted, limit: int, output: str
) -> None:
    async with database.api.begin() as conn:
        found = await logstore.read(conn, wanted, limit)
        newest = None if found else await logstore.newest(conn)
    _print(found, output)
    if not found:
        empty = NONE_YET if settings.log.store else OFF
        click.echo(empty if newest is None else "No stored log line is as you ask.", err=True)


async def _follow(database: Database, wanted: Wanted, output: str) -> None:
    """Print what comes, until interrupted.

    Replicas write at once, so that numbers may come in another order than they were given out:
    what is a little older than the newest is looked at again.
    """
    async with database.api.begin() as conn:
        last = await logstore.newest(conn) or 0
    seen = set(range(max(last - OVERLAP, 0), last + 1))
    while True:
        await asyncio.sleep(EVERY_S)
        async with database.api.begin() as conn:
            known = max(last - OVERLAP, 0)
            found = await logstore.read(conn, wanted, FOLLOWED_MOST, known=known)
            last = max(last, await logstore.newest(conn) or 0)
        _print([each for each in found if each.id not in seen], output)
        seen = {number for number in seen if number > known} | {each.id for each in found}


def _print(found: list[Stored], output: str) -> None:
    for each in found:
        line = each.line
        if output == "json":
            click.echo(msgspec.json.encode(line).decode())
        else:
            click.echo(text_line(line))
