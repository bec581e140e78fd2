"""The pages of the dashboard, with many tasks and finished runs stored."""

import re
import shutil
import time
from pathlib import Path
from typing import Any

import aiohttp
from playwright.async_api import async_playwright

from bench.lists import PLANS, STATES, TASKS
from bench.machine import spread
from bench.product import Product
from bench.sink import Sink
from scheduler.run import bucket_of

ASKED = 20
COUNTED_S = 120.0
"""What the tally may take to have counted everything."""
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

PAGES = {
    "sign_in": "/dashboard/sign-in",
    "overview": "/dashboard",
    "overview_week": "/dashboard?span=7d",
    "tasks": "/dashboard/tasks",
    "task": "/dashboard/tasks/copy-1",
    "new": "/dashboard/new",
    "runs": "/dashboard/runs",
    "runs_failed": "/dashboard/runs?state=failed",
    "timeline": "/dashboard/timeline",
    "apis": "/dashboard/apis",
    "calendars": "/dashboard/calendars",
    "system": "/dashboard/system",
    "settings": "/dashboard/settings",
}
"""What answers 404 is not there, and left out."""

# Over two days, evenly; every 50th of the first task: what a page of one task shows is of many.
RUNS = """
INSERT INTO history (id, bucket, service_id, task_key, task_id, kind, version, scheduled_for, state,
                     reason, attempts, attempts_n, created_at, started_at, finished_at, response,
                     truncated, count)
SELECT gen_random_uuid(), 0, $2, md5('t' || task)::uuid, 'copy-' || task, 'task', 1, at,
       CASE WHEN n % 70 = 0 THEN 'failed' WHEN n % 50 = 1 THEN 'skipped' ELSE 'succeeded' END,
       CASE WHEN n % 70 = 0 THEN 'the target answered 500' WHEN n % 50 = 1 THEN 'overlap' END,
       '[{"number": 1, "outcome": "succeeded", "status_code": 200}]', 1, at - interval '1 min',
       CASE WHEN n % 50 <> 1 THEN at + n % 97 * interval '1 ms' END,
       at + (100 + task % 1000) * interval '1 ms', 'ok', false, 1
FROM (SELECT n, CASE WHEN n % 50 = 0 THEN 1 ELSE n % $3::int + 1 END AS task,
             now() - n * interval '2 days' / $1::int AS at
      FROM generate_series(1, $1::int) AS n) AS r
"""
ENTRY = re.compile(r"^scheduler api\|LOG: .*?(?=^[^\t])", re.MULTILINE | re.DOTALL)


async def pages(product: Product, _: Sink, tasks: int, runs: int) -> dict[str, Any]:
    """Fill the tables, and ask for each page 20 times, as a browser that is signed in."""
    began = time.perf_counter()
    await _fill(product, tasks, runs)
    figures: dict[str, Any] = {"n": ASKED, "tasks": tasks, "runs": runs}
    shown: dict[str, Any] = {}
    figures["fill_s"] = round(time.perf_counter() - began, 1)
    cookies = await signed_in(product)
    async with aiohttp.ClientSession(product.url, cookie_jar=cookies) as visitor:
        bare = await _asked(visitor, "/health")
        figures["bare_ms"] = bare["whole"]["p50"]
        for name, path in PAGES.items():
            found = await _asked(visitor, path)
            if not found:
                continue
            found["statements"] = await _statements(product, visitor, path)
            found["of_bare"] = round(found["whole"]["p50"] / figures["bare_ms"], 1)
            shown[name] = found
        figures |= await _painted(product, cookies, list(shown))
    figures["page"] = shown
    figures["slowest_p50"] = max(each["whole"]["p50"] for each in shown.values())
    figures["most_statements"] = max(each["statements"] for each in shown.values())
    return figures


async def _fill(product: Product, tasks: int, runs: int) -> None:
    db = product.db
    model = {"name": "model", "id": "model", "url": "http://127.0.0.1:9/path"}
    await product.call("POST", "/tasks", model)
    service = await db.fetchval("SELECT service_id FROM task")
    buckets = [bucket_of(service, f"copy-{n}") for n in range(1, tasks + 1)]
    await db.execute(TASKS, 1, tasks, buckets)
    await db.execute(PLANS)
    await db.execute(STATES)
    await db.execute(RUNS, runs, service, tasks)
    await db.execute("UPDATE tally_mark SET until = NULL, counted_at = NULL")
    await db.execute("VACUUM ANALYZE")
    await _counted(product, runs)


async def _counted(product: Product, runs: int) -> None:
    """Wait until the tally has counted what was written past the program."""
    ended = time.monotonic() + COUNTED_S
    while time.monotonic() < ended:
        sums = "succeeded + failed + skipped + expired + cancelled"
        if await product.db.fetchval(f"SELECT sum({sums}) FROM tally") == runs:
            return
        await product.db.execute("SELECT pg_sleep(0.5)")
    raise RuntimeError("the tally has not counted the runs")


async def signed_in(product: Product, service: dict[str, str] | None = None) -> aiohttp.CookieJar:
    """Sign in with the form, as a service or as the benchmark's; return the cookies."""
    jar = aiohttp.CookieJar(unsafe=True)
    sent = service or product.http.headers
    async with aiohttp.ClientSession(product.url, cookie_jar=jar) as browser:
        async with browser.get("/dashboard/sign-in") as asked:
            found = re.search(r'name="form" value="([^"]*)"', await asked.text())
        form = {"form": found[1] if found else "", "next": "/dashboard"}
        form |= {"service": sent["service_id"], "token": sent["token"]}
        async with browser.post("/dashboard/sign-in", data=form, allow_redirects=False) as answer:
            if answer.status != 303:
                raise RuntimeError(f"signing in: {answer.status}")
    return jar


async def _asked(visitor: aiohttp.ClientSession, path: str) -> dict[str, Any]:
    first, whole, size = [], [], 0
    for _ in range(ASKED):
        began = time.perf_counter()
        async with visitor.get(path) as answer:
            first.append(time.perf_counter() - began)
            size = len(await answer.read())
            whole.append(time.perf_counter() - began)
            if answer.status == 404:
                return {}
            if answer.status != 200:
                raise RuntimeError(f"{path}: {answer.status}")
    return {"first_byte": spread(first), "whole": spread(whole), "bytes": size}


async def _statements(product: Product, visitor: aiohttp.ClientSession, path: str) -> int:
    """Return how many statements on tables one request of a page takes, from Postgres's log."""
    await _log(product, "all")
    async with visitor.get(path) as answer:
        await answer.read()
    await _log(product, "none")
    folder = product.base / "postgres" / "data" / "log"
    newest = max(folder.glob("*.log"), key=lambda file: file.stat().st_mtime)
    text = newest.read_text(errors="replace")
    newest.write_text("")
    found = (re.sub(r"\s+", " ", entry) for entry in ENTRY.findall(text + "\nend"))
    return sum(bool(re.search(r"execute .*\b(FROM|INTO|UPDATE)\b", entry)) for entry in found)


async def _log(product: Product, what: str) -> None:
    await product.db.execute(f"ALTER SYSTEM SET log_statement = '{what}'")
    await product.db.execute("ALTER SYSTEM SET log_line_prefix = '%a|'")
    await product.db.execute("SELECT pg_reload_conf(), pg_sleep(0.3)")


async def _painted(
    product: Product, cookies: aiohttp.CookieJar, names: list[str]
) -> dict[str, Any]:
    """Return when Chromium first paints each page, in ms, where there is one."""
    place = next((path for path in map(shutil.which, CHROMIUM) if path), None)
    if place is None:
        return {}
    held = [{"name": c.key, "value": c.value, "url": product.url} for c in cookies]
    painted = {}
    async with async_playwright() as playwright:
        chrome = await playwright.chromium.launch(executable_path=place, args=_arguments())
        context = await chrome.new_context()
        await context.add_cookies(held)  # type: ignore[arg-type]
        page = await context.new_page()
        for name in names:
            took = []
            for _ in range(5):
                await page.goto(f"{product.url}{PAGES[name]}")
                took.append(await page.evaluate(PAINT) / 1000)
            painted[name] = spread(took)
        await chrome.close()
    return {"painted": painted, "slowest_paint_p50": max(p["p50"] for p in painted.values())}


PAINT = """async () => {
  for (;;) {
    const found = performance.getEntriesByName("first-contentful-paint")[0];
    if (found) return found.startTime;
    await new Promise(requestAnimationFrame);
  }
}"""


def _arguments() -> list[str]:
    """Return what Chromium needs as root: it has no sandbox there."""
    return ["--no-sandbox"] if Path.home() == Path("/root") else []
