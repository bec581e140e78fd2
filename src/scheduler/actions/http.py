"""An HTTP call: what is sent, and what its answer means."""

import base64
import email.utils
import hmac
import time
from collections.abc import Iterable
from typing import ClassVar, Literal
from uuid import UUID

import msgspec

from scheduler import __version__, sealing
from scheduler.actions.outcome import Call, Expected, Outcome
from scheduler.db import rfc3339
from scheduler.masking import MASK, is_secret
from scheduler.outbound import NotNowError, Outbound, Response, SendError
from scheduler.sealing import Vault
from scheduler.target import Target, prepare

Method = Literal["GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "HEAD"]

TRY_AGAIN = frozenset({408, 425, 429})
"""With every 5xx: the statuses that another try may mend."""
RETRY_AFTER_MOST_S = 3600


class Http(msgspec.Struct, tag_field="kind", tag="http", frozen=True, omit_defaults=True, gc=False):
    """An HTTP request to be made."""

    once: ClassVar[bool] = False
    """Whether an unknown outcome is its end."""
    cut: ClassVar[str] = "the call may have arrived"
    """What became of a run that was cut short."""
    success: ClassVar[Expected] = Expected()
    """The statuses that are one, where the task names none."""

    url: str
    method: Method | None = None
    header: dict[str, str] = msgspec.field(default_factory=dict)
    payload: str | None = None
    json: bool = False
    """The payload came as JSON: it is announced as such where no header says otherwise."""
    follow_redirects: bool = False
    secret_headers: list[str] = msgspec.field(default_factory=list)

    @property
    def verb(self) -> str:
        """The method that is used."""
        return self.method or ("POST" if self.payload else "GET")

    @property
    def size(self) -> int:
        """About how many bytes it takes."""
        header = sum(len(name) + len(value) for name, value in self.header.items())
        return len(self.url) + len(self.payload or "") + header + sum(map(len, self.secret_headers))

    @property
    def outline(self) -> "Http":
        """Return it without what may be long."""
        return msgspec.structs.replace(self, payload=None, header={})

    def secrets(self, names: Iterable[str]) -> set[str]:
        """Return those header names whose values are masked wherever they are shown."""
        more = {name.lower() for name in self.secret_headers}
        return {name for name in names if is_secret(name) or name.lower() in more}

    def masked(self) -> dict[str, str]:
        """Return the headers as they may be shown."""
        secret = self.secrets(self.header)
        return {
            name: MASK if name in secret or sealing.is_sealed(value) else value
            for name, value in self.header.items()
        }

    def sealed(self, vault: Vault, service_id: UUID) -> "Http":
        """Return it as it is stored."""
        secret = self.secrets(self.header)
        if not secret:
            return self
        header = {
            name: vault.seal(value, service_id, sealing.header(name)) if name in secret else value
            for name, value in self.header.items()
        }
        return msgspec.structs.replace(self, header=header)

    def opened(self, vault: Vault, service_id: UUID) -> "Http":
        """Return it as it was sent. Raises SealError."""
        if not any(map(sealing.is_sealed, self.header.values())):
            return self
        header = {
            name: vault.open(value, service_id, sealing.header(name))
            for name, value in self.header.items()
        }
        return msgspec.structs.replace(self, header=header)


class Prepared(msgspec.Struct, frozen=True, gc=False):
    """A request ready to be sent any number of times."""

    target: Target
    expected: Expected


class HttpPerformer:
    """Makes HTTP calls through the one door to the network."""

    def __init__(self, outbound: Outbound) -> None:
        self._outbound = outbound

    def prepare(self, action: Http, expected: Expected) -> Prepared:
        """Make a request ready. Raises ValueError."""
        # Nobody else may speak for the service: what signs is never the task's own.
        headers = {k: v for k, v in action.header.items() if k.lower() not in SIGNED}
        if action.json and not any(name.lower() == "content-type" for name in headers):
            headers["Content-Type"] = "application/json"
        target = prepare(
            action.verb,
            action.url,
            headers,
            (action.payload or "").encode(),
            follow_redirects=action.follow_redirects,
            secret=action.secrets(headers),
        )
        return Prepared(target, expected)

    async def check(self, service_id: UUID, action: object) -> list[tuple[str, str]]:  # noqa: ARG002
        """Find nothing wrong: reading its fields found what there is."""
        return []

    async def perform(self, prepared: Prepared, call: Call) -> Outcome | None:
        """Make the call; None where it was not to be sent after all."""
        target, expected = prepared.target, prepared.expected
        headers = _headers(target, call)
        try:
            response = await self._outbound.send(
                target, headers, call.deadline, call.may_send, marks=call.marks
            )
        except NotNowError:
            return None
        except SendError as e:
            return Outcome(succeeded=False, error=e.message, retryable=e.retryable)
        if response.status in expected:
            return Outcome(
                succeeded=True,
                status_code=response.status,
                body=response.body,
                truncated=response.truncated,
            )
        return refused(response, expected)


USER_AGENT = f"scheduler/{__version__}"


SIGNED = frozenset({"webhook-id", "webhook-timestamp", "webhook-signature"})


def _headers(target: Target, call: Call) -> dict[str, str]:
    """Return what every call carries besides the task's own headers, which win over all but ours
    that sign.
    """
    ours = named(call) | {
        "X-Scheduler-Scheduled-For": rfc3339(call.scheduled_for) or "",
        "X-Scheduler-Attempt": str(call.attempt),
        "X-Scheduler-Task": call.task_id,
    }
    if target.headers:
        ours = {name: value for name, value in ours.items() if name.lower() not in target.headers}
    return ours | _signature(str(call.run_id), call, target.body)


def named(call: Call) -> dict[str, str]:
    """Return the headers by which any target can tell a call from others."""
    run = call.run_id
    span = run.int & (1 << 62) - 1 | 1 << 62  # not all zeros: W3C Trace Context, 3.2.2.4
    return {
        "Idempotency-Key": str(run),
        "User-Agent": USER_AGENT,
        "traceparent": f"00-{run.hex}-{span:016x}-01",
    }


def _signature(run: str, call: Call, body: bytes) -> dict[str, str]:
    """Return the headers of Standard Webhooks, which are signed with the body."""
    at = str(call.at // 1000)
    headers = {"webhook-id": run, "webhook-timestamp": at}
    if call.secret is not None:  # None where the service was deleted meanwhile
        signed = b"%b.%b.%b" % (run.encode(), at.encode(), body)
        signature = base64.b64encode(hmac.digest(call.secret, signed, "sha256"))
        headers["webhook-signature"] = f"v1,{signature.decode()}"
    return headers


def refused(response: Response, expected: Expected) -> Outcome:
    """Return what comes of an answer whose status is not expected."""
    again = response.status in TRY_AGAIN or response.status >= 500
    return Outcome(
        succeeded=False,
        status_code=response.status,
        error=f"the target answered {response.status}, expected {expected}",
        body=response.body,
        truncated=response.truncated,
        retryable=again,
        retry_after_s=retry_after_s(response) if again else None,
    )


def retry_after_s(response: Response) -> float | None:
    """Return what Retry-After asks for (RFC 9110, 10.2.3), in seconds, an hour at most."""
    value = response.headers.get("retry-after")
    if value is None:
        return None
    value = value.strip(" \t")
    if value.isdecimal() and value.isascii():
        return min(float(value), RETRY_AFTER_MOST_S)
    try:
        at = email.utils.parsedate_to_datetime(value)
    except (ValueError, OverflowError, TypeError):  # whatever a target may send
        return None
    # An HTTP date is the target's wall clock; ours is the nearest thing to it.
    return min(max(at.timestamp() - time.time(), 0.0), RETRY_AFTER_MOST_S)
