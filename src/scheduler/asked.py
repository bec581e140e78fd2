"""What a request asks, read strictly and refused clearly: bodies, query values, times."""

import difflib
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TypeVar

import msgspec

from scheduler.db import ms
from scheduler.errors import DETAILS_MOST, Detail, InvalidRequest, ValidationFailed
from scheduler.instant import FIRST

T = TypeVar("T")

SMALL = 65_536
"""A body of so many bytes is read again for everything that is wrong with it."""
HINTS_MOST = 10
NO_JSON = "the body is not valid JSON"
UNKNOWN = "Object contains unknown field `"
RFC3339 = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?([Zz]|[+-]\d\d:\d\d)", re.ASCII
)


def body(sent: bytes | str | msgspec.Raw, of: type[T]) -> T:
    """Return a body read strictly: "1" is not 1, and no field is unknown.

    Raises ValidationFailed with the field that is wrong, and InvalidRequest for what is no JSON.
    """
    if not sent:
        raise ValidationFailed.of("body", "is needed: JSON")
    try:
        return msgspec.json.decode(sent, type=of)
    except msgspec.ValidationError as e:
        message, _, path = str(e).partition(" - at `")
        field = path.strip("`").lstrip("$").lstrip(".")
        if not message.startswith(UNKNOWN):
            raise ValidationFailed.of(field or "body", message) from None
        if not field and size(sent) <= SMALL:
            raise ValidationFailed.all(_unknown(sent, of)) from None
        name = message.removeprefix(UNKNOWN).strip("`")[:100]
        full = f"{field}.{name}" if field else name
        raise ValidationFailed.of(full, "there is no such field") from None
    except msgspec.DecodeError as e:
        raise InvalidRequest(f"{NO_JSON}: {e}") from None
    except UnicodeDecodeError:
        raise InvalidRequest(f"{NO_JSON}: it is not UTF-8") from None
    except RecursionError:
        raise InvalidRequest("the body is JSON, but nested too deeply") from None


def size(sent: bytes | str | msgspec.Raw) -> int:
    """Return how many bytes, or characters, a text of JSON has."""
    return len(sent if isinstance(sent, bytes | str) else memoryview(sent))


def _unknown(sent: bytes | str | msgspec.Raw, of: type) -> list[Detail]:
    """Name every field that a struct has not: the decoder stops at the first."""
    known: tuple[str, ...] = of.__struct_encode_fields__  # type: ignore[attr-defined]
    found = list[Detail]()
    try:  # the decoder stopped at that field: what comes after it may be no JSON
        names = list(msgspec.json.decode(sent, type=dict[str, msgspec.Raw]))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise InvalidRequest(f"{NO_JSON}: {e}") from None
    for name in names:
        if name not in known and len(found) < DETAILS_MOST:
            few = len(found) < HINTS_MOST and len(name) <= 100
            near = difflib.get_close_matches(name, known, n=1) if few else []
            hint = f"; did you mean {near[0]}?" if near else ""
            found.append(Detail(name[:100], f"there is no such field{hint}"))
    return found


CENTURY_MS = 36_525 * 86_400_000
"""A hundred years: as far away as anything here has to be."""
PAGE_MOST = 1000


def page(sent: Mapping[str, str], deepest: int) -> tuple[int, int]:
    """Return `pageNumber`, from 0, and `count`, at most 1,000. Raises ValidationFailed.

    What lies before a page is walked: at most `deepest` of the list.
    """
    count = whole(sent.get("count"), "count", PAGE_MOST, 1, PAGE_MOST)
    number = whole(sent.get("pageNumber"), "pageNumber", 0, 0, deepest)
    if number * count > deepest:
        most = f"must be at most {deepest // count} where count is {count}"
        raise ValidationFailed.of("pageNumber", f"{most}: ask for less by a filter or a range")
    return number, count


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
        at = instant(text.replace(" ", "+") if text[-6:-5] == " " else text)
    except ValueError as e:
        raise ValidationFailed.of(field, str(e)) from None
    return None if at == FIRST else at  # the zero time of Go's clients


def near(sent: Mapping[str, str], field: str, now: int) -> int | None:
    """Return a time of the query, within a hundred years of `now` (ms): triggers are reckoned
    with from there on, or up to there. Raises ValidationFailed.
    """
    at = time(sent, field)
    if at is not None and abs(at - now) > CENTURY_MS:
        raise ValidationFailed.of(field, "must lie within 100 years from now, in either direction")
    return at


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
