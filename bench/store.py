"""Many tasks at once: copies of one that the API made, written straight into its tables.

Exactly the rows that the API would write, the runs excepted: those the planner makes, as it does
for every task that was created more than `planner.window_seconds` before its instant.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import msgspec

from bench.product import Product
from scheduler.run import bucket_of

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
AT_ONCE = 20_000
PAYLOAD = "x" * 100

Instant = tuple[int, dict[str, Any], int]
"""(number in the target's URL, trigger, first due in ms since 1970)."""


def once(number: int, at_ms: int) -> Instant:
    """Return a task that is due once."""
    return number, {"kind": "once", "at": at_ms}, at_ms


def every_second(number: int, first_ms: int) -> Instant:
    """Return a task that is due every second."""
    trigger = {"kind": "interval", "frequency": 1, "unit": "second", "anchor": first_ms}
    return number, trigger, first_ms


class Copies:
    """Copies of a task with another target, trigger and instant."""

    def __init__(self, product: Product, target: str, policy: dict[str, Any] | None = None) -> None:
        self._product = product
        self._target = target
        self._policy = policy or {}

    async def add(self, wanted: Iterable[Instant], service: UUID | None = None) -> int:
        """Write one task for each; return how many, committed in one go.

        They are the benchmark's service's, or another's.
        """
        db = self._product.db
        task, plan = await self._models()
        if service is not None:
            task["service_id"] = plan["service_id"] = service
        count = 0
        async with db.transaction():
            made = self._rows(task, plan, wanted)
            while piece := list(islice(made, AT_ONCE)):
                await _copy(db, "task", [each for each, _ in piece])
                await _copy(db, "task_plan", [each for _, each in piece])
                count += len(piece)
        return count

    async def _models(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the rows of a task made by the API, which is deleted again."""
        body = {
            "name": "a benchmark's",
            "url": f"{self._target}/r/0",
            "payload": PAYLOAD,
            "scheduled_at": "2099-01-01T00:00:00Z",
            **self._policy,
        }
        made = await self._product.call("POST", "/tasks", body)
        db = self._product.db
        row = await db.fetchrow("SELECT * FROM task WHERE id = $1", made["id"])
        plan = await db.fetchrow("SELECT * FROM task_plan WHERE key = $1", row["key"])
        async with self._product.http.delete(f"/tasks/{made['id']}") as answer:
            answer.raise_for_status()
        return dict(row), dict(plan)

    def _rows(
        self, model: dict[str, Any], plan: dict[str, Any], wanted: Iterable[Instant]
    ) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        action = msgspec.json.decode(model["action"])
        before, after = (
            msgspec.json.encode(action | {"url": f"{self._target}/r/NUMBER"})
            .decode()
            .split("NUMBER")
        )
        for number, trigger, due in wanted:
            key, task_id = uuid4(), str(uuid4())
            place = {"key": key, "bucket": bucket_of(model["service_id"], task_id)}
            yield (
                model
                | place
                | {
                    "id": task_id,
                    "trigger": msgspec.json.encode(trigger).decode(),
                    "action": f"{before}{number}{after}",
                },
                plan
                | place
                | {
                    "next_plan_at": instant(due),
                    "planned_until": min(plan["planned_until"], instant(due - 1)),
                },
            )


async def _copy(db: asyncpg.Connection, table: str, rows: list[dict[str, Any]]) -> None:
    await db.copy_records_to_table(
        table, columns=list(rows[0]), records=[tuple(row.values()) for row in rows]
    )


async def another_service(db: asyncpg.Connection) -> UUID:
    """Write a service like the first one; return its id."""
    service = dict(await db.fetchrow("SELECT * FROM service")) | {
        "id": uuid4(),
        "name": f"another-{uuid4().hex}",
    }
    await _copy(db, "service", [service])
    return UUID(str(service["id"]))


async def unplanned(db: asyncpg.Connection, until_ms: int) -> bool:
    """Say whether a task due until then still has no run."""
    return bool(
        await db.fetchval(
            "SELECT EXISTS (SELECT FROM task_plan WHERE next_plan_at <= $1)", instant(until_ms)
        )
    )


async def unsettled(db: asyncpg.Connection, until_ms: int) -> bool:
    """Say whether a run due until then is still in the queue."""
    return bool(
        await db.fetchval("SELECT EXISTS (SELECT FROM run WHERE due <= $1)", instant(until_ms))
    )


async def left(db: asyncpg.Connection, at_ms: int) -> dict[str, int]:
    """Return how many runs of an instant ended how, or stand in the queue."""
    rows = await db.fetch(
        """
        SELECT state AS how, count(*) FROM history WHERE scheduled_for = $1 GROUP BY state
        UNION ALL
        SELECT CASE WHEN claimed_by IS NULL THEN 'waiting' ELSE 'claimed' END
               || ' after ' || attempts_n, count(*)
        FROM run WHERE scheduled_for = $1 GROUP BY 1
        """,
        instant(at_ms),
    )
    return {row["how"]: row["count"] for row in rows}


def instant(at_ms: int) -> datetime:
    """Return milliseconds since 1970 as a datetime."""
    return EPOCH + timedelta(milliseconds=at_ms)
