"""Runs by hand: from the API's answer to the call's arrival."""

import asyncio
import time
from typing import Any

from bench import steady, store
from bench.machine import Meter, spread
from bench.product import Product
from bench.sink import Sink

EVERY_S = 0.05


async def immediate(product: Product, sink: Sink, calls: int) -> dict[str, Any]:
    """Execute tasks by hand, one after the other, 20 a second."""
    bare_lags = await steady.bare_lags(sink, 1 / EVERY_S)
    ids = [await _task(product, sink, number) for number in range(calls)]
    await asyncio.sleep(2.0)
    await sink.ask("reset")
    meter = Meter(product.pid, product.postmaster, product.backend, [sink.process.pid])
    began = meter.read()
    called, answered = [], []
    for task_id in ids:
        called.append(time.time())
        await product.call("POST", f"/tasks/{task_id}/execute?async=true")
        answered.append(time.time())
        await asyncio.sleep(max(0.0, called[-1] + EVERY_S - time.time()))
    await sink.wait(calls)
    used = meter.read().since(began)
    arrivals = await sink.arrivals()
    first = dict(reversed(arrivals))
    return {
        "n": calls,
        "lag_ms": spread(when - answered[number] for number, when in first.items()),
        "from_call_ms": spread(when - called[number] for number, when in first.items()),
        "call_ms": spread(end - start for start, end in zip(called, answered, strict=True)),
        "lost": calls - len(first),
        "doubled": len(arrivals) - len(first),
        "bare": {"lag_ms": spread(bare_lags)},
        "noise_cores": used.noise_cores,
    }


async def _task(product: Product, sink: Sink, number: int) -> str:
    body = {"name": "by hand", "url": f"{sink.url}/r/{number}", "payload": store.PAYLOAD}
    made = await product.call("POST", "/tasks", body)
    return str(made["id"])
