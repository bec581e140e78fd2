"""Performing an operation: the call is built from the spec, checked, looked up, and sent."""

from uuid import UUID

from scheduler.actions import Call, Expected, Operation, Outcome
from scheduler.config import Settings
from scheduler.db import Database
from scheduler.outbound import Outbound
from scheduler.specs.aide import Aides


class OperationPerformer:
    """Calls endpoints of specs."""

    def __init__(
        self, settings: Settings, database: Database, outbound: Outbound, aides: Aides
    ) -> None:
        self._settings = settings
        self._database = database
        self._outbound = outbound
        self._aides = aides

    def prepare(self, action: Operation, expected: Expected) -> tuple[Operation, Expected]:
        """Keep what is called: the spec may change before each call."""
        return action, expected

    async def check(self, service_id: UUID, action: Operation) -> list[tuple[str, str]]:
        """Return what is wrong with an operation that is about to be stored."""
        raise NotImplementedError(service_id, action)

    async def perform(self, prepared: tuple[Operation, Expected], call: Call) -> Outcome | None:
        """Make the call; None where it was not to be sent after all."""
        raise NotImplementedError(prepared, call)
