"""Where a process stands: read off its run, live or finished, and stored nowhere."""

from typing import Literal
from uuid import UUID

import msgspec

from scheduler import history, lines
from scheduler.db import Conn
from scheduler.errors import NotFound
from scheduler.history import Finished
from scheduler.processes import model
from scheduler.processes.model import Process
from scheduler.run import Started

Word = Literal["WAITING", "IN_PROGRESS", "SUCCESS", "ERROR"]

RECEIVED = "Received in the API"
IN_WORKER = "Received in the worker"
EXECUTED = "Executed command successfully"
MESSAGES: dict[Word, str] = {
    "WAITING": "The request has been created. It is waiting to be processed.",
    "IN_PROGRESS": "The request is being processed.",
    "SUCCESS": ("The request has been executed and the process has been completed successfully."),
    "ERROR": "There was one or more errors trying to execute scheduler process.",
}


class ProcessStatus(msgspec.Struct, omit_defaults=True, kw_only=True):
    """Where a process stands."""

    status: Word
    message: str
    error: str | None = None
    """Why it failed."""
    step: list[str]


class Standing(msgspec.Struct, frozen=True):
    """A process, and its run."""

    of: Process
    run: Started | Finished

    @property
    def ended(self) -> Finished | None:
        """Its run, where that has ended."""
        return self.run if isinstance(self.run, Finished) else None


async def find(conn: Conn, service_id: UUID, trace_id: str) -> Standing:
    """Return a service's process. Raises NotFound.

    To be asked in one snapshot: a run that ends moves from the one table to the other.
    """
    of = await model.find(conn, service_id, trace_id)
    if of is None:
        raise NotFound(f"there is no process {trace_id}")
    run = await lines.get(conn, service_id, of.run_id)
    found = run or await history.get(conn, service_id, of.run_id)
    if found is None:
        raise NotFound(
            f"the process {trace_id} has outlived what history keeps (history.retention_days)"
        )
    return Standing(of, found)


def status(run: Started | Finished, now: int) -> ProcessStatus:
    """Return where the process of a run stands at `now` (ms)."""
    if isinstance(run, Started):
        begun = bool(run.attempts) or (run.claimed and run.due <= now)
        word: Word = "IN_PROGRESS" if begun else "WAITING"
    else:
        begun = run.state == "succeeded" or bool(run.attempts)
        word = "SUCCESS" if run.state == "succeeded" else "ERROR"
    steps = [RECEIVED] + [IN_WORKER] * begun + [EXECUTED] * (word == "SUCCESS")
    error = run.reason if isinstance(run, Finished) and word == "ERROR" else None
    return ProcessStatus(status=word, message=MESSAGES[word], error=error, step=steps)
