"""`scheduler tasks preview`."""

from typing import Any

import click
import msgspec

from scheduler.cli import client, task_file
from scheduler.cli import output as out
from scheduler.cli.client import Api
from scheduler.cli.failures import Usage
from scheduler.cli.options import In, Sectioned, talks_of_task, which_task
from scheduler.cli.output import Listing, Output
from scheduler.cli.task_fields import sent, task_flags
from scheduler.cli.times import Time


class _Occurrence(msgspec.Struct):
    at: str
    local: str
    note: str | None


class _Preview(msgspec.Struct):
    timezone: str
    description: str
    occurrences: list[_Occurrence]


@click.command(cls=Sectioned)
@which_task(needed=False)
@click.option("--count", type=click.IntRange(1, client.PAGE), default=10, help="How many; 10.")
@click.option(
    "--from",
    "since",
    cls=In,
    fields=("from",),
    type=Time(),
    help="From when on; default now, and it may lie in the past.",
)
@task_flags
@Output
@talks_of_task
def preview(
    api: Api,
    task_id: str | None,
    count: int,
    since: str | None,
    file: str | None,
    output: str,
    **given: Any,
) -> None:
    """Show the next instants of a task, or of a trigger that is not saved.

    \b
      scheduler tasks preview hello --count 3
      scheduler tasks preview --cron "30 2 * * *" --timezone Europe/Berlin \\
          --from 2027-03-27T00:00:00Z
      scheduler tasks preview --file task.yaml
    """
    fields = sent(given)
    query = {"count": count, "from": since}
    if task_id and (fields or file is not None):
        raise Usage("preview a saved task, or flags and a file: one of them")
    if task_id:
        answer = api.ask("GET", f"/tasks/{client.part(task_id)}/preview", params=query)
    elif fields or file is not None:
        body = client.encoded(task_file.one(file, fields))
        answer = api.ask("POST", "/tasks/preview", params=query, body=body)
    else:
        raise Usage("preview what? give a task's id, or a trigger like --cron '0 9 * * *'")
    if output == "json":
        out.print_json(answer.content)
        return
    found = api.read(answer, _Preview)
    out.say(f"{found.description}\n")
    if not found.occurrences:
        out.say("Nothing is due.")
        return
    listing = Listing("At", f"In {found.timezone}", "Note")
    listing.add([each.at, each.local, each.note or ""] for each in found.occurrences)
