"""Pages that are open: what they cost the runs, and what a thousand of them cost the process."""

import asyncio
import re
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from statistics import mean
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import psutil

from bench import burst, pages, store
from bench.machine import Meter, rss_mb, spread
from bench.product import Product
from bench.sink import Sink
from scheduler import services

OPEN = 20
EACH = 100
"""Streams that a service may have open here."""
QUIET_S = 10.0
SETTLE_S = 3.0
ENDS = 5
FIRST_S = 60.0
OVERLAP = 2000


class Page:
    """An open page, as far as the server knows: it reads what comes, and looks for words."""

    def __init__(self) -> None:
        self.bytes = 0
        self.ended = False
        """Whether the server ended the stream, with its last message."""
        self.seen_at = 0.0
        """When the words came, in seconds since 1970; 0 for not yet."""
        self._words: re.Pattern[bytes] | None = None

    def expect(self, words: str) -> None:
        """Look for words from now on."""
        self._words, self.seen_at = re.compile(words.encode(), re.DOTALL), 0.0

    async def listen(self, url: str, cookies: str) -> None:
        """Read until the server ends the stream."""
        at = urlsplit(url)
        reader, writer = await asyncio.open_connection(at.hostname, at.port)
        head = f"GET /dashboard/live HTTP/1.1\r\nHost: {at.netloc}\r\nCookie: {cookies}\r\n"
        writer.write(f"{head}Accept: text/event-stream\r\n\r\n".encode())
        text = b""
        while piece := await reader.read(1 << 16):
            self.bytes += len(piece)
            text = text[-OVERLAP:] + piece
            if self._words is not None and self._words.search(text):
                self._words, self.seen_at = None, time.time()
        self.ended = b"event: over" in text and text.endswith(b"\r\n0\r\n\r\n")
        writer.close()


@asynccontextmanager
async def opened(product: Product, cookies: str, count: int) -> AsyncIterator[list[Page]]:
    """Hold pages open, and know that each has heard something."""
    found = [Page() for _ in range(count)]
    listening = [asyncio.create_task(page.listen(product.url, cookies)) for page in found]
    try:
        until = time.monotonic() + FIRST_S
        while not all(page.bytes > 500 for page in found):
            if time.monotonic() > until or any(each.done() for each in listening):
                raise RuntimeError("a page was not let in")
            await asyncio.sleep(0.05)
        yield found
    finally:
        for each in listening:
            each.cancel()
        await asyncio.gather(*listening, return_exceptions=True)


async def cookies_of(product: Product, service: dict[str, str] | None = None) -> str:
    """Sign in, as a service or as the benchmark's; return the header."""
    jar = await pages.signed_in(product, service)
    return "; ".join(f"{cookie.key}={cookie.value}" for cookie in jar)


async def watched(product: Product, sink: Sink, calls: int) -> dict[str, Any]:
    """Fire bursts with 20 open pages and without, in turns; return the ratios."""
    cookies = await cookies_of(product)
    with_pages, without = [], []
    for _ in range(2):
        without.append(await burst.burst(product, sink, calls))
        async with opened(product, cookies, OPEN) as found:
            with_pages.append(await burst.burst(product, sink, calls))
            heard = round(mean(page.bytes for page in found))
    return {
        "n": calls,
        "open": OPEN,
        "heard_bytes": heard,
        "with": [_short(each) for each in with_pages],
        "without": [_short(each) for each in without],
        "of_plain": {
            "per_s": _ratio(with_pages, without, "per_s"),
            "lag_p50": _ratio(with_pages, without, "lag_ms", "p50"),
            "lag_p99": _ratio(with_pages, without, "lag_ms", "p99"),
            "cpu": _ratio(with_pages, without, "cpu_us", "ours"),
            "postgres": _ratio(with_pages, without, "cpu_us", "postgres"),
        },
        "lost": sum(each["lost"] for each in with_pages + without),
        "doubled": sum(each["doubled"] for each in with_pages + without),
    }


def _short(figures: dict[str, Any]) -> dict[str, Any]:
    return {name: figures[name] for name in ("per_s", "lag_ms", "cpu_us", "noise_cores")}


def _ratio(over: list[dict[str, Any]], under: list[dict[str, Any]], *path: str) -> float:
    def at(figures: Any) -> float:
        for name in path:
            figures = figures[name]
        return float(figures)

    return round(mean(map(at, over)) / mean(map(at, under)), 2)


async def streams(product: Product, sink: Sink, count: int) -> dict[str, Any]:
    """Hold many streams open; return what they cost, how soon they hear, and how soon they end."""
    others = [await _service(product) for _ in range((count - 1) // EACH)]
    cookies = [await cookies_of(product, service) for service in (None, *others)]
    before = rss_mb(product.pid)
    quiet = await _quiet(product, sink)
    async with _all(product, cookies, count) as found:
        await asyncio.sleep(SETTLE_S)
        figures: dict[str, Any] = {
            "n": count,
            "services": len(cookies),
            "kb_each": round((rss_mb(product.pid) - before) * 1024 / count, 1),
            "cpu_s_per_minute": {"none": quiet, "open": await _quiet(product, sink)},
            "end_to_last_ms": spread([await _heard(product, sink, found) for _ in range(ENDS)]),
        }
        figures["noise_cores"] = figures["cpu_s_per_minute"]["open"].pop("noise_cores")
        quiet.pop("noise_cores")
        began = time.perf_counter()
        psutil.Process(product.pid).send_signal(signal.SIGTERM)
        await product.ended()
        figures["stopped_s"] = round(time.perf_counter() - began, 2)
        figures["cut"] = sum(not page.ended for page in found)
    return figures


@asynccontextmanager
async def _all(product: Product, cookies: list[str], count: int) -> AsyncIterator[list[Page]]:
    async with AsyncExitStack() as stack:
        found: list[Page] = []
        for number, each in enumerate(cookies):
            some = min(EACH, count - number * EACH)
            found += await stack.enter_async_context(opened(product, each, some))
        yield found


async def _service(product: Product) -> dict[str, str]:
    """Write another service with a token; return its credentials."""
    service, token = await store.another_service(product.db), uuid4().hex
    await product.db.execute(
        "INSERT INTO token (id, service_id, hash, created_at) VALUES ($1, $2, $3, now())",
        uuid4(),
        service,
        services.digest(token),
    )
    return {"service_id": str(service), "token": token}


async def _quiet(product: Product, sink: Sink) -> dict[str, float]:
    """Return the CPU seconds a minute while nothing happens."""
    meter = Meter(product.pid, product.postmaster, product.backend, [sink.process.pid])
    before = meter.read()
    await asyncio.sleep(QUIET_S)
    used = meter.read().since(before)
    minute = 60 / used.at
    return {
        "ours": round(used.ours * minute, 2),
        "postgres": round(used.postgres * minute, 2),
        "noise_cores": used.noise_cores,
    }


async def _heard(product: Product, sink: Sink, found: list[Page]) -> float:
    """Run a task; return the seconds from its arrival, which ends it, to the last page's word.

    The pages are of one service: the others hear nothing of it.
    """
    await sink.ask("reset")
    body = {"name": "heard", "url": f"{sink.url}/r/0", "scheduled_at": "2099-01-01T00:00:00Z"}
    task = (await product.call("POST", "/tasks", body))["id"]
    run = (await product.call("POST", f"/tasks/{task}/execute?async=true"))["id"]
    mine = found[:EACH]
    for page in mine:
        page.expect(f'run:{run}:state":.{{0,600}}?succeeded')
    async with asyncio.timeout(FIRST_S):
        while not all(page.seen_at for page in mine):
            await asyncio.sleep(0.05)
    [(_, arrived)] = await sink.arrivals()
    return max(page.seen_at for page in mine) - arrived
