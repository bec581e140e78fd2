"""Signing secrets: as a service is shown its own, and at hand where its calls are signed."""

import base64
import time
from collections.abc import Callable, Collection
from uuid import UUID

from scheduler import services
from scheduler.db import Conn


def shown_secret(secret: bytes) -> str:
    """Return a signing secret as Standard Webhooks writes it."""
    return "whsec_" + base64.b64encode(secret).decode()


class Secrets:
    """The signing secrets at hand, so that a call costs no query; each two seconds old at most."""

    FRESH_S = 2.0

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._known: dict[UUID, tuple[float, bytes | None]] = {}

    async def refresh(self, conn: Conn, service_ids: Collection[UUID]) -> None:
        """Read again what of these is missing or old: one statement, or none."""
        now = self._monotonic()
        known = self._known
        old = {key for key in service_ids if key not in known or known[key][0] < now - self.FRESH_S}
        if old:
            found = await services.signing_secrets(conn, old)
            known.update({key: (now, found.get(key)) for key in old})

    def of(self, service_id: UUID) -> bytes | None:
        """Return a service's secret as last read; None where there is no such service."""
        known = self._known.get(service_id)
        return known[1] if known else None
