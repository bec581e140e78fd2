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
        assert await page.locator(".tile.of-succeeded strong").inner_text() == "5"
        assert await shifted(page) < 0.01
        await accessible(page)

        title = page.locator(".plot a title", has_text="5 succeeded").first
        assert "1 failed, 1 expired, 1 cancelled, 5 succeeded" in await title.text_content()
        fills = await page.locator(".plot a rect.mark").evaluate_all(
            "marks => new Set(marks.map(m => getComputedStyle(m).fill)).size"
        )
        assert fills == 4  # a hatch each, and one plain

        await ended(app, conn, "succeeded")
        await page.locator(".tile.of-succeeded strong", has_text="6").wait_for(timeout=15_000)

        await page.set_viewport_size({"width": 360, "height": 700})
        wide = await page.evaluate("document.documentElement.scrollWidth")
        assert wide <= 360
        await page.emulate_media(color_scheme="dark")
        await accessible(page)

        await page.locator(".spans a", has_text="7d").click()
        await page.wait_for_url("**/dashboard?span=7d")
        await page.locator(".tile.of-failed a").click()
        await page.wait_for_url("**/dashboard/runs?state=failed,expired&from=*")
