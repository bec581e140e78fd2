"""Text that others wrote, as a page may show it; and times, in words.

A name may hold what reorders the letters around it (bidi), what cannot be seen, or a megabyte. It
is shown for what it is: unseen characters by their numbers, long text to a limit, with how much
more there is.
"""

import html
import re
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import msgspec
from markupsafe import Markup

from scheduler import asked, masking
from scheduler.db import ms, rfc3339

ODD = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    "\u200b-\u200f\u2028-\u202e\u2060-\u206f\u2800\u3164\ufdd0-\ufdef\ufe00-\ufe0d\ufeff\uffa0"
    "\ufff0-\ufffb\ufffe\uffff\ud800-\udfff\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff]"
)
"""Controls, marks of direction, what takes no room (Unicode, 23.2 to 23.7), and no characters."""
MARK = (
    "[\u0300-\u036f\u0483-\u0489\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u06d6-\u06ed\u0e31-\u0e3a"
    "\u0e47-\u0e4e\u0eb1-\u0ebc\u0ec8-\u0ecd\u0f71-\u0f84\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff"
    "\u3099\u309a\ua66f-\ua67d\ufe20-\ufe2f]"
)
HEAP = re.compile(f"({MARK}{{6}}){MARK}++")
"""Marks upon one letter, more than any script has: they would be drawn over the lines around."""
LINE = 200
"""Characters of a text that is shown in a line."""
URL = 16_384
"""Characters of an address that are masked: twice what one may have."""
BLOCK = 20_000
"""Characters of a body that are shown."""
ODD_MOST = 1000
"""So many unseen characters are shown by their numbers; a text of nothing else is no text."""


def line(text: object, most: int = LINE) -> Markup:
    """Return a text for a line of a page."""
    return _shown(str(text), most, "…")


def address(url: object) -> Markup:
    """Return a URL for a line of a page, what is secret in it masked. It is never a link."""
    return line(masking.mask(str(url)[:URL]))


def block(text: object, most: int = BLOCK) -> Markup:
    """Return a body for a page, to a limit, and say how much more there is."""
    whole = str(text).replace("\r\n", "\n")
    left = len(whole) - most
    return _shown(whole, most, f"\n… {left:,} characters more; the API has them")


def plain(text: object) -> str:
    """Return a text for the title of a window, which knows no markup."""
    return ODD.sub("\ufffd", str(text))[:LINE]


def written(json: object) -> str:
    """Return JSON that is kept as it was written; nothing for null."""
    text = bytes(json).decode(errors="replace") if isinstance(json, msgspec.Raw) else ""
    return "" if text == "null" else text


def _shown(text: str, most: int, more: str) -> Markup:
    rest = f'<span class="more">{more}</span>' if len(text) > most else ""
    return Markup(f"<bdi>{_visible(text[:most])}{rest}</bdi>")  # noqa: S704  (escaped below)


def _visible(text: str) -> str:
    """Return a text with what means something to HTML escaped, and what is unseen numbered."""
    escaped = HEAP.sub("\\1\ufffd", html.escape(text))
    if ODD.search(escaped) is None:
        return escaped
    return ODD.sub("\ufffd", ODD.sub(_number, escaped, count=ODD_MOST))


def _number(found: re.Match[str]) -> str:
    return f'<b class="odd">U+{ord(found[0]):04X}</b>'


# Times -------------------------------------------------------------------------------------------

SPANS = ((86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1000, "s"))


def when(at: int | str | datetime | None, now: int, zone: str = "") -> Markup:
    """Return an instant (ms since 1970, RFC 3339, aware) with how far from `now` it is.

    The script shows it in the reader's zone, and in `zone`, a task's, where one points at it.
    """
    if at is None:
        return Markup('<span class="none">none</span>')
    at = ms(at) if isinstance(at, datetime) else at
    at_ms = asked.instant(at) if isinstance(at, str) else at
    return _time(at_ms, zone, f"{clock(at_ms)} <small>{distance(at_ms - now)}</small>")


def since(at: int | str | datetime | None, now: int, zone: str = "") -> Markup:
    """Return how far from `now` an instant is; the exact one where one points at it."""
    if at is None:
        return Markup('<span class="none">none</span>')
    at = ms(at) if isinstance(at, datetime) else at
    at_ms = asked.instant(at) if isinstance(at, str) else at
    return _time(at_ms, zone, f"<span data-away>{distance(at_ms - now)}</span>")


def _time(at_ms: int, zone: str, inside: str) -> Markup:
    of = f' data-zone="{html.escape(zone)}"' if zone else ""
    title = f' title="{clock(at_ms)} UTC"'
    made = f'<time datetime="{rfc3339(at_ms)}"{of}{title}>{inside}</time>'
    return Markup(made)  # noqa: S704  (nothing else of it is anybody's text)


def clock(at: int) -> str:
    """Return an instant (ms since 1970) to the second, in UTC."""
    whole = datetime.fromtimestamp(at // 1000, UTC)
    return whole.strftime("%Y-%m-%d %H:%M:%S") if whole.year > 999 else (rfc3339(at) or "")


def distance(span: int) -> str:
    """Return in words how far away something is; negative milliseconds for the past."""
    if abs(span) < 1000:
        return "now"
    whole = abs(span) // 1000 * 1000
    if whole < 60_000:
        words = f"{whole // 1000} s"
    else:
        words = duration(whole if whole >= 3_600_000 else whole // 60_000 * 60_000)
    return f"in {words}" if span > 0 else f"{words} ago"


def duration(span: int | None) -> str:
    """Return a span of milliseconds in words, by its two largest units."""
    if span is None:
        return ""
    if span < 1000:
        return f"{span} ms"
    if span < 10_000:
        return f"{span / 1000:.1f} s"
    found: list[str] = []
    for size, unit in SPANS:
        if span >= size and len(found) < 2:
            found.append(f"{span // size} {unit}")
            span %= size
        elif found:
            break
    return " ".join(found)


FILTERS: dict[str, Any] = {
    "line": line,
    "address": address,
    "block": block,
    "written": written,
    "plain": plain,
    "when": when,
    "since": since,
    "clock": clock,
    "duration": duration,
    "json": lambda raw: bytes(raw).decode(),
    "part": lambda text: quote(str(text), safe=""),
}
