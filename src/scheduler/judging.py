"""The child process in which rules are judged that nobody has judged yet: `python -m` runs it.

A rule that takes too long is left, see `answering`.
"""

import time

import msgspec

from scheduler.answering import Spent, limited, serve
from scheduler.triggers.rrule import DstGap, DstOverlap, Rrule, judge, read_rrule

LIMIT_S = 0.1
"""CPU time that one rule may take."""
MEMORY_BYTES = 512 << 20


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


def judged(question: Question, limit_s: float = LIMIT_S) -> Answer:
    """Read a rule and judge it, in the main thread alone, within its CPU time."""
    started = time.process_time()
    rule, reason = None, None
    try:
        with limited(limit_s):
            rule = _read(question)
    except (Spent, MemoryError, RecursionError):
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


def main() -> None:
    """Answer until nobody asks any more."""
    decoder = msgspec.msgpack.Decoder(Question)
    serve(lambda sent: msgspec.msgpack.encode(judged(decoder.decode(sent))), MEMORY_BYTES)


if __name__ == "__main__":
    main()
