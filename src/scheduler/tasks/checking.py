"""Operations are checked against their spec before a task that has one is stored.

No connection to the database is held meanwhile: as with rules, what is about to be stored raises
Unchecked, the transaction is given up, and begun again with what was found.
"""

import asyncio
from collections.abc import Sequence
from uuid import UUID

from scheduler.actions import Operation
from scheduler.definition import Definition
from scheduler.errors import Detail, ValidationFailed
from scheduler.runner import Runner
from scheduler.sealing import Vault


class Unchecked(Exception):  # no error: whoever catches it has the operation checked
    """An operation must be checked before it is stored."""

    def __init__(self, action: Operation) -> None:
        super().__init__("an operation is not checked yet")
        self.action = action


class Findings:
    """The operations of one request, and what is wrong with each."""

    def __init__(self) -> None:
        self._known: list[tuple[Operation, list[Detail]]] = []

    def check(self, vault: Vault, after: Definition, before: Definition | None = None) -> None:
        """Refuse a task whose operation is wrong, where an edit touches it.

        Raises ValidationFailed, and Unchecked.
        """
        if not isinstance(after.action, Operation):
            return
        if before is not None and before.action == after.action:
            return
        action = after.action.opened(vault, after.service_id)
        wrong = next((wrong for known, wrong in self._known if known == action), None)
        if wrong is None:
            raise Unchecked(action)
        if wrong:
            raise ValidationFailed.all(wrong)

    async def hear(self, runner: Runner, service_id: UUID, action: Operation) -> None:
        """Have an operation checked."""
        (wrong,) = await found(runner, service_id, [action])
        self._known.append((action, wrong))


async def found(
    runner: Runner, service_id: UUID, actions: Sequence[Operation]
) -> list[list[Detail]]:
    """Return what is wrong with each of some operations."""
    asked = [runner.check(service_id, action) for action in actions]
    return [[Detail(*each) for each in wrong] for wrong in await asyncio.gather(*asked)]
