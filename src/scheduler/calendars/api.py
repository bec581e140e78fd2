"""`/calendars`: the calendars that tasks keep clear of."""

from litestar import Router

router = Router("/calendars", route_handlers=[])
