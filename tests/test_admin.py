"""`/services`: what the operator does with services, and what that does to them."""

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest

from conftest import TOKENS, App, RunApp, eventually
from scheduler import tokens

ADMIN = "admin-token-0123456789"
BEARER = {"Authorization": f"Bearer {ADMIN}"}


@pytest.fixture
async def app(run_app: RunApp) -> AsyncIterator[App]:
    async with run_app(ADMIN_TOKEN=ADMIN) as started:
        yield started


@pytest.fixture
async def admin(app: App) -> AsyncIterator[httpx.AsyncClient]:
    async with app.client(**BEARER) as client:
        yield client


async def as_service(app: App, service: str, token: str) -> int:
    async with app.client() as client:
        answer = await client.get("/tasks", headers={"service_id": service, "token": token})
        return answer.status_code


def error_of(answer: httpx.Response, status: int, code: str) -> Any:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["code"] == code
    return error


async def made(admin: httpx.AsyncClient, name: str, **fields: Any) -> dict[str, Any]:
    answer = await admin.post("/services", json={"name": name, **fields})
    assert answer.status_code == 201, answer.text
    return answer.json()


# Who may -----------------------------------------------------------------------------------------

ROUTES = [
    ("GET", "/services"),
    ("POST", "/services"),
    ("GET", "/services/alice"),
    ("PATCH", "/services/alice"),
    ("PUT", "/services/alice"),
    ("DELETE", "/services/alice"),
    ("POST", "/services/alice/rotate"),
    ("POST", "/services/alice/revoke"),
]


async def test_without_an_admin_token_nobody_may(run_app):
    async with run_app() as app, app.client("alice") as client:
        for method, path in ROUTES:
            for headers in ({}, {"Authorization": "Bearer"}, BEARER):
                error = error_of(
                    await client.request(method, path, headers=headers), 403, "forbidden"
                )
                assert "admin.token" in error["message"]


async def test_a_wrong_admin_token_opens_nothing(app):
    wrong = [{}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Bearer {ADMIN}x"}]
    wrong += [{"Authorization": f"Basic {ADMIN}"}, {"Authorization": ADMIN}]
    wrong += [{"Authorization": "Bearer"}, {"service_id": "alice", "token": TOKENS["alice"]}]
    async with app.client() as client:
        for method, path in ROUTES:
            for headers in wrong:
                answer = await client.request(method, path, headers=headers)
                error_of(answer, 401, "unauthorized")
                assert answer.headers["WWW-Authenticate"] == "Bearer"
                assert ADMIN not in answer.text
        assert (
            await client.get("/services", headers={"Authorization": f"bearer {ADMIN}"})
        ).is_success


async def test_the_admin_token_opens_nothing_else(admin):
    assert (await admin.get("/tasks")).status_code == 401


# Create, list, show, change ----------------------------------------------------------------------


async def test_a_service_is_created_with_its_secrets_shown_once(app, admin):
    answer = await admin.post("/services", json={"name": "reports", "allow_commands": True})

    assert answer.status_code == 201
    service = answer.json()
    assert {
        "service_id", "name", "token", "signing_secret", "allow_commands", "created_at",
        "updated_at", "max_tasks", "max_runs_per_minute", "max_in_flight", "max_body_bytes",
        "max_kept_bytes",
    } <= set(service)  # fmt: skip
    assert service["name"] == "reports" and service["allow_commands"] is True
    assert len(base64.b64decode(service["signing_secret"].removeprefix("whsec_"))) == 32
    assert await as_service(app, service["service_id"], service["token"]) == 200
    assert await as_service(app, "reports", service["token"]) == 200
    for path in ("/services", "/services/reports", f"/services/{service['service_id']}"):
        told = (await admin.get(path)).text
        assert service["service_id"] in told
        assert service["token"] not in told and service["signing_secret"] not in told


async def test_services_are_listed_by_name(admin):
    for name in ("zoe", "anna"):
        await made(admin, name)
    listed = (await admin.get("/services")).json()
    assert [service["name"] for service in listed] == ["alice", "anna", "bob", "zoe"]


async def test_one_service_shows_its_tokens_limits_and_use(app, admin, conn):
    service = await made(admin, "reports", max_tasks=7)
    await as_service(app, "reports", service["token"])
    async with app.database.api.begin() as own:
        await app.gate.flush(own)

    shown = (await admin.get("/services/reports")).json()

    (token,) = shown["tokens"]
    assert token["id"] == service["token_id"]
    assert set(token) == {"id", "created_at", "last_used_at", "revoked_at"}
    assert token["last_used_at"].endswith("Z") and token["revoked_at"] is None
    assert shown["limits"] == {
        "max_tasks": 7, "max_runs_per_minute": 0, "max_in_flight": 0, "max_body_bytes": 0,
        "max_kept_bytes": 1 << 30,
    }  # fmt: skip
    assert shown["max_tasks"] == 7 and shown["max_in_flight"] is None
    usage = {"tasks": 0, "runs_per_minute": 0, "in_flight": 0, "kept_bytes": 0}
    assert shown["usage"] == usage


async def test_a_change_changes_exactly_what_is_sent(app, admin):
    service = await made(admin, "reports", max_tasks=7, max_in_flight=3)
    for method in ("PATCH", "PUT"):
        answer = await admin.request(method, "/services/reports", json={"max_tasks": None})
        assert answer.status_code == 200, answer.text
    changed = answer.json()
    assert (changed["max_tasks"], changed["max_in_flight"]) == (None, 3)
    assert changed["name"] == "reports"

    renamed = await admin.patch("/services/reports", json={"name": "r2", "allow_commands": True})
    assert (renamed.json()["name"], renamed.json()["allow_commands"]) == ("r2", True)
    assert renamed.json()["updated_at"] >= changed["updated_at"]
    assert (await admin.get("/services/reports")).status_code == 404
    assert await as_service(app, "r2", service["token"]) == 200


async def test_what_a_get_answers_may_be_sent_back(admin):
    await made(admin, "reports", max_tasks=7)
    shown = (await admin.get("/services/reports")).json()
    answer = await admin.put("/services/reports", json=shown)
    assert answer.status_code == 200, answer.text
    changing = {"updated_at", "usage"}
    assert {k: v for k, v in answer.json().items() if k not in changing} == {
        k: v for k, v in shown.items() if k not in changing
    }


BAD = [
    ({}, "name"),
    ({"name": ""}, "name"),
    ({"name": "a:b"}, "name"),
    ({"name": str(uuid4())}, "name"),
    ({"name": None}, "name"),
    ({"name": 7}, "name"),
    ({"name": "x", "allow_commands": "true"}, "allow_commands"),
    ({"name": "x", "allow_commands": 1}, "allow_commands"),
    ({"name": "x", "max_tasks": -1}, "max_tasks"),
    ({"name": "x", "max_tasks": "5"}, "max_tasks"),
    ({"name": "x", "max_tasks": 2**31}, "max_tasks"),
    ({"name": "x", "max_in_flight": 1.5}, "max_in_flight"),
    ({"name": "x", "max_task": 1}, "max_task"),
    ([], "body"),
]


async def test_what_is_wrong_is_named(admin):
    for body, field in BAD:
        error = error_of(await admin.post("/services", json=body), 400, "validation_failed")
        assert [detail["field"] for detail in error["details"]] == [field], (body, error)
        if body and field != "body" and body != {"name": ""}:
            error_of(await admin.patch("/services/bob", json=body), 400, "validation_failed")
    hint = (await admin.post("/services", json={"name": "x", "max_task": 1})).json()
    assert "did you mean max_tasks?" in hint["error"]["message"]
    error_of(await admin.post("/services", content=b"nope"), 400, "invalid_request")
    error_of(await admin.post("/services/bob/rotate", content=b"nope"), 400, "invalid_request")
    assert len((await admin.get("/services")).json()) == 2


async def test_a_taken_name_is_a_conflict(admin):
    error_of(await admin.post("/services", json={"name": "bob"}), 409, "conflict")
    error_of(await admin.patch("/services/alice", json={"name": "bob"}), 409, "conflict")


async def test_a_service_that_is_not_there_is_not_found(admin):
    for method, path in ROUTES[2:]:
        for ref in ("nobody", str(uuid4()), "%00"):
            answer = await admin.request(method, path.replace("alice", ref), json={})
            error_of(answer, 404, "not_found")


# Tokens ------------------------------------------------------------------------------------------


async def test_a_token_is_rotated_without_downtime(app, admin):
    first = await made(admin, "reports")
    second = (await admin.post("/services/reports/rotate")).json()
    assert set(second) >= {"service_id", "token", "token_id", "tokens"}
    assert "signing_secret" not in second
    for token in (first["token"], second["token"]):
        assert await as_service(app, "reports", token) == 200

    third = (await admin.post("/services/reports/rotate")).json()
    assert await as_service(app, "reports", first["token"]) == 401
    for token in (second["token"], third["token"]):
        assert await as_service(app, "reports", token) == 200
    live = [token["id"] for token in third["tokens"] if not token["revoked_at"]]
    assert live == [third["token_id"], second["token_id"]]


async def test_rotations_at_once_leave_two_live_tokens(app, admin):
    await made(admin, "reports")
    await admin.post("/services/reports/rotate")
    for _ in range(5):
        answers = await asyncio.gather(*(admin.post("/services/reports/rotate") for _ in range(2)))
        tokens = [answer.json()["token"] for answer in answers]
        assert [await as_service(app, "reports", token) for token in tokens] == [200, 200]
        listed = (await admin.get("/services/reports")).json()["tokens"]
        assert sum(token["revoked_at"] is None for token in listed) == 2


async def test_of_revoked_tokens_ten_stay_listed(admin):
    await made(admin, "reports")
    for _ in range(tokens.REVOKED_KEPT + 5):
        await admin.post("/services/reports/rotate")
    listed = (await admin.get("/services/reports")).json()["tokens"]
    assert [token["revoked_at"] is None for token in listed] == [True] * 2 + [False] * 10


async def test_without_a_name_all_but_the_newest_token_are_revoked(app, admin):
    first = await made(admin, "reports")
    second = (await admin.post("/services/reports/rotate")).json()
    for _ in range(2):
        answer = await admin.post("/services/reports/revoke")
        assert answer.status_code == 200, answer.text
    assert await as_service(app, "reports", first["token"]) == 401
    assert await as_service(app, "reports", second["token"]) == 200


async def test_any_one_token_can_be_revoked(app, admin):
    first = await made(admin, "reports")
    second = (await admin.post("/services/reports/rotate")).json()
    body = {"token_id": second["token_id"]}
    assert (await admin.post("/services/reports/revoke", json=body)).status_code == 200
    assert await as_service(app, "reports", second["token"]) == 401
    assert await as_service(app, "reports", first["token"]) == 200
    last = await admin.post("/services/reports/revoke", params={"token_id": first["token_id"]})
    assert last.status_code == 200
    assert await as_service(app, "reports", first["token"]) == 401

    wrong = [str(uuid4()), (await made(admin, "other"))["token_id"]]
    for token_id in wrong:
        answer = await admin.post("/services/reports/revoke", json={"token_id": token_id})
        error_of(answer, 404, "not_found")
    for how in ({"json": {"token_id": "x"}}, {"params": {"token_id": "x"}}):
        error_of(await admin.post("/services/reports/revoke", **how), 400, "validation_failed")


async def test_a_revocation_reaches_every_replica_within_five_seconds(run_app):
    """With the default cache: the first replica forgets at once, the other after two seconds."""
    usual = {"ADMIN_TOKEN": ADMIN, "AUTH_CACHE_SECONDS": None}
    async with run_app(**usual) as one, run_app(**usual) as two:
        async with one.client(**BEARER) as admin:
            first = await made(admin, "reports")
            for app in (one, two):
                assert await as_service(app, "reports", first["token"]) == 200
            body = {"token_id": first["token_id"]}
            assert (await admin.post("/services/reports/revoke", json=body)).is_success
        assert await as_service(one, "reports", first["token"]) == 401

        async def refused() -> None:
            assert await as_service(two, "reports", first["token"]) == 401

        await eventually(refused, within=5)


async def test_the_engine_writes_down_the_last_use_every_so_often(app, admin):
    service = await made(admin, "reports")
    await as_service(app, "reports", service["token"])
    await app.engine._measure()
    (token,) = (await admin.get("/services/reports")).json()["tokens"]
    assert token["last_used_at"] is not None


async def test_a_use_that_could_not_be_written_is_written_later(app, admin):
    service = await made(admin, "reports")
    await as_service(app, "reports", service["token"])
    async with app.database.api.connect() as conn:
        raw = await conn.get_raw_connection()
        raw.driver_connection.terminate()
        with pytest.raises(Exception, match="closed"):
            await app.gate.flush(conn)
        await conn.invalidate()
    async with app.database.api.begin() as conn:
        await app.gate.flush(conn)
    (token,) = (await admin.get("/services/reports")).json()["tokens"]
    assert token["last_used_at"] is not None


# Signing secrets ---------------------------------------------------------------------------------


async def test_a_signing_secret_is_rotated_and_shown_once(app, admin):
    first = await made(admin, "reports")
    for how in ({"params": {"signing": "true"}}, {"json": {"signing": True}}):
        second = (await admin.post("/services/reports/rotate", **how)).json()
        assert second["signing_secret"].startswith("whsec_")
        assert second["signing_secret"] != first["signing_secret"]
        assert "token" not in second
    assert await as_service(app, "reports", first["token"]) == 200


# Delete ------------------------------------------------------------------------------------------

TABLES = (
    "task",
    "task_plan",
    "task_state",
    "task_version",
    "run",
    "history",
    "token",
    "service_usage",
    "undo",
)


async def rows(conn: asyncpg.Connection, service_id: str) -> dict[str, int]:
    return {
        table: await conn.fetchval(
            f"SELECT count(*) FROM {table} WHERE service_id = $1", UUID(service_id)
        )
        for table in TABLES
    }


async def filled(app: App, receiver: Any, conn: asyncpg.Connection, name: str) -> None:
    """Give a service rows in every table."""
    async with app.client(name) as client:
        for n in range(3):
            body = {"name": "x", "id": f"t{n}", "url": receiver.url, "frequency": 1, "unit": "hour"}
            await client.post("/tasks", json={**body, "scheduled_at": "2999-01-01T00:00:00Z"})
        soon = {"name": "x", "id": "soon", "url": receiver.url, "frequency": 20, "unit": "second"}
        assert (await client.post("/tasks", json=soon)).status_code == 201
        assert (await client.post("/tasks/t0/execute")).status_code == 200
        assert (await client.put("/tasks/t0", json={"payload": "x"})).status_code == 200
    service = UUID(app.ids[name])
    await conn.execute(
        """INSERT INTO task_state (key, bucket, service_id, state, failures, created_at)
           SELECT key, bucket, service_id, 'created', 0, created_at FROM task
           WHERE service_id = $1 ON CONFLICT DO NOTHING""",
        service,
    )
    await conn.execute("INSERT INTO service_usage VALUES ($1, 1, now())", service)
    await conn.execute(
        """INSERT INTO undo (act, key, bucket, service_id, kind, id, name, state, at)
           SELECT key, key, bucket, service_id, 'run', id, name, 'done', now() FROM task
           WHERE service_id = $1""",
        service,
    )


async def test_a_service_is_deleted_with_everything_of_it_and_nothing_else(
    app, admin, receiver, conn
):
    for name in ("alice", "bob"):
        await filled(app, receiver, conn, name)
    before = await rows(conn, app.ids["alice"])
    assert all(before.values()), before
    assert await rows(conn, app.ids["bob"]) == before

    answer = await admin.delete("/services/bob")

    assert answer.status_code == 204 and answer.content == b""
    assert not any((await rows(conn, app.ids["bob"])).values())
    assert await rows(conn, app.ids["alice"]) == before
    assert await as_service(app, "bob", TOKENS["bob"]) == 401
    assert (await admin.get("/services/bob")).status_code == 404
    error_of(await admin.delete("/services/bob"), 404, "not_found")
    assert (await admin.post("/services", json={"name": "bob"})).status_code == 201


async def test_many_rows_go_in_pieces(app, admin, conn, monkeypatch):
    service = UUID(app.ids["bob"])
    await conn.execute(
        """INSERT INTO run (id, bucket, service_id, task_key, task_id, kind, version, overlap,
                            priority, scheduled_for, due, attempts, attempts_n, created_at)
           SELECT gen_random_uuid(), n % 1024, $1, gen_random_uuid(), 'x', 'task', 1, 'allow', 0,
                  '2999-01-01Z', '2999-01-01Z', '[]', 0, now() FROM generate_series(1, 5001) n""",
        service,
    )
    assert (await admin.delete("/services/bob")).status_code == 204
    assert (await rows(conn, str(service)))["run"] == 0


async def test_rows_that_somebody_has_locked_are_waited_for(app, admin, receiver, conn):
    await filled(app, receiver, conn, "bob")
    async with conn.transaction():
        await conn.execute(
            "SELECT FROM task WHERE service_id = $1 FOR UPDATE", UUID(app.ids["bob"])
        )
        deleting = asyncio.create_task(admin.delete("/services/bob"))

        async def started() -> None:
            live = "SELECT count(*) FROM task_plan WHERE service_id = $1"
            other = await asyncpg.connect(app.settings.database.url)
            try:
                assert not await other.fetchval(live, UUID(app.ids["bob"]))
            finally:
                await other.close()

        await eventually(started)
        assert not deleting.done()
    assert (await deleting).status_code == 204
    assert not any((await rows(conn, app.ids["bob"])).values())


async def test_a_delete_that_was_cut_short_is_made_again(app, admin, receiver, conn):
    await filled(app, receiver, conn, "bob")
    async with app.database.api.begin() as own:  # as far as a crash let it come
        await tokens.revoke_all(own, UUID(app.ids["bob"]))
    await conn.execute("DELETE FROM task_plan WHERE service_id = $1", UUID(app.ids["bob"]))
    assert await as_service(app, "bob", TOKENS["bob"]) == 401

    assert (await admin.delete("/services/bob")).status_code == 204
    assert not any((await rows(conn, app.ids["bob"])).values())


async def test_a_call_under_way_ends_and_is_dropped(app, admin, receiver, conn):
    gate = asyncio.Event()
    receiver.then(after=gate)
    async with app.client("bob") as bob:
        await bob.post("/tasks", json={"name": "x", "id": "slow", "url": receiver.url})
        assert (await bob.post("/tasks/slow/execute?async=true")).status_code == 202
        await eventually(lambda: receiver.last)
        assert (await admin.delete("/services/bob")).status_code == 204
    gate.set()

    def ended() -> None:
        assert app.engine.dispatcher.crew.in_flight == 0 and not app.engine.settler.unsettled

    await eventually(ended)
    assert not any((await rows(conn, app.ids["bob"])).values())
    assert len(receiver.requests) == 1


async def test_what_is_held_for_later_is_not_sent_after_a_delete(app, admin, receiver, conn):
    async with app.client("bob") as bob:
        for n in range(5):
            body = {"name": "x", "url": receiver.url, "frequency": 1, "unit": "second"}
            assert (await bob.post("/tasks", json={**body, "id": f"t{n}"})).status_code == 201
    await eventually(lambda: receiver.requests[4])
    assert (await admin.delete("/services/bob")).status_code == 204

    def let_go() -> None:
        assert app.engine.dispatcher.held == 0

    await eventually(let_go)
    assert not any((await rows(conn, app.ids["bob"])).values())
    async with app.client("alice") as alice:  # a second later than whatever was held
        await alice.post("/tasks", json={"name": "x", "id": "t", "url": f"{receiver.url}/alice",
                                         "frequency": 2, "unit": "second"})  # fmt: skip
        sent = len(receiver.to("/"))
        await eventually(lambda: receiver.to("/alice")[0])
    assert len(receiver.to("/")) == sent


async def test_two_deletes_at_once_leave_nothing(app, admin, receiver, conn):
    await filled(app, receiver, conn, "bob")
    answers = await asyncio.gather(*(admin.delete("/services/bob") for _ in range(2)))
    assert {answer.status_code for answer in answers} <= {204, 404}
    assert not any((await rows(conn, app.ids["bob"])).values())
