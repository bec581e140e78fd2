"""The page of a task as text: to be pasted into a shell, or anywhere."""

import json
from typing import Any

import msgspec
from litestar import Request, Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath

from scheduler import task
from scheduler.actions import Command, Http
from scheduler.dashboard import caller, page
from scheduler.dashboard.door import Visitor
from scheduler.dashboard.editor import copying
from scheduler.engine import Engine
from scheduler.masking import MASK


class Text(msgspec.Struct, frozen=True):
    """A text to be copied."""

    name: str
    title: str
    text: str
    hint: str

    @property
    def packed(self) -> str:
        """The text for the script, as JSON in ASCII: on the page nothing unseen is in it."""
        return json.dumps(self.text)


@get("/dashboard/tasks/{task_id:str}/copy", include_in_schema=False)
async def show_copies(
    task_id: FromPath[str],
    request: Request[Any, Any, Any],
    visitor: NamedDependency[Visitor],
    engine: NamedDependency[Engine],
) -> Response[Any]:
    """Return a task as curl commands, as a line of the CLI, and as JSON; secrets masked."""
    now = engine.clock.now_ms()
    async with engine.database.api.connect() as conn:
        of = await task.get(conn, visitor.service.id, task_id)
    made = copying.body(of, now)
    url = caller.asked_at(request, engine.settings)
    texts = [
        Text("line", "Command line", copying.as_line(made), "Makes this task on another server."),
        Text(
            "request",
            "curl to the API",
            copying.as_request(made, url, str(visitor.service.id)),
            "Makes this task; put a token in.",
        ),
        Text("json", "JSON", copying.as_json(made), "The body of POST /tasks."),
    ]
    if isinstance(of.action, Http):
        call = copying.as_call(of.action, of.policy.timeout_seconds)
        texts.insert(0, Text("call", "The call as curl", call, "What the task's target receives."))
    elif isinstance(of.action, Command):
        texts.insert(0, Text("command", "The command", of.action.command, "What sh is given."))
    return await page.large(
        "copies.html",
        visitor=visitor,
        of=of,
        texts=texts,
        masked=any(MASK in each.text for each in texts),
    )
