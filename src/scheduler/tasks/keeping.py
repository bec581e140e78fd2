"""The calendars that a task keeps clear of: what a body names, and that they are there."""

from collections.abc import Mapping, Sequence

from msgspec import UNSET

from scheduler import exclusions
from scheduler.db import Conn
from scheduler.definition import Definition
from scheduler.errors import Detail, ValidationFailed
from scheduler.tasks.reading import Reader, short

CALENDARS_MOST = 20


def read_calendars(reader: Reader) -> tuple[str, ...]:
    """Return the names of the calendars that a task keeps clear of."""
    names = reader.fields.calendars
    if names is UNSET:
        return reader.before.bounds.calendars
    if names is None:
        return ()
    if len(names) > CALENDARS_MOST:
        reader.say("calendars", f"must name at most {CALENDARS_MOST} calendars, names {len(names)}")
        return ()
    return tuple(dict.fromkeys(names))


async def with_calendars(conn: Conn, of: Definition, before: Sequence[str] = ()) -> Definition:
    """Return a task with what its calendars exclude; they stay until the commit.

    One that is gone is no reason to refuse an edit of a task that named it `before`. Raises
    ValidationFailed.
    """
    (found,) = await with_calendars_each(conn, [of], {of.id: "calendars"}, before)
    return found


async def with_calendars_each(
    conn: Conn, tasks: Sequence[Definition], fields: Mapping[str, str], before: Sequence[str] = ()
) -> list[Definition]:
    """Do the same for tasks of one service; `fields` says by id where a body names them."""
    names = {name for of in tasks for name in of.bounds.calendars}
    if not names:
        return [exclusions.with_excluded(of, {}) for of in tasks]
    service_id = tasks[0].service_id
    found = await exclusions.held(conn, service_id, {name.replace("\x00", "") for name in names})
    wrong = [
        Detail(fields[of.id], _unknown(name))
        for of in tasks
        for name in of.bounds.calendars
        if (service_id, name) not in found and name not in before
    ]
    if wrong:
        raise ValidationFailed.all(wrong)
    return [exclusions.with_excluded(of, found) for of in tasks]


def _unknown(name: str) -> str:
    return f"there is no calendar {short(name)}; POST /calendars makes one"
