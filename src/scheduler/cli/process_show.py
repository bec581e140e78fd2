"""`scheduler processes status|get|response|cancel`, and how one is waited for."""

import functools
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import click
import msgspec

from scheduler.cli import client, times
from scheduler.cli import output as out
from scheduler.cli.client import Api, RunPage
from scheduler.cli.failures import Failed, Usage
from scheduler.cli.options import Sectioned, one_of, talks
from scheduler.cli.output import Output
from scheduler.cli.run_filters import run_path
from scheduler.cli.spec_show import show_standing
from scheduler.cli.spec_which import Standing, awaited, standing
from scheduler.cli.task_show import Json, text

PATH = "/v1/api/scheduler/process"
ANSWER_S = 120.0
Callback = Callable[..., Any]


def path_of(trace_id: str, rest: str = "") -> str:
    """Return where the API has a process."""
    return f"{PATH}/{client.part(trace_id)}{rest}"


def _which_process(callback: Callback) -> Callback:
    """Add TRACE_ID and --id; it comes as `trace_id`."""

    @functools.wraps(callback)
    def run(*args: Any, bare: str | None, named: str | None, **more: Any) -> Any:
        trace_id = one_of(bare, named, "--id")
        if not trace_id:
            raise Usage("which process? give its trace id, bare or as --id")
        return callback(*args, trace_id=trace_id, **more)

    named = click.option(
        "-i",
        "--id",
        "named",
        metavar="TRACE_ID",
        help="The process's trace id, which may stand bare too.",
    )
    return click.argument("bare", metavar="[TRACE_ID]", required=False)(named(run))


@click.command(cls=Sectioned)
@_which_process
@Output
@talks
def status(api: Api, trace_id: str, output: str) -> None:
    """Say how far a call is.

    \b
      scheduler processes status WE7koqi5NvmmlINj

    Exits 1 where it ended in ERROR.
    """
    show_standing(api.get(path_of(trace_id, "/status")), output)


@click.command(cls=Sectioned)
@_which_process
@Output
@talks
def get(api: Api, trace_id: str, output: str) -> None:
    """Show what is called, and how far it is; `response` has the answer.

    \b
      scheduler processes get WE7koqi5NvmmlINj
    """
    raw = api.get(path_of(trace_id))
    if output == "json":
        out.print_json(raw)
        return
    out.card(_pairs(msgspec.json.decode(raw, type=Json), out.utc_now()))


def _pairs(of: Json, now: datetime) -> Iterator[tuple[str, str]]:
    status = of.get("status") or {}
    yield "Trace ID", text(of, "trace_id")
    yield "Status", text(status, "status")
    yield "Error", text(status, "error")
    yield "Calls", f"{text(of, 'service')}: {text(of, 'method')} {text(of, 'endpoint')}"
    for name, value in (of.get("headers") or {}).items():
        yield "Header", f"{name}: {value}"
    for name, field in (("Query", "query_params"), ("Path", "url_params")):
        for key, value in (of.get(field) or {}).items():
            yield name, f"{key}: {_value(value)}"
    if of.get("req_body") is not None:
        yield "Body", _value(of["req_body"])
    for field in ("url", "callback_url", "priority", "max_retries", "timeout_seconds"):
        yield field.replace("_", " ").capitalize(), text(of, field)
    yield "Scheduled at", times.beside(of.get("scheduled_at"), now)
    yield "Created at", times.beside(of.get("timestamp"), now)


def _value(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


@click.command(cls=Sectioned)
@_which_process
@click.option("--wait", is_flag=True, help="Wait until it has ended.")
@click.option(
    "-o", "--output", "file", metavar="FILE", help="Where to; default is standard output."
)
@talks
def response(api: Api, trace_id: str, file: str | None, *, wait: bool) -> None:
    """Print what the target answered, byte for byte.

    \b
      scheduler processes response WE7koqi5NvmmlINj --wait
      scheduler processes response --id WE7koqi5NvmmlINj -o answer.json

    Exits 1 where it has not ended, or ended in ERROR.
    """
    if wait:
        print_answer(api, trace_id, file)
        return
    found = standing(api, path_of(trace_id))
    if not found.ended:
        raise Failed(f"it is {found.status}: {found.message} --wait waits for its end")
    _print(api, trace_id, found, file)


def print_answer(api: Api, trace_id: str, file: str | None = None) -> None:
    """Wait for the end of a process, and print what the target answered.

    Raises Failed where it ended in ERROR.
    """
    with out.progress(f"waiting for {trace_id}", 0):
        found = awaited(api, path_of(trace_id))
    _print(api, trace_id, found, file)


def _print(api: Api, trace_id: str, found: Standing, file: str | None) -> None:
    if found.status != "SUCCESS":
        more = f"`scheduler runs list --trace-id {trace_id}` shows its attempts"
        raise Failed(f"{found.error or found.message}\n  trace id {trace_id}; {more}")
    body = api.ask("GET", path_of(trace_id, "/response"), wait_s=ANSWER_S).content
    if file is None or file == "-":
        out.print_bytes(body)
        return
    try:
        Path(file).write_bytes(body)
    except (OSError, ValueError) as e:
        why = e.strerror if isinstance(e, OSError) else e
        raise Failed(f"{file} cannot be written: {why}") from None


@click.command(cls=Sectioned)
@_which_process
@Output
@talks
def cancel(api: Api, trace_id: str, output: str) -> None:
    """End a call that has not ended; what is under way is cut short, and may have arrived.

    \b
      scheduler processes cancel WE7koqi5NvmmlINj
    """
    api.get(path_of(trace_id, "/status"))  # another kind of run is not meant
    query: Json = {"trace_id": trace_id, "kind": "process", "limit": 1}
    found: RunPage = api.read(api.ask("GET", "/runs", params=query), RunPage)
    if not found.runs:
        raise Failed(f"the process {trace_id} has no run any more")
    run_id = text(msgspec.json.decode(found.runs[0], type=Json), "id")
    answer = api.ask("POST", f"{run_path(run_id)}/cancel")
    if output == "json":
        out.print_json(answer.content)
        return
    told = "is told to end" if answer.status_code == 202 else "is cancelled"
    out.say(f"Process {trace_id} {told}.")
