"""Which runs are meant: the filters of `/runs` as options."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import click

from scheduler.cli import completers
from scheduler.cli.failures import Failed
from scheduler.cli.options import In
from scheduler.cli.times import Time

Filters = dict[str, str | None]
STATES = (*completers.LIVE_STATES, *completers.END_STATES)


def run_filters(*, times: bool = True) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add an option for each filter; `read` turns them into what the API is asked."""
    words: dict[str, Any] = {"cls": In, "section": "Which runs"}
    options = [
        click.option("--task", help="Of this task.", shell_complete=completers.task_ids, **words),
        click.option("--trace-id", help="Of this process or spec.", **words),
        click.option(
            "--state",
            help=f"One or more, with commas: {', '.join(STATES)}.",
            shell_complete=completers.listed(*STATES),
            **words,
        ),
        click.option("--reason", help="Exactly as it is shown.", **words),
        click.option(
            "--kind",
            help="task (a due instant), manual (by hand), process, spec; with commas.",
            shell_complete=completers.listed(*completers.RUN_KINDS),
            **words,
        ),
        click.option("-q", "--query", "q", help="Words of a task, or an id.", **words),
    ]
    if times:
        options += [
            click.option(
                "--from",
                "since",
                type=Time(),
                fields=("from",),
                help="Due at or after it, like -1h.",
                **words,
            ),
            click.option(
                "--to", "until", type=Time(), fields=("to",), help="Due before it.", **words
            ),
        ]

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def read(given: dict[str, Any]) -> Filters:
    """Return the filters by the API's names, those that were given."""
    renamed = {"since": "from", "until": "to"}
    return {renamed.get(name, name): value for name, value in given.items() if value}


def run_path(run_id: str) -> str:
    """Return a run's address. Raises Failed for what is no run's id."""
    try:
        return f"/runs/{UUID(run_id)}"
    except ValueError:
        raise Failed(f"there is no run {run_id}; `scheduler runs list` shows their ids") from None
