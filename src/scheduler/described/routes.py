"""What belongs to routes: their groups, what their parameters mean, and examples that work."""

import json
from typing import Any

from scheduler.described import process_fields, spec_fields
from scheduler.described.room_fields import HEADERS
from scheduler.described.said import INSTANT, LATER, RUN, SERVICE, TOKEN_ID

Json = dict[str, Any]

TITLE = "Scheduler"
ABOUT = """A self-hosted scheduler: a task is what to call and when, a run is one due instant of it.

Credentials are the headers `service_id` and `token`, or HTTP Basic with the same pair; press
Authorize to try calls from this page. Every refusal has one shape, and every answer the header
`X-Trace-Id`, which names the request in the logs. Times are RFC 3339, answered in UTC."""
SERVERS = [{"url": "/", "description": "This scheduler"}]
TAGS = {
    "Tasks": "What to do, and when.",
    "Runs": "The ledger: what became of every due instant, and why.",
    "Calendars": "Days and hours in which tasks that name them are not run.",
    "Schedules": "Tasks with an RRULE, and their events, under the names of an older program.",
    "Specs": "OpenAPI documents, whose endpoints can be called by name.",
    "Processes": "Asynchronous calls of the endpoints of specs.",
    "Services": "Tenants, their tokens and limits; for who has the setting `admin.token`.",
    "Health": "Whether the process works, for whatever watches it.",
}
PREFIXES = {
    "tasks": "Tasks", "runs": "Runs", "calendars": "Calendars", "api": "Schedules",
    "services": "Services",
}  # fmt: skip
"""The group of a route, by the first part of its address; any other is about health."""


UNDER = {"/v1/api/spec": "Specs", "/v1/api/scheduler": "Processes"}
"""The groups of what an older program has below one part with everything else."""


def tag(path: str) -> str:
    """Return the group that a route belongs to."""
    for beginning, group in UNDER.items():
        if f"{path}/".startswith(f"{beginning}/"):
            return group
    return PREFIXES.get(path.split("/")[1], "Health")


# Parameters --------------------------------------------------------------------------------------

PARAMETERS: dict[str, tuple[str, Any]] = {
    **spec_fields.PARAMETERS,
    **process_fields.PARAMETERS,
    "task_id": ("The id of a task.", "report"),
    "calendar": ("The name of a calendar.", "holidays"),
    "run_id": ("The id of a run, a UUID.", RUN),
    "schedule_id": ("The id of a schedule.", "backup"),
    "page": ("The page, from 1; what is no page is 1.", 1),
    "service": ("The id or name of a service.", "billing"),
    "status": ("Tasks of this status, or in this state.", "active"),
    "state": ("Tasks in this state.", "failed"),
    "list_runs.state": ("In one of these states, with commas between them.", "failed,expired"),
    "trigger": ("Tasks with this kind of trigger.", "cron"),
    "action": ("Tasks that do this kind of thing.", "http"),
    "tag": ("Tasks with this tag.", "billing"),
    "q": ("Words, or their beginnings, in name and url.", "report"),
    "list_runs.q": ("Words in the name and url of the task, or the id of a run.", "report"),
    "pageNumber": ("The page, from 0; what is no page of a task's executions is 0.", 0),
    "count": ("How many to answer; what is no count of a task's executions is 10.", 10),
    "from": ("The beginning of the time that is asked for, included.", INSTANT),
    "to": ("The end of the time that is asked for.", LATER),
    "at": ("The instant that is asked for.", INSTANT),
    "task": ("Runs of this task.", "report"),
    "reason": ("Runs that ended for this reason.", "overlap"),
    "kind": ("Runs of these kinds, with commas between them.", "task,manual"),
    "cursor": ("The `next_cursor` of the answer before.", ""),
    "limit": ("How many to answer at most.", 100),
    "async": ("Answer at once, with the run.", "true"),
    "retry": ("Try again where the call fails, as the task says.", "true"),
    "signing": ("Rotate the signing secret, not the token.", False),
    "token_id": ("The token to revoke.", TOKEN_ID),
}
"""By `operation.name`, else by the name alone: what it means, and an example."""


# Examples ----------------------------------------------------------------------------------------

NEW: Json = {
    "id": "report",
    "name": "Morning report",
    "url": "https://example.com/reports",
    "payload": {"month": "last"},
    "cron": "30 7 * * MON-FRI",
    "timezone": "Europe/Berlin",
}
TASK: Json = {
    "id": "report", "service_id": SERVICE, "name": "Morning report", "description": None,
    "tags": [], "status": "active", "state": "pending", "scheduled_at": INSTANT,
    "url": "https://example.com/reports", "method": "POST",
    "header": {}, "payload": '{"month": "last"}', "follow_redirects": False, "secret_headers": [],
    "frequency": None, "unit": None, "max_retries": None, "retry_backoff": None,
    "timeout_seconds": 30.0, "overlap": "skip", "misfire": "latest", "misfire_grace_seconds": 60.0,
    "max_age_seconds": None, "expected_status": None, "cron": "30 7 * * MON-FRI", "rrule": None,
    "timezone": "Europe/Berlin", "dst_gap": "end", "dst_overlap": "first", "calendars": [],
    "start_at": None, "end_at": None, "max_runs": None,
    "jitter_seconds": None, "command": None, "env": None, "service": None, "endpoint": None,
    "headers": None, "query_params": None, "url_params": None, "req_body": None, "cache": None,
    "paused_until": None,
    "max_concurrency": None, "priority": 0, "created_at": INSTANT, "updated_at": INSTANT,
}  # fmt: skip
EXECUTION: Json = {
    "id": "f23b5c4d-e106-50cd-8dab-395ead243bc1", "task_id": "report", "run_id": RUN, "attempt": 1,
    "status": "success", "status_code": 200, "response": "good morning\n", "error": None,
    "scheduled_for": INSTANT, "started_at": INSTANT, "finished_at": LATER, "created_at": INSTANT,
}  # fmt: skip
REQUEST: Json = {
    "method": "POST", "url": "https://example.com/reports", "header": {},
    "payload": '{"month": "last"}',
}  # fmt: skip
RUN_SHOWN: Json = {
    "id": RUN, "service_id": SERVICE, "kind": "task", "task_id": "report", "trace_id": None,
    "trigger": "cron", "scheduled_for": INSTANT, "state": "succeeded", "reason": None,
    "attempt": 1, "next_attempt_at": None, "created_at": INSTANT, "started_at": INSTANT,
    "finished_at": LATER, "lag_ms": 4, "duration_ms": 8, "request": REQUEST,
    "response": "good morning\n", "truncated": False, "count": None, "from": None, "to": None,
    "attempts": [{
        "number": 1, "started_at": INSTANT, "finished_at": LATER, "outcome": "succeeded",
        "status_code": 200, "error": None, "response": None, "truncated": False,
        "connected_ms": 0.4, "answered_ms": 7.2, "new_connection": False,
        "waited_ms": None,
    }],
}  # fmt: skip
LISTED: Json = {**RUN_SHOWN, "request": None, "response": None}
WAITING: Json = {
    **RUN_SHOWN, "kind": "manual", "trigger": None, "state": "running", "finished_at": None,
    "duration_ms": None, "response": None, "attempts": [],
}  # fmt: skip
CANCELLED: Json = {**WAITING, "state": "cancelled", "attempt": 0, "started_at": None,
                   "lag_ms": None, "finished_at": LATER, "reason": "cancelled"}  # fmt: skip
FILTER: Json = {"task": "report", "state": "failed", "dry_run": True}
DONE: Json = {"dry_run": True, "matched": 1, "more": False, "done": 0, "aborted": 0, "refused": {}}
PREVIEW: Json = {
    "timezone": "Europe/Berlin",
    "description": "At 07:30 on Monday through Friday, Europe/Berlin time",
    "occurrences": [
        {"at": "2027-02-01T06:30:00.000Z", "local": "2027-02-01T07:30:00.000+01:00", "note": None}
    ],
}
BACKFILLED: Json = {
    "task_id": "report", "dry_run": True, "from": "2026-01-01T00:00:00.000Z",
    "to": "2026-01-05T00:00:00.000Z", "matched": 2, "existing": 0, "excluded": 0, "forgotten": 0,
    "lacking": 2, "first": "2026-01-01T06:30:00.000Z", "last": "2026-01-02T06:30:00.000Z",
    "made": 0, "last_due": None, "next": None,
}  # fmt: skip
EXPLAINED: Json = {
    "task_id": "report", "at": INSTANT, "local": "2027-01-31T09:00:00.000+01:00",
    "timezone": "Europe/Berlin", "fires": False, "verdict": "rule",
    "reason": "The trigger yields no instant at this time.",
    "trigger": "At 07:30 on Monday through Friday, Europe/Berlin time", "matches": False,
    "note": None,
    "previous": {"at": "2027-01-29T06:30:00.000Z", "local": "2027-01-29T07:30:00.000+01:00",
                 "note": None},
    "next": {"at": "2027-02-01T06:30:00.000Z", "local": "2027-02-01T07:30:00.000+01:00",
             "note": None},
    "facts": [], "run": None,
}  # fmt: skip
SERVICE_SHOWN: Json = {
    "service_id": SERVICE, "name": "billing", "allow_commands": False, "max_tasks": 500,
    "max_runs_per_minute": None, "max_in_flight": None, "max_body_bytes": None,
    "max_kept_bytes": None,
    "created_at": INSTANT, "updated_at": INSTANT,
}  # fmt: skip
TOKENS = [{"id": TOKEN_ID, "created_at": INSTANT, "last_used_at": None, "revoked_at": None}]
LIMITS: Json = {
    "max_tasks": 500, "max_runs_per_minute": 0, "max_in_flight": 0, "max_body_bytes": 0,
    "max_kept_bytes": 1_073_741_824,
}  # fmt: skip
SERVICE_WHOLE: Json = {
    **SERVICE_SHOWN, "tokens": TOKENS, "limits": LIMITS,
    "usage": {"tasks": 12, "runs_per_minute": 0, "in_flight": 3, "kept_bytes": 52_480},
}  # fmt: skip
SERVICE_MADE: Json = {
    **SERVICE_SHOWN, "token": "the-token-shown-once", "token_id": TOKEN_ID,
    "signing_secret": "whsec_shown-once",
}  # fmt: skip
ROTATED: Json = {
    **SERVICE_SHOWN, "token": "the-token-shown-once", "token_id": TOKEN_ID, "tokens": TOKENS,
}  # fmt: skip
CALENDAR: Json = {
    "name": "holidays", "service_id": SERVICE, "description": "Days off.",
    "timezone": "Europe/Berlin",
    "dates": ["2026-05-01", {"from": "2026-12-24", "to": "2026-12-26"}],
    "weekly": [{"days": ["SAT", "SUN"], "from": None, "to": None}], "events": 0, "ical": None,
    "created_at": INSTANT, "updated_at": INSTANT,
}  # fmt: skip
EXCLUDED: Json = {
    "from": "2026-12-23T23:00:00.000Z", "to": "2026-12-27T23:00:00.000Z",
    "local_from": "2026-12-24T00:00:00.000+01:00", "local_to": "2026-12-28T00:00:00.000+01:00",
}  # fmt: skip
NIGHTLY = [
    {"id": f"nightly-{n}", "name": f"Nightly {n}", "url": "https://example.com/nightly",
     "cron": "0 3 * * *"}
    for n in (1, 2)
]  # fmt: skip
SCHEDULE: Json = {
    "id": "backup", "name": "Daily Backup", "rrule": "FREQ=DAILY;INTERVAL=1",
    "callback_url": "https://example.com/backup", "method": "POST", "headers": HEADERS,
    "body": '{"task":"backup"}',
}  # fmt: skip
SCHEDULE_SHOWN: Json = {
    **SCHEDULE, "headers": {**HEADERS, "Authorization": "********"}, "status": "active",
    "created_at": INSTANT, "updated_at": INSTANT,
}  # fmt: skip
QUEUED: Json = {
    "time": INSTANT,
    "status": "ready_queue",
    "message": "Event pre-queued for ready queue",
}
EVENT: Json = {
    "_id": RUN, "schedule_id": "backup", "run_time": INSTANT, "status": [QUEUED],
    "created_at": INSTANT,
}  # fmt: skip
PAST: Json = {
    **EVENT,
    "status": [
        QUEUED,
        {"time": INSTANT, "status": "worker_queue", "message": "Event dispatched to worker queue"},
        {"time": LATER, "status": "completed", "message": "Event successfully processed"},
    ],
}
ONE_PAGE: Json = {"page": 1, "limit": 10, "total": 1}

SENT: dict[str, Any] = {
    **spec_fields.SENT,
    **process_fields.SENT,
    "create_schedule": SCHEDULE,
    "change_schedule": {"name": "Updated Daily Backup", "rrule": "FREQ=DAILY;INTERVAL=2"},
    "create_task": NEW,
    "create_tasks": NIGHTLY,
    "change_task": {"status": "paused", "paused_until": "2027-01-04T00:00:00+01:00"},
    "preview_new_task": {"cron": "30 7 * * MON-FRI", "timezone": "Europe/Berlin"},
    "schedule_task": {"scheduled_at": INSTANT},
    "backfill_task": {
        "from": "2026-01-01T00:00:00Z",
        "to": "2026-01-05T00:00:00Z",
        "dry_run": True,
    },
    "replay_runs": FILTER,
    "cancel_runs": {**FILTER, "state": "scheduled"},
    "create_calendar": {
        "name": "holidays",
        "timezone": "Europe/Berlin",
        "dates": ["2026-05-01", {"from": "2026-12-24", "to": "2026-12-26"}],
        "weekly": [{"days": ["SAT", "SUN"]}, {"days": ["MON"], "from": "22:00", "to": "06:00"}],
    },
    "change_calendar": {"dates": ["2026-12-25"]},
    "create_service": {"name": "billing", "max_tasks": 500},
    "change_service": {"max_tasks": 1000},
    "rotate_service": {"signing": False},
    "revoke_service": {},
}
"""Bodies, by operation."""
ANSWERED: dict[str, dict[str, Any]] = {
    **spec_fields.ANSWERED,
    **process_fields.ANSWERED,
    "create_schedule": {"201": {"id": "backup"}},
    "list_schedules": {"200": {"schedules": [SCHEDULE_SHOWN], **ONE_PAGE}},
    "get_schedule": {"200": SCHEDULE_SHOWN},
    "change_schedule": {"200": {"message": "Schedule updated successfully."}},
    "delete_schedule": {"200": {"message": "Schedule and associated events deleted."}},
    "list_pending_events": {"200": {"events": [EVENT], **ONE_PAGE}},
    "list_past_events": {"200": {"events": [PAST], **ONE_PAGE}},
    "create_task": {"201": {**TASK, "task_id": "report", "message": "Task created successfully"}},
    "create_tasks": {"201": {"created": 2, "ids": ["nightly-1", "nightly-2"]}},
    "list_tasks": {"200": [TASK]},
    "list_scheduled": {"200": [TASK]},
    "get_task": {"200": TASK},
    "change_task": {"200": {**TASK, "status": "paused", "paused_until": LATER}},
    "list_executions": {
        "200": {"total_count": 1, "page_number": 0, "count": 10, "records": [EXECUTION]}
    },
    "execute_task": {"200": EXECUTION, "202": WAITING},
    "schedule_task": {
        "200": {"message": "Task scheduled successfully", "task_id": "report",
                "scheduled_at": INSTANT, "run_id": RUN}
    },
    "backfill_task": {"200": BACKFILLED},
    "explain_task": {"200": EXPLAINED},
    "preview_task": {"200": PREVIEW},
    "preview_new_task": {"200": PREVIEW},
    "list_runs": {"200": {"runs": [LISTED], "next_cursor": None}},
    "get_run": {"200": RUN_SHOWN},
    "replay_run": {"202": {**WAITING, "kind": "task", "state": "scheduled", "started_at": None}},
    "cancel_run": {"200": CANCELLED, "202": WAITING},
    "replay_runs": {"200": DONE},
    "cancel_runs": {"200": DONE},
    "verify_runs": {
        "200": {"from": INSTANT, "to": LATER, "checked": 1440, "missing": [], "doubled": [],
                "next_cursor": None}
    },
    "get_spec_impact": {
        "200": {"trace_id": "0iNULRtUjwi8DJoz", "name": "filmot", "status": "SUCCESS", "draft": 2,
                "compared": 2, "checked": 12, "next_cursor": None, "tasks": [
                    {"task_id": "report", "name": "Morning report", "field": "query_params",
                     "endpoint": "GET /getsearchsubtitles",
                     "reason": "query is required and must be specified"}]}
    },
    "create_calendar": {"201": CALENDAR},
    "list_calendars": {"200": [{k: v for k, v in CALENDAR.items() if k != "ical"}]},
    "get_calendar": {"200": CALENDAR},
    "change_calendar": {"200": CALENDAR},
    "list_excluded": {"200": [EXCLUDED]},
    "create_service": {"201": SERVICE_MADE},
    "list_services": {"200": [SERVICE_SHOWN]},
    "get_service": {"200": SERVICE_WHOLE},
    "change_service": {"200": SERVICE_WHOLE},
    "rotate_service": {"200": ROTATED},
    "revoke_service": {"200": {**SERVICE_SHOWN, "tokens": TOKENS}},
    "health": {"200": {"status": "ok"}},
    "ping": {"200": {"status": "ok"}},
    "ready": {"200": {"status": "ready"}},
    "show_metrics": {"200": "# HELP scheduler_runs_total Runs that have ended\n"},
}  # fmt: skip
"""Answers, by operation and status."""


def of(table: dict[str, Any], operation: str) -> Any:
    """Return what a table has of an operation; its methods and addresses share one entry."""
    found = [name for name in table if operation == name or operation.startswith(f"{name}_")]
    return table.get(max(found, key=len)) if found else None


def parameter(operation: str, name: str) -> tuple[str, Any] | None:
    """Return what is said of a parameter, and an example; or None."""
    return PARAMETERS.get(f"{operation}.{name}") or PARAMETERS.get(name)


def lines(sent: list[Any]) -> str:
    """Return a list as newline-delimited JSON."""
    return "\n".join(json.dumps(each) for each in sent)
