"""The installation: replicas, the database, the queue."""

from typing import Any

from litestar import Response, get
from litestar.di import NamedDependency

from scheduler.dashboard import page
from scheduler.dashboard.door import Visitor

Who = NamedDependency[Visitor]


@get("/dashboard/system", include_in_schema=False)
async def show_system(visitor: Who) -> Response[Any]:
    """Return the page."""
    return page.answer("system.html", visitor=visitor)
