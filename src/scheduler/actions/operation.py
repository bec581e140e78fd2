"""A call of an endpoint of a registered API: what is asked for. specs/ knows how it is made."""

from collections.abc import Iterable
from typing import ClassVar
from uuid import UUID

import msgspec

from scheduler import sealing
from scheduler.actions.outcome import Expected
from scheduler.masking import MASK, is_secret
from scheduler.sealing import Vault


class Operation(
    msgspec.Struct, tag_field="kind", tag="operation", frozen=True, omit_defaults=True, gc=False
):
    """An endpoint of a spec, and what it is called with."""

    cut: ClassVar[str] = "the call may have arrived"
    """What became of a run that was cut short."""
    success: ClassVar[Expected] = Expected()
    """The statuses that are one, where the task names none."""

    service: str
    """The name of the spec, in lower case."""
    endpoint: str
    """The path, as the document writes it."""
    method: str = "GET"
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    query_params: str | None = None
    """An object, as its JSON text."""
    url_params: str | None = None
    req_body: str | None = None
    """Any value, as its JSON text; None for no body."""
    url: str | None = None
    """Where the document names no server."""
    cache: bool | None = None
    """Read the response cache, and fill it; None for what is usual."""
    once: bool = False
    """Nobody said that it may be repeated: an unknown outcome is its end."""

    @property
    def name(self) -> str:
        """Return what it calls, like `GET /pets/{id}`."""
        return f"{self.method} {self.endpoint}"

    @property
    def size(self) -> int:
        """About how many bytes it takes."""
        texts = (self.endpoint, self.query_params, self.url_params, self.req_body, self.url)
        header = sum(len(name) + len(value) for name, value in self.headers.items())
        return sum(len(each) for each in texts if each) + header

    @property
    def outline(self) -> "Operation":
        """Return it without what may be long."""
        return msgspec.structs.replace(
            self, headers={}, query_params=None, url_params=None, req_body=None
        )

    def secrets(self, names: Iterable[str]) -> set[str]:
        """Return those header names whose values are masked wherever they are shown."""
        return {name for name in names if is_secret(name)}

    def masked(self) -> dict[str, str]:
        """Return the headers as they may be shown."""
        secret = self.secrets(self.headers)
        return {
            name: MASK if name in secret or sealing.is_sealed(value) else value
            for name, value in self.headers.items()
        }

    def sealed(self, vault: Vault, service_id: UUID) -> "Operation":
        """Return it as it is stored."""
        secret = self.secrets(self.headers)
        if not secret:
            return self
        headers = {
            name: vault.seal(value, service_id, sealing.header(name)) if name in secret else value
            for name, value in self.headers.items()
        }
        return msgspec.structs.replace(self, headers=headers)

    def opened(self, vault: Vault, service_id: UUID) -> "Operation":
        """Return it as it was sent. Raises SealError."""
        if not any(map(sealing.is_sealed, self.headers.values())):
            return self
        headers = {
            name: vault.open(value, service_id, sealing.header(name))
            for name, value in self.headers.items()
        }
        return msgspec.structs.replace(self, headers=headers)
