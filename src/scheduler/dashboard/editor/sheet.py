"""The page with the form of a task: its fields, what is wrong with them, and what there is to
choose from.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, get_args

import msgspec
from litestar import Response

from scheduler import definition, exclusions
from scheduler.actions.http import Method
from scheduler.dashboard import once, page, typed
from scheduler.dashboard.door import Visitor
from scheduler.dashboard.editor import fields
from scheduler.dashboard.editor.fields import Draft, Row
from scheduler.dashboard.editor.previewing import Coming
from scheduler.dashboard.editor.trials import TIMEOUT_S, Result
from scheduler.engine import Engine
from scheduler.errors import Detail
from scheduler.specs import listing
from scheduler.specs.model import fold
from scheduler.triggers import UNIT_MS
from scheduler.triggers.zones import DATA

CHOICES = 500
"""Specs, endpoints and calendars that are offered; others can be written out."""
ORDER = (
    "name", "id", "description", "tags", "action", "url", "method", "command", "env", "service",
    "endpoint", "url_params", "query_params", "req_body", "cache", "headers", "payload",
    "follow_redirects", "trigger", "frequency", "unit", "first_at", "scheduled_at", "cron",
    "rrule", "timezone", "dst_gap", "dst_overlap", "times_in", *fields.BOUNDS, *fields.POLICY,
    "status", "paused_until",
)  # fmt: skip
"""The fields as they stand on the page."""
HOW = {*fields.POLICY}
BOUNDED = {"start_at", "end_at", "max_runs", "jitter_seconds", "calendars"}


class Difference(msgspec.Struct, frozen=True):
    """A field that two changed, or that someone else did."""

    name: str
    yours: str | None
    """None where only someone else changed it."""
    stored: str


class Sheet(msgspec.Struct, kw_only=True):
    """A form, and what is said about it."""

    draft: Draft
    before: definition.Definition | None = None
    """The task that is edited."""
    was: dict[str, str] = msgspec.field(default_factory=dict)
    """A digest of each field as it was when the form was opened."""
    errors: dict[str, str] = msgspec.field(default_factory=dict)
    """By field; of a row by `header.NAME` or `env.NAME`."""
    said: list[str] = msgspec.field(default_factory=list)
    """What is wrong with none of the fields."""
    notes: list[str] = msgspec.field(default_factory=list)
    differences: list[Difference] = msgspec.field(default_factory=list)
    kept: dict[str, int] = msgspec.field(default_factory=dict)
    """Texts too long for the form, which are kept as they are; with how many characters."""
    curl: str = ""
    coming: Coming | None = None
    trial: Result | None = None

    @property
    def first(self) -> str:
        """The first field that is wrong."""
        wrong = {name.partition(".")[0] for name in self.errors}
        wrong = {{"header": "headers"}.get(name, name) for name in wrong}
        return next((name for name in ORDER if name in wrong), "")

    @property
    def number(self) -> int:
        """How many things are wrong."""
        return len(self.errors) + len(self.said)

    @property
    def unfolded(self) -> set[str]:
        """The folded parts that hold something."""
        draft, found = self.draft, set[str]()
        for part, names in (("how", HOW), ("bounds", BOUNDED)):
            if any(draft[name] or name in self.errors for name in names) or (
                part == "bounds" and draft.calendars
            ):
                found.add(part)
        return found

    def kind(self, name: str) -> str:
        """Return the kind of input for a time: any text may be typed where something is wrong."""
        plain = name not in self.errors and typed.is_local(self.draft[name])
        return "datetime-local" if plain else "text"

    def wrong(self, details: Iterable[Detail]) -> None:
        """Put what is wrong to the fields where it stands."""
        rows = {f"header.{row.name.strip()[:100]}" for row in self.draft.headers}
        rows |= {f"env.{row.name.strip()[:100]}" for row in self.draft.env}
        for each in details:
            place = _place(each.field, self.draft)
            if place in ORDER or place in rows:
                self.errors.setdefault(place, each.message)
            else:
                self.said.append(f"{each.field}: {each.message}")


def _place(field: str, draft: Draft) -> str:
    """Return the field of the form for one of the body."""
    first, dot, rest = field.partition(".")
    if first in ("header", "headers") and dot:
        return f"header.{rest}"
    if first == "env" and dot:
        return field
    if field in fields.PLACES:
        return fields.PLACES[field]
    if field == "scheduled_at" and draft["trigger"] == "interval":
        return "first_at"
    if field == "method" and draft["action"] == "operation":
        return "endpoint"
    return first


@lru_cache(1)
def zones() -> tuple[str, ...]:
    """Return the names of all time zones."""
    return ("UTC", *DATA.joinpath("zones").read_text("ascii").split())


async def answer(
    engine: Engine, visitor: Visitor, sheet: Sheet, status: int = 200
) -> Response[Any]:
    """Return the page of a form."""
    service_id, draft = visitor.service.id, sheet.draft
    async with engine.database.api.connect() as conn:
        name = fold(draft["service"])
        specs, endpoints = await listing.choices(conn, service_id, name, CHOICES)
        calendars = await exclusions.names(conn, service_id, CHOICES)
    calendars += [name for name in draft.calendars if name not in calendars]
    return await page.large(
        "editor.html",
        status=status,
        visitor=visitor,
        now=engine.clock.now_ms(),
        sheet=sheet,
        draft=draft,
        values=draft.values,
        at=None if sheet.before is None else sheet.before.id,
        was=msgspec.json.encode(sheet.was).decode(),
        specs=specs,
        endpoints=endpoints,
        calendars=calendars,
        zones=zones(),
        methods=get_args(Method),
        units=tuple(UNIT_MS),
        pairs=lambda words: [(word, word) for word in words],
        blank=Row(),
        mark=once.mark(),
        trial_s=round(TIMEOUT_S),
        defaults=_defaults(engine, draft),
        commands=_commands(engine, visitor),
    )


def _defaults(engine: Engine, draft: Draft) -> dict[str, str]:
    """Return what holds where a field is empty."""
    command = draft["action"] == "command"
    retries = engine.settings.worker.max_retries
    return {
        "max_retries": f"{retries}, for commands 0",
        "timeout_seconds": f"{definition.TIMEOUT_S:.15g}",
        "misfire_grace_seconds": f"{definition.MISFIRE_GRACE_S:.15g}",
        "expected_status": "0" if command else "200-299, for commands 0",
        "overlap": "skip, for RRULE allow",
    }


def _commands(engine: Engine, visitor: Visitor) -> str:
    """Return why commands do not run, if so."""
    if not engine.settings.commands.enabled:
        return "Commands are switched off here; the setting commands.enabled switches them on."
    if not visitor.service.allow_commands:
        return "This service may not run commands; scheduler services update --allow-commands."
    return ""


def rows_shown(rows: Sequence[Row]) -> str:
    """Return rows for a line of the page, nothing secret in them."""
    return ", ".join(row.name for row in rows) or "none"
