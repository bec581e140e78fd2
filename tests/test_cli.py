"""The `scheduler` command: a process of its own where the process matters."""

import asyncio
import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from click.testing import CliRunner, Result

from scheduler.cli import cli, main
from scheduler.embedded import one_sentence
from scheduler.errors import StartupError
from test_admin import filled

Run = Callable[..., Result]
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@pytest.fixture
def command(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command against this test's database."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", database_url)
    return lambda *words, **more: CliRunner().invoke(cli, words, catch_exceptions=True, **more)


def environ(**more: str) -> dict[str, str]:
    """The environment without what would set a setting."""
    kept = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "PYTHONPATH", "LANG")}
    if "DATABASE_URL" in more:  # replicas share the key, and have no data directory here
        kept["SECRET_KEY"] = os.environ["SECRET_KEY"]
    return {**kept, "SERVER_PORT": "0", **more}


def program(*words: str, folder: Path, **more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "scheduler", *words],
        cwd=folder,
        env=environ(**more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def done(*words: str, folder: Path, **more: str) -> tuple[int, str, str]:
    """Exit code, output and errors of a command that comes to its end."""
    with program(*words, folder=folder, **more) as process:
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err


@contextmanager
def served(folder: Path, *words: str, **more: str) -> Iterator[tuple[str, str]]:
    """A `scheduler serve` that is ready: its URL, and what it said until it was."""
    process = program("serve", *words, folder=folder, **more)
    try:
        said = ""
        while not (found := re.search(r"Scheduler is at (http://[\d.]+:\d+)", said)):
            line = process.stdout.readline()
            assert line, said + process.stderr.read()
            said += line
        ready(found[1])
        yield found[1], said + rest(process, said)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
        assert process.returncode == 0, out + err
        assert "Traceback" not in err
    finally:
        process.kill()
        process.communicate()


def rest(process: subprocess.Popen[str], said: str) -> str:
    """What of the welcome was not read yet."""
    more = ""
    while "credentials" not in said and "-d '" not in more and "services create" not in said:
        more += process.stdout.readline()
    return more


def ready(url: str) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            with urllib.request.urlopen(f"{url}/ready", timeout=5) as answer:
                assert answer.status == 200
            return
        except OSError:
            assert time.monotonic() < deadline, "not ready"
            time.sleep(0.02)


# services ----------------------------------------------------------------------------------------


def test_services_create_prints_the_object_and_nothing_else(command):
    made = command("services", "create", "reports", "-o", "json")

    assert made.exit_code == 0, made.output
    service = json.loads(made.stdout)
    assert service["name"] == "reports" and service["allow_commands"] is False
    assert UUID.fullmatch(service["service_id"])
    assert len(service["token"]) >= 43
    assert {"created_at", "updated_at"} < set(service)
    assert made.stderr == ""
    assert json.loads(command("services", "create", "x", "--allow-commands", "-o", "json").stdout)[
        "allow_commands"
    ]


def test_services_create_tells_people_the_token_once(command):
    made = command("services", "create", "reports")
    token = re.search(r"token\s+(\S+)", made.output)
    assert token is not None and UUID.search(made.output)
    assert token[1] not in command("services", "list").output


def test_services_list_shows_them_all_without_tokens(command):
    for name in ("two", "one"):
        assert command("services", "create", name).exit_code == 0

    found = json.loads(command("services", "list", "-o", "json").stdout)

    assert [service["name"] for service in found] == ["one", "two"]
    assert all("token" not in service for service in found)
    pretty = command("services", "list").output
    assert "one" in pretty and found[0]["service_id"] in pretty


def test_services_list_cuts_nothing_in_a_pipe(command, database_url, tmp_path):
    names = ["x" * 150, "two words " * 5 + "end", "Grüße", "[b]"]
    for name in names:
        assert command("services", "create", name, "--allow-commands").exit_code == 0
    code, out, err = done("services", "list", folder=tmp_path, DATABASE_URL=database_url)
    assert code == 0, err
    found = json.loads(command("services", "list", "-o", "json").stdout)
    heading, *lines = out.splitlines()
    assert heading.split() == ["ID", "Name", "Commands", "Created"]
    assert len(lines) == len(found) == 4
    for service, line in zip(found, lines, strict=True):
        words = re.split(r"\s{2,}", line.strip())
        wanted = [service["service_id"], service["name"], "allowed", service["created_at"]]
        assert words == wanted


def test_services_list_folds_on_a_narrow_terminal(command, monkeypatch):
    name = "".join(chr(ord("A") + n % 26) for n in range(100))
    command("services", "create", name)
    (service,) = json.loads(command("services", "list", "-o", "json").stdout)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("FORCE_COLOR", "1")  # a terminal, to the library
    monkeypatch.setenv("TERM", "dumb")
    lines = command("services", "list").output.splitlines()
    assert max(map(len, lines)) <= 80
    assert not any("…" in line for line in lines)
    assert "".join(part for line in lines for part in re.findall("[A-Z]{5,}", line)) == name
    assert service["service_id"] in lines[1]
    assert service["created_at"].startswith(lines[1].split()[-1])


def test_a_taken_or_bad_name_fails(command):
    command("services", "create", "one")
    for name in ("one", "", "x" * 300):
        failed = command("services", "create", name, "-o", "json")
        assert failed.exit_code != 0
        assert failed.stdout == ""


def test_services_create_makes_the_schema_where_there_is_none(command, empty_url, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", empty_url)
    made = command("services", "create", "a", "-o", "json")
    assert made.exit_code == 0, made.output
    assert json.loads(made.stdout)["name"] == "a"


def test_services_list_on_an_empty_database_is_empty_or_a_sentence(command, empty_url, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", empty_url)
    found = command("services", "list", "-o", "json")
    if found.exit_code:
        assert isinstance(found.exception, StartupError), found.exception
        assert "migrate up" in str(found.exception)
    else:
        assert json.loads(found.stdout) == []


def told(run: Result) -> Any:
    """The one JSON value that a command printed."""
    assert run.exit_code == 0, run.output
    assert run.stderr == ""
    return json.loads(run.stdout)


def test_a_service_is_changed_and_shown_by_its_name_or_id(command):
    made = told(command("services", "create", "a", "--max-tasks", "5", "-o", "json"))
    assert made["signing_secret"].startswith("whsec_") and made["max_tasks"] == 5
    flags = ["--name", "b", "--allow-commands", "--max-tasks", "default", "--max-in-flight", "3"]
    changed = told(command("services", "update", made["service_id"], *flags, "-o", "json"))
    assert (changed["name"], changed["allow_commands"]) == ("b", True)
    assert (changed["max_tasks"], changed["max_in_flight"]) == (None, 3)
    changed = told(command("services", "update", "b", "--no-allow-commands", "-o", "json"))
    assert (changed["allow_commands"], changed["max_in_flight"]) == (False, 3)

    shown = told(command("services", "show", "b", "-o", "json"))
    assert shown["service_id"] == made["service_id"]
    assert [token["id"] for token in shown["tokens"]] == [made["token_id"]]
    assert "signing_secret" not in shown and "token" not in shown
    pretty = command("services", "show", "b").output
    for word in (made["service_id"], "b", "max_in_flight", "3, used 0", "no limit", "live"):
        assert word in pretty
    for secret in (made["token"], made["signing_secret"]):
        assert secret not in pretty


def test_the_signing_secret_is_shown_and_rotated_when_asked_for(command):
    made = told(command("services", "create", "a", "-o", "json"))
    shown = told(command("services", "show", "a", "--signing", "-o", "json"))
    assert shown["signing_secret"] == made["signing_secret"]
    assert made["signing_secret"] in command("services", "show", "a", "--signing").output

    rotated = told(command("services", "rotate", "a", "--signing", "-o", "json"))
    assert rotated["signing_secret"] != made["signing_secret"] and "token" not in rotated
    assert rotated["signing_secret"] in command("services", "show", "a", "--signing").output


def test_tokens_are_rotated_and_revoked(command):
    first = told(command("services", "create", "a", "-o", "json"))
    second = told(command("services", "rotate", "a", "-o", "json"))
    assert second["token"] != first["token"]
    assert len(second["tokens"]) == 2
    printed = command("services", "rotate", "a").output
    assert re.search(r"^token +[\w-]{43}$", printed, re.MULTILINE) and "not shown again" in printed

    flags = ["--token-id", second["token_id"], "-o", "json"]
    left = told(command("services", "revoke", "a", *flags))["tokens"]
    assert [token["revoked_at"] is None for token in left] == [True, False, False]
    assert command("services", "revoke", "a", "--token-id", "x").exit_code != 0
    assert command("services", "revoke", "a", "--token-id", first["service_id"]).exit_code != 0


def test_a_service_is_deleted_once_someone_said_yes(command, monkeypatch):
    monkeypatch.setenv("AUTH_CACHE_SECONDS", "0.001")  # it waits so long for the others
    made = told(command("services", "create", "a", "-o", "json"))
    refused = command("services", "delete", "a", input="n\n")
    assert refused.exit_code != 0
    assert len(told(command("services", "list", "-o", "json"))) == 1

    deleted = command("services", "delete", "a", input="y\n")
    assert deleted.exit_code == 0 and made["service_id"] in deleted.stdout
    assert told(command("services", "list", "-o", "json")) == []
    command("services", "create", "b")
    assert command("services", "delete", "b", "--yes").exit_code == 0


def test_a_service_that_is_not_there_fails_with_a_sentence(mistake):
    for words in ("show", "update", "rotate", "revoke", "delete --yes"):
        verb, *flags = words.split()
        assert "nobody" in mistake("services", verb, "nobody", *flags)


@pytest.mark.parametrize("amount", ["-1", "many", "1.5", "", str(2**31)])
def test_a_quota_that_is_no_number_is_refused(command, amount):
    failed = command("services", "create", "a", f"--max-tasks={amount}")
    assert failed.exit_code == 2 and "--max-tasks" in failed.output


# migrate -----------------------------------------------------------------------------------------


def test_migrate_goes_down_and_up_and_says_where_it_stands(command):
    status = command("migrate", "status")
    assert status.exit_code == 0 and "current" in status.output

    assert command("migrate", "down", "base").exit_code == 0
    status = command("migrate", "status")
    assert status.exit_code == 1 and "empty" in status.output

    assert command("migrate", "up").exit_code == 0
    assert command("migrate", "status").exit_code == 0


def test_migrate_down_to_nothing_asks_where_there_is_something(command):
    command("services", "create", "kept")
    asked = command("migrate", "down", "base", input="")
    assert asked.exit_code == 2
    assert "--yes" in asked.stderr
    assert command("migrate", "down", "base", input="n\n").exit_code == 1
    assert "kept" in command("services", "list").output
    assert command("migrate", "down", "base", "--yes").exit_code == 0
    assert "empty" in command("migrate", "status").output


async def test_migrate_down_leaves_a_running_replica_its_tables(conn, command):
    await conn.execute(
        "INSERT INTO replica (id, beat, beat_at, role, host, pid, version, started_at) "
        "VALUES (gen_random_uuid(), 1, clock_timestamp(), 'serve', 'there', 1, '0', now())"
    )
    for words in (("0004",), ("base", "--yes")):
        refused = await asyncio.to_thread(command, "migrate", "down", *words)
        assert isinstance(refused.exception, StartupError)
        assert "1 replica runs on this database; stop" in str(refused.exception)
    assert (await asyncio.to_thread(command, "migrate", "status")).exit_code == 0


async def test_migrate_down_says_what_goes_and_the_ledger_stays(conn, command, run_app, receiver):
    async with run_app() as app:
        await filled(app, receiver, conn, "alice")
    await conn.execute("INSERT INTO admin_session VALUES ('a', 'b', now(), now(), now())")
    await conn.execute("UPDATE service SET max_kept_bytes = 1099511627776 WHERE name = 'alice'")
    before = await ledger(conn)
    assert all(before.values())
    audited = await conn.fetchval("SELECT count(*) FROM audit")

    asked = await asyncio.to_thread(command, "migrate", "down", "0007", input="n\n")
    assert asked.exit_code == 1
    assert f"undo (4), audit ({audited})" in asked.stderr and "admin_session (1)" in asked.stderr
    assert "service.max_kept_bytes (1)" in asked.stderr
    assert "tally" not in asked.stderr and "kept_mark" not in asked.stderr  # counted again
    assert await conn.fetchval("SELECT count(*) FROM undo") == 4

    done = await asyncio.to_thread(command, "migrate", "down", "0007", "--yes")
    assert done.exit_code == 0 and "undo (4)" in done.stderr and "0007" in done.output
    assert await ledger(conn) == before
    assert (await asyncio.to_thread(command, "migrate", "up")).exit_code == 0
    assert await ledger(conn) == before
    again = await asyncio.to_thread(command, "migrate", "down", "0007")
    assert again.exit_code == 0 and "drops" not in again.stderr


LATER = ["kept_bytes", "max_kept_bytes"]
"""Columns that came after 0007."""


async def ledger(conn: Any) -> dict[str, list[str]]:
    """Every row of what tasks and runs are kept in."""
    tables = (
        "service",
        "token",
        "task",
        "task_plan",
        "task_state",
        "task_version",
        "run",
        "history",
    )
    return {
        table: [
            row[0]
            for row in await conn.fetch(
                f"SELECT (to_jsonb(t) - $1::text[])::text FROM {table} t ORDER BY 1", LATER
            )
        ]
        for table in tables
    }


# Mistakes ----------------------------------------------------------------------------------------


def sentence(err: str) -> str:
    """The one line that an operator is told."""
    assert "Traceback" not in err, err
    lines = [line for line in err.splitlines() if line.strip()]
    assert len(lines) == 1, err
    return lines[0]


@pytest.fixture
def mistake(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> Iterator[Callable[..., str]]:
    """Run a command that must fail, and return the sentence it says."""
    signals = {sign: signal.getsignal(sign) for sign in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.chdir(tmp_path)

    def run(*words: str, **environ: str) -> str:
        monkeypatch.setattr(sys, "argv", ["scheduler", *words])
        more = {"DATABASE_URL": database_url, "SERVER_PORT": "0", **environ}
        for name, value in more.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit) as stopped:
            main()
        assert stopped.value.code not in (0, None)
        out, err = capsys.readouterr()
        assert out == ""
        return sentence(err)

    yield run
    for sign, handler in signals.items():
        signal.signal(sign, handler)


@pytest.mark.parametrize(
    ("words", "more", "what"),
    [
        ("serve", {"WORKER_COUNT": "many"}, "worker.count"),
        ("--config nowhere.yaml serve", {}, "nowhere.yaml"),
        ("serve --worker-count 0", {}, "worker.count"),
        ("serve", {"SERVER_HOST": "203.0.113.1"}, "SERVER_HOST"),
        ("serve", {"SERVER_HOST": "no such host"}, "SERVER_HOST"),
        ("serve", {"SERVER_HOST": ""}, "server.host (SERVER_HOST): expected an address"),
        ("serve", {"ADMIN_TOKEN": " "}, "admin.token (ADMIN_TOKEN)"),
        ("serve", {"GLOGS_LOG_TYPE": "xml"}, "(GLOGS_LOG_TYPE)"),
        ("serve", {"DATABASE_LISTEN_URL": "nonsense"}, "DATABASE_LISTEN_URL"),
        ("migrate up", {"DATABASE_LISTEN_URL": "postgresql://h:x/y"}, "DATABASE_LISTEN_URL"),
        ("serve", {"DATABASE_URL": "nonsense"}, "DATABASE_URL"),
        ("serve", {"DATABASE_URL": "mysql://x/y"}, "DATABASE_URL"),
        ("serve", {"AUTH_ANONYMOUS_FROM": "x"}, "auth.anonymous_from"),
        ("migrate down nonsense", {}, "nonsense"),
    ],
    ids=str,
)
def test_a_mistake_is_one_sentence(mistake, words, more, what):
    assert what in mistake(*words.split(), **more)


ON_THE_DATABASE = [
    "services list",
    "services create x",
    "migrate status",
    "migrate up",
    "migrate down base",
    "logs",
    "pause",
    "resume",
    "secrets status",
    "secrets reset -y",
    "bench -n 1",
]


@pytest.mark.parametrize("words", ON_THE_DATABASE)
def test_a_database_that_is_away_is_one_sentence_of_every_command(mistake, words):
    said = mistake(*words.split(), DATABASE_URL="postgresql://u:hidden@127.0.0.1:1/x")
    assert "127.0.0.1:1 cannot be reached" in said
    assert "doctor" in said
    assert "hidden" not in said


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("", "refuses us"),
        ("postgresql://no.such.host.invalid/x", "cannot be reached"),
        ("postgresql://h:x/y", "DATABASE_URL cannot be read"),
    ],
)
def test_a_database_that_cannot_be_used_is_one_sentence(mistake, postgres, url, what):
    other = url or postgres.url.replace("/scheduler?", "/no_such_database?")
    assert what in mistake("services", "list", DATABASE_URL=other)


async def test_a_role_without_rights_is_one_sentence(conn, database_url, tmp_path):
    role = f"weak_{uuid4().hex}"
    await conn.execute(f"CREATE ROLE {role} LOGIN")
    try:
        weak = database_url.replace("//postgres@", f"//{role}@")
        assert weak != database_url
        code, out, err = await asyncio.to_thread(
            done, "services", "list", folder=tmp_path, DATABASE_URL=weak
        )
    finally:
        await conn.execute(f"DROP ROLE {role}")
    assert (code, out) == (1, "")
    assert "permission denied" in sentence(err)


def test_a_mistyped_data_directory_gets_no_database(mistake, tmp_path):
    for words in ("services list", "logs", "migrate status", "migrate down base", "resume"):
        said = mistake(*words.split(), DATABASE_URL="", DATA_DIR=str(tmp_path / "mistyped"))
        assert "no database" in said
        assert "DATA_DIR" in said
    assert not (tmp_path / "mistyped").exists()


@pytest.mark.parametrize(
    "more",
    [{"SECRET_KEY": "short"}, {"EGRESS_DENY": "10/8"}, {"AUTH_BOOTSTRAP_SERVICE": "a:b"}],
    ids=str,
)
@pytest.mark.parametrize("words", ["serve", "worker", "services create x"])
def test_a_setting_that_cannot_be_is_refused_before_anything_is_made(
    mistake, tmp_path, words, more
):
    said = mistake(*words.split(), DATABASE_URL="", DATA_DIR=str(tmp_path / "data"), **more)
    assert all(each in said or each.replace("_", ".", 1).lower() in said for each in more)
    assert not (tmp_path / "data").exists()


async def test_nothing_but_the_object_is_printed_where_something_is_logged(
    conn, database_url, tmp_path
):
    await conn.execute("UPDATE alembic_version SET version_num = '9999'")
    words = ("services", "create", "x", "-o", "json")
    code, out, err = await asyncio.to_thread(
        done, *words, folder=tmp_path, DATABASE_URL=database_url
    )
    assert code == 0, err
    assert json.loads(out)["name"] == "x"
    assert "newer version" in err


@pytest.mark.parametrize("words", ["--help", "services list", "secrets key"])
def test_an_output_that_cannot_be_written_is_one_sentence(database_url, tmp_path, words):
    code, err = redirected(words, ">/dev/full", tmp_path, DATABASE_URL=database_url)
    assert code == 1
    assert sentence(err) == "scheduler: the output: No space left on device"


@pytest.mark.parametrize("closed", [">&-", ">&- 2>&- <&-"])
def test_a_stream_that_the_caller_closed_breaks_nothing(database_url, tmp_path, closed):
    expected = {"services list": 0, "tasks create --file - --token x --service-id y": 2}
    for words, wanted in expected.items():
        code, err = redirected(words, closed, tmp_path, DATABASE_URL=database_url)
        assert "Traceback" not in err
        assert code == wanted


def test_a_backup_to_nowhere_is_refused(tmp_path):
    code, err = redirected("backup -", ">&-", tmp_path, DATA_DIR=os.fspath(tmp_path / "data"))
    assert code == 2
    assert "standard output is closed" in err


def redirected(words: str, how: str, folder: Path, **more: str) -> tuple[int, str]:
    """Exit code and errors of a command with its streams as a shell makes them."""
    line = f"{sys.executable} -m scheduler {words} {how}"
    ran = subprocess.run(
        ["sh", "-c", line],
        check=False,
        cwd=folder,
        env=environ(**more),
        capture_output=True,
        text=True,
        timeout=60,
    )
    return ran.returncode, ran.stderr


def test_where_nobody_can_answer_a_question_the_flag_is_named(command):
    command("services", "create", "kept")
    for words in (("services", "delete", "kept"), ("secrets", "reset"), ("secrets", "unseal")):
        asked = command(*words, input="")
        assert asked.exit_code == 2
        assert "nothing was done; --yes" in asked.stderr
        refused = command(*words, input="n\n")
        assert refused.exit_code == 1
        assert "nothing was done" in refused.stderr
    assert "kept" in command("services", "list").output


def test_a_reason_moves_no_terminal(command):
    for words in (("pause", "-r", "mo\x1b[31mving"), ("pause",), ("resume",)):
        assert "mo\\x1b[31mving" in command(*words).output


def test_a_data_directory_that_cannot_be_used_says_what_to_do(mistake, tmp_path):
    (tmp_path / "taken").write_text("")
    said = mistake("serve", DATABASE_URL="", DATA_DIR=str(tmp_path / "taken"))
    assert "DATA_DIR" in said
    with (
        pytest.raises(StartupError, match="run this as the user that owns it"),
        one_sentence(tmp_path),
    ):
        raise PermissionError(13, "Permission denied", str(tmp_path))


@pytest.mark.parametrize("words", ["backup /backups/", "restore /backups/", "logs --since"])
def test_an_example_stands_on_a_line_of_its_own(command, words):
    shown = command(words.split()[0], "--help").output
    assert "\\b" not in shown
    assert any(f"scheduler {words}" in line and "Use" not in line for line in shown.splitlines())
    assert shown.count("\n  scheduler ") + shown.count("\n  DATA_DIR=") >= 1


def test_a_start_that_fails_later_is_one_sentence_too(database_url, tmp_path):
    more = {"DATABASE_URL": database_url, "EGRESS_ALLOW": "10.0.0.0/99"}
    code, _, err = done("serve", folder=tmp_path, **more)
    assert code != 0
    assert "egress.allow" in sentence(err)


def test_a_taken_port_is_one_sentence(mistake, receiver):
    said = mistake("serve", SERVER_PORT=str(receiver.port))
    assert str(receiver.port) in said and "SERVER_PORT" in said


def test_a_database_that_does_not_exist_is_one_sentence(mistake, postgres):
    url = postgres.url.replace("/scheduler?", "/nowhere?")
    assert "nowhere" in mistake("serve", DATABASE_URL=url)


def test_help_and_version(command):
    for words in ((), ("--help",), ("serve", "--help"), ("services", "-h"), ("migrate", "-h")):
        assert "Usage" in command(*words).output
    assert re.search(r"\d+\.\d+", command("--version").output)
    assert command("nonsense").exit_code != 0


# serve -------------------------------------------------------------------------------------------


def test_serve_tells_the_credentials_once(database_url, tmp_path):
    file = tmp_path / "deep" / "er" / "c.json"
    more = {"DATABASE_URL": database_url, "DATA_DIR": str(tmp_path / "data")}

    with served(tmp_path, "--credentials-file", str(file), **more) as (url, said):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        kept = json.loads(file.read_bytes())
        assert set(kept) == {"url", "service_id", "token"}
        assert kept["url"] == url
        for told in (kept["service_id"], kept["token"], f"{url}/dashboard", f"{url}/docs", "curl"):
            assert told in said
        assert said.count(kept["token"]) == 2  # by itself, and in the curl
        created = pasted(said)
        assert created.status_code == 201
        headers = {"service_id": kept["service_id"], "token": kept["token"]}
        listed = httpx.get(f"{url}/tasks", headers=headers, trust_env=False)
        assert [task["id"] for task in listed.json()] == [created.json()["id"]]

    before = file.read_bytes(), file.stat().st_mtime_ns
    with served(tmp_path, "--credentials-file", str(file), **more) as (url, said):
        assert kept["token"] not in said
    assert (file.read_bytes(), file.stat().st_mtime_ns) == before

    file.unlink()
    with served(tmp_path, "--credentials-file", str(file), **more) as (url, said):
        assert not file.exists()
        assert "missing" in said and "scheduler services" in said


def pasted(said: str) -> httpx.Response:
    """Do what the printed curl does."""
    words = said[said.index("curl") :].replace("\\\n", " ")
    url = re.search(r"-X POST (\S+)", words)
    body = re.search(r"-d '([^']*)'", words)
    assert url is not None and body is not None
    headers = dict(h.split(": ", 1) for h in re.findall(r"-H '([^']*)'", words))
    return httpx.post(url[1], headers=headers, content=body[1], trust_env=False)


def test_serve_obeys_flags_file_and_environment(database_url, tmp_path):
    (tmp_path / "config.yaml").write_text("worker: {count: 5}\nauth: {bootstrap_service: named}\n")
    words = [
        "--worker-max-retries",
        "1",
        "--log-level",
        "debug",
        "--prequeuer-ticker-seconds",
        "0.5",
    ]
    words += ["--worker-count", "7", "--prequeuer-timeframe-minutes", "3", "--port", "0"]
    more = {
        "DATABASE_URL": database_url,
        "DATA_DIR": str(tmp_path),
        "AUTH_BOOTSTRAP_TOKEN": "preset",
    }

    with served(tmp_path, *words, **more) as (url, said):
        assert "preset" in said
        headers = {"service_id": "named", "token": "preset"}
        assert httpx.get(f"{url}/tasks", headers=headers, trust_env=False).status_code == 200
        assert json.loads((tmp_path / "credentials.json").read_bytes())["token"] == "preset"


@pytest.mark.slow
def test_the_embedded_database_is_joined_or_started_for_the_time_of_a_command(tmp_path, quick_path):
    home = {"DATA_DIR": str(quick_path / "a folder")}

    code, out, err = done("services", "create", "before", "-o", "json", folder=tmp_path, **home)
    assert code == 0, err
    before = json.loads(out)
    with served(tmp_path, **home) as (url, said):
        assert "services create" in said  # there is a service, and no credentials file
        code, out, err = done("services", "create", "beside", "-o", "json", folder=tmp_path, **home)
        assert code == 0, err
        for made in (before, json.loads(out)):
            headers = {"service_id": made["name"], "token": made["token"]}
            assert httpx.get(f"{url}/tasks", headers=headers, trust_env=False).status_code == 200


def test_serve_paused_runs_nothing_and_says_so(database_url, tmp_path):
    more = {"DATABASE_URL": database_url, "DATA_DIR": str(tmp_path)}
    process = program("serve", "--paused", folder=tmp_path, **more)
    try:
        assert process.stdout is not None
        said = ""
        while "PAUSED" not in said:
            line = process.stdout.readline()
            assert line, said
            said += line
        assert "started with --paused" in said and "scheduler resume" in said
    finally:
        process.terminate()
        process.communicate(timeout=30)


SUPERVISOR = """
import sys
from pathlib import Path
from scheduler.cli import reload
reload.LOOK_S = 0.05
child = "import time; print('up', flush=True); time.sleep(60)"
sys.exit(reload.Supervisor([sys.executable, "-c", child], Path(sys.argv[1])).run())
"""


def test_reload_starts_anew_when_a_file_changes_and_passes_a_signal_on(tmp_path):
    (tmp_path / "a.py").write_text("1")
    process = subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        (tmp_path / "notes.txt").write_text("not of the program")
        (tmp_path / "b.py").write_text("2")
        assert "b.py changed" in process.stdout.readline()
        assert process.stdout.readline() == "up\n"
        process.send_signal(signal.SIGTERM)
        process.wait(20)
    finally:
        process.kill()
        process.communicate()
