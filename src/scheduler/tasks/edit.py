"""Reading a task's fields: what a body makes of a task, and everything that is wrong with it."""

import re
import uuid
from datetime import UTC, datetime
from typing import Any, get_args
from uuid import UUID

import msgspec
from msgspec import UNSET, UnsetType

from scheduler.actions.http import Http, Method
from scheduler.db import FIRST, ms, utc
from scheduler.errors import Detail, ValidationFailed
from scheduler.masking import MASK
from scheduler.run import bucket_of
from scheduler.target import check_header, check_url
from scheduler.task import Backoff, Definition, Policy, Status
from scheduler.tasks.model import STATES, TaskFields
from scheduler.triggers import UNIT_MS, Interval, Once, Trigger

Maybe = UnsetType

ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
ROUTES = {"bulk", "scheduled", "preview"}
"""Words that are routes below /tasks, and so no ids."""
RFC3339 = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?([Zz]|[+-]\d\d:\d\d)", re.ASCII
)
LONGEST_MS = 36_525 * 86_400_000
"""A hundred years."""
LATER = {
    "cron": "cron triggers",
    "rrule": "RRULE triggers",
    "timezone": "time zones",
    "start_at": "start_at",
    "end_at": "end_at",
    "max_runs": "max_runs",
    "command": "commands",
    "env": "commands",
    "service": "operations",
    "endpoint": "operations",
    "query_params": "operations",
    "url_params": "operations",
    "req_body": "operations",
    "paused_until": "paused_until",
    "max_concurrency": "max_concurrency",
}
"""Fields whose time has not come: null is taken, and null is answered."""


class Edit(msgspec.Struct):
    """What a body makes of a task; `at_once` asks for one run now."""

    task: Definition
    at_once: bool = False


def new_task(fields: TaskFields, service_id: UUID, now: int) -> Edit:
    """Return the task that a body describes. Raises ValidationFailed with every wrong field."""
    task_id = fields.id if isinstance(fields.id, str) and fields.id else str(uuid.uuid4())
    blank = Definition(
        key=uuid.uuid4(),
        bucket=bucket_of(service_id, task_id),
        service_id=service_id,
        id=task_id,
        version=1,
        name="",
        description=None,
        tags=[],
        status="active",
        trigger=None,
        action=Http(url=""),
        policy=Policy(),
        created_at=utc(now),
        updated_at=utc(now),
    )
    reader = Reader(fields, blank, now)
    reader.check_id(task_id)
    return reader.read()


def edited(fields: TaskFields, before: Definition, now: int) -> Edit:
    """Return a task as an edit leaves it. Raises ValidationFailed with every wrong field."""
    edit = Reader(fields, before, now, new=False).read()
    edit.task = msgspec.structs.replace(
        edit.task, version=before.version + 1, updated_at=utc(now), damaged=None
    )
    return edit


class Reader:
    """Reads the fields of a body against the task as it stands, and gathers what is wrong."""

    def __init__(
        self, fields: TaskFields, before: Definition, now: int, *, new: bool = True
    ) -> None:
        self.fields = fields
        self.before = before
        self.now = now
        self.new = new
        self.wrong: list[Detail] = []

    def read(self) -> Edit:
        """Return the edit. Raises ValidationFailed."""
        self._check_later()
        trigger, at_once = self._trigger()
        after = msgspec.structs.replace(
            self.before,
            name=self._text("name", self.before.name, least=1, most=200),
            description=self._text("description", self.before.description, most=10_000),
            tags=self._tags(),
            status=self._status(),
            trigger=trigger,
            action=self._action(),
            policy=self._policy(),
        )
        if self.wrong:
            raise ValidationFailed.all(self.wrong)
        return Edit(after, at_once)

    def say(self, field: str, message: str) -> None:
        """Note that a field is wrong."""
        self.wrong.append(Detail(field, message))

    def check_id(self, task_id: str) -> None:
        """Note an id that cannot be one."""
        if not ID.fullmatch(task_id):
            self.say("id", "1 to 64 letters, digits, - and _, the first a letter or digit")
        elif task_id in ROUTES:
            self.say("id", f"{task_id} is a route; choose another id")

    def _check_later(self) -> None:
        for field, what in LATER.items():
            if getattr(self.fields, field) not in (UNSET, None):
                self.say(field, f"{what} come in a later version; leave it out")

    def _text(self, field: str, stored: Any, *, most: int, least: int = 0) -> Any:
        value = getattr(self.fields, field)
        if value is UNSET:
            value = stored
        if value is None:
            if least:
                self.say(field, "is needed")
            return None
        if not least <= len(value) <= most or (least and not value.strip()):
            self.say(field, f"is needed, with {least} to {most} characters" if not value.strip()
                     else f"must have {least} to {most} characters, has {len(value)}")  # fmt: skip
        if "\x00" in value:
            self.say(field, "must not hold a NUL character")
        return value

    def _tags(self) -> list[str]:
        tags = self.fields.tags
        if tags is UNSET:
            return self.before.tags
        if tags is None:
            return []
        if len(tags) > 50 or any(not 1 <= len(tag) <= 100 or "\x00" in tag for tag in tags):
            self.say("tags", "at most 50 tags of 1 to 100 characters")
        return list(dict.fromkeys(tags))

    def _status(self) -> Status:
        status = self.fields.status
        if status is UNSET:
            return self.before.status
        if not status or status in STATES:  # another vocabulary's words for a live task
            return "active"
        if status not in get_args(Status):
            self.say("status", "must be active, paused or disabled")
            return "active"
        return status  # type: ignore[return-value]

    # The trigger

    def _trigger(self) -> tuple[Trigger | None, bool]:
        """Return the trigger, and whether the edit asks for a run now."""
        stored = self.before.trigger
        was = stored if isinstance(stored, Interval) else None
        frequency = self._sent("frequency", was.frequency if was else None)
        unit = self._sent("unit", was.unit if was else None) or None
        at = self._time("scheduled_at")
        if frequency is None and unit is not None and self.fields.unit is not UNSET:
            self.say("frequency", "is needed with unit")
        if frequency is None:
            return self._once(at)
        if unit is None or unit not in UNIT_MS:
            need = "is needed with frequency" if unit is None else "must be one of"
            self.say("unit", f"{need}: {', '.join(UNIT_MS)}" if unit else f"{need}")
            return None, False
        if not 0 < frequency <= LONGEST_MS // UNIT_MS[unit]:
            most = LONGEST_MS // UNIT_MS[unit]
            self.say(
                "frequency", f"must be 1 to {most} {unit}s (100 years), is {_short(frequency)}"
            )
            return None, False
        return self._interval(Interval(frequency, unit, 0), was, at)

    def _once(self, at: int | Maybe | None) -> tuple[Trigger | None, bool]:
        stored = self.before.trigger
        if at is UNSET:
            return (stored if isinstance(stored, Once) else None), False
        if at is None:
            return None, False
        if isinstance(stored, Once) and stored.at == at:
            return stored, False
        # Its own trigger, from now on: a past one is due once, now.
        return Once(at), at <= self.now

    def _interval(
        self, new: Interval, was: Interval | None, at: int | Maybe | None
    ) -> tuple[Trigger, bool]:
        if at is UNSET and was is not None:
            return msgspec.structs.replace(new, anchor=was.anchor), False
        if at is UNSET or at is None:
            return msgspec.structs.replace(new, anchor=self.now + new.every), False
        if was is not None and at >= was.anchor and (at - was.anchor) % was.every == 0:
            return msgspec.structs.replace(new, anchor=was.anchor), False
        moved = msgspec.structs.replace(new, anchor=at)
        # In an edit a past one only moves the grid.
        return moved, self.new and at <= self.now

    def _sent(self, field: str, stored: Any) -> Any:
        value = getattr(self.fields, field)
        return stored if value is UNSET else value

    def _time(self, field: str) -> int | Maybe | None:
        value: str | Maybe | None = getattr(self.fields, field)
        if value is UNSET:
            return UNSET
        if not value:
            return None
        try:
            at = parse_time(value)
        except ValueError as e:
            self.say(field, str(e))
            return UNSET
        return None if at == FIRST else at  # the zero time of Go's clients

    # The action

    def _action(self) -> Http:
        stored = self.before.action
        payload, is_json = self._payload(stored)
        action = Http(
            url=self._url(stored.url),
            method=self._method(stored.method),
            header={},
            payload=payload,
            json=is_json,
            follow_redirects=bool(self._sent("follow_redirects", stored.follow_redirects)),
            secret_headers=self._secret_headers(stored),
        )
        return msgspec.structs.replace(action, header=self._header(action, stored))

    def _url(self, stored: str) -> str:
        url = self._sent("url", stored)
        if not url:
            self.say("url", "is needed: http://host/path or https://host/path")
            return ""
        try:
            return check_url(url)
        except ValueError as e:
            self.say("url", str(e))
            return ""

    def _method(self, stored: Method | None) -> Method | None:
        method = self._sent("method", stored)
        if not method:
            return None
        if method.upper() not in get_args(Method):
            self.say("method", f"must be one of {', '.join(get_args(Method))}")
            return None
        return method.upper()  # type: ignore[no-any-return]

    def _payload(self, stored: Http) -> tuple[str | None, bool]:
        payload = self.fields.payload
        if payload is UNSET or payload == stored.payload:
            return stored.payload, stored.json
        if payload is None or isinstance(payload, str):
            if payload and "\x00" in payload:
                self.say("payload", "must not hold a NUL character")
            return payload, False
        encoded = msgspec.json.encode(payload).decode()
        if "\\u0000" in encoded:
            self.say("payload", "must not hold a NUL character")
        return encoded, True

    def _secret_headers(self, stored: Http) -> list[str]:
        names = self._sent("secret_headers", stored.secret_headers) or []
        if len(names) > 100 or any("\x00" in name for name in names):
            self.say("secret_headers", "at most 100 header names")
        return names

    def _header(self, action: Http, stored: Http) -> dict[str, str]:
        field = "header"
        header: Any = self.fields.header
        if header is UNSET:
            field, header = "headers", self.fields.headers
        if header is UNSET:
            for name in stored.header:
                self._check_uncovered(name, action, stored)
            return stored.header
        if isinstance(header, list):
            header = {pair.key: pair.value for pair in header}
        kept = {name.lower(): value for name, value in stored.header.items()}
        read: dict[str, str] = {}
        names: set[str] = set()
        for name, value in (header or {}).items():
            if name.lower() in names:
                self.say(f"{field}.{name[:100]}", "is there twice; names differ in more than case")
            names.add(name.lower())
            if not isinstance(value, str):
                self.say(f"{field}.{name[:100]}", f"must be a string, is {_short(value)}")
                continue
            if value == MASK:
                self._check_uncovered(name, action, stored)
            if value == MASK and action.is_secret(name):
                if name.lower() not in kept:
                    self.say(
                        f"{field}.{name[:100]}", "has no stored value that ******** could keep"
                    )
                read[name] = kept.get(name.lower(), "")
                continue
            read[name] = value
            try:
                check_header(name, value)
            except ValueError as e:
                self.say(f"{field}.{name[:100]}", str(e))
        return read

    def _check_uncovered(self, name: str, action: Http, stored: Http) -> None:
        """Note that a secret which nobody sends anew would be shown from now on."""
        if stored.is_secret(name) and not action.is_secret(name):
            self.say("secret_headers", f"{name} was secret; send its value anew to show it")

    # The policy

    def _policy(self) -> Policy:
        stored = self.before.policy
        return Policy(
            max_retries=self._number("max_retries", stored.max_retries, 0, 100),
            retry_backoff=self._backoff(stored.retry_backoff),
            timeout_seconds=self._number("timeout_seconds", stored.timeout_seconds, 0.001, 86_400),
            overlap=self._word("overlap", stored.overlap, ("skip", "allow", "queue")),
            misfire=self._word("misfire", stored.misfire, ("latest", "all", "skip")),
            misfire_grace_seconds=self._number(
                "misfire_grace_seconds", stored.misfire_grace_seconds, 0, 31_536_000
            ),
            max_age_seconds=self._number(
                "max_age_seconds", stored.max_age_seconds, 0.001, 31_536_000
            ),
            expected_status=self._expected(stored.expected_status),
        )

    def _number(self, field: str, stored: Any, least: float, most: float) -> Any:
        value = self._sent(field, stored)
        if value is not None and not least <= value <= most:
            self.say(field, f"must be {least:g} to {most:g}, is {_short(value)}")
            return None
        return value

    def _word(self, field: str, stored: Any, words: tuple[str, ...]) -> Any:
        value = self._sent(field, stored)
        if value and value not in words:
            self.say(field, f"must be one of {', '.join(words)}")
            return None
        return value or None

    def _backoff(self, stored: Backoff | None) -> Backoff | None:
        sent = self.fields.retry_backoff
        if sent is UNSET:
            return stored
        if sent is None:
            return None
        limits = {"initial_seconds": (0, 86_400), "factor": (1, 100), "max_seconds": (0, 86_400)}
        for name, value in sent.items():
            if name not in limits:
                self.say(f"retry_backoff.{name}", f"unknown; known are {', '.join(limits)}")
            elif not limits[name][0] <= value <= limits[name][1]:
                low, high = limits[name]
                self.say(f"retry_backoff.{name}", f"must be {low:g} to {high:g}")
        return Backoff(**{name: value for name, value in sent.items() if name in limits})

    def _expected(
        self, stored: tuple[tuple[int, int], ...] | None
    ) -> tuple[tuple[int, int], ...] | None:
        sent = self.fields.expected_status
        if sent is UNSET:
            return stored
        if sent is None:
            return None
        parts = sent if isinstance(sent, list) else str(sent).split(",")
        try:
            ranges = tuple(_status_range(str(part)) for part in parts)
        except ValueError:
            ranges = ()
        if not 0 < len(ranges) <= 50:
            self.say("expected_status", 'must be like 200, "200-299" or [200, "300-399"]')
            return None
        return ranges


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 25 else f"{text[:20]}..."


def _status_range(text: str) -> tuple[int, int]:
    low, dash, high = text.strip().partition("-")
    first, last = int(low), int(high if dash else low)
    if not 100 <= first <= last <= 599:
        raise ValueError(text)
    return first, last


def parse_time(text: str) -> int:
    """Read an RFC 3339 date-time as milliseconds since 1970.

    Raises ValueError that says what would be right.
    """
    found = RFC3339.fullmatch(text)
    if found is None:
        bare = re.fullmatch(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d(:\d\d(\.\d+)?)?", text, re.ASCII)
        need = "needs an offset" if bare else "must be an RFC 3339 time"
        raise ValueError(f"{need}, like 2027-01-31T09:00:00Z or 2027-01-31T09:00:00+01:00")
    day, clock, fraction, offset = found.groups()
    millis = (fraction or "").ljust(3, "0")[:3]
    offset = "+00:00" if offset in "Zz" else offset
    try:
        at = datetime.fromisoformat(f"{day}T{clock}.{millis}{offset}")
        return ms(at.astimezone(UTC))
    except (ValueError, OverflowError) as e:
        raise ValueError(f"is no time that exists: {e}") from None
