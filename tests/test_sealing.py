"""Stored secrets are sealed: no table holds one, nobody else's opens, and a key is never silent."""

import asyncio
import base64
import contextlib
import json
import re
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from conftest import SECRET_KEY, App, RunApp, eventually
from harness import Fault, Scheduler
from scheduler import config, keys, migrate, opening, resealing, sealing
from scheduler.caretaker import QUIET_S, Caretaker
from scheduler.cli import cli
from scheduler.db import Database
from scheduler.errors import StartupError
from scheduler.replicas import Membership, is_older
from scheduler.resealing import Sealing
from scheduler.sealing import SealError, Vault

PLANTED = "planted-9f2c47"
KEY = keys.parse(SECRET_KEY, "the tests' key")
OTHER = keys.parse(keys.new(), "another")


# Values ------------------------------------------------------------------------------------------


@given(st.text(st.characters(codec="utf-8", exclude_characters="\x01")), st.uuids(), st.text())
def test_what_is_sealed_opens_for_its_service_and_name_alone(value, service, what):
    vault = Vault(KEY)
    what = what.encode("utf-8", "replace").decode()
    sealed = vault.seal(value, service, what)
    assert sealing.is_sealed(sealed)
    assert not value or value not in sealed or len(value) < 4
    assert sealing.plain_size(sealed) == len(value.encode())
    assert vault.seal(sealed, service, what) == sealed
    assert vault.open(sealed, service, what) == value
    for other in ((Vault(OTHER), service, what), (vault, uuid4(), what), (vault, service, "x!")):
        with pytest.raises(SealError, match="send it anew"):
            other[0].open(sealed, *other[1:])


def test_the_same_value_is_sealed_to_another_text_each_time():
    service, vault = uuid4(), Vault(KEY)
    assert len({vault.seal("x", service, "y") for _ in range(100)}) == 100


def test_what_is_no_sealed_text_is_a_sentence_and_no_crash():
    for broken in (sealing.PREFIX, sealing.PREFIX + "ü", sealing.PREFIX + "AAAA", "\x01sealed 9 x"):
        with pytest.raises(SealError, match="the header x cannot be opened"):
            Vault(KEY).open(broken, uuid4(), sealing.header("X"))
    with pytest.raises(SealError, match="SECRET_KEY"):
        Vault().open(Vault(KEY).seal("x", uuid4(), "y"), uuid4(), "y")
    assert Vault().seal("x", uuid4(), "y") == "x"


@given(st.binary(min_size=32, max_size=32))
def test_a_key_is_read_in_either_base64_with_or_without_its_padding(key):
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        text = encode(key).decode()
        for form in (text, text.rstrip("="), f" {text}\n"):
            assert keys.parse(form, "here") == key


@pytest.mark.parametrize("text", ["", "hunter2!", "a" * 43 + "ü", "AAAA", "ab" * 32])
def test_a_wrong_key_is_told_what_is_expected_and_not_shown(text):
    with pytest.raises(StartupError, match="scheduler secrets key") as refused:
        keys.parse(text, "secret.key (SECRET_KEY)")
    assert "32 bytes in base64" in str(refused.value)
    assert not text or text not in str(refused.value)


@pytest.mark.parametrize("content", ["", "garbage"])
def test_a_key_file_that_is_broken_is_to_be_put_back_and_not_made_anew(tmp_path, content):
    (tmp_path / keys.FILE).write_text(content)
    with pytest.raises(StartupError, match="put your copy of it back") as refused:
        keys.here("", tmp_path)
    assert "prints a new one" not in str(refused.value)


def test_the_key_file_is_for_its_owner_alone_and_made_once(tmp_path):
    made = keys.make(tmp_path / "data")
    path = tmp_path / "data" / keys.FILE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert keys.make(tmp_path / "data") == made == keys.here("", tmp_path / "data")
    assert [p.name for p in path.parent.iterdir()] == [keys.FILE]
    assert keys.here("", tmp_path) is None
    path.write_bytes(b"\xff")
    with pytest.raises(StartupError, match=re.escape(str(path))):
        keys.here("", tmp_path / "data")


@pytest.mark.parametrize(
    ("version", "older"),
    [
        ("0.1.0", True),
        ("0.1", True),
        ("0.2.0", False),
        ("0.10.1", False),
        ("1.0", False),
        ("?", False),
    ],
)
def test_a_version_before_sealing_is_known(version, older):
    assert is_older(version) is older


# What is stored ----------------------------------------------------------------------------------


async def dump(conn: asyncpg.Connection) -> str:
    """Every row of every table, as text, with bytes as they are too."""
    tables = await conn.fetch("SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = "
                              "'public'::regnamespace")  # fmt: skip
    found = []
    for (table,) in tables:
        for row in await conn.fetch(f'SELECT * FROM "{table}"'):
            for value in row.values():
                found.append(value.hex() if isinstance(value, bytes) else str(value))
                found.append(str(value))
    return "\n".join(found)


async def created(client: httpx.AsyncClient, **task: Any) -> dict[str, Any]:
    made = await client.post("/tasks", json={"name": "x", **task})
    assert made.status_code == 201, made.text
    return made.json()


async def runs(client: httpx.AsyncClient, task_id: str) -> dict[str, Any]:
    answer = await client.post(f"/tasks/{task_id}/execute")
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_no_table_holds_a_secret_however_it_came_and_calls_carry_it(
    app, alice, conn, receiver
):
    url, header = receiver.url, {"Authorization": f"Bearer {PLANTED}", "X-Open": "open"}
    await created(alice, id="one", url=url, header=header, frequency=1, unit="hour")
    lines = [{"id": f"b{n}", "name": "b", "url": url, "header": header} for n in range(3)]
    assert (await alice.post("/tasks/bulk", json=lines)).status_code == 201
    await created(alice, id="edited", url=url)
    await alice.patch("/tasks/edited", json={"header": {"Cookie": f"c={PLANTED}"}})
    await created(alice, id="late", url=url, header={"X-Mine": PLANTED, **header})
    await alice.patch("/tasks/late", json={"secret_headers": ["x-mine"]})
    await alice.post("/tasks/late/schedule", json={"scheduled_at": "2099-01-01T00:00:00Z"})

    for task in ("one", "b1", "late"):
        assert (await runs(alice, task))["status"] == "success"
        assert receiver.last.header("Authorization") == f"Bearer {PLANTED}"
        assert receiver.last.header("X-Open") == "open"
    assert receiver.last.header("X-Mine") == PLANTED
    assert (await runs(alice, "edited"))["status"] == "success"
    assert receiver.last.header("Cookie") == f"c={PLANTED}"

    stored = await dump(conn)
    assert PLANTED not in stored and '"X-Open": "open"' in stored
    secrets = await conn.fetch("SELECT signing_secret FROM service")
    assert len(secrets) == 2
    assert all(sealing.is_sealed_bytes(secret) for (secret,) in secrets)


async def test_what_is_shown_is_masked_and_what_is_sent_back_so_stays(app, alice, conn, receiver):
    header = {"Authorization": PLANTED, "X-Open": "open"}
    await created(alice, id="t", url=receiver.url, header=header)
    await runs(alice, "t")
    shown = (await alice.get("/tasks/t")).json()
    assert shown["header"] == {"Authorization": "********", "X-Open": "open"}

    again = await alice.put("/tasks/t", json={**shown, "url": f"{receiver.url}/other"})
    assert again.status_code == 200, again.text
    renamed = {"authorization": "********", "X-More": "more"}
    assert (await alice.patch("/tasks/t", json={"header": renamed})).status_code == 200
    assert (await runs(alice, "t"))["status"] == "success"
    assert receiver.last.header("Authorization") == PLANTED

    answers = [
        await alice.get(path) for path in ("/tasks", "/tasks/t", "/runs", "/tasks/t/executions")
    ]
    answers += [await alice.get(f"/runs/{r['id']}") for r in answers[2].json()["runs"]]
    for answer in answers:
        assert answer.status_code == 200
        assert "sealed" not in answer.text and "\\u0001" not in answer.text, answer.url
        assert PLANTED not in answer.text
    kept = await conn.fetchval("SELECT string_agg(request::text, '') FROM task_version")
    assert kept and "sealed" not in kept


async def test_a_header_of_the_largest_size_may_be_sent_back_masked(app, alice, receiver):
    most = app.settings.tasks.header_max_bytes
    header = {"token": "x" * (most - len("token") - 2), "a": "b"}
    await created(alice, id="t", url=receiver.url, header=header)
    sent = {"header": {"token": "********", "a": "c"}}
    assert (await alice.patch("/tasks/t", json=sent)).status_code == 200
    sent = {"header": {"token": "********", "a": "cc"}}
    answer = await alice.patch("/tasks/t", json=sent)
    assert answer.status_code == 400 and f"has {most + 1}" in answer.text


async def test_nobody_can_send_what_would_be_taken_for_a_sealed_value(alice, receiver):
    forged = Vault(KEY).seal("x", uuid4(), "the header authorization")
    for value in (forged, sealing.LOST):
        answer = await alice.post(
            "/tasks", json={"name": "x", "url": receiver.url, "header": {"Authorization": value}}
        )
        assert answer.status_code == 400 and "control character" in answer.text


async def test_a_header_is_opened_once_and_not_for_each_run(app, alice, receiver, monkeypatch):
    opened: list[str] = []
    vault, opening_it = app.database.vault, app.database.vault.open
    monkeypatch.setattr(vault, "open", lambda *words: opened.append(words[2]) or opening_it(*words))
    header = {"Authorization": PLANTED}
    await created(alice, id="t", url=receiver.url, header=header, frequency=1, unit="second")
    await eventually(lambda: receiver.requests[1], within=6)
    assert {r.header("Authorization") for r in receiver.requests} == {PLANTED}
    assert opened.count("the header authorization") == 1


async def test_rows_that_were_swapped_between_services_fail_with_a_sentence(
    app, alice, bob, conn, receiver
):
    for client in (alice, bob):
        await created(client, id="t", url=receiver.url, header={"Authorization": PLANTED})
    await conn.execute(
        "UPDATE task a SET action = b.action FROM task b WHERE a.key <> b.key AND a.service_id = $1",
        UUID(app.ids["alice"]),
    )
    app.engine.runner._works.clear()
    answer = await runs(alice, "t")
    assert answer["status"] == "failed"
    assert "the header authorization cannot be opened" in answer["error"]
    assert "send it anew" in answer["error"]
    assert (await runs(bob, "t"))["status"] == "success"
    await alice.patch("/tasks/t", json={"header": {"Authorization": "anew"}})
    assert (await runs(alice, "t"))["status"] == "success"
    assert receiver.last.header("Authorization") == "anew"


async def test_a_signing_secret_of_another_service_signs_nothing(app, alice, conn, receiver):
    await created(alice, id="t", url=receiver.url)
    alien = Vault(KEY).seal_bytes(b"x" * 32, uuid4(), sealing.SIGNING)
    service = UUID(app.ids["alice"])
    await conn.execute("UPDATE service SET signing_secret = $1 WHERE id = $2", alien, service)
    app.engine.runner.secrets._known.clear()
    answer = await runs(alice, "t")
    assert answer["status"] == "failed" and "services rotate --signing" in answer["error"]
    assert receiver.requests == []


# What an older version wrote ---------------------------------------------------------------------


async def plain_tasks(app: App, alice: httpx.AsyncClient, url: str, number: int) -> None:
    app.database.vault.sealing = False
    header = {"Authorization": PLANTED, "X-Open": "open"}
    tasks = [{"id": f"t{n}", "name": "x", "url": url, "header": header} for n in range(number)]
    assert (await alice.post("/tasks/bulk", json=tasks)).status_code == 201


async def test_what_was_stored_open_is_sealed_in_pieces_and_runs_go_on(app, alice, conn, receiver):
    await plain_tasks(app, alice, receiver.url, 1100)
    assert PLANTED in await dump(conn)
    await conn.execute("UPDATE installation SET sealed_at = NULL")
    versions = "SELECT sum(version) FROM task"
    before = await conn.fetchval(versions)

    other = Database(app.database.url, app.settings.database)
    other.vault.unlock(KEY)
    walk = Sealing(other)
    editing = await asyncpg.connect(app.database.url)
    transaction = editing.transaction()
    await transaction.start()
    await editing.execute("SELECT FROM task WHERE id = 't7' FOR UPDATE")
    assert not await walk.step()  # somebody holds one
    assert await conn.fetchval("SELECT sealed_at FROM installation") is None
    await transaction.rollback()
    await editing.close()
    assert await walk.step()
    assert await walk.step()  # a second time is nothing
    await other.close()

    assert PLANTED not in await dump(conn)
    assert await conn.fetchval("SELECT sealed_at FROM installation") is not None
    assert await conn.fetchval(versions) == before
    assert (await runs(alice, "t7"))["status"] == "success"
    assert receiver.last.header("Authorization") == PLANTED


async def test_a_piece_gives_way_to_what_must_fire(app, alice, conn, receiver):
    await plain_tasks(app, alice, receiver.url, 60)
    at_once, most = 0, 0

    def slow(_service: UUID, _name: str, value: str) -> str:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        time.sleep(0.001)
        return value

    async def others() -> None:
        nonlocal at_once
        while True:
            at_once = 0
            await asyncio.sleep(0)

    beside = asyncio.create_task(others())
    async with app.database.auto.connect() as c:
        await resealing.piece(c, UUID(app.ids["alice"]), resealing.START, slow)
    beside.cancel()
    assert 1 <= most <= 5


@pytest.mark.parametrize("nobody_else", [False, True])
async def test_nothing_is_sealed_while_a_replica_could_not_open_it(
    database_url, conn, app, alice, nobody_else
):
    """And once it is gone only when others must have heard of that, and it is not only asleep."""
    now = 100.0

    async def walked() -> None:
        assert await conn.fetchval("SELECT sealed_at FROM installation") is not None

    await eventually(walked)  # by the program itself, which was alone
    database = Database(database_url, config.Database())
    database.vault.unlock(KEY)
    membership = Membership("worker", lambda: now)
    keeper = Caretaker(database, membership, lambda _reason: None)
    await plain_tasks(app, alice, "http://127.0.0.1:9/", 1)
    await conn.execute(
        "INSERT INTO replica (id, beat, beat_at, role, host, pid, version, started_at) "
        "VALUES ($1, 0, now(), 'serve', 'h', 1, '0.1.0', now())",
        uuid4(),
    )

    async def look() -> None:
        async with database.auto.connect() as c:
            await membership.watch(c)
        await keeper.look()
        await keeper.seal()

    await look()
    assert not database.vault.seals and PLANTED in await dump(conn)
    assert await conn.fetchval("SELECT sealed_at FROM installation") is None
    await conn.execute("DELETE FROM replica WHERE version = '0.1.0' OR $1", nobody_else)
    await look()
    assert database.vault.seals and PLANTED in await dump(conn)
    assert membership.alone is nobody_else
    now += QUIET_S - 1
    await look()
    assert PLANTED in await dump(conn)
    now += 2
    await look()
    assert PLANTED not in await dump(conn)
    await database.close()


# Whose key ---------------------------------------------------------------------------------------


def settings_of(url: str, **environ: str) -> config.Settings:
    return config.load(environ={"DATABASE_URL": url, **environ})


@contextlib.asynccontextmanager
async def opened(url: str) -> Any:
    database = Database(url, config.Database())
    yield database
    await database.close()


async def unlock(url: str, folder: Path, **environ: str) -> str | None:
    async with opened(url) as database:
        return await opening.unlock(database, settings_of(url, **environ), folder)


async def test_another_key_a_lost_one_and_none_are_refused_with_a_sentence(
    database_url, tmp_path, conn
):
    made = await unlock(database_url, tmp_path / "a")
    assert made and "Every other replica needs the same key" in made
    assert await unlock(database_url, tmp_path / "a") is None
    first = keys.here("", tmp_path / "a")
    assert first
    theirs = sealing.short(sealing.fingerprint(first))

    with pytest.raises(StartupError, match=f"sealed with the key {theirs}.*there is none here"):
        await unlock(database_url, tmp_path / "b")
    assert not (tmp_path / "b").exists()  # never a silent new key
    mine = sealing.short(sealing.fingerprint(KEY))
    with pytest.raises(StartupError, match=f"the key {theirs}, but SECRET_KEY is {mine}"):
        await unlock(database_url, tmp_path / "a", SECRET_KEY=SECRET_KEY)
    async with opened(database_url) as database:
        with pytest.raises(StartupError):
            await opening.unlock(
                database, settings_of(database_url, SECRET_KEY=SECRET_KEY), tmp_path
            )
        assert not database.vault.seals

    # From before there were keys: with rows, and an external database, nobody guesses.
    await conn.execute("UPDATE installation SET secret_fingerprint = NULL")
    await conn.execute(
        "INSERT INTO service (id, name, allow_commands, created_at, updated_at) "
        "VALUES (gen_random_uuid(), 'old', false, now(), now())"
    )
    with pytest.raises(StartupError, match="set SECRET_KEY, for example"):
        await unlock(database_url, tmp_path / "c")
    assert not (tmp_path / "c").exists()
    async with opened(database_url) as database:  # an embedded one has its file beside it
        told = await opening.unlock(database, config.load(environ={}), tmp_path / "c")
    assert told and str(tmp_path / "c" / keys.FILE) in told and "replica" not in told


async def test_of_two_replicas_with_keys_of_their_own_one_wins(database_url, tmp_path):
    for name in ("a", "b"):
        keys.make(tmp_path / name)
    found = await asyncio.gather(
        *(unlock(database_url, tmp_path / name) for name in ("a", "b")), return_exceptions=True
    )
    assert sorted(map(type, found), key=str) == sorted([StartupError, type(None)], key=str)


@pytest.fixture
def starts(tmp_path: Path, empty_url: str) -> Iterator[Any]:
    """Start `scheduler serve` on an empty database, with a key file in a folder of its own."""
    started: list[Scheduler] = []

    def start(name: str, **more: Any) -> Scheduler:
        home = tmp_path / name
        process = Scheduler(
            home, database=empty_url, data_dir=str(home / "data"), secret_key="", **more
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.close()


def test_a_crash_between_the_key_and_its_fingerprint_leaves_one_key_and_another_refuses(
    starts, tmp_path
):
    home = tmp_path / "a"
    crashed = starts("a", fault=Fault("scheduler.installation:adopt"))
    crashed.struck()
    path = home / "data" / keys.FILE
    made = path.read_text()
    assert keys.parse(made, "file")

    first = starts("a").ready()
    assert path.read_text() == made
    second = starts("b")
    assert second.process.wait(30) == 1
    said = second._err.read_text()
    assert "sealed with the key" in said and "there is none here" in said
    assert "Traceback" not in said
    assert not (tmp_path / "b" / "data" / keys.FILE).exists()
    assert first.call("GET", "/ready")[0] == 200


# The commands ------------------------------------------------------------------------------------


@pytest.fixture
def command(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))

    async def run(*words: str, key: str = SECRET_KEY) -> Any:
        monkeypatch.setenv("SECRET_KEY", key)
        return await asyncio.to_thread(CliRunner().invoke, cli, ["secrets", *words])

    return run


async def test_a_lost_key_is_given_up_and_its_headers_say_so(
    run_app: RunApp, command, conn, receiver
):
    header = {"Authorization": PLANTED, "X-Open": "open"}
    async with run_app() as app, app.client("alice") as alice:
        await created(alice, id="t", url=receiver.url, header=header)
        await created(alice, id="open", url=receiver.url, header={"X-Open": "open"})
        assert "replicas of this database run" in str((await command("reset", "-y")).exception)
    status = json.loads((await command("status", "-o", "json")).stdout)
    assert status["here"] == status["database"] == sealing.short(sealing.fingerprint(KEY))

    other = (await command("key")).stdout.strip()
    refused = await command("status", key=other)
    assert refused.exit_code == 1 and "another key" in refused.output
    assert SECRET_KEY not in refused.output and other not in refused.output
    secret = await conn.fetchval("SELECT signing_secret FROM service WHERE name = 'alice'")
    done = await command("reset", "-y", key=other)
    assert done.exit_code == 0, done.output
    assert "alice: 1 tasks lost" in done.output and "bob: 0 tasks" in done.output
    assert await conn.fetchval("SELECT signing_secret FROM service WHERE name = 'alice'") != secret

    with pytest.raises(StartupError):
        async with run_app():
            pass
    async with run_app(SECRET_KEY=other) as app, app.client("alice") as alice:
        answer = await runs(alice, "t")
        assert answer["status"] == "failed"
        assert "the header authorization was lost with the key" in answer["error"]
        assert (await alice.get("/tasks/t")).json()["header"]["Authorization"] == "********"
        assert (await runs(alice, "open"))["status"] == "success"
        await alice.patch("/tasks/t", json={"header": {"Authorization": "anew"}})
        assert (await runs(alice, "t"))["status"] == "success"


async def test_what_does_not_open_does_not_bar_the_way_back_and_is_told(
    run_app: RunApp, command, conn, receiver, database_url
):
    async with run_app() as app, app.client("alice") as alice:
        for task in ("lost", "changed", "good"):
            header = {"Authorization": f"{PLANTED}-{task}"}
            await created(alice, id=task, url=receiver.url, header=header)
        service = UUID(app.ids["bob"])
    change = (
        "UPDATE task SET action = jsonb_set(action, '{header,Authorization}', $1) WHERE id = $2"
    )
    await conn.execute(change, json.dumps(sealing.LOST), "lost")
    await conn.execute(change, json.dumps(sealing.PREFIX + "A" * 64), "changed")
    alien = Vault(KEY).seal_bytes(b"x" * 32, uuid4(), sealing.SIGNING)
    await conn.execute("UPDATE service SET signing_secret = $1 WHERE id = $2", alien, service)

    editing = await asyncpg.connect(database_url)
    transaction = editing.transaction()
    await transaction.start()
    await editing.execute("SELECT FROM task WHERE id = 'good' FOR UPDATE")
    held = await command("unseal", "-y")
    assert "1 tasks of the service alice are held" in str(held.exception)
    await transaction.rollback()
    await editing.close()
    assert PLANTED not in await dump(conn)

    done = await command("unseal", "-y")
    assert done.exit_code == 0, done.output
    assert "alice: 2 secrets did not open" in done.output
    assert "bob: 1 secrets did not open" in done.output
    stored = await dump(conn)
    assert f"{PLANTED}-good" in stored and sealing.PREFIX not in stored
    await migrate.down(database_url, "0002")
    assert await conn.fetchval("SELECT max(length(signing_secret)) FROM service") == 32
    await migrate.up(database_url)
    async with run_app() as app, app.client("alice") as alice:
        assert (await runs(alice, "good"))["status"] == "success"
        assert "was lost with the key" in (await runs(alice, "changed"))["error"]


async def test_a_replica_that_slept_through_a_reset_runs_nothing_and_seals_nothing(
    app, alice, conn, receiver, database_url
):
    await created(alice, id="t", url=receiver.url, header={"Authorization": PLANTED})
    ours = sealing.fingerprint(KEY)
    await conn.execute(
        "UPDATE installation SET secret_fingerprint = $1", sealing.fingerprint(OTHER)
    )

    async def ready(status: int) -> httpx.Response:
        answer = await alice.get("/ready")
        assert answer.status_code == status
        return answer

    refused = await eventually(lambda: ready(503), within=4)
    assert "this process has " + sealing.short(ours) in refused.text
    answer = await alice.post("/tasks/t/execute")
    assert answer.status_code == 202 and receiver.requests == []
    await created(alice, id="later", url=receiver.url, header={"Authorization": PLANTED})
    assert PLANTED in await dump(conn)  # open, and whoever has the key seals it
    assert await conn.fetchval("SELECT sealed_at FROM installation") is None
    await conn.execute("UPDATE installation SET secret_fingerprint = $1", ours)
    await eventually(lambda: ready(200), within=4)
    await eventually(lambda: receiver.requests[0])


async def test_what_is_not_lost_is_not_given_up(run_app: RunApp, command, conn, receiver):
    async with run_app() as app, app.client("alice") as alice:
        await created(alice, id="t", url=receiver.url, header={"Authorization": PLANTED})
    refused = await command("reset", "-y")
    assert refused.exit_code == 1 and "nothing is lost" in str(refused.exception)
    async with run_app() as app, app.client("alice") as alice:
        assert (await runs(alice, "t"))["status"] == "success"


async def test_sealed_headers_alone_keep_the_schema_from_going_down(
    run_app: RunApp, conn, receiver, database_url
):
    async with run_app() as app, app.client("alice") as alice:
        await created(alice, id="t", url=receiver.url, header={"Authorization": PLANTED})
    await conn.execute("UPDATE service SET signing_secret = sha256('x')")
    with pytest.raises(StartupError, match="scheduler secrets unseal"):
        await migrate.down(database_url, "0002")


async def test_a_way_back_opens_everything_and_only_then_goes_down(
    run_app: RunApp, command, conn, receiver, database_url
):
    async with run_app() as app, app.client("alice") as alice:
        await created(alice, id="t", url=receiver.url, header={"Authorization": PLANTED})
    with pytest.raises(StartupError, match="scheduler secrets unseal"):
        await migrate.down(database_url, "0002")
    done = await command("unseal", "-y")
    assert done.exit_code == 0, done.output
    assert PLANTED in await dump(conn)
    assert await conn.fetchval("SELECT max(length(signing_secret)) FROM service") == 32
    await migrate.down(database_url, "0002")
    assert (await migrate.up(database_url)).is_current

    async with run_app() as app, app.client("alice") as alice:  # and forward again: it is adopted
        assert (await runs(alice, "t"))["status"] == "success"

        async def sealed() -> None:
            assert PLANTED not in await dump(conn)

        await eventually(sealed)
