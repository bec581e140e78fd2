"""Tasks as the outside sees them: what is sent in, and what is answered."""

from collections.abc import Iterable
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType

from scheduler import asked
from scheduler.actions import Action, Command, Http, Operation
from scheduler.actions.step import Step
from scheduler.db import rfc3339
from scheduler.definition import Backoff, Definition, Status
from scheduler.errors import ValidationFailed
from scheduler.triggers import Cron, Interval, Rrule
from scheduler.versions import Body, Params, raw

STATES = ("created", "pending", "running", "completed", "failed")
Maybe = UnsetType
Text = str | Maybe | None
Payload = Annotated[
    msgspec.Raw,
    msgspec.Meta(extra_json_schema={"type": ["string", "object", "array", "null"], "items": {}}),
]
"""Kept as it is written: to read a number of 20 digits and write it again would change it."""


class KeyValue(msgspec.Struct, forbid_unknown_fields=True):
    """One header, as some clients send them."""

    key: str
    value: Any


class TaskFields(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What can be sent of a task; an edit changes exactly the fields it sends."""

    id: Text = UNSET
    name: Text = UNSET
    description: Text = UNSET
    tags: list[str] | Maybe | None = UNSET
    url: Text = UNSET
    method: Text = UNSET
    header: dict[str, Any] | Maybe | None = UNSET
    headers: dict[str, Any] | list[KeyValue] | Maybe | None = UNSET
    payload: Payload | Maybe = UNSET
    follow_redirects: bool | Maybe | None = UNSET
    secret_headers: list[str] | Maybe | None = UNSET
    frequency: int | Maybe | None = UNSET
    unit: Text = UNSET
    scheduled_at: Text = UNSET
    status: Text = UNSET
    max_retries: int | Maybe | None = UNSET
    retry_backoff: dict[str, float] | Maybe | None = UNSET
    timeout_seconds: float | Maybe | None = UNSET
    overlap: Text = UNSET
    misfire: Text = UNSET
    misfire_grace_seconds: float | Maybe | None = UNSET
    max_age_seconds: float | Maybe | None = UNSET
    expected_status: int | str | list[int | str] | Maybe | None = UNSET
    cron: Text = UNSET
    rrule: Text = UNSET
    timezone: Text = UNSET
    dst_gap: Text = UNSET
    dst_overlap: Text = UNSET
    calendars: list[str] | Maybe | None = UNSET
    start_at: Text = UNSET
    end_at: Text = UNSET
    max_runs: int | Maybe | None = UNSET
    jitter_seconds: float | Maybe | None = UNSET
    command: Text = UNSET
    env: dict[str, Any] | Maybe | None = UNSET
    service: Text = UNSET
    endpoint: Text = UNSET
    query_params: Params | Maybe = UNSET
    url_params: Params | Maybe = UNSET
    req_body: Body | Maybe = UNSET
    cache: bool | Maybe | None = UNSET
    paused_until: Text = UNSET
    max_concurrency: int | Maybe | None = UNSET
    priority: int | Maybe | None = UNSET
    task_id: Any = UNSET
    message: Any = UNSET
    service_id: Any = UNSET
    state: Any = UNSET
    created_at: Any = UNSET
    updated_at: Any = UNSET


REST_MOST = 262_144
"""Bytes that all fields but `payload` and `req_body` may take together: to read more holds the loop
for long."""
_Parts = msgspec.defstruct(
    "_Parts", [(name, msgspec.Raw, msgspec.Raw()) for name in TaskFields.__struct_fields__]
)


def read_fields(body: bytes | str | msgspec.Raw) -> TaskFields:
    """Read a body strictly: the framework takes "1" for 1. Raises."""
    if asked.size(body) > REST_MOST:
        _check_rest(body)
    return asked.body(body, TaskFields)


def _check_rest(body: bytes | str | msgspec.Raw) -> None:
    """Refuse a body that is large but for what it has sent. Raises.

    The sizes are those of the text, so a field that is there twice counts twice.
    """
    parts = asked.body(body, _Parts)
    sizes = {name: asked.size(getattr(parts, name)) for name in TaskFields.__struct_fields__}
    if asked.size(body) - sizes.pop("payload") - sizes.pop("req_body") > REST_MOST:
        largest = max(sizes, key=sizes.__getitem__) if sum(sizes.values()) > REST_MOST else "body"
        message = (
            f"is too large: all fields but payload and req_body take {REST_MOST} bytes at most"
        )
        raise ValidationFailed.of(largest, message)


class ShownBackoff(msgspec.Struct):
    """The wait before the next try: initial * factor ** tries, at most `max_seconds`."""

    initial_seconds: float
    factor: float
    max_seconds: float


class Task(msgspec.Struct, kw_only=True):
    """A task as it is answered: every field, null where unset."""

    id: str
    service_id: str
    name: str
    description: str | None
    tags: list[str]
    status: str
    state: str
    scheduled_at: str | None
    url: str | None
    method: str | None
    header: dict[str, str] | None
    payload: str | None
    follow_redirects: bool | None
    secret_headers: list[str] | None
    frequency: int | None
    unit: str | None
    max_retries: int | None
    retry_backoff: ShownBackoff | None
    timeout_seconds: float | None
    overlap: str
    misfire: str
    misfire_grace_seconds: float
    max_age_seconds: float | None
    expected_status: list[int | str] | None
    cron: str | None
    rrule: str | None
    timezone: str | None
    dst_gap: str | None
    dst_overlap: str | None
    calendars: list[str]
    start_at: str | None
    end_at: str | None
    max_runs: int | None
    jitter_seconds: float | None
    command: str | None
    env: dict[str, str] | None
    service: str | None
    endpoint: str | None
    headers: dict[str, str] | None
    """Of an operation; those of a url are `header`."""
    query_params: Params
    url_params: Params
    req_body: Body
    cache: bool | None
    paused_until: str | None
    max_concurrency: int | None
    priority: int
    created_at: str | None
    updated_at: str | None
    message: str | UnsetType = UNSET
    """Only where something is to be said: what is wrong with a row that someone damaged."""


class CreatedTask(Task, kw_only=True):
    """A task just created."""

    task_id: str


Spent = tuple[int, int]
"""How many instants of a task were made into runs, and up to when (ms since 1970)."""


def shown(
    of: Definition, state: str, now: int, spent: Spent | None = None, gone: Iterable[int] = ()
) -> Task:
    """Return a task as it is answered at `now` (ms), secrets masked; as for `next_due`."""
    interval = of.trigger if isinstance(of.trigger, Interval) else None
    cron = of.trigger if isinstance(of.trigger, Cron) else None
    rrule = of.trigger if isinstance(of.trigger, Rrule) else None
    status = standing(of, now)
    return Task(
        id=of.id,
        service_id=str(of.service_id),
        name=of.name,
        description=of.description,
        tags=of.tags,
        status=status,
        state="failed" if of.damaged else state,
        scheduled_at=rfc3339(next_due(of, now, spent, gone)),
        **_action_shown(of.action),
        frequency=interval.frequency if interval else None,
        unit=interval.unit if interval else None,
        cron=cron.expression if cron else None,
        rrule=rrule.text if rrule else None,
        timezone=getattr(of.trigger, "timezone", None),
        dst_gap=getattr(of.trigger, "dst_gap", None),
        dst_overlap=getattr(of.trigger, "dst_overlap", None),
        calendars=list(of.bounds.calendars),
        start_at=rfc3339(of.bounds.start_at),
        end_at=rfc3339(of.bounds.end_at),
        max_runs=of.bounds.max_runs,
        jitter_seconds=of.bounds.jitter_ms / 1000 or None,
        paused_until=rfc3339(of.paused_until) if status == "paused" else None,
        max_retries=of.policy.max_retries,
        retry_backoff=_backoff_shown(of.policy.retry_backoff),
        timeout_seconds=of.timeout_s,
        overlap=of.overlap,
        misfire=of.policy.misfire or "latest",
        misfire_grace_seconds=of.misfire_grace_ms / 1000,
        max_age_seconds=of.policy.max_age_seconds,
        expected_status=_statuses_shown(of.policy.expected_status),
        max_concurrency=of.policy.max_concurrency,
        priority=of.policy.priority,
        created_at=rfc3339(of.created_at),
        updated_at=rfc3339(of.updated_at),
        message=of.damaged or UNSET,
    )


def _action_shown(of: Action | Step) -> dict[str, Any]:
    http = of if isinstance(of, Http) else None
    command = of if isinstance(of, Command) else None
    operation = of if isinstance(of, Operation) else None
    return {
        "url": http.url or None if http else None,
        "method": http.verb if http else operation.method if operation else None,
        "header": http.masked() if http else None,
        "payload": http.payload if http else None,
        "follow_redirects": http.follow_redirects if http else None,
        "secret_headers": http.secret_headers if http else None,
        "command": command.command if command else None,
        "env": command.masked() if command else None,
        "service": operation.service if operation else None,
        "endpoint": operation.endpoint if operation else None,
        "headers": operation.masked() if operation else None,
        "query_params": raw(operation.query_params if operation else None),
        "url_params": raw(operation.url_params if operation else None),
        "req_body": raw(operation.req_body if operation else None),
        "cache": operation.cache if operation else None,
    }


def _backoff_shown(backoff: Backoff | None) -> ShownBackoff | None:
    if backoff is None:
        return None
    return ShownBackoff(backoff.initial_seconds, backoff.factor, backoff.max_seconds)


def _statuses_shown(ranges: tuple[tuple[int, int], ...] | None) -> list[int | str] | None:
    if ranges is None:
        return None
    return [low if low == high else f"{low}-{high}" for low, high in ranges]


def standing(of: Definition, now: int) -> Status:
    """Return a task's status at `now`: one whose `paused_until` has come is active again."""
    over = of.paused_until is not None and of.paused_until <= now
    return "active" if of.status == "paused" and over else of.status


def next_due(
    of: Definition, now: int, spent: Spent | None = None, gone: Iterable[int] = ()
) -> int | None:
    """Return the next due instant in ms, and none that is `gone`: that ended before it came.

    Of a task with `max_runs` by what `spent` leaves.
    """
    at = of.coming(now, gone)
    if at is None:
        return None
    most = of.bounds.max_runs
    if most is None or spent is None or at <= spent[1]:
        return at
    # What a calendar excludes uses them up as well.
    needed = of.instants.count(spent[1], at) if of.excluded and of.instants else 1
    return at if spent[0] + needed <= most else None
