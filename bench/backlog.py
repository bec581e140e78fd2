"""What stands in nobody's way: a day of downtime to catch up with, a service that hangs."""

import asyncio
import time
from collections import Counter
from typing import Any
from uuid import UUID

import msgspec

from bench import store
from bench.machine import spread
from bench.product import Product
from bench.sink import Sink

DAY_MS = 86_400_000
MINUTE_MS = 60_000
RULES = ("latest", "all", "skip")
RATE = 100
"""Instants a second of the service whose lag is looked at."""
LEAD_S = 8
DONE_S = 1800.0
STEADY_LEAST_S = 5.0


async def downtime(product: Product, sink: Sink, tasks: int) -> dict[str, Any]:
    """Let so many minute-tasks of each misfire rule be a day behind, beside a steady service."""
    await sink.ask("reset")
    steady, start_ms = await _steady(product, sink)
    now_ms = int(time.time() * 1000)
    began_ms = now_ms - DAY_MS + 1
    number = 1_000_000
    for rule in RULES:
        copies = store.Copies(product, sink.url, policy={"misfire": rule, "overlap": "allow"})
        anchors = [began_ms + MINUTE_MS * k // tasks for k in range(tasks)]
        every = ((number + k, {**_minutely(), "anchor": at}, at) for k, at in enumerate(anchors))
        await copies.add(every)
        number += tasks
    began, most = time.perf_counter(), 0
    while await _behind(product, began_ms, now_ms):
        most = max(most, await product.db.fetchval("SELECT count(*) FROM run WHERE due <= now()"))
        if time.perf_counter() - began > DONE_S:
            raise RuntimeError("the day has not been caught up with")
        await asyncio.sleep(0.5)
    took = time.perf_counter() - began
    await asyncio.sleep(start_ms / 1000 + STEADY_LEAST_S - time.time())
    figures = await _lags(product, sink, steady, start_ms)
    counts = await _counts(product, now_ms)
    wanted = {rule: _wanted(rule, tasks) for rule in RULES}
    return figures | {
        "n": 3 * tasks * DAY_MS // MINUTE_MS,
        "took_s": round(took, 1),
        "runs_per_s": round(counts["all"]["runs"] / took),
        "most_waiting": most,
        "counts": counts,
        "uncounted": sum(
            abs(tasks * (DAY_MS // MINUTE_MS) - each["runs"] - each["skipped"])
            for each in counts.values()
        ),
        "out_of_rule": sum(
            not low <= counts[rule]["runs"] <= high for rule, (low, high) in wanted.items()
        ),
    }


def _minutely() -> dict[str, Any]:
    return {"kind": "interval", "frequency": 1, "unit": "minute"}


def _wanted(rule: str, tasks: int) -> tuple[int, int]:
    """Return how few and how many runs a rule leaves of the day; a minute back is on time."""
    day = tasks * DAY_MS // MINUTE_MS
    return {"latest": (0, 2 * tasks), "all": (day, day), "skip": (0, 2 * tasks)}[rule]


async def _steady(product: Product, sink: Sink) -> tuple[UUID, int]:
    other = await store.another_service(product.db)
    start_ms = (int(time.time()) + LEAD_S) * 1000
    tasks = (store.every_second(k, start_ms + k * 1000 // RATE) for k in range(RATE))
    await store.Copies(product, sink.url).add(tasks, other)
    return other, start_ms


async def _behind(product: Product, since_ms: int, until_ms: int) -> bool:
    """Say whether an instant of the day is still to be planned, or waits, or is under way."""
    since, until = store.instant(since_ms - MINUTE_MS), store.instant(until_ms)
    unplanned = "SELECT EXISTS (SELECT FROM task_plan WHERE next_plan_at <= $1)"
    live = "SELECT EXISTS (SELECT FROM run WHERE scheduled_for BETWEEN $1 AND $2)"
    return bool(
        await product.db.fetchval(unplanned, until) or await product.db.fetchval(live, since, until)
    )


async def _counts(product: Product, until_ms: int) -> dict[str, dict[str, int]]:
    """Return by misfire rule how many instants of the day ran, and how many were skipped."""
    rows = await product.db.fetch(
        """
        SELECT t.policy ->> 'misfire' AS rule, t.key, t.trigger, h.state, h.count,
               h.scheduled_for, h.gap_to
        FROM task t JOIN history h ON h.task_key = t.key
        WHERE t.policy ->> 'misfire' IS NOT NULL AND h.scheduled_for <= $1
        """,
        store.instant(until_ms),
    )
    found = {rule: {"runs": 0, "skipped": 0} for rule in RULES}
    for row in rows:
        if row["state"] != "skipped":
            found[row["rule"]]["runs"] += 1
            continue
        anchor = msgspec.json.decode(row["trigger"])["anchor"]
        last = min(int(row["gap_to"].timestamp() * 1000), until_ms)
        first = int(row["scheduled_for"].timestamp() * 1000)
        found[row["rule"]]["skipped"] += (last - anchor) // MINUTE_MS - (
            first - anchor - 1
        ) // MINUTE_MS
    return found


async def _lags(product: Product, sink: Sink, steady: UUID, start_ms: int) -> dict[str, Any]:
    """End the steady service, and return how late its calls were, and what is missing of them."""
    until_ms = int(time.time() * 1000) - 2000
    statement = "UPDATE task_plan SET next_plan_at = NULL WHERE service_id = $1"
    await product.db.execute(statement, steady)
    lags, heard = [], Counter[tuple[int, int]]()
    for number, when in await sink.arrivals():
        first_ms = start_ms + number * 1000 // RATE
        if number >= RATE or number < 0:
            continue
        turn, late = divmod(when * 1000 - first_ms + 100, 1000)
        if first_ms + turn * 1000 <= until_ms:
            heard[number, int(turn)] += 1
            lags.append((late - 100) / 1000)
    wanted = sum(max((until_ms - start_ms - k * 1000 // RATE) // 1000 + 1, 0) for k in range(RATE))
    return {
        "lag_ms": spread(lags),
        "early": sum(lag < 0 for lag in lags),
        "lost": wanted - len(heard),
        "doubled": heard.total() - len(heard),
    }


OVERDUE = """
INSERT INTO run (id, bucket, service_id, task_key, task_id, kind, version, overlap, priority,
                 scheduled_for, due, attempts, attempts_n, created_at)
SELECT gen_random_uuid(), bucket, service_id, key, id, 'manual', version, 'allow', 0,
       now() - n * interval '10 milliseconds', now() - n * interval '10 milliseconds', '[]', 0,
       now()
FROM task, generate_series(500, $2) AS n WHERE key = $1
"""


async def crowded(
    product: Product, sink: Sink, hanging: Sink, overdue: int, seconds: int
) -> dict[str, Any]:
    """Fire a steady service beside one with overdue runs whose target does not answer."""
    await sink.ask("reset")
    await hanging.ask("hold")
    await product.call(
        "POST", "/tasks", {"id": "hangs", "name": "hangs", "url": f"{hanging.url}/r/0"}
    )
    key = await product.db.fetchval("SELECT key FROM task WHERE id = 'hangs'")
    await product.db.execute(OVERDUE, key, overdue + 499)
    steady, start_ms = await _steady(product, sink)
    await asyncio.sleep(LEAD_S + seconds)
    waiting = await product.db.fetchval("SELECT count(*) FROM run WHERE task_key = $1", key)
    figures = await _lags(product, sink, steady, start_ms)
    await hanging.ask("release")
    return figures | {"n": RATE * seconds, "overdue": overdue, "overdue_left": waiting}
