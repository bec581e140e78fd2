"""NOTIFY between replicas: a hint that spares a wait. Polling alone must be, and is, enough.

Hints go out after the commit they tell of, gathered to one statement in 5 ms, and not at all
while this replica is alone.
"""

import asyncio
import contextlib
import secrets
from collections.abc import Callable
from uuid import UUID

import asyncpg
import structlog
from sqlalchemy import text

from scheduler import db
from scheduler.db import Database

log = structlog.get_logger()

CHANNEL = "scheduler"
GATHER_S = 0.005
RECONNECT_MOST_S = 5.0

NOTIFY = text(f"SELECT pg_notify('{CHANNEL}', p) FROM unnest(CAST(:payloads AS text[])) AS p")


class Signals:
    """Sends and hears hints.

    `on_wake(due_ms)` is called when a run may be due soon, `on_recall(task_key)` when held runs of
    a task may be stale, `on_calendars(service_id)` when those of a service's tasks may be that name
    calendars, `on_cancel(run_id)` when someone wants a run to end.
    """

    def __init__(
        self,
        database: Database,
        *,
        alone: Callable[[], bool],
        on_wake: Callable[[int], None],
        on_recall: Callable[[UUID], None],
        on_calendars: Callable[[UUID], None],
        on_cancel: Callable[[UUID], object],
    ) -> None:
        self._database = database
        self._alone = alone
        self._on_wake = on_wake
        self._on_recall = on_recall
        self._on_calendars = on_calendars
        self._on_cancel = on_cancel
        self._name = secrets.token_hex(4)
        self._out: set[str] = set()
        self._sending: asyncio.Task[None] | None = None
        self.listening = asyncio.Event()

    def wake(self, due_ms: int) -> None:
        """Tell the others that a run falls due at `due_ms`."""
        self._send(f"{self._name} wake {due_ms}")

    def recall(self, task_key: UUID) -> None:
        """Tell the others that a task's held runs may be stale."""
        self._send(f"{self._name} recall {task_key}")

    def calendars(self, service_id: UUID) -> None:
        """Tell the others that a calendar of a service was edited."""
        self._send(f"{self._name} calendars {service_id}")

    def cancel(self, run_id: UUID) -> None:
        """Tell the others that a run is to end."""
        self._send(f"{self._name} cancel {run_id}")

    def _send(self, payload: str) -> None:
        if self._alone():
            return
        self._out.add(payload)
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._flush())

    async def _flush(self) -> None:
        while self._out:
            await asyncio.sleep(GATHER_S)
            payloads, self._out = list(self._out), set()
            try:
                async with self._database.auto.connect() as conn:
                    await conn.execute(NOTIFY, {"payloads": payloads})
            except Exception as e:  # noqa: BLE001  (a hint: the others poll)
                log.info("hint not sent", error=str(e))

    async def listen(self) -> None:
        """Hear hints until cancelled; reconnect whenever the connection is lost.

        Behind a pooler, without a way past it, there is nothing to hear: the polls do.
        """
        if self._database.direct is None:
            log.info("no hints from other replicas: database.listen_url is not set")
            return
        wait = 0.1
        while True:
            try:
                await self._listen_once()
                wait = 0.1
            except Exception as e:
                if not db.is_away(e):
                    raise
                log.info("listening connection lost", error=str(e) or type(e).__name__)
            self.listening.clear()
            await asyncio.sleep(wait)
            wait = min(wait * 2, RECONNECT_MOST_S)

    async def _listen_once(self) -> None:
        conn = await self._database.connect("listener", self._database.direct)
        lost = asyncio.Event()
        conn.add_termination_listener(lambda _conn: lost.set())
        try:
            await conn.add_listener(CHANNEL, self._hear)
            self.listening.set()
            self._on_wake(0)  # whatever was said while nobody listened
            await lost.wait()
        finally:
            with contextlib.suppress(Exception):
                conn.terminate()

    def _hear(self, _conn: asyncpg.Connection, _pid: int, _channel: str, payload: object) -> None:
        sender, _, hint = str(payload).partition(" ")
        if sender == self._name:
            return
        kind, _, value = hint.partition(" ")
        if kind == "wake" and value.isdecimal():
            self._on_wake(int(value))
        elif kind == "recall":
            with contextlib.suppress(ValueError):
                self._on_recall(UUID(value))
        elif kind == "calendars":
            with contextlib.suppress(ValueError):
                self._on_calendars(UUID(value))
        elif kind == "cancel":
            with contextlib.suppress(ValueError):
                self._on_cancel(UUID(value))
