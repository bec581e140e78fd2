"""Reading how a task's runs are to be performed."""

from itertools import islice

from msgspec import UNSET

from scheduler.actions import Command
from scheduler.definition import MOST_CONCURRENT, Backoff, Policy
from scheduler.errors import DETAILS_MOST
from scheduler.tasks.acting import meant
from scheduler.tasks.reading import Reader

RANGES_MOST = 50
STATUSES = (100, 599)
EXIT_CODES = (0, 255)
"""What a target answers, and with what a command ends."""


def read_policy(reader: Reader) -> Policy:
    """Return the policy that the body makes of the stored one."""
    stored = reader.before.policy
    return Policy(
        max_retries=reader.number("max_retries", stored.max_retries, 0, 100),
        retry_backoff=_backoff(reader, stored.retry_backoff),
        timeout_seconds=reader.number("timeout_seconds", stored.timeout_seconds, 0.001, 86_400),
        overlap=reader.word("overlap", stored.overlap, ("skip", "allow", "queue")),
        misfire=reader.word("misfire", stored.misfire, ("latest", "all", "skip")),
        misfire_grace_seconds=reader.number(
            "misfire_grace_seconds", stored.misfire_grace_seconds, 0, 31_536_000
        ),
        max_age_seconds=reader.number("max_age_seconds", stored.max_age_seconds, 0.001, 31_536_000),
        expected_status=_expected(reader, stored.expected_status),
        max_concurrency=reader.number(
            "max_concurrency", stored.max_concurrency, 1, MOST_CONCURRENT
        ),
        priority=reader.number("priority", stored.priority, -100, 100) or 0,
    )


def _backoff(reader: Reader, stored: Backoff | None) -> Backoff | None:
    sent = reader.fields.retry_backoff
    if sent is UNSET:
        return stored
    if sent is None:
        return None
    limits = {"initial_seconds": (0, 86_400), "factor": (1, 100), "max_seconds": (0, 86_400)}
    for name, value in islice(sent.items(), DETAILS_MOST):
        if name not in limits:
            reader.say(f"retry_backoff.{name[:100]}", f"unknown; known are {', '.join(limits)}")
        elif not limits[name][0] <= value <= limits[name][1]:
            low, high = limits[name]
            reader.say(f"retry_backoff.{name}", f"must be {low:g} to {high:g}")
    return Backoff(**{name: value for name, value in sent.items() if name in limits})


def _expected(
    reader: Reader, stored: tuple[tuple[int, int], ...] | None
) -> tuple[tuple[int, int], ...] | None:
    sent, is_command = reader.fields.expected_status, meant(reader) is Command
    if sent is UNSET:
        # The answers of a target are no exit codes: another kind of action begins anew.
        return stored if isinstance(reader.before.action, Command) == is_command else None
    if sent is None:
        return None
    parts = sent if isinstance(sent, list) else str(sent).split(",", RANGES_MOST)
    try:
        if 0 < len(parts) <= RANGES_MOST:
            bounds = EXIT_CODES if is_command else STATUSES
            return tuple(_status_range(str(part), *bounds) for part in parts)
    except ValueError:
        pass
    like = '0, "0-3" or [0, "64-78"]' if is_command else '200, "200-299" or [200, "300-399"]'
    reader.say("expected_status", f"must be like {like}, {RANGES_MOST} of them at most")
    return None


def _status_range(text: str, least: int, most: int) -> tuple[int, int]:
    low, dash, high = text.strip().partition("-")
    first, last = int(low), int(high if dash else low)
    if not least <= first <= last <= most:
        raise ValueError(text)
    return first, last
