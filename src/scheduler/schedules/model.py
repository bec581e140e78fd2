"""Schedules as the outside sees them: what is sent in, and what is answered."""

from typing import Any

import msgspec
from msgspec import UNSET, Raw, UnsetType

from scheduler import asked
from scheduler.actions import Http
from scheduler.db import rfc3339
from scheduler.definition import Definition
from scheduler.errors import Detail, ValidationFailed
from scheduler.tasks import model
from scheduler.tasks.model import KeyValue, Maybe, Payload, TaskFields, Text, standing
from scheduler.triggers import Rrule

NAMES = {"callback_url": "url", "body": "payload"}
"""What a schedule calls otherwise than a task does."""
OURS = {theirs: ours for ours, theirs in NAMES.items()} | {"header": "headers"}
"""The other way round; a task takes `headers`, too, which may be a list of pairs."""
NEEDED = {
    "name": "is needed, with 1 to 200 characters",
    "rrule": "is needed, like FREQ=DAILY;INTERVAL=1",
    "callback_url": "is needed: http://host/path or https://host/path",
}


class ScheduleFields(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What can be sent of a schedule; an update changes exactly the fields it sends."""

    id: Text = UNSET
    name: Text = UNSET
    rrule: Text = UNSET
    timezone: Text = UNSET
    callback_url: Text = UNSET
    method: Text = UNSET
    headers: dict[str, Any] | list[KeyValue] | Maybe | None = UNSET
    body: Payload | Maybe = UNSET
    status: Text = UNSET
    task_id: Any = UNSET
    message: Any = UNSET
    service_id: Any = UNSET
    state: Any = UNSET
    created_at: Any = UNSET
    updated_at: Any = UNSET


Sent = dict[str, Raw]
"""The fields of a body as they are written, by their names."""
_Parts = msgspec.defstruct(
    "_Parts",
    [(name, Raw | UnsetType, UNSET) for name in ScheduleFields.__struct_fields__],
    forbid_unknown_fields=True,
)


def read_body(body: bytes) -> Sent:
    """Return the fields that a body sends. Raises."""
    try:
        parts = asked.body(body, _Parts)
    except ValidationFailed as e:
        raise ValidationFailed.all([_elsewhere(each) for each in e.details]) from None
    found = {name: getattr(parts, name) for name in ScheduleFields.__struct_fields__}
    return {name: raw for name, raw in found.items() if raw is not UNSET}


def _elsewhere(wrong: Detail) -> Detail:
    """Say of a task's field where it is set."""
    name = wrong.field
    if name in OURS:
        return Detail(name, f"a schedule calls it {OURS[name]}")
    if name in TaskFields.__struct_fields__ and name not in ScheduleFields.__struct_fields__:
        return Detail(name, "is no field of a schedule; set it with PATCH /tasks/{id}")
    return wrong


def new(sent: Sent) -> TaskFields:
    """Return the fields of the task that a new schedule is. Raises with every missing field."""
    missing = [name for name in NEEDED if name not in sent or is_empty(sent[name])]
    if missing:
        raise ValidationFailed.all([Detail(name, NEEDED[name]) for name in missing])
    if "method" not in sent or is_empty(sent["method"]):
        sent = {**sent, "method": Raw(b'"POST"')}
    return fields(sent)


def changes(sent: Sent, before: Definition) -> TaskFields:
    """Return the fields of a task that an update of a schedule sends. Raises."""
    if "rrule" in sent and is_empty(sent["rrule"]):
        raise ValidationFailed.of("rrule", NEEDED["rrule"])
    if isinstance(before.action, Http):
        if "method" in sent and is_empty(sent["method"]):
            sent = {**sent, "method": Raw(b'"POST"')}
    else:  # it calls nothing, and so GET answers null
        calls = ("callback_url", "method", "headers", "body")
        sent = {k: raw for k, raw in sent.items() if k not in calls or not is_empty(raw)}
    return fields(sent)


def is_empty(raw: Raw) -> bool:
    """Say whether a value is null, or a text with nothing in it."""
    text = bytes(raw)
    return text == b"null" or (text[:1] == b'"' and not text.strip(b'" \t'))


def fields(sent: Sent) -> TaskFields:
    """Return what is sent as the fields of a task. Raises with the names that were sent."""
    task = {NAMES.get(name, name): raw for name, raw in sent.items()}
    try:
        return model.read_fields(msgspec.json.encode(task))
    except ValidationFailed as e:
        raise renamed(e) from None


def renamed(refused: ValidationFailed) -> ValidationFailed:
    """Return a refusal with the fields as a schedule calls them."""
    return ValidationFailed.all([_ours(each) for each in refused.details])


def _ours(wrong: Detail) -> Detail:
    first, dot, rest = wrong.field.partition(".")
    return Detail(OURS.get(first, first) + dot + rest, wrong.message)


# Answered ----------------------------------------------------------------------------------------


class Schedule(msgspec.Struct, kw_only=True):
    """A schedule as it is answered; what it calls is null where that is no callback."""

    id: str
    name: str
    rrule: str | None
    callback_url: str | None
    method: str | None
    headers: dict[str, str] | None
    body: str | None
    status: str
    created_at: str | None
    updated_at: str | None


def shown(of: Definition, now: int) -> Schedule:
    """Return a schedule as it is answered at `now` (ms), secrets masked."""
    http = of.action if isinstance(of.action, Http) else None
    return Schedule(
        id=of.id,
        name=of.name,
        rrule=of.trigger.text if isinstance(of.trigger, Rrule) else None,
        callback_url=http.url or None if http else None,
        method=http.verb if http else None,
        headers=http.masked() if http else None,
        body=http.payload if http else None,
        status=standing(of, now),
        created_at=rfc3339(of.created_at),
        updated_at=rfc3339(of.updated_at),
    )
