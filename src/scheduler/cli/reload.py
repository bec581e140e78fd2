"""`scheduler serve --reload`: a child that is started anew when the program's files change."""

import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

import click

import scheduler

LOOK_S = 0.5
WATCHED = {".py", ".html", ".css", ".js", ".j2"}
LEAVE_S = 40.0
"""More than the default drain; a child that takes longer is killed."""

Stamps = dict[Path, int]


def stamps(folder: Path) -> Stamps:
    """Return when each file of the program was changed, in ns since 1970."""
    found: Stamps = {}
    for path in folder.rglob("*"):
        if path.suffix in WATCHED:
            try:
                found[path] = path.stat().st_mtime_ns
            except OSError:  # an editor has just moved it
                continue
    return found


class Supervisor:
    """Runs one child at a time; `words` are what it is called with."""

    def __init__(self, words: list[str], folder: Path) -> None:
        self._words = words
        self._folder = folder
        self._child: subprocess.Popen[bytes] | None = None
        self._stopping = False

    def run(self) -> int:
        """Return the last child's exit code, once a signal has said stop."""
        for sign in (signal.SIGTERM, signal.SIGINT):
            signal.signal(sign, self._stop)
        code = 0
        while not self._stopping:
            seen = stamps(self._folder)
            # A group of its own: Ctrl-C reaches it through us, once.
            self._child = subprocess.Popen(self._words, start_new_session=True)
            self._wait_for_change(seen)
            code = self._end()
        return code

    def _wait_for_change(self, seen: Stamps) -> None:
        """Return when a file has changed, or it is time to stop; a child that died waits too."""
        while not self._stopping:
            time.sleep(LOOK_S)
            now = stamps(self._folder)
            if now != seen:
                changed = {str(path) for path in now.keys() ^ seen.keys()}
                changed |= {str(p) for p, at in now.items() if seen.get(p, at) != at}
                click.echo(f"scheduler: {', '.join(sorted(changed))} changed, starting anew")
                return

    def _end(self) -> int:
        child = self._child
        if child is None:
            return 0
        if child.poll() is None:
            child.send_signal(signal.SIGTERM)
        try:
            return child.wait(LEAVE_S)
        except subprocess.TimeoutExpired:
            child.kill()
            return child.wait()

    def _stop(self, _signal: int, _frame: FrameType | None) -> None:
        self._stopping = True


def supervise(words: list[str]) -> int:
    """Run `scheduler` with these words, over and over; return the exit code of the last one."""
    command = [sys.executable, "-m", "scheduler", *words]
    return Supervisor(command, Path(scheduler.__file__).parent).run()
