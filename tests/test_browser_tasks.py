"""The list of tasks in a real browser: select, act, undo, switch a status, all by keyboard."""

from typing import Any

from browsing import accessible, shifted
from conftest import App, eventually
from test_tasks_page import make, statuses

CHECKED = "input[name=id]:checked"


async def test_tasks_are_selected_paused_and_had_back(app: App, browse: Any, alice: Any) -> None:
    await make(alice, *(f"t{n}" for n in range(4)))
    async with browse(app) as page:
        await page.goto(f"{app.url}/dashboard/tasks")
        await accessible(page)
        await page.check("#task-t1 input[name=id]")
        await page.check("#task-t2 input[name=id]")
        await page.wait_for_selector("text=2 selected")
        await page.click("#bulk button:has-text('Pause')")
        await page.wait_for_selector("h1:has-text('Pause 2 tasks?')")
        await accessible(page)
        await page.click("main button:has-text('Pause 2 tasks')")
        await page.wait_for_selector(".notice:has-text('Paused 2 tasks.')")
        found = await statuses(alice)
        assert (found["t1"], found["t2"], found["t3"]) == ("paused", "paused", "active")
        await accessible(page)
        await page.click(".notice button:has-text('Undo')")
        await page.wait_for_selector(".notice:has-text('Active again: 2 tasks.')")
        assert set((await statuses(alice)).values()) == {"active"}

        await page.check("[data-every]")
        await page.wait_for_selector("text=4 selected")
        await page.uncheck("[data-every]")
        assert await page.locator(CHECKED).count() == 0
        assert await shifted(page) < 0.01


async def test_all_that_fit_are_deleted_by_their_number_and_brought_back(
    app: App, browse: Any, alice: Any
) -> None:
    await make(alice, *(f"t{n:02}" for n in range(55)), tags=["x"])
    await make(alice, "other")
    async with browse(app) as page:
        await page.goto(f"{app.url}/dashboard/tasks?tag=x")
        await page.check("#bulk input[name=all]")
        await page.click("#bulk button:has-text('Delete')")
        await page.wait_for_selector("h1:has-text('Delete 55 tasks?')")
        assert await page.locator("text=and 45 more").count() == 1
        await page.click("main button:has-text('Delete 55 tasks')")
        await page.wait_for_selector(".notice:has-text('Deleted 55 tasks.')", timeout=60_000)
        assert list(await statuses(alice)) == ["other"]
        await page.click(".notice button:has-text('Undo')")
        await page.wait_for_selector(".notice:has-text('Brought back 55 tasks.')", timeout=60_000)
        assert await page.locator("tr[data-row]").count() == 50
        await page.click("text=Older")
        await page.wait_for_selector("#task-t00")
        await page.click(".chips a")
        await page.wait_for_selector("#task-other")


async def test_a_line_changes_in_place(app: App, browse: Any, alice: Any, receiver: Any) -> None:
    await make(alice, "a", "b", url=receiver.url)
    async with browse(app) as page:
        await page.goto(f"{app.url}/dashboard/tasks")
        await page.evaluate("document.body.dataset.same = 'yes'")
        await page.check("#task-b input[name=id]")
        await page.click("#task-a [aria-label=Pause]")
        await page.wait_for_selector(".notice:has-text('Paused Task a.')")
        await page.wait_for_selector("#task-a .on.paused")
        assert (await statuses(alice))["a"] == "paused"
        await page.click("#task-a [aria-label='Make active']")
        await page.wait_for_selector("#task-a .on.active")
        await page.click("#task-b button[value=run]")
        await page.wait_for_selector(".notice:has-text('Started Task b.')")
        await eventually(lambda: receiver.requests[0])
        assert await page.evaluate("document.body.dataset.same") == "yes"
        assert await page.locator(CHECKED).count() == 1
        await alice.delete("/tasks/a")
        await page.click("#task-a [aria-label=Pause]")
        await page.wait_for_selector("#notice .wrong:has-text('there is no task a')")
        page.complaints.clear()  # of the 404


async def test_without_script_and_on_a_phone_it_works_as_well(
    app: App, browse: Any, alice: Any
) -> None:
    await make(alice, "a", "b")
    phone = {"viewport": {"width": 390, "height": 720}}
    async with browse(app, java_script_enabled=False, **phone) as page:
        await page.goto(f"{app.url}/dashboard/tasks")
        await page.click("#task-a [aria-label=Pause]")
        await page.wait_for_selector(".notice:has-text('Paused Task a.')")
        await page.click(".notice button:has-text('Undo')")
        await page.wait_for_selector(".notice:has-text('Active again: Task a.')")
        await page.check("#task-b input[name=id]")
        await page.click("#bulk button:has-text('Delete')")
        await page.click("main button:has-text('Delete 1 task')")
        await page.wait_for_selector(".notice:has-text('Deleted Task b.')")
        assert list(await statuses(alice)) == ["a"]
        wide = await page.locator("html").evaluate("e => e.scrollWidth <= e.clientWidth")
        assert wide
