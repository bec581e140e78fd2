"""What the query of an address may say, read with clear refusals."""

from collections.abc import Mapping

from scheduler.errors import ValidationFailed
from scheduler.tasks import edit

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
        return edit.parse_time(text.replace(" ", "+") if text[-6:-5] == " " else text)
    except ValueError as e:
        raise ValidationFailed.of(field, str(e)) from None
