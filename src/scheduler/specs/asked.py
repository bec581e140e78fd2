"""A call of an endpoint that was built from its spec, and what may come of it."""

import asyncio
import hashlib
import re
from collections.abc import Sequence

import msgspec

from scheduler.actions import Call, Expected, Operation, Outcome
from scheduler.documents.client import Operation as Endpoint
from scheduler.documents.messages import Request
from scheduler.documents.operation import Arguments, WrongCall, build
from scheduler.outbound import Response, SendError
from scheduler.specs.model import Called
from scheduler.specs.responses import Key, Shared
from scheduler.target import Target, prepare

PREFIX = "Error executing API call: API call failed: "
NAMED_MOST = 20
"""Endpoints listed in a message."""
REASON_MOST = 1000
"""Characters of why a call was not made."""
TYPE_MOST = 255
"""Characters of a Content-Type."""
BEGINNINGS = {
    "url: ": "service",
    "the server ": "service",
    "the document names no server": "service",
    "headers: ": "headers",
    "query_params": "query_params",
    "url_params": "url_params",
    "req_body": "req_body",
}
"""The field of a finding that names no parameter: where its API is, is a matter of the spec."""
FIELDS = {"path": "url_params", "query": "query_params", "header": "headers", "cookie": "headers"}


class Asked(msgspec.Struct, frozen=True, eq=False):
    """A call that was built."""

    action: Operation
    expected: Expected
    call: Call
    called: Called
    request: Request
    target: Target
    digest: bytes
    """Of the request."""
    key: Key
    """Of the answer, where it may be shared."""

    @property
    def process(self) -> bool:
        """Say whether its whole answer is what it is for."""
        return self.call.kind == "process"


def since(call: Call) -> float:
    """Return from when on, on the loop's clock, what is known of a spec is new enough for a call.

    What was changed before a process was made holds for it.
    """
    now = asyncio.get_running_loop().time()
    return now if call.again else now - max(call.at - call.scheduled_for, 0) / 1000


def built(action: Operation, called: Called) -> Request:
    """Return the request of a call. Raises WrongCall."""
    if called.operation is None:
        raise WrongCall(f"{action.name} is not an endpoint of {action.service}")
    arguments = Arguments.read(
        headers=action.headers,
        query_params=action.query_params,
        url_params=action.url_params,
        req_body=action.req_body,
        url=action.url,
    )
    return build(called.operation, arguments, headers=called.headers, url=called.url)


def made(
    action: Operation, expected: Expected, call: Call, called: Called, request: Request
) -> Asked:
    """Return a call made ready. Raises ValueError where it cannot be sent."""
    target = prepare(request.method, request.url, dict(request.headers), request.body)
    digest = hash_of(request)
    seed = f"{call.service_id.hex}/{called.spec.hex}/{called.version}/".encode()
    key = call.service_id, hashlib.sha256(seed + digest).digest()
    return Asked(action, expected, call, called, request, target, digest, key)


def hash_of(request: Request) -> bytes:
    """Return a hash of all that is sent, but for what each call has of its own."""
    headers = sorted((name.lower(), value) for name, value in request.headers)
    return hashlib.sha256(
        msgspec.msgpack.encode((request.method, request.url, headers, request.body))
    ).digest()


def handed(asked: Asked, shared: Shared | None) -> Outcome | None:
    """Return the outcome of a call that is given a shared answer, if that is one for it."""
    if shared is None or shared.status not in asked.expected:
        return None
    return Outcome(
        succeeded=True,
        status_code=shared.status,
        body=shared.body,
        truncated=shared.kept is not None,
        content_type=shared.content_type,
        kept=shared.kept,
    )


def failed(why: str, *, retryable: bool = False) -> Outcome:
    """Return that a call failed, in the words of an older program."""
    return Outcome(succeeded=False, error=PREFIX + cut(why), retryable=retryable)


def cut(why: str) -> str:
    """Return a reason as it is kept: a document may have names and values of any length."""
    return why if len(why) <= REASON_MOST else f"{why[:REASON_MOST]}…"


def spoiled(outcome: Outcome, why: str, *, retryable: bool = False) -> Outcome:
    """Return an answer as one that is of no use."""
    outcome.succeeded, outcome.error, outcome.retryable = False, PREFIX + why, retryable
    return outcome


def not_answered(asked: Asked, error: SendError) -> Outcome:
    """Return what comes of a call without an answer."""
    if asked.action.once and error.may_have_arrived:
        return failed(f"{error.message}; {asked.action.cut}")
    return failed(error.message, retryable=error.retryable)


def type_of(response: Response) -> str | None:
    """Return a Content-Type that can be stored, and sent again."""
    found = response.headers.get("Content-Type")
    if not found or len(found) > TYPE_MOST or not (found.isascii() and found.isprintable()):
        return None
    return found


def no_endpoint(action: Operation, there: Sequence[str]) -> str:
    """Say that a spec has no such endpoint, and which it has."""
    listed = ", ".join(there[:NAMED_MOST]) or "no endpoint"
    more = f" and {len(there) - NAMED_MOST} more" if len(there) > NAMED_MOST else ""
    return f"{action.name} is not an endpoint of {action.service}; the spec has {listed}{more}"


def field_of(of: Endpoint, finding: str) -> str:
    """Return the field that a finding is about: it begins with the name of what is wrong."""
    if of.refused is not None:
        return "endpoint"
    said = [field for beginning, field in BEGINNINGS.items() if finding.startswith(beginning)]
    if said:
        return said[0]
    named = [each for each in of.parameters if re.match(rf"{re.escape(each.name)}\b", finding)]
    return FIELDS[max(named, key=lambda each: len(each.name)).in_] if named else "req_body"
