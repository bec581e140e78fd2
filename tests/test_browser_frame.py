"""What holds for every page in a browser: hostile text, axe, phones, keys, times, what is undone."""

import base64
import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import httpx

from browsing import accessible, shifted
from conftest import App, RunApp, eventually
from receiver import Answer, Receiver
from test_command_tasks import allow

HOSTILE = (
    '</title></script><script>planted()</script>"><img src=x onerror=planted()>'
    "'onfocus=planted() autofocus x='{{7*7}}\u202egnp\u2066\u200b\u00ad"
)
"""What ends a title, a script, an attribute; and what turns text around, or is not seen."""
LONG = HOSTILE + "\x1b[31m\x1b]0;x\x07" + "x" * 1_000_000
WORD = "W" * 100 + "<marquee>"
FORBIDDEN = re.compile("[\u202a-\u202e\u2066-\u2069\u200b\u00ad\x1b\x07]")

PAGES = [
    "/dashboard",
    "/dashboard?span=7d",
    "/dashboard/tasks",
    "/dashboard/tasks?q=W&status=active",
    "/dashboard/tasks/hostile",
    "/dashboard/tasks/hostile/edit",
    "/dashboard/new",
    "/dashboard/runs",
    "/dashboard/timeline",
    "/dashboard/apis",
    "/dashboard/calendars",
    "/dashboard/calendars/off",
    "/dashboard/system",
    "/dashboard/settings",
    "/dashboard/changes",
    "/dashboard/nothing/here",
]


def document(url: str) -> str:
    """A specification whose every text is hostile."""
    parameter = {"name": WORD, "in": "query", "description": HOSTILE, "schema": {"type": "string"}}
    operation = {
        "summary": HOSTILE,
        "description": HOSTILE,
        "parameters": [parameter],
        "responses": {"200": {"description": HOSTILE}},
    }
    made = {
        "openapi": "3.1.0",
        "info": {"title": HOSTILE, "version": HOSTILE, "description": HOSTILE},
        "servers": [{"url": url, "description": HOSTILE}],
        "paths": {f"/{WORD}": {"get": operation}},
    }
    return base64.b64encode(json.dumps(made).encode()).decode()


async def hostile(client: httpx.AsyncClient, receiver: Receiver) -> list[str]:
    """Put hostile texts wherever one may be put; return the pages of what has an id of its own."""
    odd = HOSTILE.encode("ascii", "ignore").decode()
    receiver.otherwise = Answer(500, LONG.encode(), {"X-Odd": odd})
    task = {
        "id": "hostile", "name": HOSTILE, "description": HOSTILE + WORD, "tags": [HOSTILE[:60], WORD[:60]],
        "url": f"{receiver.url}/{WORD}?token=Bearer+of+news&q=%3Cscript%3E", "method": "POST", "payload": LONG[:100_000],
        "header": {"X-Odd": odd, "Authorization": "Bearer of news"},
        "cron": "0 5 * * *", "calendars": ["off"], "max_retries": 0,
    }  # fmt: skip
    new = {"name": "off", "dates": [f"{datetime.now(UTC) + timedelta(days=1):%Y-%m-%d}"]}
    sent = [await client.post("/calendars", json={**new, "description": HOSTILE})]
    sent.append(await client.post("/tasks", json=task))
    command = {"id": "shell", "name": WORD, "command": f"printf '%s' \"$ODD\"; exit 3 # {WORD}"}
    command |= {"env": {"ODD": HOSTILE * 100}, "max_retries": 0, "frequency": 1, "unit": "day"}
    sent.append(await client.post("/tasks", json=command))
    runs = [await client.post(f"/tasks/{each}/execute") for each in ("hostile", "shell")]
    spec = {
        "name": HOSTILE[:60],
        "spec": document(receiver.url),
        "headers": {"X-Key": "Bearer of news"},
    }
    made = await client.post("/v1/api/spec", json=spec)
    assert [each.status_code for each in [*sent, *runs, made]] == [201, 201, 201, 200, 200, 200]
    trace = made.json()["trace_id"]

    async def read() -> None:
        status = (await client.get(f"/v1/api/spec/{trace}/status")).json()["status"]
        assert status in ("SUCCESS", "ERROR")

    await eventually(read, within=20)
    ids = [each.json()["run_id"] for each in runs]
    return [*(f"/dashboard/runs/{each}" for each in ids), f"/dashboard/apis/{trace}"]


async def test_nothing_that_others_wrote_does_anything_on_any_page(
    run_app: RunApp, receiver, browse, commands_on
):
    async with run_app(EGRESS_ALLOW="127.0.0.1", **commands_on) as app:
        await allow(app, "alice", allowed=True)
        async with app.client("alice") as alice:
            own = await hostile(alice, receiver)
        async with browse(app) as page:
            page.on("dialog", lambda dialog: page.complaints.append(dialog.message))
            for path in [*PAGES, *own]:
                await harmless(page, app, path)
            await page.set_viewport_size({"width": 360, "height": 720})
            for path in [*PAGES, *own]:
                await page.goto(app.url + path)
                assert await page.evaluate("document.documentElement.scrollWidth") <= 360, path
            page.complaints[:] = [each for each in page.complaints if "404" not in each]


# Of the fields in which one changes what was written, the values are as they are.
LOOK = """() => ({
    planted: document.querySelectorAll("main img, marquee, [onfocus], [onerror], script:not([src])").length,
    scripts: document.scripts.length,
    attributes: [...document.querySelectorAll("*")].flatMap(each => [...each.attributes])
        .filter(each => each.name !== "value" && each.name !== "data-text").map(each => each.value).join(" "),
    text: document.title + [...document.querySelectorAll("main *")].filter(each => each.tagName !== "TEXTAREA")
        .flatMap(each => [...each.childNodes]).filter(each => each.nodeType === 3)
        .map(each => each.data).join(" "),
})"""


async def harmless(page: Any, app: App, path: str) -> None:
    """Fail where what others wrote is more than text, or turns or hides other text."""
    await page.goto(app.url + path)
    found = await page.evaluate(LOOK)
    assert (found["planted"], found["scripts"]) == (0, 1), path
    for seen in (found["text"], found["attributes"]):
        assert FORBIDDEN.search(seen) is None, (path, FORBIDDEN.search(seen))
        assert not re.search(r"Bearer.of", seen) and "{{49}}" not in seen and len(seen) < 200_000, (
            path
        )


async def test_every_page_is_for_everybody(run_app: RunApp, receiver, browse):
    async with run_app(EGRESS_ALLOW="127.0.0.1") as app:
        async with app.client("alice") as alice:
            task = {"id": "hostile", "name": "Morning report", "url": receiver.url,
                    "frequency": 1, "unit": "second", "tags": ["daily"]}  # fmt: skip
            await alice.post("/tasks", json=task)
            await alice.post("/calendars", json={"name": "off", "dates": ["2027-01-01"]})
            ran = (await alice.post("/tasks/hostile/execute?wait=true")).json()["run_id"]
            await alice.patch("/tasks/hostile", json={"status": "paused"})
        async with browse(app, timezone_id="Asia/Tokyo") as page:
            for path in [*PAGES, f"/dashboard/runs/{ran}"]:
                await page.goto(app.url + path)
                assert await shifted(page) < 0.01, path
                await accessible(page)
                await page.emulate_media(color_scheme="dark")
                await accessible(page, "color-contrast")
                await page.emulate_media(color_scheme="light")
                found = await page.locator("nav [aria-current=page]").count()
                assert found == (0 if "nothing" in path else 1), path
                assert await page.locator("main h1").count() == 1, path
            page.complaints[:] = [each for each in page.complaints if "404" not in each]
        async with browse(app, service=None) as page:
            await page.goto(f"{app.url}/dashboard")
            await accessible(page)


async def test_keys_lead_everywhere_and_can_be_put_out(app: App, browse):
    async with app.client("alice") as alice:
        for n in range(3):
            new = {"id": f"t{n}", "name": f"T{n}", "url": "http://127.0.0.1:9/"}
            await alice.post("/tasks", json={**new, "frequency": 1, "unit": "day"})
    async with browse(app) as page:
        for keys, path in (("t", "/tasks"), ("r", "/runs"), ("l", "/timeline"), ("a", "/apis"),
                           ("c", "/calendars"), ("s", "/system"), ("o", "/")):  # fmt: skip
            await page.keyboard.press("g")
            await page.keyboard.press(keys)
            await page.wait_for_url(f"{app.url}/dashboard{path}".rstrip("/") + "*")
        await page.goto(f"{app.url}/dashboard/tasks")
        await page.keyboard.press("j")
        await page.keyboard.press("j")
        await page.keyboard.press("x")
        row = page.locator("[data-row].current")
        assert "T1" in await row.inner_text()
        assert await row.locator("input[type=checkbox]").first.is_checked()
        await page.keyboard.press("/")
        await page.keyboard.type("jx?")
        assert await page.input_value("[data-search]") == "jx?"
        await page.keyboard.press("Escape")
        await page.keyboard.press("k")
        await page.keyboard.press("Enter")
        await page.wait_for_url(f"{app.url}/dashboard/tasks/t*")
        await page.keyboard.press("n")
        await page.wait_for_url(f"{app.url}/dashboard/new")
        await page.locator("h1").click()
        await page.keyboard.press("?")
        await page.wait_for_selector("dialog[open]")
        await accessible(page)
        await page.uncheck("[data-keys-on]")
        await page.keyboard.press("Escape")
        await page.keyboard.press("g")
        await page.keyboard.press("t")
        assert page.url.endswith("/new")
        await page.click("[data-open=keys]")
        await page.check("[data-keys-on]")
        await page.click("dialog button")
        await page.keyboard.press("g")
        await page.keyboard.press("t")
        await page.wait_for_url(f"{app.url}/dashboard/tasks")


async def test_times_are_the_readers_and_stay_true(app: App, browse):
    zone = "Europe/Berlin"
    at = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=30)
    async with app.client("alice") as alice:
        once = {
            "id": "t",
            "name": "T",
            "url": "http://127.0.0.1:9/",
            "scheduled_at": at.isoformat(),
        }
        assert (await alice.post("/tasks", json=once)).status_code == 201
    async with browse(app, timezone_id=zone) as page:
        await page.goto(f"{app.url}/dashboard/tasks")
        time = page.locator(f"tbody time[datetime^='{at:%Y-%m-%dT%H:%M:%S}']").first
        local = f"{at.astimezone(ZoneInfo(zone)):%Y-%m-%d %H:%M:%S}"
        assert local in await time.inner_text() and "in 1 d" in await time.inner_text()
        title = await time.get_attribute("title")
        assert local in title and f"{at:%Y-%m-%d %H:%M:%S} UTC" in title
        assert await page.inner_text("[data-zone-name]") == zone
        made = """() => {
            const time = document.createElement("time");
            time.dateTime = new Date(scheduler_now + 1900).toISOString();
            time.innerHTML = "x <small>in 9 s</small>";
            document.querySelector("main").append(time);
        }"""
        await page.evaluate(made.replace("scheduler_now", "Date.now()"))
        await page.wait_for_selector("main > time small:text-is('now')")
        await page.wait_for_selector("main > time small:text-matches('^[1-9] s ago$')")
    async with browse(app, timezone_id=zone, java_script_enabled=False) as page:
        await page.goto(f"{app.url}/dashboard/tasks")
        assert f"{at:%Y-%m-%d %H:%M:%S}" in await page.locator("tbody time").first.inner_text()
        assert await page.inner_text("[data-zone-name]") == "UTC"


async def test_a_reader_whose_clock_is_wrong_is_told_the_right_distance(app: App, browse):
    at = datetime.now(UTC) + timedelta(minutes=90)
    async with app.client("alice") as alice:
        once = {
            "id": "t",
            "name": "T",
            "url": "http://127.0.0.1:9/",
            "scheduled_at": at.isoformat(),
        }
        assert (await alice.post("/tasks", json=once)).status_code == 201
    async with browse(app) as page:
        late = "(() => { const now = Date.now; Date.now = () => now() - 3600e3; })()"
        origin = "Object.defineProperty(performance, 'timeOrigin', {value: performance.timeOrigin - 3600e3})"
        await page.add_init_script(f"{late}; {origin}")
        await page.goto(f"{app.url}/dashboard/tasks")
        assert "in 1 h" in await page.locator("tbody time").first.inner_text()


async def test_the_frame_is_there_without_script_and_on_paper(app: App, browse):
    async with browse(app, java_script_enabled=False) as page:
        await page.goto(f"{app.url}/dashboard/timeline")
        await page.keyboard.press("Tab")
        assert await page.locator(".skip").evaluate("e => e === document.activeElement")
        await page.keyboard.press("Enter")
        assert page.url.endswith("#main")
        assert not await page.is_visible("[data-open=keys]")
        await page.emulate_media(media="print")
        assert not await page.is_visible("header") and await page.is_visible("main h1")
