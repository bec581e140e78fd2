"""Services, their tokens, and who a request acts for."""

import asyncio
import base64
import hashlib
import ipaddress
import itertools
import re
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import TOKENS, App, RunApp, eventually
from scheduler import services
from scheduler.config import Database as DatabaseSettings
from scheduler.db import Database
from scheduler.errors import Conflict, StartupError, Unauthorized, ValidationFailed
from scheduler.gate import Caller, Gate, credentials


def basic(user: str, token: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{token}".encode()).decode()


async def asked(app: App, **headers: str) -> httpx.Response:
    """The answer to a request with these headers alone."""
    async with app.client() as client:
        names = {name.replace("__", "-"): value for name, value in headers.items()}
        return await client.get("/tasks", headers=names)


def unauthorized(answer: httpx.Response) -> Any:
    assert answer.status_code == 401, answer.text
    assert answer.headers["WWW-Authenticate"] == 'Basic realm="scheduler"'
    error = answer.json()["error"]
    assert set(error) == {"code", "message"}
    assert error["code"] == "unauthorized"
    return error


# The forms of credentials ------------------------------------------------------------------------


async def test_a_pair_of_headers_is_known_by_every_name(app):
    for who, user, token in itertools.product(
        (app.ids["alice"], "alice"),
        ("service_id", "service-id", "x-service-id", "Service_Id"),
        ("token", "x-token", "X-TOKEN"),
    ):
        answer = await asked(app, **{user: who, token: TOKENS["alice"]})
        assert answer.status_code == 200, (who, user, token)


async def test_http_basic_is_the_same_pair(app):
    for who in (app.ids["alice"], "alice"):
        for scheme in ("Basic", "basic", "BASIC"):
            encoded = basic(who, TOKENS["alice"]).replace("Basic", scheme)
            answer = await asked(app, authorization=encoded)
            assert answer.status_code == 200, (who, scheme)


async def test_each_pair_acts_for_its_own_service(app):
    for name in ("alice", "bob"):
        async with app.client(name) as client:
            made = await client.post("/tasks", json={"name": "x", "url": "http://h/"})
            assert made.json()["service_id"] == app.ids[name]


async def test_a_token_may_hold_a_colon(run_app):
    async with run_app(AUTH_BOOTSTRAP_TOKEN="one:two:three") as app:
        answer = await asked(app, authorization=basic("alice", "one:two:three"))
        assert answer.status_code == 200


async def test_an_unknown_service_and_a_wrong_token_look_the_same(app):
    wrong = [
        await asked(app, service_id=app.ids["alice"], token="wrong"),
        await asked(app, service_id="alice", token="wrong"),
        await asked(app, service_id=str(uuid4()), token=TOKENS["alice"]),
        await asked(app, service_id="nobody", token="wrong"),
        await asked(app, service_id=app.ids["bob"], token=TOKENS["alice"]),
        await asked(app, authorization=basic("alice", "wrong")),
        await asked(app, authorization=basic("nobody", TOKENS["alice"])),
    ]
    for answer in wrong:
        unauthorized(answer)
    assert len({answer.content for answer in wrong}) == 1
    assert len({frozenset(set(answer.headers) - {"date"}) for answer in wrong}) == 1


NO_PAIRS: list[dict[str, str]] = [
    {},
    {"service_id": "alice"},
    {"token": TOKENS["alice"]},
    {"service_id": "", "token": ""},
    {"service_id": "alice", "token": ""},
    {"authorization": "Basic"},
    {"authorization": "Basic !!!"},
    {"authorization": "Basic YWxpY2U="},
    {"authorization": "Bearer " + TOKENS["alice"]},
    {"authorization": "Digest x"},
    {"service_id": "alice' OR '1'='1", "token": "x"},
    {"service_id": "x" * 10_000, "token": "x"},
]


async def test_without_a_right_pair_nothing_is_told(app):
    for headers in NO_PAIRS:
        error = unauthorized(await asked(app, **headers))
        assert error["message"]
        for token in TOKENS.values():
            assert token not in error["message"]


ROUTES = [
    ("GET", "/tasks"),
    ("POST", "/tasks"),
    ("GET", "/tasks/x"),
    ("PATCH", "/tasks/x"),
    ("DELETE", "/tasks/x"),
    ("GET", "/tasks/x/executions"),
    ("POST", "/tasks/x/execute"),
    ("GET", f"/runs/{uuid4()}"),
]


async def test_every_route_of_a_service_wants_credentials(anonymous):
    for method, path in ROUTES:
        unauthorized(await anonymous.request(method, path))
        unauthorized(await anonymous.request(method, path, content=b"{", headers={"token": "x"}))


OPEN = """/health /ready /v1/api/ping /v1/worker/ping /v1/apidoc/ping /metrics / /dashboard
    /docs/openapi.json /docs/openapi.yml""".split()  # noqa: SIM905


async def test_these_are_open_to_everyone(anonymous):
    for path in OPEN:
        answer = await anonymous.get(path)
        assert answer.status_code == 200, answer.text
        assert (await anonymous.get(path, headers={"token": "wrong"})).status_code == 200


def test_the_header_pair_comes_before_basic():
    headers = {"service_id": "a", "token": "b", "authorization": basic("c", "d")}
    assert credentials(headers) == ("a", "b")
    assert credentials({"authorization": basic("c", "d")}) == ("c", "d")
    assert credentials({}) is None
    with pytest.raises(Unauthorized):
        credentials({"service_id": "a"})


# Tokens ------------------------------------------------------------------------------------------


async def test_a_revoked_token_opens_nothing(app, alice, bob, conn):
    assert (await alice.get("/tasks")).status_code == 200

    await conn.execute(
        "UPDATE token SET revoked_at = now() WHERE service_id = $1", UUID(app.ids["alice"])
    )

    async def check() -> None:
        unauthorized(await alice.get("/tasks"))

    await eventually(check)
    assert (await bob.get("/tasks")).status_code == 200


async def test_a_checked_token_is_believed_for_two_seconds_at_most():
    assert services.config.Auth().cache_seconds <= 2


async def test_two_tokens_may_live_at_once(app, conn):
    await conn.execute(
        "INSERT INTO token (id, service_id, hash, created_at) VALUES ($1, $2, $3, now())",
        uuid4(),
        UUID(app.ids["alice"]),
        hashlib.sha256(b"the second").digest(),
    )
    for token in (TOKENS["alice"], "the second"):
        assert (await asked(app, service_id="alice", token=token)).status_code == 200


async def test_the_last_use_of_a_token_is_written_down(run_app, conn):
    async with run_app() as app:
        await asked(app, service_id="alice", token=TOKENS["alice"])
        assert await conn.fetchval("SELECT now()")
    used = dict(
        await conn.fetch(
            "SELECT s.name, t.last_used_at FROM token t JOIN service s ON s.id = t.service_id"
        )
    )
    assert used["alice"] is not None
    assert used["bob"] is None


async def test_a_new_token_is_256_random_bits_and_stored_as_its_hash(database_url, conn):
    database = Database(database_url, DatabaseSettings())
    async with database.api.begin() as connection:
        made = [await services.create(connection, f"service {n}") for n in range(2)]
    await database.close()

    tokens = [created.token for created in made]
    assert len(set(tokens)) == 2
    for token in tokens:
        assert len(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))) == 32
    stored = {row["hash"] for row in await conn.fetch("SELECT hash FROM token")}
    assert stored == {hashlib.sha256(token.encode()).digest() for token in tokens}
    everything = str(await conn.fetch("SELECT t::text, s::text FROM token t, service s"))
    assert not any(token in everything for token in tokens)


@pytest.mark.parametrize("name", ["", " a", "a ", "x" * 201, "a\nb", "a\x00", str(UUID(int=4))])
async def test_a_service_with_a_bad_name_is_refused(database_url, name):
    database = Database(database_url, DatabaseSettings())
    async with database.api.begin() as conn:
        with pytest.raises(ValidationFailed):
            await services.create(conn, name)
    await database.close()


async def test_a_taken_name_is_a_conflict(database_url):
    database = Database(database_url, DatabaseSettings())
    async with database.api.begin() as conn:
        await services.create(conn, "one")
    with pytest.raises(Conflict, match="one"):
        async with database.api.begin() as conn:
            await services.create(conn, "one")
    await database.close()


# The first start ---------------------------------------------------------------------------------


async def names(conn: asyncpg.Connection) -> list[str]:
    return [row["name"] for row in await conn.fetch("SELECT name FROM service ORDER BY name")]


NOTHING = {"AUTH_BOOTSTRAP_SERVICE": "", "AUTH_BOOTSTRAP_TOKEN": ""}


async def test_an_empty_database_gets_the_service_default(run_app, conn, capsys):
    async with run_app(**NOTHING) as app:
        assert "default" in await names(conn)
        said = capsys.readouterr().out
        token = re.search(r"token\s+(\S+)", said)
        assert token is not None
        answer = await asked(app, service_id="default", token=token[1])
        assert answer.status_code == 200


async def test_its_name_and_token_can_be_preset(run_app, conn):
    preset = {"AUTH_BOOTSTRAP_SERVICE": "first", "AUTH_BOOTSTRAP_TOKEN": "secret-1"}
    async with run_app(**preset) as app:
        assert "first" in await names(conn)
        assert (await asked(app, service_id="first", token="secret-1")).status_code == 200


async def test_the_older_names_of_the_presets_work(run_app, conn):
    aliases = {"API_SCHEDULER_AUTH_USERNAME": "older", "API_SCHEDULER_AUTH_PASSWORD": "secret-2"}
    async with run_app(**dict.fromkeys(NOTHING), **aliases) as app:
        answer = await asked(app, authorization=basic("older", "secret-2"))
        assert answer.status_code == 200
        assert await names(conn) == ["bob", "older"]


async def test_a_database_with_a_service_gets_none(run_app, conn, tmp_path):
    async with run_app():
        pass
    file = (tmp_path / "credentials.json").read_bytes()

    async with run_app(AUTH_BOOTSTRAP_SERVICE="another", AUTH_BOOTSTRAP_TOKEN="other") as app:
        assert await names(conn) == ["alice", "bob"]
        assert (await asked(app, service_id="alice", token="other")).status_code == 401
        assert (await asked(app, service_id="alice", token=TOKENS["alice"])).status_code == 200
    assert (tmp_path / "credentials.json").read_bytes() == file


async def test_of_many_first_starts_one_creates_the_service(database_url, conn):
    database = Database(database_url, DatabaseSettings())

    async def start() -> Any:
        async with database.api.begin() as connection:
            return await services.bootstrap(connection, services.config.Auth())

    created = await asyncio.gather(*(start() for _ in range(5)))
    await database.close()

    assert sum(one is not None for one in created) == 1
    assert await names(conn) == ["default"]


async def test_a_preset_name_that_cannot_be_stops_the_start(database_url):
    database = Database(database_url, DatabaseSettings())
    with pytest.raises(StartupError, match=r"auth\.bootstrap_service"):
        async with database.api.begin() as conn:
            await services.bootstrap(conn, services.config.Auth(bootstrap_service="x" * 300))
    await database.close()


# The anonymous service ---------------------------------------------------------------------------


async def test_without_the_setting_nobody_is_anonymous(app):
    unauthorized(await asked(app))


@pytest.fixture
def open_app(run_app: RunApp) -> RunApp:
    return lambda **environ: run_app(AUTH_ANONYMOUS_SERVICE="alice", **environ)


async def test_a_local_request_without_credentials_acts_as_the_anonymous_service(open_app):
    async with open_app() as app:
        async with app.client() as client:
            made = await client.post("/tasks", json={"name": "x", "url": "http://h/"})
        assert made.status_code == 201
        assert made.json()["service_id"] == app.ids["alice"]
        for host in (
            "localhost",
            "LOCALHOST:80",
            "127.0.0.1",
            "127.9.9.9:1",
            "[::1]:8080",
            "[::1]",
        ):
            assert (await asked(app, host=host)).status_code == 200, host


SUSPICIOUS: list[dict[str, str]] = [
    {"origin": "http://localhost"},
    {"origin": "null"},
    {"forwarded": "for=127.0.0.1"},
    {"x-forwarded-for": "127.0.0.1"},
    {"x-forwarded-host": "localhost"},
    {"x-forwarded-proto": "http"},
    {"x-real-ip": "127.0.0.1"},
    {"x-forwarded-prefix": "/"},
    {"x-forwarded": "for=127.0.0.1"},
    {"x-original-url": "/"},
    {"x-client-ip": "127.0.0.1"},
    {"true-client-ip": "127.0.0.1"},
    {"cf-connecting-ip": "127.0.0.1"},
    {"via": "1.1 proxy"},
    {"cdn-loop": "cloudflare"},
    {"cf-ray": "230b030023ae2822"},
    {"x-azure-clientip": "127.0.0.1"},
    {"x-envoy-external-address": "127.0.0.1"},
    {"x-remote-addr": "127.0.0.1"},
    {"x-scheme": "http"},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
    {"host": "scheduler.example.com"},
    {"host": "evil.com:8080"},
    {"host": "localhost.evil.com"},
    {"host": "127.0.0.1.evil.com"},
    {"host": "10.0.0.1"},
    {"host": "[::2]"},
    {"host": "0.0.0.0"},
    {"host": "127.0.0.1@evil.com"},
    {"host": "notlocalhost"},
    {"token": "wrong"},
    {"service_id": "alice"},
    {"service_id": "alice", "token": "wrong"},
    {"authorization": basic("alice", "wrong")},
]


async def test_nobody_else_is_anonymous(open_app):
    async with open_app() as app:
        for headers in SUSPICIOUS:
            unauthorized(await asked(app, **headers))


async def test_who_may_be_anonymous_is_a_setting(open_app):
    async with open_app(AUTH_ANONYMOUS_FROM="10.0.0.0/8, 192.168.0.0/16") as app:
        unauthorized(await asked(app))
    async with open_app(AUTH_ANONYMOUS_FROM="127.0.0.1/32") as app:
        assert (await asked(app)).status_code == 200


ADDRESSES = [
    ("127.0.0.1", True),
    ("127.255.255.254", True),
    ("::1", True),
    ("::ffff:127.0.0.1", True),
    ("128.0.0.1", False),
    ("126.255.255.255", False),
    ("10.0.0.1", False),
    ("::2", False),
    ("fe80::1", False),
    ("::ffff:10.0.0.1", False),
    ("", False),
    ("localhost", False),
    (None, False),
]


@pytest.mark.parametrize(("address", "may"), ADDRESSES)
def test_by_default_only_this_machine_is_anonymous(address, may):
    gate = Gate(services.config.Auth(anonymous_service="alice"))
    caller = Caller({"host": "localhost"}, address)
    assert gate._may_be_anonymous(caller) is may
    assert not gate._may_be_anonymous(Caller({}, address))


@given(st.ip_addresses(v=4), st.integers(0, 32), st.ip_addresses(v=4))
def test_exactly_the_networks_named_are_anonymous(base, length, address):
    network = ipaddress.ip_network((base, length), strict=False)
    gate = Gate(services.config.Auth(anonymous_from=[str(network)]))
    for text in (str(address), f"::ffff:{address}"):
        caller = Caller({"host": "localhost"}, text)
        assert gate._may_be_anonymous(caller) is (address in network)


async def test_credentials_come_before_the_anonymous_service(open_app):
    async with open_app() as app, app.client("bob") as bob:
        made = await bob.post("/tasks", json={"name": "x", "url": "http://h/"})
        assert made.json()["service_id"] == app.ids["bob"]


async def test_an_anonymous_service_that_is_not_there_opens_nothing(run_app):
    async with run_app(AUTH_ANONYMOUS_SERVICE="nobody") as app:
        unauthorized(await asked(app))
