"""The list of changes in a real browser: what is long leaves room for the words beside it."""

import uuid
from datetime import UTC, datetime

from conftest import App
from scheduler import audit
from scheduler.audit import Change, Entry
from scheduler.service import By

LINES = """() => [...document.querySelectorAll("td[data-name=What], td[data-name=Who]")].map(cell => {
    const range = document.createRange();
    range.selectNodeContents(cell.firstChild);
    return range.getClientRects().length;
})"""


async def test_words_beside_a_long_value_are_not_broken(app: App, browse):
    long = Entry(ref="t", verb="edited", changes=[Change("url", "w" * 3000, "v" * 3000)])
    async with app.database.api.begin() as conn:
        await audit.write(conn, uuid.UUID(app.ids["alice"]), By("api"), [long], datetime.now(UTC))
    async with browse(app) as page:
        await page.goto(f"{app.url}/dashboard/changes?kind=task")
        assert await page.evaluate(LINES) == [1, 1]
        width = "document.documentElement.scrollWidth - innerWidth"
        assert await page.evaluate(width) <= 0
