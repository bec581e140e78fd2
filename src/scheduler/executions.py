"""Executions: the attempts of a task's runs, in pages, live and finished ones in one order.

A run stands by (scheduled_for, id), the newest first, and its attempts newest first within it: a
run that is replayed stays where it stood, so that no page loses or doubles an attempt meanwhile.
"""

import uuid
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import msgspec
from sqlalchemy import text

from scheduler import db, lines
from scheduler.db import Conn, ms
from scheduler.history import ROWS, Finished, finished
from scheduler.run import Attempt, Line, Started

EXECUTION = uuid.UUID("6f1c3d4e-8a55-4c0b-9a53-5a1d5c9d7f10")
"""The namespace of attempts' ids (UUIDv5)."""

Place = tuple[int, UUID]


class Execution(msgspec.Struct):
    """One attempt of a run of a task, as `/tasks/{id}/executions` shows it.

    It is created when it starts; one that never did, with its run.
    """

    id: str
    task_id: str
    run_id: str
    attempt: int
    status: str
    status_code: int | None
    response: str | None
    error: str | None
    scheduled_for: str | None
    started_at: str | None
    finished_at: str | None
    created_at: str | None


# Both are answered by the index alone, which holds no service: of a key that was read from its
# service's row just before.
TOTAL = text("SELECT coalesce(sum(attempts_n), 0) FROM history WHERE task_key = :key")

# A run has one attempt at least, so `until` runs hold the first `until` attempts.
PAGE = text("""
SELECT id, scheduled_for, attempts_n, before FROM (
    SELECT id, scheduled_for, attempts_n,
           sum(attempts_n) OVER (ORDER BY scheduled_for DESC, id DESC) - attempts_n AS before
    FROM (SELECT id, scheduled_for, attempts_n FROM history
          WHERE task_key = :key AND attempts_n > 0
          ORDER BY scheduled_for DESC, id DESC LIMIT :until) AS newest) AS h
WHERE before < :until AND before + attempts_n > :since
ORDER BY before
""")
BY_IDS = text(ROWS + "task_key = :key AND scheduled_for = ANY(:at) AND id = ANY(:ids)")


async def page(
    conn: Conn, line: Line, task_id: str, now: datetime, *, page: int, count: int
) -> tuple[int, list[Execution]]:
    """Return how many attempts a task has, and one page of them.

    Ask in one snapshot: a run that settles between two statements would be counted twice.
    """
    await db.walk_in_order(conn)
    runs = sorted(await lines.of_task(conn, line, now), key=_place, reverse=True)
    live = [(_place(run), each) for run in runs for each in _of_live(run, task_id, ms(now))]
    total = len(live) + await _total(conn, line)
    since, until = page * count, (page + 1) * count
    if since >= total:
        return total, []
    # Live ones push the finished ones down, by their number at most.
    first = max(since - len(live), 0)
    below, ended = await _of_history(conn, line, task_id, first, until)
    merged = sorted([*live, *ended], key=lambda each: each[0], reverse=True)
    return total, [each for _, each in merged[max(since - below, 0) : until - below]]


def _place(run: Started | Finished) -> Place:
    return run.scheduled_for, run.id


async def _total(conn: Conn, line: Line) -> int:
    return int((await conn.execute(TOTAL, {"key": line.key})).scalar_one())


async def _of_history(
    conn: Conn, line: Line, task_id: str, since: int, until: int
) -> tuple[int, list[tuple[Place, Execution]]]:
    """Return how many attempts were left out before `since`, and those up to `until`."""
    values = {"key": line.key, "since": since, "until": until}
    where = (await conn.execute(PAGE, values)).all()
    if not where:
        return since, []
    ids, at = [w.id for w in where], [w.scheduled_for for w in where]
    found = await conn.execute(BY_IDS, {**line.values, "ids": ids, "at": at})
    rows = {row.id: finished(row) for row in found}
    attempts = [
        (_place(rows[w.id]), each)
        for w in where
        if w.id in rows
        for each in _of_finished(rows[w.id], task_id)
    ]
    first = int(where[0].before)
    return since, attempts[since - first : until - first]


def _of_live(run: Started, task_id: str, now: int) -> Sequence[Execution]:
    done = [_execution(run, task_id, attempt) for attempt in reversed(run.attempts)]
    if not (run.claimed and run.due <= now):
        return done
    number = len(run.attempts) + 1
    attempt = Attempt(number=number, outcome="unknown", started_at=run.due)
    under_way = _execution(run, task_id, attempt)
    under_way.status, under_way.error = "started", None
    return [under_way, *done]


def _of_finished(run: Finished, task_id: str) -> list[Execution]:
    found = [_execution(run, task_id, attempt) for attempt in reversed(run.attempts)]
    if found and run.response is not None:
        found[0].response = run.response.decode("utf-8", "replace")
    return found


def _execution(run: Finished | Started, task_id: str, attempt: Attempt) -> Execution:
    return Execution(
        id=str(uuid.uuid5(EXECUTION, f"{run.id}/{attempt.number}")),
        task_id=task_id,
        run_id=str(run.id),
        attempt=attempt.number,
        status="success" if attempt.outcome == "succeeded" else "failed",
        status_code=attempt.status_code,
        response=attempt.response,
        error=attempt.error,
        scheduled_for=db.rfc3339(run.scheduled_for),
        started_at=db.rfc3339(attempt.started_at),
        finished_at=db.rfc3339(attempt.finished_at),
        created_at=db.rfc3339(run.created_at if attempt.started_at is None else attempt.started_at),
    )


def last_of(run: Finished, task_id: str) -> Execution | None:
    """Return the last attempt of a finished run, or None where it never started."""
    found = _of_finished(run, task_id)
    return found[0] if found else None
