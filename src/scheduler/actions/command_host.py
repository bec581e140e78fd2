"""The server's side of the process that runs commands: started, asked, and ended."""

import asyncio
import contextlib
import socket
import subprocess
import sys
from pathlib import Path

import scheduler
from scheduler.confined.job import CUT, LENGTH, Job, Result, Rules, framed, read_result

START = (
    "import sys; sys.path.append(sys.argv.pop()); from scheduler.confined import host; host.main()"
)
FLAGS = "-I", "-S", "-X", "utf8", "-c"
ENDS_S = 15.0
"""How long the host may take to end what runs when the server goes."""
FULL_S = 0.005


class HostError(Exception):
    """The process that runs commands cannot be had."""


class Host:
    """One host process, started at the first run, and again where it died."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self._control: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._starting = asyncio.Lock()

    @property
    def pid(self) -> int | None:
        """Its process id, where it runs."""
        return self._process.pid if self._process else None

    async def start(self) -> None:
        """Start it, unless it runs. Raises HostError."""
        async with self._starting:
            if self._process is not None and self._process.poll() is None:
                return
            self._forget()
            try:
                await asyncio.to_thread(self._launch)
            except OSError as e:
                raise HostError(f"commands cannot be started: {e.strerror or e}") from None

    def _launch(self) -> None:
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its:
            number = its.fileno()
            root = str(Path(scheduler.__file__).parent.parent)
            self._process = subprocess.Popen(
                [sys.executable, *FLAGS, START, str(number), self.rules.encoded(), root],
                stdin=subprocess.DEVNULL,
                cwd="/",
                env={"LC_ALL": "C.UTF-8"},  # what the server has there is not for it
                pass_fds=[number],
                start_new_session=True,
            )
        ours.setblocking(False)
        self._control = ours

    def _forget(self) -> None:
        if self._control is not None:
            self._control.close()
        self._control = self._process = None

    async def run(self, job: Job, cut: asyncio.Event) -> tuple[Result, bytes] | None:
        """Run a job, and return how it ended, and its output; None where nobody knows.

        `cut` ends it early. Raises HostError where it was not started.
        """
        ours = await self._begin()
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        try:
            writer.write(framed(job))
            answer = asyncio.ensure_future(_answer(reader))
            waiting = asyncio.ensure_future(cut.wait())
            await asyncio.wait({answer, waiting}, return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            if not answer.done():
                writer.write(CUT)
            return await answer
        finally:
            writer.close()

    async def _begin(self) -> socket.socket:
        """Return our end of a channel to a supervisor of its own. Raises HostError."""
        for _ in range(2):
            await self.start()
            ours, its = socket.socketpair()
            with its:
                if await self._sent(its):
                    ours.setblocking(False)
                    return ours
            ours.close()
        raise HostError("commands cannot be started: the process that does it ends at once")

    async def _sent(self, channel: socket.socket) -> bool:
        """Hand a channel to the host; False where it is gone."""
        while self._control is not None:
            try:
                socket.send_fds(self._control, [b"r"], [channel.fileno()])
            except BlockingIOError:
                await asyncio.sleep(FULL_S)
            except OSError:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    if self._process is not None:
                        self._process.wait(0.1)
                return False
            else:
                return True
        return False

    async def close(self) -> None:
        """End it, and what it runs."""
        process = self._process
        self._forget()
        if process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(process.wait, ENDS_S)


async def _answer(reader: asyncio.StreamReader) -> tuple[Result, bytes] | None:
    """Return what a supervisor says; None where it went without a word."""
    try:
        size = LENGTH.unpack(await reader.readexactly(LENGTH.size))[0]
        result = read_result(await reader.readexactly(size))
        return result, await reader.readexactly(result.size)
    except (asyncio.IncompleteReadError, OSError):
        return None
