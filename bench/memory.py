"""The memory of the process: with nothing to do, and with its hands full."""

import asyncio
import time
from typing import Any

from bench import store
from bench.burst import CLAIMED_S, until
from bench.machine import pss_mb, rss_mb
from bench.product import Product
from bench.sink import Sink

IDLE_S = 3.0


async def held(product: Product, sink: Sink, calls: int) -> dict[str, Any]:
    """Return the memory with `calls` runs held, because the target does not answer."""
    await asyncio.sleep(IDLE_S)
    idle, idle_postgres = rss_mb(product.pid), pss_mb(product.postmaster)
    at_ms = (int(time.time()) + 8 + calls // 1000) * 1000
    await sink.ask("reset")
    await sink.ask("hold")
    copies, half = store.Copies(product, sink.url), calls // 2  # no service may hold them all
    another = await store.another_service(product.db)
    await copies.add(store.once(k, at_ms) for k in range(half))
    await copies.add((store.once(k, at_ms) for k in range(half, calls)), another)
    await until(lambda: store.unplanned(product.db, at_ms), at_ms / 1000 - CLAIMED_S)
    await asyncio.sleep(at_ms / 1000 + 2.0 - time.time())
    claimed = await product.db.fetchval("SELECT count(*) FROM run WHERE claimed_by IS NOT NULL")
    full, full_postgres = rss_mb(product.pid), pss_mb(product.postmaster)
    await sink.ask("release")
    await sink.wait(calls)
    await until(lambda: store.unsettled(product.db, at_ms), time.time() + 30)
    heard = await sink.ask("count")
    return {
        "n": calls,
        "idle_mb": idle,
        "idle_postgres_mb": idle_postgres,
        "held": claimed,
        "held_mb": full,
        "held_postgres_mb": full_postgres,
        "after_mb": rss_mb(product.pid),
        "lost": calls - heard["distinct"],
        "doubled": heard["all"] - heard["distinct"],
    }
