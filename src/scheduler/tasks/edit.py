"""Reading a task's fields: what a body makes of a task, and everything that is wrong with it."""

import re
import uuid
from collections.abc import Collection
from uuid import UUID

import msgspec
from msgspec import UNSET

from scheduler import config
from scheduler.actions.http import Http
from scheduler.db import utc
from scheduler.definition import Definition, Policy
from scheduler.errors import ValidationFailed
from scheduler.judge import Verdicts
from scheduler.run import bucket_of
from scheduler.sealing import Vault
from scheduler.tasks.acting import read_action
from scheduler.tasks.model import Spent, TaskFields
from scheduler.tasks.policy import read_policy
from scheduler.tasks.reading import Reader
from scheduler.tasks.timing import read_pause, read_timing

__all__ = ["Edit", "edited", "new_task"]

ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
ROUTES = {"bulk", "scheduled", "preview"}
"""Words that are routes below /tasks, and so no ids."""


class Edit(msgspec.Struct):
    """What a body makes of a task; `at_once` asks for one run now."""

    task: Definition
    at_once: bool = False


def new_task(
    fields: TaskFields,
    service_id: UUID,
    now: int,
    most: config.Tasks,
    vault: Vault | None = None,
    verdicts: Verdicts | None = None,
) -> Edit:
    """Return the task that a body describes; its secrets are sealed, where it is to be stored.

    Raises ValidationFailed with every wrong field, and Unjudged where `verdicts` lacks its RRULE.
    """
    task_id = fields.id if isinstance(fields.id, str) and fields.id else str(uuid.uuid4())
    blank = Definition(
        key=uuid.uuid4(),
        bucket=bucket_of(service_id, task_id),
        service_id=service_id,
        id=task_id,
        version=1,
        name="",
        description=None,
        tags=[],
        status="active",
        trigger=None,
        action=Http(url=""),
        policy=Policy(),
        created_at=utc(now),
        updated_at=utc(now),
    )
    reader = Reader(fields, blank, now, most, verdicts=verdicts)
    _check_id(reader, task_id)
    return _read(reader, vault)


def edited(
    fields: TaskFields,
    before: Definition,
    now: int,
    most: config.Tasks,
    spent: Spent | None = None,
    gone: Collection[int] = (),
    vault: Vault | None = None,
    verdicts: Verdicts | None = None,
) -> Edit:
    """Return a task as an edit leaves it, its secrets sealed.

    Raises ValidationFailed with every wrong field, and Unjudged where `verdicts` lacks its RRULE.
    What a GET answers may be sent back whole, and changes nothing; where the task has `max_runs`,
    `spent` tells what GET answered, and where instants ended before they came, `gone`.
    """
    reader = Reader(fields, before, now, most, new=False, spent=spent, gone=gone, verdicts=verdicts)
    edit = _read(reader, vault)
    edit.task = msgspec.structs.replace(
        edit.task, version=before.version + 1, updated_at=utc(now), damaged=None
    )
    return edit


def _read(reader: Reader, vault: Vault | None) -> Edit:
    before = reader.before
    timing = read_timing(reader)
    status, paused_until = read_pause(reader)
    after = msgspec.structs.replace(
        before,
        name=reader.text("name", before.name, least=1, most=200),
        description=reader.text("description", before.description, most=10_000),
        tags=_tags(reader),
        status=status,
        trigger=timing.trigger,
        action=read_action(reader),
        policy=read_policy(reader),
        bounds=timing.bounds,
        paused_until=paused_until,
    )
    if reader.wrong:
        raise ValidationFailed.all(reader.wrong)
    if vault is not None:
        action = after.action.sealed(vault, after.service_id)
        after = msgspec.structs.replace(after, action=action)
    return Edit(after, timing.at_once)


def _check_id(reader: Reader, task_id: str) -> None:
    if not ID.fullmatch(task_id):
        reader.say("id", "1 to 64 letters, digits, - and _, the first a letter or digit")
    elif task_id in ROUTES:
        reader.say("id", f"{task_id} is a route; choose another id")


def _tags(reader: Reader) -> list[str]:
    tags = reader.fields.tags
    if tags is UNSET:
        return reader.before.tags
    if tags is None:
        return []
    if len(tags) > 50 or any(not 1 <= len(tag) <= 100 or "\x00" in tag for tag in tags):
        reader.say("tags", "at most 50 tags of 1 to 100 characters")
        return []
    return list(dict.fromkeys(tags))
