"""What is told of a spec: its name, its address, and that a header or its document is another."""

from collections.abc import Iterator, Mapping, Sequence

from msgspec import UNSET

from scheduler import audit, sealing
from scheduler.audit import Change, Entry
from scheduler.db import Conn, utc
from scheduler.masking import MASK
from scheduler.sealing import SealError, Vault
from scheduler.service import Service
from scheduler.specs.changes import NewSpec
from scheduler.specs.model import Stored
from scheduler.specs.wanted import Asked
from scheduler.wording import address, words


async def tell(conn: Conn, service: Service, entries: Sequence[Entry], now: int) -> None:
    """Write what somebody did to a spec, at `now` (ms)."""
    await audit.write(conn, service.id, service.by, entries, utc(now))


def created(new: NewSpec) -> Entry:
    """Return the entry of a spec that was registered."""
    fields = {"name": words(new.name), "url": address(new.url), "headers": _names(new.headers)}
    changes = [Change(name, None, value) for name, value in fields.items() if value]
    return Entry(kind="spec", ref=new.trace_id, verb="created", version=1, changes=changes)


def edited(of: Stored, sent: Asked, vault: Vault, *, renewed: bool) -> list[Entry]:
    """Return the entry of an edit, `renewed` with another document; none where it changes nothing.

    Every value of a header may be a secret: only that it is another one is told.
    """
    changes = list(_changes(of, sent, vault))
    if renewed:
        changes.append(Change("document", MASK, MASK))
    if not changes:
        return []
    return [Entry(kind="spec", ref=of.trace_id, key=of.key, verb="edited", changes=changes)]


def _changes(of: Stored, sent: Asked, vault: Vault) -> Iterator[Change]:
    if sent.name is not None and sent.name != of.name:
        yield Change("name", words(of.name), words(sent.name))
    if sent.url is not UNSET and sent.url != of.url:
        yield Change("url", address(of.url), address(sent.url))
    if sent.headers is None:
        return
    before, after = _names(of.headers), _names(sent.headers)
    if before != after:
        yield Change("headers", before, after)
    elif any(_is_other(of, name, value, vault) for name, value in sent.headers.items()):
        yield Change("headers", MASK, MASK)


def _names(headers: Mapping[str, str]) -> str | None:
    return words(sorted({name.lower() for name in headers}))


def _is_other(of: Stored, name: str, value: str, vault: Vault) -> bool:
    """Say whether a header that is sent is not the one that is stored; a mask is."""
    if value == MASK:
        return False
    stored = next(each for each in of.headers.items() if each[0].lower() == name.lower())
    try:
        return vault.open(stored[1], of.service_id, sealing.header(stored[0])) != value
    except SealError:
        return True


def archived(of: Stored) -> Entry:
    """Return the entry of a spec that was moved to the archive."""
    changes = [Change("name", words(of.name), None)]
    return Entry(kind="spec", ref=of.trace_id, key=of.key, verb="archived", changes=changes)


def reviewed(of: Stored) -> Entry:
    """Return the entry of a spec that was let go on."""
    return Entry(kind="spec", ref=of.trace_id, key=of.key, verb="reviewed")
