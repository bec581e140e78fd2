"""A run: one due instant of a task, one run by hand, one process, or one step of a spec; its row,
its id, and its shapes.
"""

import hashlib
from typing import Any, Literal
from uuid import UUID

import msgspec
from sqlalchemy import (
    Boolean,
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

from scheduler.db import metadata, times_check
from scheduler.instant import Instant
from scheduler.marks import Timing

RUN = Table(
    "run",
    metadata,
    Column("id", Uuid, nullable=False),
    Column("bucket", SmallInteger, nullable=False),
    Column("service_id", Uuid, nullable=False),
    Column("task_key", Uuid),
    Column("task_id", Text),
    Column("kind", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("overlap", Text, nullable=False),
    Column("priority", SmallInteger, nullable=False),
    Column("scheduled_for", DateTime(timezone=True), nullable=False),
    Column("due", DateTime(timezone=True), nullable=False),
    Column("max_retries", SmallInteger),
    Column("attempts", JSONB, nullable=False),
    Column("attempts_n", Integer, nullable=False),
    Column("claimed_by", Uuid),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("lanes", SmallInteger),
    Column("cancelled", Boolean, nullable=False, server_default=text("false")),
    Column("replayed_at", DateTime(timezone=True)),
    PrimaryKeyConstraint("id", "bucket", name="run_pkey"),
    CheckConstraint("overlap IN ('skip', 'allow', 'queue')", name="run_overlap_check"),
    CheckConstraint("attempts_n >= 0", name="run_attempts_check"),
    CheckConstraint("lanes > 0", name="run_lanes_check"),
    times_check("run", "scheduled_for", "due", "created_at"),
    Index("run_due", "due"),
    Index("run_service", "service_id", "due"),
    Index("run_task", "task_key", "scheduled_for"),
    Index("run_cancelled", "id", postgresql_where=text("cancelled")),
    Index(
        "run_moved",
        "service_id",
        text("scheduled_for DESC"),
        text("id DESC"),
        postgresql_where=text("due <> scheduled_for"),
    ),
)

BUCKETS = 1024
KINDS = ["task", "manual", "process", "spec"]
"""The kinds that this version performs; others are passed over, for a newer replica."""

Kind = Literal["task", "manual", "process", "spec"]
OF_TASKS = frozenset({"task", "manual"})
"""The kinds whose `task_key` and `task_id` are a task's; of the others they are the key and the
trace_id of a process or a spec."""
Overlap = Literal["skip", "allow", "queue"]


def bucket_of(service_id: UUID, task_id: str) -> int:
    """Return the bucket (0-1023) that a task and all its rows live in, for ever."""
    digest = hashlib.blake2b(service_id.bytes + task_id.encode(), digest_size=2).digest()
    return int.from_bytes(digest, "big") % BUCKETS


def run_id(task_key: UUID, bucket: int, kind: str, at: int, nonce: str = "") -> UUID:
    """Return the one id of a run: a UUIDv8 (RFC 9562, 5.8).

    48 bits of `at` (ms since 1970), 10 of the bucket, 64 of a hash: the same task and instant, or
    the same task and nonce, always give the same id. With a nonce the time takes no part.
    """
    seed = f"{task_key.hex}/{kind}/{nonce or at}".encode()
    hashed = int.from_bytes(hashlib.blake2b(seed, digest_size=8).digest(), "big")
    time = 0 if nonce else max(at, 0) & ((1 << 48) - 1)
    return UUID(
        int=time << 80 | 8 << 76 | bucket << 66 | (hashed >> 62) << 64 | 2 << 62
        | hashed & ((1 << 62) - 1)
    )  # fmt: skip


def bucket_in(run_id: UUID) -> int:
    """Return the bucket that a run's id carries."""
    return run_id.int >> 66 & (BUCKETS - 1)


class Attempt(msgspec.Struct, omit_defaults=True):
    """One try of a run; times in ms since 1970."""

    number: int
    outcome: Literal["succeeded", "failed", "unknown", "cancelled"]
    started_at: Instant | None = None
    finished_at: Instant | None = None
    status_code: int | None = None
    error: str | None = None
    response: str | None = None
    """The beginning of the body, where a later attempt took the place of the whole."""
    truncated: bool = False
    """There was more of it."""
    content_type: str | None = None
    """Of the answer to a process."""
    kept: UUID | None = None
    """Where the whole body of that answer is kept (specs/responses.py), if not with the run."""
    timing: Timing | None = None


Attempts = list[Attempt]


class Run(msgspec.Struct, kw_only=True, eq=False, gc=False):
    """A claimed run, as its holder keeps it in memory; times in ms since 1970."""

    id: UUID
    bucket: int
    service_id: UUID
    task_key: UUID | None
    task_id: str | None
    kind: str
    version: int
    overlap: str
    priority: int
    scheduled_for: int
    due: int
    max_retries: int | None
    attempts: Attempts
    claimed_by: UUID
    lanes: int | None = None
    """How many of its task's runs may be under way at once; None for any number."""
    cancelled: bool = False
    """Someone wants it to end."""
    replayed_at: int | None = None
    """It has ended before, and someone wanted it again; no rule about lateness holds for it."""
    backfilled: bool = False
    """Its instant had passed, and someone wanted it made up for: it skips none of its task's."""
    work: Any = None
    """Its task, made ready by the runner; None where the task is gone."""
    damaged: str | None = None
    """Why the row cannot be performed, where someone broke it."""

    @property
    def slotted(self) -> bool:
        """Say whether only so many like it are under way on a replica: it is a command."""
        return self.work is not None and self.work.slotted is True

    @property
    def of_task(self) -> bool:
        """Say whether it is of a task."""
        return self.kind in OF_TASKS

    @property
    def in_line(self) -> bool:
        """Say whether the task's runs wait for each other."""
        return self.lanes is not None

    @property
    def tries(self) -> Attempts:
        """Its attempts since it was last replayed: those that rules count."""
        since = self.replayed_at
        if since is None:
            return self.attempts
        return [a for a in self.attempts if a.started_at is not None and a.started_at >= since]


class NewRun(msgspec.Struct, kw_only=True, gc=False):
    """A run to be; `at` in ms since 1970."""

    id: UUID
    bucket: int
    service_id: UUID
    task_key: UUID
    task_id: str
    kind: Kind
    version: int
    overlap: Overlap
    at: int
    max_retries: int | None = None
    claimed_by: UUID | None = None
    lanes: int | None = None
    priority: int = 0


class Retry(msgspec.Struct, gc=False):
    """A run to be tried again at `due` (ms since 1970)."""

    run: Run
    due: int


class Later(msgspec.Struct, gc=False):
    """A run that waits until `due` (ms since 1970) for something else; no attempt was made.

    `due` is later than the run's own.
    """

    run: Run
    due: int


class End(msgspec.Struct, gc=False):
    """How a run ended; times in ms since 1970."""

    run: Run
    state: Literal["succeeded", "failed", "skipped", "expired", "cancelled"]
    reason: str | None
    started_at: int | None
    finished_at: int
    response: bytes | None = None
    truncated: bool = False


class Line(msgspec.Struct, frozen=True):
    """The address of a task's rows: every statement on them names all three."""

    key: UUID
    bucket: int
    service_id: UUID

    @property
    def values(self) -> dict[str, Any]:
        """The three as parameters."""
        return {"key": self.key, "bucket": self.bucket, "service_id": self.service_id}


class Started(msgspec.Struct):
    """A live run as its service may see it; times in ms since 1970."""

    id: UUID
    kind: str
    task_key: UUID | None
    task_id: str | None
    version: int
    scheduled_for: int
    due: int
    created_at: int
    attempts: Attempts
    claimed: bool
    """Some replica holds it: from its due instant on an attempt is under way."""
    replayed: bool = False

    @property
    def of_task(self) -> bool:
        """Say whether it is of a task."""
        return self.kind in OF_TASKS
