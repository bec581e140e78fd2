"""The form of a task in a real browser: each kind, the preview, errors, secrets, keys, a phone."""

from typing import Any

from browsing import accessible, shifted
from conftest import App, eventually

NEW = "/dashboard/new"


async def chosen(page: Any, name: str, value: str) -> None:
    await page.check(f"[name={name}][value={value}]", force=True)


async def saved(page: Any, heading: str) -> None:
    await page.click("[data-save]")
    await page.wait_for_selector(f"h1:has-text('{heading}')")


async def test_each_kind_of_task_is_made_and_its_next_runs_are_seen_before(
    app: App, alice, browse, receiver
):
    async with browse(app, timezone_id="Europe/Berlin") as page:
        await page.goto(app.url + NEW)
        assert await page.input_value("[name=times_in]") == "Europe/Berlin"
        assert not await page.is_visible("[name=cron]") and not await page.is_visible("[name=env]")
        await accessible(page)
        await page.fill("[name=name]", "By interval")
        await page.fill("[name=id]", "interval")
        await page.fill("[name=url]", receiver.url)
        await page.fill("[name=frequency]", "15")
        await page.wait_for_selector(".words:has-text('Every 15 minutes')")
        assert await page.locator("[data-preview] li").count() == 10
        await saved(page, "By interval")

        await page.goto(app.url + NEW)
        await page.fill("[name=name]", "By rule")
        await page.fill("[name=url]", receiver.url)
        await chosen(page, "trigger", "rrule")
        rule = "DTSTART;TZID=Europe/Berlin:20370327T023000\nRRULE:FREQ=DAILY;COUNT=4"
        await page.fill("[name=rrule]", rule)
        note = page.locator(".note")
        await note.wait_for()
        moved = page.locator("[data-preview] li", has=note)
        assert "Sun 2037-03-29 03:30:00 +02:00" in await moved.inner_text()
        await page.fill("[name=rrule]", "FREQ=SOMETIMES")
        await page.wait_for_selector("#e-rrule:not(:empty)")
        assert await page.get_attribute("[name=rrule]", "aria-invalid") == "true"
        await page.fill("[name=rrule]", rule)
        await page.wait_for_selector("#e-rrule:empty", state="attached")
        await saved(page, "By rule")

        await page.goto(app.url + NEW)
        await page.fill("[name=name]", "Once")
        await page.fill("[name=url]", receiver.url)
        await chosen(page, "trigger", "once")
        await page.fill("[name=scheduled_at]", "2037-01-31T09:00")
        await page.wait_for_selector(".words:has-text('2037-01-31T08:00')")
        await saved(page, "Once")
        assert await shifted(page) < 0.1
    kinds = {task["name"]: task for task in (await alice.get("/tasks")).json()}
    assert kinds["By interval"]["frequency"] == 15 and "COUNT=4" in kinds["By rule"]["rrule"]
    assert kinds["Once"]["scheduled_at"] == "2037-01-31T08:00:00.000Z"


async def test_a_curl_command_becomes_a_task_that_is_tried_edited_and_keeps_its_secret(
    app: App, alice, browse, receiver
):
    async with browse(app) as page:
        await page.goto(app.url + NEW)
        await page.click("text=Paste a curl command")
        await page.fill(
            "[name=curl]",
            f"curl {receiver.url}/hook -H 'Authorization: Bearer planted' "
            "-H 'Content-Type: text/plain' --data-raw 'hello' -k",
        )
        await page.click("text=Fill in")
        await page.wait_for_selector("text=-k is left out")
        assert await page.input_value("[name=payload]") == "hello"
        await page.click("[data-try]")
        await page.wait_for_selector(".trial:has-text('succeeded')")
        assert receiver.requests[0].body == b"hello"
        await page.click("[data-save]")
        await page.wait_for_selector("#e-name:not(:empty)")
        assert await page.evaluate("document.activeElement.name") == "name"
        assert await page.input_value("[name=payload]") == "hello"
        page.complaints.clear()  # the browser notes the status 400
        await chosen(page, "trigger", "manual")
        await page.fill("[name=name]", "Hook")
        await page.fill("[name=id]", "hook")
        await saved(page, "Hook")

        await page.goto(f"{app.url}/dashboard/tasks/hook/edit")
        assert "planted" not in await page.content()
        await page.click("[data-add=header]")
        await page.keyboard.type("X-More")
        await page.keyboard.press("Tab")
        await page.keyboard.type("more")
        await page.click("[data-drop][aria-label$='Content-Type']")
        await page.fill("[name=name]", "Hook 2")
        await accessible(page)
        await saved(page, "Hook 2")
        await alice.post("/tasks/hook/execute")
        got = receiver.requests[-1]
        assert (got.header("authorization"), got.header("x-more")) == ("Bearer planted", "more")
        assert got.header("content-type") is None

        await page.goto(f"{app.url}/dashboard/tasks/hook/copy")
        await accessible(page)
        await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        await page.click("[data-copies=c-call]")
        await page.wait_for_selector("[data-copies=c-call]:has-text('Copied')")
        copied = await page.evaluate("navigator.clipboard.readText()")
        assert "curl " in copied and "X-More: more" in copied and "********" in copied


async def test_by_keys_alone_and_on_a_phone_in_the_dark(app: App, alice, browse, receiver):
    size = {"width": 360, "height": 640}
    async with browse(app, viewport=size, color_scheme="dark") as page:
        await page.goto(app.url + NEW)
        await page.focus("[name=name]")
        await page.keyboard.type("By keys")
        await page.focus("[name=action][value=http]")
        await page.keyboard.press("ArrowRight")
        assert await page.is_checked("[name=action][value=operation]")
        await page.keyboard.press("ArrowLeft")
        await page.focus("[name=url]")
        await page.keyboard.type(receiver.url)
        await page.focus("[name=trigger][value=interval]")
        await page.keyboard.press("ArrowRight")
        await page.focus("[name=cron]")
        await page.keyboard.type("0 9 * * *")
        await page.wait_for_selector("[data-preview] li")
        assert await page.evaluate("document.documentElement.scrollWidth") <= 360
        await accessible(page)
        await page.focus("[name=cron]")
        await page.keyboard.press("Enter")
        await page.wait_for_selector("h1:has-text('By keys')")

        async def there() -> None:
            [task] = (await alice.get("/tasks")).json()
            assert task["cron"] == "0 9 * * *"

        await eventually(there)


async def test_without_script_the_form_does_it_all(app: App, alice, browse, receiver):
    async with browse(app, java_script_enabled=False) as page:
        await page.goto(app.url + NEW)
        await page.fill("[name=name]", "Plain")
        await page.fill("[name=url]", receiver.url)
        await page.fill("[name=frequency]", "5")
        await page.click("text=Preview")
        assert "Every 5 minutes" in await page.inner_text("[data-preview]")
        await page.click("text=Add a header")
        await page.fill("[name=header]", "X-A")
        await page.fill("[name=value]", "1")
        await page.click("[data-try]")
        assert "succeeded" in await page.inner_text("[data-trial]")
        assert receiver.requests[0].header("x-a") == "1"
        await page.click("[data-save]")
        assert "Plain" in await page.inner_text("h1")
    [task] = (await alice.get("/tasks")).json()
    assert (task["frequency"], task["header"]) == (5, {"X-A": "1"})
