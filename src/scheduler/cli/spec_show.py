"""`scheduler specs list|get|status|operations|impact|client`."""

import base64
import contextlib
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import click
import msgspec
import yaml
from msgspec import Raw

from scheduler.cli import output as out
from scheduler.cli import times
from scheduler.cli.client import Api, Cursored
from scheduler.cli.failures import Failed, Usage
from scheduler.cli.options import Sectioned, talks
from scheduler.cli.output import JsonArray, Listing, Output
from scheduler.cli.spec_which import pages, path_of, resolve, which_spec
from scheduler.cli.task_show import Json, text
from scheduler.masking import MASK, is_secret

PACKAGE_S = 600.0
"""Of a large document, where others are before it."""
IMPACT_S = 60.0
MISFIT = ("task_id", "name", "endpoint", "field", "reason")
HEADINGS = ("Trace ID", "Name", "Status", "Updated", "Error")


class _Impact(Cursored):
    checked: int
    tasks: list[Json]


@click.command("list", cls=Sectioned)
@Output
@talks
def list_specs(api: Api, output: str) -> None:
    """List specs, the newest first, over all pages.

    \b
      scheduler specs list
      scheduler specs list -o json | jq -r '.[].name'
    """
    listing, count = Listing(*HEADINGS, spare=("Updated",)), 0
    with contextlib.ExitStack() as stack:
        bar = stack.enter_context(out.counting("specs"))
        array = stack.enter_context(JsonArray()) if output == "json" else None
        for page in pages(api):
            count += len(page.results)
            bar.to(count, page.count)
            if array is not None:
                array.add(page.results)
            else:
                listing.add(_row(msgspec.json.decode(each, type=Json)) for each in page.results)


def _row(spec: Json) -> list[str]:
    status = spec.get("status") or {}
    return [
        text(spec, "trace_id"),
        text(spec, "name"),
        text(status, "status"),
        times.beside(text(spec, "updated_at"), out.utc_now()),
        text(status, "error"),
    ]


@click.command(cls=Sectioned)
@which_spec
@click.option("--spec", "document", is_flag=True, help="Print its document, and nothing else.")
@click.option("--client", "compiled", is_flag=True, help="Show what its document compiled to.")
@Output
@talks
def get(api: Api, spec: str, output: str, *, document: bool, compiled: bool) -> None:
    """Show a spec, or print its document.

    \b
      scheduler specs get pets
      scheduler specs get --id pets --client
      scheduler specs get pets --spec > openapi.yaml
      scheduler specs get pets --spec --client -o json

    With -o json, --spec and --client add fields to what the API answers.
    """
    raw = _get(api, spec, document=document, compiled=compiled)
    if output == "json":
        out.print_json(raw)
        return
    found = msgspec.json.decode(raw, type=Json)
    if document:
        out.print_bytes(base64.b64decode(found["spec"]))
        return
    out.card(_pairs(found, out.utc_now()))


def _get(api: Api, spec: str, *, document: bool = False, compiled: bool = False) -> bytes:
    query = {"spec": "true" if document else None, "client": "true" if compiled else None}
    return api.get(path_of(resolve(api, spec)), query)


def _pairs(spec: Json, now: datetime) -> Iterator[tuple[str, str]]:
    status, client = spec.get("status") or {}, spec.get("client") or {}
    yield "Trace ID", text(spec, "trace_id")
    yield "Name", text(spec, "name")
    yield "Status", text(status, "status")
    yield "Error", text(status, "error")
    yield "URL", text(spec, "url") or text(client, "url")
    for server in client.get("servers") or []:
        yield "Server", str(server)
    for name, value in (spec.get("headers") or {}).items():
        yield "Header", f"{name}: {MASK if is_secret(name) else value}"
    if client:
        yield "Endpoints", str(len(client.get("endpoints") or {}))
        yield "Takes headers", ", ".join(client.get("headers") or [])
    yield "Created at", times.beside(spec.get("created_at"), now)
    yield "Updated at", times.beside(spec.get("updated_at"), now)


@click.command(cls=Sectioned)
@which_spec
@Output
@talks
def status(api: Api, spec: str, output: str) -> None:
    """Say how far a spec is, on its way to SUCCESS.

    \b
      scheduler specs status pets

    Exits 1 where it ended in ERROR.
    """
    answer = api.ask("GET", path_of(resolve(api, spec), "/status"))
    show_standing(answer.content, output)


def show_standing(raw: bytes, output: str) -> None:
    """Print how far a spec or a process is. Raises Failed where it ended in ERROR."""
    found = msgspec.json.decode(raw, type=Json)
    if output == "json":
        out.print_json(raw)
    else:
        pairs = [(name.capitalize(), text(found, name)) for name in ("status", "message", "error")]
        out.card([*pairs, *(("Step", str(step)) for step in found.get("step") or [])])
    if found.get("status") == "ERROR":
        raise Failed(text(found, "error") or text(found, "message"))


# What can be called ------------------------------------------------------------------------------


@click.command(cls=Sectioned)
@which_spec
@Output
@talks
def operations(api: Api, spec: str, output: str) -> None:
    """List what can be called: parameters with a * have to be there.

    \b
      scheduler specs operations pets
      scheduler processes run pets "GET /pets/{id}" -u id=7 --wait
    """
    json = output == "json"
    found = msgspec.json.decode(_get(api, spec, document=not json, compiled=True), type=Json)
    compiled: Json = found.get("client") or {}
    if json:
        out.print_json(compiled)
        return
    endpoints: dict[str, list[Json]] = compiled.get("endpoints") or {}
    refused: Json = compiled.get("refused") or {}
    said = _said(base64.b64decode(found["spec"]))
    listing = Listing("Endpoint", "Parameters", "Summary", "Cannot be called", spare=("Summary",))
    listing.add(
        [name, _parameters(parameters, said.get(name, {})), text(said.get(name, {}), "summary"),
         text(refused, name)]
        for name, parameters in endpoints.items()
    )  # fmt: skip


def _parameters(parameters: list[Json], said: Json) -> str:
    words = [f"{text(each, 'name')}{'*' if each.get('required') else ''}" for each in parameters]
    return " ".join([*words, *(["(body)"] if "requestBody" in said else [])])


def _said(source: bytes) -> dict[str, Json]:
    """Return by endpoint what a document says of it itself; nothing where it cannot be read."""
    try:
        document = yaml.load(source, Loader=yaml.CSafeLoader)
        return {
            f"{method.upper()} {path}": operation
            for path, item in document["paths"].items()
            for method, operation in item.items()
            if isinstance(method, str) and isinstance(operation, dict)
        }
    except (yaml.YAMLError, RecursionError, LookupError, TypeError, AttributeError, ValueError):
        return {}


@click.command(cls=Sectioned)
@which_spec
@Output
@talks
def impact(api: Api, spec: str, output: str) -> None:
    """List the tasks that do not fit what their spec has become.

    \b
      scheduler specs impact pets

    Exits 1 where there are any.
    """
    path, found, checked = path_of(resolve(api, spec), "/impact"), list[Json](), 0
    listing = Listing("Task", "Name", "Endpoint", "Field", "Why", spare=("Name",))
    with contextlib.ExitStack() as stack:
        bar = stack.enter_context(out.counting("tasks"))
        array = stack.enter_context(JsonArray()) if output == "json" else None
        for page in api.cursor(path, {}, _Impact, wait_s=IMPACT_S):
            checked += page.checked
            bar.to(checked)
            found += page.tasks
            if array is not None:
                array.add(Raw(msgspec.json.encode(each)) for each in page.tasks)
            elif page.tasks:
                listing.add([text(each, name) for name in MISFIT] for each in page.tasks)
    if found:
        raise Failed(f"{len(found)} of {checked} tasks do not fit {spec}")
    if output != "json":
        out.say(f"Every task that calls {spec} fits it ({checked} looked at).")


@click.command("client", cls=Sectioned)
@which_spec
@click.option(
    "-o",
    "--output",
    "file",
    metavar="FILE",
    help="Where to; default NAME-client.zip, - for standard output.",
)
@talks
def package(api: Api, spec: str, file: str | None) -> None:
    """Download a typed Python client, generated from the spec's document, as a zip.

    \b
      scheduler specs client pets -o pets.zip
      unzip pets.zip && pip install ./pets-client

    What of the document the generator cannot express is named in its LEFT_OUT.txt.
    """
    trace_id = resolve(api, spec)
    with out.progress("writing the client", 0):
        body = api.ask("GET", path_of(trace_id, "/files/client.zip"), wait_s=PACKAGE_S).content
    if file == "-":
        out.print_bytes(body)
        return
    path = Path(file or f"{spec}-client.zip")
    if file is None and path.name != str(path):
        raise Usage("that name is no name of a file; say where to with --output FILE")
    try:
        path.write_bytes(body)
    except (OSError, ValueError) as e:
        why = e.strerror if isinstance(e, OSError) else e
        raise Failed(f"{path} cannot be written: {why}") from None
    out.say(f"{path} is written ({len(body)} bytes).")
