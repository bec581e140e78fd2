"""The pipeline: the runs of kind `spec` that take a draft to SUCCESS, and how they are told apart.

Of each draft there is one run SPEC and one run SPEC_CLIENT_GENERATED, and of each change of what is
no document one SPEC_UPDATE. A run has the spec's key and trace_id, and the draft as its version.
"""

import uuid
from uuid import UUID

from scheduler.actions.step import Message
from scheduler.run import NewRun, run_id
from scheduler.specs.model import home


def step_id(service_id: UUID, key: UUID, draft: int, message: Message) -> UUID:
    """Return the id of the one run that a draft has of a message."""
    return run_id(key, home(service_id), "spec", 0, nonce=f"{draft}/{message}")


def message_of(service_id: UUID, key: UUID, draft: int, run: UUID) -> Message:
    """Return what a run of a draft stands for."""
    once: tuple[Message, ...] = ("SPEC", "SPEC_CLIENT_GENERATED")
    for message in once:
        if step_id(service_id, key, draft, message) == run:
            return message
    return "SPEC_UPDATE"


def step(
    service_id: UUID, key: UUID, trace_id: str, draft: int, message: Message, now: int
) -> NewRun:
    """Return the run of a message, due now (ms since 1970)."""
    made = step_id(service_id, key, draft, message)
    if message == "SPEC_UPDATE":  # there may be any number
        made = run_id(key, home(service_id), "spec", 0, nonce=f"{draft}/{uuid.uuid4().hex}")
    return NewRun(
        id=made,
        bucket=home(service_id),
        service_id=service_id,
        task_key=key,
        task_id=trace_id,
        kind="spec",
        version=draft,
        overlap="allow",
        at=now,
    )
