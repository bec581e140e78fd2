"""The runs of a service: filters in the address, page by page, and a tail that follows them."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

import msgspec
from litestar import Request, Response, get
from litestar.di import NamedDependency

from scheduler import ledger, tasklist
from scheduler.clock import Slice
from scheduler.dashboard import caller, page, typed
from scheduler.dashboard.door import Visitor
from scheduler.db import rfc3339
from scheduler.engine import Engine
from scheduler.errors import Detail, ValidationFailed
from scheduler.ledger import END_STATES, LIVE_STATES, Query
from scheduler.runs import model
from scheduler.runs.api import cursor_of, read_cursor
from scheduler.runs.model import ShownRun
from scheduler.runs.which import KINDS, narrowed, page_of, read_query

COUNT = 50
FIELDS = ("state", "kind", "task", "trace_id", "reason", "from", "to", "q")
"""What filters, in the words of `GET /runs`."""
LONGEST = 500
TIMES = ("from", "to")
SPANS = {"hour": 3_600_000, "24 h": 86_400_000, "7 days": 7 * 86_400_000}
FILES = ("csv", "ndjson")

AnyRequest = Request[Any, Any, Any]
Who = NamedDependency[Visitor]
Machine = NamedDependency[Engine]


class Shown(msgspec.Struct):
    """A page of runs; `following` is where to go on, None at the end."""

    runs: list[ShownRun]
    following: str | None
    names: dict[str, str]
    """Of their tasks, by id."""


def asked(sent: Any) -> tuple[dict[str, str], dict[str, str]]:
    """Return what an address filters by, its times absolute; and what is wrong with a time.

    Boxes of one name are words with commas between them.
    """
    wanted, wrong = dict[str, str](), dict[str, str]()
    for name in FIELDS:
        values = [text for text in sent.getall(name, []) if text.strip()]
        text = ",".join(values) if name in ("state", "kind") else "".join(values[:1])
        text = text.strip()[:LONGEST]
        if name in TIMES and text:
            try:
                text = typed.read({typed.FIELD: sent.get(typed.FIELD, ""), name: text}, name)
            except ValidationFailed as e:
                wrong[name] = e.details[0].message
        if text:
            wanted[name] = text
    return wanted, wrong


def due(wanted: Mapping[str, str], now: int) -> Mapping[str, str]:
    """Return what a list asks for: what was due at `now` (ms), unless it asks for what is to come.

    That would fill its first page.
    """
    if "to" in wanted or "scheduled" in _words(wanted.get("state", "")):
        return wanted
    return {"to": rfc3339(now + 1) or "", **wanted}


def link(wanted: Mapping[str, str | None], *, to: str = "/dashboard/runs") -> str:
    """Return the address of the runs that are wanted."""
    sent = {name: text for name, text in wanted.items() if text}
    return f"{to}?{urlencode(sent)}" if sent else to


@get("/dashboard/runs", include_in_schema=False)
async def show_runs(request: AnyRequest, visitor: Who, engine: Machine) -> Response[Any]:
    """Return a page of the runs that fit the address, or what is wrong with it."""
    sent = request.query_params
    (wanted, wrong), now = asked(sent), engine.clock.now_ms()
    if typed.FIELD in sent and not wrong:  # the form's times have a zone, the address is absolute
        return page.leading(link({**wanted, "tail": sent.get("tail")}))
    shown, query = Shown([], None, {}), Query(service_id=visitor.service.id)
    try:
        if wrong:
            raise ValidationFailed.all([Detail(*each) for each in wrong.items()])
        query, _ = read_query(wanted, visitor.service.id)
        after = read_cursor(sent["cursor"]) if sent.get("cursor") else None
        shown = await found(engine, query.service_id, due(wanted, now), after, now, COUNT)
    except ValidationFailed as e:
        wrong = {each.field: each.message for each in e.details}
    first = not sent.get("cursor")
    return await page.large(
        "runs.html",
        status=400 if wrong else 200,
        visitor=visitor,
        now=now,
        runs=shown.runs,
        names=shown.names,
        query=query,
        wanted=bool(wanted),
        filled={name: wanted.get(name, "") for name in FIELDS},
        wrong=wrong,
        first=first,
        tail=first and not wrong and "q" not in wanted and sent.get("tail") == "1",
        states=(*LIVE_STATES, *END_STATES),
        chosen=_words(wanted.get("state", "")),
        kinds=KINDS,
        links=_links(wanted, shown.following, now),
        times=_times(request, wanted, wrong),
        scanned=ledger.SCAN,
        url=caller.asked_at(request, engine.settings),
    )


def _links(wanted: dict[str, str], following: str | None, now: int) -> dict[str, Any]:
    spans = {words: rfc3339((now - ms) // 60_000 * 60_000) for words, ms in SPANS.items()}
    return {
        "here": link(wanted),
        "tail": link({**wanted, "tail": "1"}),
        "after": link({**wanted, "cursor": following}) if following else None,
        "files": {kind: link(wanted, to=f"/dashboard/runs/export.{kind}") for kind in FILES},
        "ahead": link({**wanted, "state": "scheduled", "from": rfc3339(now), "to": None}),
        "spans": {
            words: link({**wanted, "from": since, "to": None}) for words, since in spans.items()
        },
    }


def _words(text: str) -> frozenset[str]:
    return frozenset(word.strip() for word in text.split(","))


def _times(request: AnyRequest, wanted: dict[str, str], wrong: dict[str, str]) -> typed.Times:
    own, bad = typed.readers_zone(request), any(name in wrong for name in TIMES)
    zone = request.query_params.get(typed.FIELD, "")
    return typed.shown({**wanted, typed.FIELD: zone}, TIMES, own, wrong=bad)


async def found(
    engine: Engine,
    service_id: UUID,
    wanted: Mapping[str, str],
    after: ledger.Place | None,
    now: int,
    count: int,
) -> Shown:
    """Return a page of the runs that are wanted, in one snapshot. Raises ValidationFailed."""
    query, words = read_query(wanted, service_id)
    sources = engine.runner.sources
    async with engine.database.api.connect() as connection:
        conn = await connection.execution_options(isolation_level="REPEATABLE READ")
        query = await narrowed(conn, query, wanted, sources)
        some = await page_of(conn, query, words, now, sources, after=after, count=count)
        of = {run.task_id for _, run in some.found if run.of_task and run.task_id}
        names = await tasklist.names(conn, service_id, of)
    turn, shown = Slice(), []
    for _, run in some.found:
        shown.append(model.listed(run, service_id, now, {}))
        await turn.give_way()
    return Shown(shown, cursor_of(some.following) if some.following else None, names)
