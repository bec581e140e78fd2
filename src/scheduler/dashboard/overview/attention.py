"""What needs somebody: each is a sentence, and the one thing to do about it."""

from urllib.parse import quote, urlencode

import msgspec

from scheduler import glance
from scheduler.dashboard import shown
from scheduler.db import rfc3339
from scheduler.engine import Engine
from scheduler.glance import Failing, Now
from scheduler.tally import Span

LATE_MS = 60_000
"""Waiting for longer than this is worth a word."""
PAUSED = 3
"""Where more tasks are paused without an end, they are told of together."""
DAY = 86_400_000


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """A thing that needs somebody. `name` and `why` are text of others."""

    state: str
    """How bad it is, as a state of a run is: failed, skipped, paused, late."""
    said: str
    name: str | None = None
    """Of the task it is about, which `said` follows."""
    why: str | None = None
    label: str
    """Of its one action."""
    href: str | None = None
    act: str | None = None
    """Where its form is sent, in place of a link."""


def notices(
    engine: Engine, now: Now, day: Span, failing: list[Failing], at: int
) -> list[Notice]:  # fmt: skip
    """Return what needs somebody, the worst first."""
    return [
        *_machine(engine),
        *_late(now, at),
        *_streaks(failing),
        *_missed(day, at),
        *_paused(now),
    ]


def _machine(engine: Engine) -> list[Notice]:
    halted = dict(engine.dispatcher.halted)
    if engine.paused is not None:
        halted["pause"] = engine.paused
    return [
        Notice(
            state="failed",
            said="Nothing is started.",
            why=reason,
            label="See the system",
            href="/dashboard/system",
        )
        for reason in halted.values()
    ]


def _late(now: Now, at: int) -> list[Notice]:
    if now.oldest is None or at - now.oldest < LATE_MS:
        return []
    runs = "1 run is" if now.late == 1 else f"{now.late:,} runs are"
    return [
        Notice(
            state="late",
            said=f"{runs} due and not begun, the first for {shown.duration(at - now.oldest)}.",
            label="See what waits",
            href=f"/dashboard/runs?{urlencode({'state': 'scheduled', 'to': rfc3339(at)})}",
        )
    ]


def _streaks(failing: list[Failing]) -> list[Notice]:
    found = [each for each in failing if each.streak >= glance.STREAK and each.status == "active"]
    found.sort(key=lambda each: -each.streak)
    return [
        Notice(
            state="failed",
            name=each.name,
            said=f"failed {each.streak:,} times in a row.",
            why=each.reason,
            label="Look at it",
            href=f"/dashboard/tasks/{quote(each.id, safe='')}",
        )
        for each in found[: glance.SHOWN]
    ]


def _missed(day: Span, at: int) -> list[Notice]:
    missed = day.reasons.get("misfire", 0)
    if not missed:
        return []
    sent = {"state": "skipped", "reason": "misfire", "from": rfc3339(at - DAY)}
    word = "instant was" if missed == 1 else "instants were"
    return [
        Notice(
            state="skipped",
            said=f"{missed:,} {word} missed in the last 24 hours: nothing could run in time.",
            label="See which",
            href=f"/dashboard/runs?{urlencode(sent)}",
        )
    ]


def _paused(now: Now) -> list[Notice]:
    if len(now.endless) > PAUSED:
        return [
            Notice(
                state="paused",
                said=f"{now.paused:,} tasks are paused, some until somebody resumes them.",
                label="See them",
                href="/dashboard/tasks?status=paused",
            )
        ]
    return [
        Notice(
            state="paused",
            name=name,
            said="is paused until somebody resumes it.",
            label="Resume",
            act=f"/dashboard/tasks/{quote(task_id, safe='')}/resume",
        )
        for task_id, name in now.endless
    ]
