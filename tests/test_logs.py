"""Logs: what is secret is in none of them, whatever goes wrong."""

import logging
from collections.abc import Callable, Iterator

import pytest
import structlog
from sqlalchemy import text

from conftest import App, RunApp, eventually
from receiver import Answer
from scheduler import config, logs
from scheduler.db import Database

SECRETS = ("SUPERSECRET", "querysecret", "payloadsecret")
TASK = {
    "name": "boom",
    "url": "http://h/?note=querysecret",
    "header": {"Authorization": "Bearer SUPERSECRET"},
    "payload": {"inside": "payloadsecret"},
}

Log = Callable[[], str]


@pytest.fixture(params=["json", "console"])
def log(request, capsys) -> Iterator[Log]:
    """Called first: log from now on. Called again: what was logged, as text."""
    handlers, level = logging.root.handlers[:], logging.root.level
    configured = False

    def read() -> str:
        nonlocal configured
        if not configured:
            logs.configure(config.Log(level="debug", format=request.param))
            configured = True
        return capsys.readouterr().err

    yield read
    structlog.reset_defaults()
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


async def test_a_task_that_the_database_refuses_is_logged_without_its_values(alice, conn, log):
    await conn.execute("ALTER TABLE task ADD CONSTRAINT nope CHECK (name <> 'boom')")
    log()
    assert (await alice.post("/tasks", json=TASK)).status_code == 500
    assert (await alice.post("/tasks/bulk", json=[TASK])).status_code == 500
    said = log()
    assert said.count("nope") >= 2  # what is wrong is there
    assert "INSERT INTO task" in said
    for secret in (*SECRETS, "Failing row", "[parameters"):
        assert secret not in said


async def test_an_edit_that_the_database_refuses_is_logged_without_its_values(alice, conn, log):
    assert (await alice.post("/tasks", json={**TASK, "name": "n", "id": "t"})).status_code == 201
    await conn.execute("ALTER TABLE task ADD CONSTRAINT nope CHECK (name <> 'boom')")
    log()
    assert (await alice.patch("/tasks/t", json={"name": "boom"})).status_code == 500
    said = log()
    assert "nope" in said
    for secret in SECRETS:
        assert secret not in said


async def test_a_signing_secret_that_the_database_refuses_is_in_no_log(run_app: RunApp, conn, log):
    async with run_app(ADMIN_TOKEN="operator") as app:
        log()
        await conn.execute(
            "ALTER TABLE service ADD CONSTRAINT nope CHECK (length(signing_secret) < 5) NOT VALID"
        )
        async with app.client(Authorization="Bearer operator") as admin:
            answer = await admin.post("/services/bob/rotate?signing=true")
        assert answer.status_code == 500
    said = log()
    assert "nope" in said
    for shown in ("Failing row", "\\\\x", "b'", 'b"'):
        assert shown not in said


async def test_an_answer_that_cannot_be_settled_is_logged_without_it(
    app: App, alice, conn, receiver, log
):
    receiver.otherwise = Answer(200, b"payloadsecret")
    await conn.execute("ALTER TABLE history ADD CONSTRAINT nope CHECK (task_id <> 't') NOT VALID")
    log()
    task = {**TASK, "id": "t", "url": f"{receiver.url}/?note=querysecret"}
    assert (await alice.post("/tasks", json=task)).status_code == 201
    assert (await alice.post("/tasks/t/execute?async=true")).status_code == 202
    said = ""

    def check() -> None:
        nonlocal said
        said += log()
        assert "outcome refused by the database" in said

    await eventually(check)
    assert "nope" in said
    for secret in (*SECRETS, "Failing row"):
        assert secret not in said


@pytest.mark.parametrize(
    ("statement", "value"),
    [
        ("SELECT CAST(:value AS int)", "SUPERSECRET"),
        ("SELECT CAST(CAST(:value AS text) AS jsonb)", '{"a": SUPERSECRET}'),
        ("INSERT INTO planted VALUES (:value), (:value)", "SUPERSECRET\n\nSUPERSECRET"),
    ],
    ids=["an argument", "a context", "a key"],
)
async def test_what_the_driver_quotes_is_cut(database_url, conn, log, statement, value):
    await conn.execute("CREATE TABLE planted (value text PRIMARY KEY)")
    database = Database(database_url, config.Database())
    logger = structlog.get_logger()
    log()
    try:
        async with database.api.begin() as connection:
            await connection.execute(text(statement), {"value": value})
    except Exception as e:
        logger.exception("it failed")
        logger.error("it failed", error=str(e))
        logging.getLogger("elsewhere").exception("it failed")
    finally:
        await database.close()
    said = log()
    assert said.count("it failed") == 3
    assert said.count("[SQL: ") >= 3
    assert "SUPERSECRET" not in said
