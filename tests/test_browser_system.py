"""A walk in a real browser: an admin, a service of theirs, and a calendar that moves a preview."""

from datetime import UTC, datetime, timedelta

from browsing import accessible, browsing
from conftest import RunApp
from screenshots import sign_in
from test_admin_pages import ADMIN

HOME = "/dashboard/admin"


async def test_an_admin_makes_a_service_and_the_service_a_calendar(run_app: RunApp, chrome):
    async with (
        run_app(ADMIN_TOKEN=ADMIN) as app,
        browsing(chrome, app, None, timezone_id="Asia/Tokyo") as admin,
    ):
        await admin.goto(f"{app.url}/dashboard")
        await admin.click("text=Sign in as admin")
        await admin.fill("[name=token]", ADMIN)
        await admin.click("main button")
        await admin.wait_for_selector("h1:has-text('Services')")
        await accessible(admin)
        await _reads_as_elsewhere(admin)
        await admin.fill("[name=name]", "carol")
        await admin.click("text=Create service")
        token = await admin.inner_text("[aria-label=Token]")
        assert token not in admin.url and "carol" in await admin.inner_text("h1")
        await admin.click("text=Done")
        await admin.wait_for_selector("h2:has-text('Tokens')")
        await accessible(admin)
        assert token not in await admin.content()
        async with browsing(chrome, app, None) as carol:
            await sign_in(carol, app.url, "carol", token)
            await _makes_a_calendar(app, carol, token)
            await admin.click("text=New token")
            newer = await admin.inner_text("[aria-label=Token]")
            await admin.click("text=Done")
            await admin.click("[aria-label^=Revoke] >> nth=1")
            await admin.wait_for_selector("text=The token is revoked")
            await carol.goto(f"{app.url}/dashboard/settings")
            await carol.wait_for_selector("h1:has-text('Sign in')")
            await sign_in(carol, app.url, "carol", newer)
        await admin.click("text=Sign out")
        await admin.wait_for_selector("h1:has-text('Sign in as admin')")
        await admin.goto(f"{app.url}{HOME}")
        assert admin.url.endswith("/sign-in")


async def _reads_as_elsewhere(admin) -> None:
    """Times are in the reader's zone, and keys lead on."""
    assert await admin.inner_text("[data-zone-name]") == "Asia/Tokyo"
    await admin.keyboard.press("?")
    await admin.wait_for_selector("dialog[open] h2:has-text('Keys')")
    await admin.keyboard.press("Escape")
    await admin.keyboard.press("n")
    await admin.keyboard.press("j")
    await admin.keyboard.press("Enter")
    await admin.wait_for_selector("time[title*='Asia/Tokyo']")
    await admin.keyboard.press("g")
    await admin.keyboard.press("s")
    await admin.wait_for_url("**/dashboard/admin/system")
    await admin.keyboard.press("g")
    await admin.keyboard.press("o")
    await admin.wait_for_selector("h1:has-text('Services')")


async def _makes_a_calendar(app, page, token: str) -> None:
    first = datetime.now(UTC).date() + timedelta(days=100)
    second = first + timedelta(days=1)
    async with app.client(None, service_id="carol", token=token) as api:
        await page.goto(f"{app.url}/dashboard/calendars")
        await page.click("main a:has-text('New calendar')")
        await page.fill("[name=name]", "rest")
        await page.fill("[name=dates]", "soon")
        await page.click("text=Create calendar")
        await page.wait_for_selector("#wrong-dates")
        refused = page.complaints.pop()
        assert "400" in refused
        await accessible(page)
        await page.fill("[name=dates]", f"{first}")
        await page.click("text=Create calendar")
        await page.wait_for_selector("h1:has-text('rest')")
        task = {"name": "Nightly", "url": "http://127.0.0.1:9/", "cron": "0 3 * * *"}
        await api.post("/tasks", json={**task, "id": "night", "calendars": ["rest"]})
        await page.click("main a:has-text('Edit')")
        await page.fill("[name=dates]", f"{second}")
        await page.click("text=Preview the effect")
        await page.wait_for_selector("text=runs no more")
        await page.click("main button:has-text('Save')")
        await page.wait_for_selector("text=The calendar is changed")
        await page.goto(f"{app.url}/dashboard/calendars/rest?year={second.year}")
        assert await page.get_attribute("td.all", "title") == "a date"
        await accessible(page)
        from_ = f"{first}T00:00:00Z"
        found = (await api.get("/tasks/night/preview", params={"from": from_})).json()
        notes = [each["note"] for each in found["occurrences"][:2]]
        assert notes == [None, "skipped: calendar rest"]
        for path in ("system", "settings"):
            await page.goto(f"{app.url}/dashboard/{path}")
            await page.wait_for_selector("h1")
            await accessible(page)
