"""What a request asks, read strictly and refused clearly: bodies, query values, times."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TypeVar

import msgspec

from scheduler.db import ms
from scheduler.errors import InvalidRequest, ValidationFailed

T = TypeVar("T")

RFC3339 = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?([Zz]|[+-]\d\d:\d\d)", re.ASCII
)


def body(sent: bytes | str, of: type[T]) -> T:
    """Return a body as a struct; an empty one names nothing.

    Raises ValidationFailed with the field that is wrong, and InvalidRequest for what is no JSON.
    """
    try:
        return msgspec.json.decode(sent or b"{}", type=of)
    except msgspec.ValidationError as e:
        message, _, path = str(e).partition(" - at `")
        raise ValidationFailed.of(path.strip("`$.") or "body", message) from None
    except msgspec.DecodeError as e:
        raise InvalidRequest(f"the body is not valid JSON: {e}") from None


PAGE_MOST = 1000


def page(sent: Mapping[str, str]) -> tuple[int, int]:
    """Return `pageNumber`, from 0, and `count`, at most 1,000. Raises ValidationFailed."""
    number = whole(sent.get("pageNumber"), "pageNumber", 0, 0, 10**9)
    return number, whole(sent.get("count"), "count", PAGE_MOST, 1, PAGE_MOST)


def whole(sent: str | None, field: str, default: int, least: int, most: int) -> int:
    """Return a whole number of the query. Raises ValidationFailed."""
    if sent is None or sent == "":
        return default
    value = int(sent) if sent.isascii() and sent.isdecimal() and len(sent) < 20 else least - 1
    if not least <= value <= most:
        raise ValidationFailed.of(field, f"must be a whole number from {least} to {most}")
    return value


def time(sent: Mapping[str, str], field: str) -> int | None:
    """Return an RFC 3339 time of the query in ms since 1970. Raises ValidationFailed."""
    text = sent.get(field)
    if not text:
        return None
    try:
        # A + that nobody escaped reads as a space.
        return instant(text.replace(" ", "+") if text[-6:-5] == " " else text)
    except ValueError as e:
        raise ValidationFailed.of(field, str(e)) from None


def instant(text: str) -> int:
    """Read an RFC 3339 date-time as milliseconds since 1970.

    Raises ValueError that says what would be right.
    """
    found = RFC3339.fullmatch(text)
    if found is None:
        bare = re.fullmatch(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d(:\d\d(\.\d+)?)?", text, re.ASCII)
        need = "needs an offset" if bare else "must be an RFC 3339 time"
        raise ValueError(f"{need}, like 2027-01-31T09:00:00Z or 2027-01-31T09:00:00+01:00")
    day, clock, fraction, offset = found.groups()
    millis = (fraction or "").ljust(3, "0")[:3]
    offset = "+00:00" if offset in "Zz" else offset
    try:
        at = datetime.fromisoformat(f"{day}T{clock}.{millis}{offset}")
        return ms(at.astimezone(UTC))
    except (ValueError, OverflowError) as e:
        raise ValueError(f"is no time that exists: {e}") from None
