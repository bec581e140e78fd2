"""`scheduler tasks explain`."""

import click
import msgspec

from scheduler.cli import client
from scheduler.cli import output as out
from scheduler.cli.client import Api
from scheduler.cli.options import In, Sectioned, talks, which_task
from scheduler.cli.output import Output
from scheduler.cli.times import Time


class _Near(msgspec.Struct):
    local: str
    note: str | None


class _Run(msgspec.Struct):
    id: str
    state: str
    count: int | None
    from_: str | None = msgspec.field(name="from")
    to: str | None


class _Explained(msgspec.Struct):
    at: str
    local: str
    timezone: str
    fires: bool
    verdict: str
    reason: str
    trigger: str
    note: str | None
    previous: _Near | None
    next: _Near | None
    facts: list[str]
    run: _Run | None


@click.command(cls=Sectioned)
@which_task()
@click.option(
    "--at",
    "at",
    cls=In,
    fields=("at",),
    type=Time(),
    required=True,
    metavar="TIME",
    help="RFC 3339 with an offset, or like +10m, -1d, now.",
)
@Output
@talks
def explain(api: Api, task_id: str, at: str, output: str) -> None:
    """Say why a task fires at an instant, or why not.

    \b
      scheduler tasks explain report --at 2027-03-28T02:30:00+01:00
      scheduler tasks explain --id report --at -1d
    """
    path = f"/tasks/{client.part(task_id)}/explain"
    answer = api.ask("GET", path, params={"at": at})
    if output == "json":
        out.print_json(answer.content)
        return
    found = api.read(answer, _Explained)
    out.say(f"{'Fires' if found.fires else 'Does not fire'} at {found.at}. {found.reason}\n")
    out.card(
        [
            ("Verdict", found.verdict),
            (f"In {found.timezone}", found.local),
            ("Trigger", found.trigger),
            ("Note", found.note),
            ("Before", _near(found.previous)),
            ("After", _near(found.next)),
            ("Run", _run(found.run)),
            ("Facts", "\n".join(found.facts)),
        ]
    )


def _near(found: _Near | None) -> str | None:
    if found is None:
        return None
    return found.local + (f" ({found.note})" if found.note else "")


def _run(found: _Run | None) -> str | None:
    if found is None:
        return None
    gap = f", {found.count} instants from {found.from_} to {found.to}" if found.count else ""
    return f"{found.id} {found.state}{gap}"
