"""Times as people write and read them: `now`, `+10m`, `1h ago`, beside RFC 3339."""

import re
from datetime import UTC, datetime, timedelta

import click

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
SPAN = r"(?:\d{1,9}[smhdw])+"
RELATIVE = re.compile(rf"(?P<sign>[+-])(?P<a>{SPAN})|in (?P<b>{SPAN})|(?P<c>{SPAN}) ago", re.ASCII)
SHORT = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d)([Zz]|[+-]\d\d:\d\d)", re.ASCII)
NONE = ("", "none", "null")


class Time(click.ParamType[str]):
    """A time: RFC 3339, or relative to now. What is neither is left to the API to judge."""

    name = "time"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the time as RFC 3339, `""` for no time."""
        try:
            return read(value, datetime.now(UTC))
        except OverflowError:
            self.fail(f"{value!r} is too far away; the years 1 to 9999 will do", param, ctx)


def read(text: str, now: datetime) -> str:
    """Return the RFC 3339 form of what is meant; text that is not understood as it is.

    Raises OverflowError for what lies outside the calendar.
    """
    said = text.strip().lower()
    if said in NONE:
        return ""
    if said == "now":
        return rfc3339(now)
    found = RELATIVE.fullmatch(said)
    if found is not None:
        span = timedelta(seconds=seconds(found["a"] or found["b"] or found["c"]))
        back = found["sign"] == "-" or found["c"] is not None
        return rfc3339(now - span if back else now + span)
    short = SHORT.fullmatch(text.strip())
    return f"{short[1]}T{short[2]}:00{short[3]}" if short else text.strip()


def seconds(span: str) -> int:
    """Return the seconds of a span like `1h30m`."""
    return sum(int(n) * UNITS[unit] for n, unit in re.findall(r"(\d+)([smhdw])", span))


def rfc3339(at: datetime) -> str:
    """Return a time in UTC, with milliseconds."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parsed(text: str | None) -> datetime | None:
    """Return a time that the API answered; None for none, and for what is no time."""
    try:
        return datetime.fromisoformat(text) if text else None
    except ValueError:
        return None


def beside(text: str | None, now: datetime) -> str:
    """Return a time, and how far from now it is."""
    at = parsed(text)
    return "" if at is None else f"{text} ({away(at, now)})"


def away(at: datetime, now: datetime) -> str:
    """Return how far a time is from now: `in 3m`, `2h ago`."""
    ahead = (at - now).total_seconds()
    if abs(ahead) < 1:
        return "now"
    return f"in {lasting(ahead)}" if ahead > 0 else f"{lasting(-ahead)} ago"


def lasting(amount: float) -> str:
    """Return seconds in the two largest units that they fill: `3m 20s`, `2d 4h`."""
    left, words = int(amount), []
    for unit, size in reversed(UNITS.items()):
        if unit != "w" and left >= size:
            words.append(f"{left // size}{unit}")
            left %= size
        elif words:
            break
    return " ".join(words[:2]) or "0s"


def milliseconds(amount: int | None) -> str:
    """Return milliseconds as people read them; nothing for none."""
    if amount is None:
        return ""
    if abs(amount) < 1000:
        return f"{amount} ms"
    return f"{amount / 1000:.1f} s" if abs(amount) < 60_000 else lasting(abs(amount) / 1000)


def between(start: str | None, end: str | None) -> str:
    """Return how long a span is, in brackets; nothing where one end is open."""
    begun, ended = parsed(start), parsed(end)
    if begun is None or ended is None:
        return ""
    return f" ({lasting((ended - begun).total_seconds())})"
