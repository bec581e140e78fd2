"""What is told of a service and its tokens: their ids and limits, and never a secret."""

from collections.abc import Iterator, Sequence
from typing import Any
from uuid import UUID

import msgspec

from scheduler import audit, clock
from scheduler.audit import INSTALLATION, Change, Entry
from scheduler.db import Conn, utc
from scheduler.service import By, Created, Service
from scheduler.wording import words


async def tell(conn: Conn, service_id: UUID, by: By, entries: Sequence[Entry]) -> None:
    """Write what `by` did to a service."""
    if entries:
        await audit.write(conn, service_id, by, entries, utc(await clock.database_ms(conn)))


async def tell_made(conn: Conn, by: By, made: Created) -> None:
    """Write that a service was created, with its first token."""
    of = made.service
    fields = [Change(name, None, words(value)) for name, value in _fields(of) if value is not None]
    service = Entry(kind="service", ref=str(of.id), verb="created", changes=fields)
    await tell(conn, of.id, by, [service, token(made.token_id, "made")])


async def tell_gone(conn: Conn, by: By, of: Service) -> None:
    """Write that a service was deleted, where it is still told when all else of it has gone."""
    name = Change("name", words(of.name), None)
    gone = Entry(kind="service", ref=str(of.id), verb="deleted", changes=[name])
    await tell(conn, INSTALLATION, by, [gone])


def edited(before: Service, after: Service) -> list[Entry]:
    """Return the entry of an edit; none where it changes nothing."""
    both = zip(_fields(before), _fields(after), strict=True)
    changes = [Change(name, words(was), words(is_)) for (name, was), (_, is_) in both if was != is_]
    if not changes:
        return []
    return [Entry(kind="service", ref=str(after.id), verb="edited", changes=changes)]


def token(token_id: UUID, verb: str) -> Entry:
    """Return the entry of a token, which is named by its id."""
    return Entry(kind="token", ref=str(token_id), verb=verb)


def _fields(of: Service) -> Iterator[tuple[str, Any]]:
    yield "name", of.name
    yield "allow_commands", of.allow_commands
    yield from msgspec.structs.asdict(of.quotas).items()
