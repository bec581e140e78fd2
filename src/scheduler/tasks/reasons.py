"""Why a task fires at an instant, or not: verdicts in a word and a sentence, from what plans it.

Pure, but that long counts give way. Times are ms since 1970.
"""

from datetime import UTC, datetime

import msgspec

from scheduler import planning
from scheduler.clock import Slice
from scheduler.db import rfc3339
from scheduler.definition import Definition
from scheduler.history import Finished
from scheduler.planning import Planned
from scheduler.run import Started
from scheduler.triggers import Cron, Once, Rrule, Trigger
from scheduler.triggers.pattern import pattern
from scheduler.triggers.zones import CEILING, FLOOR, stretch_at

GAP = {
    "skip": "a time that does not exist is not due",
    "shift": "a time that does not exist is due as much later as the clock leaps",
    "end": "a time that does not exist is due when the clock has leapt",
}
OVERLAP = {
    "first": "a time that comes twice is due the first time",
    "second": "a time that comes twice is due the second time",
    "both": "a time that comes twice is due both times",
}
MISFIRE = {
    "latest": "the last instant that was missed is run, and the others are skipped",
    "all": "every instant that was missed is run",
    "skip": "instants that were missed are skipped",
}


class Finding(msgspec.Struct, frozen=True):
    """Whether a task fires at an instant, why in a word, and in a sentence."""

    fires: bool
    verdict: str
    reason: str


def zone_of(of: Definition) -> str:
    """Return the zone in which a task's trigger is read."""
    return getattr(of.trigger, "timezone", "UTC")


def offset_of(of: Definition) -> int:
    """Return how much later than its trigger says a task is due, in ms."""
    return 0 if isinstance(of.trigger, Once) else of.bounds.offset(of.key)


def names(of: Definition, at: int) -> bool:
    """Say whether a task's trigger yields an instant, whatever bounds it."""
    trigger: Trigger | None = of.trigger
    if trigger is None or of.damaged:
        return False
    own = at - offset_of(of)
    return trigger.next(own - 1) == own


def by_rule(of: Definition, at: int) -> Finding | None:
    """Return why a task could not be due at an instant, by trigger and bounds; None if it could."""
    if of.damaged:
        return Finding(False, "damaged", of.damaged)
    if of.trigger is None:
        return Finding(False, "no_trigger", "The task has no trigger: it is run by hand only.")
    if not names(of, at):
        return Finding(False, "rule", "The trigger yields no instant at this time.")
    start, end = of.bounds.start_at, of.bounds.end_at
    if start is not None and at < start:
        return Finding(False, "start_at", f"It lies before start_at, {rfc3339(start)}.")
    if end is not None and at > end:
        return Finding(False, "end_at", f"It lies after end_at, {rfc3339(end)}.")
    return None


def by_status(of: Definition, at: int) -> Finding | None:
    """Return why a task as it stands makes nothing at an instant, or None."""
    if of.status == "disabled":
        return Finding(False, "disabled", "The task is disabled: nothing of it is due.")
    if of.status == "paused" and (of.paused_until is None or at < of.paused_until):
        until = "" if of.paused_until is None else f" until {rfc3339(of.paused_until)}"
        said = f"The task is paused{until}: what passes meanwhile is not run and not caught up."
        return Finding(False, "paused", said)
    return by_calendar(of, at)


def by_calendar(of: Definition, at: int) -> Finding | None:
    """Return which of its calendars keeps a task from running at an instant, or None."""
    stretch = of.excluded.at(at) if of.excluded is not None else None
    if stretch is None:
        return None
    until = rfc3339(stretch.end)
    said = f"Calendar {stretch.name}, which the task keeps clear of, excludes it until {until}."
    return Finding(False, "calendar", said)


async def foreseen(of: Definition, planned: Planned, now: int, at: int, turn: Slice) -> Finding:
    """Return what planning will make of an instant that is not planned yet."""
    found = by_rule(of, at) or by_status(of, at)
    if found is None and of.instants is not None and of.bounds.max_runs is not None:
        left = of.bounds.max_runs - planned.runs
        due = await planning.counted(of.instants, planned.until, at, left + 1, turn)
        if due > left:
            return used_up(of)
    if found is not None:
        return found
    if at > now or of.status == "paused":
        return Finding(True, "due", "The trigger yields it, and nothing stands against it.")
    made = planning.plan(of, planned.until, planned.runs, now, now)
    if any(gap.first <= at <= gap.last for gap in made.gaps) and at not in made.instants:
        return Finding(False, "misfire", f"Nobody planned it in time: {misfire(of)}.")
    return Finding(True, "due", "It is overdue, and is planned at the next look.")


def used_up(of: Definition) -> Finding:
    """Return the finding for an instant that `max_runs` does not leave."""
    most = of.bounds.max_runs
    return Finding(False, "max_runs", f"max_runs is {most}, and all were used up before it.")


def misfire(of: Definition) -> str:
    """Return a task's misfire rule in words."""
    rule = of.policy.misfire or "latest"
    return f"misfire is {rule}, so {MISFIRE[rule]}"


# What the ledger says ----------------------------------------------------------------------------

STATES = {
    "scheduled": "Its run is planned",
    "running": "Its run is under way",
    "retrying": "Its run has failed, and is tried again",
    "succeeded": "It ran, and succeeded",
    "failed": "It ran, and failed",
    "expired": "Its run could not start in time, and has expired",
    "cancelled": "Its run was cancelled",
}
SKIPPED = {
    "overlap": "an earlier run of the task was still under way, and its overlap does not allow two",
    "paused": "the task was paused",
    "deleted": "the task was deleted then, and was brought back later",
    "calendar": "a calendar that the task keeps clear of excluded it",
}


def of_run(of: Definition, run: Started | Finished, now: int) -> Finding:
    """Return what a run says of its instant."""
    if isinstance(run, Started):
        untried = not run.attempts and not run.replayed and run.due > now
        excluded = by_calendar(of, run.scheduled_for) if untried else None
        if excluded is not None:
            return excluded
        state = "running" if run.claimed and run.due <= now else "scheduled"
        state = "retrying" if state == "scheduled" and run.attempts else state
        due = f", for {rfc3339(run.due)}" if state != "running" else ""
        return Finding(True, state, f"{STATES[state]}{due}.")
    fires = run.state in ("succeeded", "failed")
    why = f": {run.reason}" if run.reason else ""
    tries = f", after {len(run.attempts)} attempts" if fires and len(run.attempts) > 1 else ""
    return Finding(fires, run.state, f"{STATES[run.state]}{tries}{why}.")


def of_gap(of: Definition, gap: Finished) -> Finding:
    """Return what a row of skipped instants says of one of them."""
    reason = gap.reason or "skipped"
    why = SKIPPED.get(reason, misfire(of) if reason == "misfire" else reason)
    count = gap.gap[0] if gap.gap else 1
    among = f", as one of {count}" if count > 1 else ""
    missed = "it was missed: " if reason == "misfire" else ""
    return Finding(False, reason, f"It was skipped{among}, for {missed}{why}.")


async def without_row(
    of: Definition, planned: Planned, now: int, at: int, kept: int | None, turn: Slice
) -> Finding:
    """Return why there is neither a run nor a row of skipped instants for an instant.

    `kept` is from when on all of history is there.
    """
    found = by_rule(of, at)
    if found is not None or at > planned.until:
        return found or await foreseen(of, planned, now, at, turn)
    created, edited = (int(each.timestamp() * 1000) for each in (of.created_at, of.updated_at))
    if at <= created:
        said = "The task was not there yet; a backfill makes up for it."
        return Finding(False, "not_created", said)
    if kept is None or at < kept:
        return Finding(False, "forgotten", "History reaches back no further: nobody knows.")
    if of.version > 1 and at <= edited:
        said = f"The task was changed since, at {rfc3339(edited)}; what it was before made no run."
        return Finding(False, "edited", said)
    found = by_status(of, at)
    if found is not None:
        return found
    most = of.bounds.max_runs
    if most is not None and planned.runs >= most:
        return used_up(of)
    said = "It was due and has no run, which should not be; GET /runs/verify names all such."
    return Finding(False, "missing", said)


# Clocks ------------------------------------------------------------------------------------------


def clock_change(of: Definition, at: int) -> str | None:
    """Return what the clock of a task's zone does about an instant, where that matters to it."""
    zone, second = zone_of(of), at // 1000
    if zone == "UTC" or not FLOOR <= second < CEILING:
        return None
    stretch = stretch_at(zone, second)
    wall, start = second + stretch.offset, stretch.start + stretch.offset
    if stretch.missing < start and wall < start + (start - stretch.missing):
        leap = f"{_face(stretch.missing)} to {_face(start)}"
        said = f"On {_day(start)} the clock in {zone} leaps from {leap}"
        return said + _setting(of, "dst_gap", GAP)
    after = stretch_at(zone, min(stretch.end, CEILING - 1))
    second_time = wall < stretch.fresh
    if second_time or after.start + after.offset <= wall < after.fresh:
        which = "second" if second_time else "first"
        said = f"On {_day(wall)} {_face(wall)} comes twice in {zone}, and this is the {which} time"
        return said + _setting(of, "dst_overlap", OVERLAP)
    return None


def _setting(of: Definition, name: str, words: dict[str, str]) -> str:
    """Return what the task says of it, where its trigger asks."""
    trigger = of.trigger
    if isinstance(trigger, Cron) and not pattern(trigger.expression).fixed:
        return "; this cron follows elapsed time."
    if isinstance(trigger, Rrule) and trigger.elapsed:
        return "; this RRULE follows elapsed time."
    value = getattr(trigger, name, None)
    return "." if value is None else f"; {name} is {value}: {words[value]}."


def _face(wall: int) -> str:
    return datetime.fromtimestamp(wall, UTC).strftime("%H:%M:%S").removesuffix(":00")


def _day(wall: int) -> str:
    return datetime.fromtimestamp(wall, UTC).date().isoformat()
