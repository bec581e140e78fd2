"""Forms whose session ended before they were sent: carried through the sign-in and shown again.

What was typed goes along with the page to sign in, sealed for the service that it was typed for,
and comes back as the form that it was. It is never carried out: who typed it sends it once more.
"""

import asyncio
import re
from typing import Any
from urllib.parse import parse_qsl, urlencode
from uuid import UUID

import msgspec
from litestar import Request
from litestar.datastructures import State
from litestar.exceptions import HTTPException, SerializationException

from scheduler.dashboard import caller
from scheduler.sealing import PREFIX, SealError, Vault

AnyRequest = Request[Any, Any, Any]

FIELD = "carried"
"""What of a form to sign in holds another form, sealed."""
AGAIN = "shown_again"
"""What a form sends along that is only to be shown."""
BEFORE = "shown_from"
"""And the page that it stood on."""
MOST = 256 << 10
"""Bytes of a form that is carried."""
SENT_MOST = 2 * MOST
"""Bytes of a form to sign in that carries another."""
FIELDS_MOST = 1000
LONG = 64 << 10
"""Bytes that are decoded beside the loop."""
WHAT = "a form that was not sent"
OWN = ("form", "do", "once", FIELD, AGAIN, BEFORE)
"""Fields that say who sends a form, and what is to be done with it: of these none is carried."""
MARK = re.compile(r"[0-9a-f]{64}\.([0-9a-f]{32})", re.ASCII)
SEALED = re.compile(r"[A-Za-z0-9+/]+={0,2}", re.ASCII)


class Form(msgspec.Struct, frozen=True):
    """A form that was sent too late."""

    path: str
    """Where it was sent to, with the query."""
    pairs: list[tuple[str, str]]


def mark(token: str, service_id: UUID) -> str:
    """Return what the forms of a session send along: its token, and whose form it is."""
    return f"{token}.{service_id.hex}"


def service_of(sent: str) -> UUID | None:
    """Return whose form it is, by its own word; None where it does not say."""
    found = MARK.fullmatch(sent)
    return UUID(found[1]) if found else None


async def read(request: AnyRequest) -> tuple[UUID, Form] | None:
    """Return a form that was sent, and whose it is; None for what is none of ours, or too large.

    Files are left out: no page can put them back into a form.
    """
    length = request.headers.get("content-length", "")
    if request.method != "POST" or not length.isdecimal() or int(length) > MOST:
        return None
    try:
        pairs = await _pairs(request)
    except (HTTPException, SerializationException, ValueError):
        return None
    sent = dict(pairs)
    service_id = service_of(sent.get("form", ""))
    if service_id is None or "part" in sent:  # the script wants a part of a page: it stays there
        return None
    query = f"?{request.url.query}" if request.url.query else ""
    kept = [(name, value) for name, value in pairs if name not in OWN]
    return service_id, Form(f"{request.url.path}{query}", kept)


async def _pairs(request: AnyRequest) -> list[tuple[str, str]]:
    if request.content_type[0] == "multipart/form-data":
        form = await request.form()
        found = [(name, value) for name, value in form.multi_items() if isinstance(value, str)]
        await form.close()
        return found
    body = (await request.body()).decode("ascii")
    return await asyncio.to_thread(_split, body) if len(body) > LONG else _split(body)


def _split(body: str) -> list[tuple[str, str]]:
    return parse_qsl(body, keep_blank_values=True, max_num_fields=FIELDS_MOST, errors="replace")


async def sealed(request: AnyRequest, state: State) -> str:
    """Return a form that a stranger sent, sealed; nothing where there is none to be carried.

    Only one of our own pages is believed to have sent it.
    """
    vault: Vault = state.database.vault
    if not vault.seals or not caller.own_form(request, state.settings):
        return ""
    found = await read(request)
    if found is None:
        return ""
    service_id, form = found
    plain = f"{form.path}\n{urlencode(form.pairs)}"
    return vault.seal(plain, service_id, WHAT).removeprefix(PREFIX)


def passed_on(sent: str) -> str:
    """Return what a form to sign in carries, to be carried on; nothing for what is none of ours."""
    return sent if SEALED.fullmatch(sent) else ""


async def opened(vault: Vault, service_id: UUID, sent: str) -> Form | None:
    """Return the form that a form to sign in carries; None where it is another service's."""
    try:
        path, _, body = vault.open(f"{PREFIX}{sent}", service_id, WHAT).partition("\n")
    except SealError:
        return None
    pairs = await asyncio.to_thread(_split, body) if len(body) > LONG else _split(body)
    return Form(path, pairs)
