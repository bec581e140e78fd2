"""The changes of a service, and for the admin those of all services: who did what, and when."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

import msgspec
from litestar import Request, Response, get
from litestar.di import NamedDependency

from scheduler import audit, changelog, services
from scheduler.audit import Found
from scheduler.changelog import KINDS, Wanted
from scheduler.dashboard import page
from scheduler.dashboard.admin.admin_door import Admin
from scheduler.dashboard.door import Visitor
from scheduler.dashboard.typed import form_time
from scheduler.engine import Engine
from scheduler.errors import ValidationFailed

COUNT = 50
"""Changes of a page."""
HOME = "/dashboard/changes"
ADMIN_HOME = "/dashboard/admin/changes"
ADMIN_KINDS = ("service", "token")
WHO = {
    "api": ("api",),
    "dashboard": ("dashboard",),
    "admin": ("admin", "admin page", "command line"),
    "scheduler": ("system",),
}
"""The doors that a word of the filter means."""
FIELDS = ("kind", "who", "from", "to")
TEXT_MOST = 100
"""Characters of what was sent that are shown again; an id has at most 64."""

AnyRequest = Request[Any, Any, Any]
Machine = NamedDependency[Engine]
Sent = Mapping[str, str]


class Listed(msgspec.Struct):
    """What an address asks for, and what was found."""

    sent: dict[str, str]
    found: list[Found] = []
    wrong: dict[str, str] = {}
    names: dict[UUID, str] = {}
    """Of the services of an admin's list."""


@get(HOME, include_in_schema=False)
async def show_changes(
    request: AnyRequest, visitor: NamedDependency[Visitor], engine: Machine
) -> Response[Any]:
    """Return the changes of a service that fit the address, or those of one thing it has."""
    sent, now, service_id = _sent(request.query_params), engine.clock.now_ms(), visitor.service.id
    listed = Listed(sent)
    try:
        wanted = read(sent, now, KINDS)
        async with engine.database.api.connect() as conn:
            if "ref" in sent:
                listed.found = await audit.page(
                    conn, service_id, sent["ref"], kind=sent["kind"], before=wanted.before,
                    most=COUNT + 1,
                )  # fmt: skip
            else:
                listed.found = await changelog.of_service(conn, service_id, wanted, COUNT + 1)
    except ValidationFailed as e:
        listed.wrong = {each.field: each.message for each in e.details}
    return await _page(listed, HOME, now, KINDS, parent="base.html", visitor=visitor)


@get(ADMIN_HOME, include_in_schema=False)
async def show_admin_changes(
    request: AnyRequest, admin: NamedDependency[Admin], engine: Machine
) -> Response[Any]:
    """Return what was done to services and tokens, of all services or of one."""
    sent, now = _sent(request.query_params), engine.clock.now_ms()
    sent.pop("ref", None)
    listed = Listed(sent)
    try:
        wanted = read(sent, now, ADMIN_KINDS)
        of = _id(sent, "service")
        async with engine.database.api.connect() as conn:
            if of is None:
                listed.found = await changelog.of_admin(conn, wanted, COUNT + 1)
            else:
                listed.found = await changelog.of_service(conn, of, wanted, COUNT + 1)
            shown = {each.service_id for each in listed.found}
            listed.names = await services.names(conn, shown)
    except ValidationFailed as e:
        listed.wrong = {each.field: each.message for each in e.details}
    return await _page(listed, ADMIN_HOME, now, ADMIN_KINDS, parent="admin_base.html", admin=admin)


def _sent(query: Sent) -> dict[str, str]:
    names = (*FIELDS, "ref", "service", "before")
    texts = {name: query.get(name, "").replace("\x00", "").strip() for name in names}
    return {name: text[:TEXT_MOST] for name, text in texts.items() if text}


def read(sent: Sent, now: int, kinds: tuple[str, ...]) -> Wanted:
    """Return what an address asks for. Raises ValidationFailed."""
    kind, who = sent.get("kind"), sent.get("who")
    if kind is not None and kind not in kinds:
        raise ValidationFailed.of("kind", f"must be one of {', '.join(kinds)}")
    if "ref" in sent and kind is None:
        raise ValidationFailed.of("kind", "is needed with ref: whose id that is")
    if who is not None and who not in WHO:
        raise ValidationFailed.of("who", f"must be one of {', '.join(WHO)}")
    return Wanted(
        kinds=kinds if kind is None else (kind,),
        ways=() if who is None else WHO[who],
        since=form_time(sent, "from", now),
        until=form_time(sent, "to", now),
        before=_id(sent, "before"),
    )


def _id(sent: Sent, name: str) -> UUID | None:
    try:
        return UUID(sent[name]) if name in sent else None
    except ValueError:
        said = "must be what a page before led to" if name == "before" else "must be a UUID"
        raise ValidationFailed.of(name, said) from None


async def _page(
    listed: Listed, home: str, now: int, kinds: tuple[str, ...], parent: str, **who: Any
) -> Response[Any]:
    found, sent = listed.found, listed.sent
    kept = {name: text for name, text in sent.items() if name != "before"}
    last = found[COUNT - 1].id if len(found) > COUNT else None
    return await page.large(
        "changes.html",
        status=400 if listed.wrong else 200,
        **who,
        parent=parent,
        now=now,
        home=home,
        changes=found[:COUNT],
        names=listed.names,
        wrong=listed.wrong,
        filled={name: sent.get(name, "") for name in (*FIELDS, "ref", "service")},
        filtered=bool(kept),
        kinds=kinds,
        doors=WHO,
        newer=_link(home, kept) if "before" in sent else None,
        older=_link(home, {**kept, "before": str(last)}) if last else None,
    )


def _link(home: str, sent: Sent) -> str:
    return f"{home}?{urlencode(sent)}" if sent else home


HANDLERS = (show_changes, show_admin_changes)
