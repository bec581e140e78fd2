"""A step of a spec's way to being callable. specs/ knows how it is made."""

from typing import ClassVar, Literal, Self
from uuid import UUID

import msgspec

from scheduler.actions.outcome import Expected
from scheduler.sealing import Vault

Message = Literal["SPEC", "SPEC_UPDATE", "SPEC_CLIENT_GENERATED"]


class Step(msgspec.Struct, tag_field="kind", tag="step", frozen=True, gc=False):
    """What is done about one draft of a spec; it may be done again and again."""

    once: ClassVar[bool] = False
    """Whether an unknown outcome is its end."""
    cut: ClassVar[str] = "it was stopped half-way"
    """What became of a run that was cut short."""
    success: ClassVar[Expected] = Expected()
    """Unused: a step has no status."""

    spec: UUID
    """Its key."""
    draft: int
    message: Message

    @property
    def size(self) -> int:
        """About how many bytes it takes."""
        return 0

    @property
    def outline(self) -> Self:
        """Return it without what may be long."""
        return self

    def sealed(self, _vault: Vault, _service_id: UUID) -> Self:
        """Return it as it is stored, which it never is."""
        return self

    def opened(self, _vault: Vault, _service_id: UUID) -> Self:
        """Return it as it was sent."""
        return self
