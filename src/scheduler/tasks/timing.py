"""Reading when a task is due: its trigger, what bounds it, and whether it is paused."""

from typing import get_args

import msgspec
from msgspec import UNSET, UnsetType

from scheduler import asked
from scheduler.db import ms
from scheduler.definition import Definition, Status
from scheduler.judging import Ask
from scheduler.tasks.keeping import read_calendars
from scheduler.tasks.model import STATES, next_due, standing
from scheduler.tasks.reading import Reader, short
from scheduler.triggers import UNIT_MS, Bounds, Cron, Interval, Once, Rrule, Trigger
from scheduler.triggers.pattern import pattern
from scheduler.triggers.rrule import DstGap, DstOverlap
from scheduler.triggers.zones import check_zone

MOST_RUNS = 1_000_000_000
JITTER_MOST_S = 86_400

WALL: dict[str, type[Cron | Rrule]] = {"cron": Cron, "rrule": Rrule}
"""Triggers that keep to the clock on some wall, by their fields."""
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
    named = ["frequency"] * every + [name for name in WALL if getattr(fields, name)]
    if len(named) > 1:
        number = "two" if len(named) == 2 else "three"
        both = f"{', '.join(named[:-1])} and {named[-1]} are {number} triggers"
        reader.say(named[-1], f"{both}; send one, and null for what is left")
        return stored, False
    if named and not every:
        if fields.unit:
            reader.say(
                "unit", f"goes with frequency, not with {named[0]}; leave it out, or send null"
            )
        return _on_the_wall(reader, named[0], bounds, at), False
    kind = next((name for name, of in WALL.items() if isinstance(stored, of)), None)
    # A time that is no instant of the stored trigger is one of its own, and replaces it.
    kept = at is UNSET or at is None or _names(reader.before, at)
    stays = kind is not None and getattr(fields, kind) is UNSET
    if kind is not None and stays and kept and not (every or fields.unit):
        return _on_the_wall(reader, kind, bounds, at), False
    return _interval_or_once(reader, bounds, at)


def _on_the_wall(reader: Reader, kind: str, bounds: Bounds, at: At) -> Cron | Rrule | None:
    """Return the cron, or the RRULE, as it is sent or stored."""
    made = _cron(reader) if kind == "cron" else _rrule(reader)
    if made is None or at is UNSET or at is None or _names(reader.before, at):
        return made
    after = msgspec.structs.replace(reader.before, trigger=made, bounds=bounds).instants
    if after is None or after.next(reader.now) != at:
        reader.say("scheduled_at", f"is a second trigger beside {kind}; leave it out, or send null")
    return made


def _cron(reader: Reader) -> Cron | None:
    stored = reader.before.trigger
    was = stored if isinstance(stored, Cron) else None
    text = reader.sent("cron", was.expression if was else None).strip()
    zone = reader.sent("timezone", was.timezone if was else None) or "UTC"
    gap, overlap = _dst(reader, was, "end")
    wrong = len(reader.wrong)
    for field, check, value in (("cron", pattern, text), ("timezone", check_zone, zone)):
        try:
            check(value)
        except ValueError as e:
            reader.say(field, str(e))
    return Cron(text, zone, gap, overlap) if len(reader.wrong) == wrong else None


def _rrule(reader: Reader) -> Rrule | None:
    """Return the rule; what is not stored was judged, and has its start from then.

    A time zone that was not sent, or is what GET answers, gives way to one that the text names.
    """
    before, stored = reader.before, reader.before.trigger
    was = stored if isinstance(stored, Rrule) else None
    text = reader.sent("rrule", was.text if was else None)
    zone = reader.sent("timezone", was.timezone if was else None) or None
    gap, overlap = _dst(reader, was, "shift")
    if was is not None and (text, zone, gap, overlap) == (
        was.text, was.timezone, was.dst_gap, was.dst_overlap,
    ):  # fmt: skip
        return was
    start = reader.verdicts.start
    if was is not None:  # kept, however the rule is edited
        start = was.start or ms(before.created_at) // 1000 * 1000
    try:
        field = "timezone"
        if zone is not None:
            check_zone(zone)
        field = "rrule"
        kept = was is not None and zone == was.timezone
        return reader.verdicts.rule(Ask(text, zone, start, gap, overlap, fallback=kept))
    except ValueError as e:
        reader.say(field, str(e))
        return None


def _dst(reader: Reader, was: Cron | Rrule | None, gap: DstGap) -> tuple[DstGap, DstOverlap]:
    """Return what becomes of times that do not exist, or come twice; `gap` is the default."""
    stored = (was.dst_gap, was.dst_overlap) if was else (None, None)
    sent = reader.word("dst_gap", stored[0], get_args(DstGap))
    return sent or gap, reader.word("dst_overlap", stored[1], get_args(DstOverlap)) or "first"


def _interval_or_once(reader: Reader, bounds: Bounds, at: At) -> tuple[Trigger | None, bool]:
    stored = reader.before.trigger
    was = stored if isinstance(stored, Interval) else None
    if (reader.fields.timezone or "UTC") != "UTC":
        reader.say("timezone", "goes with cron and rrule; leave it out, or send null")
    for field in ("dst_gap", "dst_overlap"):
        if getattr(reader.fields, field):
            reader.say(field, "goes with cron and rrule; leave it out, or send null")
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
