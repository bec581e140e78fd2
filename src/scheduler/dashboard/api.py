"""`/` and `/dashboard`: the pages, who may see them, and what they say where something is wrong."""

from collections.abc import Callable
from typing import Any

from litestar import Request, Response, Router, get
from litestar.datastructures import State
from litestar.di import NamedDependency, Provide

from scheduler.dashboard import door, page, static
from scheduler.dashboard.admin import admin, admin_door
from scheduler.dashboard.admin.admin_door import AdminWanted
from scheduler.dashboard.apis import apis, registering, trying
from scheduler.dashboard.calendars import calendars
from scheduler.dashboard.door import OnlyShown, Stale, Stranger, Visitor
from scheduler.dashboard.editor import editor
from scheduler.dashboard.editor.trials import Trials
from scheduler.dashboard.live import Contributor, Hub, watch_live
from scheduler.dashboard.overview.overview import LIVE, show_overview
from scheduler.dashboard.runs.run import act_on_run, send_body, show_process, show_run
from scheduler.dashboard.runs.runs import show_runs
from scheduler.dashboard.runs.runs_export import Exports, export_runs
from scheduler.dashboard.system import changes, settings, system
from scheduler.dashboard.tasks import bulk, task_asked
from scheduler.dashboard.tasks.task import act_on_task, show_task
from scheduler.dashboard.tasks.tasks import show_tasks
from scheduler.dashboard.timeline.timeline import show_timeline
from scheduler.dashboard.tries import Tries
from scheduler.engine import Engine
from scheduler.errors import UserError
from scheduler.specs.performer import OperationPerformer

CONTRIBUTORS = [
    *LIVE,
    Contributor("spec", apis.slots, apis.SECONDS),
    Contributor("system", system.slots, system.SECONDS),
]
"""What pages add to the stream of a service that somebody watches."""

AnyRequest = Request[Any, Any, Any]
Explained = Callable[[AnyRequest, Exception], UserError | None]
"""What an error means for the caller; None, and a line in the log, where the fault is ours."""

TITLES = {
    400: "That does not work",
    403: "Not from here",
    404: "Nothing here",
    405: "Not like this",
    409: "Not now",
    413: "Too large",
    429: "Too often",
    503: "The database is away",
}


@get("/dashboard/{rest:path}", include_in_schema=False)
async def show_nothing(visitor: NamedDependency[Visitor]) -> Response[Any]:
    """Say that there is no such page."""
    said = "There is no such page."
    return page.answer("error.html", status=404, title=TITLES[404], said=said, visitor=visitor)


def _engine(state: State) -> Engine:
    found: Engine = state.engine
    return found


def _operations(state: State) -> OperationPerformer:
    found: OperationPerformer = state.rooms.operations
    return found


def _kept(name: str, make: Callable[[], Any]) -> Provide:
    """Return what provides a thing that the process keeps from its start to its stop."""

    def kept(request: AnyRequest) -> Any:
        state = request.app.state
        if name not in state:
            state[name] = make()
        return state[name]

    return Provide(kept, sync_to_thread=False)


def _answering(explained: Explained) -> Callable[[AnyRequest, Exception], Response[Any]]:
    """Return what answers an error with a page."""

    def answer_error(request: AnyRequest, error: Exception) -> Response[Any]:
        refused = explained(request, error)
        status = 500 if refused is None else refused.status
        headers = {}
        if refused is not None and refused.retry_after is not None:
            headers["Retry-After"] = str(refused.retry_after)
        return page.answer(
            "error.html",
            status=status,
            headers=headers,
            title=TITLES.get(status, "Something went wrong here"),
            said=refused.message if refused else "The log knows more.",
            visitor=getattr(request.state, "visitor", None),
        )

    return answer_error


HANDLERS: list[Any] = [
    show_overview,
    show_tasks,
    *bulk.HANDLERS,
    show_task,
    act_on_task,
    *editor.HANDLERS,
    *task_asked.HANDLERS,
    show_runs,
    export_runs,
    show_run,
    send_body,
    act_on_run,
    show_process,
    show_timeline,
    *apis.HANDLERS,
    *registering.HANDLERS,
    *trying.HANDLERS,
    *calendars.HANDLERS,
    *system.HANDLERS,
    *settings.HANDLERS,
    *changes.HANDLERS,
    *admin.HANDLERS,
    watch_live,
    show_nothing,
    door.show_sign_in,
    door.sign_in,
    door.sign_out,
    static.send_file,
]


def router(explained: Explained) -> Router:
    """Return the pages; what goes wrong on them is a page, too."""
    return Router(
        "/",
        route_handlers=HANDLERS,
        dependencies={
            "visitor": Provide(door.visitor),
            "admin": Provide(admin_door.admin),
            "engine": Provide(_engine, sync_to_thread=False),
            "operations": Provide(_operations, sync_to_thread=False),
            "failures": _kept("failures", Tries),
            "exports": _kept("exports", Exports),
            "trials": _kept("trials", Trials),
            "hub": _kept("hub", lambda: Hub(CONTRIBUTORS)),
        },
        exception_handlers={
            Stranger: door.turn_away,
            Stale: door.show_again,
            OnlyShown: door.lead_back,
            AdminWanted: admin_door.turn_away,
            Exception: _answering(explained),
        },
        request_max_body_size=door.FORM_MOST,
        include_in_schema=False,
    )
