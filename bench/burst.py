"""Everything due at one instant, on an empty database or with a million tasks asleep in it."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from bench import bare, store
from bench.machine import Meter, Usage, rss_mb, spread
from bench.product import Product
from bench.sink import Sink

CLAIMED_S = 1.5
"""Runs are claimed a second before their instant: measured from before that."""
LATE_COPIES_S = 1.0

Arrivals = Sequence[tuple[int, float]]


async def burst(product: Product, sink: Sink, calls: int) -> dict[str, Any]:
    """Fire `calls` tasks at one instant and return the figures."""
    await sink.ask("reset")
    before = await bare.run(sink.url, calls)
    await sink.ask("reset")
    meter = Meter(product.pid, product.postmaster, product.backend, [sink.process.pid])
    at_ms = (int(time.time()) + 8 + calls // 1000) * 1000
    planning = await _plan(product, sink, meter, at_ms, calls)
    spans = await _fire(product, sink, meter, at_ms, calls)
    await asyncio.sleep(LATE_COPIES_S)
    figures = _arrived(await sink.arrivals(), at_ms / 1000, calls)
    left = await store.left(product.db, at_ms)
    rss = rss_mb(product.pid)
    after = await bare.run(sink.url, calls)
    ceiling = max(before, after, key=lambda found: found["per_s"])
    return {
        "n": calls,
        "made_by": "SQL, as the API would; runs by the planner",
        **figures,
        "unsettled": calls - left.pop("succeeded", 0),
        "left": left,
        "cpu_us": _per_run(spans["claimed"], calls),
        "cpu_us_from_half_a_second": _per_run(spans["half"], calls),
        "planning_cpu_us": _per_run(planning, calls),
        "planning_s": round(planning.at, 2),
        "settled_s": round(spans["claimed"].at - CLAIMED_S, 2),
        "rss_mb": rss,
        "bare": ceiling,
        "of_bare": round(figures["per_s"] / ceiling["per_s"], 2) if figures["per_s"] else 0.0,
        "noise_cores": spans["claimed"].noise_cores,
    }


async def _plan(product: Product, sink: Sink, meter: Meter, at_ms: int, calls: int) -> Usage:
    before = meter.read()
    await store.Copies(product, sink.url).add(store.once(k, at_ms) for k in range(calls))
    await until(lambda: store.unplanned(product.db, at_ms), at_ms / 1000 - CLAIMED_S - 0.5)
    used = meter.read().since(before)
    await product.db.execute("CHECKPOINT")
    return used


async def _fire(
    product: Product, sink: Sink, meter: Meter, at_ms: int, calls: int
) -> dict[str, Usage]:
    """Return what was used until all is settled: from before the claim, and from 0.5 s before."""
    at = at_ms / 1000
    await asyncio.sleep(at - CLAIMED_S - time.time())
    claimed = meter.read()
    await asyncio.sleep(at - 0.5 - time.time())
    half = meter.read()
    await sink.wait(calls)
    with suppress(TimeoutError):  # what is left shows in the figures
        await until(lambda: store.unsettled(product.db, at_ms), time.time() + 30, pause=0.02)
    end = meter.read()
    return {"claimed": end.since(claimed), "half": end.since(half)}


async def until(unfinished: Any, deadline: float, pause: float = 0.05) -> None:
    """Return when there is nothing left of something. Raises TimeoutError at the deadline."""
    while await unfinished():
        if time.time() > deadline:
            raise TimeoutError("the scheduler is too slow for this benchmark")
        await asyncio.sleep(pause)


def _arrived(arrivals: Arrivals, at: float, calls: int) -> dict[str, Any]:
    first: dict[int, float] = {}
    for number, when in arrivals:
        first.setdefault(number, when)
    lags = [when - at for when in first.values()]
    span = max(lags, default=0.0)
    return {
        "per_s": round(len(lags) / span) if span > 0 else 0,
        "lag_ms": spread(lags),
        "lost": calls - len(first),
        "doubled": len(arrivals) - len(first),
        "early": sum(lag < 0 for lag in lags),
    }


def _per_run(used: Usage, calls: int) -> dict[str, float]:
    return {
        "ours": round(used.ours / calls * 1e6, 1),
        "postgres": round(used.postgres / calls * 1e6, 1),
    }
