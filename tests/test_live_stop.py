"""Stopping the server: what browsers have open does not hold it up."""

import asyncio
import signal
import socket
import time
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from conftest import eventually
from harness import TOKEN, Target, stage
from pages import enter
from test_editor import Forms
from test_live import ended, listening
from test_runs_page import fill

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


class Slow:
    """A reader of a file that takes its beginning, and then nothing until it is asked to."""

    def __init__(self, client: httpx.AsyncClient, path: str) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        at = urlsplit(str(client.base_url))
        cookies = "; ".join(f"{name}={value}" for name, value in client.cookies.items())
        self._socket.connect((at.hostname, at.port))
        head = f"GET {path} HTTP/1.1\r\nHost: {at.netloc}\r\nCookie: {cookies}\r\n\r\n"
        self._socket.sendall(head.encode())
        self.begun = self._socket.recv(1000)

    def rest(self) -> bytes:
        """What comes until the connection ends."""
        with self._socket:
            return b"".join(iter(lambda: self._socket.recv(1 << 16), b""))


async def test_neither_a_file_that_nobody_reads_nor_a_test_call_is_waited_for(
    database_url: str, tmp_path: Path, conn
):
    with stage(tmp_path) as here:
        server = await asyncio.to_thread(here.scheduler(database=database_url).ready)
        await fill(conn, server.service_id, 2000, state="failed", reason="x" * 4000)
        async with httpx.AsyncClient(base_url=server.url, timeout=40) as client:
            await enter(client, server.service_id, TOKEN)
            slow = await asyncio.to_thread(Slow, client, "/dashboard/runs/export.ndjson")
            assert slow.begun.startswith(b"HTTP/1.1 200")
            forms = Forms(client)
            sent = {**await forms.opened(), "url": f"{here.target.url}/x?hold=on"}
            call = asyncio.create_task(forms.sent(sent, "/dashboard/trial", part="1"))
            await eventually(lambda: _arrived(here.target))
            began = time.monotonic()
            server.signal(signal.SIGTERM)
            assert "is being stopped" in (await call).text
            assert await asyncio.to_thread(server.process.wait, 40) == 0
            assert time.monotonic() - began < MOST_S + 3
        # What is no whole file says so, or lacks its end.
        rest = await asyncio.to_thread(slow.rest)
        assert b"cut short" in rest[-200:] or not rest.endswith(b"\r\n0\r\n\r\n")
        assert server.troubles() == []
        assert not [each for each in server.log() if "Traceback" in str(each)]


def _arrived(target: Target) -> None:
    assert target.arrivals
