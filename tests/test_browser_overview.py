"""The overview in a browser: what it shows, that it lives, and where it leads."""

from browsing import accessible, shifted
from conftest import App
from test_overview import HOSTILE, ended, make


async def test_the_overview_is_seen_and_leads_on(app: App, alice, conn, browse):
    async with browse(app) as page:
        assert await page.locator("pre.body").first.inner_text() != ""
        await accessible(page)
        await make(alice, name=HOSTILE)
        await ended(app, conn, *["succeeded"] * 5, "failed", "expired", "cancelled", reason=HOSTILE)
        await page.goto(f"{app.url}/dashboard?span=1h")
        assert await page.locator(".tile").count() == 6
        assert await page.locator("[data-slot='overview:succeeded'] strong").inner_text() == "5"
        assert await shifted(page) < 0.01
        await accessible(page)

        title = page.locator(".plot a title", has_text="5 succeeded").first
        assert "1 failed, 1 expired, 1 cancelled, 5 succeeded" in await title.text_content()
        fills = await page.locator(".plot a rect.mark").evaluate_all(
            "marks => new Set(marks.map(m => getComputedStyle(m).fill)).size"
        )
        assert fills == 4  # a hatch each, and one plain

        await ended(app, conn, "succeeded")
        await page.locator("[data-slot='overview:succeeded'] strong", has_text="6").wait_for(
            timeout=15_000
        )

        await page.set_viewport_size({"width": 360, "height": 700})
        wide = await page.evaluate("document.documentElement.scrollWidth")
        assert wide <= 360
        await page.emulate_media(color_scheme="dark")
        await accessible(page)

        await page.locator(".spans a", has_text="7d").click()
        await page.wait_for_url("**/dashboard?span=7d")
        await page.locator(".tile:has([data-slot='overview:failed']) a").click()
        await page.wait_for_url("**/dashboard/runs?state=failed,expired&from=*")


async def test_charts_and_notices_change_while_the_page_is_open(app: App, alice, conn, browse):
    await make(alice)
    await ended(app, conn, "succeeded")
    async with browse(app) as page:
        await page.goto(f"{app.url}/dashboard?span=24h")
        await page.wait_for_selector("[data-live=live]")
        steady = await shifted(page)
        chart = page.locator("[data-slot='overview-24h:runs']")
        assert await chart.locator("td:text-is('4')").count() == 0
        await chart.locator(".plot a").last.focus()
        await conn.execute("UPDATE task_state SET failures = 4, last = 'failed'")
        await ended(app, conn, *["failed"] * 4, reason="no answer")
        # Room is not made for what came up, until somebody asks for it.
        shown = page.get_by_role("button", name="Show what needs attention now")
        await shown.wait_for(timeout=20_000)
        assert await page.locator(".notices").count() == 0
        assert await page.evaluate("document.activeElement.closest('[data-slot]') !== null")
        assert await chart.locator("td:text-is('4')").count() == 0
        assert await shifted(page) == steady
        await shown.click()
        await page.locator(".notices", has_text="failed 4 times in a row").wait_for()
        # The chart is nobody's any more.
        await chart.locator("td:text-is('4')").wait_for(state="attached", timeout=20_000)
        await accessible(page)

        assert (await alice.patch("/tasks/nightly", json={"status": "paused"})).status_code == 200
        await page.mouse.move(1, 1)
        await page.evaluate("document.activeElement.blur()")
        await page.locator(".notices button", has_text="Resume").click(timeout=20_000)
        await page.wait_for_url("**/dashboard/tasks/nightly?done=resume")
