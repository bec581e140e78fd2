"""A task as text to be pasted elsewhere: its call for curl, and itself for the API and the CLI.

What is secret is masked in all of them. Words are quoted for a POSIX shell.
"""

import re
import shlex
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw

from scheduler.actions import Http
from scheduler.dashboard import bodies
from scheduler.dashboard.editor import fields, filling
from scheduler.definition import Definition

WIDE = 1 << 60
FLAGS = {
    "id": "--id", "name": "--name", "description": "--description", "tags": "--tag",
    "status": "--status", "paused_until": "--paused-until", "url": "--url", "method": "--method",
    "header": "--header", "secret_headers": "--secret-header", "payload": "--payload",
    "command": "--command", "env": "--env", "frequency": "--frequency", "unit": "--unit",
    "cron": "--cron", "rrule": "--rrule", "timezone": "--timezone", "dst_gap": "--dst-gap",
    "dst_overlap": "--dst-overlap", "calendars": "--calendar", "scheduled_at": "--scheduled-at",
    "start_at": "--start-at", "end_at": "--end-at", "max_runs": "--max-runs",
    "jitter_seconds": "--jitter", "max_retries": "--max-retries",
    "retry_backoff": "--retry-backoff", "timeout_seconds": "--timeout",
    "expected_status": "--expected-status", "overlap": "--overlap",
    "max_concurrency": "--max-concurrency", "misfire": "--misfire",
    "misfire_grace_seconds": "--misfire-grace", "max_age_seconds": "--max-age",
    "priority": "--priority",
}  # fmt: skip
"""The flags of `scheduler tasks create`, by field."""
TIMES = ("scheduled_at", "start_at", "end_at", "paused_until")
BACKOFF = {"initial_seconds": 1.0, "factor": 2.0, "max_seconds": 300.0}
LINES = 72
"""Characters from which on a command is written over several lines."""


def body(of: Definition, now: int) -> dict[str, Any]:
    """Return the body that makes this task again, its secrets masked."""
    draft = filling.of_task(of, now, WIDE)
    made = fields.body(draft)
    if isinstance(of.action, Http) and of.action.payload:
        made["payload"] = Raw(of.action.payload.encode()) if of.action.json else of.action.payload
    if made.get("status") == "active":
        del made["status"]
    return made


def as_json(made: Mapping[str, Any]) -> str:
    """Return a body as JSON, to be read; a long or deep one as it is."""
    written = msgspec.json.encode(made)
    return bodies.indented(written) or written.decode()


def as_request(made: Mapping[str, Any], url: str, service_id: str) -> str:
    """Return the curl command that creates a task; the token is for its reader to put in."""
    return _command(
        ["curl", f"{url}/tasks"],
        ["-H", f"service_id: {service_id}"],
        ["-H", "token: YOUR-TOKEN"],
        ["-H", "Content-Type: application/json"],
        ["--data-raw", msgspec.json.encode(made).decode()],
    )


def as_call(of: Http, timeout_s: float | None = None) -> str:
    """Return the curl command that makes a task's call, its secrets masked."""
    parts = [["curl", of.url]]
    if of.verb == "HEAD":
        parts.append(["--head"])
    elif of.verb != ("POST" if of.payload else "GET"):
        parts.append(["-X", of.verb])
    header = of.masked()
    said = {name.lower() for name in header}
    for name, value in header.items():
        parts.append(["-H", f"{name}: {value}" if value else f"{name};"])
    if of.payload:
        if "content-type" not in said:  # curl would add that of a form
            parts.append(["-H", "Content-Type: application/json" if of.json else "Content-Type:"])
        parts.append(["--data-raw", of.payload])
    if of.follow_redirects:
        parts.append(["-L"])
    if timeout_s is not None:
        parts.append(["--max-time", f"{timeout_s:.15g}"])
    return _command(*parts)


def as_line(made: Mapping[str, Any]) -> str:
    """Return the line of the CLI that creates a task; what no flag can say comes as a file."""
    parts = _flags(made)
    if parts is None:
        text = msgspec.json.encode(made).decode()
        return f"printf '%s\\n' {shlex.quote(text)} | scheduler tasks create --file -"
    return _command(["scheduler", "tasks", "create"], *parts)


def _flags(made: Mapping[str, Any]) -> list[list[str]] | None:
    """Return the flags of a body; None where they cannot say it."""
    parts = list[list[str]]()
    for name, value in made.items():
        if name == "follow_redirects":
            parts.append(["--follow-redirects"])
            continue
        if name == "payload" and isinstance(value, Raw):
            parts.append(["--json", bytes(value).decode()])
            continue
        words = _words(name, value) if name in FLAGS else None
        if words is None:
            return None
        parts += [[FLAGS[name], word] for word in words]
    return parts


def _words(name: str, value: Any) -> list[str] | None:
    """Return the values that a flag takes; None where it cannot."""
    if name == "header":
        odd = any(not re.fullmatch(r"[^:\s](?:[^:]*[^:\s])?", n) or v != v.strip()
                  for n, v in value.items())  # fmt: skip
        return None if odd else [f"{n}: {v}" for n, v in value.items()]
    if name == "env":
        return [f"{n}={v}" for n, v in value.items()]
    if name == "retry_backoff":
        return [",".join(f"{value.get(n, usual):.15g}" for n, usual in BACKOFF.items())]
    if name == "payload" and value.startswith("@"):
        return None
    if isinstance(value, list):
        return value
    return [f"{value:.15g}" if isinstance(value, float) else str(value)]


def _command(*parts: list[str]) -> str:
    """Return a command, over several lines where it is long."""
    written = [shlex.join(part) for part in parts]
    line = " ".join(written)
    return line if len(line) <= LINES else " \\\n  ".join(written)
