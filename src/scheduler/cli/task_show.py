"""`scheduler tasks list|get|scheduled|executions`."""

import contextlib
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import click
import httpx
import msgspec
from msgspec import Raw

from scheduler.cli import client, completers, times
from scheduler.cli import output as out
from scheduler.cli.client import Api, Params
from scheduler.cli.options import In, Sectioned, talks, which_task
from scheduler.cli.output import JsonArray, Listing, Output
from scheduler.cli.times import Time

Json = dict[str, Any]
HIDDEN = {"id", "task_id", "message", "service_id", "state", "status", "name", "header", "env"}
OF_CALL = {"service", "endpoint", "headers", "query_params", "url_params", "req_body"}
"""Fields of an operation, which are shown in words of their own."""
TIMES = ("scheduled_at", "start_at", "end_at", "paused_until", "created_at", "updated_at")
HEADINGS = ("ID", "Name", "Status", "Active", "Next due", "Trigger", "Calls")
NAMES = {"scheduled_at": "Next due", "url": "URL"}


@click.command("list", cls=Sectioned)
@click.option(
    "-s",
    "--status",
    help="active, paused, disabled; or a state.",
    shell_complete=completers.words(*completers.TASK_STATUSES, *completers.TASK_STATES),
)
@click.option(
    "--state",
    help=f"{', '.join(completers.TASK_STATES)}.",
    shell_complete=completers.words(*completers.TASK_STATES),
)
@click.option(
    "--trigger",
    help="interval, once, cron, rrule or none.",
    shell_complete=completers.words("interval", "once", "cron", "rrule", "none"),
)
@click.option(
    "--action",
    help="http, command or operation.",
    shell_complete=completers.words("http", "command", "operation"),
)
@click.option("--tag", help="A tag that it has.")
@click.option("-q", "--query", "q", help="Words, or their beginnings, in name and url.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Stop after so many.")
@Output
@talks
def list_tasks(api: Api, output: str, limit: int | None, **filters: str | None) -> None:
    """List tasks, the newest first, over all pages.

    \b
      scheduler tasks list
      scheduler tasks list --status failed --limit 20
      scheduler tasks list --trigger cron --tag daily -q report
      scheduler tasks list -o json | jq -r '.[].id'

    Status is how the task stands (created, pending, running, completed, failed); Active says
    whether anything is due.
    """
    _print(api, "/tasks", filters, output, limit)


@click.command("scheduled", cls=Sectioned)
@click.option("-f", "--from", "since", cls=In, fields=("from",), type=Time(), help="Default now.")
@click.option(
    "-t", "--to", "until", cls=In, fields=("to",), type=Time(), help="Default 24 hours later."
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Stop after so many.")
@Output
@talks
def scheduled(
    api: Api, since: str | None, until: str | None, output: str, limit: int | None
) -> None:
    """List the tasks that fire in a range of time, the soonest first.

    \b
      scheduler tasks scheduled
      scheduler tasks scheduled --from now --to +1h
      scheduler tasks scheduled -f 2027-01-01T00:00:00Z -t 2027-01-02T00:00:00Z
    """
    _print(api, "/tasks/scheduled", {"from": since, "to": until}, output, limit)


def _print(api: Api, path: str, filters: Params, shown: str, limit: int | None) -> None:
    """Print a list of tasks page by page."""
    listing = Listing(*HEADINGS, spare=("Calls", "Trigger", "Active"))
    count = 0
    with contextlib.ExitStack() as stack:
        bar = stack.enter_context(out.counting("tasks"))
        array = stack.enter_context(JsonArray()) if shown == "json" else None
        for page, total in api.pages(path, filters, limit):
            count += len(page)
            bar.to(count, total)
            if array is not None:
                array.add(page)
            else:
                listing.add(_rows(page))


def _rows(page: list[Raw]) -> Iterator[list[str]]:
    now = out.utc_now()
    for raw in page:
        task = msgspec.json.decode(raw, type=Json)
        yield [
            text(task, "id"),
            text(task, "name"),
            text(task, "state"),
            _active(task),
            times.beside(text(task, "scheduled_at"), now),
            trigger_of(task),
            _calls(task),
        ]


def text(of: Json, name: str) -> str:
    """Return a field as text; nothing for null."""
    value = of.get(name)
    return "" if value is None else str(value)


def _active(task: Json) -> str:
    return {"active": "yes"}.get(text(task, "status"), text(task, "status"))


def trigger_of(task: Json) -> str:
    """Say in a few words what makes a task due."""
    if task.get("frequency"):
        many = task["frequency"] != 1
        return f"every {task['frequency']} {task['unit']}s" if many else f"every {task['unit']}"
    if task.get("cron"):
        return f"{task['cron']} {text(task, 'timezone')}"
    if task.get("rrule"):
        return " ".join(f"{task['rrule']} {text(task, 'timezone')}".split())
    return "once" if task.get("scheduled_at") else "by hand"


def _calls(task: Json) -> str:
    if task.get("url"):
        return f"{text(task, 'method')} {task['url']}".strip()
    if task.get("service"):
        return f"{text(task, 'method')} {task['endpoint']} of {task['service']}"
    return text(task, "command")


# One ---------------------------------------------------------------------------------------------


@click.command(cls=Sectioned)
@which_task()
@Output
@talks
def get(api: Api, task_id: str, output: str) -> None:
    """Show a task.

    \b
      scheduler tasks get hello
      scheduler tasks get --id hello -o json
    """
    show(api.ask("GET", f"/tasks/{client.part(task_id)}"), output)


def show(answer: httpx.Response, shown: str, done: str = "") -> None:
    """Print a task that the API answered; `done` says what became of it."""
    if shown == "json":
        out.print_json(answer.content)
        return
    task = msgspec.json.decode(answer.content, type=Json)
    if task.get("req_body") is not None:  # as it is written: a number of 20 digits stays one
        written = msgspec.json.decode(answer.content, type=dict[str, Raw])["req_body"]
        task["req_body"] = bytes(written).decode()
    if done:
        out.say(f"Task {text(task, 'id')} is {done}.\n")
    out.card(_pairs(task, out.utc_now()))


def _pairs(task: Json, now: datetime) -> Iterator[tuple[str, str]]:
    yield "ID", text(task, "id")
    yield "Name", text(task, "name")
    yield "Status", text(task, "state")
    yield "Active", _active(task)
    yield "Trigger", trigger_of(task)
    hidden = HIDDEN
    if task.get("service"):
        yield "Calls", _calls(task)
        hidden = HIDDEN | OF_CALL | {"method"}
    for field, value in task.items():
        if field in hidden or value in (None, [], {}):
            continue
        name = NAMES.get(field) or field.replace("_", " ").capitalize()
        yield name, times.beside(value, now) if field in TIMES else _value(value)
    yield from _sent(task)
    for header, value in (task.get("header") or task.get("headers") or {}).items():
        yield "Header", f"{header}: {value}"
    for variable, value in (task.get("env") or {}).items():
        yield "Env", f"{variable}={value}"


def _sent(task: Json) -> Iterator[tuple[str, str]]:
    """Say what an operation is called with."""
    for field, name in (("url_params", "Url param"), ("query_params", "Query")):
        for param, value in (task.get(field) or {}).items():
            said = value if isinstance(value, str) else msgspec.json.encode(value).decode()
            yield name, f"{param}={said}"
    if task.get("req_body") is not None:
        yield "Body", task["req_body"]


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(str(each) for each in value)
    if isinstance(value, dict):
        return ", ".join(f"{name} {each:g}" for name, each in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)


# Executions --------------------------------------------------------------------------------------


EXECUTION = ("Run", "Attempt", "Status", "Code", "Scheduled for", "Took", "Error", "Response")
RESPONSE = 60
"""Characters of a response that a row shows; `runs get` and `-o json` have all that is kept."""


class _Executions(msgspec.Struct):
    total_count: int
    page_number: int
    records: list[Json]


@click.command(cls=Sectioned)
@which_task()
@click.option("--count", type=click.IntRange(1, client.PAGE), default=10, help="Of a page; 10.")
@click.option("--page", type=click.IntRange(min=0), default=0, help="From 0, the newest.")
@Output
@talks
def executions(api: Api, task_id: str, count: int, page: int, output: str) -> None:
    """List a task's executions: the attempts of its runs, the newest first.

    \b
      scheduler tasks executions hello
      scheduler tasks executions hello --count 100 --page 2
    """
    query = {"pageNumber": page, "count": count}
    answer = api.ask("GET", f"/tasks/{client.part(task_id)}/executions", params=query)
    if output == "json":
        out.print_json(answer.content)
        return
    found = api.read(answer, _Executions)
    listing = Listing(*EXECUTION, spare=("Response", "Took"))
    listing.add(_execution(each) for each in found.records)
    before = found.page_number * count
    if found.total_count > before + len(found.records) and found.records:
        shown = f"{before + 1} to {before + len(found.records)} of {found.total_count}"
        out.note(f"{shown}; --page {page + 1} has more")


def _execution(each: Json) -> list[str]:
    names = ("run_id", "attempt", "status", "status_code", "scheduled_for")
    said = text(each, "response").rstrip("\n")
    response = said if len(said) <= RESPONSE else f"{said[:RESPONSE]}…"
    return [*(text(each, name) for name in names), took(each), text(each, "error"), response]


def took(each: Json) -> str:
    """Say how long an attempt took; nothing while it is under way."""
    begun, ended = (times.parsed(each.get(name)) for name in ("started_at", "finished_at"))
    if begun is None or ended is None:
        return ""
    return times.milliseconds(round((ended - begun).total_seconds() * 1000))
