"""By an RRULE (RFC 5545, 3.8.5): recurrence rules, dates, and exceptions, on a wall clock.

A rule of DAILY or more keeps to the wall clock: `dst_gap` and `dst_overlap` say what becomes of a
time that does not exist, or comes twice. HOURLY, MINUTELY and SECONDLY follow elapsed time, and
their other parts are tested on the wall clock of each step.

A question is arithmetic from DTSTART, and tables of the year in question: it costs the same
however long ago DTSTART lies. One that takes too many steps is given up (`Costly`).
"""

from collections.abc import Iterator
from functools import lru_cache

import msgspec

from scheduler.instant import FIRST, Instant
from scheduler.triggers.rrule_clock import DstGap, DstOverlap, stretch_in
from scheduler.triggers.rrule_notes import note_of
from scheduler.triggers.rrule_parts import Costly
from scheduler.triggers.rrule_set import Place, Recurrence, compiled, ends_of
from scheduler.triggers.rrule_text import KEPT, Text, read_text, tier
from scheduler.triggers.rrule_words import words
from scheduler.triggers.zones import CEILING, check_zone

NEVER = "no day and time is all that its parts name, like 30 February"


class Rrule(msgspec.Struct, tag_field="kind", tag="rrule", frozen=True, gc=False):
    """Due as `text` says; raises ValueError with the reason."""

    text: str
    """As the user wrote it."""
    timezone: str = "UTC"
    """That of the rule's wall clock: its TZID, else the task's."""
    start: Instant = 0
    """DTSTART (ms since 1970) where the text names none."""
    dst_gap: DstGap = "shift"
    dst_overlap: DstOverlap = "first"
    ends: tuple[int | None, ...] = ()
    """Where COUNT ends each RRULE, then each EXRULE (s); sought each time where it is empty."""

    def __post_init__(self) -> None:
        text = read_text(self.text)
        zone = zone_of(text)
        if zone is not None and zone != self.timezone:
            raise ValueError(f"is in the time zone {zone}, and not in {self.timezone}")
        if zone is None:
            check_zone(self.timezone)
        rules = (*text.rules, *text.exrules)
        if self.ends and len(self.ends) != len(rules):
            raise ValueError("has not one end for each of its rules")
        if not self.ends and any(parts.count is not None for parts in rules):
            compiled(text, _place(self, text), (CEILING,) * len(rules))  # COUNT takes time
        else:
            recurrence_of(self)

    def next(self, after: int) -> int | None:
        """Return the first instant later than `after`. Raises Costly."""
        found = recurrence_of(self).first(after // 1000 + 1)
        return None if found is None else found * 1000

    def last(self, after: int, until: int) -> int | None:
        """Return the last instant in (after, until]. Raises Costly."""
        found = recurrence_of(self).last(until // 1000 + 1)
        return None if found is None or found * 1000 <= after else found * 1000

    def count(self, after: int, until: int) -> int:
        """Return how many instants lie in (after, until]. Raises Costly."""
        return recurrence_of(self).within(after // 1000 + 1, until // 1000 + 1)

    def between(self, after: int, until: int) -> Iterator[int]:
        """Yield the instants in (after, until], the earliest first."""
        for at in recurrence_of(self).walk(after // 1000 + 1, until // 1000 + 1):
            yield at * 1000

    def explain(self) -> str:
        """Return the rule in words."""
        text = read_text(self.text)
        return words(text, _place(self, text).start)

    def note(self, at: int) -> str | None:
        """Return what daylight saving did to an instant (ms); None where it did nothing."""
        text = read_text(self.text)
        return note_of(recurrence_of(self), text.rdates, _place(self, text), at // 1000)

    @property
    def elapsed(self) -> bool:
        """Say whether all of it follows elapsed time: no setting of daylight saving is asked."""
        text = read_text(self.text)
        return not text.rdates and all(parts.elapsed for parts in text.rules)


def zone_of(text: Text) -> str | None:
    """Return the zone that a text names for its wall clock."""
    return None if text.start is None else text.start.zone


def _place(rule: Rrule, text: Text) -> Place:
    if text.start is not None:
        wall = text.start.wall
    else:
        at = rule.start // 1000
        wall = at + stretch_in(rule.timezone, at).offset
    return Place(rule.timezone, wall, rule.dst_gap, rule.dst_overlap)


def recurrence_of(rule: Rrule) -> Recurrence:
    """Return the set that a rule means; shared, never changed."""
    return _sets[tier(rule.text)](rule)


def _compiled(rule: Rrule) -> Recurrence:
    text = read_text(rule.text)
    return compiled(text, _place(rule, text), rule.ends)


_sets = [lru_cache(most)(_compiled) for _, most in KEPT]


def read_rrule(
    text: str,
    timezone: str | None,
    start: int,
    dst_gap: DstGap = "shift",
    dst_overlap: DstOverlap = "first",
) -> Rrule:
    """Return the rule that a text says; `start` (ms) is DTSTART where it names none.

    `timezone` is that which was sent beside it, if any. Raises ValueError.
    """
    zone = zone_of(read_text(text))
    if zone is not None and timezone is not None and timezone != zone:
        raise ValueError(
            f"has the time zone {zone} in DTSTART, and timezone is {timezone}; leave out timezone,"
            " or the TZID or Z of DTSTART"
        )
    start -= start % 1000
    return Rrule(text, zone or timezone or "UTC", start, dst_gap, dst_overlap)


def judge(rule: Rrule, now: int) -> Rrule:
    """Return a rule with what is to be stored beside it. Pure.

    Raises ValueError where it has no instant, or costs too much to expand from `now` (ms) on.
    """
    text = read_text(rule.text)
    try:
        made = msgspec.structs.replace(rule, ends=ends_of(text, _place(rule, text)))
        if made.next(FIRST) is None:
            raise ValueError(_why_never(text))
        if recurrence_of(made).dead:  # each question would look for its days until the end of time
            raise ValueError(f"has one rule without an instant: {NEVER}")
        recurrence_of(made).prove(now // 1000)
    except Costly as e:
        raise ValueError(f"costs too much to expand: {e}") from None
    return made


def _why_never(text: Text) -> str:
    if any(parts in text.exrules for parts in text.rules):
        return "has no instant: an EXRULE takes away what its equal, the RRULE, names"
    if text.exrules or text.exdates:
        return "has no instant: EXRULE and EXDATE take away all of them"
    if any(parts.until is not None for parts in text.rules):
        return "has no instant: none lies between DTSTART and UNTIL"
    return f"has no instant: {NEVER}"


__all__ = ["Costly", "DstGap", "DstOverlap", "Rrule", "judge", "read_rrule"]
