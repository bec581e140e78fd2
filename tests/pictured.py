"""What the pictures show: a team's tasks, its API, and the week that lies behind them."""

import asyncio
import base64
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import httpx

from receiver import Answer, Receiver
from scheduler import config, partitions
from scheduler.db import Database
from scheduler.embedded import EmbeddedPostgres

BERLIN, YORK = {"timezone": "Europe/Berlin"}, {"timezone": "America/New_York"}
CARE = {"calendars": ["public-holidays"]}


def tasks(url: str) -> list[dict[str, Any]]:
    """The tasks of a shop."""
    kept = {"Authorization": "Bearer of-good-news"}
    return [
        {"id": "archive", "name": "Archive old orders", "url": f"{url}/orders/archive",
         "cron": "0 3 * * SUN", **BERLIN, "method": "POST", "tags": ["orders"]},
        {"id": "reminder", "name": "Contract renewal reminder", "url": f"{url}/contracts/renew",
         "scheduled_at": f"{datetime.now(UTC) + timedelta(days=71):%Y-%m-%dT08:00:00Z}"},
        {"id": "cleanup", "name": "Clean up uploads", "url": f"{url}/uploads/expired",
         "method": "DELETE", "frequency": 1, "unit": "day", "tags": ["storage"]},
        {"id": "payroll", "name": "Payroll export", "url": f"{url}/payroll",
         "rrule": "FREQ=MONTHLY;BYDAY=-1FR;BYHOUR=16;BYMINUTE=0", **BERLIN, "tags": ["finance"]},
        {"id": "report", "name": "Morning report", "url": f"{url}/reports/morning",
         "cron": "30 7 * * MON-FRI", **BERLIN, **CARE, "tags": ["reports"]},
        {"id": "digest", "name": "New York digest", "url": f"{url}/reports/digest",
         "cron": "0 8 * * MON-FRI", **YORK, "tags": ["reports"]},
        {"id": "rates", "name": "Fetch exchange rates", "url": f"{url}/rates",
         "cron": "*/15 * * * *", "tags": ["finance"]},
        {"id": "search", "name": "Rebuild the search index", "url": f"{url}/search/rebuild",
         "method": "POST", "cron": "0 */2 * * *", "timeout_seconds": 90, "tags": ["search"]},
        {"id": "stock", "name": "Sync stock with the warehouse", "url": f"{url}/stock",
         "cron": "*/5 * * * *", "tags": ["orders", "warehouse"]},
        {"id": "sync", "name": "Sync customers", "url": f"{url}/customers",
         "frequency": 20, "unit": "minute", "tags": ["crm"]},
        {"id": "invoices", "name": "Send invoices", "url": f"{url}/invoices", "cron": "0 6 * * *",
         **BERLIN, "method": "POST", "payload": {"month": "last", "currency": "EUR"},
         "max_retries": 2, "retry_backoff": {"initial_seconds": 0.2}, "tags": ["finance"],
         "header": kept, "description": "What every customer owes for the day before."},
    ]  # fmt: skip


async def furnish(client: httpx.AsyncClient, target: Receiver) -> str:
    """Make the tasks that the pictures show; return the id of a run that failed at first."""
    target.otherwise = Answer(200, b'{"ok": true}')
    year = datetime.now(UTC).year
    days = [f"{y}-{day}" for y in (year, year + 1) for day in ("01-01", "05-01", "12-25", "12-26")]
    soon = f"{datetime.now(UTC) + timedelta(days=3):%Y-%m-%d}"
    holidays = {"name": "public-holidays", "timezone": "Europe/Berlin", "dates": [*days, soon],
                "description": "Nobody is in the office."}  # fmt: skip
    (await client.post("/calendars", json=holidays)).raise_for_status()
    for body in tasks(target.url):
        (await client.post("/tasks", json=body)).raise_for_status()
    for name in ("report", "rates", "search", "stock"):
        (await client.post(f"/tasks/{name}/execute?wait=true")).raise_for_status()
    await client.patch("/tasks/cleanup", json={"status": "paused"})
    target.then(503, b'{"error": "the mail server is being restarted"}')
    target.otherwise = Answer(200, b'{"sent": 214, "skipped": 3, "took_ms": 1830}')
    failed = await client.post("/tasks/invoices/execute?retry=true&wait=true")
    return str(failed.json()["run_id"])


# Each task's runs of the week behind us, as its trigger has them, some of them slow, or failed: a
# warehouse that was away for two hours, a search index that is slow by day.
WEEK = """
INSERT INTO history (id, bucket, service_id, task_key, task_id, kind, version, scheduled_for, state,
                     reason, attempts, attempts_n, created_at, started_at, finished_at, response,
                     truncated, count)
SELECT gen_random_uuid(), t.bucket, t.service_id, t.key, t.id, 'task', 1, at, state,
       CASE state WHEN 'failed' THEN 'the target answered 503, expected 200-299'
                  WHEN 'skipped' THEN 'overlap' END,
       jsonb_build_array(jsonb_build_object('number', 1, 'outcome', state,
           'started_at', to_char(at, 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
           'status_code', CASE state WHEN 'failed' THEN 503 ELSE 200 END, 'duration_ms', took)),
       CASE state WHEN 'skipped' THEN 0 ELSE 1 END, at - interval '1 min',
       CASE WHEN state <> 'skipped' THEN at + lag * interval '1 ms' END,
       at + (lag + took) * interval '1 ms', '{"ok": true}', false, 1
FROM (SELECT id, at, greatest(3 + 40 * power(dice, 8), 1) AS lag,
             round(base * (0.7 + 0.6 * other) * (1 + load)) AS took,
             CASE WHEN id = 'stock' AND at > now() - interval '51 h' AND at < now() - interval '49 h'
                  THEN 'failed'
                  WHEN id = 'search' AND third < 0.12 OR third < 0.004 THEN 'failed'
                  WHEN id = 'stock' AND third > 0.985 THEN 'skipped' ELSE 'succeeded' END AS state
      FROM (SELECT *, random() AS dice, random() AS other, random() AS third,
                   sin(pi() * extract(hour FROM at) / 24) AS load
            FROM (VALUES ('rates', 900, 180), ('stock', 300, 420), ('search', 7200, 21000),
                         ('sync', 1200, 90), ('cleanup', 86400, 900), ('report', 86400, 2600),
                         ('digest', 86400, 1900), ('invoices', 86400, 1800))
                 AS w (id, every, base),
                 LATERAL generate_series(date_trunc('hour', now()) - interval '7 days',
                     now() - interval '1 min', every * interval '1 s') AS at) AS drawn) AS made
JOIN task AS t USING (id)
"""


async def lived(folder: Path) -> None:
    """Give the tasks the week that lies behind them, and have it counted."""
    url = EmbeddedPostgres.join(folder)
    assert url is not None
    database = Database(url, config.Database())
    await partitions.make(database.engine, datetime.now(UTC) - timedelta(days=7))
    await database.close()
    conn = await asyncpg.connect(url)
    await conn.execute("SELECT setseed(0.42)")
    await conn.execute("UPDATE task SET created_at = created_at - interval '9 days'")
    await conn.execute(WEEK)
    await conn.execute("UPDATE tally_mark SET until = NULL, counted_at = NULL")
    counts = "succeeded + failed + skipped + expired + cancelled"
    left = f"SELECT count(*) > (SELECT coalesce(sum({counts}), 0) FROM tally) FROM history"
    while await conn.fetchval(left):
        await conn.execute("SELECT pg_sleep(0.2)")
    await conn.close()


async def register(client: httpx.AsyncClient, target: Receiver) -> str:
    """Register the API that the pictures show; return its trace id."""
    ok = {"responses": {"200": {"description": "as it is"}}}
    number = {"name": "number", "in": "path", "required": True, "schema": {"type": "integer"}}
    month = {"name": "month", "in": "query", "schema": {"type": "string", "format": "date"}}
    of = {"content": {"application/json": {"schema": {"type": "object"}}}}
    document = {
        "openapi": "3.1.0",
        "info": {"title": "Billing", "version": "2.3"},
        "servers": [{"url": target.url}],
        "paths": {
            "/invoices": {
                "get": {"summary": "The invoices of a month", "parameters": [month], **ok},
                "post": {"summary": "Write an invoice", "requestBody": of, **ok},
            },
            "/invoices/{number}": {
                "parameters": [number],
                "get": {"summary": "One invoice", **ok},
                "delete": {"summary": "Take an invoice back", **ok},
            },
        },
    }
    source = base64.b64encode(json.dumps(document).encode()).decode()
    new = {"name": "billing", "headers": {"x-api-key": "of-good-news"}, "spec": source}
    trace = str((await client.post("/v1/api/spec", json=new)).json()["trace_id"])
    while (await client.get(f"/v1/api/spec/{trace}/status")).json()["status"] != "SUCCESS":
        await asyncio.sleep(0.1)
    return trace
