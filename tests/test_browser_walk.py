"""A day at the dashboard, from sign-in to sign-out, as somebody sees it who keeps it open."""

from typing import Any

from browsing import accessible, shifted
from conftest import App, RunApp

BERLIN = "Europe/Berlin"


async def make(page: Any, app: App, name: str, **fields: str) -> None:
    """Make a task by the form; `trigger` and `action` are chosen, all else is typed."""
    await page.goto(f"{app.url}/dashboard/new")
    for choice in ("action", "trigger"):
        if choice in fields:
            await page.check(f"[name={choice}][value={fields.pop(choice)}]", force=True)
    for field, value in {"name": name, "id": name, **fields}.items():
        await page.fill(f"[name={field}]", value)
    await page.click("[data-save]")
    await page.wait_for_selector(f"h1:has-text('{name}')")


async def test_tasks_are_made_seen_to_fire_changed_paused_and_left(
    run_app: RunApp, browse, receiver, commands_on
):
    settings = {**commands_on, "EGRESS_ALLOW": "127.0.0.1"}
    async with run_app(**settings) as app, browse(app, timezone_id=BERLIN) as page:
        await make(page, app, "often", url=receiver.url, frequency="3600")
        await make(page, app, "mornings", url=receiver.url, trigger="cron", cron="30 7 * * MON-FRI")
        await make(page, app, "words", action="command", command="echo ended", trigger="manual")

        # It fires while one looks on: the row is in its place, each cell under its own head.
        await page.goto(f"{app.url}/dashboard/tasks/words")
        await page.wait_for_selector("[data-live=live]")
        await page.click("[data-key=r]")
        await page.wait_for_selector("[data-run] [data-name=State] .succeeded")
        async with app.client("alice") as alice:
            [run] = (await alice.get("/runs?task=words")).json()["runs"]
            await page.reload()
            await page.wait_for_selector("[data-live=live]")
            await alice.post(f"/runs/{run['id']}/replay")
        await page.wait_for_selector("[data-run] [data-name=Attempts]:text-is('2')")
        row = page.locator("[data-run]")
        assert "succeeded" in await row.locator("[data-name=State]").inner_text()
        assert "by hand" in await row.locator("[data-name='Scheduled for']").inner_text()
        assert await shifted(page) < 0.01

        # The list names the task, whatever its id is, and begins with what was due.
        await page.goto(f"{app.url}/dashboard/runs")
        assert await page.inner_text("[data-run] [data-name=Task] a") == "words"
        assert await page.locator("[data-run] .scheduled").count() == 0
        await in_the_readers_zone(page, app)
        await by_keys(page, app)
        await page.click("text=Sign out")
        await page.wait_for_selector("[name=token]")
        await page.goto(f"{app.url}/dashboard/tasks/words")
        assert await page.locator("h1:has-text('words')").count() == 0
        assert await page.locator("[name=token]").count() == 1


async def in_the_readers_zone(page: Any, app: App) -> None:
    """Fail where a chart tells another time than the page around it."""
    await page.goto(f"{app.url}/dashboard")
    drawn = await page.locator(".chart").all_inner_texts()
    told = await page.locator(".chart title").all_text_contents()
    assert told and not [text for text in [*drawn, *told] if "UTC" in text]


async def by_keys(page: Any, app: App) -> None:
    """Pause a task and make it active again, by keys alone; its signs are seen whole."""
    await page.goto(f"{app.url}/dashboard/tasks")
    await page.keyboard.press("j")
    row = page.locator("[data-row].current")
    for wide in await row.locator(".sign").evaluate_all("all => all.map(e => e.clientWidth)"):
        assert wide == 12
    run = row.locator("button[value=run]")
    assert await run.evaluate("e => e.scrollWidth <= e.clientWidth")
    await page.keyboard.press("p")
    await row.locator(".on.paused").wait_for()
    await page.keyboard.press("p")
    await row.locator(".on.active").wait_for()
    await accessible(page)
    await page.set_viewport_size({"width": 360, "height": 640})
    search = await page.locator("[data-search]").bounding_box()
    assert search is not None and search["width"] > 200
