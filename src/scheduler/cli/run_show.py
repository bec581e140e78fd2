"""`scheduler runs list|get`."""

import contextlib
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import click
import msgspec

from scheduler.cli import output as out
from scheduler.cli import times
from scheduler.cli.client import Api, RunPage
from scheduler.cli.failures import Usage
from scheduler.cli.options import Sectioned, one_of, talks
from scheduler.cli.output import JsonArray, Listing, Output
from scheduler.cli.run_filters import read, run_filters, run_path
from scheduler.cli.task_show import Json, text, took

LIMIT = 100
HEADINGS = ("ID", "Task", "Scheduled for", "State", "Attempt", "Lag", "Took", "Reason")


@click.command("list", cls=Sectioned)
@run_filters()
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=LIMIT,
    metavar="N",
    help=f"Stop after so many; default {LIMIT}.",
)
@click.option("--all", "every", is_flag=True, help="Do not stop before the end.")
@Output
@talks
def list_runs(api: Api, output: str, limit: int, *, every: bool, **filters: Any) -> None:
    """List runs, the newest first: what is planned for the next minute comes first.

    \b
      scheduler runs list
      scheduler runs list --task hello --state failed,skipped --from -1d
      scheduler runs list --state scheduled
      scheduler runs list --all -o json > runs.json
    """
    listing = Listing(*HEADINGS, spare=("Lag", "Took", "Attempt"))
    left, more, count = None if every else limit, False, 0
    with contextlib.ExitStack() as stack:
        bar = stack.enter_context(out.counting("runs"))
        array = stack.enter_context(JsonArray()) if output == "json" else None
        for page in api.cursor("/runs", read(filters), RunPage, left):
            found = page.runs[:left]
            count += len(found)
            bar.to(count)
            if array is not None:
                array.add(found)
            else:
                listing.add(run_row(msgspec.json.decode(each, type=Json)) for each in found)
            left = None if left is None else left - len(found)
            if left == 0:
                more = page.next_cursor is not None or len(found) < len(page.runs)
                break
    if more and output != "json":
        out.note(f"these are the newest {limit}; --limit or --all shows more")


def run_row(run: Json) -> list[str]:
    """Return a run's cells, as HEADINGS names them."""
    return [
        text(run, "id"),
        text(run, "task_id") or text(run, "trace_id"),
        text(run, "scheduled_for"),
        text(run, "state"),
        text(run, "attempt"),
        times.milliseconds(run.get("lag_ms")),
        times.milliseconds(run.get("duration_ms")),
        reason_of(run),
    ]


def reason_of(run: Json) -> str:
    """Say why a run ended so; of a gap, how many instants it stands for."""
    if (run.get("count") or 1) > 1:
        return f"{text(run, 'reason')}, {run['count']} instants to {text(run, 'to')}"
    return text(run, "reason")


@click.command(cls=Sectioned)
@click.argument("bare", metavar="[RUN]", required=False)
@click.option("-i", "--id", "named", metavar="RUN", help="The run's id, which may stand bare too.")
@Output
@talks
def get(api: Api, bare: str | None, named: str | None, output: str) -> None:
    """Show a run: its request, its answer and its attempts.

    \b
      scheduler runs get 01a1fef5-f74f-86d0-9ea9-17673af662f2
    """
    run_id = one_of(bare, named, "--id")
    if not run_id:
        raise Usage("which run? give its id, bare or as --id")
    answer = api.ask("GET", run_path(run_id))
    if output == "json":
        out.print_json(answer.content)
        return
    run = api.read(answer, Json)
    out.card(run_pairs(run, out.utc_now()))
    if run.get("attempts"):
        out.say("")
        listing = Listing("Attempt", "Outcome", "Code", "Started", "Took", "Error")
        listing.add(_attempt(each) for each in run["attempts"])


def run_pairs(run: Json, now: datetime) -> Iterator[tuple[str, str]]:
    """Yield the lines of a run's card."""
    yield "Run", text(run, "id")
    yield "Task", text(run, "task_id")
    yield "Trace", text(run, "trace_id")
    yield "Status", text(run, "state")
    yield "Reason", reason_of(run)
    yield "Kind", text(run, "kind")
    yield "Trigger", text(run, "trigger")
    for name, field in (
        ("Scheduled for", "scheduled_for"),
        ("Next attempt", "next_attempt_at"),
        ("Started", "started_at"),
        ("Finished", "finished_at"),
    ):
        yield name, times.beside(run.get(field), now)
    yield "Lag", times.milliseconds(run.get("lag_ms"))
    yield "Took", times.milliseconds(run.get("duration_ms"))
    request = run.get("request") or {}
    yield "Service", text(request, "service")
    where = text(request, "endpoint") or text(request, "url")
    yield "Request", f"{text(request, 'method')} {where}".strip()
    yield "Command", text(request, "command")
    more = "\n(there was more than is kept)" if run.get("truncated") else ""
    yield "Response", text(run, "response") + more


def _attempt(each: Json) -> list[str]:
    names = ("number", "outcome", "status_code", "started_at")
    return [*(text(each, name) for name in names), took(each), text(each, "error")]
