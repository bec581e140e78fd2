"""A form whose session ended: it comes back as it was after the sign-in, and is never carried out."""

import re
from html import unescape
from typing import Any

import httpx
import pytest

from conftest import TOKENS, App
from pages import SIGN_IN, field, safe, signed_in
from scheduler.dashboard import carried

AT = "/dashboard/tasks/t"
HOURLY = {"id": "t", "name": "t", "url": "http://127.0.0.1:9/", "cron": "0 * * * *"}
TYPED = {
    "id": "typed", "name": "Typed & <b>kept</b>", "url": "http://127.0.0.1:9/", "trigger": "cron",
    "cron": "5 4 * * *", "action": "http", "status": "active", "description": "two\r\nlines",
    "header": ["Authorization", "X-Two"], "value": ["Bearer planted-secret", "2"],
    "secret": ["1", ""], "times_in": "UTC",
}  # fmt: skip


def hidden(text: str) -> dict[str, list[str]]:
    """The hidden fields of a page's own form."""
    main = text.partition("<main")[2]
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r'type="hidden" name="([^"]*)" value="([^"]*)"', main):
        found.setdefault(unescape(name), []).append(unescape(value))
    return found


async def late(client: httpx.AsyncClient, conn: Any, to: str, **fields: Any) -> httpx.Response:
    """Send a form after its session ended."""
    form = field((await client.get("/dashboard/new")).text, "form")
    await conn.execute("DELETE FROM session")
    return await client.post(to, data={"form": form, **fields})


async def enter(
    client: httpx.AsyncClient, text: str, who: str = "alice", token: str = ""
) -> httpx.Response:
    """Sign in by the form of a page."""
    sent = {**hidden(text), "service": who, "token": token or TOKENS[who]}
    return await client.post(SIGN_IN, data=sent)


async def test_what_was_typed_comes_back_after_the_sign_in_and_is_not_saved_before(
    visitor, alice, conn
):
    asked = await late(visitor, conn, "/dashboard/new", **TYPED, do="save")
    assert asked.status_code == 401 and "Sign in" in asked.text
    safe(asked)
    assert not any(word in asked.text for word in ("planted", "5 4 * * *", "kept"))
    wrong = await enter(visitor, asked.text, token="x" * 43)
    assert wrong.status_code == 401 and "carried" in hidden(wrong.text)
    back = await enter(visitor, wrong.text)
    safe(back)
    assert back.status_code == 200 and 'action="/dashboard/new"' in back.text
    shown = await visitor.post("/dashboard/new", data=hidden(back.text))
    assert shown.status_code == 200 and "nothing is saved yet" in shown.text
    for text in ("Typed &amp; &lt;b&gt;kept", "5 4 * * *", "Bearer planted-secret", "two\nlines"):
        assert text in shown.text
    assert (await alice.get("/tasks")).json() == []
    sent = {**TYPED, "form": field(shown.text, "form"), "do": "save"}
    assert (await visitor.post("/dashboard/new", data=sent)).status_code == 303
    assert (await alice.get("/tasks/typed")).json()["cron"] == "5 4 * * *"


async def test_it_comes_back_to_no_other_service_and_not_when_someone_changed_it(
    app: App, visitor, conn
):
    asked = await late(visitor, conn, "/dashboard/new", **TYPED)
    held = hidden(asked.text)["carried"][0]
    bob = await enter(visitor, asked.text, "bob")
    assert bob.status_code == 200 and "for another service" in bob.text
    assert "planted" not in bob.text and "Typed" not in bob.text
    for changed in (held[:-8] + "AAAAAAA=", "x<>"):
        async with app.client() as other:
            text = (await other.get(SIGN_IN)).text
            mark = re.sub(r"$", f'type="hidden" name="carried" value="{changed}"', text, count=1)
            answer = await enter(other, mark)
            assert answer.status_code == 200 and "cannot be read" in answer.text


@pytest.mark.parametrize(
    ("headers", "more"),
    [
        ({"Origin": "https://evil.example"}, {}),
        ({"Sec-Fetch-Site": "cross-site"}, {}),
        ({}, {"description": "x" * carried.MOST}),
        ({}, {"part": "1"}),
    ],
    ids=["elsewhere", "cross-site", "large", "part"],
)
async def test_what_is_of_elsewhere_or_too_large_is_not_carried(visitor, conn, headers, more):
    form = field((await visitor.get("/dashboard/new")).text, "form")
    await conn.execute("DELETE FROM session")
    sent = {"form": form, **TYPED, **more}
    answer = await visitor.post("/dashboard/new", data=sent, headers=headers)
    assert answer.status_code == 303 and answer.headers["Location"].startswith(SIGN_IN)


async def test_a_form_of_the_session_before_is_shown_again_with_what_was_typed(
    app: App, visitor, alice
):
    await alice.post("/tasks", json=HOURLY)
    form = field((await visitor.get(AT)).text, "form")
    async with signed_in(app) as again, signed_in(app, "bob") as bob:
        sent = {"form": form, "reason": "The target moves", "for": "1d"}
        stale = await again.post(f"{AT}/pause", data=sent)
        assert stale.status_code == 403 and f'action="{AT}/pause"' in stale.text
        shown = await again.post(f"{AT}/pause", data=hidden(stale.text))
        assert shown.status_code == 200 and 'value="The target moves"' in shown.text
        assert 'value="1d" selected' in shown.text and "send it once more" in shown.text
        refused = await bob.post(f"{AT}/pause", data=sent)
        assert refused.status_code == 403 and "The target moves" not in refused.text
        cross = {"Sec-Fetch-Site": "cross-site"}
        evil = await again.post(f"{AT}/pause", data=sent, headers=cross)
        assert evil.status_code == 403 and "The target moves" not in evil.text
    assert (await alice.get("/tasks/t")).json()["status"] == "active"


async def test_a_button_leads_back_to_its_page_and_does_nothing(app: App, visitor, alice, conn):
    await alice.post("/tasks", json=HOURLY)
    form = field((await visitor.get(AT)).text, "form")
    await conn.execute("DELETE FROM session")
    here = {"Referer": f"{app.url}{AT}"}
    acts = {"/dashboard/bulk/one": {"id": "t", "do": "disabled"}, f"{AT}/backfill": {"from": "x"}}
    for to, fields in {**acts, "/dashboard/settings/signing": {}}.items():
        asked = await visitor.post(to, data={"form": form, **fields}, headers=here)
        back = await enter(visitor, asked.text)
        led = await visitor.post(to, data=hidden(back.text))
        assert (led.status_code, led.headers["Location"]) == (303, AT)
        await conn.execute("DELETE FROM session")
    assert (await alice.get("/tasks/t")).json()["status"] == "active"


async def test_every_larger_form_is_shown_again(visitor, alice, conn):
    await alice.post("/calendars", json={"name": "days", "dates": ["2037-01-01"]})
    await alice.post("/tasks", json=HOURLY)
    forms = {
        "/dashboard/new-calendar": {"name": "typed", "dates": "2037-02-02"},
        "/dashboard/calendars/days/edit": {"dates": "2037-02-02", "timezone": "UTC"},
        "/dashboard/apis/new": {"name": "typed", "spec": "openapi: 2037-02-02"},
        f"{AT}/edit": {**TYPED, "task": "t", "description": "2037-02-02"},
        "/dashboard/trial": {**TYPED, "description": "2037-02-02"},
        "/dashboard/preview": {**TYPED, "description": "2037-02-02"},
    }
    for to, fields in forms.items():
        asked = await late(visitor, conn, to, **fields)
        back = await enter(visitor, asked.text)
        shown = await visitor.post(to, data=hidden(back.text))
        assert shown.status_code == 200 and "2037-02-02" in shown.text, to
        assert "send it once more" in shown.text
    assert len((await alice.get("/calendars")).json()) == 1
    assert (await alice.get("/tasks/t")).json()["description"] is None
