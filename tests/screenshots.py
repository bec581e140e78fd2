"""The pictures of docs/tour.md, taken of the real thing: `make screenshots`."""

import asyncio
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

from pictured import furnish, lived, register
from receiver import receiving

IMAGES = Path(os.environ.get("IMAGES", Path(__file__).parent.parent / "docs" / "images"))
WIDE, PHONE = {"width": 1200, "height": 760}, {"width": 390, "height": 720}


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


async def pictures(light: Page, dark: Page, phone: Page, run: str, trace: str) -> None:
    """Take the pictures of what is there; each page is signed in."""
    origin = light.url.partition("/dashboard")[0]
    for page, at, name in (
        (light, "/dashboard", "overview"),
        (dark, "/dashboard", "overview-dark"),
        (phone, "/dashboard", "overview-phone"),
        (light, "/dashboard/tasks", "tasks"),
        (phone, "/dashboard/tasks", "phone"),
        (light, "/dashboard/new", "new"),
        (dark, "/dashboard/tasks/invoices", "task"),
        (light, f"/dashboard/runs/{run}", "run"),
        (light, "/dashboard/runs", "runs"),
        (light, "/dashboard/timeline", "timeline"),
        (light, f"/dashboard/apis/{trace}", "spec"),
        (light, "/dashboard/calendars/public-holidays", "calendar"),
        (light, "/dashboard/settings", "settings"),
        (light, "/docs", "api"),
    ):
        await page.goto(f"{origin}{at}")
        await page.wait_for_load_state("load")
        if name == "new":
            await _typed(page)
        if name == "api":
            await page.wait_for_selector(".opblock")
        await page.screenshot(path=IMAGES / f"{name}.png")


async def _typed(page: Page) -> None:
    """Fill in the form, up to the preview of a rule over a change of clocks."""
    await page.fill("[name=name]", "Night shift hand-over")
    await page.fill("[name=url]", "https://example.com/shifts/hand-over")
    await page.check("[name=trigger][value=rrule]", force=True)
    await page.fill("[name=rrule]", "FREQ=WEEKLY;BYDAY=SU;BYHOUR=2;BYMINUTE=30")
    await page.fill("[name=timezone]", "Europe/Berlin")
    await page.wait_for_selector("[data-preview] time, .preview time")
    await page.locator("[name=rrule]").scroll_into_view_if_needed()


async def main() -> None:
    """Take the pictures."""
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        async with receiving() as target, serving(Path(folder)) as known, browser() as chrome:
            zone = {"timezone_id": "Europe/Berlin"}
            light = await chrome.new_page(viewport=WIDE, **zone)
            await light.goto(f"{known['url']}/dashboard")
            await light.screenshot(path=IMAGES / "sign-in.png")
            await sign_in(light, known["url"], "default", known["token"])
            await light.goto(f"{known['url']}/dashboard/tasks")
            await light.screenshot(path=IMAGES / "empty.png")
            headers = {"service_id": known["service_id"], "token": known["token"]}
            async with httpx.AsyncClient(
                base_url=known["url"], headers=headers, timeout=30
            ) as client:
                run = await furnish(client, target)
                trace = await register(client, target)
            await lived(Path(folder))
            dark = await chrome.new_page(viewport=WIDE, color_scheme="dark", **zone)
            phone = await chrome.new_page(viewport=PHONE, **zone)
            for page in (dark, phone):
                await sign_in(page, known["url"], "default", known["token"])
            await pictures(light, dark, phone, run, trace)


if __name__ == "__main__":
    asyncio.run(main())
