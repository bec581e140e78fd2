"""Open pages in a real browser: what changes in place, what is counted, and what stops."""

from typing import Any

from browsing import accessible, shifted
from conftest import App, eventually
from test_live import create, run

BADGE = "[data-live]"
HIDE = """hidden => {
    Object.defineProperty(document, "hidden", {configurable: true, get: () => hidden});
    document.dispatchEvent(new Event("visibilitychange"));
}"""


async def is_live(page: Any) -> None:
    await page.wait_for_selector("[data-live=live]")


async def test_runs_come_in_without_a_reload(app: App, browse, alice, receiver):
    await create(alice, receiver.url)
    first = await run(alice)
    async with browse(app) as page:
        await page.goto(f"{app.url}/dashboard/runs")
        await is_live(page)
        assert await page.inner_text(BADGE) == "Live"
        await page.evaluate("window.same = true")
        link = page.locator(f"[data-run='{first}'] a").first
        await link.focus()
        second = await run(alice)
        await page.wait_for_selector("[data-news]:has-text('1 new')")
        assert await page.locator(f"[data-run='{second}']").count() == 0
        assert await shifted(page) == 0
        await page.click("[data-news]")
        await page.wait_for_selector(f"[data-run='{second}'] .state:has-text('succeeded')")
        assert await page.locator("[data-news]").count() == 0
        assert await page.evaluate("window.same")
        await accessible(page)


async def test_a_row_changes_in_place_and_the_tail_follows(app: App, browse, alice, receiver, conn):
    await create(alice, receiver.url)
    async with browse(app) as page:
        await page.goto(f"{app.url}/dashboard/runs?tail=1&kind=manual")
        await is_live(page)
        first = await run(alice)
        await page.wait_for_selector(f"[data-run='{first}'] .state:has-text('succeeded')")
        await page.locator(f"[data-run='{first}'] a").first.focus()
        # Somebody replays it: the same row goes on.
        took = page.locator(f"[data-run='{first}'] td[data-name=Attempts]")
        assert (await took.inner_text()).strip() == "1"
        await alice.post(f"/runs/{first}/replay")
        await page.wait_for_selector(
            f"[data-run='{first}'] td[data-name=Attempts]:text-is('2')", timeout=10_000
        )
        assert await page.locator(f"[data-run='{first}']").count() == 1
        assert await page.evaluate("document.activeElement.closest('[data-run]') !== null")
        await page.click("[data-tail-pause]")
        await run(alice)
        await page.wait_for_selector("[data-news]:has-text('1 new')")
        assert await page.locator("[data-run]").count() == 1
        await page.click("[data-tail-pause]")
        await eventually(lambda: rows(page, 2))


async def test_a_row_on_the_page_of_its_task_keeps_its_columns(app: App, browse, alice, receiver):
    await create(alice, receiver.url)
    run_id = await run(alice)
    async with browse(app) as page:
        await page.goto(f"{app.url}/dashboard/tasks/one")
        await is_live(page)
        await alice.post(f"/runs/{run_id}/replay")
        cells = f"[data-run='{run_id}'] td"
        await page.wait_for_selector(f"{cells}[data-name=Attempts]:text-is('2')")
        assert await page.inner_text(f"{cells}[data-name=State]") == "succeeded"
        assert await page.locator(cells).count() == 6


async def rows(page: Any, most: int) -> None:
    assert await page.locator("[data-run]").count() == most


async def test_a_hidden_page_rests_and_catches_up(app: App, browse, alice, receiver):
    await create(alice, receiver.url)
    async with browse(app) as page:
        await page.clock.install()
        await page.goto(f"{app.url}/dashboard/runs")
        await is_live(page)
        await page.evaluate(HIDE, True)
        await page.wait_for_selector("[data-live=paused]")
        await eventually(lambda: watched(app, 0))
        run_id = await run(alice)
        await eventually(lambda: ended(alice, run_id))
        await page.clock.fast_forward(5000)  # by the page's clock it was away for long
        async with page.expect_response("**/dashboard/runs"):
            await page.evaluate(HIDE, False)
        await is_live(page)
        await page.wait_for_selector("[data-news]:has-text('1 new'), [data-run]")


async def ended(client: Any, run_id: str) -> None:
    assert (await client.get(f"/runs/{run_id}")).json()["state"] == "succeeded"


def watched(app: App, most: int) -> None:
    assert len(app.server.server_state.tasks) <= most
