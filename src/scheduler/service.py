"""A service, what it may use, and its tokens, as values."""

from datetime import datetime
from uuid import UUID

import msgspec

from scheduler import config


class Limits(msgspec.Struct, frozen=True):
    """What a service may use; 0 for no limit."""

    max_tasks: int = 0
    max_runs_per_minute: int = 0
    max_in_flight: int = 0
    max_body_bytes: int = 0
    max_kept_bytes: int = 0


MOST = {"max_kept_bytes": 1 << 50}
"""What quotas may be; others are at most MOST_OF_OTHERS."""
MOST_OF_OTHERS = 2**31 - 1


class Quotas(msgspec.Struct, frozen=True):
    """What is set for one service; None leaves it to the settings, 0 is no limit."""

    max_tasks: int | None = None
    max_runs_per_minute: int | None = None
    max_in_flight: int | None = None
    max_body_bytes: int | None = None
    max_kept_bytes: int | None = None

    def within(self, settings: config.Quotas) -> Limits:
        """Return the limits in force."""
        own = msgspec.structs.asdict(self)
        return Limits(
            **{
                name: getattr(settings, name) if value is None else value
                for name, value in own.items()
            }
        )


class By(msgspec.Struct, frozen=True):
    """Who does something for a service: by which door, and with which of its tokens."""

    way: str = "system"
    """`api` or `dashboard`; `admin` (`/services`), `admin page` or `command line`; what the machine
    does by itself is `system`."""
    token_id: UUID | None = None
    """None where no token was needed, or it is the admin's."""
    act: UUID | None = None
    """The change of many that this is a part of, which is told as one."""


class Service(msgspec.Struct, frozen=True):
    """A tenant."""

    id: UUID
    name: str
    allow_commands: bool
    created_at: datetime
    updated_at: datetime
    quotas: Quotas = Quotas()
    """Its own."""
    limits: Limits = Limits()
    """Those in force, where the gate let it in."""
    kept_bytes: int = 0
    """Of specs and answers, as counted last."""
    by: By = By()
    """Who acts for it, where the gate let it in."""


class Token(msgspec.Struct, frozen=True):
    """What is known of a token, which is not the token."""

    id: UUID
    created_at: datetime
    last_used_at: datetime | None
    revoked_at: datetime | None


class Issued(msgspec.Struct, frozen=True):
    """A token just made, for the one sight of it."""

    id: UUID
    token: str


class Created(msgspec.Struct, frozen=True):
    """A service just created, with the one sight of its secrets."""

    service: Service
    token: str
    token_id: UUID
    signing_secret: bytes
