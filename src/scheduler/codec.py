"""Runs to and from rows: many as columns for `unnest`, a row as a run, attempts as JSON."""

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

import msgspec

from scheduler.db import ms, utc
from scheduler.run import Attempts, End, NewRun, Retry, Run, Started

Columns = dict[str, list[Any]]
"""By the name of the parameter."""


def new(runs: Sequence[NewRun]) -> Columns:
    """Return runs to be inserted."""
    return {
        "id": [r.id for r in runs],
        "bucket": [r.bucket for r in runs],
        "service_id": [r.service_id for r in runs],
        "task_key": [r.task_key for r in runs],
        "task_id": [r.task_id for r in runs],
        "kind": [r.kind for r in runs],
        "version": [r.version for r in runs],
        "overlap": [r.overlap for r in runs],
        "at": [utc(r.at) for r in runs],
        "max_retries": [r.max_retries for r in runs],
        "claimed_by": [r.claimed_by for r in runs],
        "lanes": [r.lanes for r in runs],
        "priority": [r.priority for r in runs],
    }


def retries(retries: Sequence[Retry]) -> Columns:
    """Return runs to be tried again."""
    return {
        "ids": [r.run.id for r in retries],
        "buckets": [r.run.bucket for r in retries],
        "due": [utc(r.due) for r in retries],
        "attempts": [encode(r.run.attempts) for r in retries],
        "attempts_n": [len(r.run.attempts) for r in retries],
    }


def ends(ends: Sequence[End]) -> Columns:
    """Return runs that have ended."""
    return {
        "ids": [e.run.id for e in ends],
        "state": [e.state for e in ends],
        "reason": [e.reason for e in ends],
        "attempts": [encode(e.run.attempts) for e in ends],
        "attempts_n": [len(e.run.attempts) for e in ends],
        "started_at": [None if e.started_at is None else utc(e.started_at) for e in ends],
        "finished_at": [utc(e.finished_at) for e in ends],
        "response": [e.response for e in ends],
        "truncated": [e.truncated for e in ends],
        "version": [e.run.version for e in ends],
    }


def claimed(rows: Iterable[Any], me: UUID) -> list[Run]:
    """Return runs that `me` holds, by due time; RETURNING has no order."""
    runs = [_claimed(row, me) for row in rows]
    runs.sort(key=lambda run: run.due)
    return runs


def _claimed(row: Any, me: UUID) -> Run:
    attempts, damaged = decode(row.attempts, row.attempts_n)
    scheduled_for = ms(row.scheduled_for)
    return Run(
        id=row.id,
        bucket=row.bucket,
        service_id=row.service_id,
        task_key=row.task_key,
        task_id=row.task_id,
        kind=row.kind,
        version=row.version,
        overlap=row.overlap,
        priority=row.priority,
        scheduled_for=scheduled_for,
        due=scheduled_for if row.due == row.scheduled_for else ms(row.due),
        max_retries=row.max_retries,
        attempts=attempts,
        claimed_by=me,
        lanes=row.lanes,
        cancelled=row.cancelled,
        replayed_at=None if row.replayed_at is None else ms(row.replayed_at),
        backfilled=bool(row.backfilled),
        damaged=damaged or ("the run names no task" if row.task_key is None else None),
    )


def started(row: Any) -> Started:
    """Return a live run as its service may see it."""
    return Started(
        id=row.id,
        kind=row.kind,
        task_key=row.task_key,
        task_id=row.task_id,
        version=row.version,
        scheduled_for=ms(row.scheduled_for),
        due=ms(row.due),
        created_at=ms(row.created_at),
        attempts=decode(row.attempts, row.attempts_n)[0],
        claimed=row.claimed,
        replayed=row.replayed,
    )


_attempts = msgspec.json.Decoder(Attempts)


def encode(attempts: Attempts) -> str:
    """Return attempts as JSON text that jsonb takes: it refuses U+0000."""
    return msgspec.json.encode(attempts).decode().replace("\\u0000", "\\ufffd")


def decode(raw: str, count: int) -> tuple[Attempts, str | None]:
    """Return the attempts on a row, and why they cannot be believed where someone broke them."""
    if raw == "[]" and not count:
        return [], None
    try:
        attempts = _attempts.decode(raw)
    except (msgspec.DecodeError, RecursionError) as e:
        return [], f"the attempts on the run's row cannot be read: {e}"
    if len(attempts) != count:
        return attempts, f"the run's row counts {count} attempts and lists {len(attempts)}"
    return attempts, None
