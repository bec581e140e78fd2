"""A test call: what a form describes is done once, and nothing is saved."""

import asyncio
import json
import re
import time
from collections.abc import Collection, Coroutine, Iterable, Mapping
from typing import Any
from urllib.parse import quote, urlsplit
from uuid import uuid4

import msgspec
import structlog

from scheduler.actions import Action, Call, Command, Http, Operation, Outcome
from scheduler.actions.step import Step
from scheduler.dashboard import bodies
from scheduler.dashboard.editor import fields
from scheduler.dashboard.editor.fields import Draft
from scheduler.dashboard.editor.filling import long_ones
from scheduler.dashboard.editor.trials import TIMEOUT_S, Result, Trials
from scheduler.definition import Definition
from scheduler.engine import Engine
from scheduler.errors import Detail, ValidationFailed
from scheduler.masking import MASK, mask
from scheduler.runner import Performers
from scheduler.service import Service
from scheduler.tasks import model, written
from scheduler.tasks.model import TaskFields
from scheduler.tasks.permission import check_command

log = structlog.get_logger()

SHOWN_MOST = 64 << 10
"""Bytes of an answer that are shown."""
STOP_S = 2.0
"""How long a call may take once the server is being stopped."""
STOPPED = "the server is being stopped, and waits no longer; the call may have arrived"
SHORT = 6
"""A secret of fewer characters is part of too many words to be masked in an answer."""
TRIGGERS = ("frequency", "unit", "cron", "rrule", "scheduled_at", "timezone", "dst_gap",
            "dst_overlap", "jitter_seconds", "calendars", "start_at", "end_at")  # fmt: skip
"""What says when: a test call is now."""


class Tried(msgspec.Struct, frozen=True):
    """What is to be done, and which of it only the stored task knows."""

    of: Definition
    """Its secrets open."""
    kept: frozenset[str]
    """Values of secrets that nobody typed."""


async def tried(
    engine: Engine,
    performers: Performers,
    trials: Trials,
    service: Service,
    draft: Draft,
    before: Definition | None,
) -> Result:
    """Do what a form describes, once, as a run would. Raises UserErrors, also where all is paused.

    Of a task that is edited (`before`), secrets that are masked in the form are those stored.
    """
    engine.check_running()
    found = await _described(engine, service, draft, before)
    check_command(found.of, service, engine.settings.commands)
    with trials.turn(service.id, time.monotonic()):
        return await _performed(engine, performers, service, found)


async def _described(
    engine: Engine, service: Service, draft: Draft, before: Definition | None
) -> Tried:
    """Return what a form describes. Raises ValidationFailed."""
    now = engine.clock.now_ms()
    if before is None:
        sent = _without_when(fields.body(_unnamed(draft)))
        made = (await written.drafted(engine, service, _fields(sent), now)).task
        return Tried(made, frozenset())
    changed = {*fields.ACTIONS.get(draft["action"], ()), "timeout_seconds", "expected_status"}
    if _kind(before.action) != draft["action"]:
        changed.add("action")
    sent = _without_when(fields.body(draft, changed - _long_and_kept(draft, before)))
    made = (await written.redrafted(engine, service, before, _fields(sent), now)).task
    vault = engine.database.vault
    opened, stored = (each.action.opened(vault, service.id) for each in (made, before))
    kept = _kept(made.action, draft)
    if kept:
        _check_place(opened, stored, kept)
    values = frozenset(_secrets(opened)[name] for name in kept)
    return Tried(msgspec.structs.replace(made, action=opened), values)


def _unnamed(draft: Draft) -> Draft:
    """Return a form that needs no name and no trigger."""
    values = {**draft.values, "name": draft["name"] or "test call", "trigger": "manual", "id": ""}
    return msgspec.structs.replace(draft, values=values)


def _without_when(sent: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in sent.items() if name not in TRIGGERS}


def _fields(sent: Mapping[str, Any]) -> TaskFields:
    return model.read_fields(msgspec.json.encode(sent))


def _kind(of: Action | Step) -> str:
    return {Http: "http", Command: "command", Operation: "operation"}.get(type(of), "")


def _long_and_kept(draft: Draft, before: Definition) -> set[str]:
    """Return the texts that are empty in the form because they are too long for it."""
    return {name for name in long_ones(before) if not draft[name]}


# Secrets that only the stored task knows ---------------------------------------------------------


def _rows(of: Action | Step) -> Mapping[str, str]:
    if isinstance(of, Http):
        return of.header
    return of.env if isinstance(of, Command) else of.headers if isinstance(of, Operation) else {}


def _secrets(of: Action | Step) -> dict[str, str]:
    """Return the values that may be secret, by their names in lower case."""
    return {name.lower(): value for name, value in _rows(of).items()}


def _kept(of: Action | Step, draft: Draft) -> set[str]:
    """Return the names of rows which say that what is stored is to be taken."""
    rows = draft.env if isinstance(of, Command) else draft.headers
    return {row.name.strip().lower() for row in rows if row.value.strip() == MASK}


def _check_place(after: Action | Step, before: Action | Step, kept: Collection[str]) -> None:
    """Refuse to take a stored secret to where it was not meant for. Raises ValidationFailed."""
    why = ""
    if isinstance(after, Http):
        there = isinstance(before, Http) and _origin(after) == _origin(before)
        if not there:
            why = "is kept for the address that is stored; type it anew to send it to another one"
    elif isinstance(after, Command):
        same = isinstance(before, Command) and after.command == before.command
        if not same or _besides(after, kept) != _besides(before, kept):
            why = "is kept for the command and the other variables that are stored; type it anew"
    elif isinstance(after, Operation) and (
        not isinstance(before, Operation) or after.service != before.service
    ):
        why = "is kept for the API that is stored; type it anew to send it to another one"
    if why:
        field = "env" if isinstance(after, Command) else "header"
        names = {name.lower(): name for name in _rows(after)}
        raise ValidationFailed.all([Detail(f"{field}.{names[name]}", why) for name in sorted(kept)])


def _besides(of: Action | Step, kept: Collection[str]) -> dict[str, str]:
    """Return the other variables of a command: what it does with a secret hangs on them."""
    return {name: value for name, value in _rows(of).items() if name.lower() not in kept}


def _origin(of: Http) -> tuple[str, str, str]:
    """Return where a request goes: scheme, host and port, and the host that its header names."""
    parts = urlsplit(of.url)
    host = next((value for name, value in of.header.items() if name.lower() == "host"), "")
    return parts.scheme.lower(), parts.netloc.lower(), host.lower()


# Doing it ----------------------------------------------------------------------------------------


async def _performed(
    engine: Engine, performers: Performers, service: Service, found: Tried
) -> Result:
    of, began = found.of, time.monotonic()
    performer = performers[type(of.action)]
    async with engine.database.api.connect() as conn:
        await engine.runner.secrets.refresh(conn, {service.id})
    now = engine.clock.now_ms()
    call = Call(
        run_id=uuid4(),
        task_id=of.id,
        attempt=1,
        scheduled_for=now,
        deadline=asyncio.get_running_loop().time() + min(of.timeout_s, TIMEOUT_S),
        may_send=lambda: True,
        at=now,
        secret=engine.runner.secrets.of(service.id),
        service_id=service.id,
        kind="manual",
        again=True,  # nothing of a cache is wanted
    )
    try:
        prepared = performer.prepare(of.action, of.expected)
    except ValueError as e:
        raise ValidationFailed.of("url", str(e)) from None
    outcome = await _unless_stopped(engine.stopping, performer.perform(prepared, call))
    took_ms = round((time.monotonic() - began) * 1000)
    result = _result(found, outcome, took_ms)
    log.info(
        "test call",
        service_id=str(service.id),
        task=of.id,
        call=mask(result.what),
        state=result.state,
        status_code=result.status_code,
        took_ms=took_ms,
        error=result.error,
    )
    return result


async def _unless_stopped(
    stopping: asyncio.Event, performed: Coroutine[Any, Any, Outcome | None]
) -> Outcome:
    """Return what comes of a call; the stop of the server waits `STOP_S` for it."""
    call, stop = asyncio.ensure_future(performed), asyncio.ensure_future(stopping.wait())
    try:
        await asyncio.wait({call, stop}, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait({call}, timeout=STOP_S)
        if not call.done():
            return Outcome(succeeded=False, error=STOPPED)
        return call.result() or Outcome(succeeded=False, error="not sent")
    finally:
        call.cancel()
        stop.cancel()
        await asyncio.gather(call, stop, return_exceptions=True)


def _result(found: Tried, outcome: Outcome, took_ms: int) -> Result:
    error = outcome.error
    if outcome.later_s is not None:
        error = "the API is not ready to be called yet; look at its page, and try again"
    body = None if outcome.body is None else _shown(outcome.body, found.kept)
    return Result(
        what=_what(found.of.action),
        state="succeeded" if outcome.succeeded else "failed",
        status_code=outcome.status_code,
        error=None if error is None else _without(error, found.kept),
        body=body,
        size=len(outcome.body or b""),
        truncated=outcome.truncated or len(outcome.body or b"") > SHOWN_MOST,
        took_ms=took_ms,
    )


def _what(of: Action | Step) -> str:
    if isinstance(of, Http):
        return f"{of.verb} {of.url}"
    if isinstance(of, Operation):
        return f"{of.name} of {of.service}"
    return "the command"


def _shown(body: bytes, kept: Iterable[str]) -> str:
    """Return an answer as it is shown: JSON over several lines, and no stored secret in it."""
    pretty = bodies.indented(body)
    text = body[:SHOWN_MOST].decode(errors="replace") if pretty is None else pretty
    return _without(text, kept)


def _without(text: str, secrets: Iterable[str]) -> str:
    """Return a text without these secrets, however they are written in it."""
    forms = {
        form
        for secret in secrets
        for part in (secret, *secret.split(" ")[1:])
        if len(part) >= SHORT
        for form in (part, quote(part, safe=""), json.dumps(part)[1:-1])
    }
    if not forms:
        return text
    return re.sub("|".join(map(re.escape, sorted(forms, key=len, reverse=True))), MASK, text)
