"""What an edit changes of a task, in words for the audit."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any
from uuid import UUID

from scheduler.actions import Http
from scheduler.actions.step import Step
from scheduler.audit import Change, Entry
from scheduler.db import rfc3339
from scheduler.definition import Definition
from scheduler.masking import MASK
from scheduler.tasks import model
from scheduler.triggers import Once
from scheduler.wording import address, words

NOT_FIELDS = {"id", "service_id", "state", "scheduled_at", "created_at", "updated_at", "message"}
"""Of a task as it is answered: what no edit sends, and when it is due next."""
VERBS = {"active": "resumed", "paused": "paused", "disabled": "disabled"}


def gone(of: Definition) -> Entry:
    """Return the entry of a task that was deleted."""
    changes = [Change("name", words(of.name), None)]
    return Entry(ref=of.id, verb="deleted", key=of.key, version=of.version, changes=changes)


def back(of: Definition) -> Entry:
    """Return the entry of a task that was deleted, and is back."""
    changes = [Change("name", None, words(of.name))]
    return Entry(ref=of.id, verb="brought back", key=of.key, version=of.version, changes=changes)


def backfilled(of: Definition, since: int, until: int) -> Entry:
    """Return the entry of a backfill of what lies from `since` to `until`, in ms."""
    span = [Change("from", None, rfc3339(since)), Change("to", None, rfc3339(until))]
    return Entry(ref=of.id, verb="backfilled", key=of.key, version=of.version, changes=span)


def executed(of: Definition, run_id: UUID) -> Entry:
    """Return the entry of a run by hand."""
    run = [Change("run", None, str(run_id))]
    return Entry(
        kind="run", ref=of.id, verb="executed", key=of.key, version=of.version, changes=run
    )


def created_many(count: int) -> Entry:
    """Return the entry of tasks that were created at once, which stands for those of each."""
    return Entry(ref="", verb="created", changes=[Change("tasks", None, f"{count:,}")])


def asked(what: str, count: int) -> Entry:
    """Return the entry of an act on many tasks, which stands for those of each."""
    return Entry(ref="", verb=f"asked to {what}", changes=[Change("tasks", None, f"{count:,}")])


def edited(before: Definition, after: Definition, reason: str | None = None) -> Sequence[Entry]:
    """Return the entry of an edit; none where it changes nothing, and nobody says why."""
    changes = list(_changes(before, after))
    if not changes and not reason:
        return ()
    moved = before.status != after.status or before.paused_until != after.paused_until
    moved = moved or (reason is not None and after.status != "active")
    verb = VERBS[after.status] if moved else "edited"
    return [
        Entry(
            ref=after.id, verb=verb, key=after.key, version=after.version, changes=changes,
            reason=reason or None,
        )
    ]  # fmt: skip


def hides(before: Definition, after: Definition) -> bool:
    """Say whether an edit makes a header secret that may have been told before."""
    return not _named(after) <= _named(before)


def _named(of: Definition) -> set[str]:
    return (
        {name.lower() for name in of.action.secret_headers}
        if isinstance(of.action, Http)
        else set()
    )


def _changes(before: Definition, after: Definition) -> Iterator[Change]:
    named = _named(before) | _named(after)
    was, becomes = _fields(before, named), _fields(after, named)
    hidden = _secrets(before), _secrets(after)
    for name, old in was.items():
        new = becomes[name]
        if old != new:
            put = address if name == "url" else words
            yield Change(name, put(old), put(new))
        elif name in hidden[0] and hidden[0][name] != hidden[1].get(name):
            yield Change(name, MASK, MASK)


def _fields(of: Definition, named: Collection[str]) -> dict[str, Any]:
    """Return what of a task an edit sends, as a GET answers it, secrets masked.

    So are the headers that are `named` (in lower case).
    """
    shown = model.shown(of, "", 0)
    fields = {
        name: getattr(shown, name) for name in shown.__struct_fields__ if name not in NOT_FIELDS
    }
    if fields["header"]:
        told = fields["header"].items()
        fields["header"] = {name: MASK if name.lower() in named else each for name, each in told}
    fields["status"] = of.status
    fields["paused_until"] = rfc3339(of.paused_until)
    fields["scheduled_at"] = rfc3339(of.trigger.at) if isinstance(of.trigger, Once) else None
    return fields


def _secrets(of: Definition) -> dict[str, dict[str, str]]:
    """Map the fields that hold secrets to those as they are stored, to be compared."""
    found = {}
    for name in ("header", "headers", "env"):
        values = getattr(of.action, name, None)
        if values and not isinstance(of.action, Step):
            found[name] = {key: values[key] for key in of.action.secrets(values)}
    return found
