"""The README of the older command line: each of its lines through a real shell, each of its routes.

The program runs as a process of its own, and runs real commands.
"""

import os
import re
import shlex
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from conftest import url_of
from harness import Scheduler, until
from scheduler.embedded import EmbeddedPostgres

BIN = Path(sys.executable).parent
PROGRAMS = ["scheduler tasks", "taskctl"]
ZERO = "0001-01-01T00:00:00Z"


@pytest.fixture(scope="module")
def open_folder() -> Iterator[Path]:
    """A folder that everybody can reach; pytest's own are closed to all but its user."""
    with tempfile.TemporaryDirectory(prefix="commands") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture(scope="module")
async def started(
    postgres: EmbeddedPostgres,
    maintenance: asyncpg.Connection,
    template: str,
    tmp_path_factory: pytest.TempPathFactory,
    open_folder: Path,
) -> AsyncIterator[Scheduler]:
    """The program, as that README's users would move to it."""
    await maintenance.execute(f"CREATE DATABASE readme TEMPLATE {template} STRATEGY file_copy")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        "SERVER_PORT": str(port),
        "AUTH_ANONYMOUS_SERVICE": "default",
        "COMMANDS_ENABLED": "true",
        "COMMANDS_SAME_USER": str(os.geteuid() != 0).lower(),
        "COMMANDS_DIRECTORY": str(open_folder / "runs"),
        "REDIS_ADDRESS": "localhost:6379",
        "REDIS_MQ_URL": "amqp://user:password@localhost:5672/",
    }
    home = tmp_path_factory.mktemp("home")
    served = Scheduler(home, database=url_of(postgres, "readme"), **settings)
    try:
        assert served.ready().url.endswith(f":{port}")
        yield served
    finally:
        served.close()
        await maintenance.execute("DROP DATABASE readme WITH (FORCE)")


@pytest.fixture
def served(started: Scheduler) -> Scheduler:
    """The same without what another test left."""
    for task in started.do("GET", "/tasks"):
        started.do("DELETE", f"/tasks/{task['id']}")
    return started


class Shell:
    """A shell on the machine where the program runs."""

    def __init__(self, home: Path) -> None:
        words = {k: v for k, v in os.environ.items() if not k.startswith("SCHEDULER_")}
        self._environ = {**words, "PATH": f"{BIN}:{os.environ['PATH']}", "DATA_DIR": str(home)}

    def __call__(self, line: str, code: int = 0) -> str:
        done = subprocess.run(
            ["sh", "-c", line], env=self._environ, capture_output=True, text=True, timeout=60,
            check=False,
        )  # fmt: skip
        assert done.returncode == code, (line, done.stdout, done.stderr)
        return done.stdout + done.stderr


@pytest.fixture
def shell(served: Scheduler) -> Shell:
    return Shell(served.home)


def line_of(card: str, name: str) -> str:
    """What a card says behind a name."""
    found = re.search(rf"^{name} +(.*)$", card, re.MULTILINE)
    assert found, card
    return found[1]


# The command lines -------------------------------------------------------------------------------


@pytest.mark.parametrize("program", PROGRAMS)
def test_each_command_line_does_what_that_readme_says(shell, program):
    made = shell(f'{program} create --id my-task-1 --name "My Task" --command "echo hello"')
    assert "my-task-1 is created" in made and line_of(made, "Status") == "created"
    assert line_of(made, "Command") == "echo hello"
    listed = shell(f"{program} list")
    assert "My Task" in listed and "echo hello" in listed and "created" in listed
    assert line_of(shell(f"{program} get --id my-task-1"), "Name") == "My Task"

    then = shell(f'{program} schedule --id my-task-1 --at "2025-12-01T15:00:00Z"')
    assert "2025-12-01T15:00:00.000Z" in then  # long past: now

    def completed() -> bool:
        return line_of(shell(f"{program} get --id my-task-1"), "Status") == "completed"

    until(completed, 10, "the scheduled run ends")
    done = shell(f"{program} execute --id my-task-1")
    assert (line_of(done, "Status"), line_of(done, "Code")) == ("success", "0")
    assert line_of(done, "Response") == "hello"
    table = shell(f"{program} executions my-task-1").splitlines()
    assert len(table) == 3 and table[0].split()[-1] == "Response"
    assert [row.split()[-1] for row in table[1:]] == ["hello", "hello"]

    renamed = shell(f'{program} update --id my-task-1 --name "Updated Name"')
    assert line_of(renamed, "Name") == "Updated Name"
    assert "my-task-1" in shell(f"{program} delete --id my-task-1")
    assert "my-task-1" in shell(f"{program} get --id my-task-1", code=1)


def test_each_takes_a_bare_id_and_the_short_flags_too(shell, tmp_path):
    shell("taskctl create -i a -n Bare -c 'echo \"$WHO\"; exit 3' -d words --env WHO=me")
    shown = shell("taskctl get a")
    assert line_of(shown, "Env") == "WHO=me" and line_of(shown, "Description") == "words"
    failed = shell("taskctl execute a", code=1)
    assert (line_of(failed, "Status"), line_of(failed, "Code")) == ("failed", "3")
    assert line_of(failed, "Response") == "me"
    assert line_of(shell("taskctl get a"), "Status") == "failed"
    for word in ("-s failed", "--status active"):
        assert "Bare" in shell(f"taskctl list {word}")
    assert "Bare" not in shell("taskctl list --status completed")

    shell("taskctl schedule a --at 2030-01-01T00:00:00Z")
    span = "-f 2029-12-31T00:00:00Z -t 2030-01-02T00:00:00Z"
    assert "Bare" in shell(f"taskctl scheduled {span}")
    assert "Bare" not in shell("taskctl scheduled --from now --to +1h")
    assert "Bare" in shell("taskctl list -s pending -o json")
    shell("taskctl update a -c 'echo two' -t 2031-01-01T00:00:00Z -s paused")
    assert line_of(shell("taskctl get a"), "Command") == "echo two"
    assert "manual" in shell("taskctl execute -i a --async")
    shell("taskctl delete a")

    file = tmp_path / "task.yaml"
    file.write_text('id: b\nname: Of a file\ncommand: |\n  echo one\n  echo "$A"\nenv: {A: two}\n')
    shell(f"taskctl create --file {shlex.quote(str(file))}")
    done = shell("taskctl execute b -o json")
    assert '"response": "one\\ntwo\\n"' in done and '"status_code": 0' in done
    shown = shell(f"taskctl get b -o json > {tmp_path}/b.json; taskctl update -f {tmp_path}/b.json")
    assert line_of(shown, "Env") == "A=two"


def test_a_secret_variable_is_never_printed_and_reaches_the_command(shell):
    shell("taskctl create -i s -n s -c 'echo ${#API_TOKEN}' --env API_TOKEN=hush-hush-hush")
    for line in ("get s", "get s -o json", "update s -n t", "list"):
        assert "hush" not in shell(f"taskctl {line}")
    assert line_of(shell("taskctl get s"), "Env") == "API_TOKEN=********"
    assert line_of(shell("taskctl execute s"), "Response") == "14"


def test_what_stands_in_the_way_is_a_sentence_and_the_exit_code_1(shell, postgres):
    update = (
        f"DATABASE_URL={shlex.quote(url_of(postgres, 'readme'))} scheduler services update default"
    )
    shell(f"{update} --no-allow-commands")

    def refused() -> str:  # within the 2 s for which what was checked is believed
        said = shell("taskctl create -i x -n x -c true && taskctl delete x || true")
        return said if "trace id" in said else ""

    def allowed() -> bool:
        return "is deleted" in shell("taskctl create -i x -n x -c true && taskctl delete x || true")

    try:
        said = until(refused, 10, "the server knows")
    finally:
        shell(f"{update} --allow-commands")
        until(allowed, 10, "the server knows that, too")
    assert "scheduler services update default --allow-commands" in said
    shell("taskctl get x", code=1)


# The routes --------------------------------------------------------------------------------------


@pytest.fixture
def plain(served: Scheduler) -> Iterator[httpx.Client]:
    """A client that knows of no credentials."""
    here = served.url.replace("127.0.0.1", "localhost")
    with httpx.Client(base_url=here, trust_env=False, timeout=20) as client:
        yield client


def test_the_routes_answer_a_client_without_credentials(plain):
    assert plain.get("/health").json() == {"status": "ok"}
    assert "text/html" in plain.get("/swagger/index.html").headers["Content-Type"]
    body = {
        "id": "my-task-1", "name": "My Task", "command": "echo hello", "status": "created",
        "scheduled_at": ZERO, "created_at": ZERO, "updated_at": ZERO,
    }  # fmt: skip
    made = plain.post("/tasks", json=body)
    assert made.status_code == 201 and made.json()["state"] == "created"
    assert [task["id"] for task in plain.get("/tasks").json()] == ["my-task-1"]
    assert [task["id"] for task in plain.get("/tasks?status=created").json()] == ["my-task-1"]
    assert plain.get("/tasks?status=failed").json() == []
    assert plain.get("/tasks/my-task-1").json()["command"] == "echo hello"
    assert plain.put("/tasks/my-task-1", json={"name": "Updated Name"}).status_code == 200
    done = plain.post("/tasks/my-task-1/execute")
    assert done.status_code == 200
    assert (done.json()["response"], done.json()["status_code"]) == ("hello\n", 0)
    then = plain.post("/tasks/my-task-1/schedule", json={"scheduled_at": "2025-12-01T15:00:00Z"})
    assert then.status_code == 200 and then.json()["scheduled_at"] == "2025-12-01T15:00:00.000Z"
    run = f"/runs/{then.json()['run_id']}"
    until(lambda: plain.get(run).json()["state"] == "succeeded", 10, "it ran now")
    assert plain.get(run).json()["request"] == {"command": "echo hello", "env": {}}
    assert plain.delete("/tasks/my-task-1").status_code == 204
    assert plain.get("/tasks/my-task-1").status_code == 404


@pytest.mark.parametrize(("code", "end"), [("0", "completed"), ("7", "failed")])
def test_a_task_goes_from_created_by_pending_and_running_to_its_end(plain, open_folder, code, end):
    gate = open_folder / f"gate-{code}"
    os.mkfifo(gate)
    gate.chmod(0o666)

    def states() -> tuple[Any, ...]:
        listed = [task["id"] for task in plain.get(f"/tasks?status={state()}").json()]
        return state(), listed

    def state() -> Any:
        return plain.get("/tasks/t").json()["state"]

    command = f"read code < {gate}; exit $code"
    plain.post("/tasks", json={"id": "t", "name": "t", "command": command})
    assert states() == ("created", ["t"])
    plain.post("/tasks/t/schedule", json={"at": "2090-01-01T00:00:00Z"})
    assert states() == ("pending", ["t"])
    plain.post("/tasks/t/schedule", json={"at": "2025-12-01T15:00:00Z"})
    until(lambda: states() == ("running", ["t"]), 10, "it runs")
    gate.write_text(f"{code}\n")
    until(lambda: states() == (end, ["t"]), 10, "it ends")
    (execution,) = plain.get("/tasks/t/executions").json()["records"]
    assert execution["status_code"] == int(code)


def test_the_variables_of_the_older_programs_are_ignored_with_a_word(served):
    said = (served.home / "scheduler.err").read_text()
    assert "REDIS_ADDRESS is ignored" in said and "REDIS_MQ_URL is ignored" in said
