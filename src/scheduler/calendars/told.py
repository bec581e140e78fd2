"""What is told of a calendar: what an edit makes of its fields, in words."""

from collections.abc import Iterator
from typing import Any

from scheduler import audit
from scheduler.audit import Change, Entry
from scheduler.calendars import model
from scheduler.calendars.model import Dates, Week
from scheduler.db import Conn, utc
from scheduler.exclusions import Stored
from scheduler.masking import MASK
from scheduler.service import Service
from scheduler.wording import words


async def tell(
    conn: Conn, service: Service, verb: str, before: Stored | None, after: Stored | None, now: int
) -> None:
    """Write what somebody did to a calendar, at `now` (ms); None is no calendar."""
    of = after or before
    assert of is not None  # noqa: S101  (one of the two is there)
    changes = [] if before is None or after is None else list(_changes(before, after))
    entry = Entry(
        kind="calendar", ref=of.name, key=of.key, verb=verb, version=of.version, changes=changes
    )
    await audit.write(conn, service.id, service.by, [entry], utc(now))


def _changes(before: Stored, after: Stored) -> Iterator[Change]:
    for (name, was), (_, becomes) in zip(_fields(before), _fields(after), strict=True):
        if was != becomes:
            yield Change(name, words(was), words(becomes))
    if before.ical != after.ical:
        yield Change("ical", None if before.ical is None else MASK, after.ical and MASK)


def _fields(of: Stored) -> Iterator[tuple[str, Any]]:
    shown = model.shown(of, whole=False)
    yield "description", shown.description
    yield "timezone", shown.timezone
    yield "dates", [_dates(each) for each in shown.dates]
    yield "weekly", [_week(each) for each in shown.weekly]
    yield "events", shown.events


def _dates(of: str | Dates) -> str:
    return of if isinstance(of, str) else f"{of.from_} to {of.to}"


def _week(of: Week) -> str:
    days = " ".join(of.days)
    return days if of.from_ is None else f"{days} {of.from_} to {of.to}"
