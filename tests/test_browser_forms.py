"""Forms in a real browser: times in the reader's zone, one secret of two clicks, nothing lost."""

import re

from conftest import TOKENS, App
from scheduler.dashboard import door

BERLIN = "Europe/Berlin"


async def test_times_are_the_readers_two_clicks_are_one_and_what_was_typed_comes_back(
    app: App, alice, browse, conn
):
    await alice.post("/tasks", json={"id": "t", "name": "t", "url": "http://127.0.0.1:9/"})
    async with browse(app, timezone_id=BERLIN) as page:
        await page.goto(f"{app.url}/dashboard/runs")
        await page.get_by_label(f"From, in {BERLIN}").fill("2037-07-01T09:00:00")
        await page.click("main form.filter button")
        await page.wait_for_url("**from=2037-07-01T07%3A00%3A00.000Z*")
        assert "times_in" not in page.url
        assert await page.input_value("[name=from]") in ("2037-07-01T09:00", "2037-07-01T09:00:00")

        await page.goto(f"{app.url}/dashboard/settings")
        sent = []
        page.on("request", lambda r: sent.append(r.url) if r.method == "POST" else None)
        await page.dblclick("text=New signing secret")
        await page.wait_for_selector("pre:has-text('whsec_')")
        assert len([each for each in sent if each.endswith("/signing")]) == 1

        await page.goto(f"{app.url}/dashboard/new")
        await page.fill("[name=name]", "Typed before it ended")
        await conn.execute("DELETE FROM session")
        await page.fill("[name=frequency]", "15")
        await page.wait_for_selector(".toast:has-text('You are signed out')")
        await page.click("[data-save]")
        await page.fill("[name=service]", "alice")
        await page.fill("[name=token]", "x")
        await page.click("main button")
        await page.wait_for_selector("#said")
        page.complaints[:] = [each for each in page.complaints if not re.search("40[13]", each)]
        await page.fill("[name=token]", TOKENS["alice"])
        await page.click("main button")
        await page.wait_for_selector("h1:has-text('New task')")
        assert await page.input_value("[name=name]") == "Typed before it ended"
        assert await page.input_value("[name=frequency]") == "15"
        assert door.SHOWN in await page.inner_text("main")
    assert [each["id"] for each in (await alice.get("/tasks")).json()] == ["t"]
