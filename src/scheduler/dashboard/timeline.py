"""The past week and the coming one, hour by hour."""

from typing import Any

from litestar import Response, get
from litestar.di import NamedDependency

from scheduler.dashboard import page
from scheduler.dashboard.door import Visitor

Who = NamedDependency[Visitor]


@get("/dashboard/timeline", include_in_schema=False)
async def show_timeline(visitor: Who) -> Response[Any]:
    """Return the page."""
    return page.answer("timeline.html", visitor=visitor)
