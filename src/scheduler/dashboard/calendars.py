"""The calendars of a service."""

from typing import Any

from litestar import Response, get
from litestar.di import NamedDependency

from scheduler.dashboard import page
from scheduler.dashboard.door import Visitor

Who = NamedDependency[Visitor]


@get("/dashboard/calendars", include_in_schema=False)
async def show_calendars(visitor: Who) -> Response[Any]:
    """Return the page."""
    return page.answer("calendars.html", visitor=visitor)
