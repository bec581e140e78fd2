"""What makes a task due. Each is a value with the same four questions:

`next(after)`, `last(after, until)`, `count(after, until)`, `between(after, until)`: pure, on whole
milliseconds since 1970, every range open at its start and closed at its end.
"""

from scheduler.triggers.bounds import Bounded, Bounds, Instants, Without, without
from scheduler.triggers.cron import Cron
from scheduler.triggers.interval import UNIT_MS, Interval, Unit
from scheduler.triggers.once import Once
from scheduler.triggers.rrule import Rrule

Trigger = Interval | Once | Cron | Rrule


def kind_of(trigger: Trigger | None) -> str:
    """Return the word for a kind of trigger, as the API says it."""
    return "none" if trigger is None else str(trigger.__struct_config__.tag)


__all__ = [
    "UNIT_MS",
    "Bounded",
    "Bounds",
    "Cron",
    "Instants",
    "Interval",
    "Once",
    "Rrule",
    "Trigger",
    "Unit",
    "Without",
    "kind_of",
    "without",
]
