"""The host: a small process that forks a supervisor for each run, and outlives none of them."""

import contextlib
import gc
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from functools import partial

from scheduler.confined import ending, job, rights, slots, supervisor
from scheduler.confined.job import Rules


def main() -> None:
    """Serve the socket whose number is the first argument, by the rules that are the second."""
    control = socket.socket(fileno=int(sys.argv[1]))
    rights.reset_signals()
    rights.close_to_others()
    rights.adopt_orphans()
    gc.disable()  # nobody here makes cycles, and it would write to pages that forks share
    gc.freeze()
    Host(control, job.rules(sys.argv[2])).serve()


class Host:
    """Forks a supervisor for each channel it is sent, until the server goes."""

    def __init__(self, control: socket.socket, rules: Rules) -> None:
        self._control = control
        self._rules = rules
        self._children: set[int] = set()
        """Supervisors, and whoever cleans up."""

    def serve(self) -> None:
        """Return when the server is gone, and all that it started."""
        heard, told = socket.socketpair()
        heard.setblocking(False)
        told.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
        self._sweep()  # of what was killed before us
        while True:
            ready = select.select([self._control, heard], [], [])[0]
            if heard in ready:
                heard.recv(4096)
                self._reap(os.WNOHANG)
            if self._control in ready and not self._take():
                break
        while self._children:  # each hears for itself that the server is gone
            self._reap(0)

    def _take(self) -> bool:
        """Take one channel and fork its supervisor; False where the server is gone."""
        message, fds, _, _ = socket.recv_fds(self._control, 1, 1)
        if not message:
            return False
        for fd in fds:
            with socket.socket(fileno=fd) as channel, contextlib.suppress(OSError):
                self._fork(partial(supervisor.supervise, channel, self._rules))
        return True

    def _fork(self, work: Callable[[], None]) -> None:
        """Have something done by a child. Raises OSError."""
        pid = os.fork()
        if pid:
            self._children.add(pid)
            return
        code = 1
        try:
            self._control.close()  # else the server would not see the host's end
            signal.set_wakeup_fd(-1)
            work()
            code = 0
        except BaseException:  # noqa: BLE001  (nothing of the host's may go on in here)
            traceback.print_exc()
        finally:
            os._exit(code)

    def _reap(self, how: int) -> None:
        """Take what has ended, and clean up behind a supervisor that was killed."""
        broken = False
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, how)
                if pid == 0:
                    break
                broken |= pid in self._children and status != 0
                self._children.discard(pid)
                if how == 0:
                    break
        if broken:
            ending.kill(lambda: ending.descendants(os.getpid(), without=self._children))
            self._sweep()

    def _sweep(self) -> None:
        with contextlib.suppress(OSError):
            self._fork(partial(slots.sweep, self._rules))
