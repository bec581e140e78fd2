"""Edits by others, in a real browser: rows change in place, what is gone is marked, new is counted."""

from datetime import UTC, datetime, timedelta
from typing import Any

from browsing import accessible, shifted
from conftest import App, RunApp
from scheduler.dashboard import look
from test_browser_live import is_live
from test_live import create

WIDE = "element => element.closest('tr').getBoundingClientRect().toJSON()"


async def patch(client: Any, task_id: str, **fields: Any) -> None:
    answer = await client.patch(f"/tasks/{task_id}", json=fields)
    assert answer.status_code == 200, answer.text


async def test_a_list_of_tasks_follows_what_another_replica_is_told(
    app: App, run_app: RunApp, browse, receiver
):
    async with run_app() as other, other.client("alice") as alice, browse(app) as page:
        for task_id in ("one", "two"):
            await create(alice, receiver.url, task_id)
        await page.goto(f"{app.url}/dashboard/tasks")
        await is_live(page)
        steady = await shifted(page)
        row = page.locator("[data-task=one]")
        button = row.locator("button[value=run]")
        await button.focus()
        await patch(alice, "one", name="Renamed by others", status="paused")
        await row.locator("td.main:has-text('Renamed by others')").wait_for()
        await row.locator("[data-name=State]:has-text('paused')").wait_for()
        assert await row.locator(".switch .on.paused").count() == 1
        assert await page.evaluate("document.activeElement.value") == "run"

        before = await row.locator("td.main").evaluate(WIDE)
        gone = await alice.delete("/tasks/one")
        assert gone.status_code < 300
        await row.locator("[data-name=State]:has-text('deleted')").wait_for()
        assert await row.locator("td.main").evaluate(WIDE) == before
        assert await row.locator("button:enabled").count() == 0
        await accessible(page)

        await create(alice, receiver.url, "three")
        await page.wait_for_selector("[data-news]:has-text('1 new')")
        await page.locator("[data-task=two] input[type=checkbox]").check()
        assert await shifted(page) == steady
        await page.click("[data-news]")
        await page.wait_for_selector("[data-task=three]")
        assert await page.locator("[data-task]").count() == 2
        assert await page.locator("[data-task=two] input[type=checkbox]").is_checked()


async def test_a_list_sees_pauses_end_and_what_is_too_much_to_be_told(
    app: App, alice, browse, receiver, monkeypatch
):
    await create(alice, receiver.url)
    monkeypatch.setattr(look, "TASKS", 1)
    async with browse(app) as page:
        await page.goto(f"{app.url}/dashboard/tasks")
        await is_live(page)
        until = (datetime.now(UTC) + timedelta(seconds=6)).isoformat()
        await patch(alice, "one", status="paused", paused_until=until)
        paused = "[data-task=one] [data-name=State]:has-text('paused')"
        await page.wait_for_selector(paused)
        await page.wait_for_selector(paused, state="detached")
        assert await page.locator(".switch .on.active").count() == 1
        many = [{"id": f"t{n}", "name": "t", "url": receiver.url} for n in range(3)]
        assert (await alice.post("/tasks/bulk", json=many)).status_code == 201
        await page.wait_for_selector("[data-news]:has-text('3 new')")


async def test_the_page_of_a_task_follows_its_edits(app: App, alice, browse, receiver):
    await create(alice, receiver.url)
    async with browse(app) as page:
        await page.goto(f"{app.url}/dashboard/tasks/one")
        await is_live(page)
        steady = await shifted(page)
        await patch(alice, "one", name="Another name", status="paused")
        await page.wait_for_selector("h1:has-text('Another name'):has-text('paused')")
        await page.wait_for_selector("button:text-is('Resume')")
        # What would move the rest of the page waits to be asked for.
        assert await shifted(page) == steady
        await page.click("[data-news] >> nth=0")
        await page.wait_for_selector(".said.warn:has-text('Paused')")

        menu = page.locator("details.menu")
        await menu.locator("summary").click()
        await menu.locator("input[name=reason]").fill("a move")
        async with page.expect_response("**/dashboard/tasks/one"):
            await patch(alice, "one", name="A third name")
        assert await page.inner_text("[data-slot='task:one:version']") == "3"
        assert await menu.locator("input[name=reason]").input_value() == "a move"
        assert (await alice.delete("/tasks/one")).status_code < 300
        await page.wait_for_selector("h1:has-text('deleted')")
