"""The ledger's lists: live and finished runs in one order, read page by page.

The order is `scheduled_for`, then id, the newest first. Neither changes when a run moves between
`run` and `history`, so that a place in the list neither loses a run nor shows it twice. Ask in one
snapshot (REPEATABLE READ): a run that settles between two statements would be in both, or neither.

A page walks at most `SCAN` entries of each table: where the filter finds too little in them, the
page is short, and says where to go on.
"""

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import TextClause, text

from scheduler import codec, partitions
from scheduler.db import Conn, ms, utc, walk_in_order
from scheduler.history import Finished, finished
from scheduler.run import Line, Started, bucket_in

SCAN = 20_000
ATTEMPTS = 5_000
"""A page of runs ends early where they have had so many attempts together, in each table."""
ORDER = "ORDER BY scheduled_for DESC, id DESC"
LIVE_STATES = ("scheduled", "running", "retrying")
END_STATES = ("succeeded", "failed", "skipped", "expired", "cancelled")

Place = tuple[datetime, UUID]
"""Where a run stands in the list: (scheduled_for, id)."""
TOP: Place = (datetime.max.replace(tzinfo=UTC), UUID(int=(1 << 128) - 1))
BOTTOM = datetime.min.replace(tzinfo=UTC)

Found = tuple[Place, Started | Finished]


class Query(msgspec.Struct, kw_only=True, frozen=True):
    """Which runs to list; times in ms since 1970, None for any."""

    service_id: UUID
    keys: tuple[UUID, ...] | None = None
    """Of these tasks, processes and specs alone."""
    task_id: str | None = None
    """Of a task that is gone: by the id it had."""
    trace_id: str | None = None
    """Of a process or a spec that is gone; to be asked with its kinds."""
    run: UUID | None = None
    states: frozenset[str] = frozenset()
    reason: str | None = None
    kinds: frozenset[str] = frozenset()
    since: int | None = None
    """Included."""
    until: int | None = None
    """Excluded."""

    @property
    def live(self) -> list[str]:
        """The live states that fit: nothing that is live has a reason."""
        if self.reason is not None:
            return []
        return [s for s in LIVE_STATES if not self.states or s in self.states]

    @property
    def ended(self) -> list[str]:
        """The end states that fit: what succeeded has no reason."""
        words = [s for s in END_STATES if not self.states or s in self.states]
        return words if self.reason is None else [s for s in words if s != "succeeded"]


class Page(msgspec.Struct):
    """Runs, the newest first, and where to go on; None at the end."""

    found: list[Found]
    following: Place | None


class _Walk(msgspec.Struct, kw_only=True):
    """One way through an index, in the list's order, of each of its arms.

    `base` is what the index answers, `rest` what each entry is asked besides.
    """

    table: str
    columns: str
    base: str
    rest: list[str]
    order: str = "scheduled_for"
    arms: Sequence[Any] | None = None
    arm_type: str = "text"

    def each(self, wanted: int) -> int:
        """Return how many entries of each arm are looked at."""
        share = max(SCAN // max(len(self.arms or ()), 1), 1)
        return share if self.rest else min(wanted, share)

    def may_stop(self, found: int, wanted: int) -> bool:
        """Say whether there may be entries that fit beyond those that were looked at."""
        many = self.arms is not None and len(self.arms) > 1
        if not self.rest and self.each(wanted) == wanted:
            return False
        return found != wanted or many

    def rows(self) -> str:
        """Return the statement for the entries that fit."""
        inner = self._inner(self.columns, "LIMIT :each")
        where = f"WHERE {' AND '.join(self.rest)}" if self.rest else ""
        found = f"SELECT * FROM {self._each(inner)} {where} {ORDER} LIMIT :wanted"
        # Attempts are read where they are answered: there are 101 of a run, and each has a text.
        before = f"sum(attempts_n) OVER ({ORDER}) - attempts_n AS before"
        return (
            f"SELECT * FROM (SELECT *, {before} FROM ({found}) AS fit) AS fit "
            f"WHERE before < :attempts {ORDER}"
        )

    def stop(self) -> str:
        """Return the statement for the newest place at which an arm was cut off."""
        inner = self._inner("scheduled_for, id", "OFFSET :each - 1 LIMIT 1")
        return (
            f"SELECT scheduled_for, id FROM {self._each(inner)} "
            "ORDER BY scheduled_for DESC, id DESC LIMIT 1"
        )

    def _inner(self, columns: str, limit: str) -> str:
        at = self.order
        return (
            f"SELECT {columns} FROM {self.table} WHERE service_id = :service_id AND {self.base} "
            f"AND ({at}, id) < (:at, :id) AND {at} >= :since ORDER BY {at} DESC, id DESC {limit}"
        )

    def _each(self, inner: str) -> str:
        if self.arms is None:
            return f"({inner}) AS found"
        arms = f"unnest(CAST(:arms AS {self.arm_type}[])) AS w (arm)"
        return f"{arms}, LATERAL ({inner}) AS found"


ENDED = """id, kind, task_key, task_id, version, state, reason, scheduled_for, created_at,
          started_at, finished_at, attempts, attempts_n, NULL AS response, truncated, count,
          gap_from, gap_to"""
LIVE = """id, kind, task_key, task_id, version, scheduled_for, due, attempts, attempts_n,
          created_at, claimed_by IS NOT NULL AS claimed"""
OF_TASK = "task_id = :task_id AND kind IN ('task', 'manual')"
STATE = """(CASE WHEN claimed AND due <= :now THEN 'running' WHEN attempts_n > 0 THEN 'retrying'
           ELSE 'scheduled' END)"""


async def page(conn: Conn, query: Query, now: int, *, after: Place | None, count: int) -> Page:
    """Return a page of runs, after a place in the list; `now` in ms."""
    await walk_in_order(conn)
    values = _values(query, now, after)
    found: list[Found] = []
    stops: list[Place] = []
    short: list[_Walk] = []
    for walks in _walks(query):
        for walk, some in zip(walks, await _rows(conn, walks, values, count + 1), strict=True):
            rows = [((row.scheduled_for, row.id), _read(walk, row)) for row in some]
            found += rows
            if sum(row.attempts_n for row in some) >= ATTEMPTS:
                stops.append(min(place for place, _ in rows))
            elif walk.may_stop(len(some), count + 1):
                short.append(walk)
    if short:
        stops += await _stops(conn, short, values, count + 1)
    frontier = max(stops, default=None)
    found.sort(key=lambda each: each[0], reverse=True)
    if frontier is not None:
        found = [each for each in found if each[0] >= frontier]
    if len(found) > count:
        return Page(found[:count], found[count - 1][0])
    return Page(found, frontier)


async def _rows(
    conn: Conn, walks: Sequence[_Walk], values: dict[str, Any], wanted: int
) -> list[list[Any]]:
    """Return what each of some walks of one table finds."""
    arms, each = list(walks[0].arms or ()), walks[0].each(wanted)
    values = values | {"arms": arms, "each": each, "wanted": wanted, "attempts": ATTEMPTS}
    some = (f"SELECT {n} AS walk, w.* FROM ({walk.rows()}) AS w" for n, walk in enumerate(walks))
    found: list[list[Any]] = [[] for _ in walks]
    for row in await conn.execute(text(" UNION ALL ".join(some)), values):
        found[row.walk].append(row)
    return found


async def _stops(
    conn: Conn, walks: Sequence[_Walk], values: dict[str, Any], wanted: int
) -> list[Place]:
    """Return the newest place beyond which some of the walks know nothing; none where all do."""
    parts = []
    for n, walk in enumerate(walks):
        parts.append("(" + re.sub(r":(each|arms)", rf":\1_{n}", walk.stop()) + ")")
        values = {**values, f"each_{n}": walk.each(wanted), f"arms_{n}": list(walk.arms or ())}
    newest = f"SELECT * FROM ({' UNION ALL '.join(parts)}) AS s {ORDER} LIMIT 1"
    stop = (await conn.execute(text(newest), values)).first()
    return [] if stop is None else [(stop.scheduled_for, stop.id)]


def _values(query: Query, now: int, after: Place | None) -> dict[str, Any]:
    top = TOP if query.until is None else (utc(query.until), UUID(int=0))
    at, key = min(top, after) if after else top
    return {
        "service_id": query.service_id,
        "at": at,
        "id": key,
        "since": BOTTOM if query.since is None else utc(query.since),
        "now": utc(now),
        "live": query.live,
        "ended": query.ended,
        "kinds": list(query.kinds),
        "reason": query.reason,
        "task_id": query.task_id,
        "trace_id": query.trace_id,
        "run": query.run,
        "bucket": query.run and bucket_in(query.run),
    }


def _walks(query: Query) -> Iterable[list[_Walk]]:
    if query.ended:
        yield [_ended(query)]
    if query.live:
        yield list(_live(query))


def _ended(query: Query) -> _Walk:
    """Choose the index of history that leaves the least to be looked at."""
    states, kinds = query.ended, query.kinds
    rest = {
        "state": len(states) < len(END_STATES) and "state = ANY(:ended)",
        "kind": bool(kinds) and "kind = ANY(:kinds)",
        "reason": query.reason is not None and "reason = :reason",
        "task": query.task_id is not None and OF_TASK,
        "trace": query.trace_id is not None and "task_id = :trace_id",
    }
    walk = _Walk(table="history", columns=ENDED, base="true", rest=[])
    if "cancelled" not in states and query.since is not None:
        walk.base = "finished_at >= :since"  # only what is cancelled ends before it is due
    if query.run is not None:
        walk.base += " AND id = :run AND bucket = :bucket"
    elif query.keys is not None:
        walk.base += " AND task_key = w.arm"
        walk.arms, walk.arm_type = query.keys, "uuid"
    elif "succeeded" not in states:
        walk.base += " AND state = w.arm AND state <> 'succeeded'"
        walk.arms = states
        rest["state"] = False
    elif kinds and "task" not in kinds:
        walk.base += " AND kind = w.arm AND kind <> 'task'"
        walk.arms = sorted(kinds)
        rest["kind"] = False
    walk.rest = [condition for condition in rest.values() if condition]
    return walk


def _live(query: Query) -> Iterable[_Walk]:
    """Walk the queue: what was never moved by `due`, the rest by an index of its own."""
    rest = [f"{STATE} = ANY(:live)"] if len(query.live) < len(LIVE_STATES) else []
    rest += ["kind = ANY(:kinds)"] if query.kinds else []
    rest += [OF_TASK] if query.task_id is not None else []
    rest += ["task_id = :trace_id"] if query.trace_id is not None else []
    walk = _Walk(table="run", columns=LIVE, base="true", rest=rest)
    if query.run is not None:
        walk.base = "id = :run AND bucket = :bucket"
        yield walk
        return
    if query.keys is not None:
        walk.base = "task_key = w.arm"
        walk.arms, walk.arm_type = query.keys, "uuid"
        yield walk
        return
    begun = "" if "scheduled" in query.live else " AND due <= :now"
    walk.base, walk.order = f"due = scheduled_for{begun}", "due"
    yield walk
    yield msgspec.structs.replace(walk, base="due <> scheduled_for", order="scheduled_for")


def _read(walk: _Walk, row: Any) -> Started | Finished:
    if walk.table == "history":
        return finished(row)
    return Started(
        id=row.id,
        kind=row.kind,
        task_key=row.task_key,
        task_id=row.task_id,
        version=row.version,
        scheduled_for=ms(row.scheduled_for),
        due=ms(row.due),
        created_at=ms(row.created_at),
        attempts=codec.decode(row.attempts, row.attempts_n)[0],
        claimed=row.claimed,
    )


# What became of instants -------------------------------------------------------------------------

OLDEST = text("""
SELECT min(c.relname) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = CAST('history' AS regclass)
""")
SPANS = """unnest(CAST(:keys AS uuid[]), CAST(:since AS timestamptz[]),
            CAST(:until AS timestamptz[])) AS w (key, since, until)"""
BECAME = text(f"""
SELECT w.key, b.scheduled_for, b.gap_from, b.gap_to FROM {SPANS}, LATERAL (
    SELECT h.scheduled_for,
           CASE WHEN h.state = 'skipped' THEN coalesce(h.gap_from, h.scheduled_for) END AS gap_from,
           CASE WHEN h.state = 'skipped' THEN coalesce(h.gap_to, h.scheduled_for) END AS gap_to
    FROM history h
    WHERE h.task_key = w.key AND h.service_id = :service_id AND h.kind = 'task'
      AND h.scheduled_for > w.since AND h.scheduled_for <= w.until
    UNION ALL
    SELECT r.scheduled_for, NULL, NULL FROM run r
    WHERE r.task_key = w.key AND r.service_id = :service_id AND r.kind = 'task'
      AND r.scheduled_for > w.since AND r.scheduled_for <= w.until) AS b
""")
# A gap that reaches into a span from before it ended after what it covers, hence `finished_at`.
REACHING = text(f"""
SELECT w.key, g.gap_from, g.gap_to FROM {SPANS}, LATERAL (
    SELECT h.gap_from, h.gap_to FROM history h
    WHERE h.task_key = w.key AND h.service_id = :service_id AND h.scheduled_for <= w.since
      AND h.gap_to > w.since AND h.finished_at > w.since) AS g
""")


# What ended after an instant, and stands before it: the newest so many.
BEFORE = f"""
SELECT * FROM (
    SELECT {ENDED} FROM history
    WHERE task_key = :key AND bucket = :bucket AND service_id = :service_id
      AND scheduled_for <= :at AND finished_at >= :at
    ORDER BY scheduled_for DESC, id DESC LIMIT :most) AS h
"""
COVERING = text(BEFORE + "WHERE state = 'skipped' AND gap_to >= :at LIMIT 1")
UNDER_WAY = text(BEFORE + "WHERE started_at <= :at AND scheduled_for < :at LIMIT 1")


class Span(msgspec.Struct, frozen=True):
    """A task's instants in (since, until], in ms since 1970."""

    key: UUID
    since: int
    until: int


async def kept_from(conn: Conn) -> int | None:
    """Return from when on all of history is there, in ms since 1970; None where none is."""
    name = (await conn.execute(OLDEST)).scalar_one()
    return None if name is None else ms(partitions.week_in(name))


async def became(
    conn: Conn, service_id: UUID, spans: Sequence[Span]
) -> tuple[list[tuple[UUID, int]], list[tuple[UUID, int, int]]]:
    """Return what a service's tasks have in spans of time: (key, instant) of each run, and
    (key, first, last) of each gap that begins there; in ms since 1970.
    """
    runs, gaps = [], []
    for row in await conn.execute(BECAME, _span_values(service_id, spans)):
        if row.gap_from is None:
            runs.append((row.key, ms(row.scheduled_for)))
        else:
            gaps.append((row.key, ms(row.gap_from), ms(row.gap_to)))
    return runs, gaps


async def reaching(
    conn: Conn, service_id: UUID, spans: Sequence[Span]
) -> list[tuple[UUID, int, int]]:
    """Return the gaps that began before spans and reach into them."""
    rows = await conn.execute(REACHING, _span_values(service_id, spans))
    return [(row.key, ms(row.gap_from), ms(row.gap_to)) for row in rows]


async def covering(conn: Conn, line: Line, at: int) -> Finished | None:
    """Return the row of skipped instants that an instant (ms) of a task lies in, or None."""
    return await _before(conn, COVERING, line, at)


async def under_way(conn: Conn, line: Line, at: int) -> Finished | None:
    """Return a run of a task that has ended and was under way at an instant (ms), or None."""
    return await _before(conn, UNDER_WAY, line, at)


async def _before(conn: Conn, statement: TextClause, line: Line, at: int) -> Finished | None:
    await walk_in_order(conn)
    values = {**line.values, "at": utc(at), "most": SCAN}
    row = (await conn.execute(statement, values)).first()
    return finished(row) if row else None


def _span_values(service_id: UUID, spans: Sequence[Span]) -> dict[str, Any]:
    return {
        "service_id": service_id,
        "keys": [span.key for span in spans],
        "since": [utc(span.since) for span in spans],
        "until": [utc(span.until) for span in spans],
    }
