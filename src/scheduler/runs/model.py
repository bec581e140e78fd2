"""A run as the outside sees it, live or finished."""

from collections.abc import Mapping, Sequence
from uuid import UUID

import msgspec

from scheduler import history, lines, task, versions
from scheduler.db import Conn, rfc3339
from scheduler.definition import Definition
from scheduler.errors import NotFound
from scheduler.history import Finished
from scheduler.masking import MASK
from scheduler.run import Attempt, NewRun, Started, bucket_in
from scheduler.sources import Sources, definitions
from scheduler.versions import Face, ShownRequest

Kinds = Mapping[UUID, str | None]
"""Of runs: the kind of trigger that made them."""


class ShownAttempt(msgspec.Struct):
    """One try of a run."""

    number: int
    started_at: str | None
    finished_at: str | None
    outcome: str
    status_code: int | None
    error: str | None
    response: str | None
    """The beginning, where another attempt followed; the last one's is the run's."""
    truncated: bool
    """There was more of its response than is kept."""
    connected_ms: float | None = None
    """After its start: when there was a connection, or the command was started."""
    answered_ms: float | None = None
    """After its start: when the answer began."""
    new_connection: bool | None = None
    waited_ms: float | None = None
    """While the answer was read: for room in memory."""


class ShownRun(msgspec.Struct, kw_only=True):
    """A run, as `/runs/{id}` answers it."""

    id: str
    service_id: str
    kind: str
    task_id: str | None
    trace_id: str | None = None
    """Of a process or a spec; `task_id` is null then."""
    trigger: str | None = None
    scheduled_for: str | None
    state: str
    reason: str | None = None
    attempt: int
    next_attempt_at: str | None = None
    created_at: str | None
    started_at: str | None = None
    finished_at: str | None = None
    lag_ms: int | None = None
    duration_ms: int | None = None
    """What the last attempt took."""
    request: ShownRequest | None = None
    """As its task stood at the last attempt, secrets masked; null where nobody knows any more."""
    response: str | None = None
    """Of the last attempt."""
    truncated: bool = False
    """There was more of it than is kept."""
    count: int | None = None
    """Of a gap: how many instants it stands for, the first and the last of them."""
    from_: str | None = msgspec.field(default=None, name="from")
    to: str | None = None
    attempts: list[ShownAttempt]


def key_of(run_id: str) -> UUID:
    """Return the UUID of a run's id. Raises NotFound for what cannot be one."""
    try:
        return UUID(run_id)
    except ValueError:
        raise NotFound(f"there is no run {run_id}") from None


async def find(
    conn: Conn, service_id: UUID, run_id: UUID, now: int, sources: Sources | None = None
) -> ShownRun | None:
    """Return a service's run, live or finished; `now` in ms. What is of no task asks `sources`."""
    run = await lines.get(conn, service_id, run_id) or await history.get(conn, service_id, run_id)
    if run is None:
        return None
    return (await described(conn, service_id, run, now, sources or {}))[0]


async def described(
    conn: Conn, service_id: UUID, run: Started | Finished, now: int, sources: Sources
) -> tuple[ShownRun, Definition | None]:
    """Return a run with what its task says of it, and that task as it stands; None where gone."""
    if isinstance(run, Started):
        shown = of_live(run, service_id, now)
    else:
        shown = of_finished(run, service_id)
    if not run.of_task:
        of = (await definitions(sources, conn, service_id, [run])).get(run.id)
        return _described(shown, Face(None, None) if of is None else _called(of)), of
    face, of = await _face(conn, service_id, run)
    return _described(shown, face), of


def _called(of: Definition) -> Face:
    """Return what a run of a process shows of its call: header values are for the target alone."""
    face = versions.face(of)
    if face.request is None or not face.request.headers:
        return face
    hidden = dict.fromkeys(face.request.headers, MASK)
    return Face(face.trigger, msgspec.structs.replace(face.request, headers=hidden))


async def _face(
    conn: Conn, service_id: UUID, run: Started | Finished
) -> tuple[Face, Definition | None]:
    """Return what a run shows of its task: what replaced its version later is looked at last."""
    if run.task_key is None or run.task_id is None:
        return Face(None, None), None
    of = await task.find(conn, service_id, run.task_id)
    of = of if of is not None and of.key == run.task_key else None
    if of is None or of.version != run.version:
        version = (run.task_key, bucket_in(run.id), run.version)
        replaced = await versions.find(conn, service_id, version)
        if replaced is not None:
            return replaced, of
    return Face(None, None) if of is None else versions.face(of), of


async def triggers(conn: Conn, service_id: UUID, runs: Sequence[Started | Finished]) -> Kinds:
    """Map runs to the kind of trigger that made them; ask in one snapshot."""
    of_tasks = {
        run.id: (run.task_key, bucket_in(run.id), run.version)
        for run in runs
        if run.kind == "task" and run.task_key is not None
    }
    present = await task.triggers(conn, service_id, list({key for key, _, _ in of_tasks.values()}))
    old = {v for v in of_tasks.values() if v[0] not in present or present[v[0]][0] != v[2]}
    replaced = await versions.triggers(conn, service_id, old) if old else {}
    return {
        run: replaced[v] if v in replaced else present.get(v[0], (0, None))[1]
        for run, v in of_tasks.items()
    }


def listed(run: Started | Finished, service_id: UUID, now: int, kinds: Kinds) -> ShownRun:
    """Return a run as a list shows it: without the request and without bodies; `now` in ms."""
    if isinstance(run, Started):
        shown = of_live(run, service_id, now)
    else:
        shown = of_finished(run, service_id)
    for attempt in shown.attempts:
        attempt.response = None
    shown.trigger = kinds.get(run.id)
    return shown


def _described(shown: ShownRun, face: Face) -> ShownRun:
    """Add to a run what its task says of it."""
    shown.trigger = face.trigger if shown.kind == "task" else None
    shown.request = face.request
    return shown


def of_new(run: NewRun, of: Definition) -> ShownRun:
    """Return a run that was inserted just now."""
    live = Started(
        id=run.id,
        kind=run.kind,
        task_key=run.task_key,
        task_id=run.task_id,
        version=run.version,
        scheduled_for=run.at,
        due=run.at,
        created_at=run.at,
        attempts=[],
        claimed=run.claimed_by is not None,
    )
    return _described(of_live(live, of.service_id, run.at), versions.face(of))


def of_live(run: Started, service_id: UUID, now: int) -> ShownRun:
    """Return a run that has not ended."""
    running = run.claimed and run.due <= now
    waiting = "retrying" if run.attempts else "scheduled"
    first = next((a.started_at for a in run.attempts if a.started_at is not None), None)
    first = run.due if first is None and running else first
    return ShownRun(
        id=str(run.id),
        service_id=str(service_id),
        kind=run.kind,
        task_id=run.task_id if run.of_task else None,
        trace_id=None if run.of_task else run.task_id,
        scheduled_for=rfc3339(run.scheduled_for),
        state="running" if running else waiting,
        attempt=len(run.attempts) + running,
        next_attempt_at=None if running else rfc3339(run.due),
        created_at=rfc3339(run.created_at),
        started_at=rfc3339(first),
        lag_ms=None if first is None else first - run.scheduled_for,
        attempts=[_attempt(a) for a in run.attempts],
    )


def of_finished(run: Finished, service_id: UUID) -> ShownRun:
    """Return a run that has ended."""
    started = run.started_at
    count, first, last = run.gap or (None, None, None)
    return ShownRun(
        id=str(run.id),
        service_id=str(service_id),
        kind=run.kind,
        task_id=run.task_id if run.of_task else None,
        trace_id=None if run.of_task else run.task_id,
        scheduled_for=rfc3339(run.scheduled_for),
        state=run.state,
        reason=run.reason,
        attempt=len(run.attempts),
        created_at=rfc3339(run.created_at),
        started_at=rfc3339(started),
        finished_at=rfc3339(run.finished_at),
        lag_ms=None if started is None else started - run.scheduled_for,
        duration_ms=_duration(run),
        response=None if run.response is None else run.response.decode("utf-8", "replace"),
        truncated=run.truncated,
        count=count,
        from_=rfc3339(first),
        to=rfc3339(last),
        attempts=_attempts(run),
    )


def _attempts(run: Finished) -> list[ShownAttempt]:
    shown = [_attempt(a) for a in run.attempts]
    if shown and shown[-1].response is None:  # it is the run's
        shown[-1].truncated |= run.truncated
    return shown


def _duration(run: Finished) -> int | None:
    """Return how long the last attempt took: a replay may come days after the first."""
    last = run.attempts[-1] if run.attempts else None
    if last is None or last.started_at is None or last.finished_at is None:
        return None
    return last.finished_at - last.started_at


def _attempt(attempt: Attempt) -> ShownAttempt:
    timing = attempt.timing
    sent, answered = (timing.sent, timing.answered) if timing else (None, None)
    return ShownAttempt(
        number=attempt.number,
        started_at=rfc3339(attempt.started_at),
        finished_at=rfc3339(attempt.finished_at),
        outcome=attempt.outcome,
        status_code=attempt.status_code,
        error=attempt.error,
        response=attempt.response,
        truncated=attempt.truncated,
        connected_ms=None if sent is None else sent / 10,
        answered_ms=None if answered is None else answered / 10,
        new_connection=timing.dialled if timing and sent is not None else None,
        waited_ms=timing.waited / 10 if timing and timing.waited else None,
    )
