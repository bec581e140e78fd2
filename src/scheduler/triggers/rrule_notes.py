"""What daylight saving did to an instant of a recurrence rule, in words."""

from datetime import date
from itertools import islice

from scheduler.triggers.rrule_clock import Wall, again_from, stretch_in
from scheduler.triggers.rrule_set import Recurrence, has
from scheduler.triggers.rrule_text import EPOCH_DAY
from scheduler.triggers.zones import CEILING, DAY, FLOOR, Stretch

NAMED_MOST = 3
"""How many wall times a note names."""
TIMES = {"first": "the first time", "second": "the second time", "both": "both times"}


def note_of(of: Recurrence, at: int) -> str | None:
    """Return what became of the wall time of an instant (s); None where nothing did.

    What follows elapsed time is left alone by the clock, and has no note.
    """
    if not FLOOR <= at < CEILING:
        return None
    for rule in of.rules:
        if isinstance(rule, Wall) and rule.zone != "UTC" and has(rule, at):
            note = _note(rule, at)
            if note is not None:
                return note
    return None


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
    count = rule.walls.within(low, high)
    names = [_face(wall) for wall in islice(rule.walls.walk(low, high), NAMED_MOST)]
    if count > NAMED_MOST:
        names.append(f"{count - NAMED_MOST} more")
    listed = " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
    on = "this day" if low // DAY == today else date.fromordinal(low // DAY + EPOCH_DAY).isoformat()
    return f"{listed} {'do' if count > 1 else 'does'} not exist on {on}"


def _face(wall: int) -> str:
    hour, minute, second = wall // 3600 % 24, wall // 60 % 60, wall % 60
    return f"{hour:02}:{minute:02}" + (f":{second:02}" if second else "")
