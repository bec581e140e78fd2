"""Times that people type into forms: on the wall of a zone, the reader's unless the form says so.

The script tells the server the reader's zone; without script it is UTC, and the form says that. A
form sends the zone of its times along. A time with an offset is what it says, in any zone.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote
from zoneinfo import ZoneInfo

import msgspec
from litestar import Request

from scheduler import asked
from scheduler.db import rfc3339
from scheduler.errors import ValidationFailed
from scheduler.triggers.zones import check_zone

FIELD = "times_in"
"""What names the zone of a form's times."""
COOKIE = "scheduler_zone"
"""In which the script keeps the reader's zone."""
LONGEST = 100
LOCAL = re.compile(
    r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d)(:\d\d(?:\.\d{1,9})?)?(?P<utc>[Zz]?)", re.ASCII
)
"""What an input of a date and a time sends, and what people write of it."""


def readers_zone(request: Request[Any, Any, Any]) -> str:
    """Return the zone that the reader's browser told us of; UTC where it told of none."""
    try:
        return check_zone(unquote(request.cookies.get(COOKIE, "UTC")))
    except ValueError:
        return "UTC"


def absolute(text: str, zone: str) -> str:
    """Return a time as the API takes it; what is no time stays as it is, and is refused there.

    Raises ValueError that says what would be right, where the clocks of the zone leave that time
    out, or show it twice.
    """
    found = LOCAL.fullmatch(text)
    if found is None:
        return text
    info = UTC if found["utc"] else ZoneInfo(zone)
    try:
        wall = datetime.fromisoformat(f"{found[1]}T{found[2]}{found[3] or ''}")
        first, second = (wall.replace(tzinfo=info, fold=fold).astimezone(UTC) for fold in (0, 1))
        again = first.astimezone(info).replace(tzinfo=None)
    except (ValueError, OverflowError) as e:
        raise ValueError(f"is no time that exists: {e}") from None
    if again != wall:
        leap = f"the clocks leap over it that day, and it would be {again:%H:%M}"
        raise ValueError(f"does not exist in {zone}: {leap}")
    if first != second:
        both = f"write {_written(first)} for the first time, {_written(second)} for the second"
        raise ValueError(f"comes twice in {zone} that day: {both}")
    return _written(first)


def _written(at: datetime) -> str:
    return f"{at.isoformat(timespec='milliseconds')[:-6]}Z"


def wall(at: int | None, zone: str) -> str:
    """Return an instant (ms since 1970) on the wall of a zone, as a browser's field has it.

    One whose wall clock comes twice is written in UTC: it would be read as another, or not at all.
    """
    if at is None:
        return ""
    info = ZoneInfo(zone)
    there = datetime.fromtimestamp(at // 1000, UTC).astimezone(info)
    if there.replace(fold=0).utcoffset() != there.replace(fold=1).utcoffset():
        return rfc3339(at) or ""
    text = there.replace(microsecond=at % 1000 * 1000, tzinfo=None, fold=0).isoformat()
    if at % 1000:
        return text[:-3]
    return text.removesuffix(":00") if text.count(":") == 2 else text


def is_local(text: str) -> bool:
    """Say whether a browser's field for a date and a time can hold a text."""
    found = LOCAL.fullmatch(text)
    return not text or (found is not None and not found["utc"])


def form_time(sent: Mapping[str, str], field: str, now: int) -> int | None:
    """Return a time that a form sends (ms since 1970), in its zone, or UTC where it names none.

    None where there is none. Raises ValidationFailed, also for one 100 years from `now`.
    """
    return asked.near({field: read(sent, field)}, field, now)


def read(sent: Mapping[str, str], field: str) -> str:
    """Return a time that a form sends as the API takes it. Raises ValidationFailed."""
    try:
        zone = check_zone(sent.get(FIELD, "").strip() or "UTC")
    except ValueError as e:
        raise ValidationFailed.of(FIELD, str(e)) from None
    try:
        return absolute(sent.get(field, "").strip(), zone)
    except ValueError as e:
        raise ValidationFailed.of(field, str(e)) from None


class Times(msgspec.Struct, frozen=True):
    """What stands in a form's fields for times, and the zone it is of."""

    zone: str
    values: dict[str, str]
    free: bool = False
    """Something is wrong with them: any text may be typed, also one with an offset."""

    def kind(self, name: str) -> str:
        """Return the kind of input that can hold what stands there."""
        return "text" if self.free or not is_local(self.values[name]) else "datetime-local"


def shown(sent: Mapping[str, str], names: Sequence[str], own: str, *, wrong: bool = False) -> Times:
    """Return what a form shows of the times that were sent: on the wall of the reader's `own` zone.

    Where something is wrong with them they stay as they were typed, in the zone they are of.
    """
    typed = {name: sent.get(name, "")[:LONGEST] for name in names}
    if not any(typed.values()):
        return Times(own, typed)
    try:
        found = {name: asked.time({name: read(sent, name)}, name) for name in names}
        if not wrong:
            return Times(own, {name: wall(at, own) for name, at in found.items()})
    except (ValidationFailed, ValueError, OverflowError):
        wrong = True
    return Times(sent.get(FIELD, "")[:LONGEST] or "UTC", typed, free=wrong)
