"""What a shell completes while a command is typed: ids from the API, and words that are known."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import click
import msgspec
from click.shell_completion import CompletionItem

from scheduler.cli import client, plain
from scheduler.cli.client import Api

WAIT_S = 0.9
"""A shell waits for this with every key: later there is nothing to complete."""
SHOWN = 200
SPECS = 100
"""Of a page."""

TASK_STATUSES = ("active", "paused", "disabled")
TASK_STATES = ("created", "pending", "running", "completed", "failed")
LIVE_STATES = ("scheduled", "running", "retrying")
END_STATES = ("succeeded", "failed", "skipped", "expired", "cancelled")
RUN_KINDS = ("task", "manual", "process", "spec")

Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


class _Named(msgspec.Struct):
    id: str
    name: str = ""


class _Spec(msgspec.Struct):
    name: str
    trace_id: str


class _Specs(msgspec.Struct):
    results: list[_Spec]


def task_ids(ctx: click.Context, _param: click.Parameter, begin: str) -> list[CompletionItem]:
    """Return ids of tasks that begin so; nothing where the API does not answer at once."""
    return _looked(ctx, begin, _tasks)


def spec_names(ctx: click.Context, _param: click.Parameter, begin: str) -> list[CompletionItem]:
    """Return names of specs that begin so, in any case; nothing likewise."""
    return _looked(ctx, begin.lower(), _specs)


def _looked(
    ctx: click.Context, begin: str, known: Callable[[Api], Iterator[CompletionItem]]
) -> list[CompletionItem]:
    found: list[CompletionItem] = []

    def look() -> None:
        given = ctx.params
        with contextlib.suppress(Exception, SystemExit):
            file = ctx.find_root().params.get("file")
            at = client.find(file, given.get("server"), given.get("service_id"), given.get("token"))
            with Api(at) as api:
                fit = [each for each in known(api) if each.value.startswith(begin)]
            found.extend(fit[:SHOWN])

    # A daemon: one that hangs is left behind.
    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    looking.join(WAIT_S)
    return list(found)


def _tasks(api: Api) -> Iterator[CompletionItem]:
    answer = api.ask("GET", "/tasks", params={"count": client.PAGE}, wait_s=WAIT_S)
    for each in msgspec.json.decode(answer.content, type=list[_Named]):
        yield CompletionItem(each.id, help=plain.word(each.name))


def _specs(api: Api) -> Iterator[CompletionItem]:
    answer = api.ask("GET", f"/v1/api/spec/0/{SPECS}", wait_s=WAIT_S)
    for each in msgspec.json.decode(answer.content, type=_Specs).results:
        yield CompletionItem(each.name, help=each.trace_id)


def words(*known: str) -> Completer:
    """Complete one of some words."""

    def complete(_ctx: Any, _param: Any, begin: str) -> list[CompletionItem]:
        return [CompletionItem(word) for word in known if word.startswith(begin)]

    return complete


def listed(*known: str) -> Completer:
    """Complete the last of several words with commas between them."""

    def complete(_ctx: Any, _param: Any, begin: str) -> list[CompletionItem]:
        before, comma, last = begin.rpartition(",")
        there = before.split(",")
        fit = [word for word in known if word.startswith(last) and word not in there]
        return [CompletionItem(before + comma + word) for word in fit]

    return complete
