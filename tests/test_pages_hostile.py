"""Pages under attack: forms from elsewhere, ids of another service, reads that write, text that is
made to be costly. The first three walk all handlers there are, so that later ones are covered.
"""

import asyncio
import base64
import json
import re
import shlex
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

import asyncpg
import httpx
import msgspec
import pytest

from conftest import App, RunApp, eventually
from pages import SIGN_IN, field, safe, signed_in
from scheduler.admin.model import QUOTAS
from scheduler.dashboard import api, shown
from scheduler.dashboard.editor import copying, curl, filling, shell, trial
from scheduler.dashboard.runs import runs_export
from scheduler.errors import TooManyRequests
from scheduler.masking import mask_body
from test_admin_pages import ADMIN, as_admin
from test_apis_page import document, reached

MARK = "of-alice-alone"
"""In everything that alice has, and in nothing that bob may see."""
ADMINS = "/dashboard/admin"
OPEN = ("/static/{stamp:str}/{name:str}", SIGN_IN, f"{ADMINS}/sign-in")
"""What a stranger may ask for."""


def paths(method: str) -> Iterator[str]:
    """The addresses of all handlers of a method."""
    for handler in api.HANDLERS:
        if method in handler.http_methods:
            yield from sorted(handler.paths)


# A service with something of everything ----------------------------------------------------------


async def furnish(
    client: httpx.AsyncClient, visitor: httpx.AsyncClient, url: str
) -> dict[str, str]:
    """Give a service one of each; return what stands for the parameters of addresses."""
    new = {"id": "theirs", "name": f"Task {MARK}", "url": f"{url}/{MARK}", "method": "POST"}
    assert (await client.post("/tasks", json={**new, "frequency": 9, "unit": "week"})).is_success
    assert (await client.post(f"/tasks/{new['id']}/execute")).is_success
    source = base64.b64encode(json.dumps(document(url)).encode()).decode()
    spec = {"name": f"spec-{MARK}", "headers": {}, "spec": source}
    trace = (await client.post("/v1/api/spec", json=spec)).json()["trace_id"]
    await eventually(lambda: reached(client, trace))
    call = {"service": spec["name"], "endpoint": "/pets", "method": "GET"}
    process = (await client.post("/v1/api/scheduler/process", json=call)).json()["trace_id"]
    days = {"name": "days", "description": MARK, "weekly": [{"days": ["SAT"]}]}
    assert (await client.post("/calendars", json=days)).is_success
    act = await paused(visitor, new["id"])
    ended = {}

    async def done() -> None:
        found = (await client.get("/runs", params={"state": "succeeded"})).json()["runs"]
        ended.update({run["kind"]: run["id"] for run in found})
        assert ended.keys() >= {"manual", "process"}

    await eventually(done)
    return {
        "task_id": new["id"], "run_id": ended["manual"], "name": days["name"],
        "trace_id": trace, "process": process, "act": act, "kind": "delete",
        "rest": "nothing", "file": "spec.yaml", "stamp": "x",
    }  # fmt: skip


async def paused(visitor: httpx.AsyncClient, task_id: str) -> str:
    """Pause a task from the list; return the act's id."""
    asked = (await visitor.get("/dashboard/bulk/pause", params={"id": task_id})).text
    sent = {name: field(asked, name) for name in ("form", "seen", "act")}
    led = await visitor.post("/dashboard/bulk/pause", params={"id": task_id}, data=sent)
    assert led.status_code == 303
    return sent["act"]


WORDS = {
    "/dashboard/tasks/{task_id:str}/{act:str}": "run",
    "/dashboard/runs/{run_id:str}/{act:str}": "replay",
    "/dashboard/settings/{act:str}": "end-others",
    "/dashboard/bulk/acts/{act:uuid}/{step:str}": "undo",
    "/dashboard/apis/{trace_id:str}/files/{name:str}": "spec.yaml",
    "/static/{stamp:str}/{name:str}": "style.css",
}
"""What a last parameter is where it names nothing that a service has."""


def filled(path: str, of: dict[str, str]) -> str:
    """An address with its parameters filled in; one that nobody knows fails: add it above."""
    if path in WORDS:
        path = f"{path.rpartition('/')[0]}/{WORDS[path]}"
    if path.startswith("/dashboard/processes/"):
        path = f"/dashboard/processes/{of['process']}"
    made = re.sub(r"\{(\w+):\w+\}", lambda found: of[found[1]], path)
    if made.endswith("/try"):
        made += "?endpoint=GET%20/pets"
    return f"{made}?id={of['task_id']}" if made == "/dashboard/bulk/delete" else made


USED = {"token": " - 'last_used_at'", "admin_session": " - 'used_at'"}
"""What a read may write: when something was used last."""
MACHINES = (
    "replica",
    "log_entry",
    "alembic_version",
    "clock",
    "installation",
    "tally",
    "tally_mark",
)
"""Tables that replicas write by themselves."""


async def everything(conn: asyncpg.Connection) -> dict[str, str]:
    """All rows of every table that somebody's data is in."""
    tables = await conn.fetch(
        "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND NOT relispartition "
        "AND relnamespace = 'public'::regnamespace ORDER BY 1"
    )
    found = {}
    for (table,) in tables:
        if table not in MACHINES:
            row = f"(to_jsonb(t){USED.get(table, '')})::text"
            found[table] = await conn.fetchval(
                f"SELECT string_agg({row}, ' ' ORDER BY {row}) FROM {table} AS t"
            )
    return found


class Room(msgspec.Struct):
    """The program, who is signed in there, and what stands for the parameters of addresses."""

    app: App
    conn: asyncpg.Connection
    alice: httpx.AsyncClient
    bob: httpx.AsyncClient
    admin: httpx.AsyncClient
    of: dict[str, str]

    def owner(self, path: str) -> httpx.AsyncClient:
        """Who may ask for an address."""
        return self.admin if path.startswith(ADMINS) else self.alice

    async def form(self, who: httpx.AsyncClient) -> str:
        """What the forms of a session send along."""
        home = ADMINS if who is self.admin else "/dashboard"
        return field((await who.get(home)).text, "form")


@pytest.fixture
async def room(run_app: RunApp, conn, receiver) -> AsyncIterator[Room]:
    async with (
        run_app(ADMIN_TOKEN=ADMIN) as app,
        app.client("alice") as client,
        signed_in(app) as alice,
        signed_in(app, "bob") as bob,
        as_admin(app) as admin,
    ):
        of = await furnish(client, alice, receiver.url)
        yield Room(app, conn, alice, bob, admin, {**of, "ref": app.ids["alice"]})


# All handlers ------------------------------------------------------------------------------------


async def test_every_form_is_refused_that_is_not_one_of_this_session_and_this_site(room: Room):
    before, theirs = await everything(room.conn), await room.form(room.bob)
    for path in paths("POST"):
        who, at = room.owner(path), filled(path, room.of)
        own = {"form": await room.form(who)}
        if "sign-in" in path:
            own = {"form": field((await who.get(at)).text, "form")}
        wrong: list[dict[str, Any]] = [
            {"content": b""},
            {"data": {"form": ""}},
            {"data": {"form": theirs}},
            {"json": own},
            {"files": {"form": (None, theirs)}},
            *({"data": own, "headers": {"Sec-Fetch-Site": site}} for site in SITES),
            *({"data": own, "headers": {"Origin": origin}} for origin in ORIGINS),
        ]
        for sent in wrong:
            answer = await who.post(at, **sent)
            assert answer.status_code == 403, (path, sent, answer.status_code)
            safe(answer)
    assert await everything(room.conn) == before


SITES = ("cross-site", "same-site", "none", "")
ORIGINS = ("http://elsewhere.test", "null", "https://[", "http://127.0.0.1:1")


async def test_no_page_that_is_only_looked_at_changes_anything(room: Room):
    before = await everything(room.conn)
    for path in paths("GET"):
        who, at = room.owner(path), filled(path, room.of)
        if path != "/dashboard/live":
            answer = await who.get(at)
            assert answer.status_code in (200, 303) or "rest" in path, (path, answer.status_code)
            if "attachment" in answer.headers.get("Content-Disposition", ""):
                policy = answer.headers["Content-Security-Policy"]
                assert re.match("sandbox|default-src 'none'", policy), path
                assert answer.headers["X-Content-Type-Options"] == "nosniff", path
            elif not path.startswith("/static/"):
                safe(answer)
            headed = await who.head(at)
            assert headed.status_code in (answer.status_code, 405), path
    assert await everything(room.conn) == before


async def test_what_is_another_services_is_not_there(room: Room):
    """Neither to be seen nor to be changed, whatever it is called by."""
    before, form = await everything(room.conn), {"form": await room.form(room.bob)}
    for path in paths("GET"):
        if path != "/dashboard/live":
            answer = await room.bob.get(filled(path, room.of))
            assert MARK not in answer.text, path
            assert answer.status_code in (200, 303, 404), path
    for path in paths("POST"):
        if not path.endswith(("sign-out", "sign-in")):
            answer = await room.bob.post(filled(path, room.of), data=form)
            assert MARK not in answer.text, path
            assert answer.status_code in (303, 400, 404), (path, answer.status_code)
    assert await everything(room.conn) == before


async def test_no_session_opens_what_is_of_another_kind(room: Room):
    async with room.app.client() as stranger:
        for method in ("GET", "POST"):
            for path in paths(method):
                at = filled(path, room.of)
                if path in OPEN:
                    continue
                others = [stranger, room.bob if path.startswith(ADMINS) else room.admin]
                for who in others:
                    answer = await who.request(method, at, headers={"Accept": "text/event-stream"})
                    assert MARK not in answer.text, path
                    if path == "/dashboard/live":
                        assert '"why":"session"' in answer.text
                    elif path in ("/", "/dashboard"):
                        assert 'name="token"' in answer.text
                    else:
                        assert answer.status_code == 303, (method, path)
                        assert "/sign-in" in answer.headers["Location"]


# Text that is made to be costly ------------------------------------------------------------------

DEEP = b"[" * 900 + b"1," * 20_000 + b"1" + b"]" * 900
"""JSON that takes a thousand times its length when it is written over several lines."""
# Costs are CPU time: what other processes take meanwhile is no finding.


async def test_days_of_the_week_are_read_at_once_however_they_are_spaced(visitor):
    form = {"form": field((await visitor.get("/dashboard/new-calendar")).text, "form")}
    gap = " " * 3000
    for line in (f"MON{gap}-{gap}FRI!", f"A{gap}!", f"MON,{gap}-{gap},FRI", "MON, " * 3000):
        sent = {**form, "name": "x", "timezone": "UTC", "weekly": line}
        began = time.process_time()
        answer = await visitor.post("/dashboard/new-calendar", data=sent)
        assert time.process_time() - began < 2
        assert answer.status_code == 400 and "line 1: write days and perhaps" in answer.text
    good = {**form, "name": "x", "timezone": "UTC", "weekly": f"MON{gap}-{gap}FRI  22:00 - 06:00"}
    assert (await visitor.post("/dashboard/new-calendar", data=good)).status_code == 303


async def test_a_form_of_nothing_but_fields_is_refused_at_once(visitor):
    """Each of those that may be large."""
    own = "form=" + field((await visitor.get("/dashboard/new-calendar")).text, "form")
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    for path in ("/dashboard/new-calendar", "/dashboard/new", "/dashboard/apis/new"):
        for pair in ("&a", "&a=1"):
            began = time.process_time()
            answer = await visitor.post(path, content=own + pair * 250_000, headers=kind)
            assert time.process_time() - began < 0.6, path
            assert answer.status_code == 400 and "form" in answer.text


async def test_a_document_that_is_all_escapes_is_decoded_beside_the_loop(visitor):
    own = "form=" + field((await visitor.get("/dashboard/apis/new")).text, "form")
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        while True:
            before = time.thread_time()
            await asyncio.sleep(0.001)
            longest = max(longest, time.thread_time() - before)

    watching = asyncio.create_task(watch())
    content = f"{own}&name=&header_name={'%2a' * 1_500_000}"
    assert (await visitor.post("/dashboard/apis/new", content=content, headers=kind)).is_error
    watching.cancel()
    assert longest < 0.5


async def test_a_command_of_nothing_but_lines_is_read_at_once():
    began = time.thread_time()
    found = curl.parse('curl ^"http://a.test/^"' + "\n" * 90_000)
    assert time.thread_time() - began < 1
    assert found.url == "http://a.test/"
    found = curl.parse('curl ^"http://a.test/^"\n  -X PUT\n\n -H ^"A: b^"')
    assert (found.method, found.headers) == ("PUT", [("A", "b")])


def test_what_is_quoted_is_no_end_of_a_line():
    for text in ("^\n", "a`\nb", "\\ \n", "it's ^\n 'x'", '^"'):
        assert shell.words(shlex.join(["curl", text])).words == ["curl", text]
    assert shell.words('curl "a \'b" ^\r\n -d "c" ^\n  x').words == ["curl", "a 'b", "-d", "c", "x"]
    began = time.thread_time()
    for text in ('"' + '\\"' * 45_000, "'\"" * 45_000, "\\" * 90_000, "$'" + "\\'" * 45_000):
        shell.words(f"curl ^\n {text}")
    assert time.thread_time() - began < 2


def test_deep_json_is_shown_as_it_came():
    text = DEEP.decode()
    assert trial._shown(DEEP, ()) == text and filling._pretty(text) == text
    assert len(copying.as_json({"payload": msgspec.Raw(DEEP)})) < 2 * len(DEEP)
    assert trial._shown(b'{"a":[1]}', ()) == filling._pretty('{"a":[1]}')
    assert "\n" in copying.as_json({"a": [1]})


async def test_a_year_is_four_digits_or_it_is_this_one(visitor, alice):
    await alice.post("/calendars", json={"name": "x", "weekly": [{"days": ["SAT"]}]})
    now = years(await visitor.get("/dashboard/calendars/x"))
    assert len(now) == 2
    for year in ("020261234", "02026" + "1" * 5000, "٢٠٢٦", "-2026", "2026 ", "9999", "0000"):
        answer = await visitor.get("/dashboard/calendars/x", params={"year": year})
        assert (answer.status_code, years(answer)) == (200, now), year


async def test_no_sign_that_a_database_cannot_hold_is_an_error_of_ours(visitor):
    form = {"form": field((await visitor.get("/dashboard")).text, "form")}
    for path in NUL:
        assert (await visitor.get(f"/dashboard/{path}")).status_code in (200, 400, 404), path
    sent = {**form, "trigger": "manual", "action": "operation", "service": "a\0b", "name": "\0"}
    for path in ("new", "preview", "trial"):
        assert (await visitor.post(f"/dashboard/{path}", data=sent)).status_code in (200, 400), path


NUL = [
    "new/endpoints?service=%00", "new?service=%00&endpoint=%00", "new?from=%00", "new?curl=%00",
    "tasks?q=%00&tag=%00", "tasks/%00", "tasks/%00/history", "runs?trace_id=%00&q=%00", "runs/%00",
    "bulk/delete?id=%00", "calendars/%00", "apis/%00", "processes/%00", "system?words=%00",
]  # fmt: skip


def years(answer: httpx.Response) -> list[str]:
    """The years that the page of a calendar leads to."""
    return re.findall(r"\?year=(\d+)", answer.text)


async def test_a_quota_of_many_digits_is_refused(run_app: RunApp):
    async with run_app(ADMIN_TOKEN=ADMIN) as app, as_admin(app) as admin:
        form = field((await admin.get(ADMINS)).text, "form")
        for amount in ("00000000009999999999", "1" * 5000):
            sent = {"form": form, "name": "x", QUOTAS[0]: amount}
            answer = await admin.post(f"{ADMINS}/services", data=sent)
            assert answer.status_code == 400 and "a whole number to" in answer.text


# What is held, and what is shown -----------------------------------------------------------------


def test_who_makes_files_keeps_no_other_service_from_it():
    exports, one, other = runs_export.Exports(), uuid4(), uuid4()
    with exports.turn(one), exports.turn(one):
        with pytest.raises(TooManyRequests), exports.turn(one):
            pass
        with exports.turn(other):
            pass
    with ExitStack() as stack:
        for _ in range(runs_export.IN_ALL):
            stack.enter_context(exports.turn(uuid4()))
        with pytest.raises(TooManyRequests):
            exports.check(other)
    exports.check(other)


async def test_a_reader_that_takes_nothing_of_a_file_is_cut_off(monkeypatch):
    monkeypatch.setattr(runs_export, "TAKEN_S", 0.02)
    cut, closed, stopping = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def pieces() -> AsyncGenerator[str]:
        try:
            yield "a"
            yield "b"
        finally:
            closed.set()

    reading = runs_export.taken(pieces(), stopping, cut.set)
    assert await anext(reading) == "a"
    await asyncio.wait_for(cut.wait(), 5)
    await reading.aclose()
    assert closed.is_set()
    cut.clear()
    assert [piece async for piece in runs_export.taken(pieces(), stopping, cut.set)] == ["a", "b"]
    await asyncio.sleep(0.05)
    assert not cut.is_set()


def test_a_form_that_is_refused_is_logged_without_what_a_call_sends():
    sent = urlencode(
        {
            "header_name": "X-Account",
            "header_value": "planted",
            "header:X-Account": "planted",
            "body:note": "planted",
            "cookie:name": "planted",
            "name": "shown",
        }
    )
    shown_ = mask_body(sent.encode(), "application/x-www-form-urlencoded")
    assert "planted" not in shown_ and "name=shown" in shown_


def test_a_password_of_any_length_is_masked_in_an_address():
    for length in (10, 500, 8000):
        assert "planted" not in shown.address(f"http://u:planted{'p' * length}@h.test/")
        assert "planted" not in shown.address(f"http://h.test/{'p' * length}?token=planted")
