"""The form of a task: what stands in its fields, and the body that this makes."""

import hashlib
import re
from collections.abc import Collection, Iterable
from typing import Any

import msgspec
from msgspec import Raw

from scheduler.dashboard import typed
from scheduler.dashboard.posted import Posted
from scheduler.errors import Detail, ValidationFailed
from scheduler.masking import is_secret
from scheduler.triggers.zones import check_zone

ROWS_MOST = 100
"""Rows of headers, and of variables, that the form takes: as many as a task may have."""
TRIGGERS = {
    "interval": ("frequency", "unit", "first_at"),
    "once": ("scheduled_at",),
    "cron": ("cron", "timezone", "dst_gap", "dst_overlap"),
    "rrule": ("rrule", "timezone", "dst_gap", "dst_overlap"),
    "manual": (),
}
"""The triggers of the form, and the fields of each."""
ACTIONS = {
    "http": ("url", "method", "headers", "payload", "follow_redirects"),
    "command": ("command", "env"),
    "operation": (
        "service", "endpoint", "headers", "url_params", "query_params", "req_body", "cache",
    ),
}  # fmt: skip
TIMES = ("first_at", "scheduled_at", "start_at", "end_at", "paused_until")
"""Fields that hold a time on the wall of `times_in`."""
BOUNDS = ("start_at", "end_at", "max_runs", "jitter_seconds", "calendars")
BACKOFF = {
    "backoff_initial": "initial_seconds",
    "backoff_factor": "factor",
    "backoff_max": "max_seconds",
}
POLICY = (
    "max_retries", *BACKOFF, "timeout_seconds", "expected_status", "overlap", "max_concurrency",
    "misfire", "misfire_grace_seconds", "max_age_seconds", "priority",
)  # fmt: skip
NAMES = (
    "id", "name", "description", "tags", "status", "paused_until", "trigger", "action", "times_in",
    *dict.fromkeys(f for fields in (*TRIGGERS.values(), *ACTIONS.values()) for f in fields),
    *BOUNDS, *POLICY, "secret_more",
)  # fmt: skip
"""Every field of the form. `secret_more`: names of secret headers that are in no row."""
BLOCKS = {
    "description", "payload", "command", "url_params", "query_params", "req_body", "rrule",
}  # fmt: skip
"""Fields of several lines."""
PLACES = {f"retry_backoff.{sent}": name for name, sent in BACKOFF.items()} | {
    "retry_backoff": "backoff_initial",
    "header": "headers",
    "secret_headers": "headers",
}
"""Where in the form an error of a body's field stands, if not at the field of its name."""
WHOLE = re.compile(r"[+-]?\d{1,18}", re.ASCII)
NUMBER = re.compile(r"[+-]?(\d{1,15}(\.\d{0,15})?|\.\d{1,15})", re.ASCII)
ENDPOINT = re.compile(r"([A-Za-z]+)\s+(/.*)", re.DOTALL)


class Row(msgspec.Struct):
    """A header, or a variable."""

    name: str = ""
    value: str = ""
    secret: bool = False
    """Its owner says so; besides, some names do."""


class Draft(msgspec.Struct):
    """What stands in the form: texts as a browser sends them."""

    values: dict[str, str]
    headers: list[Row] = msgspec.field(default_factory=list)
    env: list[Row] = msgspec.field(default_factory=list)
    calendars: list[str] = msgspec.field(default_factory=list)

    def __getitem__(self, name: str) -> str:
        """Return the text of a field, without what surrounds it; a block as it is."""
        text = self.values.get(name, "")
        return text if name in BLOCKS else text.strip()

    def stamps(self) -> dict[str, str]:
        """Return a short digest of each field: what has another one was changed."""
        whole = {name: self.values.get(name, "") for name in NAMES}
        for name in TIMES:
            whole[name] = f"{self[name]} {self['times_in']}" if self[name] else ""
        whole["headers"] = _rows_written(self.headers)
        whole["env"] = _rows_written(self.env)
        whole["calendars"] = "\n".join(sorted(self.calendars))
        del whole["times_in"]
        return {
            name: hashlib.sha256(text.encode()).hexdigest()[:12] for name, text in whole.items()
        }


def _rows_written(rows: Iterable[Row]) -> str:
    return repr([(row.name, row.value, row.secret) for row in rows if row.name or row.value])


def read(sent: Posted) -> Draft:
    """Return what a browser sends of the form."""
    values = {name: settled(name, sent.one(name)) for name in NAMES}
    headers = [
        Row(_line(name), _line(value), bool(secret))
        for name, value, secret in zip(
            sent.all("header"), sent.all("value"), sent.all("secret"), strict=False
        )
    ]
    pairs = zip(sent.all("env"), sent.all("val"), strict=False)
    env = [Row(_line(name), _block(value)) for name, value in pairs]
    return Draft(values, headers[:ROWS_MOST], env[:ROWS_MOST], sent.all("calendar"))


def settled(name: str, text: str) -> str:
    """Return a text as a browser sends it back from this field: it does so to what it is given."""
    return _block(text) if name in BLOCKS else _line(text)


def _block(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _line(text: str) -> str:
    return text.replace("\r", "").replace("\n", "")


# The body ----------------------------------------------------------------------------------------


def body(draft: Draft, changed: Collection[str] | None = None) -> dict[str, Any]:
    """Return the body that a form makes: of a new task, or of what is `changed` of one.

    Raises ValidationFailed with every field whose text is none of its kind.
    """
    fields, wrong = written(draft, changed)
    if wrong:
        raise ValidationFailed.all(wrong)
    return fields


def written(
    draft: Draft, changed: Collection[str] | None = None
) -> tuple[dict[str, Any], list[Detail]]:
    """Return the body that a form makes, and what is wrong with the texts that are not in it."""
    made = _Body(draft, changed)
    made.write()
    return made.fields, made.wrong


def timing(draft: Draft, changed: Collection[str] | None = None) -> dict[str, Any]:
    """Return that part of the body which says when a task is due. Raises ValidationFailed."""
    made = _Body(draft, changed)
    made.write_timing()
    if made.wrong:
        raise ValidationFailed.all(made.wrong)
    return made.fields


class _Body:
    def __init__(self, draft: Draft, changed: Collection[str] | None) -> None:
        self.draft, self.new = draft, changed is None
        self._changed = changed or ()
        self.fields: dict[str, Any] = {}
        self.wrong: list[Detail] = []

    def write(self) -> None:
        draft = self.draft
        if self.new:
            self._set("id", draft["id"] or None)
        self._set("name", draft["name"] or (None if self.new else ""))
        self._set("description", draft["description"] or None)
        self._set("tags", [t for t in map(str.strip, draft["tags"].split(",")) if t] or None)
        self._set("status", draft["status"] or None)
        self._set("paused_until", self._at("paused_until"))
        self.write_timing()
        self._action()
        self._policy()

    def write_timing(self) -> None:
        """Write the trigger and what bounds it."""
        self._trigger()
        for name in ("start_at", "end_at"):
            self._set(name, self._at(name))
        self._set("max_runs", self._whole("max_runs"))
        if self.draft["trigger"] != "once":
            self._set("jitter_seconds", self._number("jitter_seconds"))
        self._set("calendars", self.draft.calendars or None)

    def _is_changed(self, *names: str) -> bool:
        return any(name in self._changed for name in names)

    def _set(self, name: str, value: Any, *, of: str | None = None) -> None:
        """Write a field: of a new task where it says something, else where it was changed."""
        if value is not None if self.new else self._is_changed(of or name):
            self.fields[name] = value

    # When

    def _trigger(self) -> None:
        kind = self.draft["trigger"]
        if kind not in TRIGGERS:
            self._say("trigger", f"must be one of {', '.join(TRIGGERS)}")
        elif self.new:
            fields = self._of_trigger(kind)
            self.fields |= {name: value for name, value in fields.items() if value is not None}
        elif self._is_changed("trigger", *TRIGGERS[kind]):
            self.fields |= self._of_trigger(kind)

    def _of_trigger(self, kind: str) -> dict[str, Any]:
        draft = self.draft
        none = dict.fromkeys(("frequency", "unit", "cron", "rrule"))
        if kind == "interval":
            frequency, at = self._whole("frequency"), self._at("first_at")
            if frequency is None and not self._is_wrong("frequency"):
                self._say("frequency", "is needed: every how many of the unit, like 15")
            fields = {"frequency": frequency, "unit": draft["unit"] or None}
            return fields | ({"scheduled_at": at} if at else {})
        if kind == "once":
            at = self._at("scheduled_at")
            if at is None and not self._is_wrong("scheduled_at"):
                self._say("scheduled_at", "is needed: the day and the time when it is due")
            return {**none, "scheduled_at": at}
        if kind == "manual":
            return {**none, "scheduled_at": None}
        if not draft[kind].strip():
            like = "30 7 * * MON-FRI" if kind == "cron" else "FREQ=WEEKLY;BYDAY=MO;BYHOUR=9"
            self._say(kind, f"is needed, like {like}")
        wall = {name: draft[name] or None for name in ("timezone", "dst_gap", "dst_overlap")}
        return {kind: draft[kind].strip(), **wall}

    def _at(self, name: str) -> str | None:
        """Return a time as the API takes it: one without an offset is on the wall of `times_in`."""
        text = self.draft[name]
        if not typed.LOCAL.fullmatch(text):
            return text or None  # it has an offset, or is refused with what would be right
        zone = self.draft["times_in"] or "UTC"
        try:
            check_zone(zone)
        except ValueError as e:
            self._say("times_in", str(e))
            return None
        try:
            return typed.absolute(text, zone)
        except ValueError as e:
            self._say(name, str(e))
            return None

    # What

    def _action(self) -> None:
        kind = self.draft["action"]
        if kind not in ACTIONS:
            self._say("action", f"must be one of {', '.join(ACTIONS)}")
            return
        other = _Body(self.draft, None) if self._is_changed("action") else self
        getattr(other, f"_{kind}")()
        if other is not self:
            self.fields |= other.fields
            self.wrong += other.wrong

    def _http(self) -> None:
        draft = self.draft
        self._set("url", draft["url"] or (None if self.new else ""))
        if self.new and not draft["url"]:
            self._say("url", "is needed: http://host/path or https://host/path")
        self._set("method", draft["method"] or None)
        header = self._rows(draft.headers, "header")
        names = [row.name.strip() for row in draft.headers if row.secret and row.name.strip()]
        names += [n for n in map(str.strip, draft["secret_more"].split(",")) if n]
        names = [name for name in dict.fromkeys(names) if not is_secret(name)]
        self._set("header", header or None, of="headers")
        self._set("secret_headers", names or None, of="headers")
        self._set("payload", payload(draft["payload"], header))
        self._set("follow_redirects", True if draft["follow_redirects"] else None)

    def _command(self) -> None:
        self._set("command", self.draft["command"] or None)
        if self.new and not self.draft["command"].strip():
            self._say("command", "is needed: a line for sh, like echo hello")
        self._set("env", self._rows(self.draft.env, "env") or None)

    def _operation(self) -> None:
        draft = self.draft
        found = ENDPOINT.fullmatch(draft["endpoint"])
        method, path = found.groups() if found else ("GET", draft["endpoint"])
        self._set("service", draft["service"] or None)
        if self.new and not draft["service"]:
            self._say("service", "is needed: the name of an API that is registered")
        self._set("endpoint", path or None)
        self._set("method", method.upper(), of="endpoint")
        self._set("headers", self._rows(draft.headers, "header") or None)
        for name in ("url_params", "query_params", "req_body"):
            self._set(name, self._json(name))
        self._set("cache", {"yes": True, "no": False}.get(draft["cache"]))

    def _rows(self, rows: Iterable[Row], field: str) -> dict[str, str]:
        found: dict[str, str] = {}
        for row in rows:
            name = row.name.strip()
            if not name and not row.value:
                continue
            value = row.value.strip(" \t") if field == "header" else row.value
            if not name:
                self._say(f"{field}.", "has a value and no name")
            elif name in found:
                self._say(f"{field}.{name[:100]}", "is there twice; leave one of them out")
            found[name] = value
        return found

    # How

    def _policy(self) -> None:
        draft = self.draft
        for name in ("max_retries", "max_concurrency", "priority"):
            self._set(name, self._whole(name))
        for name in ("timeout_seconds", "misfire_grace_seconds", "max_age_seconds"):
            self._set(name, self._number(name))
        for name in ("overlap", "misfire", "expected_status"):
            self._set(name, draft[name] or None)
        backoff = {sent: self._number(name) for name, sent in BACKOFF.items()}
        given = {name: value for name, value in backoff.items() if value is not None}
        if (self.new and given) or self._is_changed(*BACKOFF):
            self.fields["retry_backoff"] = given or None

    # Texts

    def _say(self, field: str, message: str) -> None:
        self.wrong.append(Detail(field, message))

    def _is_wrong(self, field: str) -> bool:
        return any(each.field == field for each in self.wrong)

    def _whole(self, name: str) -> int | None:
        text = self.draft[name]
        if text and not WHOLE.fullmatch(text):
            self._say(name, "must be a whole number, like 3")
            return None
        return int(text) if text else None

    def _number(self, name: str) -> float | None:
        text = self.draft[name]
        if text and not NUMBER.fullmatch(text):
            self._say(name, "must be a number, like 30 or 0.5")
            return None
        return float(text) if text else None

    def _json(self, name: str) -> Raw | None:
        text = self.draft[name].strip()
        if not text:
            return None
        try:
            msgspec.json.decode(text)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as e:
            self._say(name, f"is not JSON: {e}")
            return None
        return Raw(text.encode())


def payload(text: str, header: Collection[str]) -> str | Raw | None:
    """Return a payload as it is sent: an object or array is JSON where no header says otherwise."""
    if not text:
        return None
    if text.lstrip()[:1] in ("{", "[") and not any(n.lower() == "content-type" for n in header):
        try:
            msgspec.json.decode(text)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            return text
        return Raw(text.encode())
    return text
