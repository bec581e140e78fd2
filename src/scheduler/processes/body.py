"""The body of a request for a process: read strictly, every wrong field named."""

import uuid
from typing import Annotated, Any, get_args
from uuid import UUID

import msgspec
from msgspec import UNSET, Meta, UnsetType

from scheduler import asked
from scheduler.actions.http import Method
from scheduler.asked import CENTURY_MS
from scheduler.errors import Detail, ValidationFailed
from scheduler.instant import FIRST
from scheduler.processes.model import Process
from scheduler.run import bucket_of
from scheduler.specs.model import fold
from scheduler.target import check_header, check_url

SERVICE_MOST = 200
"""Characters of a spec's name."""
ENDPOINT_MOST = 8192
HEADERS_MOST = 200
YEAR_S = 31_536_000

Ignored = msgspec.Raw | UnsetType
"""Of what a GET answers, and may be sent back."""
Value = msgspec.Raw | UnsetType


class ProcessFields(msgspec.Struct, forbid_unknown_fields=True):
    """A call through a spec, as it is sent."""

    service: str | None = None
    endpoint: str | None = None
    method: str | None = None
    headers: dict[str, Any] | None = None
    query_params: Value = UNSET
    url_params: Value = UNSET
    req_body: Value = UNSET
    url: str | None = None
    scheduled_at: str | None = None
    callback_url: str | None = None
    priority: Annotated[int, Meta(ge=-100, le=100)] | None = None
    max_retries: Annotated[int, Meta(ge=0, le=100)] | None = None
    timeout_seconds: Annotated[float, Meta(ge=0.001, le=YEAR_S)] | None = None
    cache: bool | None = None
    trace_id: Ignored = UNSET
    timestamp: Ignored = UNSET
    status: Ignored = UNSET


class Reader:
    """Reads one body, and notes what is wrong with it."""

    def __init__(self, fields: ProcessFields) -> None:
        self.fields = fields
        self.wrong: list[Detail] = []

    def say(self, field: str, message: str) -> None:
        """Note what is wrong with a field."""
        self.wrong.append(Detail(field, message))

    def needed(self, field: str, what: str, most: int) -> str:
        """Return a text that has to be there."""
        sent: str | None = getattr(self.fields, field)
        if not sent or sent.isspace():
            self.say(field, f"is needed: {what}")
        elif len(sent) > most:
            self.say(field, f"must have at most {most} characters, has {len(sent)}")
        elif "\x00" in sent:
            self.say(field, "must not hold a NUL character")
        return sent or ""

    def method(self) -> str:
        """Return the method in upper case."""
        methods = get_args(Method)
        method = (self.fields.method or "").upper()
        if method not in methods:
            self.say("method", f"must be one of {', '.join(methods)}")
        return method

    def headers(self) -> dict[str, str]:
        """Return the headers, each as it can be sent."""
        headers = self.fields.headers or {}
        if len(headers) > HEADERS_MOST:
            self.say("headers", f"at most {HEADERS_MOST} headers, has {len(headers)}")
            return {}
        read, names = dict[str, str](), set[str]()
        for name, value in headers.items():
            place = f"headers.{name[:100]}"
            if name.lower() in names:
                self.say(place, "is there twice; names differ in more than case")
            names.add(name.lower())
            if not isinstance(value, str):
                self.say(place, "must be a string")
                continue
            try:
                check_header(name, value)
            except ValueError as e:
                self.say(place, str(e))
            read[name] = value
        return read

    def value(self, field: str, *, is_object: bool = True) -> str | None:
        """Return a value as the JSON text that was sent: its numbers keep their digits."""
        sent = getattr(self.fields, field)
        text = b"null" if sent is UNSET else bytes(sent)
        if text == b"null":
            return None
        try:  # what was read so far was only skipped
            found = msgspec.json.decode(text)
        except msgspec.DecodeError as e:
            self.say(field, f"cannot be read: {e}")
            return None
        if is_object and not isinstance(found, dict):
            self.say(field, 'must be an object like {"name": "value"}, or null')
        return text.decode()

    def url(self, field: str) -> str | None:
        """Return an address, or None."""
        sent: str | None = getattr(self.fields, field)
        try:
            return check_url(sent) if sent else None
        except ValueError as e:
            self.say(field, str(e))
            return None

    def at(self, now: int) -> int:
        """Return when the call is due: now, where no time or one that has passed is sent."""
        sent = self.fields.scheduled_at
        if not sent:
            return now
        try:
            at = asked.instant(sent)
        except ValueError as e:
            self.say("scheduled_at", str(e))
            return now
        if at > now + CENTURY_MS:
            self.say("scheduled_at", "must lie within 100 years from now")
        return now if at == FIRST else max(at, now)


def read(sent: bytes, service_id: UUID, trace_id: str, now: int, most: int) -> Process:
    """Return the process that a body asks for at `now` (ms).

    `most` is how many bytes its call may send. Raises ValidationFailed and InvalidRequest.
    """
    reader = Reader(asked.body(sent, ProcessFields))
    fields = reader.fields
    of = Process(
        key=uuid.uuid4(),
        bucket=bucket_of(service_id, trace_id),
        service_id=service_id,
        trace_id=trace_id,
        service=fold(reader.needed("service", "the name of a spec", SERVICE_MOST)),
        endpoint=reader.needed("endpoint", "a path of the spec, like /pets/{id}", ENDPOINT_MOST),
        method=reader.method(),
        headers=reader.headers(),
        query_params=reader.value("query_params"),
        url_params=reader.value("url_params"),
        req_body=reader.value("req_body", is_object=False),
        url=reader.url("url"),
        max_retries=fields.max_retries,
        timeout_seconds=fields.timeout_seconds,
        cache=fields.cache,
        priority=fields.priority or 0,
        callback_url=reader.url("callback_url"),
        scheduled_at=reader.at(now),
        created_at=now,
    )
    if of.size > most:
        wanted = f"must send at most {most} bytes (processes.body_max_bytes)"
        reader.say("req_body", f"the call {wanted}, its headers and parameters too; has {of.size}")
    if reader.wrong:
        raise ValidationFailed.all(reader.wrong)
    return of
