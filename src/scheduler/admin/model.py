"""Services as the operator sees them: what is sent in, and what is answered."""

from typing import Annotated, Any, TypeVar
from uuid import UUID

import msgspec
from msgspec import UNSET, Meta, UnsetType

from scheduler.db import rfc3339
from scheduler.quotas import Usage
from scheduler.service import MOST, MOST_OF_OTHERS, Created, Limits, Quotas, Service, Token
from scheduler.signing import shown_secret

Amount = Annotated[int, Meta(ge=0, le=MOST_OF_OTHERS)] | UnsetType | None
QUOTAS = tuple(field.name for field in msgspec.structs.fields(Quotas))


class ServiceFields(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What can be sent of a service; a change changes exactly the fields it sends."""

    name: str | UnsetType = UNSET
    allow_commands: bool | UnsetType = UNSET
    max_tasks: Amount = UNSET
    max_runs_per_minute: Amount = UNSET
    max_in_flight: Amount = UNSET
    max_body_bytes: Amount = UNSET
    max_kept_bytes: Annotated[int, Meta(ge=0, le=MOST["max_kept_bytes"])] | UnsetType | None = UNSET
    # What is answered may be sent back.
    service_id: Any = UNSET
    token: Any = UNSET
    token_id: Any = UNSET
    signing_secret: Any = UNSET
    tokens: Any = UNSET
    limits: Any = UNSET
    usage: Any = UNSET
    created_at: Any = UNSET
    updated_at: Any = UNSET

    def quotas(self) -> dict[str, int | None]:
        """Return the quotas that were sent."""
        sent = {name: getattr(self, name) for name in QUOTAS}
        return {name: value for name, value in sent.items() if value is not UNSET}


class Rotate(msgspec.Struct, forbid_unknown_fields=True):
    """What to rotate: the token, or the signing secret."""

    signing: bool = False


class Revoke(msgspec.Struct, forbid_unknown_fields=True):
    """Which token to revoke; without one every live token but the newest."""

    token_id: UUID | None = None


T = TypeVar("T")


class ShownToken(msgspec.Struct):
    """A token as it is listed: never the token, and never its hash."""

    id: str
    created_at: str | None
    last_used_at: str | None
    revoked_at: str | None


class ShownService(msgspec.Struct, kw_only=True):
    """A service as it is answered; a quota that is null is the setting's, and 0 is no limit."""

    service_id: str
    name: str
    token: str | UnsetType = UNSET
    """Only where it was made just now."""
    token_id: str | UnsetType = UNSET
    signing_secret: str | UnsetType = UNSET
    """Only where it was made just now."""
    allow_commands: bool
    max_tasks: int | None
    max_runs_per_minute: int | None
    max_in_flight: int | None
    max_body_bytes: int | None
    max_kept_bytes: int | None
    created_at: str | None
    updated_at: str | None
    tokens: list[ShownToken] | UnsetType = UNSET
    limits: Limits | UnsetType = UNSET
    """Those in force."""
    usage: Usage | UnsetType = UNSET


def shown(of: Service) -> ShownService:
    """Return a service as it is answered, without its secrets."""
    return ShownService(
        service_id=str(of.id),
        name=of.name,
        allow_commands=of.allow_commands,
        **msgspec.structs.asdict(of.quotas),
        created_at=rfc3339(of.created_at),
        updated_at=rfc3339(of.updated_at),
    )


def shown_created(of: Created) -> ShownService:
    """Return a service just created, with its secrets."""
    face = shown(of.service)
    face.token, face.token_id = of.token, str(of.token_id)
    face.signing_secret = shown_secret(of.signing_secret)
    return face


def shown_tokens(tokens: list[Token]) -> list[ShownToken]:
    """Return tokens as they are listed."""
    return [
        ShownToken(
            id=str(token.id),
            created_at=rfc3339(token.created_at),
            last_used_at=rfc3339(token.last_used_at),
            revoked_at=rfc3339(token.revoked_at),
        )
        for token in tokens
    ]
