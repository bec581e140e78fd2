"""What is going on, at a glance: numbers that live, charts, and what needs somebody."""

from functools import partial
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

import msgspec
from litestar import Request, Response, get
from litestar.di import NamedDependency

from scheduler import glance, tally
from scheduler.clock import Slice
from scheduler.dashboard import caller, charts, page, shown
from scheduler.dashboard.charts import Series, Stack
from scheduler.dashboard.door import Visitor
from scheduler.dashboard.live import Contributor
from scheduler.dashboard.overview import attention
from scheduler.db import Conn, rfc3339, utc
from scheduler.engine import Engine
from scheduler.errors import ValidationFailed
from scheduler.glance import Failing, Now, Slow
from scheduler.tally import Span

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
SPANS = {"1h": (HOUR, MINUTE), "24h": (DAY, 30 * MINUTE), "7d": (7 * DAY, 3 * HOUR)}
"""What may be drawn, and how much of it one bar stands for (ms)."""
NAMES = {"1h": "the last hour", "24h": "the last 24 hours", "7d": "the last 7 days"}
LIVE_S = 5.0
"""How often the numbers of an open page are looked at again."""
DRAWN_S = {"1h": 10.0, "24h": 10.0, "7d": 30.0}
"""How often its charts are: what ended is counted every ten seconds."""

AnyRequest = Request[Any, Any, Any]
Who = NamedDependency[Visitor]
Machine = NamedDependency[Engine]


class Seen(msgspec.Struct, frozen=True):
    """A service at a glance."""

    now: Now
    spans: list[Span]
    """What is drawn, a bar each, also where nothing ended."""
    day: Span
    failing: list[Failing]
    slowest: list[Slow]


@get(["/", "/dashboard"], include_in_schema=False)
async def show_overview(request: AnyRequest, visitor: Who, engine: Machine) -> Response[Any]:
    """Return the page; `span` says how much of the past is drawn."""
    word = request.query_params.get("span") or "24h"
    if word not in SPANS:
        raise ValidationFailed.of("span", f"must be one of {', '.join(SPANS)}")
    at = engine.clock.now_ms()
    async with engine.database.api.connect() as conn:
        seen = await _seen(conn, visitor.service.id, at, word)
    turn = Slice()
    runs = _runs(seen.spans, SPANS[word][1], word)
    await turn.give_way()
    lags = _lags(seen.spans, word)
    await turn.give_way()
    return await page.large(
        "overview.html",
        visitor=visitor,
        now=at,
        seen=seen,
        runs=runs,
        lags=lags,
        notices=attention.notices(engine, seen.now, seen.day, seen.failing, at),
        spans=NAMES,
        span=word,
        late_to=rfc3339(at),
        day_query=_day(at),
        url=caller.asked_at(request, engine.settings),
        shown=glance.SHOWN,
    )


async def _seen(conn: Conn, service_id: UUID, at: int, word: str) -> Seen:
    now = await glance.now(conn, service_id, at)
    spans, day = await _spans(conn, service_id, at, word)
    since = utc(at - DAY)
    failing = await glance.failing(conn, service_id, since)
    return Seen(now, spans, day, failing, await glance.slowest(conn, service_id, since))


async def _spans(conn: Conn, service_id: UUID, at: int, word: str) -> tuple[list[Span], Span]:
    """Return what is drawn, a bar each, and the last 24 hours."""
    length, step = SPANS[word]
    until = at - at % step + step
    found, day = await _counted(conn, service_id, at, until - length, step)
    ended = {span.at: span for span in found}
    return [ended.get(t) or _nothing(t) for t in range(until - length, until, step)], day


async def _counted(
    conn: Conn, service_id: UUID, at: int, since: int, step: int
) -> tuple[list[Span], Span]:
    """Return what ended since a time in steps (ms), and in the last 24 hours, to the minute."""
    minute = at - at % MINUTE + MINUTE
    return await tally.series(conn, service_id, since, minute, step // 1000, minute - DAY)


def _nothing(at: int) -> Span:
    return Span(at, dict.fromkeys(tally.STATES, 0), {}, ())


# Charts ------------------------------------------------------------------------------------------


def _runs(spans: list[Span], step: int, word: str) -> Any:
    """Return the bars; each leads to the runs it stands for."""
    bars = [
        Stack(each.at, _between(each.at, step), each.counts, _leading(each, step)) for each in spans
    ]
    return charts.stacked(bars, label=f"Runs that ended, {NAMES[word]}")


def _between(at: int, step: int) -> str:
    return f"{shown.clock(at)[:16]} to {shown.clock(at + step)[11:16]} UTC"


def _leading(span: Span, step: int) -> str | None:
    if not any(span.counts.values()):
        return None
    sent = {"from": rfc3339(span.at), "to": rfc3339(span.at + step)}
    return f"/dashboard/runs?{urlencode(sent)}"


def _lags(spans: list[Span], word: str) -> Any:
    series = [
        Series(f"p{share}", [(each.at, each.percentile(share)) for each in spans])
        for share in tally.PERCENTILES
    ]
    return charts.lines(series, label=f"How late runs started, {NAMES[word]}")


def _day(at: int) -> str:
    """Return what has a list of runs start a day ago, to the minute."""
    return urlencode({"from": rfc3339(at - at % MINUTE - DAY)})


# Live --------------------------------------------------------------------------------------------


async def slots(engine: Engine, service_id: UUID, now: int) -> dict[str, str]:
    """Return the numbers of the page, as markup by slot."""
    async with engine.database.api.connect() as conn:
        found = await glance.now(conn, service_id, now)
        _, day = await _counted(conn, service_id, now, now - now % MINUTE, MINUTE)
    parts: Any = page.TEMPLATES.get_template("overview_parts.html").module
    made = {
        "due": parts.due(found),
        "running": parts.running(found),
        "late": parts.late(found, now),
        "succeeded": parts.succeeded(day),
        "failed": parts.failed(day),
        "skipped": parts.skipped(day),
        "reasons": parts.reasons(day, _day(now)),
    }
    return {f"overview:{name}": str(markup) for name, markup in made.items()}


async def noticed(engine: Engine, service_id: UUID, now: int) -> dict[str, str]:
    """Return what needs somebody; its forms are nobody's yet."""
    async with engine.database.api.connect() as conn:
        found = await glance.now(conn, service_id, now)
        _, day = await _counted(conn, service_id, now, now - now % MINUTE, MINUTE)
        failing = await glance.failing(conn, service_id, utc(now - DAY))
    parts: Any = page.TEMPLATES.get_template("overview_parts.html").module
    notices = attention.notices(engine, found, day, failing, now)
    return {"overview-notices:all": str(parts.notices(notices))}


async def drawn(word: str, engine: Engine, service_id: UUID, now: int) -> dict[str, str]:
    """Return the charts of a span of the past."""
    async with engine.database.api.connect() as conn:
        spans, _ = await _spans(conn, service_id, now, word)
    turn = Slice()
    runs = str(_runs(spans, SPANS[word][1], word))
    await turn.give_way()
    return {f"overview-{word}:runs": runs, f"overview-{word}:lags": str(_lags(spans, word))}


LIVE = [
    Contributor("overview", slots, LIVE_S),
    Contributor("overview-notices", noticed, DRAWN_S["24h"]),
    *(Contributor(f"overview-{word}", partial(drawn, word), DRAWN_S[word]) for word in SPANS),
]
