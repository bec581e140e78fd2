"""An operator's walk from the first start to a copy elsewhere, with the programs as they are."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from conftest import quick_folder
from harness import Stage, postmaster, stage, until

pytestmark = pytest.mark.alone


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Stage]:
    with stage(tmp_path) as found:
        yield found


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    with quick_folder(tmp_path) as found:
        yield found


class Operator:
    """Someone with a shell, who knows one data directory and nothing else."""

    def __init__(self, data: Path) -> None:
        self.data = data
        kept = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "LANG", "PYTHONPATH")}
        self.environment = {**kept, "DATA_DIR": str(data)}

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "scheduler", *words],
            cwd=self.data.parent,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def types(self, *words: str, exits: int = 0) -> str:
        """What a command says, errors included."""
        with self.start(*words) as process:
            out, err = process.communicate(timeout=60)
        assert process.returncode == exits, (words, process.returncode, out, err)
        assert "Traceback" not in err
        return out + err

    def asks(self, *words: str) -> Any:
        return json.loads(self.types(*words, "-o", "json"))


def follows(operator: Operator, task: str, count: int) -> list[dict[str, Any]]:
    """The first lines of `runs tail`, which is then interrupted."""
    with operator.start("runs", "tail", "--task", task, "-o", "json") as process:
        seen = [json.loads(process.stdout.readline()) for _ in range(count)]
        process.send_signal(2)
        assert process.wait(10) == 130
    return seen


def breaks(operator: Operator, process: psutil.Process) -> Path:
    """Postgres dies, and its files are not where they were."""
    files = operator.data / "postgres" / "data"
    away = files.rename(files.with_name("away"))
    process.kill()
    return away


def test_from_the_first_start_to_a_copy_elsewhere_that_sends_nothing_unasked(
    here: Stage, folder: Path
):
    operator = Operator(folder / "first")
    server = here.scheduler(data=operator.data).ready()
    target = here.target

    # Create, list, follow.
    hello = ("--id", "hello", "-n", "Say hello", "--url", f"{target.url}/hello")
    operator.types("tasks", "create", *hello, "--frequency", "1", "--unit", "second")
    [listed] = operator.asks("tasks", "list")
    assert (listed["id"], listed["frequency"], listed["unit"]) == ("hello", 1, "second")
    assert "every second" in operator.types("tasks", "list")
    assert [run["state"] for run in follows(operator, "hello", 2)] == ["succeeded"] * 2
    assert "FAIL" not in operator.types("doctor")

    # The database breaks; the doctor says so, and what to do; mended, all goes on by itself.
    away = breaks(operator, postmaster(operator.data))
    until(lambda: server.call("GET", "/ready")[0] == 503, 15, "it says that it is not ready")
    assert server.call("GET", "/health")[0] == 200
    said = operator.types("doctor", exits=1)
    assert "FAIL" in said and "->" in said
    away.rename(away.with_name("data"))
    until(lambda: server.call("GET", "/ready")[0] == 200, 30, "it goes on")
    reached = len(target.of("hello"))
    until(lambda: len(target.of("hello")) > reached, 10, "it calls again")
    operator.types("runs", "verify")

    # A backup, and the end of the first one.
    backed_up = {a.key for a in target.of("hello") if a.ended and a.ended < time.time() - 0.5}
    operator.types("backup", "monday.zip", "--with-key")
    assert server.stop() == 0
    calls = len(target.arrivals)

    # The copy starts elsewhere, and sends nothing until someone says so.
    copy = Operator(folder / "second")
    assert "starts paused" in copy.types("restore", str(folder / "monday.zip"))
    second = here.scheduler(data=copy.data, history_retention_days=30)
    second.ready()
    assert "paused" in second.call("GET", "/ready")[1]
    assert "scheduler resume" in copy.types("doctor")
    token = copy.asks("services", "rotate", "default")
    copy.environment |= {
        "SCHEDULER_URL": second.url,
        "SCHEDULER_SERVICE_ID": token["service_id"],
        "SCHEDULER_TOKEN": token["token"],
    }
    assert "scheduler resume" in copy.types("tasks", "execute", "hello", exits=1)
    due = time.time() + 3
    until(lambda: time.time() > due, 5, "three of its instants pass")
    assert len(target.arrivals) == calls

    # Resumed, it makes one call for all that was missed, and goes on.
    copy.types("resume")
    resumed = time.time()
    until(lambda: len(target.arrivals) >= calls + 3, 15, "it calls again")
    late = [a for a in target.arrivals[calls:] if a.scheduled_for < resumed - 1]
    assert len(late) <= 1
    # What the first one ran after the backup was made the copy cannot know; else nothing twice.
    doubled = [key for key, times in target.keys("hello").items() if times > 1]
    assert len(doubled) <= 1
    assert not set(doubled) & backed_up
    copy.types("runs", "verify")
