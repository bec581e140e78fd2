"""What a child process does that only answers: it is confined, reads asks and writes answers.

Asks come by standard input and answers go to standard output, each a message after its length in
four bytes. The child knows nothing of ours: no settings, no database, no key. What takes too long
is left by an exception that a timer of CPU time raises in it; a thread would hold up whoever
shares the interpreter with it.
"""

import ctypes
import os
import resource
import signal
import struct
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import BinaryIO, Never

NICE = 5
TICK_S = 0.001
FILES = 1 << 16
PR_SET_PDEATHSIG = 1
SIZE = struct.Struct(">I")


class Spent(BaseException):
    """The CPU time is used up. No Exception: nothing on the way may take it for one of its own."""


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise Spent in the main thread when this CPU time is used up, and again after as much.

    Inside another one it never has more than what that has left.
    """
    signal.signal(signal.SIGPROF, _spent)
    started = time.process_time()
    around, again = signal.getitimer(signal.ITIMER_PROF)
    mine = min(seconds, around) if around else seconds
    try:
        signal.setitimer(signal.ITIMER_PROF, mine, mine)
        yield
    finally:
        left = max(around - (time.process_time() - started), TICK_S) if around else 0
        signal.setitimer(signal.ITIMER_PROF, left, again)


def _spent(_signal: int, _frame: FrameType | None) -> Never:
    raise Spent


def serve(answer: Callable[[bytes], bytes], memory_bytes: int) -> None:
    """Answer until nobody asks any more."""
    os.closerange(3, FILES)  # of the parent's none is meant for it
    os.nice(NICE)
    with suppress(OSError, AttributeError):  # elsewhere than on Linux the end of input must do
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    asks, answers = sys.stdin.buffer, sys.stdout.buffer
    _write(answers, b"")  # it is up
    while (sent := _next(asks)) is not None:
        _write(answers, answer(sent))


def _next(asks: BinaryIO) -> bytes | None:
    """Return the next message; None where the asker is gone."""
    head = asks.read(SIZE.size)
    if len(head) < SIZE.size:
        return None
    size = SIZE.unpack(head)[0]
    body = asks.read(size)
    return body if len(body) == size else None


def _write(answers: BinaryIO, body: bytes) -> None:
    answers.write(SIZE.pack(len(body)) + body)
    answers.flush()
