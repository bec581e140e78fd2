"""`scheduler tasks backfill`."""

from typing import Any

import click
import msgspec

from scheduler.cli import client
from scheduler.cli import output as out
from scheduler.cli.client import Api, ApiRefused
from scheduler.cli.failures import Failed
from scheduler.cli.options import In, Sectioned, talks, which_task
from scheduler.cli.output import Output
from scheduler.cli.times import Time

WAIT_S = 120.0
"""A call looks at up to 10,000 instants, and makes as many runs."""


class Backfilled(msgspec.Struct):
    """What one call found and made, or all of them together."""

    task_id: str
    dry_run: bool
    from_: str | None = msgspec.field(name="from")
    to: str | None
    matched: int
    existing: int
    excluded: int
    forgotten: int
    lacking: int
    first: str | None
    last: str | None
    made: int
    last_due: str | None
    next: str | None

    def add(self, later: "Backfilled") -> None:
        """Count in what the call after it found."""
        for name in ("matched", "existing", "excluded", "forgotten", "lacking", "made"):
            setattr(self, name, getattr(self, name) + getattr(later, name))
        self.first = self.first or later.first
        self.last = later.last or self.last
        self.last_due = later.last_due or self.last_due
        self.to, self.next = later.to, later.next


@click.command(cls=Sectioned)
@which_task()
@click.option(
    "--from",
    "since",
    cls=In,
    fields=("from",),
    type=Time(),
    required=True,
    metavar="TIME",
    help="The first instant, included: RFC 3339 with an offset, or like -7d.",
)
@click.option(
    "--to",
    "until",
    cls=In,
    fields=("to",),
    type=Time(),
    default="now",
    metavar="TIME",
    help="The last one, included; default now.",
)
@click.option(
    "--per-minute",
    cls=In,
    fields=("per_minute",),
    type=int,
    help="How many of the runs fall due in a minute.",
)
@click.option("--dry-run", is_flag=True, help="Count, and make nothing.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@Output
@talks
def backfill(
    api: Api,
    task_id: str,
    since: str,
    until: str,
    per_minute: int | None,
    output: str,
    *,
    dry_run: bool,
    yes: bool,
) -> None:
    """Make runs for instants that have passed and have none.

    \b
      scheduler tasks backfill report --from 2027-01-01T00:00:00Z --to 2027-01-31T00:00:00Z
      scheduler tasks backfill report --from -7d --dry-run
      scheduler tasks backfill --id report --from -7d --per-minute 60 --yes

    They are counted first, and you are asked. They fall due one after the other from now on; to
    say it again makes none twice.
    """
    body: dict[str, Any] = {"from": since, "to": until, "per_minute": per_minute}
    path = f"/tasks/{client.part(task_id)}/backfill"
    if dry_run or not yes:
        counted = _all(api, path, {**body, "dry_run": True}, "instants counted")
        if dry_run or not counted.lacking:
            _tell(counted, output)
            return
        runs = "run" if counted.lacking == 1 else "runs"
        span = f"from {counted.first} to {counted.last}"
        if not out.ask(f"Make {counted.lacking} {runs}, for instants {span}?"):
            raise Failed("nothing was made")
    _tell(_all(api, path, body, "instants looked at"), output)


def _all(api: Api, path: str, body: dict[str, Any], what: str) -> Backfilled:
    """Ask until there is nothing more to look at; what a quota refuses is left."""
    found: Backfilled | None = None
    with out.progress(what) as bar:
        while True:
            try:
                answer = api.ask("POST", path, body=client.encoded(body), wait_s=WAIT_S)
            except ApiRefused as e:
                if found is None or e.status != 429:
                    raise
                return found  # a quota; `next` says where to go on
            page: Backfilled = api.read(answer, Backfilled)
            if found is None:
                found = page
            else:
                found.add(page)
            bar.to(found.matched)
            if page.next is None or (not page.dry_run and page.made < page.lacking):
                return found
            body = {**body, "from": page.next}


def _tell(found: Backfilled, output: str) -> None:
    if output == "json":
        out.print_json(found)
    else:
        out.say(_words(found))
    if found.next is not None:
        raise Failed(f"there is more, from {found.next} on; say it again from there")


def _have(number: int) -> str:
    return "has" if number == 1 else "have"


def _words(found: Backfilled) -> str:
    parts = [f"{found.existing} {_have(found.existing)} a run"]
    if found.excluded:
        parts.append(f"a calendar excludes {found.excluded}")
    if found.forgotten:
        are = "is" if found.forgotten == 1 else "are"
        parts.append(f"{found.forgotten} {are} older than history")
    parts.append(f"{found.lacking} {_have(found.lacking)} none")
    instants = "instant" if found.matched == 1 else "instants"
    said = f"{found.matched} {instants} from {found.from_} to {found.to}: {', '.join(parts)}."
    if found.made:
        said += f"\n{found.made} made; the last is due at {found.last_due}."
    return said
