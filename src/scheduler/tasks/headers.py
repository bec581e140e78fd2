"""Reading the headers of a call: the mask of a secret one keeps what is stored."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Protocol

from msgspec import UNSET

from scheduler import sealing
from scheduler.masking import MASK
from scheduler.target import check_header
from scheduler.tasks.reading import Reader, short

HEADERS_MOST = 100
"""As many as servers commonly take (Apache's LimitRequestFields)."""


class Secretive(Protocol):
    """An action that knows which of its headers are secret."""

    def secrets(self, names: Iterable[str]) -> set[str]:
        """Return those header names whose values are masked wherever they are shown."""


def sent_headers(reader: Reader, names: Collection[str]) -> tuple[str, Any]:
    """Return the first of these fields that is sent, and its value; else the last, and UNSET."""
    for field in names:
        value = getattr(reader.fields, field)
        if value is not UNSET:
            return field, value
    return field, UNSET


def pairs(reader: Reader, field: str, sent: Any) -> dict[str, Any] | None:
    """Return headers as an object, however they were sent; None where there are too many."""
    sent = sent or {}
    if len(sent) > HEADERS_MOST:
        reader.say(field, f"at most {HEADERS_MOST} headers, has {len(sent)}")
        return None
    return {pair.key: pair.value for pair in sent} if isinstance(sent, list) else sent


def read_headers(
    reader: Reader,
    field: str,
    header: Mapping[str, Any],
    stored: Mapping[str, str],
    action: Secretive,
) -> dict[str, str]:
    """Return headers as they are to be stored; `action` says which of them are secret."""
    kept = {name.lower(): value for name, value in stored.items()}
    secret = action.secrets(header)
    read: dict[str, str] = {}
    names: set[str] = set()
    for name, value in header.items():
        place = f"{field}.{name[:100]}"
        if name.lower() in names:
            reader.say(place, "is there twice; names differ in more than case")
        names.add(name.lower())
        if not isinstance(value, str):
            reader.say(place, f"must be a string, is {short(value)}")
        elif value == MASK and name in secret:
            if name.lower() not in kept:
                reader.say(place, f"has no stored value that {MASK} could keep")
            read[name] = kept.get(name.lower(), "")
        else:
            read[name] = value
            _check(reader, place, name, value)
    if read != stored:
        _check_size(reader, field, read)
    return read


def _check(reader: Reader, place: str, name: str, value: str) -> None:
    try:
        check_header(name, value)
    except ValueError as e:
        reader.say(place, str(e))


def _check_size(reader: Reader, field: str, header: dict[str, str]) -> None:
    """Check what is sent, which a stored value that is sealed is longer than."""
    most, setting = reader.most.header_max_bytes, "tasks.header_max_bytes"
    size = sum(len(name.encode()) + sealing.plain_size(value) for name, value in header.items())
    if size > most:
        reader.say(field, f"must have at most {most} bytes ({setting}), has {size}")
