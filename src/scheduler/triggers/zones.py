"""Time zones as stretches of constant offset, so that wall clocks can be reckoned with.

Times are whole seconds since 1970; a wall clock's are what its face would be, read as UTC.

The zones are those of the package tzdata, and never the machine's: all replicas have the same, and
which they are can be written down.
"""

import re
import zoneinfo
from bisect import bisect_right
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache
from importlib import resources
from typing import NamedTuple
from zoneinfo import ZoneInfo

import tzdata

DATA = resources.files("tzdata")
zoneinfo.reset_tzpath(to=[str(DATA.joinpath("zoneinfo"))])
ZoneInfo.clear_cache()
VERSION: str = tzdata.IANA_VERSION
"""Of the data, like 2026a: a later one is greater."""

DAY = 86_400
FLOOR, CEILING = -62_072_000_000, 253_339_000_000
"""Wall clocks are reckoned with from the year 3 until the end of 9997: Python ends at 1 and 9999,
and a wall clock may be a day ahead or behind."""
BLOCK = 400 * DAY
"""How much of a zone is worked out in one go: a quarter of a millisecond."""
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_+/-]{0,63}", re.ASCII)
OF_THIS_MACHINE = ("localtime", "posixrules", "posix/", "right/")
"""Files beside the zones that mean something else on each machine, or count leap seconds."""


class Stretch(NamedTuple):
    """A time of constant offset, [start, end); `offset` is east of UTC."""

    start: int
    end: int
    offset: int
    missing: int
    """The wall clock was put forward at the start: [missing, start + offset) does not exist."""
    fresh: int
    """The wall clock was put back at the start: [start + offset, fresh) came before."""


class Part(NamedTuple):
    """Due as the wall times in [low, high) say, `offset` seconds off, and at what was moved."""

    low: int
    high: int
    offset: int
    moved: Sequence[int] = ()
    """Instants (s) of no such wall time: a leap has moved them there."""


def check_zone(name: str) -> str:
    """Return the name of a time zone. Raises ValueError that says what would be right."""
    if not NAME.fullmatch(name) or name.startswith(OF_THIS_MACHINE):
        raise ValueError(f"is no IANA time zone{_hint(name)}")
    try:
        ZoneInfo(name)
    except (OSError, ValueError, KeyError):  # a folder, a file that is no zone, nothing at all
        raise ValueError(f"is no IANA time zone{_hint(name)}") from None
    return name


def _hint(name: str) -> str:
    meant = _known().get(name.lower()[:64].replace(" ", "_"))
    return f"; did you mean {meant}?" if meant else ", like Europe/Berlin or UTC"


@lru_cache(1)
def _known() -> dict[str, str]:
    """Return the names of zones by how they may be misspelt: in lower case, or the city alone."""
    names = DATA.joinpath("zones").read_text("ascii").split()
    cities = {name.rpartition("/")[2].lower(): name for name in names}
    return cities | {name.lower(): name for name in names}


def stretch_at(zone: str, at: int) -> Stretch:
    """Return the stretch that holds an instant from FLOOR until before CEILING."""
    starts, stretches = _block(zone, at // BLOCK)
    return stretches[bisect_right(starts, at) - 1]


@lru_cache(4096)
def _block(zone: str, number: int) -> tuple[list[int], list[Stretch]]:
    """Return the stretches of one block, cut off at its ends.

    A day is the finest look: no zone ever changed its clock twice within three days.
    """
    info, start, end = ZoneInfo(zone), number * BLOCK, (number + 1) * BLOCK
    first = start - 3 * DAY  # a clock put back shortly before the block repeats into it
    offset = _offset(info, first)
    found = [Stretch(first, end, offset, first + offset, first + offset)]
    for day in range(first, end, DAY):
        if _offset(info, day + DAY) != found[-1].offset:
            at = _change(info, day, day + DAY)
            last, offset = found[-1], _offset(info, at)
            found[-1] = last._replace(end=at)
            wall, before = at + offset, at + last.offset
            found.append(Stretch(at, end, offset, min(wall, before), max(wall, before)))
    cut = [_cut(s, start, end) for s in found if s.end > start and s.start < end]
    return [s.start for s in cut], cut


def _cut(of: Stretch, start: int, end: int) -> Stretch:
    """Return the part of a stretch in [start, end)."""
    cut = of._replace(end=min(of.end, end))
    if of.start >= start:
        return cut
    wall = start + of.offset
    return cut._replace(start=start, missing=wall, fresh=max(of.fresh, wall))


def _change(info: ZoneInfo, low: int, high: int) -> int:
    """Return when the offset changes in (low, high]."""
    before = _offset(info, low)
    while high - low > 1:
        middle = (low + high) // 2
        if _offset(info, middle) == before:
            low = middle
        else:
            high = middle
    return high


def _offset(info: ZoneInfo, at: int) -> int:
    at = min(max(at, FLOOR), CEILING)
    offset = datetime.fromtimestamp(at, info).utcoffset()
    return 0 if offset is None else offset.days * DAY + offset.seconds


def local(zone: str, at_ms: int) -> str:
    """Return an instant (ms since 1970) as RFC 3339 in a zone, with its offset.

    RFC 3339 has whole minutes; the local mean times of long ago are rounded to one.
    """
    offset = 0 if zone == "UTC" else _offset(ZoneInfo(zone), at_ms // 1000)
    there = timezone(timedelta(minutes=round(offset / 60)))
    at = datetime.fromtimestamp(at_ms // 1000, UTC).replace(microsecond=at_ms % 1000 * 1000)
    try:
        return at.astimezone(there).isoformat(timespec="milliseconds")
    except OverflowError:  # on the first or last day that there is
        return at.isoformat(timespec="milliseconds")
