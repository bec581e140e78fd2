"""`scheduler doctor`: each thing that can be wrong is found, named, and told what to do about."""

import asyncio
import base64
import json
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
from click.testing import CliRunner

from conftest import App
from pooler import Pooler
from scheduler import config, migrate
from scheduler.cli import cli
from scheduler.doctor import machine
from scheduler.doctor.examine import examine
from scheduler.doctor.finding import Finding, checked, words


@pytest.fixture(autouse=True)
def _nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


async def look(url: str, tmp_path: Path, **more: str) -> dict[str, Finding]:
    """What doctor finds, by name; the worst where a name has several."""
    environ = {"DATABASE_URL": url, "DATA_DIR": str(tmp_path), "SERVER_PORT": "0", **more}
    order = ["ok", "warn", "fail"]
    found: dict[str, Finding] = {}
    for each in await examine(config.read(environ=environ)):
        before = found.get(each.name)
        if before is None or order.index(each.state) > order.index(before.state):
            found[each.name] = each
    assert all(each.todo for each in found.values() if each.state != "ok")
    return found


async def test_a_healthy_installation_is_all_ok(app: App, database_url, tmp_path) -> None:
    port = str(urlsplit(app.url).port)
    key = app.settings.secret.key
    found = await look(database_url, tmp_path, SERVER_PORT=port, SECRET_KEY=key)
    # The tests' Postgres has fsync off, and says so.
    assert {n: f.said for n, f in found.items() if f.state != "ok"} == {
        "settings of Postgres": "fsync is off"
    }
    assert f"a scheduler listens at {app.url}" in found["port"].said
    assert f"opens {app.url}" in found["credentials"].said
    assert "1 beat: serve" in found["replicas"].said
    for name in ("database", "connections", "clock", "schema", "queue", "history", "secrets key",
                 "pause", "time zones", "egress", "names"):  # fmt: skip
        assert name in found


def test_a_database_that_is_away_is_a_finding_and_the_rest_goes_on(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://someone:hidden-1@127.0.0.1:1/x")
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    monkeypatch.setenv("SERVER_PORT", "0")
    run = CliRunner().invoke(cli, ["doctor"])
    assert run.exit_code == 1 and isinstance(run.exception, SystemExit)
    lines = run.output.splitlines()
    assert any(line.startswith("FAIL database") for line in lines)
    for name in ("settings", "port", "credentials", "egress"):
        assert any(line[5:].startswith(name) for line in lines), run.output
    assert "hidden" not in run.output and "Traceback" not in run.output
    assert "-> check DATABASE_URL" in run.output

    found = json.loads(CliRunner().invoke(cli, ["doctor", "-o", "json"]).stdout)
    assert {"name", "state", "said", "todo"} == set(found[0])
    assert {each["state"] for each in found if each["name"] == "database"} == {"fail"}


async def test_what_is_wrong_in_the_database_is_found(conn: Any, database_url, tmp_path) -> None:
    await conn.execute("DROP TABLE history_" + await conn.fetchval(
        "SELECT to_char(date_trunc('week', now() + interval '14 days'), 'YYYYMMDD')"))  # fmt: skip
    await conn.execute("UPDATE installation SET paused_at = now(), paused_reason = 'moving', "
                       "secret_fingerprint = 'feedfacefeedface', tzdata = '1999a'")  # fmt: skip
    await conn.execute(
        "INSERT INTO replica VALUES (gen_random_uuid(), 1, now() - interval '1 hour', 'worker',"
        " 'gone', 7, '0.1.0', now())"
    )
    key = base64.b64encode(bytes(32)).decode()

    found = await look(database_url, tmp_path, SECRET_KEY=key)

    assert found["history"].state == "warn" and "no table for history_" in found["history"].said
    assert "moving" in found["pause"].said and "resume" in found["pause"].todo
    assert found["replicas"].state == "fail" and "none beats" in found["replicas"].said
    assert found["secrets key"].state == "fail"
    assert "feedface" in found["secrets key"].said and key not in found["secrets key"].said
    assert "1999a" in found["time zones"].said

    without = await look(database_url, tmp_path)
    assert "none here" in without["secrets key"].said
    broken = await look(database_url, tmp_path, SECRET_KEY="not a key")
    assert broken["secrets key"].state == "fail" and "not a key" not in broken["secrets key"].said


async def test_a_schema_that_is_behind_or_absent_is_found(empty_url, tmp_path) -> None:
    assert "migrate up" in (await look(empty_url, tmp_path))["schema"].todo
    await migrate.up(empty_url)
    await migrate.down(empty_url, "0001")
    found = await look(empty_url, tmp_path)
    assert found["schema"].state == "fail" and "0001" in found["schema"].said
    assert "queue" not in found


async def test_pools_that_want_more_than_there_is_are_found(database_url, tmp_path) -> None:
    found = await look(database_url, tmp_path, DATABASE_API_POOL="500")
    assert found["connections"].state == "warn" and "max_connections" in found["connections"].todo


async def test_a_pooler_is_found_and_whether_we_know_of_it(
    postgres, database_url, tmp_path, monkeypatch
) -> None:
    with tempfile.TemporaryDirectory(prefix="pool") as folder:
        pooler = Pooler(postgres.url, Path(folder))
        await pooler.start()
        url = pooler.url(database_url)
        assert "refuses us" in (await look(url, tmp_path))["database"].said
        alone = await look(url, tmp_path, DATABASE_STATEMENT_CACHE="0")
        assert "polling alone" in alone["pooler"].said
        more = {"DATABASE_STATEMENT_CACHE": "0", "DATABASE_LISTEN_URL": database_url}
        assert (await look(url, tmp_path, **more))["pooler"].state == "ok"
        monkeypatch.setattr("pooler.LET_THROUGH", {"user", "database", "client_encoding",
            "application_name", "statement_timeout", "plan_cache_mode", "jit", "timezone"})  # fmt: skip
        assert "nobody told us" in (await look(url, tmp_path))["pooler"].said
        await pooler.stop()
    direct = await look(database_url, tmp_path, DATABASE_STATEMENT_CACHE="0")
    assert "there is no pooler" in direct["pooler"].said


async def test_a_stranger_on_the_port_is_found(receiver, database_url, tmp_path) -> None:
    found = await machine.port(config.load(environ={"SERVER_PORT": str(receiver.port)}))
    assert found.state == "fail" and "something else" in found.said
    nobody = await machine.port(config.load(environ={"SERVER_PORT": "1"}))
    assert nobody.state == "warn" and "nobody" in nobody.said


async def test_credentials_that_do_not_fit_are_found(app: App, tmp_path) -> None:
    file = tmp_path / "c.json"
    good = {"url": app.url, "service_id": app.ids["alice"], "token": "hidden-1"}
    for content, state, said in (
        (json.dumps(good), "fail", "refuses"),
        ("{", "fail", "cannot be read"),
        (json.dumps(good | {"url": "http://127.0.0.1:1"}), "warn", "does not answer"),
        (json.dumps(good | {"url": "nonsense"}), "warn", "does not answer"),
    ):
        file.write_text(content)
        found = await machine.api(file)
        assert (found.state, said in found.said) == (state, True), found
        assert "hidden" not in found.said


def test_a_full_disk_is_found(tmp_path) -> None:
    assert machine.disk(tmp_path / "not" / "made", 0).state in ("ok", "warn")
    full = machine.disk(tmp_path, 1 << 62)
    assert full.state == "fail" and "nothing more is started" in full.said


def test_odd_settings_are_found(tmp_path) -> None:
    (tmp_path / "config.yaml").write_text("redis: {addr: x}\nworker: {count: 3}\n")
    found = machine.settings(config.read(environ={"WORKER_COUTN": "1", "SERVER_PORT": "1"}))
    assert "file config.yaml, 1 from it, 1 from the environment" in found[0].said
    assert [each.state for each in found] == ["ok", "warn", "warn"]
    wrong = config.load(environ={"EGRESS_DENY": "10.0.0.0/99"})
    assert machine.egress(wrong, "")[0].state == "fail"


async def test_a_check_that_hangs_or_breaks_is_a_finding(monkeypatch) -> None:
    monkeypatch.setattr("scheduler.doctor.finding.CHECK_S", 0.01)

    async def hangs() -> list[Finding]:
        await asyncio.Event().wait()
        return []

    async def breaks() -> list[Finding]:
        raise ValueError("postgresql://u:hidden-1@h/d\nand more")

    assert "no answer" in (await checked("x", hangs, "do"))[0].said
    (broken,) = await checked("x", breaks, "do")
    assert broken.state == "fail" and broken.todo == "do" and "hidden" not in broken.said


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError(), "ValueError"),
        (TimeoutError(), "TimeoutError, the database is away"),
        (asyncpg.InvalidPasswordError("no such user"), "no such user"),
    ],
)
def test_an_error_is_told_in_words(error, said) -> None:
    assert words(error) == said


def test_words_of_others_move_no_terminal(monkeypatch) -> None:
    async def found(*_: Any) -> list[Finding]:
        return [Finding("pause", "warn", "nothing is run: mo\x1b[31mving", "wait\r")]

    monkeypatch.setattr("scheduler.cli.doctor.examine", found)
    shown = CliRunner().invoke(cli, ["doctor"]).output
    assert "mo\\x1b[31mving" in shown
    assert "\x1b" not in shown
    assert "\r" not in shown


async def test_a_file_of_another_user_is_not_to_be_removed(tmp_path, monkeypatch) -> None:
    file = tmp_path / "credentials.json"
    file.write_text("{}")

    def refused(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(file))

    monkeypatch.setattr(Path, "read_bytes", refused)
    told = await machine.api(file)
    assert told.state == "fail"
    assert "run this as the user" in told.todo
    assert "remove" not in told.todo
