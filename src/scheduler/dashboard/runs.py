"""The runs of a service: filters, live tail, and export."""

from typing import Any

from litestar import Response, get
from litestar.di import NamedDependency

from scheduler.dashboard import page
from scheduler.dashboard.door import Visitor

Who = NamedDependency[Visitor]


@get("/dashboard/runs", include_in_schema=False)
async def show_runs(visitor: Who) -> Response[Any]:
    """Return the page."""
    return page.answer("runs.html", visitor=visitor)
