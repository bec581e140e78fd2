"""Commands that wait for their turn on a replica."""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from conftest import App, RunApp, eventually
from receiver import Receiver

pytestmark = pytest.mark.alone


@pytest.fixture
async def app(run_app: RunApp) -> AsyncIterator[App]:
    """The program, with four workers and one command at a time."""
    with tempfile.TemporaryDirectory(prefix="commands") as folder:
        Path(folder).chmod(0o755)  # they are run by somebody else
        settings = {
            "COMMANDS_ENABLED": "true",
            "COMMANDS_SAME_USER": str(os.geteuid() != 0).lower(),
            "COMMANDS_DIRECTORY": f"{folder}/runs",
            "COMMANDS_CONCURRENCY": "1",
            "WORKER_COUNT": "4",
        }
        async with run_app(**settings) as started:
            yield started


async def test_commands_that_wait_for_their_turn_hold_up_no_request(alice, receiver: Receiver):
    now = datetime.now(UTC).isoformat()
    sent = [
        {"id": f"c{n}", "name": "c", "command": "sleep 2", "scheduled_at": now} for n in range(8)
    ]
    assert (await alice.post("/tasks/bulk", json=sent)).status_code == 201
    await alice.post("/tasks", json={"id": "w", "name": "w", "url": f"{receiver.url}/w"})

    async def begun() -> None:
        (run,) = (await alice.get("/runs", params={"task": "c0"})).json()["runs"]
        assert run["started_at"] or run["state"] == "running"

    await eventually(begun)
    async with asyncio.timeout(1.5):
        for _ in range(5):
            answer = await alice.post("/tasks/w/execute")
            assert answer.json()["status"] == "success"


async def test_one_that_waits_for_its_turn_was_not_started_and_is_cancelled_at_once(alice):
    now = datetime.now(UTC).isoformat()
    for n in range(3):
        sent = {"id": f"c{n}", "name": "c", "command": "sleep 1", "scheduled_at": now}
        assert (await alice.post("/tasks", json=sent)).status_code == 201

    (run,) = (await alice.get("/runs", params={"task": "c2"})).json()["runs"]
    answer = await alice.post(f"/runs/{run['id']}/cancel")
    assert answer.status_code == 200
    ended = (await alice.get(f"/runs/{run['id']}")).json()
    assert (ended["state"], ended["attempts"]) == ("cancelled", [])

    async def others_end() -> None:
        for task in ("c0", "c1"):
            (run,) = (await alice.get("/runs", params={"task": task})).json()["runs"]
            assert run["state"] == "succeeded"

    await eventually(others_end)
