"""What a browser sees: signing in, tasks and runs, hostile text, and pages that ask nobody else."""

import asyncio
import base64
import json
import re
import sys
import unicodedata
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import TOKENS, App, RunApp, eventually
from pages import SIGN_IN, enter, field, safe, signed_in, statements
from scheduler import services, tokens
from scheduler.dashboard import door, sessions, shown, tries
from scheduler.errors import TooManyRequests
from screenshots import browser, chromium, sign_in

PAGES = [
    "/",
    "/dashboard",
    "/dashboard/tasks",
    SIGN_IN,
    "/dashboard/tasks/none",
    "/dashboard/nothing/here",
]
MANUALS = ["/docs", "/swagger-ui", "/swagger/index.html", "/v1/apidoc/swagger/index.html"]
EVERY = {"name": "Every hour", "url": "http://127.0.0.1:9/", "frequency": 1, "unit": "hour"}


# Signing in and out ------------------------------------------------------------------------------


async def test_the_first_pages_ask_who_is_there_and_others_lead_back(anonymous):
    for path in ("/", "/dashboard", SIGN_IN):
        answer = await anonymous.get(path)
        assert answer.status_code == 200 and 'name="token"' in answer.text
        safe(answer)
        headed = await anonymous.head(path)
        assert (headed.status_code, headed.content) == (200, b"")
    led = await anonymous.get("/dashboard/tasks/x?after=y")
    assert led.status_code == 303
    assert led.headers["Location"] == f"{SIGN_IN}?next=/dashboard/tasks/x%3Fafter%3Dy"
    asked = await anonymous.get(led.headers["Location"])
    assert field(asked.text, "next") == "/dashboard/tasks/x?after=y"


async def test_who_signs_in_gets_a_cookie_that_no_script_reads(app: App, conn):
    async with app.client() as client:
        answer = await enter(client, app.ids["alice"], next="/dashboard/tasks/x")
        assert answer.headers["Location"] == "/dashboard/tasks/x"
        cookie = next(c for c in answer.headers.get_list("set-cookie") if door.SESSION in c)
        flags = {part.strip().lower() for part in cookie.split(";")[1:]}
        assert flags >= {"httponly", "samesite=strict", "path=/", f"max-age={12 * 3600}"}
        assert "secure" not in flags
        page = await client.get("/dashboard/tasks")
        assert "No tasks yet" in page.text and page.headers["Cache-Control"] == "no-store"
        held = client.cookies[door.SESSION]
    rows = await conn.fetch("SELECT *, expires_at - created_at AS lasts FROM session")
    assert [row["lasts"].total_seconds() for row in rows] == [12 * 3600]
    assert held not in str(rows) and rows[0]["hash"] == sessions.digest(held)


async def test_a_cookie_is_for_tls_alone_where_tls_is_spoken(run_app: RunApp):
    async with run_app(SERVER_TRUSTED_PROXIES="127.0.0.0/8") as app:
        for proto, secure in (("https", True), ("http", False)):
            async with app.client(None, **{"X-Forwarded-Proto": proto}) as client:
                answer = await client.get(SIGN_IN)
                assert ("secure" in answer.headers["set-cookie"].lower()) == secure
    async with run_app() as app, app.client(None, **{"X-Forwarded-Proto": "https"}) as client:
        assert "secure" not in (await client.get(SIGN_IN)).headers["set-cookie"].lower()


def cookie(answer: httpx.Response) -> tuple[str, str]:
    """The cookie that an answer sets, and what it says of it."""
    set_, _, of = answer.headers["set-cookie"].partition(";")
    return set_, of.lower()


async def test_where_tls_is_spoken_no_page_of_a_siblings_host_sets_our_cookies(run_app: RunApp):
    async with (
        run_app(SERVER_TRUSTED_PROXIES="127.0.0.0/8") as app,
        signed_in(app) as plain,
        app.client(None, **{"X-Forwarded-Proto": "https"}) as client,
    ):
        ours, of = cookie(await client.get(SIGN_IN))
        client.cookies.clear()
        assert ours.startswith(f"__Host-{door.FORM}=") and "path=/;" in of and "secure" in of
        assert "domain" not in of
        proof = ours.partition("=")[2]
        sent = {"form": proof, "service": "alice", "token": TOKENS["alice"]}
        tossed = {"Cookie": f"{door.FORM}={proof}; {door.SESSION}={plain.cookies[door.SESSION]}"}
        assert (await client.post(SIGN_IN, data=sent, headers=tossed)).status_code == 403
        client.cookies.clear()
        assert (await client.get("/dashboard/nothing", headers=tossed)).status_code == 303
        ours, of = cookie(await client.post(SIGN_IN, data=sent, headers={"Cookie": ours}))
        client.cookies.clear()
        assert ours.startswith(f"__Host-{door.SESSION}=") and "secure" in of
        page = await client.get("/dashboard", headers={"Cookie": ours})
        form = {"form": field(page.text, "form")}
        left = await client.post("/dashboard/sign-out", data=form, headers={"Cookie": ours})
        ours, of = cookie(left)
        assert ours == f'__Host-{door.SESSION}=""' and "max-age=0" in of and "secure" in of


async def test_who_signs_in_again_leaves_no_session_behind(app: App, conn):
    async with signed_in(app) as client, app.client() as stranger:
        held = client.cookies[door.SESSION]
        assert (await enter(client)).status_code == 303
        assert client.cookies[door.SESSION] != held
        stranger.cookies.set(door.SESSION, held)
        assert (await stranger.get("/dashboard/nothing")).status_code == 303
        assert (await client.get("/dashboard")).status_code == 200
    assert await conn.fetchval("SELECT count(*) FROM session") == 1


async def test_a_wrong_pair_is_told_the_same_whatever_is_wrong_with_it(anonymous, app: App):
    texts = set()
    for service, token in (("alice", "wrong"), ("nobody", TOKENS["alice"]), ("a\x00", "\udcff")):
        answer = await enter(anonymous, service, token.encode("utf-8", "replace").decode())
        assert answer.status_code == 401 and door.SESSION not in anonymous.cookies
        safe(answer)
        texts.add(re.sub(r'value="[^"]*"', "", answer.text))
    assert len(texts) == 1 and door.WRONG in texts.pop()


async def test_who_guesses_must_wait(run_app: RunApp):
    async with run_app(SERVER_TRUSTED_PROXIES="127.0.0.1") as app:
        async with app.client(None, **{"X-Forwarded-For": "192.0.2.7"}) as guesser:
            statuses = [(await enter(guesser, token=str(n))).status_code for n in range(tries.MOST)]
            assert set(statuses) == {401}
            refused = await enter(guesser)
            assert refused.status_code == 429
            assert 0 < int(refused.headers["Retry-After"]) <= tries.WINDOW_S + 1
        async with app.client(None, **{"X-Forwarded-For": "192.0.2.7, 192.0.2.8"}) as other:
            assert (await enter(other)).status_code == 303


PASSED = [
    lambda n: [("X-Forwarded-For", f"192.0.2.{n}"), ("X-Forwarded-For", "198.51.100.7")],
    lambda n: [("X-Forwarded-For", f"192.0.2.{n}, 198.51.100.8:{1000 + n}")],
    lambda n: [("X-Forwarded-For", f"unknown{n}")],
    lambda n: [("Forwarded", f"for=192.0.2.{n}"), ("Forwarded", 'for="198.51.100.9:80"')],
]
"""By proxies that add a line, name ports, or hide the caller; what the caller adds comes first."""


async def test_who_guesses_is_not_somebody_else_by_its_own_word(run_app: RunApp):
    async with run_app(SERVER_TRUSTED_PROXIES="127.0.0.1") as app, app.client() as guesser:
        asked = await guesser.get(SIGN_IN)
        form = {"form": field(asked.text, "form"), "service": "alice", "token": "wrong"}
        for passed in PASSED:
            statuses = [
                (await guesser.post(SIGN_IN, data=form, headers=passed(n))).status_code
                for n in range(tries.MOST + 1)
            ]
            assert statuses == [401] * tries.MOST + [429]


async def test_who_signs_in_together_is_no_guesser_and_who_guesses_at_once_is_one(app: App):
    async with app.client() as client:
        asked = await client.get(SIGN_IN)
        form = {"form": field(asked.text, "form"), "service": "alice", "token": TOKENS["alice"]}
        for token, expected in ((TOKENS["alice"], {303: 25}), ("wrong", {401: 10, 429: 15})):
            sent = [client.post(SIGN_IN, data={**form, "token": token}) for _ in range(25)]
            answers = await asyncio.gather(*sent)
            assert Counter(answer.status_code for answer in answers) == expected


def test_tries_are_counted_by_network_and_forgotten_in_time():
    failures = tries.Tries()
    for n in range(tries.MOST):
        failures.begin(f"2001:db8::{n}", 100.0)
    with pytest.raises(TooManyRequests) as refused:
        failures.begin("2001:db8::ffff", 101.0)
    assert refused.value.retry_after == tries.WINDOW_S
    failures.begin("2001:db8:0:1::1", 101.0)
    failures.begin("::1", 101.0)
    failures.begin("not an address", 101.0)
    failures.begin("2001:db8::1", 101.0 + tries.WINDOW_S)
    for _ in range(2 * tries.MOST):  # those that succeed count for nothing
        failures.begin("192.0.2.1", 101.0)
        failures.taken_back("192.0.2.1")
    for n in range(tries.ADDRESSES_MOST + 5):
        failures.begin(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}", 200.0)
    assert len(failures._failed) == tries.ADDRESSES_MOST


FROM = [
    ({"Sec-Fetch-Site": "cross-site"}, 403),
    ({"Sec-Fetch-Site": "same-site"}, 403),
    ({"Origin": "https://evil.example"}, 403),
    ({"Origin": "null"}, 403),
    ({"Origin": "http://["}, 403),
    ({"Sec-Fetch-Site": "same-origin", "Origin": "https://behind.a.proxy"}, 303),
    ({}, 303),
]


async def test_a_form_from_elsewhere_is_refused(anonymous, app: App):
    asked = await anonymous.get(SIGN_IN)
    sent = {"form": field(asked.text, "form"), "service": "alice", "token": TOKENS["alice"]}
    for headers, status in [*FROM, ({"Origin": app.url}, 303)]:
        assert (await anonymous.post(SIGN_IN, data=sent, headers=headers)).status_code == status
        async with signed_in(app) as visitor:
            form = {"form": field((await visitor.get("/")).text, "form")}
            left = await visitor.post("/dashboard/sign-out", data=form, headers=headers)
            assert left.status_code == status
            assert left.headers["Content-Type"].startswith("text/") and "{" not in left.text


async def test_a_form_without_its_token_is_refused(app: App, visitor, alice):
    await alice.post("/tasks", json={**EVERY, "id": "x"})
    async with signed_in(app) as other, app.client() as fresh:
        theirs = field((await other.get("/")).text, "form")
        for sent in ({}, {"form": ""}, {"form": theirs}, {"form": "é\udcff"}):
            for path in ("/dashboard/sign-out", "/dashboard/tasks/x/pause"):
                body = "&".join(f"{k}={v}" for k, v in sent.items()).encode("utf-8", "replace")
                answer = await visitor.post(path, content=body)
                assert answer.status_code in (400, 403), answer.text
        proof = field((await fresh.get(SIGN_IN)).text, "form")
        fresh.cookies.clear()
        sent = {"form": proof, "service": "alice", "token": TOKENS["alice"]}
        assert (await fresh.post(SIGN_IN, data=sent)).status_code == 403
    assert (await alice.get("/tasks/x")).json()["status"] == "active"
    assert (await visitor.get("/dashboard/tasks/x")).status_code == 200


ELSEWHERE = [
    "https://evil.example/", "//evil.example", "/\\evil.example", "/dashboard\\..", "javascript:1",
    "/tasks", "/dashboardx", "/dashboard/sign-in", "/dashboard/\r\nX: y", "/dashboard/é", "",
]  # fmt: skip


async def test_signing_in_leads_to_no_place_but_ours(anonymous):
    for elsewhere in ELSEWHERE:
        asked = await anonymous.get(SIGN_IN, params={"next": elsewhere})
        assert field(asked.text, "next") == "/dashboard"
        answer = await enter(anonymous, next=elsewhere)
        assert answer.headers["Location"] == "/dashboard"


async def test_a_session_ends_with_sign_out_with_its_token_and_in_time(app: App, conn):
    async def opens(client: httpx.AsyncClient) -> bool:
        return "No tasks yet" in (await client.get("/dashboard/tasks")).text

    async with signed_in(app) as one, signed_in(app) as two, signed_in(app, "bob") as three:
        held = one.cookies[door.SESSION]
        form = field((await one.get("/")).text, "form")
        left = await one.post("/dashboard/sign-out", data={"form": form})
        assert left.headers["Location"] == SIGN_IN and door.SESSION not in one.cookies
        one.cookies.set(door.SESSION, held)
        assert not await opens(one) and await opens(two) and await opens(three)

        await conn.execute("UPDATE token SET revoked_at = now() WHERE hash = $1",
                           tokens.digest(TOKENS["alice"]))  # fmt: skip
        assert not await opens(two) and await opens(three)
        await conn.execute("UPDATE session SET expires_at = now() - interval '1 s'")
        assert not await opens(three)
        assert (await enter(three, "bob", TOKENS["bob"])).status_code == 303
        assert await conn.fetchval("SELECT count(*) FROM session") == 1  # expired ones are gone


async def test_a_token_has_so_many_sessions_and_takes_them_along(app: App, conn):
    async with app.database.api.begin() as connection:
        service, token = await services.check(connection, "bob", tokens.digest(TOKENS["bob"]))  # type: ignore[misc]
        first = await sessions.begin(connection, service.id, token)
    for _ in range(sessions.MOST):
        async with app.database.api.begin() as connection:
            await sessions.begin(connection, service.id, token)
    held = [row["hash"] for row in await conn.fetch("SELECT hash FROM session")]
    assert len(held) == sessions.MOST and sessions.digest(first) not in held
    await conn.execute("DELETE FROM token WHERE id = $1", token)
    assert await conn.fetchval("SELECT count(*) FROM session") == 0


async def test_a_cookie_opens_no_json(visitor, alice):
    assert (await alice.post("/tasks", json=EVERY)).status_code == 201
    for method, path in (("GET", "/tasks"), ("POST", "/tasks"), ("GET", "/runs")):
        answer = await visitor.request(method, path)
        assert answer.status_code == 401 and "error" in answer.json()


async def test_a_token_that_a_browser_uses_is_noted(app: App, visitor, conn):
    await visitor.get("/dashboard")
    async with app.database.engine.begin() as connection:
        await app.gate.flush(connection)
    used = await conn.fetchval(
        "SELECT last_used_at FROM token WHERE hash = $1", tokens.digest(TOKENS["alice"])
    )
    assert used is not None


# Tasks and runs ----------------------------------------------------------------------------------


async def test_an_empty_page_teaches_the_first_command(visitor, app: App):
    text = (await visitor.get("/dashboard/tasks")).text
    assert f"curl {app.url}/tasks" in text and app.ids["alice"] in text
    assert "scheduler tasks create" in text
    assert TOKENS["alice"] not in text


async def test_the_list_shows_what_the_api_lists(visitor, alice, app: App):
    for n in range(53):
        await alice.post("/tasks", json={**EVERY, "id": f"t{n}", "name": f"Task {n} of many"})
    await alice.patch("/tasks/t3", json={"status": "paused"})
    first = (await visitor.get("/dashboard/tasks")).text
    assert first.count('data-name="Task"') == 50 and "Every hour" in first
    assert "Task 52 of many" in first and "Task 2 of many" not in first
    second = (await visitor.get("/dashboard/tasks", params={"page": 1})).text
    assert re.findall(r'href="/dashboard/tasks/(\w+)"', second) == ["t2", "t1", "t0"]
    assert (
        'href="/dashboard/tasks?page=1"' in first and 'href="/dashboard/tasks" rel="prev"' in second
    )
    for query, names in (
        ({"q": "task 17"}, ["t17"]), ({"status": "paused"}, ["t3"]),
        ({"status": "failed"}, []), ({"q": "' OR 1=1 --"}, []),
    ):  # fmt: skip
        text = (await visitor.get("/dashboard/tasks", params=query)).text
        assert re.findall(r'href="/dashboard/tasks/(\w+)"', text) == names
        assert bool(names) or "No task fits" in text
    for query in ({"page": "-1"}, {"page": "x"}, {"status": "nope"}, {"q": "\x00"}):
        wrong = await visitor.get("/dashboard/tasks", params=query)
        assert wrong.status_code == 400 and "<h1>" in wrong.text
        safe(wrong)
    async with signed_in(app, "bob") as bobs:
        assert "No tasks yet" in (await bobs.get("/dashboard/tasks")).text
        other = await bobs.get("/dashboard/tasks/t3")
        assert other.status_code == 404 and "Task 3" not in other.text
        safe(other)


async def test_a_run_that_ended_without_a_try_says_so(visitor, alice, receiver, run_app):
    soon = datetime.now(UTC) + timedelta(seconds=30)
    task = {"id": "once", "name": "Once", "url": receiver.url, "scheduled_at": soon.isoformat()}
    await alice.post("/tasks", json=task)
    (run,) = (await alice.get("/runs?task=once")).json()["runs"]
    page = f"/dashboard/runs/{run['id']}"
    assert "No attempt has ended yet." in (await visitor.get(page)).text
    assert (await alice.post(f"/runs/{run['id']}/cancel")).status_code == 200
    assert "It was never tried." in (await visitor.get(page)).text


async def test_a_rule_shows_its_zone_and_the_calendars_it_keeps_clear_of(visitor, alice, run_app):
    name = "x" * 64
    await alice.post("/calendars", json={"name": name, "dates": ["2032-03-29"]})
    rrule = "DTSTART;TZID=Europe/Berlin:20320328T023000\nRRULE:FREQ=DAILY"
    task = {"id": "rule", "name": "Rule", "url": "http://127.0.0.1/", "rrule": rrule}
    assert (await alice.post("/tasks", json={**task, "calendars": [name]})).status_code == 201
    text = (await visitor.get("/dashboard/tasks/rule")).text
    assert "2032-03-28 03:30:00 Europe/Berlin" in text
    assert "02:30 does not exist on this day; fires at 03:30" in text
    assert f"skipped: calendar {name}" in text and "Not in the calendars" in text


async def test_a_task_shows_its_next_instants_and_its_runs(visitor, alice, receiver, run_app):
    receiver.then(503, "no").then(200, "later")
    task = {
        "id": "report", "name": "Report", "url": f"{receiver.url}/r?token=planted-1",
        "method": "POST", "payload": "hello", "max_retries": 1,
        "retry_backoff": {"initial_seconds": 0}, "cron": "30 2 * * *",
        "timezone": "Europe/Berlin", "header": {"Authorization": "planted-2"},
    }  # fmt: skip
    await alice.post("/tasks", json=task)
    run = (await alice.post("/tasks/report/execute?retry=true")).json()
    text = (await visitor.get("/dashboard/tasks/report")).text
    preview = (await alice.get("/tasks/report/preview?count=5")).json()
    for each in preview["occurrences"]:
        assert each["at"] in text and each["local"][:19].replace("T", " ") in text
    assert preview["description"] in text and "Europe/Berlin" in text
    assert f'href="/dashboard/runs/{run["run_id"]}"' in text and "by hand" in text
    one = (await visitor.get(f"/dashboard/runs/{run['run_id']}")).text
    assert one.index("Attempt 2") < one.index("later") < one.index("Attempt 1")
    assert "answered 503" in one and ">no</bdi>" in one and "hello" in one
    assert "planted" not in text + one
    listed = (await visitor.get("/dashboard/tasks")).text
    assert 'class="state succeeded"' in listed and "planted" not in listed
    for path in ("/dashboard/runs/none", f"/dashboard/runs/{'0' * 32}", "/dashboard/tasks/none"):
        assert (await visitor.get(path)).status_code == 404


async def test_runs_of_a_task_come_in_pages(visitor, alice, receiver):
    await alice.post("/tasks", json={"id": "t", "name": "t", "url": receiver.url})
    for _ in range(27):
        await alice.post("/tasks/t/execute")
    seen: list[str] = []
    path = "/dashboard/tasks/t"
    while path:
        text = (await visitor.get(path)).text
        seen += re.findall(r'data-run="([\w-]+)"', text)
        more = re.search(r'href="([^"]*\?after=[^"]*)" rel="next"', text)
        path = more[1] if more else ""
    runs = (await alice.get("/runs?task=t&limit=100")).json()["runs"]
    assert seen == [run["id"] for run in runs] and len(seen) == 27
    assert (await visitor.get("/dashboard/tasks/t?after=nonsense")).status_code == 400


async def test_a_task_is_run_paused_and_resumed(visitor, alice, receiver):
    await alice.post("/tasks", json={**EVERY, "id": "t", "url": receiver.url})
    path = "/dashboard/tasks/t"

    async def act(what: str) -> httpx.Response:
        text = (await visitor.get(path)).text
        sent = {"form": field(text, "form"), "nonce": field(text, "nonce")}
        return await visitor.post(f"{path}/{what}", data=sent)

    text = (await visitor.get(path)).text
    sent = {"form": field(text, "form"), "nonce": field(text, "nonce")}
    for _ in range(2):  # the same form twice is one run
        done = await visitor.post(f"{path}/run", data=sent)
        assert (done.status_code, done.headers["Location"]) == (303, f"{path}?done=run")
    await eventually(lambda: assert_length(receiver.requests, 1))
    assert "started by hand" in (await visitor.get(done.headers["Location"])).text
    for what, status in (("pause", "paused"), ("resume", "active")):
        assert (await act(what)).status_code == 303
        assert (await alice.get("/tasks/t")).json()["status"] == status
    assert (await act("explode")).status_code == 400
    await alice.patch("/tasks/t", json={"status": "disabled"})
    text = (await visitor.get(path)).text
    assert "Run now" not in text and "Disabled" in text and "No instant is to come" in text
    refused = await visitor.post(f"{path}/run", data={"form": field(text, "form")})
    assert refused.status_code == 409 and "is disabled" in refused.text
    assert (await visitor.get(f"{path}?done=<script>")).status_code == 200


def assert_length(things: list[Any], length: int) -> None:
    assert len(things) == length


async def test_a_page_asks_the_database_five_times_at_most(visitor, alice, app: App, receiver):
    await alice.post("/tasks", json={**EVERY, "id": "t", "url": receiver.url})
    run = (await alice.post("/tasks/t/execute")).json()["run_id"]
    for path in ("/dashboard/tasks", "/dashboard/tasks/t", f"/dashboard/runs/{run}"):
        with statements(app) as seen:
            assert (await visitor.get(path)).status_code == 200
        assert 1 < len(seen) <= 5, (path, seen)


async def test_where_the_database_is_away_a_page_says_so(visitor, conn):
    await conn.execute("ALTER TABLE session RENAME TO away")
    broken = await visitor.get("/dashboard/tasks")
    assert broken.status_code == 500 and "went wrong here" in broken.text
    assert "session" not in broken.text and "<h1>" in broken.text
    safe(broken)


async def test_a_sign_in_that_the_database_does_not_answer_counts_for_nothing(anonymous, app, conn):
    await conn.execute("ALTER TABLE session RENAME TO away")
    for _ in range(tries.MOST + 2):
        assert (await enter(anonymous)).status_code == 500
    await conn.execute("ALTER TABLE away RENAME TO session")
    assert (await enter(anonymous)).status_code == 303


# What others wrote -------------------------------------------------------------------------------

HOSTILE = '"><script>alert(1)</script>{{ 7 * 7 }}\u202egnp.exe\u200b<img src=x onerror=alert(2)>'


def harmless(text: str) -> None:
    assert "<script>alert" not in text and "<img src=x" not in text
    assert ">49<" not in text and "49\u202e" not in text
    assert not shown.ODD.search(text.replace("\n", ""))


async def test_what_others_wrote_is_text_and_nothing_else(visitor, alice, receiver):
    body = HOSTILE + "\x1b[31m" + "x" * 1_000_000
    receiver.then(500, body, {"X": "y"})
    task = {
        "id": "t", "name": f"N{HOSTILE}", "description": HOSTILE, "tags": [HOSTILE],
        "url": receiver.url + "/?q=%3Cscript%3E" + "a" * 3000, "method": "POST",
        "payload": HOSTILE + "y" * 200_000, "header": {"X-Odd": "<script>alert(1)</script>"},
        "max_retries": 0,
    }  # fmt: skip
    assert (await alice.post("/tasks", json=task)).status_code == 201
    run = (await alice.post("/tasks/t/execute")).json()["run_id"]
    for path in ("/dashboard/tasks", "/dashboard/tasks/t", f"/dashboard/runs/{run}"):
        answer = await visitor.get(path)
        assert answer.status_code == 200 and len(answer.content) < 80_000
        harmless(answer.text)
        assert "U+202E" in answer.text or path.startswith("/dashboard/runs")
    assert "U+001B" in answer.text and re.search(r"… [\d,]+ characters more", answer.text)
    sought = await visitor.get("/dashboard/tasks", params={"q": HOSTILE})
    harmless(re.sub(r'value="[^"]*"', "", sought.text))
    assert '"><script' not in sought.text


async def test_an_api_shows_how_far_it_has_come_what_it_offers_and_which_tasks_it_breaks(
    visitor, alice, app: App
):
    assert "scheduler specs add" in (await visitor.get("/dashboard/apis")).text
    get = {"summary": HOSTILE, "responses": {"200": {"description": "ok"}}}
    document = {
        "openapi": "3.0.3",
        "info": {"title": HOSTILE, "version": "1"},
        "servers": [{"url": "http://127.0.0.1:9"}],
        "paths": {"/kept": {"get": get}, "/gone": {"get": get}},
    }
    new = {"name": f"n{HOSTILE}", "headers": {"x-key": "planted"}, "spec": in_base64(document)}
    trace = (await alice.post("/v1/api/spec", json=new)).json()["trace_id"]
    await eventually(lambda: reached(alice, trace))
    called = {"service": new["name"], "name": f"t{HOSTILE}", "cron": "0 0 1 1 *"}
    for path in ("/kept", "/gone"):
        sent = await alice.post("/tasks", json={**called, "endpoint": path})
        assert sent.status_code == 201, sent.text
    del document["paths"]["/gone"]
    await alice.put(f"/v1/api/spec/{trace}", json={"spec": in_base64(document)})
    await eventually(lambda: reached(alice, trace))

    listed = await visitor.get("/dashboard/apis")
    page = await visitor.get(f"/dashboard/apis/{trace}")
    for answer in (listed, page):
        assert answer.status_code == 200 and "planted" not in answer.text
        harmless(answer.text)
        assert trace in answer.text and "success" in answer.text
    assert "GET /kept" in page.text and page.text.count("GET /gone is not an endpoint") == 1
    assert "Client code generated and reviewed" in page.text


async def test_an_api_that_never_came_to_serve_has_a_page_too(visitor, alice):
    spec = {"openapi": "3.0.3", "info": {"title": "t"}, "paths": {}}
    new = {"name": "broken", "headers": {"x-key": "planted"}, "spec": in_base64(spec)}
    trace = (await alice.post("/v1/api/spec", json=new)).json()["trace_id"]
    assert (await visitor.get(f"/dashboard/apis/{trace}")).status_code == 200

    async def failed() -> None:
        assert (await alice.get(f"/v1/api/spec/{trace}/status")).json()["status"] == "ERROR"

    await eventually(failed)
    page = await visitor.get(f"/dashboard/apis/{trace}")
    assert page.status_code == 200 and "info: has no version" in page.text
    assert "x-key" in page.text and "planted" not in page.text


async def test_an_api_of_another_service_has_no_page(visitor, bob):
    spec = {"openapi": "3.0.3", "info": {"title": "t", "version": "1"}, "paths": {}}
    new = {"name": "theirs", "headers": {}, "spec": in_base64(spec)}
    trace = (await bob.post("/v1/api/spec", json=new)).json()["trace_id"]
    assert (await visitor.get(f"/dashboard/apis/{trace}")).status_code == 404
    assert "theirs" not in (await visitor.get("/dashboard/apis")).text


def in_base64(document: dict[str, Any]) -> str:
    return base64.b64encode(json.dumps(document).encode()).decode()


async def reached(client: httpx.AsyncClient, trace: str) -> None:
    status = (await client.get(f"/v1/api/spec/{trace}/status")).json()
    assert status["status"] == "SUCCESS", status


@given(st.text(max_size=60))
@settings(max_examples=50)
def test_no_text_becomes_markup_or_stays_unseen(text):
    for made in (shown.line(text), shown.block(text), shown.line(text, 3)):
        bare = re.sub(r'</?bdi>|<span class="more">|</span>|<b class="odd">|</b>', "", made)
        assert "<" not in bare and ">" not in bare
        assert not shown.ODD.search(made)
    assert not shown.ODD.search(shown.plain(text))


def test_what_has_no_shape_is_shown_by_its_number():
    shaped = [*range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD]
    shaped += range(0x13430, 0x13440)  # how hieroglyphs stand to each other
    for number in range(sys.maxunicode + 1):
        kind = unicodedata.category(chr(number))
        none = number & 0xFFFE == 0xFFFE and number < 0x10000
        if (kind in ("Cc", "Cf", "Cs") or none) and number not in (9, 10, *shaped):
            assert f"U+{number:04X}" in shown.line(chr(number))


def test_marks_do_not_grow_over_the_lines_around():
    for letter, mark in (("e", "\u0301"), ("ก", "\u0e49"), ("a", "\u20dd")):
        assert shown.line(letter + mark * 150) == f"<bdi>{letter}{mark * 6}\ufffd</bdi>"
    for name in ("Ho\u0302\u0323ng", "בְּרֵאשִׁ֖ית", "ที่นี่", "हिन्दी"):
        assert name in shown.line(name)


def test_a_text_of_nothing_but_unseen_characters_is_no_burden():
    assert len(shown.block("\u200b" * 100_000)) < 60_000


def test_times_are_told_in_words():
    assert shown.distance(-90_061_000) == "1 d 1 h ago"
    assert shown.distance(3_723_000) == "in 1 h 2 min"
    assert shown.distance(500) == "now"
    assert [shown.duration(n) for n in (None, 12, 1234, 60_000)] == ["", "12 ms", "1.2 s", "1 min"]
    assert "1970-01-01T00:00:00.000Z" in shown.when("1970-01-01T00:00:00Z", 0)


# Nobody else is asked ----------------------------------------------------------------------------


def linked(text: str) -> list[str]:
    """What a page has a browser fetch."""
    return re.findall(r'<(?:link|script|img)\b[^>]*?(?:href|src)="([^"]+)"', text)


async def test_everything_a_page_needs_comes_from_us(anonymous, visitor):
    for path in [*MANUALS, *PAGES]:
        answer = await visitor.get(path)
        safe(answer)
        assert answer.headers["Content-Type"].startswith("text/html"), path
        needed = linked(answer.text)
        assert len(needed) > 1 and all(each.startswith("/static/") for each in needed)
        assert not re.search(r"(?:href|src|action)=\"(?![/#])", answer.text)
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\bstyle=|\bon\w+=", answer.text)
        assert (await anonymous.head(path)).status_code in (200, 303)
        for each in needed:
            file = await anonymous.get(each)
            assert file.status_code == 200 and "immutable" in file.headers["Cache-Control"]
            assert file.headers["X-Content-Type-Options"] == "nosniff"
            if each.endswith(".css"):
                urls = re.findall(r"url\(([^)]*)\)|@import\s+(\S+)", file.text)
                assert all(u.strip("'\"").startswith("data:") for u, i in urls) or not urls


async def test_static_files_are_few_and_kept(anonymous):
    style = next(x for x in linked((await anonymous.get(SIGN_IN)).text) if x.endswith(".css"))
    got = await anonymous.get(style)
    assert got.headers["Content-Type"] == "text/css; charset=utf-8"
    again = await anonymous.get(style, headers={"If-None-Match": got.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    old = await anonymous.get("/static/0000/style.css")
    assert old.content == got.content and old.headers["Cache-Control"] == "no-cache"
    for name in ("swagger-editor-bundle.js", "..%2Fpage.py", "%2e%2e%2f%2e%2e%2fapp.py", "x"):
        assert (await anonymous.get(f"/static/x/{name}")).status_code == 404
    assert (await anonymous.get("/docs/openapi.json")).headers[
        "X-Content-Type-Options"
    ] == "nosniff"


async def test_nothing_is_cached_that_does_not_say_so(anonymous, alice):
    for client, path in (
        (alice, "/tasks"), (alice, "/tasks/none"), (alice, "/runs"), (anonymous, "/tasks"),
        (anonymous, "/health"), (anonymous, "/nothing"), (anonymous, SIGN_IN),
    ):  # fmt: skip
        assert (await client.get(path)).headers.get_list("Cache-Control") == ["no-store"], path
    for path in ("/docs", "/docs/openapi.json", "/static/x/style.css"):
        assert (await anonymous.get(path)).headers.get_list("Cache-Control") == ["no-cache"], path


async def test_an_unknown_address_below_docs_is_refused_as_any_other(anonymous):
    for path in ("/docs/swagger", "/docs/x"):
        answer = await anonymous.get(path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


# In a browser ------------------------------------------------------------------------------------


@pytest.mark.skipif(chromium() is None, reason="there is no Chromium here")
async def test_a_browser_shows_it_all_and_complains_of_nothing(run_app: RunApp, receiver):
    complaints: list[str] = []
    hosts: set[str] = set()
    async with run_app(EGRESS_ALLOW="127.0.0.1") as app, browser() as chrome:
        page = await chrome.new_page()
        page.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda e: complaints.append(str(e)))
        page.on("request", lambda r: hosts.add(urlsplit(r.url).netloc))
        async with app.client("alice") as alice:
            await alice.post("/tasks", json={"id": "t", "name": HOSTILE, "url": receiver.url})
        await sign_in(page, app.url, "alice", TOKENS["alice"])
        await page.click("text=Tasks")
        await page.click("tbody a")
        await page.click("text=Run now")
        await page.wait_for_selector(".said:has-text('started by hand')")
        await eventually(lambda: assert_length(receiver.requests, 1))
        await page.reload()
        await page.click("tbody a")
        await page.wait_for_selector("h1:has-text('Run')")
        await page.set_viewport_size({"width": 360, "height": 640})
        for path in ("/dashboard/tasks", "/dashboard/tasks/t"):
            await page.goto(app.url + path)
            wide = await page.evaluate("document.documentElement.scrollWidth")
            assert wide <= 360, path
        await page.set_viewport_size({"width": 1100, "height": 800})
        await tried_out(page, app)
        await page.goto(f"{app.url}/dashboard")
        await page.click("text=Sign out")
        await page.wait_for_selector("[name=token]")
        assert await page.context.cookies(app.url + "/x") != [] and not [
            c for c in await page.context.cookies() if c["name"] == door.SESSION
        ]
    assert complaints == []
    assert hosts == {urlsplit(app.url).netloc}


async def tried_out(page: Any, app: App) -> None:
    """Use "Try it out" of Swagger UI with the credential headers."""
    await page.goto(f"{app.url}/docs")
    await page.click(".authorize")
    names = {"service_id": app.ids["alice"], "token": TOKENS["alice"]}
    for name, value in names.items():
        box = page.locator(".auth-container", has=page.locator(f"h4 code:text-is('{name}')"))
        await box.locator("input").fill(value)
        await box.locator("button.authorize").click()
    await page.click(".btn-done")
    block = page.locator("[id$=list_tasks]")
    await block.locator(".opblock-summary-control").click()
    await block.locator(".execute").click()
    await block.locator(".live-responses-table .response-col_status:has-text('200')").wait_for()
