"""A day at the dashboard, from sign-in to sign-out, as somebody sees it who keeps it open."""

from typing import Any

from browsing import shifted
from conftest import App, RunApp

BERLIN = "Europe/Berlin"
PLACES = ("", "/tasks", "/runs", "/timeline", "/apis", "/calendars", "/system", "/settings", "/new")


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
        state = page.locator("[data-run] [data-name=State]")
        assert "succeeded" in await state.inner_text() and "by hand" in await state.inner_text()
        assert await shifted(page) < 0.01
