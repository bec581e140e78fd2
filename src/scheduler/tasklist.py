"""Lists of tasks: filters, each with an index behind it, and pages, the newest first.

Where several filters are given, the one that leaves the fewest tasks leads, and each of those is
asked the rest. Where every filter leaves more than 10,000, the list is walked in its order: what
is that common soon fills a page.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any, get_args
from uuid import UUID

import msgspec
from sqlalchemy import text

from scheduler import exclusions
from scheduler.actions import Action
from scheduler.db import Conn, walk_in_order
from scheduler.definition import Definition
from scheduler.run import bucket_of
from scheduler.task import COLUMNS, definition

TOTAL_MOST = 10_000
PAGE_BYTES = 8 << 20
"""What the tasks of a page may hold together, about; a page ends early there."""
READ_AT_ONCE = 32
COUNT_WALK = 20_000
"""How many tasks are looked at to count those that fit, where no filter leaves few."""
LOOK = 2000
"""How many of the newest tell whether a tag or a word is common."""
ACTIONS = {str(kind.__struct_config__.tag) for kind in get_args(Action) or (Action,)}


class Filter(msgspec.Struct, kw_only=True, frozen=True):
    """Which tasks to list."""

    status: str | None = None
    trigger: str | None = None
    action: str | None = None
    tag: str | None = None
    words: tuple[str, ...] = ()


def words_of(sent: str) -> tuple[str, ...]:
    """Return the first ten words of what was asked for."""
    return tuple(sent.split()[:10])


TEXT = "concat_ws(' ', name, action ->> 'url')"
# The indexes of words and of tags hold the service with each, so that nobody's lists cost by what
# others wrote. What they find is asked once more for the words and the tag as they were written.
INDEXED = r"""to_tsvector('simple', regexp_replace(
    ' ' || name || ' ' || coalesce(action ->> 'url', ''),
    '[\W_]+', ' s' || substr(CAST(service_id AS text), 29), 'g'))"""
SOUGHT = r"""(SELECT CAST(string_agg(quote_literal(lexeme) || ':*', ' & ') AS tsquery)
         FROM unnest(to_tsvector('simple', regexp_replace(:words, '[\W_]+', ' ' || :mark, 'g')))
         WHERE lexeme <> :mark)"""
RESTING = "status = :status AND status <> 'active'"
TRIGGER = "coalesce(trigger ->> 'kind', 'none') = :trigger"
ACTION = "action ->> 'kind' = :action AND action ->> 'kind' <> 'http'"
TAG = "tags @> jsonb_build_array(CAST(:tag AS text))"
# Both sides are cut at each comma, also within a tag: too much may be found, never too little.
MARKED = """string_to_array({mark} || replace(btrim(CAST({tags} AS text), '[]'),
                ', ', ', ' || {mark}), ', ')"""
INDEXED_TAG = " AND ".join(
    (
        "tags <> '[]'",
        MARKED.format(mark="('s' || substr(CAST(service_id AS text), 29))", tags="tags")
        + " @> "
        + MARKED.format(mark=":mark", tags="jsonb_build_array(CAST(:tag AS text))"),
        TAG,
    )
)
NEWEST = "ORDER BY created_at DESC, key DESC"


class Listed(msgspec.Struct):
    """A page of tasks, and how many fit; None where those are more than 10,000, or uncounted."""

    tasks: list[Definition]
    total: int | None


class _Asked(msgspec.Struct):
    """A filter as conditions: those with an index of their own, and the others."""

    values: dict[str, Any]
    indexed: dict[str, str]
    others: list[str]

    written: dict[str, str] = msgspec.field(default_factory=dict)
    """What each task is asked instead, where an index does not lead: it costs less."""

    @property
    def conditions(self) -> list[str]:
        """Every condition, as a task is asked it."""
        return [self.plain(name) for name in self.indexed] + self.others

    def plain(self, name: str) -> str:
        """Return a condition as a task is asked it that was found by another."""
        return self.written.get(name) or self.indexed[name]


def _asked(service_id: UUID, wanted: Filter) -> _Asked:
    mark = f"s{str(service_id)[28:]}"
    asked = _Asked({"service_id": service_id, "mark": mark}, {}, [])
    if wanted.status == "active":
        asked.others.append("status = 'active'")
    elif wanted.status is not None:
        asked.indexed["status"] = RESTING
        asked.values["status"] = wanted.status
    if wanted.trigger is not None:
        asked.indexed["trigger"] = TRIGGER
        asked.values["trigger"] = wanted.trigger
    if wanted.tag is not None:
        asked.written["tag"] = TAG
        asked.indexed["tag"] = INDEXED_TAG
        asked.values["tag"] = wanted.tag
    if wanted.words:
        asked.written["words"] = _worded(wanted.words, asked.values)
        asked.indexed["words"] = f"{INDEXED} @@ {SOUGHT} AND {asked.written['words']}"
    if wanted.action == "http":
        asked.others.append("action ->> 'kind' = 'http'")
    elif wanted.action is not None:
        asked.indexed["action"] = ACTION
        asked.values["action"] = wanted.action
    return asked


def _worded(words: Sequence[str], values: dict[str, Any]) -> str:
    values["words"] = " " + " ".join(words)
    parts = [f"{SOUGHT} IS NOT NULL"]
    for n, word in enumerate(words):
        parts.append(f"{TEXT} ~* :word{n}")
        values[f"word{n}"] = r"(^|\W|_)" + re.escape(word)
    return " AND ".join(parts)


def _all(conditions: Sequence[str]) -> str:
    return " AND ".join(["service_id = :service_id", *conditions])


async def page(
    conn: Conn,
    service_id: UUID,
    wanted: Filter,
    *,
    offset: int,
    count: int,
    among: Sequence[UUID] | None = None,
    counted: bool = True,
) -> Listed:
    """Return a page of a service's tasks; `among` narrows it to some keys, 10,000 or so.

    `counted` wants to know how many fit, where no filter tells it anyway.

    No more is read than the first of them that hold `PAGE_BYTES` together.
    """
    if wanted.action is not None and wanted.action not in ACTIONS:
        return Listed([], 0)
    asked = _asked(service_id, wanted)
    asked.values |= {"offset": offset, "count": count}
    if among is not None:
        asked.values["among"] = list(among)
        return await _picked(conn, asked, "key = ANY(:among)")
    if not asked.conditions:
        return await _walked(conn, asked, counted=counted)
    leads, over = await _least(conn, asked)
    if leads is not None:
        return await _picked(conn, asked, leads)
    return await _walked(conn, asked, counted=not over or len(asked.conditions) > 1)


async def _least(conn: Conn, asked: _Asked) -> tuple[str | None, bool]:
    """Return the condition that leaves the fewest tasks by its index, 10,000 at most.

    And whether some condition is known to leave more. One statement: Postgres works out no
    subselect that it needs no answer of.
    """
    least, leads, over = TOTAL_MOST + 1, None, False
    await walk_in_order(conn, bitmaps=True)
    values = {**asked.values, "most": TOTAL_MOST + 1}
    counts = [_left(asked, name) for name in asked.indexed]
    row = (await conn.execute(text(f"SELECT {', '.join(counts)}"), values)).one() if counts else ()
    for condition, found in zip(asked.indexed.values(), row, strict=True):
        over = over or found == NEARLY_ALL or found > TOTAL_MOST
        if 0 <= found < least:
            least, leads = int(found), condition
    return leads, over


NEARLY_ALL, FEW_THERE = -2, -1
"""No index is to lead: more than 10,000 of the newest fit, or all tasks were looked at."""


def _left(asked: _Asked, name: str) -> str:
    """Return how many tasks a condition leaves, counted to `:most`, as SQL.

    A tag or word that half of the newest have is looked for among the newest first.
    """
    where = _all([asked.indexed[name]])
    count = f"(SELECT count(*) FROM (SELECT FROM task WHERE {where} LIMIT :most) AS t)"
    if name not in ("tag", "words"):
        return count
    newest = f"""(SELECT count(*) AS seen, count(*) FILTER (WHERE fits) AS fit FROM (
        SELECT {asked.plain(name)} AS fits FROM task WHERE service_id = :service_id {NEWEST}
        LIMIT {{most}}) AS t) AS n"""
    return f"""CASE WHEN (SELECT seen < {LOOK} OR 2 * fit > {LOOK} FROM {newest.format(most=LOOK)})
        THEN (SELECT CASE WHEN fit > {TOTAL_MOST} THEN {NEARLY_ALL}
                          WHEN seen < {COUNT_WALK} THEN {FEW_THERE} ELSE {count} END
              FROM {newest.format(most=COUNT_WALK)})
        ELSE {count} END"""


async def _common(conn: Conn, asked: _Asked, condition: str) -> bool:
    """Say whether half of the newest fit, or there are few tasks: an index would gain nothing."""
    seen, fit = await _newest(conn, asked, condition, LOOK)
    return seen < LOOK or 2 * fit > LOOK


async def _newest(conn: Conn, asked: _Asked, condition: str, most: int) -> tuple[int, int]:
    """Return how many of the newest tasks were looked at, `most` at most, and how many fit."""
    statement = f"""
SELECT count(*) AS seen, count(*) FILTER (WHERE fits) AS fit FROM (
    SELECT {condition} AS fits FROM task WHERE service_id = :service_id {NEWEST} LIMIT :look) AS t
"""
    row = (await conn.execute(text(statement), {**asked.values, "look": most})).one()
    return int(row.seen), int(row.fit)


async def _picked(conn: Conn, asked: _Asked, leads: str) -> Listed:
    """Take all that one condition leaves, which is little, and ask each the rest."""
    rest = [c for c in asked.conditions if c != leads] or ["true"]
    of = f"""
WITH led AS MATERIALIZED (
    SELECT key, created_at, {" AND ".join(rest)} AS fits FROM task WHERE {_all([leads])})
"""
    tasks = await _read(conn, _chosen("led WHERE fits", of), asked.values)
    counting = f"{of} SELECT count(*) FROM led WHERE fits"
    total = (await conn.execute(text(counting), asked.values)).scalar_one()
    return Listed(tasks, int(total))


async def _read(conn: Conn, statement: str, values: dict[str, Any]) -> list[Definition]:
    found: list[Definition] = []
    size = 0
    few_at_once = {"yield_per": READ_AT_ONCE}
    async with conn.stream(text(statement), values, execution_options=few_at_once) as rows:
        async for some in rows.partitions():
            found += [definition(row) for row in some]
            size += sum(of.size for of in found[-len(some) :])
            if size >= PAGE_BYTES:
                break
    return await exclusions.attach(conn, found)


def _chosen(source: str, before: str = "") -> str:
    """Return the statement for a page: first the keys, then only those rows are read whole."""
    return f"""{before}
SELECT {COLUMNS} FROM task
WHERE service_id = :service_id AND key = ANY(ARRAY(
    SELECT key FROM {source} {NEWEST} OFFSET :offset LIMIT :count))
{NEWEST}
"""


async def _walked(conn: Conn, asked: _Asked, *, counted: bool) -> Listed:
    where = _all(asked.conditions)
    await walk_in_order(conn)
    tasks = await _read(conn, _chosen(f"task WHERE {where}"), asked.values)
    total = await _counted(conn, asked) if counted else None
    return Listed(tasks, total)


async def _counted(conn: Conn, asked: _Asked) -> int | None:
    """Count what fits among the newest; None where that is not all there is."""
    fits = " AND ".join(asked.conditions)
    walk = COUNT_WALK if fits else TOTAL_MOST + 1
    seen, fit = await _newest(conn, asked, fits or "true", walk)
    return None if seen == walk or fit > TOTAL_MOST else fit


async def total(conn: Conn, service_id: UUID, wanted: Filter) -> int:
    """Return how many of a service's tasks fit, however many those are."""
    asked = _asked(service_id, wanted)
    await walk_in_order(conn, bitmaps=True)
    statement = f"SELECT count(*) FROM task WHERE {_all(asked.conditions)}"
    return int((await conn.execute(text(statement), asked.values)).scalar_one())


async def sift(conn: Conn, service_id: UUID, wanted: Filter, keys: Sequence[UUID]) -> list[UUID]:
    """Return those of some tasks that fit, in the order of the list."""
    asked = _asked(service_id, wanted)
    where = _all(["key = ANY(:keys)", *asked.conditions])
    statement = f"SELECT key FROM task WHERE {where} {NEWEST}"
    return list(
        (await conn.execute(text(statement), {**asked.values, "keys": list(keys)})).scalars()
    )


async def few(conn: Conn, service_id: UUID, wanted: Filter) -> list[UUID] | None:
    """Return the keys of what one condition of a filter leaves; None where none leaves few."""
    asked = _asked(service_id, wanted)
    leads, _ = await _least(conn, asked)
    if leads is None:
        return None
    statement = f"SELECT key FROM task WHERE {_all([leads])}"
    return list((await conn.execute(text(statement), asked.values)).scalars())


class Lead(msgspec.Struct):
    """Where to look for what fits: the SQL of a filter, what is to lead first, and its values."""

    where: str
    values: dict[str, Any]
    few: bool
    """What leads leaves few: they are to be taken all, and put in order then."""


async def lead(
    conn: Conn,
    service_id: UUID,
    wanted: Filter,
    among: Sequence[UUID] | None = None,
    *,
    by: str | None = None,
) -> Lead:
    """Return how to look for tasks that fit: `among` some keys, `by` a condition, or by an index.

    By what leaves the fewest; where none leaves few, the list is to be walked in its order.
    """
    asked = _asked(service_id, wanted)
    if among is not None:
        asked.values["among"] = list(among)
        by = "key = ANY(:among)"
    if by is None and asked.indexed:
        by, _ = await _least(conn, asked)
    await walk_in_order(conn, bitmaps=by is not None)
    first = [] if by is None else [by]
    return Lead(
        _all([*first, *(each for each in asked.conditions if each != by)]),
        asked.values,
        by is not None,
    )


# Words -------------------------------------------------------------------------------------------


async def search(conn: Conn, service_id: UUID, words: Sequence[str], most: int) -> list[UUID]:
    """Return the keys of a service's tasks that fit the words, `most` at most."""
    asked = _asked(service_id, Filter(words=tuple(words)))
    condition = asked.indexed["words"]
    values = {**asked.values, "most": most}
    await walk_in_order(conn, bitmaps=True)
    if await _common(conn, asked, asked.plain("words")):
        condition = asked.plain("words")
        await walk_in_order(conn)
        statement = f"SELECT key FROM task WHERE {_all([condition])} {NEWEST} LIMIT :most"
    else:
        statement = f"SELECT key FROM task WHERE {_all([condition])} LIMIT :most"
    return list((await conn.execute(text(statement), values)).scalars())


async def fitting(
    conn: Conn, service_id: UUID, words: Sequence[str], keys: Sequence[UUID]
) -> set[UUID]:
    """Return those of some tasks that fit the words."""
    return set(await sift(conn, service_id, Filter(words=tuple(words)), keys))


NAMES = text("""
SELECT id, name FROM task
WHERE service_id = :service_id AND id = ANY(:ids) AND bucket = ANY(:buckets)
""")


async def names(conn: Conn, service_id: UUID, ids: Iterable[str]) -> dict[str, str]:
    """Map those ids of a service that have a task to its name."""
    wanted = set(ids)
    if not wanted:
        return {}
    buckets = list({bucket_of(service_id, task_id) for task_id in wanted})
    values = {"service_id": service_id, "ids": list(wanted), "buckets": buckets}
    return {row.id: row.name for row in await conn.execute(NAMES, values)}
