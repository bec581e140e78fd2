"""What the form of a task begins with: a task as it stands, or nothing; and what changed since."""

import msgspec

from scheduler.actions import Action, Command, Http, Operation
from scheduler.actions.step import Step
from scheduler.dashboard import bodies
from scheduler.dashboard.editor.curl import Parsed
from scheduler.dashboard.editor.fields import NAMES, Draft, Row, settled
from scheduler.dashboard.typed import wall
from scheduler.definition import Definition
from scheduler.masking import is_secret
from scheduler.tasks.model import standing
from scheduler.triggers import Cron, Interval, Once, Rrule, Trigger

LONG = 100_000
"""Characters of a text that the form holds; one that is longer is kept as it is."""


def blank(zone: str) -> Draft:
    """Return the form of a new task, its times in the reader's zone."""
    return Draft(
        {
            "trigger": "interval", "action": "http", "unit": "minute", "status": "active",
            "times_in": zone,
        }
    )  # fmt: skip


def of_task(of: Definition, now: int, most: int = LONG) -> Draft:
    """Return the form of a task as it stands, its secrets masked.

    A text of more than `most` characters is left out: empty, it is kept.
    """
    zone = getattr(of.trigger, "timezone", "UTC")
    draft = Draft({"times_in": zone})
    values = draft.values
    values |= {"id": of.id, "name": of.name, "description": of.description or ""}
    values |= {"tags": ", ".join(of.tags), "status": standing(of, now)}
    if values["status"] == "paused":
        values["paused_until"] = wall(of.paused_until, zone)
    values |= _trigger(of.trigger, zone)
    bounds = of.bounds
    values |= {
        "start_at": wall(bounds.start_at, zone),
        "end_at": wall(bounds.end_at, zone),
        "max_runs": _number(bounds.max_runs),
        "jitter_seconds": _number(bounds.jitter_ms / 1000 or None),
    }
    draft.calendars = list(bounds.calendars)
    _fill_action(draft, of.action)
    values |= _policy(of)
    for name in NAMES:
        text = settled(name, values.get(name, ""))
        values[name] = "" if len(text) > most else text
    return draft


def long_ones(of: Definition, most: int = LONG) -> dict[str, int]:
    """Return how many characters those texts of a task have that are too long for the form."""
    whole = of_task(of, 0, 1 << 60).values
    return {name: len(text) for name, text in whole.items() if len(text) > most}


def of_curl(draft: Draft, found: Parsed) -> Draft:
    """Return a form with the call that a curl command makes."""
    values = {
        **draft.values,
        "action": "http",
        "url": settled("url", found.url),
        "method": found.method or "",
        "payload": settled("payload", found.payload or ""),
        "follow_redirects": "on" if found.follow_redirects else "",
    }
    if found.timeout_seconds is not None:
        values["timeout_seconds"] = _number(found.timeout_seconds)
    if found.max_retries is not None:
        values["max_retries"] = _number(found.max_retries)
    headers = [Row(name, value, is_secret(name)) for name, value in found.headers]
    return msgspec.structs.replace(draft, values=values, headers=headers)


def _trigger(of: Trigger | None, zone: str) -> dict[str, str]:
    if isinstance(of, Interval):
        return {"trigger": "interval", "frequency": str(of.frequency), "unit": of.unit}
    if isinstance(of, Once):
        return {"trigger": "once", "scheduled_at": wall(of.at, zone), "unit": "minute"}
    if of is None:
        return {"trigger": "manual", "unit": "minute"}
    default = "end" if isinstance(of, Cron) else "shift"
    values = {
        "timezone": "" if of.timezone == "UTC" else of.timezone,
        "dst_gap": "" if of.dst_gap == default else of.dst_gap,
        "dst_overlap": "" if of.dst_overlap == "first" else of.dst_overlap,
        "unit": "minute",
    }
    if isinstance(of, Rrule):
        return {**values, "trigger": "rrule", "rrule": of.text, "timezone": of.timezone}
    return {**values, "trigger": "cron", "cron": of.expression}


def _fill_action(draft: Draft, of: Action | Step) -> None:
    values = draft.values
    if isinstance(of, Command):
        values |= {"action": "command", "command": of.command}
        draft.env = [Row(name, value) for name, value in of.masked().items()]
    elif isinstance(of, Operation):
        values |= {
            "action": "operation",
            "service": of.service,
            "endpoint": of.name,
            "url_params": _pretty(of.url_params),
            "query_params": _pretty(of.query_params),
            "req_body": _pretty(of.req_body),
            "cache": {True: "yes", False: "no"}.get(of.cache, "") if of.cache is not None else "",
        }
        draft.headers = [Row(name, v, is_secret(name)) for name, v in of.masked().items()]
    elif isinstance(of, Http):
        values |= {
            "action": "http",
            "url": of.url,
            "method": of.method or "",
            "payload": _pretty(of.payload) if of.json else of.payload or "",
            "follow_redirects": "on" if of.follow_redirects else "",
        }
        said = {name.lower() for name in of.secret_headers}
        draft.headers = [
            Row(name, value, name.lower() in said or is_secret(name))
            for name, value in of.masked().items()
        ]
        there = {name.lower() for name in of.header}
        more = [n for n in of.secret_headers if n.lower() not in there and not is_secret(n)]
        values["secret_more"] = ", ".join(more)


def _pretty(json: str | None) -> str:
    """Return JSON over several lines, its numbers as they are written; a deep one as it is."""
    if not json or len(json) > LONG or bodies.is_deep(json.encode()):
        return json or ""
    return msgspec.json.format(json, indent=2)


def _policy(of: Definition) -> dict[str, str]:
    policy, backoff = of.policy, of.policy.retry_backoff
    expected = policy.expected_status or ()
    return {
        "max_retries": _number(policy.max_retries),
        "backoff_initial": _number(backoff.initial_seconds) if backoff else "",
        "backoff_factor": _number(backoff.factor) if backoff else "",
        "backoff_max": _number(backoff.max_seconds) if backoff else "",
        "timeout_seconds": _number(policy.timeout_seconds),
        "expected_status": ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in expected),
        "overlap": policy.overlap or "",
        "misfire": policy.misfire or "",
        "misfire_grace_seconds": _number(policy.misfire_grace_seconds),
        "max_age_seconds": _number(policy.max_age_seconds),
        "max_concurrency": _number(policy.max_concurrency),
        "priority": _number(policy.priority or None),
    }


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.15g}"
