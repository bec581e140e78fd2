"""Where runs of kind `process` get what they do: the call, or what tells of its end."""

from collections.abc import Mapping, Sequence
from uuid import UUID

from scheduler.actions import Http, Operation
from scheduler.db import Conn, utc
from scheduler.definition import Definition, Policy
from scheduler.processes import model
from scheduler.processes.callback import TAG, Callback
from scheduler.processes.model import Process
from scheduler.run import Run

TIMEOUT_S = 3600.0
CALLBACK_RETRIES = 3
"""At least: who waits for a call is told of it."""
SAFE = frozenset({"GET", "HEAD", "PUT", "DELETE", "OPTIONS"})
"""Methods that may be repeated (RFC 9110, 9.2.2)."""


class ProcessSource:
    """Reads processes as their runs are claimed."""

    def __init__(self, max_retries: int) -> None:
        """`max_retries` is the setting of the worker."""
        self._callback_retries = max(max_retries, CALLBACK_RETRIES)

    async def definitions(self, conn: Conn, runs: Sequence[Run]) -> Mapping[UUID, Definition]:
        """Map runs' ids to what they do."""
        places = {(run.task_key, run.bucket) for run in runs if run.task_key is not None}
        if not places:
            return {}
        found = await model.by_keys(conn, places)
        made = dict[UUID, Definition]()
        for run in runs:
            of = found.get(run.task_key) if run.task_key else None
            if of is None:
                continue
            if run.id == model.callback_id(of.key, of.bucket):
                made[run.id] = self._callback(of, run.version)
            else:
                made[run.id] = _call(of, run.version)
        return made

    async def key(self, conn: Conn, service_id: UUID, trace_id: str) -> UUID | None:
        """Return the key of a service's process, or None."""
        return await model.key_of(conn, service_id, trace_id)

    def _callback(self, of: Process, version: int) -> Definition:
        policy = Policy(max_retries=self._callback_retries, priority=of.priority)
        action = Callback(url=of.callback_url or "", method="POST", json=True, of=of.run_id)
        return _definition(of, version, action, policy, [])


def _call(of: Process, version: int) -> Definition:
    safe = of.method in SAFE
    policy = Policy(
        max_retries=of.max_retries if safe or of.max_retries is not None else 0,
        timeout_seconds=of.timeout_seconds or TIMEOUT_S,
        priority=of.priority,
    )
    action = Operation(
        service=of.service,
        endpoint=of.endpoint,
        method=of.method,
        headers=of.headers,
        query_params=of.query_params,
        url_params=of.url_params,
        req_body=of.req_body,
        url=of.url,
        cache=of.cache,
        once=not safe and of.max_retries is None,
    )
    tags = [] if of.callback_url is None else [TAG]
    return _definition(of, version, action, policy, tags)


def _definition(
    of: Process, version: int, action: Http | Operation, policy: Policy, tags: list[str]
) -> Definition:
    made = utc(of.created_at)
    return Definition(
        key=of.key,
        bucket=of.bucket,
        service_id=of.service_id,
        id=of.trace_id,
        version=version,
        name=f"{of.service} {of.method} {of.endpoint}",
        description=None,
        tags=tags,
        status="active",
        trigger=None,
        action=action,
        policy=policy,
        created_at=made,
        updated_at=made,
        damaged=of.damaged,
    )
