"""What is going on, at a glance."""

from typing import Any

from litestar import Response, get
from litestar.di import NamedDependency

from scheduler.dashboard import page
from scheduler.dashboard.door import Visitor

Who = NamedDependency[Visitor]


@get(["/", "/dashboard"], include_in_schema=False)
async def show_overview(visitor: Who) -> Response[Any]:
    """Return the page."""
    return page.answer("overview.html", visitor=visitor)
