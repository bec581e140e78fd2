"""In a browser: an API is registered and seen getting on, tried, and a run of it replayed."""

import json

from browsing import accessible, shifted
from conftest import RunApp
from test_apis_page import document


async def test_an_api_is_registered_tried_and_a_run_replayed(run_app: RunApp, browse, receiver):
    receiver.then(404, b'{"error": "no such pet"}').then(200, b'{"id": 7, "name": "Rex"}')
    async with run_app(EGRESS_ALLOW="127.0.0.1") as app, browse(app) as page:
        await page.goto(f"{app.url}/dashboard/apis")
        await page.click("text=Register an API")
        await page.fill("[name=name]", "Pets")
        rows = page.locator(".pair")
        await rows.last.locator("[name=header_name]").fill("x-key")
        assert await rows.count() == 4
        await rows.nth(2).locator("[name=header_value]").fill("planted")
        await page.fill("[name=spec]", json.dumps(document(receiver.url)))
        await accessible(page)
        await page.click("button:has-text('Register API')")
        await page.wait_for_selector(".state:has-text('success')")
        await page.wait_for_selector("a:has-text('GET /pets/{id}')")
        await accessible(page)

        await page.click("a:has-text('POST /pets')")
        await page.fill("[name=body]", "{}")
        assert await page.is_checked("[value=raw]")
        await page.go_back()
        await page.click("a:has-text('GET /pets/{id}')")
        assert await page.input_value("[name='path:id']") == "1"
        await page.fill("[name='path:id']", "seven")
        await page.click("button:has-text('Call it')")
        await page.wait_for_selector(".wrong:has-text('integer')")
        await accessible(page)
        await page.fill("[name='path:id']", "7")
        await page.click("button:has-text('Call it')")
        await page.wait_for_url("**/dashboard/runs/*")
        await page.wait_for_selector("h1 .state:has-text('failed')")
        await page.wait_for_selector("pre:has-text('no such pet')")
        await accessible(page)

        await page.click("button:has-text('Replay')")
        await page.wait_for_selector("h1 .state:has-text('succeeded')")
        await page.wait_for_selector("pre:has-text('Rex')")
        assert await page.locator("svg.waterfall").count() == 2
        assert [one.path for one in receiver.requests] == ["/pets/7", "/pets/7"]
        await page.set_viewport_size({"width": 360, "height": 640})
        assert await page.evaluate("document.documentElement.scrollWidth") <= 360
        assert await shifted(page) < 0.02
        page.complaints[:] = [each for each in page.complaints if "400" not in each]
