"""The pipeline: what a run of kind `spec` does, one step of a spec's way to SUCCESS.

An older program sent these as messages: SPEC, SPEC_UPDATE and SPEC_CLIENT_GENERATED.
"""

from collections.abc import Callable, Mapping, Sequence
from uuid import UUID

from scheduler.actions import Call, Expected, Outcome
from scheduler.actions.step import Step
from scheduler.config import Specs
from scheduler.db import Conn, Database
from scheduler.definition import Definition
from scheduler.run import Run
from scheduler.specs import model
from scheduler.specs.aide import Aides


class StepSource:
    """Reads specs as their runs are claimed."""

    async def definitions(self, conn: Conn, runs: Sequence[Run]) -> Mapping[UUID, Definition]:
        """Map runs' ids to what they do."""
        raise NotImplementedError(conn, runs)

    async def key(self, conn: Conn, service_id: UUID, trace_id: str) -> UUID | None:
        """Return the key of a service's spec, or None."""
        found = await model.of_trace(conn, service_id, trace_id)
        return None if found is None else found.key


class StepPerformer:
    """Takes a spec a step further. `wake(ms)` is called when it has made the run of the next."""

    def __init__(
        self, settings: Specs, database: Database, aides: Aides, wake: Callable[[int], None]
    ) -> None:
        self._settings = settings
        self._database = database
        self._aides = aides
        self._wake = wake

    def prepare(self, action: Step, expected: Expected) -> Step:  # noqa: ARG002
        """Keep what is to be done."""
        return action

    async def check(self, service_id: UUID, action: Step) -> list[tuple[str, str]]:  # noqa: ARG002
        """Find nothing wrong: nobody sends one."""
        return []

    async def perform(self, prepared: Step, call: Call) -> Outcome | None:
        """Do what the step does."""
        raise NotImplementedError(prepared, call)
