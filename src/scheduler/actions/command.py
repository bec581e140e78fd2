"""A shell command: what is run, and what its end means."""

from collections.abc import Iterable
from typing import Any
from uuid import UUID

import msgspec

from scheduler import sealing
from scheduler.actions.outcome import Call, Expected, Outcome
from scheduler.masking import MASK, is_hidden
from scheduler.sealing import Vault


class Command(
    msgspec.Struct, tag_field="kind", tag="command", frozen=True, omit_defaults=True, gc=False
):
    """A command line for `sh -c`."""

    command: str
    env: dict[str, str] = msgspec.field(default_factory=dict)
    """Beside a clean environment; names that say secret, token, key or password are masked and
    sealed."""

    @property
    def size(self) -> int:
        """About how many bytes it takes."""
        return len(self.command) + sum(len(name) + len(text) for name, text in self.env.items())

    @property
    def outline(self) -> "Command":
        """Return it without what may be long."""
        return msgspec.structs.replace(self, command="", env={})

    def secrets(self, names: Iterable[str]) -> set[str]:
        """Return those names of variables whose values are masked wherever they are shown."""
        return {name for name in names if is_hidden(name)}

    def masked(self) -> dict[str, str]:
        """Return the environment as it may be shown."""
        secret = self.secrets(self.env)
        return {
            name: MASK if name in secret or sealing.is_sealed(value) else value
            for name, value in self.env.items()
        }

    def sealed(self, vault: Vault, service_id: UUID) -> "Command":
        """Return it as it is stored."""
        secret = self.secrets(self.env)
        if not secret:
            return self
        env = {
            name: vault.seal(value, service_id, sealing.variable(name)) if name in secret else value
            for name, value in self.env.items()
        }
        return msgspec.structs.replace(self, env=env)

    def opened(self, vault: Vault, service_id: UUID) -> "Command":
        """Return it as it was sent. Raises SealError."""
        if not any(map(sealing.is_sealed, self.env.values())):
            return self
        env = {
            name: vault.open(value, service_id, sealing.variable(name))
            for name, value in self.env.items()
        }
        return msgspec.structs.replace(self, env=env)


class CommandPerformer:
    """Runs commands."""

    def prepare(self, action: Command, expected: Expected) -> Any:  # noqa: ARG002
        """Make a command ready. Raises ValueError."""
        raise ValueError("commands come in a later version")

    async def perform(self, prepared: Any, call: Call) -> Outcome | None:
        """Run the command; None where it was not to be started after all."""
        raise NotImplementedError
