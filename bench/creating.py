"""Tasks a second through the API: one a request, and in bulk where there is such a route."""

import asyncio
import json
import time
from typing import Any

from bench import store
from bench.machine import Meter, Usage, spread
from bench.product import Product
from bench.sink import Sink

CONCURRENCY = 16
PROBE_S = 0.002
BULK = "/tasks/bulk"


async def creating(product: Product, sink: Sink, singly: int, in_bulk: int) -> dict[str, Any]:
    """Create tasks that are due in a month."""
    meter = Meter(product.pid, product.postmaster, product.backend, [sink.process.pid])
    body = {
        "name": "a task",
        "url": f"{sink.url}/r/0",
        "payload": store.PAYLOAD,
        "scheduled_at": store.instant(int(time.time() + 30 * 86_400) * 1000).isoformat(),
    }
    await _singly(product, body, CONCURRENCY)
    before = meter.read()
    lags = await _singly(product, body, singly)
    used = meter.read().since(before)
    return {
        "n": singly,
        **_rate(used, singly),
        "answer_ms": spread(lags),
        "concurrency": CONCURRENCY,
        "bulk": await _in_bulk(product, meter, body, in_bulk),
        "noise_cores": used.noise_cores,
    }


def _rate(used: Usage, tasks: int) -> dict[str, Any]:
    cpu = {"ours": used.ours / tasks * 1e6, "postgres": used.postgres / tasks * 1e6}
    return {
        "per_s": round(tasks / used.at),
        "cpu_us": {who: round(value, 1) for who, value in cpu.items()},
    }


async def _singly(product: Product, body: dict[str, Any], tasks: int) -> list[float]:
    numbers = iter(range(tasks))
    lags: list[float] = []

    async def work() -> None:
        for _ in numbers:
            began = time.perf_counter()
            await product.call("POST", "/tasks", body)
            lags.append(time.perf_counter() - began)

    await asyncio.gather(*(work() for _ in range(CONCURRENCY)))
    return lags


async def _in_bulk(
    product: Product, meter: Meter, body: dict[str, Any], tasks: int
) -> dict[str, Any] | None:
    """Send one array; meanwhile ask for /health, to see how long the loop is held."""
    sent = json.dumps([body] * tasks).encode()
    headers = {"Content-Type": "application/json"}
    quiet = await _probe(product, asyncio.create_task(asyncio.sleep(0.5)))
    before = meter.read()
    request = asyncio.create_task(_send(product, sent, headers))
    held = await _probe(product, request)
    used = meter.read().since(before)
    if (await request) not in (200, 201):
        return None
    return {
        "n": tasks,
        **_rate(used, tasks),
        "health_ms": spread(held),
        "quiet_health_ms": spread(quiet),
    }


async def _send(product: Product, sent: bytes, headers: dict[str, str]) -> int:
    async with product.http.post(BULK, data=sent, headers=headers) as answer:
        await answer.read()
        return answer.status


async def _probe(product: Product, beside: asyncio.Task[Any]) -> list[float]:
    """Ask for /health again and again while something runs; return how long each answer took."""
    took = []
    while not beside.done():
        began = time.perf_counter()
        async with product.http.get("/health") as answer:
            await answer.read()
        took.append(time.perf_counter() - began)
        await asyncio.sleep(PROBE_S)
    return took
