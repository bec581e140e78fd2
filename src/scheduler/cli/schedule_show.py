"""`scheduler schedules list|get|pending|history`."""

import contextlib
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import click
import msgspec
from msgspec import Raw

from scheduler.cli import client, times
from scheduler.cli import output as out
from scheduler.cli.client import Api
from scheduler.cli.options import Sectioned, talks
from scheduler.cli.output import JsonArray, Listing, Output
from scheduler.cli.schedule_fields import which_schedule
from scheduler.cli.task_show import Json, text

PATH = "/api/schedules"
HEADINGS = ("ID", "Name", "Status", "Rule", "Calls")
EVENT_HEADINGS = ("Event", "Run time", "Status", "Since", "Message")


class _Page(msgspec.Struct):
    schedules: list[Raw]
    page: int
    limit: int
    total: int


class _Events(msgspec.Struct):
    events: list[Json]
    page: int
    limit: int
    total: int


def path_of(schedule_id: str, rest: str = "") -> str:
    """Return where the API has a schedule."""
    return f"{PATH}/{client.part(schedule_id)}{rest}"


@click.command("list", cls=Sectioned)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Stop after so many.")
@Output
@talks
def list_schedules(api: Api, output: str, limit: int | None) -> None:
    """List schedules, the newest first, over all pages.

    \b
      scheduler schedules list
      scheduler schedules list -o json | jq -r '.[].id'
    """
    listing = Listing(*HEADINGS, spare=("Calls", "Rule"))
    count = 0
    with contextlib.ExitStack() as stack:
        bar = stack.enter_context(out.counting("schedules"))
        array = stack.enter_context(JsonArray()) if output == "json" else None
        for found in _pages(api, limit):
            left = found.schedules[: None if limit is None else limit - count]
            count += len(left)
            bar.to(count, found.total)
            if array is not None:
                array.add(left)
            else:
                listing.add(_row(msgspec.json.decode(each, type=Json)) for each in left)


def _pages(api: Api, most: int | None) -> Iterator[_Page]:
    page, limit, seen = 1, min(most or client.PAGE, client.PAGE), 0
    while True:
        answer = api.ask("GET", PATH, params={"page": page, "limit": limit})
        found: _Page = api.read(answer, _Page)
        yield found
        seen += len(found.schedules)
        if not found.schedules or seen >= min(most or found.total, found.total):
            return
        page, limit = found.page + 1, found.limit  # of large ones fewer fit on a page


def _row(schedule: Json) -> list[str]:
    return [
        text(schedule, "id"),
        text(schedule, "name"),
        text(schedule, "status"),
        text(schedule, "rrule"),
        f"{text(schedule, 'method')} {text(schedule, 'callback_url')}".strip(),
    ]


@click.command(cls=Sectioned)
@which_schedule()
@Output
@talks
def get(api: Api, schedule_id: str, output: str) -> None:
    """Show a schedule.

    \b
      scheduler schedules get standup
      scheduler schedules get --id standup -o json
    """
    answer = api.ask("GET", path_of(schedule_id))
    if output == "json":
        out.print_json(answer.content)
        return
    out.card(_pairs(api.read(answer, Json), out.utc_now()))


def _pairs(schedule: Json, now: datetime) -> Iterator[tuple[str, str]]:
    yield "ID", text(schedule, "id")
    for field in ("name", "status", "rrule"):
        yield field.capitalize(), text(schedule, field)
    yield "Calls", f"{text(schedule, 'method')} {text(schedule, 'callback_url')}".strip()
    for header, value in (schedule.get("headers") or {}).items():
        yield "Header", f"{header}: {value}"
    yield "Body", text(schedule, "body")
    yield "Created at", times.beside(schedule.get("created_at"), now)
    yield "Updated at", times.beside(schedule.get("updated_at"), now)


def _paged(command: Any) -> Any:
    limit = click.option(
        "--limit", type=click.IntRange(1, client.PAGE), default=10, help="Of a page; 10."
    )
    page = click.option("--page", type=click.IntRange(min=1), default=1, help="From 1.")
    return limit(page(command))


@click.command(cls=Sectioned)
@which_schedule()
@_paged
@Output
@talks
def pending(api: Api, schedule_id: str, limit: int, page: int, output: str) -> None:
    """List a schedule's events that have not ended, the soonest first.

    \b
      scheduler schedules pending standup
      scheduler schedules pending --id standup --limit 5 --page 2
    """
    _events(api, path_of(schedule_id, "/events/pending"), limit, page, output)


@click.command(cls=Sectioned)
@which_schedule()
@_paged
@Output
@talks
def history(api: Api, schedule_id: str, limit: int, page: int, output: str) -> None:
    """List a schedule's events that have ended, the newest first.

    \b
      scheduler schedules history standup
      scheduler schedules history standup --limit 100 -o json
    """
    _events(api, path_of(schedule_id, "/events/history"), limit, page, output)


def _events(api: Api, path: str, limit: int, page: int, shown: str) -> None:
    answer = api.ask("GET", path, params={"limit": limit, "page": page})
    if shown == "json":
        out.print_json(answer.content)
        return
    found: _Events = api.read(answer, _Events)
    listing = Listing(*EVENT_HEADINGS, spare=("Message", "Since"))
    listing.add(_event(each) for each in found.events)
    before = (found.page - 1) * found.limit
    if found.total > before + len(found.events) and found.events:
        these = f"{before + 1} to {before + len(found.events)} of {found.total}"
        out.note(f"{these}; --page {found.page + 1} has more")


def _event(event: Json) -> list[str]:
    last = event["status"][-1]
    names = ("status", "time", "message")
    return [text(event, "_id"), text(event, "run_time"), *(text(last, name) for name in names)]
