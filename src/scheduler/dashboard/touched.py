"""What somebody did to tasks of watched services: how each stands then, for every open page.

It is heard of through the audit, whichever page, client or replica it came by.
"""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import msgspec

from scheduler import audit, task
from scheduler.audit import Touched
from scheduler.clock import Slice
from scheduler.dashboard import look, page
from scheduler.db import Conn, walk_in_order
from scheduler.definition import Definition
from scheduler.tasks import preview
from scheduler.triggers import kind_of

MOST = 200
"""Changes of a service that are read at once."""
OVERLAP_MS = 10_000
"""How far back they are read: a change is there a while after the time it names."""
ADDS = ("created", "brought back")


class New(msgspec.Struct, frozen=True):
    """A task that was not there before, and what the filters of lists ask of it."""

    id: str
    at: int
    """When it came (ms since 1970)."""
    status: str
    trigger: str
    action: str
    tags: list[str]


class News(msgspec.Struct):
    """What is told of a service's tasks."""

    slots: dict[str, str]
    new: list[New]
    cut: bool = False
    """More was done than is told: pages have to look for themselves."""


class Memory(msgspec.Struct):
    """The changes of a service that were told."""

    told: set[UUID] = set()


async def hear(
    conn: Conn, memories: Mapping[UUID, Memory], now: int, last: int
) -> dict[UUID, News]:
    """Return what was done to services' tasks since the `last` look; in ms. `memories` are kept."""
    await walk_in_order(conn)
    found = await audit.lately(conn, list(memories), last - OVERLAP_MS, MOST)
    news = {}
    for service_id, changes in found.items():
        told = memories[service_id].told
        fresh = [each for each in changes if each.change not in told]
        if fresh:
            news[service_id] = await _told(conn, service_id, fresh, now)
            news[service_id].cut |= len(changes) >= MOST and changes[0].change not in told
    for service_id, changes in found.items():  # once all could be told
        memories[service_id].told = {each.change for each in changes}
    return news


async def _told(conn: Conn, service_id: UUID, fresh: Sequence[Touched], now: int) -> News:
    """Return how the tasks stand that were touched: those that were last, where they are many."""
    macros: Any = page.TEMPLATES.get_template("live.html").module
    touched = {each.key: each for each in fresh}
    keys = list(touched)[-look.TASKS :]
    tasks = await task.outlines(conn, service_id, keys)
    there = {of.id for of in tasks.values()}
    slots, turn = dict[str, str](), Slice()
    for key in keys:
        if touched[key].ref not in there:
            slots |= _gone(touched[key].ref, macros)
    new = list[New]()
    added = {each.key for each in fresh if each.verb in ADDS}
    for key, (one, last) in (await look.stances(conn, service_id, tasks, now)).items():
        of = tasks[key]
        if key in added:
            new.append(_new(of, one.status, touched[key]))
        slots |= look.of_task(one, last, now, macros)
        slots[f"task:{of.id}:name"] = str(macros.task_name(of.name))
        slots[f"task:{of.id}:when"] = str(macros.task_when(preview.describe(of)))
        slots[f"task:{of.id}:switch"] = str(macros.task_switch(of.name, one.status))
        slots[f"task:{of.id}:version"] = str(of.version)
        await turn.give_way()
    return News(slots, new, cut=len(touched) > len(keys))


def _gone(task_id: str, macros: Any) -> dict[str, str]:
    """Return the slots of a task that was deleted: what they hold takes the same room."""
    return {
        f"task:{task_id}:state": str(macros.task_gone()),
        f"task:{task_id}:next": str(macros.task_never()),
        f"task:{task_id}:switch": str(macros.task_switch(task_id, "")),
    }


def _new(of: Definition, status: str, touched: Touched) -> New:
    at = touched.change.int >> 80  # ids of the audit begin with their time
    action = str(of.action.__struct_config__.tag)
    return New(of.id, at, status, kind_of(of.trigger), action, of.tags)
