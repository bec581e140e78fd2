"""Reading when a task is due: its trigger, what bounds it, and whether it is paused."""

from typing import get_args

import msgspec
from msgspec import UNSET, UnsetType

from scheduler import asked
from scheduler.definition import Definition, Status
from scheduler.tasks.keeping import read_calendars
from scheduler.tasks.model import STATES, next_due, standing
from scheduler.tasks.reading import Reader, short
from scheduler.triggers import UNIT_MS, Bounds, Cron, Interval, Once, Rrule, Trigger
from scheduler.triggers.pattern import pattern
from scheduler.triggers.zones import check_zone

MOST_RUNS = 1_000_000_000
JITTER_MOST_S = 86_400

At = int | UnsetType | None
"""A `scheduled_at` as it was sent: in ms since 1970, None for null."""


class Timing(msgspec.Struct):
    """When a task is due; `at_once` asks for one run now."""

    trigger: Trigger | None
    bounds: Bounds
    at_once: bool


def read_timing(reader: Reader) -> Timing:
    """Return what the body makes of the stored trigger and its bounds."""
    bounds = _bounds(reader)
    trigger, at_once = _trigger(reader, bounds)
    if isinstance(trigger, Once) and bounds.jitter_ms:
        if reader.fields.jitter_seconds is not UNSET:
            reader.say("jitter_seconds", "goes with a trigger that recurs; leave it out here")
        bounds = msgspec.structs.replace(bounds, jitter_ms=0)
    return Timing(trigger, bounds, at_once and _holds(bounds, reader.now))


def read_pause(reader: Reader) -> tuple[Status, int | None]:
    """Return the status, and until when a paused task is paused (ms since 1970)."""
    status, until = _status(reader), reader.time("paused_until")
    said, now, before = reader.fields.status is not UNSET, reader.now, reader.before
    if until is UNSET:
        kept = before.paused_until
        if not said:
            return before.status, kept
        return status, kept if status == "paused" and kept is not None and kept > now else None
    if until is None:
        return status, None
    if until <= now:  # it has resumed by itself
        return "active" if status == "paused" else status, None
    if said and status != "paused":
        reader.say("paused_until", f"goes with status paused, not {status}; send null or a time")
    return "paused", until


def _status(reader: Reader) -> Status:
    status = reader.fields.status
    if status is UNSET:
        return standing(reader.before, reader.now)
    if not status or status in STATES:  # another vocabulary's words for a live task
        return "active"
    if status not in get_args(Status):
        reader.say("status", "must be active, paused or disabled")
        return "active"
    return status  # type: ignore[return-value]


# Bounds


def _bounds(reader: Reader) -> Bounds:
    stored = reader.before.bounds
    start, end = reader.time("start_at"), reader.time("end_at")
    jitter = reader.number("jitter_seconds", stored.jitter_ms / 1000, 0, JITTER_MOST_S)
    bounds = Bounds(
        start_at=stored.start_at if start is UNSET else start,
        end_at=stored.end_at if end is UNSET else end,
        max_runs=reader.number("max_runs", stored.max_runs, 1, MOST_RUNS),
        jitter_ms=round((jitter or 0) * 1000),
        calendars=read_calendars(reader),
    )
    if (
        bounds.start_at is not None
        and bounds.end_at is not None
        and bounds.start_at > bounds.end_at
    ):
        field = "start_at" if end is UNSET else "end_at"
        reader.say(field, "start_at must not lie after end_at")
    return bounds


def _holds(bounds: Bounds, at: int) -> bool:
    late_enough = bounds.start_at is None or bounds.start_at <= at
    return late_enough and (bounds.end_at is None or at <= bounds.end_at)


# The trigger


def _trigger(reader: Reader, bounds: Bounds) -> tuple[Trigger | None, bool]:
    """Return the trigger, and whether the edit asks for a run now."""
    fields, stored, at = reader.fields, reader.before.trigger, reader.time("scheduled_at")
    every = fields.frequency is not UNSET and fields.frequency is not None
    if fields.cron:
        if every:
            reader.say("cron", "frequency and cron are two triggers; send one, and the other null")
            return stored, False
        if fields.unit:
            reader.say("unit", "goes with frequency, not with cron; leave it out, or send null")
        return _cron(reader, fields.cron.strip(), bounds, at), False
    if fields.rrule or (isinstance(stored, Rrule) and fields.rrule is UNSET and not every):
        return _rrule(reader, stored), False
    # A time that the cron does not name is a trigger of its own, and replaces it.
    kept = at is UNSET or at is None or _names(reader.before, at)
    if isinstance(stored, Cron) and fields.cron is UNSET and not (every or fields.unit) and kept:
        return _cron(reader, stored.expression, bounds, at), False
    return _interval_or_once(reader, bounds, at)


def _rrule(reader: Reader, stored: Trigger | None) -> Rrule | None:
    was = stored if isinstance(stored, Rrule) else None
    text = reader.sent("rrule", was.text if was else None)
    zone = reader.sent("timezone", was.timezone if was else None) or "UTC"
    start = was.start if was else reader.now // 1000 * 1000
    return Rrule(text, check_zone(zone), start)


def _cron(reader: Reader, text: str, bounds: Bounds, at: At) -> Cron | None:
    before, stored = reader.before, reader.before.trigger
    zone = reader.sent("timezone", stored.timezone if isinstance(stored, Cron) else None) or "UTC"
    wrong = len(reader.wrong)
    for field, check, value in (("cron", pattern, text), ("timezone", check_zone, zone)):
        try:
            check(value)
        except ValueError as e:
            reader.say(field, str(e))
    if len(reader.wrong) > wrong:
        return None
    made = Cron(text, zone)
    if at is not UNSET and at is not None and not _names(before, at):
        after = msgspec.structs.replace(before, trigger=made, bounds=bounds).instants
        if after is None or after.next(reader.now) != at:
            reader.say(
                "scheduled_at", "is a second trigger beside cron; leave it out, or send null"
            )
    return made


def _interval_or_once(reader: Reader, bounds: Bounds, at: At) -> tuple[Trigger | None, bool]:
    stored = reader.before.trigger
    was = stored if isinstance(stored, Interval) else None
    if (reader.fields.timezone or "UTC") != "UTC":
        reader.say("timezone", "goes with cron; leave it out, or send null")
    frequency = reader.sent("frequency", was.frequency if was else None)
    unit = reader.sent("unit", was.unit if was else None) or None
    if frequency is None and unit is not None and reader.fields.unit is not UNSET:
        reader.say("frequency", "is needed with unit")
    if frequency is None:
        return _once(reader, at)
    if unit is None or unit not in UNIT_MS:
        need = f"must be one of {', '.join(UNIT_MS)}" if unit else "is needed with frequency"
        reader.say("unit", need)
        return None, False
    most = asked.CENTURY_MS // UNIT_MS[unit]
    if not 0 < frequency <= most:
        reader.say("frequency", f"must be 1 to {most} {unit}s (100 years), is {short(frequency)}")
        return None, False
    return _interval(reader, Interval(frequency, unit, 0), was, bounds, at)


def _once(reader: Reader, at: At) -> tuple[Trigger | None, bool]:
    stored = reader.before.trigger
    if at is UNSET or (at is None and _was_null(reader)):
        return (stored if isinstance(stored, Once) else None), False
    if at is None:
        return None, False
    if isinstance(stored, Once) and stored.at == at:
        return stored, False
    # Its own trigger, from now on: a past one is due once, now.
    return Once(at), at <= reader.now


def _interval(
    reader: Reader, new: Interval, was: Interval | None, bounds: Bounds, at: At
) -> tuple[Trigger, bool]:
    now = reader.now
    unmoved = at is UNSET or (at is None and _was_null(reader))
    if was is not None and (unmoved or _on_grid(reader.before, was, at)):
        return msgspec.structs.replace(new, anchor=was.anchor), False
    if at is UNSET or at is None:
        start = bounds.start_at
        anchor = start if start is not None and start > now else now + new.every
        return msgspec.structs.replace(new, anchor=anchor), False
    # In an edit a past one only moves the grid.
    return msgspec.structs.replace(new, anchor=at), reader.new and at <= now


def _on_grid(before: Definition, was: Interval, at: At) -> bool:
    if at is UNSET or at is None:
        return False
    return (at >= was.anchor and (at - was.anchor) % was.every == 0) or _names(before, at)


def _names(before: Definition, at: int) -> bool:
    """Say whether a time is one of a task's instants: GET may have answered it as the next."""
    instants = before.instants
    return instants is not None and instants.next(at - 1) == at


def _was_null(reader: Reader) -> bool:
    """Say whether a null may be the null that GET answers, which must change nothing.

    A disabled task has no next instant; there a null that comes without a status is meant.
    """
    before, sent = reader.before, reader.fields.status is not UNSET
    due = next_due(before, reader.now, reader.spent, reader.gone)
    return due is None and (before.status != "disabled" or sent)
