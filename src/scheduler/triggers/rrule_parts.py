"""One recurrence rule as RFC 5545, 3.3.10 has it: which parts there are, and what each takes."""

import math
import re
from collections.abc import Callable
from typing import Any

import msgspec

from scheduler.triggers.zones import DAY

FREQUENCIES = ("SECONDLY", "MINUTELY", "HOURLY", "DAILY", "WEEKLY", "MONTHLY", "YEARLY")
UNITS = {"SECONDLY": 1, "MINUTELY": 60, "HOURLY": 3600}
"""The length of a step (s) of those that follow elapsed time."""
WEEKDAYS = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")
ROUGHLY = UNITS | {"DAILY": DAY, "WEEKLY": 7 * DAY, "MONTHLY": 28 * DAY, "YEARLY": 365 * DAY}
LONGEST = 1000 * 366 * DAY
"""How far apart steps may be (s)."""
COUNT_MOST = 10**12
NOT_WITH = {
    "BYWEEKNO": ("SECONDLY", "MINUTELY", "HOURLY", "DAILY", "WEEKLY", "MONTHLY"),
    "BYYEARDAY": ("DAILY", "WEEKLY", "MONTHLY"),
    "BYMONTHDAY": ("WEEKLY",),
}
"""What RFC 5545, 3.3.10 says must not stand beside which FREQ."""


class Costly(ValueError):
    """A question about a rule takes more steps than there is time for."""


class Parts(msgspec.Struct, frozen=True, gc=False):
    """What one rule says; lists are sorted, and empty where the part was not sent."""

    freq: str
    interval: int = 1
    count: int | None = None
    until: str | None = None
    """As it was sent: what it means depends on DTSTART."""
    wkst: int = 0
    bysecond: tuple[int, ...] = ()
    byminute: tuple[int, ...] = ()
    byhour: tuple[int, ...] = ()
    byday: tuple[tuple[int, int], ...] = ()
    """(ordinal, weekday) each; the ordinal is 0 for every one, Monday is 0."""
    bymonthday: tuple[int, ...] = ()
    byyearday: tuple[int, ...] = ()
    byweekno: tuple[int, ...] = ()
    bymonth: tuple[int, ...] = ()
    bysetpos: tuple[int, ...] = ()

    @property
    def elapsed(self) -> bool:
        """Say whether it steps over elapsed time, and not from day to day."""
        return self.freq in UNITS

    @property
    def times_most(self) -> int:
        """How many times a day it may name, where it does not step over elapsed time."""
        return math.prod(max(len(each), 1) for each in (self.byhour, self.byminute, self.bysecond))


def read_parts(text: str) -> Parts:
    """Return what `FREQ=...;...` says. Raises ValueError that names the part that is wrong."""
    sent: dict[str, str] = {}
    for part in text.strip().rstrip(";").split(";"):
        name, equals, value = (each.strip() for each in part.partition("="))
        name = name.upper()
        if not equals or not name:
            raise ValueError(f"{part[:40]!r} is no part of a rule; they look like FREQ=DAILY")
        if name in ("RSCALE", "SKIP"):
            raise ValueError(f"{name} is not supported; leave it out: all rules are Gregorian")
        if name not in READERS and name != "FREQ":
            raise ValueError(f"there is no part {name[:40]}; there are FREQ, {', '.join(READERS)}")
        if name in sent:
            raise ValueError(f"{name} stands there twice; put its values into one, with commas")
        sent[name] = value
    freq = sent.pop("FREQ", "").upper()
    if freq not in FREQUENCIES:
        raise ValueError(f"FREQ must be one of {', '.join(FREQUENCIES)}")
    found = Parts(freq, **{name.lower(): READERS[name](name, sent[name]) for name in sent})
    _check(found)
    return found


def _check(parts: Parts) -> None:
    """Raise ValueError where parts that are right by themselves do not go together."""
    if parts.count is not None and parts.until is not None:
        raise ValueError("COUNT and UNTIL exclude each other; send one of them")
    if parts.interval * ROUGHLY[parts.freq] > LONGEST:
        raise ValueError("INTERVAL is too great; steps may be 1,000 years apart")
    for name, freqs in NOT_WITH.items():
        if getattr(parts, name.lower()) and parts.freq in freqs:
            fitting = [freq for freq in FREQUENCIES if freq not in freqs]
            raise ValueError(f"{name} does not go with FREQ={parts.freq}; with {_or(fitting)}")
    if any(ordinal for ordinal, _ in parts.byday):
        if parts.freq not in ("MONTHLY", "YEARLY"):
            raise ValueError("BYDAY takes numbers like 2MO with FREQ=MONTHLY or YEARLY alone")
        if parts.byweekno:
            raise ValueError("BYDAY takes no numbers like 2MO beside BYWEEKNO")
    if parts.bysetpos and not any(
        getattr(parts, name.lower()) for name in READERS if name[:2] == "BY" and name != "BYSETPOS"
    ):
        raise ValueError("BYSETPOS picks from what another BY part names; add one, like BYDAY")


def _or(names: list[str]) -> str:
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _whole(name: str, value: str, most: int) -> int:
    if not re.fullmatch(r"\d{1,15}", value, re.ASCII) or not 1 <= int(value) <= most:
        raise ValueError(f"{name} must be a whole number from 1 to {most}, and is {value[:40]!r}")
    return int(value)


def _numbers(low: int, high: int) -> Callable[[str, str], tuple[int, ...]]:
    """Return a reader of lists of numbers from low to high; with low 1 also from -high to -1."""

    def read(name: str, value: str) -> tuple[int, ...]:
        found = set()
        for each in value.split(","):
            number = int(each) if re.fullmatch(r"\s*[+-]?\d{1,4}\s*", each, re.ASCII) else None
            mirrored = low == 1 and name != "BYMONTH"
            if number is None or not (
                low <= number <= high or (mirrored and -high <= number <= -low)
            ):
                counted = f", or from -{high} to -{low} from the end" if mirrored else ""
                raise ValueError(
                    f"{name} takes numbers from {low} to {high}{counted}, and not {each[:40]!r}"
                )
            found.add(number)
        return tuple(sorted(found))

    return read


def _seconds(name: str, value: str) -> tuple[int, ...]:
    """60 is a leap second, which no clock here shows: RFC 5545, 3.3.12 reads it as 59."""
    return tuple(sorted({min(second, 59) for second in _numbers(0, 60)(name, value)}))


def _weekdays(name: str, value: str) -> tuple[tuple[int, int], ...]:
    found = set()
    for each in value.upper().split(","):
        match = re.fullmatch(r"\s*([+-]?\d{1,2})?([A-Z]{2})\s*", each, re.ASCII)
        ordinal = int(match[1] or 0) if match else 0
        bad = match is None or match[2] not in WEEKDAYS or (match[1] and not ordinal)
        if bad or match is None or abs(ordinal) > 53:
            raise ValueError(
                f"{name} takes {', '.join(WEEKDAYS)}, or 2MO for the second Monday, -1FR for the"
                f" last Friday, and not {each[:40]!r}"
            )
        found.add((ordinal, WEEKDAYS.index(match[2])))
    return tuple(sorted(found))


def _weekday(name: str, value: str) -> int:
    if value.upper() not in WEEKDAYS:
        raise ValueError(f"{name} must be one of {', '.join(WEEKDAYS)}, and is {value[:40]!r}")
    return WEEKDAYS.index(value.upper())


READERS: dict[str, Callable[[str, str], Any]] = {
    "INTERVAL": lambda name, value: _whole(name, value, 10**12),
    "COUNT": lambda name, value: _whole(name, value, COUNT_MOST),
    "UNTIL": lambda _, value: value,
    "WKST": _weekday,
    "BYSECOND": _seconds,
    "BYMINUTE": _numbers(0, 59),
    "BYHOUR": _numbers(0, 23),
    "BYDAY": _weekdays,
    "BYMONTHDAY": _numbers(1, 31),
    "BYYEARDAY": _numbers(1, 366),
    "BYWEEKNO": _numbers(1, 53),
    "BYMONTH": _numbers(1, 12),
    "BYSETPOS": _numbers(1, 366),
}
