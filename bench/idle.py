"""A million tasks asleep, and next to nothing due: what that costs."""

import asyncio
import time
from collections import Counter
from datetime import datetime
from typing import Any

from bench import store
from bench.machine import Meter, pss_mb, rss_mb, spread
from bench.product import Product
from bench.sink import Sink

FAR_S = 30 * 86_400
LEAD_S = 8
SETTLE_S = 5.0
"""From the end of the filling to the measuring."""


async def fill(product: Product, sink: Sink, tasks: int) -> float:
    """Store tasks that are due in a month and later, one a second; return the seconds it took."""
    began = time.perf_counter()
    first_ms = (int(time.time()) + FAR_S) * 1000
    sleeping = (store.once(-1 - k, first_ms + k * 1000) for k in range(tasks))
    await store.Copies(product, sink.url).add(sleeping)
    await product.db.execute("VACUUM ANALYZE")
    await product.db.execute("CHECKPOINT")
    await asyncio.sleep(SETTLE_S)
    return round(time.perf_counter() - began - SETTLE_S, 1)


async def idle(
    product: Product, sink: Sink, stored: int, window_s: int, due: int
) -> dict[str, Any]:
    """Measure a window in which a few runs fall due, evenly."""
    await sink.ask("reset")
    start_ms = (int(time.time()) + LEAD_S) * 1000
    due_ms = [start_ms + k * (window_s - 5) * 1000 // due for k in range(due)]
    for number, at in enumerate(due_ms):
        await _create(product, sink, number, store.instant(at))
    meter = Meter(product.pid, product.postmaster, product.backend, [sink.process.pid])
    await asyncio.sleep(start_ms / 1000 - 2.0 - time.time())
    began = meter.read()
    await asyncio.sleep(window_s)
    used = meter.read().since(began)
    arrivals = await sink.arrivals()
    heard = Counter(number for number, _ in arrivals)
    lags = [when - due_ms[number] / 1000 for number, when in dict(reversed(arrivals)).items()]
    minute = 60 / used.at
    return {
        "n": due,
        "stored": stored,
        "window_s": window_s,
        "cpu_s_per_minute": {
            "ours": round(used.ours * minute, 2),
            "postgres": round(used.postgres * minute, 2),
        },
        "lag_ms": spread(lags),
        "lost": due - len(heard),
        "doubled": heard.total() - len(heard),
        "early": sum(lag < 0 for lag in lags),
        "rss_mb": rss_mb(product.pid),
        "postgres_mb": pss_mb(product.postmaster),
        "noise_cores": used.noise_cores,
    }


async def _create(product: Product, sink: Sink, number: int, at: datetime) -> None:
    body = {
        "name": "awake",
        "url": f"{sink.url}/r/{number}",
        "payload": store.PAYLOAD,
        "scheduled_at": at.isoformat(timespec="milliseconds"),
    }
    await product.call("POST", "/tasks", body)
