"""The hub: one look a second for every page that is open, sent to browsers as it happens.

While nobody watches nothing is asked. A page that is open costs no statement: a look is one for all
watched services, its markup is made once for each, and every stream of it gets the same bytes
(Server-sent events: HTML Living Standard, 9.2).
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any
from uuid import UUID

import msgspec
import structlog
from litestar import Request, Response, get
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.response import Stream

from scheduler import db, metrics
from scheduler.dashboard import caller, door, look, page, sessions, touched
from scheduler.dashboard.door import Stranger
from scheduler.engine import Engine
from scheduler.errors import InvalidRequest
from scheduler.watch import Memory

log = structlog.get_logger()

LOOK_S = 1.0
TOUCH_S = 2.0
"""How often it is asked what somebody did to tasks."""
LATE_S, LATE_SHARE = 5.0, 0.02
"""How often it is asked what ended long after it was due; and the share of time that may take."""
BEAT_S = 5.0
"""How often pages are told that all is well, and sessions are looked at again."""
MOST = 100
"""Streams of one service on this process."""
MOST_IN_ALL = 1000
WAITING_MOST = 1 << 20
"""Bytes that wait for a slow reader; then it is let go, and begins anew."""
GRACE_S = 0.5
"""How long the last message of a stream may take."""
KEPT = 5
"""Messages that a page gets which has just come: what it shows is a moment old."""
EVENTS = "text/event-stream"

AnyRequest = Request[Any, Any, Any]
Slots = dict[str, str]
"""Markup, by the name of the slot it belongs in."""


class Contributor(msgspec.Struct, frozen=True):
    """What a page adds to the stream of a service that is watched, every so often.

    `slots` gets the engine, the service's id and the time (ms); `seconds` is 2 at least. The names
    of its slots begin with `part` and a colon: who has a page open that has such is told.
    """

    part: str
    slots: Callable[[Engine, UUID, int], Awaitable[Slots]]
    seconds: float


class Watch(msgspec.Struct):
    """A service that somebody watches."""

    memory: Memory = msgspec.field(default_factory=Memory)
    streams: list["Watcher"] = []
    tasks: touched.Memory = msgspec.field(default_factory=touched.Memory)
    said: dict[str, Slots] = {}
    """What each part that somebody has open said last."""
    due: dict[str, float] = {}
    """When each is asked again, on the loop's clock."""
    recent: deque[bytes] = msgspec.field(default_factory=lambda: deque(maxlen=KEPT))

    @property
    def parts(self) -> set[str]:
        """The parts that somebody has open."""
        return {part for stream in self.streams for part in stream.parts}

    def tell(self, message: bytes) -> None:
        """Send what is new, and keep it for who comes next."""
        self.recent.append(message)
        if message:
            self.send(message)

    def send(self, message: bytes, part: str | None = None) -> None:
        """Send something to every stream, or to those that want a part."""
        for stream in list(self.streams):
            if part is None or part in stream.parts:
                stream.put(message)


class Watcher:
    """One open page. `abort` cuts its connection: at the other end nobody may be reading."""

    def __init__(
        self,
        service_id: UUID,
        session: bytes,
        abort: Callable[[], None],
        parts: frozenset[str] = frozenset(),
    ) -> None:
        self.service_id = service_id
        self.session = session
        self.parts = parts
        self._abort = abort
        self._waiting: list[bytes] = []
        self._bytes = 0
        self._something = asyncio.Event()
        self._over = False

    def put(self, message: bytes) -> None:
        """Have something sent; who reads too slowly is let go."""
        if self._over:
            return
        self._waiting.append(message)
        self._bytes += len(message)
        self._something.set()
        if self._bytes > WAITING_MOST:
            self._waiting.clear()
            self.end(over("slow", "This page read too slowly."))

    def end(self, message: bytes) -> None:
        """End the stream with a last message; one that does not take it is cut."""
        if self._over:
            return
        self._waiting.append(message)
        self._over = True
        self._something.set()
        asyncio.get_running_loop().call_later(GRACE_S, self._abort)

    async def messages(self) -> AsyncIterator[bytes]:
        """Yield what is to be sent, until the stream is over."""
        while not self._over or self._waiting:
            await self._something.wait()
            self._something.clear()
            pieces, self._waiting, self._bytes = self._waiting, [], 0
            yield b"".join(pieces)


def event(name: str, content: object) -> bytes:
    """Return a message as it is sent."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), msgspec.json.encode(content))


def over(why: str, said: str) -> bytes:
    """Return the last message of a stream: `why` is for the script, `said` for who reads it."""
    return event("over", {"why": why, "said": said})


def _looked(found: look.Look | None) -> bytes:
    return b"" if found is None else event("slots", found.slots) + event("rows", found.rows)


def _touched(found: touched.News | None) -> bytes:
    if found is None:
        return b""
    new = event("tasks", found.new) if found.new else b""
    return event("slots", found.slots) + new + (event("cut", None) if found.cut else b"")


SIGNED_OUT = over("session", "You are signed out.")
STOPPED = over("stop", "The server is being stopped.")
TOO_MANY = over("many", f"This service has {MOST} pages open here: this one is not live.")


class Hub:
    """Looks for everyone who watches through this process."""

    def __init__(self, contributors: Sequence[Contributor] = ()) -> None:
        self._contributors = {each.part: each for each in contributors}
        self._watched: dict[UUID, Watch] = {}
        self._running: asyncio.Task[None] | None = None
        self._looked = 0
        """When all was last seen (ms)."""
        self._touched = self._late = 0
        """When it was last seen what was done to tasks, and what ended late (ms)."""
        self._late_due = 0.0

    @property
    def count(self) -> int:
        """How many pages are open."""
        return sum(len(of.streams) for of in self._watched.values())

    @contextlib.contextmanager
    def watching(self, engine: Engine, watcher: Watcher) -> Any:
        """Send a page what becomes known, until the block ends."""
        of = self._watched.setdefault(watcher.service_id, Watch())
        of.streams.append(watcher)
        if self._running is None or self._running.done():
            self._looked = self._touched = self._late = engine.clock.now_ms()
            self._running = asyncio.create_task(self._run(engine), name="live")
        said = (of.said.get(part, {}) for part in watcher.parts)
        known = {name: text for each in said for name, text in each.items()}
        told = [event("slots", known)] if known else []
        watcher.put(b"".join([b"retry: 2000\n\n", self._beat(engine), *told, *of.recent]))
        try:
            yield
        finally:
            of.streams.remove(watcher)
            if not of.streams:
                self._watched.pop(watcher.service_id, None)
            if not self._watched and self._running is not None:
                self._running.cancel()
                self._running = None

    def parts(self, sent: str) -> frozenset[str]:
        """Return the parts that a page asks for, by their names with commas between."""
        return frozenset(sent.split(",")) & self._contributors.keys()

    def full(self, service_id: UUID) -> bool:
        """Say whether a service, or everybody together, has as many pages open as may be."""
        of = self._watched.get(service_id)
        return (of is not None and len(of.streams) >= MOST) or self.count >= MOST_IN_ALL

    def _beat(self, engine: Engine) -> bytes:
        return event("beat", {"now": engine.clock.now_ms(), "looked": self._looked})

    # Work ----------------------------------------------------------------------------------------

    async def _run(self, engine: Engine) -> None:
        chores = [
            asyncio.create_task(self._every(LOOK_S, self._look, engine)),
            asyncio.create_task(self._every(TOUCH_S, self._look_at_tasks, engine)),
            asyncio.create_task(self._every(LATE_S, self._look_late, engine)),
            asyncio.create_task(self._every(BEAT_S, self._look_at_sessions, engine)),
            asyncio.create_task(self._every(BEAT_S, self._send_beats, engine)),
            asyncio.create_task(self._every(LOOK_S, self._ask, engine)),
        ]
        try:
            await engine.stopping.wait()
            for of in list(self._watched.values()):
                for stream in list(of.streams):
                    stream.end(STOPPED)
        finally:
            for chore in chores:
                chore.cancel()

    async def _every(
        self, seconds: float, work: Callable[[Engine], Awaitable[None]], engine: Engine
    ) -> None:
        """Do something every so often; what cannot be done now is done the next time."""
        loop = asyncio.get_running_loop()
        at = loop.time()
        while True:
            try:
                await work(engine)
            except Exception as e:
                if not db.is_away(e):
                    metrics.ERRORS.labels("live").inc()
                    log.exception("open pages could not be told what is new")
            at = max(at + seconds, loop.time() + seconds / 2)
            await asyncio.sleep(at - loop.time())

    async def _look(self, engine: Engine) -> None:
        now = engine.clock.now_ms()
        memories = {service_id: of.memory for service_id, of in self._watched.items()}
        async with engine.database.api.connect() as conn:
            found = await look.look(conn, memories, now, self._looked)
        self._looked = now
        for service_id, of in self._watched.items():
            if service_id in memories:
                of.tell(_looked(found.get(service_id)))

    async def _look_at_tasks(self, engine: Engine) -> None:
        now = engine.clock.now_ms()
        memories = {service_id: of.tasks for service_id, of in self._watched.items()}
        async with engine.database.api.connect() as conn:
            found = await touched.hear(conn, memories, now, self._touched)
        self._touched = now
        for service_id, of in self._watched.items():
            if service_id in found:
                of.tell(_touched(found[service_id]))

    async def _look_late(self, engine: Engine) -> None:
        clock = asyncio.get_running_loop().time
        began = clock()
        if began < self._late_due:
            return
        now = engine.clock.now_ms()
        memories = {service_id: of.memory for service_id, of in self._watched.items()}
        async with engine.database.api.connect() as conn:
            found = await look.late(conn, memories, now, self._late)
        self._late, self._late_due = now, began + (clock() - began) / LATE_SHARE
        for service_id, of in self._watched.items():
            if service_id in found:
                of.tell(_looked(found[service_id]))

    async def _send_beats(self, engine: Engine) -> None:
        beat = self._beat(engine)
        for of in list(self._watched.values()):
            of.send(beat)

    async def _look_at_sessions(self, engine: Engine) -> None:
        """End the streams of sessions that have ended, or whose token was revoked."""
        streams = [stream for of in self._watched.values() for stream in of.streams]
        async with engine.database.api.connect() as conn:
            there = await sessions.still_open(
                conn,
                list({stream.service_id for stream in streams}),
                list({stream.session for stream in streams}),
            )
        for stream in streams:
            if (stream.service_id, stream.session) not in there:
                stream.end(SIGNED_OUT)

    async def _ask(self, engine: Engine) -> None:
        """Ask the contributors that are due, and send what they say otherwise than before."""
        clock = asyncio.get_running_loop().time
        for service_id, of in list(self._watched.items()):
            wanted = of.parts
            for part in self._contributors.keys() - wanted:
                of.said.pop(part, None)
                of.due.pop(part, None)
            for part in wanted:
                if of.due.get(part, 0.0) > clock():
                    continue
                of.due[part] = clock() + self._contributors[part].seconds
                said = await self._contributors[part].slots(
                    engine, service_id, engine.clock.now_ms()
                )
                before = of.said.get(part, {})
                of.said[part] = said
                new = {name: text for name, text in said.items() if before.get(name) != text}
                if new:
                    of.send(event("slots", new), part)


# The route ---------------------------------------------------------------------------------------


@get("/dashboard/live", include_in_schema=False)
async def watch_live(
    request: AnyRequest, state: State, hub: NamedDependency[Hub], engine: NamedDependency[Engine]
) -> Response[Any]:
    """Send a page what changes; a stranger is told that this is none, and to come no more."""
    if EVENTS not in request.headers.get("accept", ""):
        raise InvalidRequest(f"these are events for open pages: send Accept: {EVENTS}")
    headers = {**page.HEADERS, "X-Accel-Buffering": "no", "Connection": "close"}
    try:
        visitor = await door.visitor(request, state)
    except Stranger:
        return Response(SIGNED_OUT, headers=headers, media_type=EVENTS)
    session = sessions.digest(visitor.cookie)
    parts = hub.parts(request.query_params.get("parts", ""))
    watcher = Watcher(visitor.service.id, session, caller.cutting(request), parts)
    return Stream(_stream(hub, engine, watcher), headers=headers, media_type=EVENTS)


async def _stream(hub: Hub, engine: Engine, watcher: Watcher) -> AsyncIterator[bytes]:
    if engine.stopping.is_set():
        yield STOPPED
    elif hub.full(watcher.service_id):
        yield TOO_MANY
    else:
        with hub.watching(engine, watcher):
            async for message in watcher.messages():
                yield message
