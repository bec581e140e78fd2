"""The runner: performs a claimed run and says what becomes of it. Errors become values here."""

import asyncio
import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Literal
from uuid import UUID

import msgspec
import structlog

from scheduler import actions, config, exclusions, metrics, queue, sources, task
from scheduler.actions import Action, Call, Command, Http, Leave, Performer
from scheduler.clock import Clock
from scheduler.db import Conn
from scheduler.definition import Backoff, Definition, Policy
from scheduler.marks import Marks
from scheduler.run import Attempt, End, Later, Retry, Run
from scheduler.sealing import Vault
from scheduler.settler import Outcome
from scheduler.signing import Secrets
from scheduler.sources import BROKEN, Sources

log = structlog.get_logger()

JITTER = random.Random()  # noqa: S311

UNKNOWN_MOST = 20
"""A run whose outcome stayed unknown so often ends; until then it uses up no retry."""
EXCERPT_BYTES = 1024
"""What is kept of the body of an attempt that another one follows."""
REMEMBERED = 20_000
REMEMBERED_BYTES = 64 << 20
"""Tasks kept ready to be performed again: so many, and of their requests so much."""
CANCELLED = "someone cancelled it"

Performers = Mapping[type, Performer]
"""By the type of the action."""


class Work(msgspec.Struct, gc=False):
    """A task made ready to be performed any number of times."""

    task: Definition
    """Without what is in `prepared` already."""
    performer: Performer
    prepared: Any = None
    damaged: str | None = None
    """Why it cannot be performed."""
    size: int = 0
    """About how many bytes its request takes."""

    @property
    def slotted(self) -> bool:
        """Say whether only so many like it may be under way here."""
        return isinstance(self.task.action, Command)


class Runner:
    """Performs runs."""

    def __init__(
        self,
        performers: Performers,
        clock: Clock,
        worker: config.Worker,
        runs: config.Runs,
        may_send: Callable[[UUID], bool],
        vault: Vault | None = None,
        others: Sources | None = None,
    ) -> None:
        """`others`: where runs of no task get what they do."""
        self._performers = performers
        self.sources = others or {}
        self._clock = clock
        self._worker = worker
        self._runs = runs
        self._may_send = may_send
        self._works: dict[UUID, Work] = {}
        """Tasks made ready before; a run keeps its own, so that any of them may be forgotten."""
        self._size = 0
        self._vault = vault or Vault()
        self.secrets = Secrets(vault=self._vault)

    async def prepare(self, conn: Conn, runs: Iterable[Run]) -> None:
        """Give claimed runs their tasks, as new as the runs; one whose task is gone gets None.

        Retries always ask: the task may have been deleted since, and nobody heard of it. What was
        read stays with the runs, also where the task is forgotten meanwhile: they are recalled.
        """
        runs = list(runs)
        await self._prepare_others(conn, [run for run in runs if not run.of_task])
        runs = [run for run in runs if run.of_task]
        works = {run.task_key: self._works.get(run.task_key) for run in runs if run.task_key}
        wanted = {
            run.task_key
            for run in runs
            if run.task_key and (run.attempts or not self._is_known(run.task_key, run.version))
        }
        if wanted:
            found = await task.definitions(conn, list(wanted))
            for key in wanted - found.keys():
                works[key] = None
                self.forget(key)
            for n, definition in enumerate(found.values()):
                works[definition.key] = self._learn(definition)
                if n % 50 == 49:  # a slice of the loop's time
                    await asyncio.sleep(0)
        others = [work for key, work in works.items() if work is not None and key not in wanted]
        await _keep_clear(conn, others)
        await self.secrets.refresh(conn, {run.service_id for run in runs})
        for run in runs:
            run.work = works[run.task_key] if run.task_key else None

    async def _prepare_others(self, conn: Conn, runs: Sequence[Run]) -> None:
        """Give runs that are of no task what they do, from where their kind has it."""
        for kind in {run.kind for run in runs}:
            some = [run for run in runs if run.kind == kind]
            found = await sources.of_claimed(conn, self.sources[kind], some)
            for n, run in enumerate(some):
                of = found.get(run.id)
                run.work = None if of is None else self._made_ready(of)
                if n % 50 == 49:  # a slice of the loop's time
                    await asyncio.sleep(0)
        await self.secrets.refresh(conn, {run.service_id for run in runs})

    async def check(self, service_id: UUID, action: Action) -> list[tuple[str, str]]:
        """Return what is wrong with an action that is about to be stored: fields, sentences."""
        return await self._performers[type(action)].check(service_id, action)

    def _is_known(self, key: UUID, version: int) -> bool:
        work = self._works.get(key)
        # One that is damaged may have been mended by hand since, without a new version.
        return work is not None and work.task.version >= version and work.damaged is None

    def forget(self, key: UUID) -> None:
        """Forget a task: it was edited or deleted."""
        work = self._works.pop(key, None)
        if work is not None:
            self._size -= work.size

    def equip(self, run: Run, definition: Definition) -> None:
        """Give a run its task."""
        run.work = self._learn(definition)

    def _learn(self, of: Definition) -> Work:
        work = self._made_ready(of)
        self._keep(work)
        return work

    def _made_ready(self, of: Definition) -> Work:
        performer = self._performers[type(of.action)]
        outline = msgspec.structs.replace(of, action=of.action.outline)
        work = Work(outline, performer, damaged=of.damaged, size=of.action.size)
        if not of.damaged:
            try:
                opened = of.action.opened(self._vault, of.service_id)
                work.prepared = performer.prepare(opened, of.expected)
            except (ValueError, TypeError) as e:
                work.damaged = f"the task cannot be performed: {e}"
        return work

    def _keep(self, work: Work) -> None:
        key = work.task.key
        self.forget(key)
        if len(self._works) >= REMEMBERED or self._size + work.size > REMEMBERED_BYTES:
            self._works.clear()
            self._size = 0
        self._works[key] = work
        self._size += work.size

    async def perform(self, run: Run) -> Outcome | None:
        """Perform one run; None where nothing was sent, because this process may not any more.

        Never raises; when cancelled once something may have been sent, the outcome is unknown.
        """
        started = self._clock.now_ms()
        work: Work | None = run.work
        now_s = asyncio.get_running_loop().time()
        leave = Leave(partial(self._may_send, run.claimed_by), Marks(now_s, run.service_id))
        try:
            refusal = self._refusal(run, work, started)
            if refusal is not None or work is None:
                return Outcome(refusal or _failed(run, "its task is gone", started))
            return await self._attempt(run, work, started, leave)
        except asyncio.CancelledError:
            if not leave.given:
                return self._unsent(run, work, started)
            cut = actions.Outcome(succeeded=False, unknown=True)
            return self._decide(run, work, cut, started, leave)
        except Exception:
            log.exception("a run broke its runner", run=str(run.id), task=run.task_id)
            metrics.ERRORS.labels("run").inc()
            broken = actions.Outcome(succeeded=False, error=BROKEN, retryable=True)
            return self._decide(run, work, broken, started, leave)

    def _refusal(self, run: Run, work: Work | None, now: int) -> End | None:
        """Return the end of a run that is not to be started, if so."""
        if run.cancelled:
            return End(run, "cancelled", why_cancelled(run), _first(run, None), now)
        if run.damaged:
            return _failed(run, run.damaged, now)
        if work is None:
            return End(run, "cancelled", f"the {_owner(run)} was deleted", None, now)
        if broken := work.damaged or self.secrets.broken(run.service_id):
            return _failed(run, broken, now)
        closed = self.secrets.closed(run.service_id)
        if closed is not None and isinstance(work.task.action, Command):
            return _failed(run, closed, now)
        if work.task.action.once and any(a.outcome == "unknown" for a in run.tries):
            return End(run, "failed", work.task.action.cut, _first(run, None), now)
        if sum(a.outcome == "unknown" for a in run.tries) >= UNKNOWN_MOST:
            return _failed(run, f"its outcome stayed unknown {UNKNOWN_MOST} times", now)
        age = work.task.policy.max_age_seconds
        untried = not run.attempts and run.replayed_at is None
        clear = work.task.excluded if untried and run.kind == "task" else None
        if clear is not None and clear.at(run.scheduled_for):
            return End(run, "skipped", "calendar", None, now)
        if age is not None and untried and now - run.scheduled_for > age * 1000:
            return End(run, "expired", f"it could not start within {age:g} s", None, now)
        return None

    async def _attempt(self, run: Run, work: Work, started: int, leave: Leave) -> Outcome | None:
        if not run.attempts:
            metrics.LAG.observe(max(started - run.due, 0) / 1000)
        call = Call(
            run_id=run.id,
            task_id=run.task_id or "",
            attempt=len(run.attempts) + 1,
            scheduled_for=run.scheduled_for,
            deadline=asyncio.get_running_loop().time() + work.task.timeout_s,
            may_send=leave,
            at=started,
            secret=self.secrets.of(run.service_id),
            service_id=run.service_id,
            kind=run.kind,
            again=bool(run.attempts) or run.replayed_at is not None,
            marks=leave.marks,
        )
        run.version = work.task.version  # an edit may have come between the claim and the reading
        try:
            outcome = await work.performer.perform(work.prepared, call)
            if outcome is not None and outcome.later_s is not None:
                due = self._clock.now_ms() + math.ceil(outcome.later_s * 1000)
                return Outcome(Later(run, max(due, run.due + 1)))
            if outcome is not None:
                return self._decide(run, work, outcome, started, leave)
            return self._unsent(run, work, started)
        finally:
            leave.marks.let_go()

    def _unsent(self, run: Run, work: Work | None, now: int) -> Outcome | None:
        refusal = self._refusal(run, work, now) if run.cancelled else None
        return Outcome(refusal) if refusal else None

    def _decide(
        self, run: Run, work: Work | None, outcome: actions.Outcome, started: int, leave: Leave
    ) -> Outcome:
        now = self._clock.now_ms()
        first = _first(run, started)
        if outcome.unknown and outcome.error is None:
            outcome.error = f"{CANCELLED if run.cancelled else 'cut short'}; {_became(run)}"
        attempt = Attempt(
            number=len(run.attempts) + 1,
            outcome="cancelled" if outcome.unknown and run.cancelled else _word(outcome),
            started_at=started,
            finished_at=now,
            status_code=outcome.status_code,
            error=outcome.error,
            content_type=outcome.content_type,
            kept=outcome.kept,
            timing=leave.marks.timing(),
        )
        run.attempts = [*run.attempts, attempt]
        overlapped = _overlapped(run, work, now)
        wait_s = self._wait_s(run, work, outcome)
        if run.cancelled and not outcome.succeeded and (outcome.unknown or wait_s is not None):
            end = End(run, "cancelled", why_cancelled(run), first, now)
            end.response, end.truncated = self._kept(outcome)
            return Outcome(end, overlapped)
        if wait_s is not None:
            attempt.response, attempt.truncated = _excerpt(outcome)
            # `now` is rounded down, and Retry-After is not to be undercut.
            return Outcome(Retry(run, now + math.ceil(wait_s * 1000) + 1), overlapped)
        end = End(
            run,
            "succeeded" if outcome.succeeded else "failed",
            None if outcome.succeeded else outcome.error,
            first,
            now,
        )
        end.response, end.truncated = self._kept(outcome)
        return Outcome(end, overlapped)

    def _kept(self, outcome: actions.Outcome) -> tuple[bytes | None, bool]:
        """Return what is kept of the last body, and whether there was more."""
        most, body = self._runs.response_max_bytes, outcome.body
        if body is None:
            return None, outcome.truncated
        return body[:most], outcome.truncated or len(body) > most

    def _wait_s(self, run: Run, work: Work | None, outcome: actions.Outcome) -> float | None:
        """Return how long to wait before the next try; None where there is none."""
        if outcome.unknown:
            if work is not None and work.task.action.once:
                return None
            unknown = sum(a.outcome == "unknown" for a in run.tries)
            return None if unknown >= UNKNOWN_MOST else min(2.0**unknown, 300.0)
        if outcome.succeeded or not outcome.retryable:
            return None
        policy = work.task.policy if work else Policy()
        most = self._worker.max_retries
        most = work.task.max_retries(most) if work else most
        most = most if run.max_retries is None else run.max_retries
        failures = sum(a.outcome == "failed" for a in run.tries)
        if failures > most:
            return None
        ceiling = (policy.retry_backoff or Backoff()).ceiling_s(failures - 1)
        # Full jitter: replicas and tasks that failed together do not come back together.
        return max(JITTER.uniform(0, ceiling), outcome.retry_after_s or 0.0)


async def _keep_clear(conn: Conn, works: Iterable[Work]) -> None:
    """Have tasks that were read before keep clear of their calendars as those stand now."""
    stale = [work for work in works if work.task.bounds.calendars]
    if stale:
        names = ((work.task.service_id, work.task.bounds.calendars) for work in stale)
        found = await exclusions.current(conn, {(s, name) for s, some in names for name in some})
        for work in stale:
            work.task = exclusions.with_excluded(work.task, found)


def _word(outcome: actions.Outcome) -> Literal["succeeded", "failed", "unknown"]:
    if outcome.unknown:
        return "unknown"
    return "succeeded" if outcome.succeeded else "failed"


def _first(run: Run, otherwise: int | None) -> int | None:
    """Return when a run's first attempt began."""
    return next((a.started_at for a in run.attempts if a.started_at is not None), otherwise)


def why_cancelled(run: Run) -> str:
    """Return the reason of a run that someone cancelled."""
    cut = any(a.outcome in ("unknown", "cancelled") for a in run.attempts)
    return f"{CANCELLED}; {_became(run)}" if cut else CANCELLED


def _owner(run: Run) -> str:
    """Return the word for what a run is of."""
    return "task" if run.of_task else run.kind


def _became(run: Run) -> str:
    """Return what became of an attempt of a run that was cut short."""
    return (run.work.task.action if run.work else Http).cut


def _failed(run: Run, reason: str, now: int) -> End:
    """Return the end of a run that cannot be performed; it is an attempt, so that it shows."""
    number = len(run.attempts) + 1
    run.attempts = [*run.attempts, Attempt(number=number, outcome="failed", error=reason)]
    return End(run, "failed", reason, None, now)


def _overlapped(run: Run, work: Work | None, until: int) -> tuple[UUID, int, int] | None:
    """Return the span in which the task's own instants are skipped, if there are any in it.

    Since it began; where it was late, and not every missed one is to run, since its own instant:
    that is when it was to begin. Late is what the queue calls so: a busy machine skips nothing for
    being a little behind. Since it was replayed, where it was: between its end and then it stood
    in nobody's way.
    """
    if (
        work is None
        or not run.of_task
        or run.overlap != "skip"
        or run.backfilled
        or run.task_key is None
    ):
        return None
    since = next((a.started_at for a in run.tries if a.started_at is not None), until)
    late = since - run.scheduled_for > queue.LATE_S * 1000
    if late and run.kind == "task" and not run.replayed_at and work.task.policy.misfire != "all":
        since = run.scheduled_for
    trigger = work.task.due
    if trigger is None or not trigger.count(since, until):
        return None
    return run.task_key, since, until


def _excerpt(outcome: actions.Outcome) -> tuple[str | None, bool]:
    """Return the beginning of a body, and whether there was more."""
    body = outcome.body
    if body is None:
        return None, False
    beginning = body[:EXCERPT_BYTES].decode("utf-8", "replace")
    return beginning, outcome.truncated or len(body) > EXCERPT_BYTES
