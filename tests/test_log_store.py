"""The log in the database: what is stored, what is dropped, what goes, and how it is shown."""

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import asyncpg
import pytest
import structlog
from click.testing import CliRunner, Result

from conftest import Line, RunApp, eventually
from harness import Sql, until
from scheduler import config, db, logs, logstore, metrics
from scheduler.cli import cli
from scheduler.db import Database
from scheduler.logbuffer import Buffer


@pytest.fixture
def stored_logs(capsys) -> Iterator[Callable[..., Callable[[], str]]]:
    """Log from now on into the store, with these settings; what it returns reads standard error."""
    handlers, level = logging.root.handlers[:], logging.root.level

    def start(**settings: Any) -> Callable[[], str]:
        logs.configure(config.Log(**{"store": True, "format": "json", **settings}))
        logs.BUFFER.take(Buffer.LINES_MOST)
        logs.BUFFER.told()
        capsys.readouterr()
        return lambda: capsys.readouterr().err

    yield start
    logs.configure(config.Log())
    structlog.reset_defaults()
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


@pytest.fixture
async def database(database_url: str):
    made = Database(database_url, config.Database())
    yield made
    await made.close()


async def rows(conn: asyncpg.Connection, message: str = "%") -> list[asyncpg.Record]:
    return await conn.fetch("SELECT * FROM log_entry WHERE message LIKE $1 ORDER BY id", message)


def said(message: str, **more: Any) -> dict[str, Any]:
    return {
        "level": "info", "@timestamp": "2026-01-02T03:04:05.678Z", "service": "scheduler.api",
        "message": message, **more,
    }  # fmt: skip


# Writing ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stdout", [True, False])
async def test_the_store_holds_the_lines_that_are_written(
    run_app: RunApp, conn, stored_logs, stdout
):
    read = stored_logs(stdout=stdout)
    async with run_app(LOG_STORE="true") as app, app.client("alice") as alice:
        answer = await alice.get("/tasks/none?token=hidden")
        logging.getLogger("elsewhere").warning("from a library, token=hidden")
        trace = answer.headers["X-Trace-Id"]

        async def both_are_there() -> list[asyncpg.Record]:
            found = await rows(conn, "there is no task%") + await rows(conn, "from a library%")
            assert len(found) == 2
            return found

        request, _ = await eventually(both_are_there)
    assert (request["level"], request["service"], request["trace_id"]) == (
        "error",
        "scheduler.api",
        trace,
    )
    assert str(request["service_id"]) == app.ids["alice"]
    shown = await logstored(conn, app, trace)
    written = [json.loads(each) for each in read().splitlines()]
    ours = [each for each in written if each.get("X-TRACE-ID") == trace]
    assert ours == ([shown] if stdout else [])
    assert bool(written) is stdout
    assert "hidden" not in str(written) + str(await rows(conn))


async def logstored(conn: asyncpg.Connection, app: Any, trace: str) -> dict[str, Any]:
    database = Database(app.settings.database.url, config.Database())
    async with database.api.begin() as connection:
        [found] = await logstore.read(connection, logstore.Wanted(trace=trace), 10)
    await database.close()
    return found.line


async def test_what_is_left_is_stored_at_the_stop(run_app: RunApp, conn, stored_logs):
    stored_logs()
    async with run_app(LOG_STORE="true"):
        pass
    assert await rows(conn, "ready")


class Counted(Database):
    """Counts how often it is connected to."""

    tries = 0

    async def connect(self, name: str, url: str | None = None) -> asyncpg.Connection:
        self.tries += 1
        return await super().connect(name, url)


async def test_a_database_that_is_away_is_waited_for_and_said_once(
    line: Line, conn, stored_logs, monkeypatch
):
    monkeypatch.setattr(logstore, "GATHER_S", 0.01)
    read = stored_logs()
    database = Counted(line.url, config.Database())

    async def stored(message: str) -> None:
        assert await rows(conn, message)

    def tried() -> None:
        assert database.tries > 4

    async with logstore.storing(database, config.Log(store=True)):
        structlog.get_logger().info("before")
        await eventually(lambda: stored("before"))
        await line.cut()
        structlog.get_logger().info("meanwhile")
        await eventually(tried)
        await line.mend()
        await eventually(lambda: stored("meanwhile"))
    await database.close()
    assert read().count("log lines wait for the database") == 1
    assert not await rows(conn, "log lines wait%")  # it would be a line for each try, for ever


async def test_a_stop_does_not_wait_for_a_database_that_is_away(database_url, line, stored_logs):
    read = stored_logs()
    database = Database(line.url, config.Database())
    store = logstore.LogStore(database, logs.BUFFER)
    await line.cut()
    structlog.get_logger().info("lost")
    await asyncio.wait_for(store.stop(), 5)
    assert "log lines were not stored: the database is away" in read()
    await line.mend()
    await database.close()


async def test_the_oldest_go_where_too_many_wait_and_are_counted(database, conn, stored_logs):
    stored_logs()
    before = metrics.LOG_DROPPED._value.get()
    for number in range(Buffer.LINES_MOST + 7):
        logs.BUFFER.add(said(str(number)))
    store = logstore.LogStore(database, logs.BUFFER)
    assert await store._flushed()
    assert metrics.LOG_DROPPED._value.get() - before == 7
    assert await store._flushed()  # that some went is a line, which is stored too
    await store.stop()
    found = await rows(conn)
    assert [found[0]["message"], found[-2]["message"]] == ["7", str(Buffer.LINES_MOST + 6)]
    assert "more came than the store took" in found[-1]["message"]
    assert json.loads(found[-1]["fields"])["lines"] == 7
    assert len(found) == Buffer.LINES_MOST + 1


def test_what_waits_takes_no_more_than_its_room():
    buffer = Buffer()
    for _ in range(40):
        buffer.add(said("m", big="x" * (1 << 20)))
    assert len(buffer) == 15
    assert buffer.told() == 25
    taken = buffer.take(10)
    for _ in range(12):
        buffer.add(said("n", big="x" * (1 << 20)))
    buffer.give_back(taken)
    assert buffer.told() == 12
    assert {kept.message for kept in buffer.take(100)} == {"m", "n"}
    assert not len(buffer)


async def test_a_line_that_the_database_refuses_takes_no_other_with_it(database, conn, stored_logs):
    read = stored_logs()
    await conn.execute("ALTER TABLE log_entry ADD CONSTRAINT nope CHECK (message <> 'bad')")
    for message in ("one", "two", "bad", "three"):
        logs.BUFFER.add(said(message))
    store = logstore.LogStore(database, logs.BUFFER)
    logs.UNSTORED.set(True)
    assert await store._flushed()
    await store.stop()
    logs.UNSTORED.set(False)
    assert {row["message"] for row in await rows(conn)} >= {"one", "two", "three"}
    assert read().count("a log line was refused by the database") == 1


async def test_any_text_can_be_stored(database, conn, stored_logs):
    stored_logs(stdout=False)
    odd = "a\x00b\ud800c\n\u2028日本"
    structlog.get_logger().info(odd, field=odd, nested={odd: [odd]}, service_id="nobody")
    store = logstore.LogStore(database, logs.BUFFER)
    assert await store._flushed()
    await store.stop()
    [row] = await rows(conn)
    assert row["message"] == "a\\x00b\\ud800c\n\\u2028日本"
    assert row["service_id"] is None


# Pruning ------------------------------------------------------------------------------------------

FILL = """
INSERT INTO log_entry (at, level, service, message, fields)
SELECT now() - make_interval(hours => n), 'info', 'scheduler.api', n::text, '{}'
FROM generate_series($1::int, 1, -1) AS n
"""


async def now_ms(conn: asyncpg.Connection) -> int:
    return db.ms(await conn.fetchval("SELECT now()"))


async def test_lines_go_when_their_time_is_over_in_pieces(database, conn, monkeypatch):
    monkeypatch.setattr(logstore, "PIECE", 7)
    await conn.execute(FILL, 100)
    settings = config.Log(store_retention_days=2)
    assert await logstore.prune(database, await now_ms(conn), settings) == 53
    kept = [int(row["message"]) for row in await rows(conn)]
    assert sorted(kept) == list(range(1, 48))


async def test_the_oldest_go_where_there_are_too_many_and_it_is_said(database, conn, stored_logs):
    read = stored_logs(store=False)
    await conn.execute(FILL, 1200)
    settings = config.Log(store_retention_days=3650, store_max_lines=1000)
    assert await logstore.prune(database, await now_ms(conn), settings) == 200
    assert len(await rows(conn)) == 1000
    assert "log.store_max_lines" in read()
    assert await logstore.prune(database, await now_ms(conn), settings) == 0


async def test_the_engine_prunes_also_where_nothing_is_stored_any_more(app, conn):
    await conn.execute(FILL, 24 * 8)
    await app.engine._prune_log()
    assert len(await rows(conn)) == 24 * 7 - 1


# Showing ------------------------------------------------------------------------------------------


ADD = """
INSERT INTO log_entry (at, level, service, service_id, trace_id, message, fields)
VALUES (now() - make_interval(mins => $1), $2, $3, $4, $5, $6, $7)
"""
LINES = [
    (200, "info", "scheduler.api", None, "a" * 16, "long ago", "{}"),
    (40, "debug", "scheduler.worker", None, None, "looked", '{"part": "plan"}'),
    (30, "warn", "scheduler.worker", "BILLING", "b" * 16, "run failed", '{"error": "100%_odd"}'),
    (
        20,
        "error",
        "scheduler.api",
        "BILLING",
        "c" * 16,
        "refused",
        '{"url": "/Tasks", "status": 400}',
    ),
    (10, "info", "scheduler.api", None, "d" * 16, "request", '{"url": "/runs"}'),
]
Ask = Callable[..., Result]


@pytest.fixture
def sql(database_url: str) -> Iterator[Sql]:
    made = Sql(database_url)
    yield made
    made.close()


@pytest.fixture
def ask(database_url: str, sql: Sql, monkeypatch: pytest.MonkeyPatch, tmp_path) -> Ask:
    """Run `scheduler logs` on the test's database."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", database_url)
    return lambda *words, **more: CliRunner().invoke(
        cli, ["logs", *words], catch_exceptions=True, env=more
    )


def messages(result: Result) -> list[str]:
    assert result.exit_code == 0, result.output
    return [json.loads(each)["message"] for each in result.stdout.splitlines()]


def fill(sql: Sql) -> str:
    made = CliRunner().invoke(cli, ["services", "create", "billing", "-o", "json"])
    billing = json.loads(made.stdout)["service_id"]
    for minutes, level, service, owner, trace, message, fields in LINES:
        sql.all(ADD, minutes, level, service, billing if owner else None, trace, message, fields)
    return billing


def test_stored_lines_are_shown_as_they_are_asked_for(ask: Ask, sql: Sql):
    billing = fill(sql)
    every = [each[5] for each in LINES]
    since = sql.one("SELECT to_char(now() - interval '25 min', 'YYYY-MM-DD\"T\"HH24:MI:SSOF')")
    for words, expected in (
        ((), every),
        (("--limit", "2"), every[-2:]),
        (("--since", "1h"), every[1:]),
        (("--since", "999999999w"), every),
        (("--since", "0001-01-01T00:00:00+14:00"), every),
        (("--since", "9999-12-31T23:59:59-14:00"), []),
        (("--since", f"{since}:00"), every[3:]),
        (("--level", "warn"), ["run failed", "refused"]),
        (("--trace", "b" * 16), ["run failed"]),
        (("--service", "worker"), ["looked", "run failed"]),
        (("--service", "scheduler.api", "--since", "25m"), ["refused", "request"]),
        (("--service", "billing"), ["run failed", "refused"]),
        (("--service", billing, "--level", "error"), ["refused"]),
        (("-q", "/TASKS"), ["refused"]),
        (("-q", "100%_o"), ["run failed"]),
        (("-q", "0__o"), []),
    ):
        assert messages(ask("-o", "json", *words)) == expected, words
    [line] = [
        json.loads(each) for each in ask("-o", "json", "--trace", "c" * 16).stdout.splitlines()
    ]
    assert list(line) == [
        "level",
        "@timestamp",
        "data",
        "X-TRACE-ID",
        "service",
        "url",
        "status",
        "message",
    ]
    shown = ask("--trace", "c" * 16).stdout
    assert " ERR refused @timestamp=" in shown
    assert shown.endswith("service=scheduler.api status=400 url=/Tasks\n")


def test_what_is_asked_for_in_vain_is_said(ask: Ask, sql: Sql):
    assert "set LOG_STORE=true" in ask().stderr
    assert "No log line is stored yet" in ask(LOG_STORE="true").stderr
    fill(sql)
    assert "No stored log line is as you ask" in ask("--trace", "none").stderr
    for words, why in (
        (("--since", "yesterday"), "neither an age like 90s"),
        (("--since", "2025-01-01T00:00:00"), "with its offset"),
        (("--limit", "0"), "0"),
        (("--trace", "a\udcff"), "is not UTF-8"),
        (("--service", "a\udcff"), "is not UTF-8"),
        (("-q", "a\udcff"), "is not UTF-8"),
    ):
        refused = ask(*words)
        assert refused.exit_code == 2
        assert why in refused.stderr
    nobody = ask("--service", "nobody")
    assert "there is no service nobody" in str(nobody.exception)


def test_what_comes_is_followed_until_ctrl_c(database_url: str, sql: Sql, tmp_path):
    environ = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "LANG")}
    add = (0, "info", "scheduler.api", None, None)
    sql.all(ADD, *add, "before", "{}")
    said = tmp_path / "said"
    with said.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "scheduler", "logs", "-f", "-o", "json"],
            env={**environ, "DATABASE_URL": database_url}, cwd=tmp_path, stdout=out, stderr=out,
        )  # fmt: skip
    try:
        until(lambda: "before" in said.read_text(), 20, "it shows what is there")
        sql.all(ADD, *add, "after", "{}")
        until(lambda: "after" in said.read_text(), 10, "it shows what comes")
        sql.all(ADD, *add, "later", "{}")
        until(lambda: "later" in said.read_text(), 10, "it goes on")
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
    finally:
        process.kill()
    found = [json.loads(each)["message"] for each in said.read_text().splitlines()]
    assert found == ["before", "after", "later"]
