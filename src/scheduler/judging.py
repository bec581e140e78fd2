"""The child process in which rules are judged that nobody has judged yet: `python -m` runs it.

It reads asks from standard input and writes answers to standard output, each a message of msgpack
after its length in four bytes. It knows nothing of ours: no settings, no database, no key. A rule
that takes too long is left by an exception that a timer of CPU time raises in it; a thread would
hold up whoever shares the interpreter with it.
"""

import ctypes
import os
import resource
import signal
import struct
import sys
import time
from contextlib import suppress
from types import FrameType
from typing import BinaryIO, Never

import msgspec

from scheduler.triggers.rrule import DstGap, DstOverlap, Rrule, judge, read_rrule

LIMIT_S = 0.1
"""CPU time that one rule may take."""
MEMORY_BYTES = 512 << 20
NICE = 5
FILES = 1 << 16
PR_SET_PDEATHSIG = 1
SIZE = struct.Struct(">I")


class Ask(msgspec.Struct, frozen=True):
    """A rule as it was sent; `start` (ms since 1970) is its DTSTART where the text names none."""

    text: str
    timezone: str | None
    start: int
    dst_gap: DstGap
    dst_overlap: DstOverlap
    fallback: bool = False
    """The time zone holds only where the text names none."""


class Question(msgspec.Struct):
    """What is sent to the child; `now` in ms since 1970."""

    ask: Ask
    now: int


class Answer(msgspec.Struct, frozen=True):
    """The rule, completed for storage, or the reason why it is refused; and what that took."""

    rule: Rrule | None
    reason: str | None = None
    cpu_s: float = 0.0


class TooDearError(BaseException):
    """The CPU time is used up. No Exception: nothing on the way may take it for one of its own."""


def judged(question: Question, limit_s: float = LIMIT_S) -> Answer:
    """Read a rule and judge it, in the main thread alone, within its CPU time."""
    started = time.process_time()
    rule, reason = None, None
    signal.signal(signal.SIGPROF, _spent)
    try:
        signal.setitimer(signal.ITIMER_PROF, limit_s)
        try:
            rule = _read(question)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
    except (TooDearError, MemoryError, RecursionError):
        most = f"{limit_s * 1000:.0f} ms of CPU time"
        reason = f"costs too much to expand: more than {most}; send a rule that names less"
    except ValueError as e:
        reason = str(e) or "is no rule"
    except Exception as e:  # noqa: BLE001  # a text that nobody thought of; whoever sent it must know
        reason = f"cannot be read ({type(e).__name__}); send it as RFC 5545 writes it"
    return Answer(rule, reason, time.process_time() - started)


def _read(question: Question) -> Rrule:
    of = question.ask
    try:
        rule = read_rrule(of.text, of.timezone, of.start, of.dst_gap, of.dst_overlap)
    except ValueError:
        if not of.fallback:
            raise
        rule = read_rrule(of.text, None, of.start, of.dst_gap, of.dst_overlap)
    return judge(rule, question.now)


def _spent(_signal: int, _frame: FrameType | None) -> Never:
    raise TooDearError


def main() -> None:
    """Answer until nobody asks any more."""
    os.closerange(3, FILES)  # of the parent's none is meant for it
    os.nice(NICE)
    with suppress(OSError, AttributeError):  # elsewhere than on Linux the end of input must do
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    asks, answers = sys.stdin.buffer, sys.stdout.buffer
    decoder = msgspec.msgpack.Decoder(Question)
    _write(answers, b"")  # it is up
    while (sent := _next(asks)) is not None:
        _write(answers, msgspec.msgpack.encode(judged(decoder.decode(sent))))


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


if __name__ == "__main__":
    main()
