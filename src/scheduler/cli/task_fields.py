"""The fields of a task as flags, and what is sent for them."""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click

from scheduler.cli import completers, operation_fields
from scheduler.cli.failures import Usage
from scheduler.cli.options import In
from scheduler.cli.times import Time

Fields = dict[str, Any]
BACKOFF = ("initial_seconds", "factor", "max_seconds")


def _flag(section: str, field: str, *names: str, **more: Any) -> dict[str, Any]:
    declared = names or ("--" + field.replace("_", "-"),)
    return {"names": (*declared, field), "cls": In, "section": section, **more}


WHAT, WHEN, HOW = "What it does", "When it is due", "How it runs"
METHODS = ("GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "HEAD")
FLAGS = (
    _flag("Task", "name", "-n", "--name", help="Its name, 1 to 200 characters."),
    _flag("Task", "description", "-d", "--description", help="What it is for."),
    _flag("Task", "tags", "--tag", multiple=True, help="A word to filter by; repeatable."),
    _flag(
        "Task",
        "status",
        "-s",
        "--status",
        help="active, paused or disabled.",
        shell_complete=completers.words(*completers.TASK_STATUSES),
    ),
    _flag("Task", "paused_until", type=Time(), help="The end of a pause."),
    _flag(
        "Task",
        "unset",
        "--unset",
        multiple=True,
        metavar="FIELD",
        help="Send null for a field, like --unset cron; repeatable.",
    ),
    _flag(WHAT, "url", "--url", multiple=True, help="The address that it calls."),
    _flag(
        WHAT,
        "method",
        "--method",
        help="Default GET, POST with a payload.",
        shell_complete=completers.words(*METHODS),
    ),
    _flag(
        WHAT,
        "header",
        "-H",
        "--header",
        multiple=True,
        metavar="'NAME: VALUE'",
        help="A header; repeatable. An update replaces all of them.",
    ),
    _flag(
        WHAT,
        "secret_headers",
        "--secret-header",
        multiple=True,
        metavar="NAME",
        help="A header that is answered as ********; repeatable.",
    ),
    _flag(
        WHAT,
        "payload",
        "--payload",
        metavar="TEXT|@FILE",
        help="The body, as it is; @file reads it from a file, @- from standard input.",
    ),
    _flag(
        WHAT,
        "json",
        "--json",
        metavar="JSON|@FILE",
        fields=(),
        help="The body, an object or array, sent as application/json.",
    ),
    _flag(
        WHAT,
        "follow_redirects",
        "--follow-redirects/--no-follow-redirects",
        default=None,
        help="Default: it does not.",
    ),
    _flag(
        WHAT,
        "command",
        "-c",
        "--command",
        metavar="LINE",
        help="A line for sh, in place of a url, where the server runs commands.",
    ),
    _flag(
        WHAT,
        "env",
        "--env",
        multiple=True,
        metavar="NAME=VALUE",
        help="A variable of the command; repeatable. An update replaces all of them.",
    ),
    _flag(
        WHAT,
        "service",
        "--service",
        metavar="SPEC",
        help="A spec, in place of a url; with --endpoint.",
    ),
    _flag(
        WHAT,
        "endpoint",
        "--endpoint",
        metavar="'GET /PATH'",
        help="What of the spec is called, like 'GET /pets/{id}'.",
    ),
    _flag(
        WHAT,
        "query_params",
        "-q",
        "--query",
        multiple=True,
        metavar="NAME=VALUE",
        help="A query parameter of the endpoint; twice the same name is an array.",
    ),
    _flag(
        WHAT,
        "url_params",
        "-u",
        "--url-param",
        multiple=True,
        metavar="NAME=VALUE",
        help="What stands for {NAME} in the path; repeatable.",
    ),
    _flag(
        WHAT,
        "req_body",
        "--body",
        metavar="JSON|@FILE",
        help="The body of the endpoint's call, any JSON.",
    ),
    _flag(
        WHAT,
        "cache",
        "--cache/--no-cache",
        default=None,
        help="Take an answer that the cache holds; default: it does not.",
    ),
    _flag(WHEN, "frequency", type=int, metavar="N", help="Every N units; with --unit."),
    _flag(
        WHEN,
        "unit",
        "--unit",
        help="second, minute, hour, day or week.",
        shell_complete=completers.words("second", "minute", "hour", "day", "week"),
    ),
    _flag(WHEN, "cron", metavar="'M H D M W'", help="A cron expression."),
    _flag(WHEN, "rrule", metavar="RULE", help="A recurrence rule, like FREQ=DAILY;BYHOUR=9."),
    _flag(
        WHEN,
        "timezone",
        metavar="ZONE",
        help="Of the cron or rule, like Europe/Berlin; default UTC.",
    ),
    _flag(
        WHEN,
        "dst_gap",
        help="skip, shift or end, of a time that the clocks leave out.",
        shell_complete=completers.words("skip", "shift", "end"),
    ),
    _flag(
        WHEN,
        "dst_overlap",
        help="first, second or both, of a time that comes twice.",
        shell_complete=completers.words("first", "second", "both"),
    ),
    _flag(
        WHEN,
        "calendars",
        "--calendar",
        multiple=True,
        metavar="NAME",
        help="A calendar that it keeps clear of; repeatable.",
    ),
    _flag(
        WHEN,
        "scheduled_at",
        "-t",
        "--scheduled-at",
        type=Time(),
        help="Once at this time; or the first instant of --frequency.",
    ),
    _flag(WHEN, "start_at", type=Time(), help="Nothing is due before it."),
    _flag(WHEN, "end_at", type=Time(), help="Nothing is due after it."),
    _flag(WHEN, "max_runs", type=int, metavar="N", help="How many instants are ever due."),
    _flag(
        WHEN,
        "jitter_seconds",
        "--jitter",
        "--jitter-seconds",
        type=float,
        metavar="SECONDS",
        help="Spread tasks of one trigger over so long.",
    ),
    _flag(HOW, "max_retries", type=int, metavar="N", help="Tries after the first."),
    _flag(
        HOW,
        "retry_backoff",
        metavar="SECONDS[,FACTOR[,MOST]]",
        help="The wait before a retry, how it grows, and to what; 1,2,300.",
    ),
    _flag(
        HOW,
        "timeout_seconds",
        "--timeout",
        "--timeout-seconds",
        type=float,
        metavar="SECONDS",
        help="Of one attempt; default 30.",
    ),
    _flag(HOW, "expected_status", metavar="CODES", help="What success is: 200-299, 200,404."),
    _flag(
        HOW,
        "overlap",
        help="skip, queue or allow, while the run before is under way.",
        shell_complete=completers.words("skip", "queue", "allow"),
    ),
    _flag(HOW, "max_concurrency", type=int, metavar="N", help="With queue and allow."),
    _flag(
        HOW,
        "misfire",
        help="latest, all or skip, of what could not run in time.",
        shell_complete=completers.words("latest", "all", "skip"),
    ),
    _flag(
        HOW,
        "misfire_grace_seconds",
        "--misfire-grace",
        "--misfire-grace-seconds",
        type=float,
        metavar="SECONDS",
        help="How late is still in time; default 60.",
    ),
    _flag(
        HOW,
        "max_age_seconds",
        "--max-age",
        "--max-age-seconds",
        type=float,
        metavar="SECONDS",
        help="How late a run may still start.",
    ),
    _flag(HOW, "priority", type=int, metavar="N", help="-100 to 100; higher goes first."),
)


def task_flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add a flag for each field of a task, and --file."""
    for flag in reversed(FLAGS):
        more = dict(flag)
        command = click.option(*more.pop("names"), **more)(command)
    return click.option(
        "-f",
        "--file",
        metavar="FILE",
        type=click.Path(dir_okay=False, allow_dash=True),
        help="A task as JSON or YAML, - for standard input; flags win over it.",
    )(command)


def sent(given: dict[str, Any]) -> Fields:
    """Return the fields that flags give, and nothing for those that were not. Raises Usage."""
    fields = {k: v for k, v in given.items() if v is not None and v != ()}
    unset, text = fields.pop("unset", ()), fields.pop("json", None)
    for name, read in READ.items():
        if name in fields:
            fields[name] = read(fields[name])
    if text is not None:
        if "payload" in fields:
            raise Usage("--payload and --json are two bodies; give one")
        fields["payload"] = operation_fields.json("--json", _content(text))
    if "endpoint" in fields:
        fields |= operation_fields.endpoint(fields["endpoint"], fields.get("method"))
    for name in ("tags", "secret_headers", "calendars"):
        if name in fields:
            fields[name] = list(fields[name])
    for name in unset:
        field = name.replace("-", "_")
        if field in fields:
            raise Usage(f"--unset {name} and a value for it are two; give one")
        fields[field] = None
    return fields


def _headers(lines: tuple[str, ...]) -> dict[str, str]:
    found = dict[str, str]()
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            raise Usage("--header is 'NAME: VALUE', with a colon")
        found[name.strip()] = value.strip()
    return found


def _variables(lines: tuple[str, ...]) -> dict[str, str]:
    found = dict[str, str]()
    for line in lines:
        name, equals, value = line.partition("=")
        if not equals or not name:
            raise Usage("--env is NAME=VALUE, with an equals sign")
        found[name] = value
    return found


def _backoff(text: str) -> dict[str, float]:
    parts = text.split(",")
    try:
        if len(parts) <= len(BACKOFF):
            return {name: float(part) for name, part in zip(BACKOFF, parts, strict=False)}
    except ValueError:
        pass
    raise Usage("--retry-backoff is up to three numbers with commas between them, like 1,2,300")


def _content(text: str) -> str:
    """Return a text, or that of the file that is meant. Raises Usage."""
    if not text.startswith("@"):
        return text
    try:
        return read_file(text[1:]).decode()
    except UnicodeDecodeError:
        raise Usage(f"{text[1:]} is not UTF-8 text, and a payload is text") from None


READ: dict[str, Callable[[Any], Any]] = {
    "header": _headers,
    "env": _variables,
    "retry_backoff": _backoff,
    "payload": _content,
    "query_params": partial(operation_fields.parameters, "--query"),
    "url_params": partial(operation_fields.parameters, "--url-param"),
    "req_body": lambda text: operation_fields.json("--body", _content(text)),
}
"""How flags are read whose field is no text."""


def read_file(path: str) -> bytes:
    """Return what a file holds; `-` is standard input. Raises Usage."""
    try:
        if path == "-":
            return sys.stdin.buffer.read()
        return Path(path).read_bytes()
    except OSError as e:
        raise Usage(f"{path} cannot be read: {e.strerror}") from None
