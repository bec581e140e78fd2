"""A calendar as its form has it: dates and parts of the week as lines, the file as it was chosen.

The lines are written as on the command line: `2026-12-24/2026-12-31`, `MON-FRI 22:00-06:00`.
"""

import re
from collections.abc import Mapping
from typing import Any

from litestar import Request
from litestar.datastructures import UploadFile
from msgspec import UNSET

from scheduler.calendars import model
from scheduler.calendars.ical import SIZE_MOST
from scheduler.calendars.model import DAYS, CalendarFields, Dates, Week
from scheduler.errors import Detail, InvalidRequest, ValidationFailed
from scheduler.exclusions import Stored

FORM_MOST = 4 * SIZE_MOST + 262_144
"""Bytes of a form: a file of the most characters, and the lines."""
MULTIPART = "multipart/form-data"
"""What has a limit of its own for its parts; the framework's."""
FIELDS_MOST = 20
LINES_MOST = 2000
GARBLED = "garbled"
"""Marks a file that is no text."""
LINE_MOST = 100
"""Characters of a line for a part of the week, which is short; to read it takes their square."""
WEEK = re.compile(r"([A-Za-z, -]+?)(?: (\d\d:\d\d)-(\d\d:\d\d))?", re.ASCII)
PLACE = re.compile(r"(dates|weekly)\[(\d+)\]")
DATES = 'a date like "2026-12-25" a line, or a range like "2026-12-24/2026-12-31"'
WEEKLY = 'days and perhaps hours a line, like "SAT,SUN" or "MON-FRI 22:00-06:00"'

Sent = dict[str, str]


async def sent(request: Request[Any, Any, Any]) -> Sent:
    """Return the fields of the form, the chosen file as `ical`. Raises InvalidRequest."""
    try:
        if (
            request.content_type[0] != MULTIPART
            and (await request.body()).count(b"&") > FIELDS_MOST
        ):
            raise InvalidRequest(f"the form has more than {FIELDS_MOST} fields")
        form = await request.form()
    except ValueError:
        raise InvalidRequest("the form cannot be read") from None
    found: Sent = {}
    for name, value in form.items():
        if isinstance(value, str):
            found[name] = value
        elif isinstance(value, UploadFile) and value.filename:
            try:
                found["ical"] = (await value.read()).decode("utf-8-sig")
            except UnicodeDecodeError:
                found[GARBLED] = "on"
    return found


def read(form: Mapping[str, str], *, new: bool) -> CalendarFields:
    """Return what a form says. Raises ValidationFailed, with what is wrong in which line.

    The file stays as it is where none was chosen, unless the form says that it goes.
    """
    wrong = list[Detail]()
    if GARBLED in form:
        wrong.append(Detail("ical", "is not UTF-8 text, as an iCalendar file is"))
    dates = [_dates(each) for each in _lines(form, "dates")]
    weekly = list[Week]()
    for number, each in enumerate(_lines(form, "weekly"), 1):
        try:
            weekly.append(_week(each))
        except ValueError:
            wrong.append(Detail("weekly", f"line {number}: write {WEEKLY}"))
    if wrong:
        raise ValidationFailed.all(wrong)
    return CalendarFields(
        name=form.get("name", "").strip() if new else UNSET,
        description=form.get("description", "").strip() or None,
        timezone=form.get("timezone", "").strip() or "UTC",
        dates=dates,
        weekly=weekly,
        ical=form.get("ical") or (None if "drop" in form else UNSET),
    )


def _lines(form: Mapping[str, str], name: str) -> list[str]:
    found = [line.strip() for line in form.get(name, "").splitlines() if line.strip()]
    if len(found) > LINES_MOST:
        raise ValidationFailed.of(name, f"at most {LINES_MOST} lines")
    return found


def _dates(text: str) -> str | Dates:
    first, slash, last = (part.strip() for part in text.partition("/"))
    return Dates(first, last) if slash else first


def _week(text: str) -> Week:
    """Read a line. Raises ValueError."""
    text = re.sub(r" ?- ?", "-", " ".join(text.split()))
    found = WEEK.fullmatch(text) if len(text) <= LINE_MOST else None
    if found is None:
        raise ValueError("no part of a week")
    names = [name for part in re.split(r"[, ]+", found[1]) for name in _days(part)]
    return Week(names, found[2], found[3])


def _days(part: str) -> list[str]:
    """Return the days from one to another, over the weekend if need be. Raises ValueError."""
    first, dash, last = (each.strip().upper() for each in part.partition("-"))
    begin = DAYS.index(first)
    length = (DAYS.index(last) - begin) % 7 + 1 if dash else 1
    return [DAYS[(begin + n) % 7] for n in range(length)]


def errors(refused: ValidationFailed) -> dict[str, str]:
    """Return what is wrong by the field of the form; of lines, which."""
    found = dict[str, str]()
    for each in refused.details:
        place = PLACE.match(each.field)
        name = place[1] if place else each.field
        line = f"line {int(place[2]) + 1}: " if place else ""
        message = f"write {DATES}" if "must be a date like" in each.message else each.message
        found.setdefault(name, f"{line}{message}")
    return found


def written(of: Stored) -> Sent:
    """Return a calendar as its form shows it."""
    face = model.shown(of, whole=False)
    return {
        "name": of.name,
        "description": of.description or "",
        "timezone": of.rules.timezone,
        "dates": "\n".join(
            each if isinstance(each, str) else f"{each.from_}/{each.to}" for each in face.dates
        ),
        "weekly": "\n".join(map(week_words, face.weekly)),
    }


def week_words(each: Week) -> str:
    """Return a part of the week as a line."""
    hours = f" {each.from_}-{each.to}" if each.from_ else ""
    return f"{','.join(each.days)}{hours}"
