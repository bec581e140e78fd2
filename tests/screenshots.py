"""The pictures of docs/tour.md, taken of the real thing: `make screenshots`."""

import asyncio
import base64
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from playwright.async_api import Page, async_playwright

from receiver import Answer, Receiver, receiving

IMAGES = Path(__file__).parent.parent / "docs" / "images"
WIDE, PHONE = {"width": 1100, "height": 640}, {"width": 390, "height": 720}


def chromium() -> str | None:
    """Where a Chromium is, if there is one."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next((path for path in map(shutil.which, names) if path), None)


@asynccontextmanager
async def browser() -> AsyncIterator[Any]:
    """The Chromium of this machine; as root it has no sandbox."""
    async with async_playwright() as playwright:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        made = await playwright.chromium.launch(executable_path=chromium(), args=arguments)
        yield made
        await made.close()


async def sign_in(page: Page, url: str, service: str, token: str) -> None:
    """Sign in as a person does."""
    await page.goto(f"{url}/dashboard")
    await page.fill("[name=service]", service)
    await page.fill("[name=token]", token)
    await page.click("main button")
    await page.wait_for_selector("main h1:has-text('Overview')")


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[dict[str, str]]:
    """The program with a Postgres of its own; its credentials."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environ = {**os.environ, "SERVER_PORT": str(port), "EGRESS_ALLOW": "127.0.0.1"}
    command = [sys.executable, "-m", "scheduler", "serve"]
    process = subprocess.Popen(command, env={**environ, "DATA_DIR": str(folder)})
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            while True:
                with contextlib.suppress(httpx.HTTPError):
                    if (await client.get("/ready")).status_code == 200:
                        break
                await asyncio.sleep(0.1)
        yield json.loads((folder / "credentials.json").read_text())
    finally:
        process.terminate()
        process.wait()


async def furnish(client: httpx.AsyncClient, target: Receiver) -> str:
    """Make the tasks that the pictures show; return the id of a run that failed."""
    base = {"url": f"{target.url}/invoices", "timeout_seconds": 5}
    berlin = {"timezone": "Europe/Berlin"}
    bodies: list[dict[str, Any]] = [
        {"id": "cleanup", "name": "Clean up uploads", "frequency": 1, "unit": "day"},
        {"id": "rates", "name": "Fetch exchange rates", "frequency": 15, "unit": "minute"},
        {"id": "reminder", "name": "Contract reminder", "scheduled_at": "2027-02-01T08:00:00Z"},
        {"id": "report", "name": "Morning report", "cron": "30 7 * * MON-FRI", **berlin},
        {"id": "sync", "name": "Sync customers", "frequency": 2, "unit": "second"},
        {"id": "invoices", "name": "Send invoices", "cron": "0 6 1 * *", **berlin,
         "method": "POST", "payload": {"month": "last"}, "max_retries": 1,
         "retry_backoff": {"initial_seconds": 0}, "tags": ["billing"],
         "header": {"Authorization": "Bearer of-good-news"},
         "description": "What every customer owes for the month before."},
    ]  # fmt: skip
    for body in bodies:
        (await client.post("/tasks", json={**base, **body})).raise_for_status()
    for name in ("report", "rates", "cleanup"):
        (await client.post(f"/tasks/{name}/execute")).raise_for_status()
    await client.patch("/tasks/cleanup", json={"status": "paused"})
    await asyncio.sleep(6)
    target.otherwise = Answer(503, b'{"error": "the mail server is being restarted"}')
    failed = await client.post("/tasks/invoices/execute?retry=true")
    target.otherwise = Answer(200, b'{"sent": 214}')
    await client.post("/tasks/invoices/execute")
    return str(failed.json()["run_id"])


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


async def main() -> None:
    """Take the pictures."""
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        async with receiving() as target, serving(Path(folder)) as known, browser() as chrome:
            light = await chrome.new_page(viewport=WIDE)
            await light.goto(f"{known['url']}/dashboard")
            await light.screenshot(path=IMAGES / "sign-in.png")
            await sign_in(light, known["url"], "default", known["token"])
            await light.screenshot(path=IMAGES / "empty.png")
            headers = {"service_id": known["service_id"], "token": known["token"]}
            async with httpx.AsyncClient(
                base_url=known["url"], headers=headers, timeout=30
            ) as client:
                run = await furnish(client, target)
                trace = await register(client, target)
            dark = await chrome.new_page(viewport=WIDE, color_scheme="dark")
            phone = await chrome.new_page(viewport=PHONE)
            for page, at, name in (
                (light, "/dashboard/tasks", "tasks"),
                (dark, "/dashboard/tasks/invoices", "task"),
                (light, f"/dashboard/runs/{run}", "run"),
                (light, f"/dashboard/apis/{trace}", "spec"),
                (phone, "/dashboard/tasks", "phone"),
                (light, "/docs", "api"),
            ):
                if page is not light:
                    await sign_in(page, known["url"], "default", known["token"])
                await page.goto(f"{known['url']}{at}")
                await page.wait_for_load_state("networkidle")
                if name == "api":
                    await page.wait_for_selector(".opblock")
                await page.screenshot(path=IMAGES / f"{name}.png", full_page=name == "run")


if __name__ == "__main__":
    asyncio.run(main())
