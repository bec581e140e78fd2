"""A real browser: signed in, and held to what a page must never do."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import axe_playwright_python
import pytest

from conftest import TOKENS, App
from screenshots import chromium, sign_in

AXE = Path(axe_playwright_python.__file__).parent / "axe.min.js"
SERIOUS = ("serious", "critical")


def there() -> None:
    """Skip where there is no Chromium; where BROWSER is `required`, fail."""
    if chromium() is None:
        say = pytest.fail if os.environ.get("BROWSER") == "required" else pytest.skip
        say("no Chromium here: as root, `make test` installs Debian's")


@asynccontextmanager
async def browsing(
    chrome: Any, app: App, service: str | None = "alice", **context: Any
) -> AsyncIterator[Any]:
    """A page in which a service is signed in; `context` as Playwright's `new_context` takes it.

    At the end nothing may have been complained of, and no other host been asked. What a test
    provokes on purpose, it takes out of `page.complaints`.
    """
    made = await chrome.new_context(**{"viewport": {"width": 1100, "height": 800}, **context})
    page = await made.new_page()
    complaints: list[str] = []
    page.complaints = complaints
    hosts: set[str] = set()
    page.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda e: complaints.append(str(e)))
    page.on("request", lambda r: hosts.add(urlsplit(r.url).netloc))
    try:
        if service is not None:
            await sign_in(page, app.url, service, TOKENS[service])
        yield page
        assert complaints == [], complaints
        assert hosts <= {urlsplit(app.url).netloc, ""}
    finally:
        await made.close()


async def accessible(page: Any, *rules: str) -> None:
    """Fail where axe finds something serious. The policy keeps scripts out; axe comes around it.

    Some rules alone, where they are named: all of them take a second.
    """
    await page.evaluate(AXE.read_text())
    found = await page.evaluate("rules => axe.run(rules.length ? {runOnly: rules} : {})", rules)
    bad = [each for each in found["violations"] if each["impact"] in SERIOUS]
    assert not bad, [(each["id"], [n["html"] for n in each["nodes"]][:5]) for each in bad]


async def shifted(page: Any) -> float:
    """How far a page's layout has shifted since it was loaded (CLS; 0 is none)."""
    return float(
        await page.evaluate("""() => new Promise(done => {
        let sum = 0;
        new PerformanceObserver(list => {
            for (const entry of list.getEntries()) if (!entry.hadRecentInput) sum += entry.value;
        }).observe({type: "layout-shift", buffered: true});
        requestAnimationFrame(() => setTimeout(() => done(sum), 50));
    })""")
    )
