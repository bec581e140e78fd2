"""The supervisor of one run: starts its shell, and ends with nothing of it left."""

import contextlib
import errno
import io
import os
import select
import signal
import socket
import time

from scheduler.confined import ending, rights, slots
from scheduler.confined.job import BEGUN, CUT, LENGTH, Job, Result, Rules, Why, framed, read_job
from scheduler.confined.slots import Slot

SHELL = "/bin/sh"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
CHUNK = 1 << 16
LOOK_S = 3600.0
"""The longest wait for anything to happen; of a whole year poll(2) has too many milliseconds."""
AGAIN_S = 0.05
"""How soon what did not die of it is killed again."""
UNENDING_S = 10.0
"""What was killed so long ago, and is still there, waits for a disk: it is told of no longer."""
TOO_LARGE = "the command and its env are larger than the system lets a program have"


def supervise(channel: socket.socket, rules: Rules) -> None:
    """Read a job from the server, run it, answer, and clean up."""
    rights.adopt_orphans()
    job = _received(channel)
    if job is None:
        return
    try:
        slot = slots.take(rules)
        slot.furnish()
    except OSError as e:
        channel.sendall(BEGUN)
        _answer(channel, Result("unstarted", error=f"the command has no place to run: {e}"), b"")
        return
    try:
        channel.sendall(BEGUN)
        Supervisor(channel, rules, slot, job).run()
        slot.empty()
    finally:
        slot.release()


def _received(channel: socket.socket) -> Job | None:
    """Return the job; None where the server went away before it said it."""
    with channel.makefile("rb", buffering=0) as stream:
        length = _exactly(stream, LENGTH.size)
        body = length and _exactly(stream, LENGTH.unpack(length)[0])
    return read_job(body) if body else None


def _exactly(stream: io.RawIOBase, size: int) -> bytes | None:
    """Read so many bytes and no more; None where there are less."""
    received = bytearray()
    while len(received) < size:
        more = stream.read(size - len(received))
        if not more:
            return None
        received += more
    return bytes(received)


def _answer(channel: socket.socket, result: Result, output: bytes) -> None:
    with contextlib.suppress(OSError):  # the server is gone
        channel.setblocking(True)
        channel.sendall(framed(result))
        channel.sendall(output)
        channel.shutdown(socket.SHUT_WR)


class Supervisor:
    """One run, from its start to the end of the last process it left."""

    def __init__(self, channel: socket.socket, rules: Rules, slot: Slot, job: Job) -> None:
        self._channel, self._rules, self._slot, self._job = channel, rules, slot, job
        self._output = bytearray()
        self._truncated = False
        self._pipe = -1
        self._shell = -1
        self._status: int | None = None
        """What waitpid said of the shell."""
        self._why: Why = "exited"
        self._kill_at: float | None = None
        """When TERM is followed by KILL; on the monotonic clock."""
        self._killed_at: float | None = None
        self._told = False

    def run(self) -> None:
        """Start it, see it end, and answer."""
        error = self._start()
        if error is not None:
            why: Why = "unfit" if error == TOO_LARGE else "unstarted"
            _answer(self._channel, Result(why, error=error), b"")
            return
        heard, told = socket.socketpair()  # what a signal handler writes to wakes the poll
        told.setblocking(False)
        heard.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
        self._channel.setblocking(False)
        os.set_blocking(self._pipe, False)
        self._watch(heard)
        self._tell()

    # Starting ------------------------------------------------------------------------------------

    def _start(self) -> str | None:
        """Fork the shell; return why it could not be, if so."""
        self._pipe, out = os.pipe()
        failing, failed = os.pipe()
        running = 0
        if not self._rules.alone:
            running = ending.count_of(os.geteuid() if self._rules.uid is None else self._rules.uid)
        try:
            self._shell = os.fork()
        except OSError as e:
            return f"the command cannot be started: {e.strerror}"
        if self._shell == 0:
            self._become_shell(out, failed, running)
        os.close(out)
        os.close(failed)
        with os.fdopen(failing, "rb") as told:
            error = told.read().decode(errors="replace")
        if error:
            os.waitpid(self._shell, 0)
        return error or None

    def _become_shell(self, out: int, failed: int, running: int) -> None:
        """Be the shell, or say why not, and end."""
        try:
            os.setsid()
            null = os.open(os.devnull, os.O_RDONLY)
            for ours, standard in ((null, 0), (out, 1), (out, 2)):
                os.dup2(ours, standard)
            os.dup2(failed, 3, inheritable=False)
            os.closerange(4, max(failed, out, null, self._channel.fileno(), 1024) + 1)
            failed = 3
            rights.confine(self._rules, self._slot.number, running)
            os.chdir(self._slot.home)
            os.execve(SHELL, ["sh", "-c", "--", self._job.command], self._environment())  # noqa: S606
        except OSError as e:
            told = f"the command cannot be started: {e.strerror or e}"
            os.write(failed, (TOO_LARGE if e.errno == errno.E2BIG else told).encode())
        except BaseException as e:  # noqa: BLE001  (nothing of the parent's may go on in here)
            os.write(failed, f"the command cannot be started: {e}".encode())
        finally:
            os._exit(127)

    def _environment(self) -> dict[str, str]:
        home = str(self._slot.home)
        return {"PATH": PATH, "HOME": home, "TMPDIR": home, "LANG": "C.UTF-8", **self._job.env}

    # Watching ------------------------------------------------------------------------------------

    def _watch(self, heard: socket.socket) -> None:
        """Return when nothing of the run is left."""
        deadline = time.monotonic() + self._job.timeout_s
        poll = select.poll()
        for readable in (heard.fileno(), self._channel.fileno(), self._pipe):
            poll.register(readable, select.POLLIN)
        while self._reaped():
            now = time.monotonic()
            if self._status is not None and self._kill_at is None:
                self._kill_at = now  # nothing outlives its shell
            if self._kill_at is None and now >= deadline:
                self._terminate("timeout")
            if self._kill_at is not None and now >= self._kill_at:
                self._kill(now)
            until = deadline if self._kill_at is None else self._kill_at
            for ready, _ in poll.poll(min(max(until - time.monotonic(), 0), LOOK_S) * 1000 + 1):
                if ready == heard.fileno():
                    heard.recv(CHUNK)
                elif ready == self._pipe:
                    if not self._read():
                        poll.unregister(self._pipe)
                elif not self._listen():
                    poll.unregister(self._channel.fileno())

    def _reaped(self) -> bool:
        """Take what has ended; say whether anything is left."""
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return True
                if pid == self._shell:
                    self._status = status
        return False

    def _read(self) -> bool:
        """Take some output; say whether there may be more."""
        with contextlib.suppress(BlockingIOError):
            chunk = os.read(self._pipe, CHUNK)
            room = self._rules.limits.output_bytes - len(self._output)
            self._output += chunk[:room]
            if len(chunk) > room and not self._truncated:
                self._truncated = True
                self._terminate("output")
            return bool(chunk)
        return True

    def _listen(self) -> bool:
        """Hear the server; say whether it is still there."""
        with contextlib.suppress(OSError):
            said = self._channel.recv(CHUNK)
            if said:
                if CUT in said:
                    self._terminate("cut")
                return True
        self._why, self._kill_at = "cut", 0.0
        return False

    # Ending --------------------------------------------------------------------------------------

    def _terminate(self, why: Why) -> None:
        """Ask all of it to end; what does not is killed later."""
        if self._status is not None or self._kill_at is not None:
            return
        self._why = why
        self._kill_at = time.monotonic() + self._rules.limits.kill_seconds
        self._signal(signal.SIGTERM)

    def _kill(self, now: float) -> None:
        self._killed_at = self._killed_at or now
        if now > self._killed_at + UNENDING_S:
            self._tell()
        self._signal(signal.SIGKILL)
        self._kill_at = time.monotonic() + AGAIN_S

    def _signal(self, number: int) -> None:
        if self._rules.alone:
            uid = self._slot.number
            ending.kill_user(uid, uid + self._rules.slots, number)
        elif number == signal.SIGKILL:
            ending.kill(lambda: ending.descendants(os.getpid()))
        else:
            ending.send(ending.descendants(os.getpid()), number)

    def _tell(self) -> None:
        """Answer, once."""
        if self._told:
            return
        self._told = True
        # Whoever was handed the pipe, outside of the run, may write to it for ever.
        while not self._truncated and self._drains() and self._read():
            pass
        why: Why = "output" if self._truncated and self._why == "exited" else self._why
        status = self._status
        code = None if status is None else os.waitstatus_to_exitcode(status)
        if code is not None and code < 0:
            code = 128 - code
        output = bytes(self._output)
        result = Result(why, code, None, self._truncated, len(output))
        _answer(self._channel, result, output)

    def _drains(self) -> bool:
        return bool(select.select([self._pipe], [], [], 0)[0])
