"""What daylight saving did to an instant of a recurrence rule, in words."""

from collections.abc import Iterable, Sequence
from datetime import date
from itertools import islice

from scheduler.triggers.rrule_clock import Wall, again_from, instants_of, stretch_in
from scheduler.triggers.rrule_set import Place, Recurrence, has
from scheduler.triggers.rrule_steps import Steps
from scheduler.triggers.rrule_text import EPOCH_DAY, Stamp
from scheduler.triggers.zones import CEILING, DAY, FLOOR, Stretch

NAMED_MOST = 3
"""How many wall times a note names."""
TIMES = {"first": "the first time", "second": "the second time", "both": "both times"}


def note_of(of: Recurrence, rdates: Sequence[Stamp], place: Place, at: int) -> str | None:
    """Return what became of the wall time of an instant (s); None where nothing did.

    `rdates` are the dates that the set was compiled with, at `place`. A rule that follows elapsed
    time is left alone by the clock, and has notes where it names hours alone.
    """
    if not FLOOR <= at < CEILING:
        return None
    for rule in of.rules:
        if rule.zone == "UTC" or not has(rule, at):
            continue
        note = _note(rule, at) if isinstance(rule, Wall) else _stepped(rule, at)
        if note is not None:
            return note
    return _dated(of, rdates, place, at)


def _stepped(rule: Steps, at: int) -> str | None:
    if not rule.grid.clock.hours:
        return None  # nobody expects another
    stretch = stretch_in(rule.zone, at)
    wall = at + stretch.offset
    both = instants_of(rule.zone, wall, "skip", "both")
    if len(both) > 1 and all(has(rule, each) for each in both):
        return f"{_face(wall)} comes twice on this day; fires both times"
    if rule.first(stretch.start) == at and (lost := rule.lost(stretch)):
        return f"before it, {_absent(lost, len(lost), wall // DAY)}; {_be(lost)} dropped"
    return None


def _dated(of: Recurrence, rdates: Sequence[Stamp], place: Place, at: int) -> str | None:
    """Return what became of the date that an instant is, or of those before it."""
    named_there = of.dates.hold(at)
    if not rdates or not (named_there or place.gap == "skip"):
        return None
    for zone in dict.fromkeys(stamp.zone or place.zone for stamp in rdates):
        stretch = stretch_in(zone, at)
        if zone == "UTC" or not (named_there or of.first(stretch.start) == at):
            continue
        wall, begin = at + stretch.offset, stretch.start + stretch.offset
        named = [stamp.wall for stamp in rdates if (stamp.zone or place.zone) == zone]
        lost = sorted({each for each in named if stretch.missing <= each < begin})
        moved = [each for each in lost if at in instants_of(zone, each, place.gap, place.overlap)]
        if moved:
            fire = "fire once," if len(moved) > 1 else "fires"
            return f"{_absent(moved, len(moved), wall // DAY)}; {fire} at {_face(wall)}"
        if wall in named and len(instants_of(zone, wall, "skip", "both")) > 1:
            return f"{_face(wall)} comes twice on this day; fires {TIMES[place.overlap]}"
        if lost and place.gap == "skip" and of.first(stretch.start) == at:
            return f"before it, {_absent(lost, len(lost), wall // DAY)}; {_be(lost)} dropped"
    return None


def _be(many: Sequence[int]) -> str:
    return "are" if len(many) > 1 else "is"


def _note(rule: Wall, at: int) -> str | None:
    stretch = stretch_in(rule.zone, at)
    wall, begin = at + stretch.offset, stretch.start + stretch.offset
    own = rule.walls.first(wall) == wall
    moved = _moved(rule, stretch, at)
    if moved:
        names = _lost(rule, *moved, wall // DAY)
        if own:
            return f"{names}; {_fire(rule, *moved)} once, with {_face(wall)}"
        once = " once," if rule.walls.within(*moved) > 1 else ""
        return f"{names}; {_fire(rule, *moved)}{once} at {_face(wall)}"
    if wall < stretch.fresh or wall >= again_from(rule.zone, stretch):
        return f"{_face(wall)} comes twice on this day; fires {TIMES[rule.overlap]}"
    lost = stretch.missing, begin
    if rule.gap == "skip" and rule.walls.within(*lost) and rule.walls.first(begin) == wall:
        be = "are" if rule.walls.within(*lost) > 1 else "is"
        return f"before it, {_lost(rule, *lost, wall // DAY)}; {be} dropped"
    return None


def _moved(rule: Wall, stretch: Stretch, at: int) -> tuple[int, int] | None:
    """Return the range of wall times in the gap before a stretch that became an instant."""
    begin = stretch.start + stretch.offset
    if rule.gap == "end" and at == stretch.start and rule.walls.within(stretch.missing, begin):
        return stretch.missing, begin
    lost = stretch.missing + at - stretch.start
    if rule.gap == "shift" and lost < begin and rule.walls.first(lost) == lost:
        return lost, lost + 1
    return None


def _fire(rule: Wall, low: int, high: int) -> str:
    return "fire" if rule.walls.within(low, high) > 1 else "fires"


def _lost(rule: Wall, low: int, high: int, today: int) -> str:
    """Return the wall times in a range that does not exist, and that they do not."""
    return _absent(rule.walls.walk(low, high), rule.walls.within(low, high), today)


def _absent(walls: Iterable[int], count: int, today: int) -> str:
    """Return `count` wall times of one gap, and that they do not exist."""
    first = list(islice(walls, NAMED_MOST))
    names, day = [_face(wall) for wall in first], first[0] // DAY
    if count > NAMED_MOST:
        names.append(f"{count - NAMED_MOST} more")
    listed = " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
    on = "this day" if day == today else date.fromordinal(day + EPOCH_DAY).isoformat()
    return f"{listed} {'do' if count > 1 else 'does'} not exist on {on}"


def _face(wall: int) -> str:
    hour, minute, second = wall // 3600 % 24, wall // 60 % 60, wall % 60
    return f"{hour:02}:{minute:02}" + (f":{second:02}" if second else "")
