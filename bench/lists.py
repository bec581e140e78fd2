"""The first page of every list, with very many tasks and runs stored."""

import time
from collections.abc import Awaitable, Callable
from typing import Any

from bench.machine import spread
from bench.product import Product
from bench.sink import Sink
from scheduler.run import bucket_of

ASKED = 20
PIECE = 500_000
BIG = 26
"""The share of the runs, in percent, that one task has."""

LISTS = {
    "tasks": "/tasks?count=100",
    "tasks_active": "/tasks?count=100&status=active",
    "tasks_paused": "/tasks?count=100&status=paused",
    "tasks_pending": "/tasks?count=100&state=pending",
    "tasks_failed": "/tasks?count=100&state=failed",
    "tasks_running": "/tasks?count=100&state=running",
    "tasks_interval": "/tasks?count=100&trigger=interval",
    "tasks_once": "/tasks?count=100&trigger=once",
    "tasks_tag_rare": "/tasks?count=100&tag=rare",
    "tasks_tag_often": "/tasks?count=100&tag=often",
    "tasks_words_rare": "/tasks?count=100&q=seldom",
    "tasks_words_often": "/tasks?count=100&q=task",
    "tasks_several": "/tasks?count=100&status=active&trigger=interval&tag=rare&q=sel",
    "runs": "/runs",
    "runs_of_a_task": "/runs?task=copy-1",
    "runs_failed": "/runs?state=failed",
    "runs_manual": "/runs?kind=manual",
    "runs_reason": "/runs?reason=overlap",
    "runs_words": "/runs?q=seldom",
    "runs_words_often": "/runs?q=task",
    "runs_succeeded_long_ago": "/runs?state=succeeded&to={ago}",
    "executions": "/tasks/copy-2/executions",
    "executions_of_the_big_one": "/tasks/copy-1/executions",
}

TASKS = """
INSERT INTO task (key, bucket, service_id, id, version, name, description, tags, status, trigger,
                  action, policy, created_at, updated_at)
SELECT md5('t' || n)::uuid, ($3::smallint[])[n - $1 + 1], service_id, 'copy-' || n, 1,
       'task ' || n || CASE WHEN n % 1000 = 0 THEN ' seldom' ELSE '' END, NULL,
       CASE WHEN n % 1000 = 0 THEN '["rare", "often"]' WHEN n % 2 = 0 THEN '["often"]'
            ELSE '[]' END::jsonb,
       CASE WHEN n % 500 = 7 THEN 'paused' ELSE 'active' END,
       CASE WHEN n % 800 = 3 THEN '{"kind": "once", "at": 4070908800000}' ELSE
       '{"kind": "interval", "frequency": 52, "unit": "week", "anchor": 4070908800000}' END::jsonb,
       action, '{}', now() - n * interval '1 ms', now()
FROM task, generate_series($1::int, $2::int) AS n WHERE id = 'model'
"""
PLANS = """
INSERT INTO task_plan (key, bucket, service_id, next_plan_at, planned_until, planned_runs)
SELECT key, bucket, service_id, '2099-01-01Z', now(), 0 FROM task WHERE id LIKE 'copy-%'
"""
STATES = """
INSERT INTO task_state (key, bucket, service_id, state, failures, created_at)
SELECT key, bucket, service_id, CASE WHEN right(id, 3) = '007' THEN 'failed' ELSE 'pending' END, 0,
       created_at FROM task WHERE id LIKE 'copy-%'
"""
RUNS = """
INSERT INTO history (id, bucket, service_id, task_key, task_id, kind, version, scheduled_for, state,
                     reason, attempts, attempts_n, created_at, started_at, finished_at, response,
                     truncated, count)
SELECT gen_random_uuid(), 0, $4, md5('t' || task)::uuid, 'copy-' || task,
       CASE WHEN n % 900 = 0 THEN 'manual' ELSE 'task' END, 1, at,
       CASE WHEN n % 700 = 0 THEN 'failed' WHEN n % 50 = 1 THEN 'skipped' ELSE 'succeeded' END,
       CASE WHEN n % 700 = 0 THEN 'the target answered 500' WHEN n % 50 = 1 THEN 'overlap' END,
       '[{"number": 1, "outcome": "succeeded", "status_code": 200}]', 1, at, at, at, 'ok', false, 1
FROM (SELECT n, CASE WHEN n % 100 < $5 THEN 1 ELSE n % $3::int + 1 END AS task,
             now() - n * interval '50 ms' AS at
      FROM generate_series($1::int, $2::int) AS n) AS r
"""


async def lists(product: Product, _: Sink, tasks: int, runs: int) -> dict[str, Any]:
    """Fill the tables, and ask for the first page of every list 20 times."""
    began = time.perf_counter()
    await _fill(product, tasks, runs)
    figures: dict[str, Any] = {"n": ASKED, "tasks": tasks, "runs": runs}
    figures["fill_s"] = round(time.perf_counter() - began, 1)
    ago = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - runs * 0.04))
    for name, path in LISTS.items():
        figures[name] = await _asked(product, path.format(ago=ago))
    pages = [name for name in LISTS if name != "executions_of_the_big_one"]
    figures["slowest_p50"] = max(figures[name]["p50"] for name in pages)
    return figures


async def _fill(product: Product, tasks: int, runs: int) -> None:
    db = product.db
    model = {"name": "model", "id": "model", "url": "http://127.0.0.1:9/path"}
    await product.call("POST", "/tasks", model)
    service = await db.fetchval("SELECT service_id FROM task")

    def buckets(first: int, last: int) -> list[int]:
        return [bucket_of(service, f"copy-{n}") for n in range(first, last + 1)]

    await _pieces(tasks, lambda a, b: db.execute(TASKS, a, b, buckets(a, b)))
    await db.execute(PLANS)
    await db.execute(STATES)
    await _pieces(runs, lambda a, b: db.execute(RUNS, a, b, tasks, service, BIG))
    await db.execute("VACUUM ANALYZE")
    await db.execute("CHECKPOINT")


async def _pieces(many: int, write: Callable[[int, int], Awaitable[Any]]) -> None:
    for first in range(1, many + 1, PIECE):
        await write(first, min(first + PIECE - 1, many))


async def _asked(product: Product, path: str) -> dict[str, float]:
    took = []
    for _ in range(ASKED):
        began = time.perf_counter()
        await product.call("GET", path)
        took.append(time.perf_counter() - began)
    return spread(took)
