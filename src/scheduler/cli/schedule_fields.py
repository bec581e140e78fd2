"""The fields of a schedule as flags, and which schedule is meant."""

import functools
from collections.abc import Callable
from typing import Any

import click

from scheduler.cli import completers, task_fields
from scheduler.cli.failures import Usage
from scheduler.cli.options import In, one_of
from scheduler.cli.task_fields import METHODS, Fields

Callback = Callable[..., Any]
NAMES = {"header": "headers", "payload": "body"}
"""What the flags of a task are called in a schedule."""


def schedule_flags(command: Callback) -> Callback:
    """Add a flag for each field of a schedule, and --file."""
    for flag in (
        click.option(
            "-f",
            "--file",
            metavar="FILE",
            type=click.Path(dir_okay=False, allow_dash=True),
            help="A schedule as JSON or YAML, - for standard input; flags win over it.",
        ),
        click.option(
            "-s",
            "--status",
            help="active, paused or disabled.",
            shell_complete=completers.words(*completers.TASK_STATUSES),
        ),
        click.option(
            "--json",
            metavar="JSON|@FILE",
            help="The body, an object or array, sent as application/json.",
        ),
        click.option(
            "--body",
            "payload",
            metavar="TEXT|@FILE",
            cls=In,
            fields=("body",),
            help="The body, as it is; @file reads it from a file, @- from standard input.",
        ),
        click.option(
            "-H",
            "--header",
            multiple=True,
            metavar="'NAME: VALUE'",
            cls=In,
            fields=("headers",),
            help="A header; repeatable. An update replaces all of them.",
        ),
        click.option("--method", help="Default POST.", shell_complete=completers.words(*METHODS)),
        click.option("--callback-url", metavar="URL", help="The address that it calls."),
        click.option("--timezone", metavar="ZONE", help="Of a rule that names none; default UTC."),
        click.option(
            "--rrule",
            metavar="RULE",
            help="An RRULE, with or without DTSTART; \\n stands for the end of a line.",
        ),
        click.option("-n", "--name", help="Its name, 1 to 200 characters."),
    ):
        command = flag(command)
    return command


def sent(given: dict[str, Any]) -> Fields:
    """Return the fields that flags give, and nothing for those that were not. Raises Usage."""
    return {NAMES.get(name, name): value for name, value in task_fields.sent(given).items()}


def which_schedule(*, needed: bool = True) -> Callable[[Callback], Callback]:
    """Add SCHEDULE and --id, either of which names a schedule; it comes as `schedule_id`."""

    def add(callback: Callback) -> Callback:
        @functools.wraps(callback)
        def run(*args: Any, bare: str | None, named: str | None, **more: Any) -> Any:
            schedule_id = one_of(bare, named, "--id")
            if needed and not schedule_id:
                raise Usage("which schedule? give its id, bare or as --id")
            return callback(*args, schedule_id=schedule_id, **more)

        complete = completers.task_ids
        named = click.option(
            "-i",
            "--id",
            "named",
            metavar="SCHEDULE",
            help="The schedule's id, which may stand bare too.",
            shell_complete=complete,
        )
        bare = click.argument("bare", metavar="[SCHEDULE]", required=False, shell_complete=complete)
        return bare(named(run))

    return add
