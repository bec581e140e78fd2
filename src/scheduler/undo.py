"""What was asked of tasks from the dashboard, what became of it, and what it takes to undo it.

A row for each task of an act. It is written before anything is done, so that an act of thousands
is gone through in pieces, and by nobody twice. A deleted task's row is kept as it was, its secrets
sealed; nothing else knows of it until it is brought back.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import (
    CheckConstraint,
    Column,
    DateTime,
    Index,
    Integer,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import IntegrityError

from scheduler import db
from scheduler.db import Conn, metadata, ms
from scheduler.definition import Definition
from scheduler.errors import Conflict
from scheduler.run import Line
from scheduler.task import COLUMNS, definition

UNDO = Table(
    "undo",
    metadata,
    Column("act", Uuid, nullable=False),
    Column("key", Uuid, nullable=False),
    Column("bucket", SmallInteger, nullable=False),
    Column("service_id", Uuid, nullable=False),
    Column("kind", Text, nullable=False),
    Column("id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("said", Text),
    Column("version", Integer),
    Column("before", JSONB),
    Column("at", DateTime(timezone=True), nullable=False),
    PrimaryKeyConstraint("act", "key", "bucket", name="undo_pkey"),
    CheckConstraint("kind IN ('pause', 'resume', 'run', 'delete')", name="undo_kind_check"),
    CheckConstraint("state IN ('asked', 'done', 'refused', 'undone')", name="undo_state_check"),
    Index("undo_service", "service_id", "at", "key"),
    Index("undo_at", "at"),
)

LASTS_S = 3600
"""How long an act can be undone, and what became of it be read."""
PIECE = 500


class Deed(msgspec.Struct, frozen=True):
    """One task of an act, and what became of it."""

    act: UUID
    line: Line
    kind: str
    id: str
    name: str
    state: str
    """asked, done, refused, or undone."""
    said: str | None
    """Why it was refused, in a sentence; where it is done, why undoing it was."""
    version: int | None
    """Of the task, as the act left it; of a deleted one the last."""
    at: int
    """In ms since 1970."""


class Count(msgspec.Struct, frozen=True):
    """How far an act has come."""

    kind: str
    states: dict[str, int]
    stuck: int
    """How many are done, and could not be undone."""
    name: str
    """Of one of its tasks."""

    def of(self, state: str) -> int:
        """Return how many of its tasks are in a state."""
        return self.states.get(state, 0)

    @property
    def total(self) -> int:
        """How many tasks it is about."""
        return sum(self.states.values())

    @property
    def undoable(self) -> int:
        """How many of them can be undone."""
        return self.of("done") if self.kind in ("pause", "delete") else 0


class Kept(msgspec.Struct, frozen=True):
    """What a pause keeps of a task."""

    status: str
    paused_until: int | None
    """In ms since 1970."""


class Deleted(msgspec.Struct, frozen=True):
    """A deleted task as it was, and its plan; times in ms since 1970."""

    of: Definition
    deleted_at: int
    planned_until: int
    planned_runs: int
    """Without those whose instants were still to come."""


# An act -------------------------------------------------------------------------------------------

ASK = text("""
INSERT INTO undo (act, key, bucket, service_id, kind, id, name, state, at)
SELECT :act, u.key, u.bucket, :service_id, :kind, u.id, u.name, 'asked', :now
FROM unnest(CAST(:keys AS uuid[]), CAST(:buckets AS smallint[]), CAST(:ids AS text[]),
            CAST(:names AS text[])) AS u (key, bucket, id, name)
ON CONFLICT DO NOTHING
""")
DEEDS = """
SELECT act, key, bucket, service_id, kind, id, name, state, said, version, at FROM undo
WHERE act = :act AND service_id = :service_id AND state = :state
"""
NEXT = text(DEEDS + "AND said IS NULL ORDER BY id, key LIMIT :most")
TOLD = text(DEEDS + "AND said IS NOT NULL ORDER BY id, key LIMIT :most")
AGAIN = text("""
UPDATE undo SET said = NULL
WHERE act = :act AND service_id = :service_id AND state = 'done' AND said IS NOT NULL
""")
COUNTED = """SELECT json_agg(json_build_array(kind, state, number, told, name)) FROM (
    SELECT kind, state, count(*) AS number, count(said) AS told, min(name) AS name FROM undo
    WHERE act = :act AND service_id = :service_id GROUP BY kind, state) AS counted"""
"""How far an act has come, as `counted` reads it; also for a statement of others."""
COUNT = text(COUNTED)
SETTLE = text("""
UPDATE undo SET state = :state, said = :said
WHERE act = :act AND key = :key AND bucket = :bucket AND service_id = :service_id
    AND state = :was
""")
KEEP = text("""
UPDATE undo SET state = 'done', version = :version, before = CAST(:before AS jsonb), at = :now
WHERE act = :act AND key = :key AND bucket = :bucket AND service_id = :service_id
    AND state = 'asked'
""")
KEEP_TASK = text("""
UPDATE undo SET state = 'done', version = t.version, at = :now, before = jsonb_build_object(
    'task', to_jsonb(t), 'until', CAST(:until AS bigint), 'runs', CAST(:runs AS bigint))
FROM task t
WHERE undo.act = :act AND undo.key = :key AND undo.bucket = :bucket AND undo.state = 'asked'
    AND undo.service_id = :service_id
    AND t.key = :key AND t.bucket = :bucket AND t.service_id = :service_id
""")
KEPT = text("""
SELECT before FROM undo
WHERE act = :act AND key = :key AND bucket = :bucket AND service_id = :service_id
    AND state = 'done'
""")
HOLD_TASK = text(f"""
SELECT u.at AS deleted_at, CAST(u.before ->> 'until' AS bigint) AS planned_until,
       CAST(u.before ->> 'runs' AS bigint) AS planned_runs, t.*
FROM undo u, LATERAL (SELECT {COLUMNS} FROM jsonb_populate_record(
    NULL::task, u.before -> 'task')) AS t
WHERE u.act = :act AND u.key = :key AND u.bucket = :bucket AND u.service_id = :service_id
    AND u.state = 'done' FOR UPDATE OF u
""")
TAKEN = "Another task has its id now; delete that one, and undo this again."
RESTORE = text(f"""
INSERT INTO task ({COLUMNS})
SELECT {COLUMNS}
FROM jsonb_populate_record(NULL::task, (SELECT before -> 'task' FROM undo
    WHERE act = :act AND key = :key AND bucket = :bucket AND service_id = :service_id))
WHERE service_id = :service_id
""")
UNDONE = text("""
UPDATE undo SET state = 'undone', before = NULL
WHERE act = :act AND key = :key AND bucket = :bucket AND service_id = :service_id
    AND state = 'done'
""")


async def ask(
    conn: Conn, act: UUID, kind: str, tasks: Sequence[tuple[Line, str, str]], now: datetime
) -> None:
    """Write down what is asked of tasks of one service: of each its line, id and name.

    What the act holds already stays as it is.
    """
    if not tasks:
        return
    values = {"act": act, "kind": kind, "service_id": tasks[0][0].service_id, "now": now}
    values["keys"] = [line.key for line, _, _ in tasks]
    values["buckets"] = [line.bucket for line, _, _ in tasks]
    values["ids"] = [task_id for _, task_id, _ in tasks]
    values["names"] = [name for _, _, name in tasks]
    await conn.execute(ASK, values)


async def deeds(
    conn: Conn, service_id: UUID, act: UUID, state: str, most: int, *, told: bool = False
) -> list[Deed]:
    """Return some tasks of an act that are in a state, by id; `told` those with a reason why."""
    values = {"act": act, "service_id": service_id, "state": state, "most": most}
    return [_deed(row) for row in await conn.execute(TOLD if told else NEXT, values)]


async def forget_refusals(conn: Conn, service_id: UUID, act: UUID) -> None:
    """Let what could not be undone be tried again."""
    await conn.execute(AGAIN, {"act": act, "service_id": service_id})


def _deed(row: Any) -> Deed:
    line = Line(row.key, row.bucket, row.service_id)
    return Deed(
        act=row.act,
        line=line,
        kind=row.kind,
        id=row.id,
        name=row.name,
        state=row.state,
        said=row.said,
        version=row.version,
        at=ms(row.at),
    )


async def count(conn: Conn, service_id: UUID, act: UUID) -> Count | None:
    """Return how far an act of a service has come; None where there is none, or no more."""
    values = {"act": act, "service_id": service_id}
    return counted((await conn.execute(COUNT, values)).scalar_one())


def counted(found: str | None) -> Count | None:
    """Read what `COUNTED` found."""
    if found is None:
        return None
    rows = msgspec.json.decode(found, type=list[tuple[str, str, int, int, str]])
    stuck = sum(told for _, state, _, told, _ in rows if state == "done")
    states = {state: number for _, state, number, _, _ in rows}
    return Count(rows[0][0], states, stuck, rows[0][4])


async def settle(conn: Conn, deed: Deed, state: str, said: str | None = None) -> bool:
    """Write what became of a task of an act; False where somebody wrote it before."""
    values = {**_values(deed), "was": deed.state, "state": state, "said": said}
    return bool((await conn.execute(SETTLE, values)).rowcount)


async def keep(conn: Conn, deed: Deed, of: Definition, kept: Kept, now: datetime) -> bool:
    """Write that a task was paused, and how it was before; False where it was done before."""
    before = msgspec.json.encode(kept).decode()
    values = {**_values(deed), "version": of.version, "before": before, "now": now}
    return bool((await conn.execute(KEEP, values)).rowcount)


async def keep_task(conn: Conn, deed: Deed, now: datetime, until: int, runs: int) -> bool:
    """Keep a task that is about to be deleted; False where it was done before.

    `until` (ms) and `runs` say how far it was planned, without what was still to come.
    """
    values = {**_values(deed), "now": now, "until": until, "runs": runs}
    return bool((await conn.execute(KEEP_TASK, values)).rowcount)


# Undoing it ---------------------------------------------------------------------------------------


async def kept(conn: Conn, deed: Deed) -> Kept | None:
    """Return how a paused task was before; None where somebody undid that."""
    before = (await conn.execute(KEPT, _values(deed))).scalar_one_or_none()
    return None if before is None else msgspec.json.decode(before, type=Kept)


async def hold_task(conn: Conn, deed: Deed) -> Deleted | None:
    """Hold a deleted task that is to be brought back; None where somebody did it before."""
    row = (await conn.execute(HOLD_TASK, _values(deed))).first()
    if row is None:
        return None
    return Deleted(definition(row), ms(row.deleted_at), row.planned_until, row.planned_runs)


async def restore(conn: Conn, deed: Deed) -> None:
    """Write a deleted task's row again. Raises Conflict where its id was taken meanwhile."""
    try:
        await conn.execute(RESTORE, _values(deed))
    except IntegrityError as e:
        if db.violated(e) == "task_id_key":
            raise Conflict(TAKEN) from None
        raise


async def undone(conn: Conn, deed: Deed) -> bool:
    """Write that a task of an act is as it was before; False where somebody did it before."""
    return bool((await conn.execute(UNDONE, _values(deed))).rowcount)


def _values(deed: Deed) -> dict[str, Any]:
    return {**deed.line.values, "act": deed.act}


# Those that are over ------------------------------------------------------------------------------

OLDEST = text("""
SELECT act, key, bucket FROM undo WHERE at < :before ORDER BY at LIMIT :most
FOR UPDATE SKIP LOCKED
""")
PRUNE = text("DELETE FROM undo WHERE act = ANY(:acts) AND key = ANY(:keys) AND at < :before")
OF_SERVICE = """FROM undo WHERE service_id = :service_id ORDER BY at LIMIT :most"""
REMOVE_SERVICE = text(
    "DELETE FROM undo WHERE service_id = :service_id AND key = ANY(ARRAY("
    f"SELECT key {OF_SERVICE} FOR UPDATE SKIP LOCKED))"
)
LEFT_OF_SERVICE = text(f"SELECT EXISTS (SELECT FROM (SELECT key {OF_SERVICE}) AS left_over)")


async def prune(conn: Conn, before: datetime, most: int = PIECE) -> bool:
    """Delete a piece of what is older; say whether more is left."""
    rows = (await conn.execute(OLDEST, {"before": before, "most": most})).all()
    if rows:
        values = {"acts": list({row.act for row in rows}), "keys": [row.key for row in rows]}
        await conn.execute(PRUNE, {**values, "before": before})
    return len(rows) == most


async def remove_service(conn: Conn, service_id: UUID, most: int) -> bool:
    """Delete at most so many of a service's, about; say whether any are left."""
    await conn.execute(REMOVE_SERVICE, {"service_id": service_id, "most": most})
    left = await conn.execute(LEFT_OF_SERVICE, {"service_id": service_id, "most": 1})
    return bool(left.scalar_one())
