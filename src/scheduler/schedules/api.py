"""`/api/schedules`: schedules and their events."""

from litestar import Router

router = Router("/api/schedules", route_handlers=[])
