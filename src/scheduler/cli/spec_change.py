"""`scheduler specs add|update|review|delete`."""

import base64
import re
from collections.abc import Callable
from typing import Any

import click

from scheduler.cli import client
from scheduler.cli import output as out
from scheduler.cli.client import Api
from scheduler.cli.failures import Failed, Usage
from scheduler.cli.options import In, Sectioned, talks, talks_of_task
from scheduler.cli.output import Output
from scheduler.cli.spec_which import PATH, awaited, path_of, resolve, which_spec
from scheduler.cli.task_fields import Fields, read_file
from scheduler.cli.task_show import Json, text

UPLOAD_S = 120.0
WAIT_S = 300.0
ADDRESS = re.compile(r"https?://", re.IGNORECASE)
HEADER = re.compile(r"([^=:]+?)\s*(?:=|:\s*)(.*)", re.DOTALL)


def headers_of(lines: tuple[str, ...]) -> dict[str, str]:
    """Return headers that are written NAME=VALUE, or NAME: VALUE. Raises Usage."""
    found = dict[str, str]()
    for line in lines:
        parts = HEADER.fullmatch(line)
        if parts is None:
            raise Usage("--header is NAME=VALUE, or 'NAME: VALUE'")
        found[parts[1].strip()] = parts[2]
    return found


def _flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add a flag for each field of a spec, and --wait."""
    for option in (
        click.option(
            "--timeout",
            type=click.FloatRange(min=0),
            default=WAIT_S,
            metavar="SECONDS",
            help="How long --wait waits; 300.",
        ),
        click.option("--wait", is_flag=True, help="Wait until it can be called, or cannot be."),
        click.option(
            "--url",
            multiple=True,
            cls=In,
            fields=("url",),
            help="Where the API is, if its document names no server, or a relative one.",
        ),
        click.option(
            "-H",
            "--header",
            "headers",
            multiple=True,
            cls=In,
            fields=("headers",),
            metavar="NAME=VALUE",
            help="Sent with every call, like an API key; repeatable. An update replaces all.",
        ),
        click.option("-n", "--name", help="What it is called by; upper case does not count."),
    ):
        command = option(command)
    return command


@click.command(cls=Sectioned)
@click.argument("source", metavar="FILE")
@_flags
@Output
@talks_of_task
def add(api: Api, source: str, output: str, *, wait: bool, timeout: float, **given: Any) -> None:
    """Register an OpenAPI document (3.0 or 3.1, YAML or JSON) under a name.

    \b
      scheduler specs add openapi.yaml --name pets --header x-api-key=abc --wait
      curl -sS https://example.com/openapi.json | scheduler specs add - --name example

    FILE is read here, and - is standard input. It can be called as soon as its status is SUCCESS,
    which takes seconds; calls that are queued before wait for it. With --wait this exits 1 where
    it ends in ERROR.

    --url is the described API's address, and this server's is --server.
    """
    fields = {"headers": {}, **_sent(given), "spec": _document(source)}
    answer = api.ask("POST", PATH, body=client.encoded(fields), wait_s=UPLOAD_S)
    trace_id = text(api.read(answer, Json), "trace_id")
    if output == "json":
        out.print_json(answer.content)
    else:
        out.say(f"Spec {text(fields, 'name').strip().lower()} is added: trace id {trace_id}.")
    if wait:
        _wait(api, trace_id, timeout)


@click.command(cls=Sectioned)
@which_spec
@click.argument("source", metavar="[FILE]", required=False)
@_flags
@talks_of_task
def update(
    api: Api, spec: str, source: str | None, *, wait: bool, timeout: float, **given: Any
) -> None:
    """Change what is given of a spec: its document, its name, its headers, its address.

    \b
      scheduler specs update pets openapi.yaml --wait
      scheduler specs update pets --header x-api-key=def
      scheduler specs update --id pets --name animals

    A changed document goes through everything again; calls go through the one before until it has
    come to SUCCESS, and go on doing so where it ends in ERROR.
    """
    fields = _sent(given)
    if source is not None:
        fields["spec"] = _document(source)
    if not fields:
        raise Usage("update what? give a file, or a flag like --header NAME=VALUE")
    trace_id = resolve(api, spec)
    api.ask("PUT", path_of(trace_id), body=client.encoded(fields), wait_s=UPLOAD_S)
    out.say(f"Spec {spec} is changed.")
    if wait:
        _wait(api, trace_id, timeout)


@click.command(cls=Sectioned)
@which_spec
@talks
def review(api: Api, spec: str) -> None:
    """Let a spec that stands at READY_CLIENT be called, where specs.review is manual.

    \b
      scheduler specs operations pets
      scheduler specs review pets
    """
    api.ask("POST", path_of(resolve(api, spec), "/review"))
    out.say(f"Spec {spec} is reviewed.")


@click.command(cls=Sectioned)
@which_spec
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@talks
def delete(api: Api, spec: str, *, yes: bool) -> None:
    """Delete a spec: its name is free, and calls of it fail.

    \b
      scheduler specs delete pets --yes
    """
    trace_id = resolve(api, spec)
    if not yes and not out.ask(f"Delete the spec {spec}?"):
        raise Failed("nothing was done")
    api.ask("DELETE", path_of(trace_id))
    out.say(f"Spec {spec} is deleted.")


def _sent(given: dict[str, Any]) -> Fields:
    """Return the fields that flags give. Raises Usage."""
    fields: Fields = {name: value for name, value in given.items() if value not in (None, ())}
    if "headers" in fields:
        fields["headers"] = headers_of(fields["headers"])
    return fields


def _document(file: str) -> str:
    """Return a document in base64, as the API takes it. Raises Usage."""
    if ADDRESS.match(file):
        raise Usage(f"{file} is not fetched; download it first, like curl -o openapi.yaml URL")
    return base64.b64encode(read_file(file)).decode()


def _wait(api: Api, trace_id: str, most_s: float) -> None:
    """Wait until a spec can be called. Raises Failed where it cannot, or not in time."""
    with out.progress("reading the document", 0):
        found = awaited(api, path_of(trace_id), most_s)
    if found.status == "ERROR":
        raise Failed(found.error or found.message)
    if not found.ended:
        held = "; `scheduler specs review` lets it go on" if found.status == "READY_CLIENT" else ""
        raise Failed(f"it is {found.status} after {most_s:g} s: {found.message}{held}")
    out.note(found.message)
