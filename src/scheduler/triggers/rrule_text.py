"""Reading RRULE text (RFC 5545, 3.1 and 3.8.5): lines of a property, its parameters, its value.

The text is what users, and other schedulers, send: rules with and without a name before them, a
DTSTART on a line of its own or among a rule's parts, lines parted by a backslash and an n.
"""

import re
from datetime import date, datetime
from functools import lru_cache
from typing import NamedTuple

from scheduler.triggers.rrule_parts import READERS, Parts, read_parts
from scheduler.triggers.zones import DAY, check_zone

LONGEST = 65_536
KEPT = ((256, 20_000), (2000, 2000), (LONGEST, 128))
"""Of texts up to so long so many are kept ready: a long one may take a hundred times its length."""
LINES_MOST = 1100
RULES_MOST = 10
"""RRULE and EXRULE together."""
DATES_MOST = 1000
"""RDATE and EXDATE together."""
EPOCH_DAY = date(1970, 1, 1).toordinal()
PARTS = {"FREQ", "RSCALE", "SKIP", *READERS}
INLINE = re.compile(r"DTSTART\s*(=|[^:]*:[^;]*;)", re.IGNORECASE)
PARAMETER = re.compile(r"\s*(TZID|VALUE)\s*=", re.IGNORECASE)
START = re.compile(
    r"(?:^|;)\s*DTSTART(?P<before>(?:[;=]\s*(?:TZID|VALUE)\s*=[^;:=]*)*)\s*[=:]\s*(?P<at>[^;]*)",
    re.IGNORECASE,
)
"""DTSTART=20250131T083000Z, DTSTART;TZID=Europe/Berlin:20250131T083000, and what is between."""
DATE_FORM = "20250131, 20250131T083000, or 20250131T083000Z for UTC"


class Stamp(NamedTuple):
    """A date or a time as it stands in the text."""

    wall: int
    """Seconds since 1970 of a clock's face; midnight for a date."""
    zone: str | None = None
    """The zone that is named beside it, UTC for a Z; None for that of the rule."""
    dated: bool = False
    """It is a date, without a time."""


class Text(NamedTuple):
    """What a text says."""

    start: Stamp | None
    rules: tuple[Parts, ...]
    exrules: tuple[Parts, ...]
    rdates: tuple[Stamp, ...]
    exdates: tuple[Stamp, ...]


def read_text(text: str) -> Text:
    """Return what a text says; shared, never changed. Raises ValueError with what is wrong."""
    return _readers[tier(text)](text)


def tier(text: str) -> int:
    """Return which of those that are kept a text counts among."""
    for number, (longest, _) in enumerate(KEPT):
        if len(text) <= longest:
            return number
    return len(KEPT) - 1


def _read(text: str) -> Text:
    found = _Reader()
    for line in _lines(text):
        found.read(line)
    if len(found.rules) + len(found.exrules) > RULES_MOST:
        raise ValueError(f"must have at most {RULES_MOST} RRULE and EXRULE lines")
    if not found.rules and not found.rdates:
        raise ValueError("needs an RRULE, like FREQ=DAILY, or an RDATE")
    return Text(
        found.start,
        tuple(found.rules),
        tuple(found.exrules),
        tuple(found.rdates),
        tuple(found.exdates),
    )


_readers = [lru_cache(most)(_read) for _, most in KEPT]


def _lines(text: str) -> list[str]:
    if len(text) > LONGEST:
        raise ValueError(f"must have at most {LONGEST} characters, has {len(text)}")
    if not re.fullmatch(r"[\t\r\n -~]*", text, re.ASCII):
        raise ValueError("must hold nothing but plain letters, digits, signs and line breaks")
    plain = re.sub(r"\\r\\n|\\n|\r\n?", "\n", text)
    lines = re.sub(r"\n[ \t]+", "", plain.strip()).split("\n")
    if len(lines) > LINES_MOST:
        raise ValueError(f"must have at most {LINES_MOST} lines, has {len(lines)}")
    return [line.strip() for line in lines if line.strip()]


class _Reader:
    """What was found so far."""

    def __init__(self) -> None:
        self.start: Stamp | None = None
        self.rules: list[Parts] = []
        self.exrules: list[Parts] = []
        self.rdates: list[Stamp] = []
        self.exdates: list[Stamp] = []

    def read(self, line: str) -> None:
        """Take in one line."""
        name, parameters, value = _property(line)
        if name in ("RRULE", "EXRULE"):
            if parameters:
                raise ValueError(f"{name} takes no parameters, and has {_named(parameters)}")
            self._rule(name, value)
        elif name == "DTSTART":
            self._begin(parameters, value)
        elif name in ("RDATE", "EXDATE"):
            dates = self.rdates if name == "RDATE" else self.exdates
            dates += _stamps(name, parameters, value)
            if len(self.rdates) + len(self.exdates) > DATES_MOST:
                raise ValueError(
                    f"must have at most {DATES_MOST} RDATE and EXDATE values; keep longer lists in"
                    " a calendar"
                )
        else:
            raise ValueError(
                f"there is no line {name[:40]!r} here; there are DTSTART, RRULE, RDATE, EXDATE and"
                " EXRULE"
            )

    def _begin(self, parameters: dict[str, str], value: str) -> None:
        if self.start is not None:
            raise ValueError("DTSTART stands there twice; one text begins once")
        self.start = _stamps("DTSTART", parameters, value)[0]

    def _rule(self, name: str, value: str) -> None:
        start, rest = _inline(value)
        if start is not None:
            self._begin(*start)
        if rest or start is None:
            (self.rules if name == "RRULE" else self.exrules).append(_parsed(name, rest))


def _parsed(name: str, value: str) -> Parts:
    try:
        return read_parts(value)
    except ValueError as e:
        raise ValueError(f"{e} (in {name})" if name == "EXRULE" else str(e)) from None


def _property(line: str) -> tuple[str, dict[str, str], str]:
    """Return the name, the parameters and the value of a line; a bare rule's name is RRULE."""
    name = re.split(r"[=:;\s]", line, maxsplit=1)[0].upper()
    if name in PARTS or (name == "DTSTART" and INLINE.match(line)):
        return "RRULE", {}, line
    head, colon, value = line.partition(":")
    if not colon:
        head, equals, value = line.partition("=")
        if not equals or head.strip().upper() not in ("RRULE", "EXRULE", "RDATE", "EXDATE"):
            raise ValueError(f"{line[:40]!r} is no line of a rule; they look like RRULE:FREQ=DAILY")
    _, *sent = head.split(";")
    return name, _parameters(name, sent), value.strip()


def _parameters(name: str, sent: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for each in sent:
        key, _, of = (side.strip() for side in each.partition("="))
        if key.upper() in found:
            raise ValueError(f"{name} has {key.upper()[:40]} twice")
        found[key.upper()] = of.strip('"')
    return found


def _inline(value: str) -> tuple[tuple[dict[str, str], str] | None, str]:
    """Part a DTSTART that stands among a rule's parts, and what belongs to it, from the others."""
    match = START.search(value)
    if match is None:
        return None, value
    sent = [each for each in re.split(r"[;:]|^=", match["before"]) if each]
    rest = [value[: match.start()].strip("; "), value[match.end() :].strip("; ")]
    parts = [each for part in rest for each in part.split(";") if each]
    others = [each for each in parts if not PARAMETER.match(each)]
    sent += [each for each in parts if PARAMETER.match(each)]
    return (_parameters("DTSTART", sent), match["at"]), ";".join(others)


def _named(parameters: dict[str, str]) -> str:
    return ", ".join(key[:40] or "an empty one" for key in parameters)


def _stamps(name: str, parameters: dict[str, str], value: str) -> list[Stamp]:
    """Return the values of a line of dates."""
    kinds = ("DATE", "DATE-TIME", "PERIOD") if name == "RDATE" else ("DATE", "DATE-TIME")
    if unknown := parameters.keys() - {"TZID", "VALUE"}:
        raise ValueError(f"{name} takes TZID and VALUE, and not {', '.join(sorted(unknown))[:80]}")
    kind = parameters.get("VALUE", "").upper()
    if kind and kind not in kinds:
        raise ValueError(f"VALUE of {name} must be {' or '.join(kinds)}, and is {kind[:40]!r}")
    zone = parameters.get("TZID")
    if zone is not None:
        try:
            check_zone(zone)
        except ValueError as e:
            raise ValueError(f"TZID {zone[:64]!r} of {name} {e}") from None
    if name == "DTSTART" and "," in value:
        raise ValueError("DTSTART must be one date")
    return [_dated(name, each.strip(), kind, zone) for each in value.split(",")]


def _dated(name: str, text: str, kind: str, zone: str | None) -> Stamp:
    if kind == "PERIOD":
        text, slash, _ = text.partition("/")
        if not slash:
            raise ValueError(f"a period of {name} must look like 20250131T083000Z/PT1H")
    found = read_stamp(name, text, zone)
    if kind and found.dated != (kind == "DATE"):
        raise ValueError(f"{name} says VALUE={kind}, and {text[:40]!r} is none")
    return found


def read_stamp(name: str, text: str, zone: str | None = None) -> Stamp:
    """Return what a date or a time says. Raises ValueError that names the part it stands in."""
    match = re.fullmatch(
        r"(\d{4})(\d{2})(\d{2})(?:T(\d{2})(\d{2})(\d{2})(Z?))?", text.strip().upper(), re.ASCII
    )
    try:
        if match is None:
            raise ValueError
        at = datetime(*(int(each or 0) for each in match.groups()[:6]))  # type: ignore[arg-type] # noqa: DTZ001
    except ValueError:
        raise ValueError(f"{name} must be like {DATE_FORM}, and is {text[:40]!r}") from None
    if match[7] and zone is not None and zone != "UTC":
        raise ValueError(f"{name} has TZID={zone} and a Z, which is UTC; leave one of them out")
    day = at.toordinal() - EPOCH_DAY
    wall = day * DAY + at.hour * 3600 + at.minute * 60 + at.second
    return Stamp(wall, "UTC" if match[7] else zone, match[4] is None)
