"""The page of a task in a browser: run, pause, resume, backfill, explain, and what was changed."""

from datetime import UTC, datetime, timedelta
from typing import Any

from browsing import accessible, shifted
from conftest import App, RunApp, eventually

AT = "/dashboard/tasks/t"
HOSTILE = '"><script>planted()</script>\u202e\u200b<b>x</b>'


async def narrow(page: Any, app: App, path: str) -> None:
    """Fail where a page is wider than a phone."""
    await page.goto(app.url + path)
    assert await page.evaluate("document.documentElement.scrollWidth") <= 360, path


def assert_length(things: list[Any], length: int) -> None:
    assert len(things) == length


async def test_a_task_is_run_paused_resumed_backfilled_and_explained(
    run_app: RunApp, receiver, browse, conn
):
    async with run_app(EGRESS_ALLOW="127.0.0.1") as app, app.client("alice") as alice:
        away = datetime.now(UTC) + timedelta(minutes=30)
        task = {"id": "t", "name": HOSTILE, "url": receiver.url, "cron": f"{away:%-M} * * * *",
                "misfire": "skip"}  # fmt: skip
        assert (await alice.post("/tasks", json=task)).status_code == 201
        await conn.execute("UPDATE task SET created_at = created_at - interval '2 days'")
        async with browse(app) as page:
            await page.goto(app.url + AT)
            await page.click("[data-key=r]")
            await page.wait_for_selector(".said:has-text('started by hand')")
            await eventually(lambda: assert_length(receiver.requests, 1))
            await page.reload()
            await page.wait_for_selector("[data-list=runs] .succeeded")
            assert await shifted(page) < 0.01

            await page.click("summary:has-text('Pause until')")
            await page.fill("[name=reason]", HOSTILE)
            await page.select_option("[name=for]", "until")
            until = datetime.now(UTC) + timedelta(days=2)
            await page.fill("[name=until]", f"{until:%Y-%m-%dT%H:%M:%S}")
            await page.click(".menu button")
            await page.wait_for_selector(".said.warn:has-text('Paused until')")
            assert "planted()" in await page.inner_text(".said.warn")
            assert await page.query_selector(".said.warn b:not(.odd)") is None
            await accessible(page)
            await page.click("button:has-text('Resume')")
            await page.wait_for_selector(".said:has-text('active again')")
            assert await page.query_selector(".said.warn") is None

            await backfilled(page, receiver)
            await page.fill(".ask [name=at]", f"{datetime.now(UTC):%Y-%m-%dT%H}:00:00")
            await page.click("button:has-text('Explain')")
            await page.wait_for_selector(".answer .verdict")
            await accessible(page)

            await alice.patch("/tasks/t", json={"cron": "15 3 * * *"})
            await page.goto(app.url + AT)
            await page.click("nav.beside >> text=Changes")
            row = page.locator(".changes tbody tr").first
            assert "cron" in await row.inner_text() and "15 3 * * *" in await row.inner_text()
            acts = await page.locator(".changes tbody [data-name=What]").all_inner_texts()
            told = [each.split()[0] for each in reversed(acts)]
            assert told == ["created", "executed", "paused", "resumed", "backfilled", "edited"]
            await accessible(page)
            await page.set_viewport_size({"width": 360, "height": 640})
            for path in ("", "/history", "/explain?at=2026-01-01T00:00", "/backfill?from=x&to=y"):
                await narrow(page, app, AT + path)
            page.complaints.clear()  # what was asked wrongly on purpose
            await alice.delete("/tasks/t")
            await narrow(page, app, AT)
            assert "It was deleted" in await page.inner_text("main")
            assert page.complaints and all("404" in each for each in page.complaints)
            page.complaints.clear()


async def backfilled(page: Any, receiver: Any) -> None:
    """Make up for three hours, counted first."""
    before = len(receiver.requests)
    hour = datetime.now(UTC) - timedelta(hours=3)
    await page.click("text=Backfill")
    await page.fill("[name=from]", f"{hour - timedelta(hours=3):%Y-%m-%dT%H:%M}")
    await page.fill("[name=to]", f"{hour:%Y-%m-%dT%H:%M}")
    await page.fill("[name=pace]", "60000")
    await page.click("button:has-text('Count')")
    await page.wait_for_selector("h2:has-text('3 runs to make')")
    assert len(receiver.requests) == before
    await accessible(page)
    await page.click("button:has-text('Make 3 runs')")
    await page.wait_for_selector(".said:has-text('one after the other')")
    await eventually(lambda: assert_length(receiver.requests, before + 3))


async def test_without_script_a_task_is_paused_and_resumed_in_the_dark(app: App, alice, browse):
    task = {"id": "t", "name": "t", "url": "http://127.0.0.1:9/", "cron": "0 * * * *"}
    await alice.post("/tasks", json=task)
    async with browse(app, java_script_enabled=False, color_scheme="dark") as page:
        await page.goto(app.url + AT)
        await page.click("summary:has-text('Pause until')")
        await page.fill("[name=reason]", "no script here")
        await page.select_option("[name=for]", "1h")
        await page.click(".menu button")
        await page.wait_for_selector(".said.warn:has-text('no script here')")
        await page.click("button:has-text('Resume')")
        await page.wait_for_selector(".said:has-text('active again')")
    assert (await alice.get("/tasks/t")).json()["status"] == "active"
