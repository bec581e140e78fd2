"""`scheduler tasks execute|schedule`."""

import secrets
import sys
from typing import Any

import click
import msgspec

from scheduler.cli import client
from scheduler.cli import output as out
from scheduler.cli.client import Api
from scheduler.cli.options import In, Sectioned, talks, which_task
from scheduler.cli.output import Output
from scheduler.cli.run_show import run_pairs
from scheduler.cli.task_show import Json, text, took
from scheduler.cli.times import Time

SLACK_S = 30.0
"""Beyond a task's timeout, for the API's own answer."""


class _Timeout(msgspec.Struct):
    timeout_seconds: float | None = None


@click.command(cls=Sectioned)
@which_task()
@click.option("-a", "--async", "at_once", is_flag=True, help="Do not wait for its end.")
@click.option("--retry", is_flag=True, help="Try again as often as the task says.")
@Output
@talks
def execute(api: Api, task_id: str, output: str, *, at_once: bool, retry: bool) -> None:
    """Run a task now, and wait for its end: at most its timeout.

    \b
      scheduler tasks execute hello
      scheduler tasks execute --id hello --async
      scheduler tasks execute hello --retry && echo well

    Exits 1 where the run failed, or has not ended in that time.
    """
    path = f"/tasks/{client.part(task_id)}"
    wait = SLACK_S
    if not at_once:
        wait += api.read(api.ask("GET", path), _Timeout).timeout_seconds or 0
    query = {"async": "true" if at_once else None, "retry": "true" if retry else None}
    # Of two that are the same request, sent again by something on the way, one run is made.
    key = secrets.token_hex(16)
    with out.progress(f"running {task_id}", 0):
        answer = api.ask("POST", f"{path}/execute", params=query, wait_s=wait, key=key)
    found = api.read(answer, Json)
    if output == "json":
        out.print_json(answer.content)
    elif answer.status_code == 202:
        out.card(run_pairs(found, out.utc_now()))
    else:
        out.card(_execution(found))
    if answer.status_code == 202 and not at_once:
        out.note(f"it has not ended yet; see `scheduler runs get {text(found, 'id')}`")
        sys.exit(1)
    if answer.status_code == 200 and found.get("status") != "success":
        sys.exit(1)


def _execution(of: Json) -> list[tuple[str, Any]]:
    return [
        ("Run", text(of, "run_id")),
        ("Status", text(of, "status")),
        ("Code", text(of, "status_code")),
        ("Took", took(of)),
        ("Error", text(of, "error")),
        ("Response", text(of, "response")),
    ]


class _Scheduled(msgspec.Struct):
    task_id: str
    scheduled_at: str | None
    run_id: str | None


@click.command(cls=Sectioned)
@which_task()
@click.option(
    "--at",
    "at",
    cls=In,
    fields=("scheduled_at", "at"),
    type=Time(),
    required=True,
    metavar="TIME",
    help="RFC 3339 with an offset, or like +10m; the past is now.",
)
@Output
@talks
def schedule(api: Api, task_id: str, at: str, output: str) -> None:
    """Run a task at a time of your own.

    \b
      scheduler tasks schedule --id hello --at "2027-12-01T15:00:00Z"
      scheduler tasks schedule hello --at +10m

    A task without a recurring trigger gets this time; any other runs once more.
    """
    body = client.encoded({"scheduled_at": at})
    answer = api.ask("POST", f"/tasks/{client.part(task_id)}/schedule", body=body)
    if output == "json":
        out.print_json(answer.content)
        return
    found = api.read(answer, _Scheduled)
    run = f" (run {found.run_id})" if found.run_id else ""
    out.say(f"Task {found.task_id} is scheduled for {found.scheduled_at}{run}.")
