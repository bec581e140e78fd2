"""Stopping the server: open pages do not hold it up."""

import asyncio
import signal
import time
from pathlib import Path

import httpx
import pytest

from conftest import eventually
from harness import TOKEN, stage
from pages import enter
from test_live import ended, listening

pytestmark = pytest.mark.alone

MOST_S = 5.0


async def test_open_pages_end_with_the_signal_and_leave_no_trouble(
    database_url: str, tmp_path: Path
):
    with stage(tmp_path) as here:
        server = await asyncio.to_thread(here.scheduler(database=database_url).ready)
        async with httpx.AsyncClient(base_url=server.url, timeout=20) as client:
            assert (await enter(client, server.service_id, TOKEN)).status_code == 303
            async with listening(client) as one, listening(client) as other:
                lines = [each for each in server.log() if "/dashboard/live" in str(each)]
                assert [line["status"] for line in lines] == [200, 200]
                began = time.monotonic()
                server.signal(signal.SIGTERM)
                await eventually(lambda: ended(one, "stop"), MOST_S)
                await eventually(lambda: ended(other, "stop"), MOST_S)
                assert await asyncio.to_thread(server.process.wait, 20) == 0
                assert time.monotonic() - began < MOST_S
        assert server.troubles() == []
        assert not [each for each in server.log() if "Traceback" in str(each)]
