"""The server's side of the process that runs commands: started, asked, and ended."""

import asyncio
import contextlib
import socket
import subprocess
import sys
from pathlib import Path

import scheduler
from scheduler.confined.job import BEGUN, CUT, LENGTH, Job, Result, Rules, framed, read_result

START = (
    "import sys; sys.path.append(sys.argv.pop()); from scheduler.confined import host; host.main()"
)
FLAGS = "-I", "-S", "-X", "utf8", "-c"
ENDS_S = 15.0
"""How long the host may take to end what runs when the server goes."""
FULL_S = 0.005
TRIES = 3
STARTS_S = 30.0
LATE_S = 15.0
"""How long a supervisor may take to begin; and to answer, when its run should have ended."""


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
        for _ in range(TRIES):
            await self.start()
            ours, its = socket.socketpair()
            ours.setblocking(False)
            reader, writer = await asyncio.open_unix_connection(sock=ours)
            try:
                with its:
                    sent = await self._sent(its)
                if sent:
                    writer.write(framed(job))
                    if await asyncio.wait_for(reader.read(1), STARTS_S) == BEGUN:
                        return await self._ended(reader, writer, job, cut)
            except (OSError, TimeoutError):  # it ended before it began, or stands still
                pass
            finally:
                writer.close()
        raise HostError("commands cannot be started: the process that does it ends at once")

    async def _ended(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        job: Job,
        cut: asyncio.Event,
    ) -> tuple[Result, bytes] | None:
        """Return what a supervisor says, and tell it where its run is to be cut short.

        None where it says nothing in time.
        """
        late_s = self.rules.limits.kill_seconds + LATE_S
        answer = asyncio.ensure_future(_answer(reader))
        waiting = asyncio.ensure_future(cut.wait())
        both = {answer, waiting}
        await asyncio.wait(both, timeout=job.timeout_s + late_s, return_when="FIRST_COMPLETED")
        waiting.cancel()
        if not answer.done():
            writer.write(CUT)
            await asyncio.wait({answer}, timeout=late_s)
        if answer.done():
            return answer.result()
        answer.cancel()
        return None

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
