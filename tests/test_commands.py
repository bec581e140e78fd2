"""Commands: what is run and how, what its end means, and who may."""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from conftest import App, RunApp, eventually
from scheduler import config
from scheduler.actions import command_rights
from scheduler.actions.command import Command
from scheduler.errors import StartupError

ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not ROOT, reason="only root can run commands as somebody else")


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder whose way is open to all; that to pytest's own is not."""
    with tempfile.TemporaryDirectory(prefix="commands-") as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)


@pytest.fixture
def open_folder(place: Path) -> Path:
    """A folder in which commands may leave word."""
    folder = place / "open"
    folder.mkdir()
    folder.chmod(0o777)
    return folder


@pytest.fixture
async def commands(run_app: RunApp, place: Path) -> Callable[..., Any]:
    """Start the program with commands switched on, and settings of the test's own."""

    @asynccontextmanager
    async def start(**environ: str) -> AsyncIterator[tuple[App, httpx.AsyncClient]]:
        settings = {**switched_on(place), **environ}
        async with run_app(**settings) as app, app.client("alice") as alice:
            yield app, alice

    return start


def switched_on(place: Path) -> dict[str, str]:
    return {
        "COMMANDS_ENABLED": "true",
        "COMMANDS_SAME_USER": "false" if ROOT else "true",
        "COMMANDS_DIRECTORY": str(place / "runs"),
        "COMMANDS_KILL_SECONDS": "0.5",
    }


async def create(client: httpx.AsyncClient, command: str, **fields: Any) -> str:
    answer = await client.post("/tasks", json={"name": "it", "command": command, **fields})
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


async def run(client: httpx.AsyncClient, command: str, **fields: Any) -> dict[str, Any]:
    """Run a command by hand, and return the run as it ended."""
    task = await create(client, command, **fields)
    answer = await client.post(f"/tasks/{task}/execute")
    assert answer.status_code == 200, answer.text
    return (await client.get(f"/runs/{answer.json()['run_id']}")).json()


async def begun(client: httpx.AsyncClient, command: str, **fields: Any) -> str:
    """Start a command by hand, and return its run's id."""
    task = await create(client, command, **fields)
    answer = await client.post(f"/tasks/{task}/execute?async=true")
    assert answer.status_code == 202, answer.text
    return answer.json()["id"]


async def ended(client: httpx.AsyncClient, run_id: str, within: float = 10) -> dict[str, Any]:
    async def check() -> dict[str, Any]:
        now = (await client.get(f"/runs/{run_id}")).json()
        assert now["state"] not in ("scheduled", "running", "retrying"), now
        return now

    return await eventually(check, within)


async def test_it_works(commands):
    async with commands() as (_, alice):
        found = await run(alice, "echo one; echo two >&2; echo three")

    assert found["state"] == "succeeded"
    assert found["response"] == "one\ntwo\nthree\n"
    assert found["attempts"][0]["status_code"] == 0


async def test_the_exit_code_decides_and_nothing_is_tried_again(commands):
    async with commands() as (_, alice):
        found = await run(alice, "echo no; exit 3")

    assert found["state"] == "failed"
    assert found["reason"] == "the command ended with exit code 3, expected 0"
    assert found["response"] == "no\n"
    assert [a["status_code"] for a in found["attempts"]] == [3]


async def test_a_task_names_the_exit_codes_that_are_a_success(commands, conn):
    async with commands() as (_, alice):
        task = await create(alice, "exit 3")
        await conn.execute("""UPDATE task SET policy = '{"expected_status": [[2, 4]]}'""")
        answer = await alice.post(f"/tasks/{task}/execute")

    assert answer.json()["status"] == "success"
    assert answer.json()["status_code"] == 3


async def test_it_is_tried_again_where_the_task_says_so(commands):
    backoff = {"initial_seconds": 0, "max_seconds": 0}
    async with commands() as (_, alice):
        task = await create(
            alice, "echo $SCHEDULER_ATTEMPT; exit 1", max_retries=2, retry_backoff=backoff
        )
        answer = await alice.post(f"/tasks/{task}/execute?async=true&retry=true")
        found = await ended(alice, answer.json()["id"])

    assert [a["response"] for a in found["attempts"]] == ["1\n", "2\n", None]
    assert found["response"] == "3\n"
    assert found["state"] == "failed"


async def test_a_command_killed_by_a_signal_counts_128_more(commands):
    async with commands() as (_, alice):
        found = await run(alice, "kill -SEGV $$")

    assert found["attempts"][0]["status_code"] == 128 + 11
    assert found["reason"] == "the command ended with exit code 139 (SIGSEGV), expected 0"


async def test_a_command_may_begin_with_a_dash(commands):
    async with commands() as (_, alice):
        found = await run(alice, "-x; echo ran")

    assert found["response"].endswith("ran\n")


async def test_it_finds_a_clean_environment_and_the_tasks_own(commands, monkeypatch):
    monkeypatch.setenv("PLANTED", "a secret of the server's")
    async with commands() as (_, alice):
        found = await run(alice, "env", env={"WORD": 'it\'s "här"', "LANG": "C"})
        line = dict(line.split("=", 1) for line in found["response"].splitlines())
        task = found["task_id"]

    home = line.pop("HOME")
    assert line == {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "TMPDIR": home,
        "PWD": home,
        "LANG": "C",
        "SCHEDULER_RUN_ID": found["id"],
        "SCHEDULER_TASK_ID": task,
        "SCHEDULER_ATTEMPT": "1",
        "SCHEDULER_SCHEDULED_FOR": found["scheduled_for"],
        "WORD": 'it\'s "här"',
    }


async def test_it_works_in_a_directory_of_its_own_that_goes_with_it(commands, place):
    deep = 'for i in 1 2 3; do mkdir -p a/b && cd a && echo x > f; done; cd "$HOME"'
    async with commands() as (_, alice):
        found = await run(alice, f"{deep}; pwd; ls -ld . | cut -c1-10; chmod 000 a/a a")
        where, mode = found["response"].splitlines()

        assert found["state"] == "succeeded"
        assert Path(where).parent == place / "runs"
        assert mode == "drwx------"
        await eventually(lambda: gone(place / "runs"))


def gone(runs: Path) -> None:
    """No directory of a run, and nothing that is being removed."""
    assert [path.name for path in runs.iterdir() if path.suffix != ".lock"] == []


async def test_it_has_nothing_open_but_its_streams(commands):
    async with commands() as (_, alice):
        found = await run(alice, "cd /proc/self/fd; for n in *; do echo $n; done; cat")

    # 3 is the directory that the shell reads.
    assert found["response"].split() in (["0", "1", "2"], ["0", "1", "2", "3"])


async def test_more_than_so_much_output_ends_it_and_the_beginning_is_kept(commands):
    async with commands(COMMANDS_OUTPUT_BYTES="5000") as (_, alice):
        found = await run(alice, "yes")

    assert found["state"] == "failed"
    assert found["reason"] == "it wrote more than 5000 bytes (commands.output_bytes)"
    assert found["response"] == "y\n" * 2500
    assert found["truncated"] is True


async def test_it_ends_at_its_timeout(commands):
    async with commands() as (_, alice):
        found = await run(alice, "echo begun; sleep 100 & sleep 100", timeout_seconds=0.5)

    assert found["state"] == "failed"
    assert found["reason"] == "it did not end within 0.5 s"
    assert found["response"] == "begun\n"


async def test_a_service_that_may_not_runs_none(commands, conn: asyncpg.Connection):
    async with commands() as (_, alice):
        task = await create(alice, "echo ran")
        await conn.execute("UPDATE service SET allow_commands = false")
        answer = await alice.post(f"/tasks/{task}/execute?async=true")
        if answer.status_code == 202:
            found = await ended(alice, answer.json()["id"])

            assert found["state"] == "failed"
            assert len(found["attempts"]) == 1
            assert "`scheduler services update alice --allow-commands`" in found["reason"]


async def test_the_first_service_may_where_commands_are_on_and_others_not(commands, conn):
    async with commands():
        rows = await conn.fetch("SELECT name, allow_commands FROM service")

    assert dict(rows) == {"alice": True, "bob": False}


async def test_a_replica_where_they_are_off_says_so(commands, replica, conn):
    async with commands() as (app, alice):
        task = await create(alice, "true", expected_status=None)
        app.engine.dispatcher.halt("test", "another one is to perform it")
        await replica()
        answer = await alice.post(f"/tasks/{task}/schedule", json={"at": "2020-01-01T00:00:00Z"})
        found = await ended(alice, answer.json()["run_id"])

    assert found["state"] == "failed"
    assert "commands.enabled (COMMANDS_ENABLED=true)" in found["reason"]
    assert len(found["attempts"]) == 1


def test_a_command_is_a_success_where_it_ends_with_zero():
    assert 0 in Command("true").success
    assert 1 not in Command("true").success


async def test_one_that_waits_for_its_turn_has_its_whole_time(commands):
    async with commands(COMMANDS_CONCURRENCY="1") as (_, alice):
        runs = [await begun(alice, "sleep 0.4; echo done", timeout_seconds=1) for _ in range(4)]
        found = await asyncio.gather(*[ended(alice, each) for each in runs])

    assert [each["state"] for each in found] == ["succeeded"] * 4
    assert [len(each["attempts"]) for each in found] == [1] * 4


async def test_no_service_takes_all_turns(commands, conn):
    async with commands(COMMANDS_CONCURRENCY="2") as (app, alice), app.client("bob") as bob:
        await conn.execute("UPDATE service SET allow_commands = true WHERE name = 'bob'")
        long = [await begun(alice, "sleep 100", overlap="allow") for _ in range(2)]
        found = await run(bob, "echo mine")
        for each in long:
            await alice.post(f"/runs/{each}/cancel")

    assert found["response"] == "mine\n"


async def test_cancel_ends_it_and_what_it_said_is_kept(commands, open_folder):
    said = f"exec 2>/dev/null; trap 'echo bye; exit 0' TERM; echo hi; touch {open_folder}/begun"
    async with commands() as (_, alice):
        one = await begun(alice, f"{said}; while :; do sleep 0.1; done")
        await eventually(lambda: there(open_folder / "begun"))
        answer = await alice.post(f"/runs/{one}/cancel")
        found = await ended(alice, one)

    assert answer.status_code == 202
    assert found["state"] == "cancelled"
    assert found["reason"] == "someone cancelled it; the command was ended"
    assert found["response"] == "hi\nbye\n"


async def test_cancel_of_one_that_waits_for_its_turn_says_that_nothing_was_started(
    commands, open_folder
):
    async with commands(COMMANDS_CONCURRENCY="1") as (_, alice):
        first = await begun(alice, f"touch {open_folder}/begun; sleep 100")
        await eventually(lambda: there(open_folder / "begun"))
        second = await begun(alice, f"touch {open_folder}/second")
        await eventually(lambda: at_work(alice, second))
        await alice.post(f"/runs/{second}/cancel")
        found = await ended(alice, second)
        await alice.post(f"/runs/{first}/cancel")

    assert found["state"] == "cancelled"
    assert found["reason"] == "someone cancelled it"
    assert not (open_folder / "second").exists()


def there(path: Path) -> None:
    assert path.exists()


async def at_work(client: httpx.AsyncClient, run_id: str) -> None:
    assert (await client.get(f"/runs/{run_id}")).json()["state"] == "running"


# Settings ----------------------------------------------------------------------------------------


def judge(postgres: int | None = None, **settings: Any) -> Any:
    return command_rights.judged(config.Commands(enabled=True, **settings), postgres)


def test_what_is_wrong_is_ignored_where_commands_are_off():
    settings = config.Commands(user="root")

    assert "commands.enabled" in command_rights.judged(settings, None)


@needs_root
@pytest.mark.parametrize("user", ["root", "0", "no-such-user"])
def test_a_wrong_user_refuses_to_start(user):
    with pytest.raises(StartupError, match=r"commands\.user"):
        judge(user=user)


@needs_root
def test_the_user_of_the_embedded_postgres_refuses_to_start():
    with pytest.raises(StartupError, match="embedded Postgres"):
        judge(postgres=65534, user="nobody")
    with pytest.raises(StartupError, match="embedded Postgres"):
        judge(postgres=61000)


async def test_a_directory_that_is_not_the_servers_refuses_to_start(run_app, place, open_folder):
    settings = {**switched_on(place), "COMMANDS_DIRECTORY": str(open_folder)}
    with pytest.raises(StartupError, match=r"commands\.directory .* nobody else may write to"):
        async with run_app(**settings):
            pass


@needs_root
async def test_a_directory_that_commands_may_not_enter_refuses_to_start(run_app, place):
    (place / "closed").mkdir(0o700)
    settings = {**switched_on(place), "COMMANDS_DIRECTORY": str(place / "closed" / "runs")}
    with pytest.raises(StartupError, match=r"may not enter .*closed"):
        async with run_app(**settings):
            pass


@pytest.mark.skipif(ROOT, reason="root has no need of it")
def test_a_server_that_is_not_root_needs_to_be_told():
    assert "commands.same_user" in str(judge())
