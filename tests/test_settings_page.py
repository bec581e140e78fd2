"""The settings page: tokens, sessions and the signing secret of one service."""

import asyncio
import re

import httpx

from conftest import TOKENS, App, RunApp
from pages import enter, field, safe, signed_in, statements
from scheduler.dashboard import door

HOME = "/dashboard/settings"


async def send(client: httpx.AsyncClient, act: str, **fields: str) -> httpx.Response:
    """Send a form of the page."""
    text = (await client.get(HOME)).text
    sent = {name: field(text, name) for name in ("form", "once", "seen")}
    return await client.post(f"{HOME}/{act}", data={**sent, **fields})


def secret(answer: httpx.Response, name: str) -> str:
    """The secret that a page shows once."""
    found = re.search(rf'aria-label="{name}">([^<]+)<', answer.text)
    assert found, answer.text
    return found[1]


async def test_a_service_sees_its_own_and_no_secret(app: App):
    async with signed_in(app) as alice:
        page = await alice.get(HOME)
        safe(page)
        assert page.headers["Cache-Control"] == "no-store"
        assert app.ids["alice"] in page.text and app.ids["bob"] not in page.text
        assert TOKENS["alice"] not in page.text and "whsec_********" in page.text
        assert f"curl -H 'service_id: {app.ids['alice']}'" in page.text
        assert "30 days" in page.text and "this one" in page.text


async def test_limits_are_shown_with_what_is_used_of_them(run_app: RunApp):
    async with run_app(QUOTAS_MAX_TASKS="5", QUOTAS_MAX_RUNS_PER_MINUTE="60") as app:
        task = {"id": "t", "name": "t", "url": "http://127.0.0.1:9/", "timeout_seconds": 1}
        async with signed_in(app) as alice, app.client("alice") as api:
            await api.post("/tasks", json={**task, "max_retries": 0})
            await api.post("/tasks/t/execute")
            page = (await alice.get(HOME)).text
        assert "1 of 5" in page and "1 of 60" in page


async def test_a_new_token_is_shown_once_and_the_old_one_still_opens(app: App):
    async with signed_in(app) as alice, app.client() as other:
        newest = field((await alice.get(HOME)).text, "newest")
        made = await send(alice, "rotate", newest=newest)
        assert made.status_code == 200 and made.headers["Cache-Control"] == "no-store"
        token = secret(made, "Token")
        assert token not in (await alice.get(HOME)).text
        for each in (token, TOKENS["alice"]):
            assert (await enter(other, "alice", each)).status_code == 303
        again = await send(alice, "rotate", newest=newest)
        assert again.status_code == 409 and "meanwhile" in again.text
        assert (await send(alice, "rotate")).status_code == 400


async def test_a_new_signing_secret_is_shown_once(app: App, conn):
    before = await conn.fetchval("SELECT signing_secret FROM service WHERE name = 'alice'")
    async with signed_in(app) as alice:
        made = secret(await send(alice, "signing"), "Signing secret")
        assert made.startswith("whsec_") and made not in (await alice.get(HOME)).text
    assert before != await conn.fetchval("SELECT signing_secret FROM service WHERE name = 'alice'")


async def test_a_form_that_is_sent_twice_makes_one_secret_and_shows_it_both_times(app: App, conn):
    async with signed_in(app) as alice:
        text = (await alice.get(HOME)).text
        sent = {name: field(text, name) for name in ("form", "once", "seen", "newest")}
        for act, name in (("signing", "Signing secret"), ("rotate", "Token")):
            both = await asyncio.gather(*(alice.post(f"{HOME}/{act}", data=sent) for _ in "ab"))
            assert len({secret(each, name) for each in both}) == 1
        assert await conn.fetchval("SELECT count(*) FROM token") == 3
        token = secret(await alice.post(f"{HOME}/rotate", data=sent), "Token")
        assert (await enter(alice, "alice", token)).status_code == 303
        first = secret(await send(alice, "signing"), "Signing secret")
        assert first != secret(await send(alice, "signing"), "Signing secret")
        late = await send(alice, "signing", seen=sent["seen"])
        assert late.status_code == 409 and "meanwhile" in late.text
        assert (await send(alice, "signing", once="")).status_code == 400


async def test_the_only_token_is_not_revoked_and_another_ends_its_sessions(app: App):
    async with signed_in(app) as alice, app.client() as other:
        first = field((await alice.get(HOME)).text, "newest")
        refused = await send(alice, "revoke", token_id=first)
        assert refused.status_code == 409 and "the only live token" in refused.text
        assert 'name="token_id"' not in (await alice.get(HOME)).text
        token = secret(await send(alice, "rotate", newest=first), "Token")
        await enter(other, "alice", token)
        assert (await send(other, "revoke", token_id=first)).status_code == 303
        assert (await other.get(HOME)).status_code == 200
        assert (await alice.get(HOME)).headers["Location"].startswith("/dashboard/sign-in")


async def test_nothing_of_another_service_is_touched(app: App, conn):
    theirs = await conn.fetchval(
        "SELECT t.id FROM token t JOIN service s ON s.id = t.service_id WHERE s.name = 'bob'"
    )
    async with signed_in(app) as alice, signed_in(app, "bob") as bob:
        assert (await send(alice, "revoke", token_id=str(theirs))).status_code == 404
        named = await conn.fetchval("SELECT hash FROM session WHERE token_id = $1", theirs)
        await send(alice, "end", session=named.hex())
        await send(alice, "end", session="no hash")
        await send(alice, "end-others")
        assert (await bob.get(HOME)).status_code == 200


async def test_sessions_are_listed_and_ended(app: App):
    async with signed_in(app) as alice, signed_in(app) as phone, signed_in(app) as desk:
        page = (await alice.get(HOME)).text
        assert page.count('name="session"') == 2 and page.count("this one") == 1
        assert alice.cookies[door.SESSION] not in page
        assert (await send(alice, "end", session=field(page, "session"))).status_code == 303
        open_now = [(await each.get(HOME)).status_code for each in (phone, desk)]
        assert sorted(open_now) == [200, 303]
        await send(alice, "end-others")
        assert [(await e.get(HOME)).status_code for e in (alice, phone, desk)] == [200, 303, 303]


async def test_a_form_from_elsewhere_changes_nothing(app: App, conn):
    async with signed_in(app) as alice:
        for act in ("rotate", "signing", "revoke", "end-others"):
            assert (await alice.post(f"{HOME}/{act}", data={"form": "x"})).status_code == 403
        assert (await send(alice, "other")).status_code == 404
    assert await conn.fetchval("SELECT count(*) FROM token") == 2


async def test_the_page_runs_five_statements_at_most(run_app: RunApp):
    async with (
        run_app(QUOTAS_MAX_RUNS_PER_MINUTE="60") as app,
        signed_in(app) as alice,
    ):
        with statements(app) as seen:
            await alice.get(HOME)
        assert len(seen) <= 5, seen
