"""The admin's pages: who gets in, what can be done to services there, and what is never shown."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import parse_qsl

import httpx
import pytest

from conftest import TOKENS, App, RunApp, eventually
from pages import enter, field, safe, signed_in, statements
from scheduler.dashboard import sessions, tries
from scheduler.dashboard.admin import admin_door, admin_sessions

ADMIN = "an-admin-token-of-tests"
SIGN_IN = admin_door.SIGN_IN
HOME = admin_door.HOME


async def knock(client: httpx.AsyncClient, token: str = ADMIN) -> httpx.Response:
    """Send the form to sign in as admin."""
    asked = await client.get(SIGN_IN)
    return await client.post(SIGN_IN, data={"form": field(asked.text, "form"), "token": token})


@asynccontextmanager
async def as_admin(app: App) -> AsyncIterator[httpx.AsyncClient]:
    async with app.client() as client:
        answer = await knock(client)
        assert (answer.status_code, answer.headers["Location"]) == (303, HOME)
        yield client


@pytest.fixture
async def ruled(run_app: RunApp) -> AsyncIterator[App]:
    """The program where there is an admin token."""
    async with run_app(ADMIN_TOKEN=ADMIN) as app:
        yield app


async def send(client: httpx.AsyncClient, path: str, **fields: str) -> httpx.Response:
    """Send a form of the admin's session."""
    text = (await client.get(HOME)).text
    sent = {name: field(text, name) for name in ("form", "once")}
    return await client.post(f"{HOME}{path}", data={**sent, **fields})


def secret(answer: httpx.Response, name: str) -> str:
    """The secret that a page shows once."""
    found = re.search(rf'aria-label="{name}">([^<]+)<', answer.text)
    assert found, answer.text
    return found[1]


# Who gets in --------------------------------------------------------------------------------------


async def test_where_there_is_no_admin_token_there_are_no_admins(app: App):
    async with app.client() as client, signed_in(app) as alice:
        for who in (client, alice):
            for path in (SIGN_IN, HOME, f"{HOME}/services/{app.ids['alice']}"):
                assert (await who.get(path)).status_code == 404
            assert (await who.post(SIGN_IN, data={"token": ""})).status_code == 404
        assert "admin" not in (await client.get("/dashboard/sign-in")).text.lower()


async def test_who_is_no_admin_is_led_to_the_form_and_changes_nothing(ruled: App, conn):
    async with signed_in(ruled) as alice, ruled.client() as client:
        assert SIGN_IN in (await client.get("/dashboard/sign-in")).text
        at = f"{HOME}/services/{ruled.ids['bob']}"
        for who in (alice, client):
            for path in (HOME, at, f"{at}/delete"):
                answer = await who.get(path)
                assert (answer.status_code, answer.headers["Location"]) == (303, SIGN_IN)
            for path in ("services", f"services/{ruled.ids['bob']}/rotate", "pause"):
                answer = await who.post(f"{HOME}/{path}", data={"name": "mine"})
                assert (answer.status_code, answer.headers["Location"]) == (303, SIGN_IN)
    assert await conn.fetchval("SELECT count(*) FROM service") == 2
    assert await conn.fetchval("SELECT paused_at FROM installation") is None


async def test_an_admin_gets_a_cookie_that_no_script_reads_and_opens_no_service(ruled: App, conn):
    async with ruled.client() as client:
        answer = await knock(client)
        cookie = next(c for c in answer.headers.get_list("set-cookie") if "scheduler_admin" in c)
        flags = {part.strip().lower() for part in cookie.split(";")[1:]}
        assert flags >= {"httponly", "samesite=strict", "path=/", f"max-age={8 * 3600}"}
        page = await client.get(HOME)
        assert page.status_code == 200 and "alice" in page.text
        assert page.headers["Cache-Control"] == "no-store"
        safe(page)
        held = client.cookies[admin_door.SESSION]
        for path in ("/dashboard/tasks", "/dashboard/runs", "/dashboard/system"):
            answer = await client.get(path)
            assert answer.status_code == 303 and "/dashboard/sign-in" in answer.headers["Location"]
        assert (await client.get("/tasks")).status_code == 401
    rows = await conn.fetch("SELECT * FROM admin_session")
    assert rows[0]["hash"] == sessions.digest(held)
    assert held not in str(rows) and ADMIN.encode() not in rows[0]["proof"]


async def test_over_tls_the_cookie_is_for_tls_and_this_host_alone(run_app: RunApp):
    settings = {"ADMIN_TOKEN": ADMIN, "SERVER_TRUSTED_PROXIES": "127.0.0.0/8"}
    async with run_app(**settings) as app, app.client(None, **{"X-Forwarded-Proto": "https"}) as c:
        asked = await c.get(SIGN_IN)
        ours = asked.headers["set-cookie"].partition(";")[0]
        c.cookies.clear()
        sent = {"form": field(asked.text, "form"), "token": ADMIN}
        answer = await c.post(SIGN_IN, data=sent, headers={"Cookie": ours})
        cookie = answer.headers["set-cookie"]
        assert cookie.startswith("__Host-scheduler_admin=") and "secure" in cookie.lower()


async def test_a_session_ends_when_it_was_idle_or_is_old_or_the_token_is_another(ruled: App, conn):
    for ends in (
        "UPDATE admin_session SET used_at = now() - interval '1 hour 1 second'",
        "UPDATE admin_session SET expires_at = now()",
    ):
        async with as_admin(ruled) as client:
            assert (await client.get(HOME)).status_code == 200
            await conn.execute(ends)
            assert (await client.get(HOME)).headers["Location"] == SIGN_IN
    async with as_admin(ruled) as client:
        assert await conn.fetchval("SELECT count(*) FROM admin_session") == 1, "old ones go"
        cookie = client.cookies[admin_door.SESSION]
    assert (await proves(ruled, cookie, ADMIN), await proves(ruled, cookie, "x")) == (True, False)


async def proves(app: App, cookie: str, token: str) -> bool:
    async with app.database.api.begin() as connection:
        return await admin_sessions.use(connection, cookie, token)


async def test_who_signs_out_ends_the_session_everywhere(ruled: App, conn):
    async with as_admin(ruled) as client, ruled.client() as other:
        other.cookies.set(admin_door.SESSION, client.cookies[admin_door.SESSION])
        assert (await other.get(HOME)).status_code == 200
        assert (await send(client, "/sign-out")).headers["Location"] == SIGN_IN
        assert (await other.get(HOME)).status_code == 303
    assert await conn.fetchval("SELECT count(*) FROM admin_session") == 0


async def test_guesses_at_the_admin_token_count_with_those_at_services(ruled: App):
    async with ruled.client() as client:
        for n in range(tries.MOST):
            said = await (knock(client, f"no {n}") if n % 2 else enter(client, token=f"no {n}"))
            assert said.status_code == 401 and f"no {n}" not in said.text
        for refused in (await knock(client), await enter(client)):
            assert refused.status_code == 429 and int(refused.headers["Retry-After"]) > 0


@pytest.mark.parametrize("path", ["/services", "/pause", "/sign-out"])
async def test_a_form_from_elsewhere_changes_nothing(ruled: App, path: str):
    async with as_admin(ruled) as client:
        for fields, headers in (
            ({"form": "x", "name": "mine"}, {}),
            ({"name": "mine"}, {}),
            (
                {"form": field((await client.get(HOME)).text, "form")},
                {"Sec-Fetch-Site": "same-site"},
            ),
        ):
            answer = await client.post(f"{HOME}{path}", data=fields, headers=headers)
            assert answer.status_code == 403
        assert (await client.get(HOME)).status_code == 200


# What is done to services -------------------------------------------------------------------------


async def test_a_service_is_created_and_its_secrets_are_shown_once(ruled: App):
    async with as_admin(ruled) as client:
        made = await send(client, "/services", name="carol", max_tasks="2", allow_commands="on")
        assert made.status_code == 200 and made.headers["Cache-Control"] == "no-store"
        token, signing = secret(made, "Token"), secret(made, "Signing secret")
        assert signing.startswith("whsec_")
        sent = dict(parse_qsl(made.request.content.decode()))
        again = await client.post(f"{HOME}/services", data=sent)
        assert (secret(again, "Token"), secret(again, "Signing secret")) == (token, signing)
        assert (await send(client, "/services", name="carol")).status_code == 409
        at = re.search(rf'href="({HOME}/services/[^"]+)"', made.text)[1]
        assert token not in at
        for path in (HOME, at):
            shown = await client.get(path)
            assert "carol" in shown.text and token not in shown.text and signing not in shown.text
        assert "0 of 2" in shown.text
    async with ruled.client() as carol:
        assert (await enter(carol, "carol", token)).headers["Location"] == "/dashboard"


async def test_what_is_wrong_with_a_service_stands_at_its_field_and_nothing_is_lost(ruled: App):
    async with as_admin(ruled) as client:
        for fields, name in (
            ({"name": "a:b", "max_tasks": "7"}, "name"),
            ({"name": "bob", "max_tasks": "7"}, "name"),
            ({"name": "carol", "max_tasks": "many"}, "max_tasks"),
            ({"name": "carol", "max_tasks": "7", "max_in_flight": "-1"}, "max_in_flight"),
        ):
            answer = await send(client, "/services", **fields)
            assert answer.status_code in (400, 409)
            assert f'id="wrong-{name}"' in answer.text
            for value in fields.values():
                assert f'value="{value}"' in answer.text
        assert "carol" not in (await client.get(HOME)).text


async def test_a_service_is_changed(ruled: App):
    at = f"/services/{ruled.ids['bob']}"
    async with as_admin(ruled) as client, ruled.client("bob") as bob:
        sent = {"name": "robert", "max_in_flight": "3", "max_tasks": "0"}
        answer = await send(client, at, **sent)
        assert answer.headers["Location"] == f"{HOME}{at}?done=changed"
        page = (await client.get(answer.headers["Location"])).text
        assert "0 of 3" in page and "The service is changed" in page
        page = (await send(client, at, name="alice")).text
        assert "a service named alice already" in page
        assert (await bob.get("/tasks")).status_code == 200
        answer = await send(client, at, name="robert", allow_commands="on")
        page = (await client.get(f"{HOME}{at}")).text
        assert 'name="allow_commands" checked' in page and "0 of 3" not in page


async def test_a_token_is_rotated_and_the_form_sent_twice_revokes_none(ruled: App):
    at = f"/services/{ruled.ids['alice']}"
    async with as_admin(ruled) as client, ruled.client() as alice:
        newest = field((await client.get(f"{HOME}{at}")).text, "newest")
        made = await send(client, f"{at}/rotate", newest=newest)
        assert made.headers["Cache-Control"] == "no-store"
        again = await send(client, f"{at}/rotate", newest=newest)
        assert again.status_code == 409 and "meanwhile" in again.text
        for token in (TOKENS["alice"], secret(made, "Token")):
            assert (await enter(alice, "alice", token)).status_code == 303
        text = (await client.get(f"{HOME}{at}")).text
        sent = {name: field(text, name) for name in ("form", "once", "seen")}
        both = [
            await client.post(f"{HOME}{at}/rotate", data={**sent, "what": "signing"})
            for _ in range(2)
        ]
        signing = secret(both[0], "Signing secret")
        assert secret(both[1], "Signing secret") == signing
        assert signing not in (await client.get(f"{HOME}{at}")).text


async def test_a_revoked_token_opens_nothing_and_the_last_goes_only_where_that_is_said(ruled: App):
    at = f"/services/{ruled.ids['alice']}"
    async with as_admin(ruled) as client, signed_in(ruled) as alice:
        token_id = field((await client.get(f"{HOME}{at}")).text, "token_id")
        refused = await send(client, f"{at}/revoke", token_id=token_id)
        assert refused.status_code == 409 and "the only live token" in refused.text
        assert (await alice.get("/dashboard/tasks")).status_code == 200
        done = await send(client, f"{at}/revoke", token_id=token_id, last="on")
        assert done.status_code == 303
        assert (await alice.get("/dashboard/tasks")).status_code == 303
        assert (await send(client, f"{at}/revoke", token_id="x")).status_code == 400


async def test_a_service_goes_when_its_name_is_typed(ruled: App, conn):
    at = f"/services/{ruled.ids['bob']}"
    async with as_admin(ruled) as client, ruled.client("bob") as bob:
        task = {"name": "t", "url": "http://127.0.0.1:9/", "frequency": 1, "unit": "hour"}
        assert (await bob.post("/tasks", json=task)).status_code == 201
        assert "its 1 tasks" in (await client.get(f"{HOME}{at}/delete")).text
        wrong = await send(client, f"{at}/delete", name="Bob")
        assert wrong.status_code == 400 and 'value="Bob"' in wrong.text
        assert (await bob.get("/tasks")).status_code == 200
        assert (await send(client, f"{at}/delete", name="bob")).status_code == 303
        assert (await client.get(f"{HOME}{at}")).status_code == 404
    assert await conn.fetchval("SELECT count(*) FROM task") == 0


async def test_the_installation_is_paused_with_its_reason_and_goes_on(ruled: App):
    async with as_admin(ruled) as client:
        assert (await send(client, "/pause", reason="x" * 501)).status_code == 400
        answer = await send(client, "/pause", reason="the <b>shop</b> moves")
        page = (await client.get(answer.headers["Location"])).text
        assert "the &lt;b&gt;shop&lt;/b&gt; moves" in page
        await eventually(lambda: is_paused(ruled, "the <b>shop</b> moves"))
        await send(client, "/resume")
        await eventually(lambda: is_paused(ruled, None))
        assert "Paused since" not in (await client.get(HOME)).text


def is_paused(app: App, why: str | None) -> None:
    assert app.engine.paused == why


async def test_no_page_of_an_admin_runs_more_than_five_statements(ruled: App):
    at = f"{HOME}/services/{ruled.ids['alice']}"
    async with as_admin(ruled) as client:
        await send(client, f"/services/{ruled.ids['alice']}", name="alice", max_runs_per_minute="9")
        for path in (HOME, at, f"{at}/delete"):
            with statements(ruled) as seen:
                answer = await client.get(path)
            assert answer.status_code == 200
            assert len(seen) <= 5, seen
