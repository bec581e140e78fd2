"""Forms that act once, however often they are sent: by a double click, or when a page is reloaded.

Each form has a mark of its own. What it makes, a secret or an id, follows from that and from the
session's cookie, so that it is the same the second time: who makes it sees that it is there.
"""

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from typing import Protocol
from uuid import UUID

from scheduler.errors import Conflict, ValidationFailed

FIELD = "once"
SHORTEST = 22


class Held(Protocol):
    """Who has a session."""

    @property
    def cookie(self) -> str:
        """256 random bits, which only the browser holds."""


def mark() -> str:
    """Return the mark of a form that is shown."""
    return secrets.token_urlsafe(24)


def made(of: Held, sent: Mapping[str, str], what: str) -> bytes:
    """Return 32 bytes that nobody guesses: the same for the same form. Raises ValidationFailed."""
    found = sent.get(FIELD, "")
    if not SHORTEST <= len(found) <= 100:
        raise ValidationFailed.of(FIELD, "must be the mark of a form; load the page again")
    return hmac.new(
        _key(of), f"{what}\n{found}".encode("utf-8", "replace"), hashlib.sha256
    ).digest()


def identity(of: Held, sent: Mapping[str, str], what: str) -> UUID:
    """Return an id: the same for the same form. Raises ValidationFailed."""
    return UUID(bytes=made(of, sent, what)[:16], version=4)


def seen(of: Held, present: bytes) -> str:
    """Return what a form says of a secret that it is to replace: only this session can tell."""
    return hmac.new(_key(of), b"seen\n" + present, hashlib.sha256).hexdigest()[:32]


def check_seen(of: Held, said: str, present: bytes) -> None:
    """Raise Conflict where a secret is another one than when the form was shown."""
    if not hmac.compare_digest(said.encode(), seen(of, present).encode()):
        raise Conflict("a secret was made meanwhile; look again, then make another if you must")


def _key(of: Held) -> bytes:
    return hashlib.sha256(b"once\n" + of.cookie.encode("utf-8", "replace")).digest()
