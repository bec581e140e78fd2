"""`scheduler runs verify`."""

import sys

import click
import msgspec

from scheduler.cli import output as out
from scheduler.cli import times
from scheduler.cli.client import Api, Cursored
from scheduler.cli.options import In, Sectioned, talks
from scheduler.cli.output import Listing, Output
from scheduler.cli.times import Time

WAIT_S = 90.0
"""A call waits its turn, and then compares up to 100,000 instants."""


class _Missing(msgspec.Struct):
    task_id: str
    at: str | None


class _Doubled(msgspec.Struct):
    task_id: str
    at: str | None
    runs: int


class Verified(Cursored, kw_only=True):
    """What one call found, or all of them together."""

    from_: str | None = msgspec.field(name="from")
    to: str | None
    checked: int
    missing: list[_Missing]
    doubled: list[_Doubled]

    def add(self, other: "Verified") -> None:
        """Count what a later call found in."""
        self.checked += other.checked
        self.missing += other.missing
        self.doubled += other.doubled
        self.next_cursor = other.next_cursor


@click.command(cls=Sectioned)
@click.option(
    "--from", "since", cls=In, fields=("from",), type=Time(), help="Default 24 hours before --to."
)
@click.option("--to", "until", cls=In, fields=("to",), type=Time(), help="Default now.")
@Output
@talks
def verify(api: Api, since: str | None, until: str | None, output: str) -> None:
    """Work out anew what was due, and name every instant that has no run, or two.

    \b
      scheduler runs verify
      scheduler runs verify --from -7d
      scheduler runs verify --from 2027-01-01T00:00:00Z --to 2027-01-02T00:00:00Z -o json

    Exits 1 where something is missing or doubled.
    """
    found: Verified | None = None
    with out.progress("instants compared") as bar:
        span = {"from": since, "to": until}
        for page in api.cursor("/runs/verify", span, Verified, wait_s=WAIT_S):
            if found is None:
                found = page
            else:
                found.add(page)
            bar.to(found.checked)
    if found is None:
        return
    if output == "json":
        out.print_json(found)
    else:
        _tell(found)
    if found.missing or found.doubled:
        sys.exit(1)


def _tell(found: Verified) -> None:
    span = times.between(found.from_, found.to)
    out.say(f"{found.checked} due instants compared, from {found.from_} to {found.to}{span}.")
    if not found.missing and not found.doubled:
        out.say("None is missing, none is doubled.")
        return
    listing = Listing("Task", "Instant", "Finding")
    listing.add([each.task_id, each.at or "", "missing"] for each in found.missing)
    listing.add([each.task_id, each.at or "", f"{each.runs} runs"] for each in found.doubled)
    out.note(f"{len(found.missing)} missing, {len(found.doubled)} doubled")
