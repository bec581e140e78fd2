"""A steady stream of instants: how late each call is, beside the bare client's."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterable
from typing import Any

from bench import bare, store
from bench.burst import CLAIMED_S
from bench.machine import Meter, spread
from bench.product import Product
from bench.sink import Sink

LEAD_S = 8
"""From the writing of the tasks to the first instant."""
EARLY_S = 0.1
"""A call that comes no more than this before an instant is taken for its own, and early."""
BARE_S = 5.0
"""How long the bare client fires, before and again after."""


async def once(product: Product, sink: Sink, rate: int, seconds: int) -> dict[str, Any]:
    """Fire `rate` tasks a second, spread out evenly, each due once."""
    calls = rate * seconds
    before = await bare_lags(sink, rate)
    start_ms = (int(time.time()) + LEAD_S) * 1000
    due_ms = [start_ms + k * 1000 // rate for k in range(calls)]
    tasks = (store.once(k, at) for k, at in enumerate(due_ms))
    used = await _fire(product, sink, tasks, start_ms / 1000, seconds, calls)
    lags, heard = [], Counter[int]()
    for number, when in await sink.arrivals():
        heard[number] += 1
        if heard[number] == 1:
            lags.append(when - due_ms[number] / 1000)
    counts = {"lost": calls - len(lags), "doubled": heard.total() - len(heard)}
    return await _figures(sink, rate, seconds, lags, before) | counts | used


async def interval(product: Product, sink: Sink, rate: int, seconds: int) -> dict[str, Any]:
    """Fire `rate` tasks, each due every second, their phases spread out evenly."""
    before = await bare_lags(sink, rate)
    start_ms = (int(time.time()) + LEAD_S) * 1000
    first_ms = [start_ms + k * 1000 // rate for k in range(rate)]
    tasks = (store.every_second(k, at) for k, at in enumerate(first_ms))
    used = await _fire(product, sink, tasks, start_ms / 1000, seconds, rate * seconds)
    lags, heard = [], Counter[tuple[int, int]]()
    for number, when in await sink.arrivals():
        turn, late = divmod(when - first_ms[number] / 1000 + EARLY_S, 1.0)
        if turn < seconds:
            heard[number, int(turn)] += 1
            lags.append(late - EARLY_S)
    counts = {"lost": rate * seconds - len(heard), "doubled": heard.total() - len(heard)}
    return await _figures(sink, rate, seconds, lags, before) | counts | used


async def _fire(
    product: Product,
    sink: Sink,
    tasks: Iterable[store.Instant],
    start: float,
    seconds: int,
    calls: int,
) -> dict[str, Any]:
    await sink.ask("reset")
    meter = Meter(product.pid, product.postmaster, product.backend, [sink.process.pid])
    await store.Copies(product, sink.url).add(tasks)
    await asyncio.sleep(start - CLAIMED_S - time.time())
    began = meter.read()
    await asyncio.sleep(start + seconds + 1.0 - time.time())
    used = meter.read().since(began)
    await product.db.execute("UPDATE task_plan SET next_plan_at = NULL")
    await product.db.execute("DELETE FROM run WHERE claimed_by IS NULL")
    return {
        "cpu_s": {"ours": round(used.ours, 2), "postgres": round(used.postgres, 2)},
        "cpu_us": {
            "ours": round(used.ours / calls * 1e6, 1),
            "postgres": round(used.postgres / calls * 1e6, 1),
        },
        "noise_cores": used.noise_cores,
    }


async def _figures(
    sink: Sink, rate: int, seconds: int, lags: list[float], before: list[float]
) -> dict[str, Any]:
    await asyncio.sleep(2.0)  # what is under way ends
    after = await bare_lags(sink, rate)
    return {
        "n": rate * seconds,
        "rate": rate,
        "seconds": seconds,
        "lag_ms": spread(lags),
        "early": sum(lag < 0 for lag in lags),
        "bare": {"lag_ms": spread(before + after)},
    }


async def bare_lags(sink: Sink, rate: float, seconds: float = BARE_S) -> list[float]:
    """Return by how many seconds each call of the bare client came after its instant."""
    calls, start = int(rate * seconds), time.time() + 2.0
    await sink.ask("reset")
    await bare.run(sink.url, calls, "--start", start, "--step", 1 / rate)
    return [when - start - number / rate for number, when in await sink.arrivals()]
