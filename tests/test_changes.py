"""Who ran, replayed and cancelled what, changed a spec, a service, a token; and where it is shown."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from conftest import App
from pages import field, signed_in, statements
from scheduler import audit, changelog
from scheduler.audit import Change, Entry, Found
from scheduler.changelog import Wanted
from scheduler.db import ms, rfc3339, utc
from scheduler.service import By
from spec_room import created as register
from test_admin_pages import as_admin, ruled, send  # noqa: F401  (a fixture)
from test_audit import HOURLY, said, token_of, told
from test_cancel import soon

PAGE = "/dashboard/changes"
TARGET = {"name": "t", "url": "http://127.0.0.1:9/", "max_retries": 0}


async def listed(app: App, service: str = "alice", **wanted: Any) -> list[Found]:
    """The changes of a service, the oldest first, without those of its creation."""
    async with app.database.api.connect() as conn:
        found = await changelog.of_service(conn, uuid.UUID(app.ids[service]), Wanted(**wanted), 100)
    return [each for each in found[::-1] if each.by.way != "system"]


def done(found: list[Found]) -> list[tuple[str, str]]:
    return [(each.kind, each.verb) for each in found]


async def test_what_is_done_to_runs_by_hand_is_told_with_the_run(app: App, alice, conn):
    await alice.post("/tasks", json={**TARGET, "id": "t"})
    run = (await alice.post("/tasks/t/execute")).json()["run_id"]
    assert (await alice.post(f"/runs/{run}/replay")).status_code == 202
    assert (await alice.post("/runs/none/cancel")).status_code == 404
    await alice.post("/tasks", json={**TARGET, "id": "u", "scheduled_at": soon(30)})
    ask = "SELECT id FROM run WHERE task_id = 'u'"
    async with signed_in(app) as visitor:
        coming = await conn.fetchval(ask)
        form = field((await visitor.get("/dashboard/tasks/u")).text, "form")
        answer = await visitor.post(f"/dashboard/runs/{coming}/cancel", data={"form": form})
        assert answer.status_code == 303, answer.text
    first, again = (each for each in await told(app, "t") if each.kind == "run")
    assert [first.verb, again.verb] == ["executed", "replayed"]
    assert said(first) == said(again) == {"run": (None, run)}
    assert first.by == By("api", await token_of(conn, app)) and first.version == 1
    (cancelled,) = [each for each in await told(app, "u") if each.kind == "run"]
    assert (cancelled.verb, cancelled.by.way) == ("cancelled", "dashboard")
    assert said(cancelled) == {"run": (None, str(coming))}


async def test_many_runs_are_told_by_one_entry_with_their_count_and_the_filter(app: App, alice):
    for name in ("a", "b"):
        await alice.post("/tasks", json={**TARGET, "id": name})
        for _ in range(2):
            await alice.post(f"/tasks/{name}/execute")
    which = {"state": "failed", "kind": "manual"}
    assert (await alice.post("/runs/replay", json={**which, "dry_run": True})).json()["matched"]
    assert (await alice.post("/runs/replay", json=which)).json()["done"] == 4
    (entry,) = [each for each in await listed(app, kinds=("run",)) if each.verb == "replayed"]
    assert entry.ref == ""
    assert said(entry) == {
        "runs": (None, "4"), "state": (None, "failed"), "kind": (None, "manual"),
    }  # fmt: skip


async def test_tasks_made_at_once_are_one_entry_of_their_service(app: App, alice, visitor):
    await alice.post("/tasks/bulk", json=[{**HOURLY, "id": f"t{n}"} for n in range(60)])
    (made,) = await listed(app)
    assert (made.verb, said(made)) == ("created", {"tasks": (None, "60")})
    (one,) = await told(app, "t59")
    assert (one.verb, one.by.way) == ("created", "api")
    asked = (await visitor.get("/dashboard/bulk/pause?all=1")).text
    sent = {name: field(asked, name) for name in ("form", "act", "seen")}
    await visitor.post("/dashboard/bulk/pause?all=1", data=sent)
    assert [(await told(app, f"t{n}"))[-1].verb for n in (0, 59)] == ["paused", "paused"]
    last = (await listed(app))[1:]
    assert [(each.verb, said(each)) for each in last] == [
        ("asked to pause", {"tasks": (None, "60")})
    ]


async def test_a_spec_is_told_and_its_headers_by_their_names_alone(app: App, alice, conn):
    trace = await register(alice, headers={"X-Key": "planted-1"})
    for body in (
        {"name": "other", "url": "https://127.0.0.1/?token=planted-2"},
        {"headers": {"X-Key": "********"}},
        {"headers": {"X-Key": "planted-3"}},
        {"headers": {"X-Key": "planted-3", "X-More": "planted-4"}},
    ):
        answer = await alice.put(f"/v1/api/spec/{trace}", json=body)
        assert answer.status_code == 204, answer.text
    await alice.delete(f"/v1/api/spec/{trace}")
    found = await told(app, trace, kind="spec")
    verbs = ["created", "edited", "edited", "edited", "archived"]
    assert [each.verb for each in found] == verbs
    assert said(found[1])["name"][1] == "other"
    assert said(found[2]) == {"headers": ("********", "********")}
    assert said(found[3]) == {"headers": ("x-key", "x-key, x-more")}
    assert "planted" not in str(await conn.fetch("SELECT * FROM audit"))


async def test_an_edit_of_a_calendar_says_what_it_changed(app: App, alice):
    await alice.post("/calendars", json={"name": "c", "dates": ["2027-01-01"]})
    await alice.patch("/calendars/c", json={"weekly": [{"days": ["SUN"]}], "description": "d"})
    edited = (await told(app, "c", kind="calendar"))[1]
    assert said(edited) == {"description": (None, "d"), "weekly": ("", "SUN")}


async def test_what_admins_and_the_service_do_to_it_is_told_without_secrets(ruled: App, conn):  # noqa: F811
    app = ruled
    at = f"/services/{app.ids['alice']}"
    async with as_admin(app) as admin, signed_in(app) as own, app.client() as api:
        await send(admin, at, name="alice", max_tasks="5", allow_commands="on")
        newest = field((await own.get("/dashboard/settings")).text, "newest")
        for act in ("rotate", "signing"):
            text = (await own.get("/dashboard/settings")).text
            form = {name: field(text, name) for name in ("form", "once", "seen")}
            answer = await own.post(f"/dashboard/settings/{act}", data={**form, "newest": newest})
            assert answer.status_code == 200, answer.text
        api.headers["Authorization"] = "Bearer an-admin-token-of-tests"
        await api.patch(at, json={"name": "alicia"})
        await api.post(f"{at}/revoke", json={"token_id": newest})
    found = await listed(app)
    assert [(each.verb, each.by.way) for each in found] == [
        ("edited", "admin page"),
        ("made", "dashboard"),
        ("signing secret rotated", "dashboard"),
        ("edited", "admin"),
        ("revoked", "admin"),
    ]
    assert said(found[0]) == {"max_tasks": (None, "5"), "allow_commands": ("false", "true")}
    assert said(found[3]) == {"name": ("alice", "alicia")} and found[4].ref == newest
    rows = str(await conn.fetch("SELECT * FROM audit"))
    for row in await conn.fetch("SELECT hash FROM token"):
        assert row["hash"].hex() not in rows


async def test_a_service_that_is_gone_is_still_told_to_the_admin(ruled: App):  # noqa: F811
    at = f"/services/{ruled.ids['bob']}"
    async with as_admin(ruled) as admin:
        assert (await send(admin, f"{at}/delete", name="bob")).status_code == 303
        page = (await admin.get("/dashboard/admin/changes?kind=service")).text
    assert "deleted" in page and "bob" in page and "alice" in page
    assert await listed(ruled, "bob") == []


async def test_a_pause_that_holds_outlives_its_time_and_one_that_is_over_does_not(app: App):
    service, before = uuid.UUID(app.ids["alice"]), datetime.now(UTC) - timedelta(days=90)
    until = [Change("paused_until", None, rfc3339(ms(before) + 1000))]
    acts = [
        ("holds", ("edited", "paused", "edited")),
        ("resumed", ("paused", "resumed")),
        ("twice", ("paused", "paused")),
        ("gone", ("paused", "deleted")),
        ("back", ("disabled", "deleted", "brought back")),
        ("ended", ("paused",)),
    ]
    async with app.database.api.begin() as conn:
        for ref, verbs in acts:
            for number, verb in enumerate(verbs):
                told_of = until if ref == "ended" else []
                entry = Entry(ref=ref, verb=verb, reason=f"why {number}", changes=told_of)
                await audit.write(conn, service, By(), [entry], before + timedelta(seconds=number))
        place: uuid.UUID | None = audit.FIRST
        while place is not None:
            place = await audit.prune(conn, before + timedelta(days=1), place, most=2)
    left = {ref: [each.reason for each in await told(app, ref)] for ref, _ in acts}
    assert left == {"holds": ["why 1"], "resumed": [], "twice": ["why 1"], "gone": [],
                    "back": ["why 0"], "ended": []}  # fmt: skip


# The page -----------------------------------------------------------------------------------------


async def test_the_page_filters_and_goes_on_where_it_ended(app: App, visitor, alice):
    service, now = uuid.UUID(app.ids["alice"]), ms(datetime.now(UTC)) + 3_600_000
    async with app.database.api.begin() as conn:
        for n in range(60):
            entry = Entry(ref=f"n{n}", verb="edited", kind="spec" if n % 2 else "task")
            by = By("dashboard" if n % 3 else "api")
            await audit.write(conn, service, by, [entry], utc(now - 1000 * n))
    first = (await visitor.get(PAGE)).text
    assert "/dashboard/tasks/n0" in first and "/dashboard/apis/n49" in first and "n50" not in first
    more = await visitor.get(PAGE + "?" + first.split(f'href="{PAGE}?')[1].split('"')[0])
    assert "n50" in more.text and "n59" in more.text and "n49" not in more.text
    some = (await visitor.get(f"{PAGE}?kind=spec&who=dashboard")).text
    assert "/dashboard/apis/n1" in some and "n3<" not in some and "/dashboard/tasks/n" not in some
    ends = {"from": rfc3339(now - 5000), "to": rfc3339(now - 3000)}
    span = (await visitor.get(PAGE, params=ends)).text
    assert "n4<" in span and "n5<" in span and "n3<" not in span and "n6<" not in span
    one = (await visitor.get(f"{PAGE}?kind=spec&ref=n7")).text
    assert "n7" in one and "n9<" not in one
    async with signed_in(app, "bob") as other:
        assert "n1<" not in (await other.get(f"{PAGE}?kind=spec")).text


@pytest.mark.parametrize("sent", ["kind=no", "who=no", "from=no", "before=no", "ref=x"])
async def test_a_filter_that_is_not_right_is_said_beside_it(visitor, sent):
    answer = await visitor.get(f"{PAGE}?{sent}")
    assert answer.status_code == 400 and "Nothing was looked for" in answer.text


async def test_the_pages_of_a_task_a_spec_and_a_calendar_have_their_own(app: App, visitor, alice):
    await alice.post("/tasks", json={**TARGET, "id": "t"})
    await alice.post("/tasks/t/execute")
    trace = await register(alice)
    await alice.post("/calendars", json={"name": "c"})
    for page in ("/dashboard/tasks/t", f"/dashboard/apis/{trace}", "/dashboard/calendars/c", PAGE):
        with statements(app) as seen:
            text = (await visitor.get(page)).text
        assert "created" in text and len(seen) <= 5, (page, seen)
    for page in ("/dashboard/tasks/t", "/dashboard/tasks/t/history"):
        assert "executed" in (await visitor.get(page)).text
    for room in ("/dashboard/system", "/dashboard/settings"):
        assert f'href="{PAGE}"' in (await visitor.get(room)).text


async def test_what_is_hostile_in_a_change_stays_text(app: App, visitor):
    service, hostile = uuid.UUID(app.ids["alice"]), "<script>x</script>"
    async with app.database.api.begin() as conn:
        for kind in changelog.KINDS:
            changes = [Change("run", None, hostile), Change(hostile, hostile, None)]
            entry = Entry(kind=kind, ref=hostile, verb=hostile, changes=changes, reason=hostile)
            await audit.write(conn, service, By(hostile), [entry], datetime.now(UTC))
    page = await visitor.get(PAGE, params={"kind": "", "from": ""})
    assert page.status_code == 200 and hostile not in page.text
    wrong = await visitor.get(PAGE, params={"kind": hostile, "ref": hostile, "who": hostile})
    assert wrong.status_code == 400 and hostile not in wrong.text
