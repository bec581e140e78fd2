"""Which spec is meant, by its name or its trace id, and how far it is."""

import functools
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import click
import msgspec
from msgspec import Raw

from scheduler.cli import client, completers
from scheduler.cli.client import Api
from scheduler.cli.completers import SPECS
from scheduler.cli.failures import Failed, Refused, Usage
from scheduler.cli.options import one_of

Callback = Callable[..., Any]
PATH = "/v1/api/spec"
TRACE_ID = re.compile(r"[A-Za-z0-9]{16}")
FIRST_LOOK_S, LAST_LOOK_S = 0.02, 1.0


class Standing(msgspec.Struct):
    """How far a spec or a process is."""

    status: str
    message: str = ""
    error: str | None = None
    step: list[str] = []

    @property
    def ended(self) -> bool:
        """Say whether it comes no further."""
        return self.status in {"SUCCESS", "ERROR"}


class Page(msgspec.Struct):
    """A page of specs; `count` is how many there are in all."""

    count: int
    results: list[Raw]


class _Named(msgspec.Struct):
    trace_id: str
    name: str


def which_spec(callback: Callback) -> Callback:
    """Add SPEC and --id, either of which names a spec; it comes as `spec`."""

    @functools.wraps(callback)
    def run(*args: Any, bare: str | None, named: str | None, **more: Any) -> Any:
        if named is not None and "source" in more and more["source"] is None:
            bare, more["source"] = None, bare  # what stands bare then is the file
        spec = one_of(bare, named, "--id")
        if not spec:
            raise Usage("which spec? give its name or its trace id, bare or as --id")
        return callback(*args, spec=spec, **more)

    complete = completers.spec_names
    named = click.option(
        "-i",
        "--id",
        "named",
        metavar="SPEC",
        help="The spec's name or trace id, which may stand bare too.",
        shell_complete=complete,
    )
    bare = click.argument("bare", metavar="[SPEC]", required=False, shell_complete=complete)
    return bare(named(run))


def path_of(trace_id: str, rest: str = "") -> str:
    """Return where the API has a spec."""
    return f"{PATH}/{client.part(trace_id)}{rest}"


def pages(api: Api, *, with_client: bool = False, size: int = SPECS) -> Iterator[Page]:
    """Yield all specs, the newest first, page by page."""
    offset = 0
    while True:
        query = {"client": "true"} if with_client else None
        answer = api.ask("GET", f"{PATH}/{offset}/{size}", params=query)
        page: Page = api.read(answer, Page)
        yield page
        offset += len(page.results)
        if not page.results or offset >= page.count:
            return


def resolve(api: Api, spec: str) -> str:
    """Return the trace id of the spec that is meant. Raises Failed where there is none."""
    if TRACE_ID.fullmatch(spec):
        try:
            api.get(path_of(spec, "/status"))
        except Refused as e:  # it may be a name as well
            if e.status != 404:
                raise
        else:
            return spec
    wanted = spec.strip().lower()
    for page in pages(api):
        for raw in page.results:
            each = msgspec.json.decode(raw, type=_Named)
            if each.name == wanted:
                return each.trace_id
    raise Failed(f"there is no spec {spec}; `scheduler specs list` shows those there are")


def standing(api: Api, path: str) -> Standing:
    """Return how far the spec or process at a path is."""
    found: Standing = api.read(api.ask("GET", f"{path}/status"), Standing)
    return found


def awaited(api: Api, path: str, most_s: float | None = None) -> Standing:
    """Look until a spec or process has ended, or so many seconds have passed."""
    wait, began = FIRST_LOOK_S, time.monotonic()
    while True:
        found = standing(api, path)
        if found.ended or (most_s is not None and time.monotonic() - began > most_s):
            return found
        time.sleep(wait)
        wait = min(wait * 1.5, LAST_LOOK_S)
