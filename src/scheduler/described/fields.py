"""What each field of a body or an answer means, an example, and its bounds.

A field is looked up as `Schema.field`, then by its name alone: the same word means the same thing
everywhere. Bounds are those that the program checks; those of a field that may be null hold for
what is not.
"""

from typing import Any

Json = dict[str, Any]


def said(description: str, *examples: Any, **bounds: Any) -> Json:
    """Return what is added to a field's schema; bounds by their names in JSON Schema."""
    return {"description": description, "examples": list(examples), **bounds}


INSTANT = "2027-01-31T08:00:00.000Z"
LATER = "2027-01-31T08:00:00.412Z"
SERVICE = "4f5b8f0e-7f0a-4a52-9d0c-0b7f7d1d3c11"
RUN = "019b7f3c-1a00-8d3e-9ea9-17673af662f2"
TOKEN_ID = "b2a5c7f1-52a5-4a54-9f0e-6f1f6d6f2a10"  # noqa: S105
YEAR_S = 31_536_000
DAY_S = 86_400
STATUSES = ["active", "paused", "disabled"]
STATES = ["created", "pending", "running", "completed", "failed"]
NOT_YET = "Of a later version: null alone is taken, and answered."
IGNORED = "Answered alone; taken and ignored, so that an answer may be sent back whole."


def not_yet(*names: str) -> dict[str, Json]:
    """Say of fields that their time has not come."""
    return {name: said(NOT_YET, None, type="null") for name in names}


def ignored(schema: str, *names: str) -> dict[str, Json]:
    """Say of fields that they are answered, and ignored where they are sent."""
    return {f"{schema}.{name}": said(IGNORED, None) for name in names}


TASKS = {
    "id": said("1 to 64 letters, digits, - and _; chosen at creation, else a UUID.", "report"),
    "name": said("What people call it.", "Morning report", minLength=1, maxLength=200),
    "TaskFields.description": said("What it is for; 10,000 characters at most.",
                                   "Mails the figures of the day before."),
    "Task.description": said("What it is for.", "Mails the figures of the day before."),
    "tags": said("Words to filter by.", ["billing"]),
    "TaskFields.tags": said("Words to filter by.", ["billing"], maxItems=50),
    "url": said("What is called: http or https.", "https://example.com/reports"),
    "method": said("GET, POST, PUT, DELETE, OPTIONS, PATCH or HEAD; GET, and POST with a payload, "
                   "where none is given.", "POST"),
    "header": said("Headers of the call. Secret ones are answered as `********`, and that value, "
                   "sent back, keeps what is stored.", {"Accept": "application/json"},
                   additionalProperties={"type": "string"}),
    "headers": said("The same as `header`, as an object or a list of pairs; `header` wins.",
                    [{"key": "Accept", "value": "application/json"}],
                    additionalProperties={"type": "string"}),
    "payload": said("The body of the call: text, or an object or array that is sent as JSON.",
                    '{"month": "last"}'),
    "follow_redirects": said("Whether a redirect is followed.", False, default=False),
    "secret_headers": said("Names of headers whose values are never shown; Authorization, Cookie "
                           "and names with token, secret or key are secret anyway.",
                           ["X-Signature"]),
    "command": said("A line for `sh -c`, in place of a `url`; 64 KiB at most.", "echo hello"),
    "TaskFields.env": said("Variables of a command, beside a clean environment: an object of "
                           "strings, 100 at most. Those whose names say token, secret, key or "
                           "password are answered as `********`, and that value, sent back, keeps "
                           "what is stored.", {"LANG": "C.UTF-8"},
                           additionalProperties={"type": "string"}),
    "env": said("Variables of the command, secrets masked.", {"LANG": "C.UTF-8"}),
    "frequency": said("With `unit`: how often it is due.", 15, minimum=1),
    "unit": said("Of `frequency`: second, minute, hour, day (24 hours) or week.", "minute"),
    "scheduled_at": said("When it is due next; null where nothing is to come.", INSTANT,
                         format="date-time"),
    "TaskFields.scheduled_at": said("Alone: when it is due, once. With a frequency: the first "
                                    "time, from which the others are counted.", INSTANT),
    "cron": said("Five fields, or six with seconds; also L, W and #.", "30 7 * * MON-FRI"),
    "rrule": said("RFC 5545: RRULE, RDATE, EXDATE and EXRULE, with DTSTART before them, inline, or "
                  "none for the moment of creation.", "FREQ=WEEKLY;BYDAY=MO,FR;BYHOUR=9"),
    "timezone": said("The IANA zone in which `cron` or `rrule` is read.", "Europe/Berlin"),
    "TaskFields.timezone": said("The IANA zone in which `cron` is read, and `rrule` where it names "
                                "none.", "Europe/Berlin", default="UTC"),
    "dst_gap": said("Of a fixed time that does not exist because the clock is put forward: `skip`, "
                    "`shift` (02:30 is 03:30) or `end` (02:30 is 03:00).", "shift",
                    enum=["skip", "shift", "end"]),
    "TaskFields.dst_gap": said("Of a fixed time that does not exist because the clock is put "
                               "forward: `skip`, `shift` (02:30 is 03:30, the default of `rrule`) "
                               "or `end` (02:30 is 03:00, the default of `cron`).", "shift",
                               enum=["skip", "shift", "end", ""]),
    "dst_overlap": said("Of a fixed time that comes twice because the clock is put back: `first`, "
                        "`second` or `both`.", "first", enum=["first", "second", "both"]),
    "TaskFields.dst_overlap": said("Of a fixed time that comes twice because the clock is put "
                                   "back: `first`, `second` or `both`.", "first",
                                   enum=["first", "second", "both", ""], default="first"),
    "start_at": said("Nothing is due before.", INSTANT, format="date-time"),
    "TaskFields.start_at": said("Nothing is due before.", INSTANT),
    "end_at": said("Nothing is due after.", INSTANT, format="date-time"),
    "TaskFields.end_at": said("Nothing is due after.", INSTANT),
    "max_runs": said("So many instants at most.", 12, minimum=1, maximum=1_000_000_000),
    "jitter_seconds": said("Every instant is later by a part of this, the same for a task always.",
                           60, minimum=0, maximum=DAY_S),
    "TaskFields.status": said("Whether it runs. `paused`: what would be due is not run, and not "
                              "caught up. `disabled`: by hand neither.", "active",
                              enum=[*STATUSES, *STATES, ""], default="active"),
    "Task.status": said("Whether it runs.", "active", enum=STATUSES),
    "paused_until": said("When a pause ends by itself.", INSTANT, format="date-time"),
    "TaskFields.paused_until": said("When a pause ends by itself.", INSTANT),
    "state": said("How it stands: something is under way, is to come, or how the last run ended.",
                  "pending", enum=STATES),
    "max_retries": said("Tries after the first; null for the setting `worker.max_retries`.", 3,
                        minimum=0, maximum=100),
    "retry_backoff": said("How long to wait before the next try: a random part of initial * "
                          "factor ** tries, and of `max_seconds` at most.",
                          {"initial_seconds": 1, "factor": 2, "max_seconds": 300}),
    "timeout_seconds": said("How long one attempt may take, all told.", 30, minimum=0.001,
                            maximum=DAY_S),
    "TaskFields.timeout_seconds": said("How long one attempt may take, all told.", 30,
                                       minimum=0.001, maximum=DAY_S, default=30),
    "overlap": said("What an instant does while the run before is under way.", "skip",
                    enum=["skip", "allow", "queue"]),
    "TaskFields.overlap": said("What an instant does while the run before is under way: `skip`, "
                               "`allow`, or `queue`, a hundred at most.", "skip",
                               enum=["skip", "allow", "queue", ""], default="skip"),
    "misfire": said("What becomes of instants that nothing could run in time.", "latest",
                    enum=["latest", "all", "skip"]),
    "TaskFields.misfire": said("What becomes of instants that nothing could run for "
                               "`misfire_grace_seconds`: the last is run, all are, or none.",
                               "latest", enum=["latest", "all", "skip", ""], default="latest"),
    "misfire_grace_seconds": said("How late an instant may be and still counts as on time.", 60,
                                  minimum=0, maximum=YEAR_S),
    "max_age_seconds": said("How late a run may still start; later it is `expired`.", 3600,
                            minimum=0.001, maximum=YEAR_S),
    "expected_status": said("The statuses that are a success; 200 to 299 where none are given.",
                            [200, "300-399"]),
    "max_concurrency": said("How many runs may be under way at once, with `queue` and `allow`.", 4,
                            minimum=1, maximum=1000),
    "priority": said("Of what is due and waits, higher goes first.", 0, minimum=-100, maximum=100),
    "TaskFields.priority": said("Of what is due and waits, higher goes first.", 0, minimum=-100,
                                maximum=100, default=0),
    "task_id": said("The id of the task.", "report"),
    "message": said("What happened, in a sentence; of a task, what is wrong with it.",
                    "Task created successfully"),
    "created_at": said("When it was made.", INSTANT, format="date-time"),
    "updated_at": said("When it was changed last.", INSTANT, format="date-time"),
    "service_id": said("The id of the service that it belongs to.", SERVICE, format="uuid"),
    "KeyValue.key": said("The name of the header.", "Accept"),
    "KeyValue.value": said("Its value, a text.", "application/json"),
    "ShownBackoff.initial_seconds": said("The first wait.", 1),
    "ShownBackoff.factor": said("By how much each wait is longer than the one before.", 2),
    "ShownBackoff.max_seconds": said("The longest wait.", 300),
    "At.scheduled_at": said("When to run; the past is now.", INSTANT),
    "At.at": said("A shorter name for `scheduled_at`.", INSTANT),
    "Backfill.from": said("The first instant that may be made up for, included.",
                          "2026-01-01T00:00:00Z"),
    "Backfill.to": said("The last one, included; not after now.", "2026-01-02T00:00:00Z"),
    "Backfill.dry_run": said("Count, and make nothing.", True, default=False),
    "Backfill.per_minute": said("How many of the runs fall due in a minute; null for the setting "
                                "`tasks.backfill_per_minute`.", 60, minimum=1, maximum=60_000),
    "Backfilled.dry_run": said("Whether it was only counted.", True),
    "Backfilled.from": said("From when on was looked.", INSTANT, format="date-time"),
    "Backfilled.to": said("Up to when was looked; before what was sent where the task's plan ends "
                          "there, or where `next` says more.", INSTANT, format="date-time"),
    "Backfilled.matched": said("Instants of the trigger in there.", 24),
    "existing": said("Of those, that have a run.", 20),
    "excluded": said("Of those, that a calendar excludes.", 0),
    "forgotten": said("Of those, due longer ago than history is kept: what became of them is not "
                      "known.", 0),
    "lacking": said("Of those, that have no run.", 4),
    "first": said("The first that has none.", INSTANT, format="date-time"),
    "last": said("The last that has none.", INSTANT, format="date-time"),
    "made": said("How many runs were made.", 4),
    "last_due": said("When the last of the runs made is due.", INSTANT, format="date-time"),
    "Backfilled.next": said("Where there is more to look at: the `from` to go on with.", None,
                            format="date-time"),
    "Explained.at": said("The instant that was asked for.", INSTANT, format="date-time"),
    "local": said("The instant in the zone of the trigger.", "2027-01-31T09:00:00.000+01:00"),
    "Explained.timezone": said("The zone in which the trigger is read.", "Europe/Berlin"),
    "fires": said("Whether a run started then, is to, or will.", True),
    "verdict": said("Why, in a word: `due`; the state or the reason of what the ledger has; "
                    "`rule`, `start_at`, `end_at`, `max_runs`, `calendar`, `paused`, `disabled`, "
                    "`misfire`, `no_trigger`, `damaged`; `not_created`, `edited`, `forgotten`, "
                    "`missing`.", "succeeded"),
    "Explained.reason": said("Why, in a sentence.", "It ran, and succeeded."),
    "Explained.trigger": said("The trigger in words.", "At 02:30 every day, Europe/Berlin time"),
    "matches": said("Whether the trigger yields the instant, whatever else stands against it.",
                    True),
    "note": said("What daylight saving or a calendar did to it.",
                 "02:30 does not exist on this day; fires at 03:00"),
    "previous": said("The instant of the trigger before it, within its bounds.", None),
    "Explained.next": said("The instant of the trigger after it, within its bounds.", None),
    "facts": said("What else is to be known, in sentences.", []),
    "run": said("What the ledger has of it: its run, or the row of skipped instants that it lies "
                "in.", None),
    "ExplainedRun.id": said("The id of the run.", RUN, format="uuid"),
    "ExplainedRun.state": said("Where it stands, or how it ended.", "succeeded"),
    "ExplainedRun.count": said("Of skipped instants: how many the row stands for.", None),
    "ExplainedRun.from": said("Of skipped instants: the first of them.", None,
                              format="date-time"),
    "ExplainedRun.to": said("Of skipped instants: the last of them.", None, format="date-time"),
    "ExplainedRun.url": said("Where it is to be read.", f"/runs/{RUN}"),
    "Scheduled.scheduled_at": said("When it runs.", INSTANT, format="date-time"),
    "CreatedTasks.created": said("How many were made.", 2),
    "CreatedTasks.ids": said("Their ids, in the order of the body.", ["nightly-1", "nightly-2"]),
    "Preview.timezone": said("The zone in which the trigger is read.", "Europe/Berlin"),
    "Preview.description": said("The trigger in words.", "At 02:30 every day, Europe/Berlin time"),
    "Preview.occurrences": said("The instants, the soonest first.", []),
    "Occurrence.at": said("The instant, in UTC.", INSTANT, format="date-time"),
    "Occurrence.local": said("The same in the zone of the trigger.",
                             "2027-01-31T09:00:00.000+01:00"),
    "Occurrence.note": said("What daylight saving did to it.",
                            "02:30 does not exist on this day; fires at 03:00"),
    **not_yet("service", "endpoint", "query_params", "url_params", "req_body"),
    **ignored("TaskFields", "task_id", "message", "service_id", "state", "created_at",
              "updated_at"),
}  # fmt: skip

RUNS = {
    "ShownRun.id": said("The id, the same on every attempt and replay.", RUN, format="uuid"),
    "Execution.id": said("The id of the attempt.", "f23b5c4d-e106-50cd-8dab-395ead243bc1",
                         format="uuid"),
    "run_id": said("The id of the run.", RUN),
    "attempt": said("The number of the attempt, from 1; of a run, of the last.", 1),
    "Execution.status": said("How the attempt ended, or that it has not.", "success",
                             enum=["started", "success", "failed"]),
    "status_code": said("The status that the target answered with; of a command its exit code, "
                        "128 and the signal where one ended it.", 200),
    "response": said("The body of the answer, or a command's output, to a limit; of an earlier "
                     "attempt its beginning.",
                     "good morning\n"),
    "error": said("Why the attempt failed.", "the target answered 503, expected 200-299"),
    "scheduled_for": said("The instant that it is of; it never changes.", INSTANT,
                          format="date-time"),
    "started_at": said("When it began to be sent.", INSTANT, format="date-time"),
    "finished_at": said("When it ended.", LATER, format="date-time"),
    "total_count": said("How many attempts there are.", 1),
    "page_number": said("The page, from 0.", 0),
    "Executions.count": said("How many fit on a page.", 10),
    "records": said("The attempts, the newest first.", []),
    "kind": said("What made it: a trigger, somebody by hand, a process, or a step of a spec.",
                 "task", enum=["task", "manual", "process", "spec"]),
    "trace_id": said("Of a process; of a later version.", None),
    "trigger": said("The kind of the trigger that made it.", "interval"),
    "ShownRun.state": said("Where it stands, or how it ended.", "succeeded",
                           enum=["scheduled", "running", "retrying", "succeeded", "failed",
                                 "skipped", "expired", "cancelled"]),
    "reason": said("Why it ended otherwise than well.", "overlap"),
    "next_attempt_at": said("When it is tried next.", INSTANT, format="date-time"),
    "lag_ms": said("From `scheduled_for` to its first start, in milliseconds.", 4),
    "duration_ms": said("What the last attempt took, in milliseconds.", 8),
    "request": said("What is sent, or given to the shell, as its task stood at the last attempt, "
                    "secrets masked.", None),
    "truncated": said("There was more of the response than is kept.", False),
    "ShownRun.count": said("Of a gap of skipped instants: how many it stands for.", 3),
    "ShownRun.from": said("Of a gap: the first of them.", INSTANT, format="date-time"),
    "ShownRun.to": said("Of a gap: the last of them.", INSTANT, format="date-time"),
    "attempts": said("Its attempts, the first one first.", []),
    "number": said("From 1.", 1),
    "outcome": said("How the attempt ended.", "succeeded",
                    enum=["succeeded", "failed", "unknown", "cancelled"]),
    "runs": said("The runs, the newest first.", []),
    "next_cursor": said("Where the list goes on; null at its end.", None),
    "Which.task": said("Of this task.", "report"),
    "Which.state": said("In one of these states, with commas between them.", "failed,expired"),
    "Which.reason": said("That ended for this reason.", "overlap"),
    "Which.kind": said("Of these kinds, with commas between them.", "task,manual"),
    "Which.from": said("Scheduled for this time or later.", INSTANT),
    "Which.to": said("Scheduled for an earlier time.", INSTANT),
    "Which.q": said("Words in the name or url of the task, or the id of a run.", "report"),
    "Which.dry_run": said("Count, and do nothing.", True),
    "Done.dry_run": said("Whether it was only counted.", True),
    "matched": said("How many runs fit, 10,000 at most.", 1),
    "more": said("There are others: call again.", False),
    "done": said("Replayed, or cancelled before they started.", 1),
    "aborted": said("Under way, and told to end.", 0),
    "refused": said("Why some stayed as they were, and how many.", {}),
    "at": said("The instant.", INSTANT, format="date-time"),
    "Doubled.runs": said("How many runs it has.", 2),
    "Verified.from": said("The beginning of what was looked at.", INSTANT, format="date-time"),
    "Verified.to": said("The end of what was looked at.", LATER, format="date-time"),
    "checked": said("How many due instants were compared.", 1440),
    "missing": said("Due instants that have no run and lie in no gap.", []),
    "doubled": said("Due instants that have more than one run.", []),
}  # fmt: skip

SERVICES = {
    "ServiceFields.name": said("What it is called; no colon, and not a UUID.", "billing"),
    "ShownService.name": said("What it is called.", "billing"),
    "ShownService.service_id": said("Its id.", SERVICE, format="uuid"),
    "token": said("The token; only where it was made just now.", "the-token-shown-once"),
    "token_id": said("The id of a token, which is not the token.", TOKEN_ID),
    "signing_secret": said("What calls are signed with; only where it was made just now.",
                           "whsec_shown-once"),
    "allow_commands": said("Whether it may run commands.", False),
    "max_tasks": said("How many tasks it may have; 0 for no limit, null for the setting.", 500),
    "max_runs_per_minute": said("How many runs requests may make a minute; 0 for no limit, null "
                                "for the setting.", 600),
    "max_in_flight": said("How many runs it may have under way; 0 for no limit, null for the "
                          "setting.", 50),
    "max_body_bytes": said("How large its requests may be; 0 for no limit, null for the setting.",
                           1_048_576),
    "tokens": said("Its tokens, the newest first.", []),
    "limits": said("The limits in force.", None),
    "usage": said("What it uses now.", None),
    "ShownToken.id": said("The id of the token.", TOKEN_ID, format="uuid"),
    "last_used_at": said("When it was used last.", INSTANT, format="date-time"),
    "revoked_at": said("When it was revoked.", None, format="date-time"),
    "tasks": said("How many tasks it has, counted to 10,000.", 12),
    "runs_per_minute": said("How many runs of the last minute still count.", 0),
    "in_flight": said("How many runs are under way, counted to 10,000.", 3),
    "Rotate.signing": said("The signing secret, not the token.", False),
    "Revoke.token_id": said("The token to revoke; without it every live one but the newest.",
                            TOKEN_ID),
    **ignored("ServiceFields", "service_id", "token", "token_id", "signing_secret", "tokens",
              "limits", "usage", "created_at", "updated_at"),
}  # fmt: skip

CALENDARS = {
    "calendars": said("Names of calendars: what they exclude is not run.", ["holidays"]),
    "TaskFields.calendars": said("Names of the service's calendars: what they exclude is not run.",
                                 ["holidays"], maxItems=20),
    "CalendarFields.name": said("1 to 64 letters, digits, - and _; it stays.", "holidays"),
    "Calendar.name": said("What tasks call it.", "holidays"),
    "CalendarFields.description": said("What it is for; 10,000 characters at most.", "Days off."),
    "Calendar.description": said("What it is for.", "Days off."),
    "CalendarFields.timezone": said("The IANA zone of its days and hours.", "Europe/Berlin",
                                    default="UTC"),
    "Calendar.timezone": said("The IANA zone of its days and hours.", "Europe/Berlin"),
    "CalendarFields.dates": said("Days, and ranges of days with both ends.", ["2026-12-25"],
                                 maxItems=1000),
    "Calendar.dates": said("Days, and ranges of days with both ends.", ["2026-12-25"]),
    "CalendarFields.weekly": said("Parts of each week.", [{"days": ["SAT", "SUN"]}], maxItems=50),
    "Calendar.weekly": said("Parts of each week.", [{"days": ["SAT", "SUN"]}]),
    "CalendarFields.ical": said("An iCalendar file (RFC 5545): what lies in its events is "
                                "excluded. 262,144 characters and 2,000 events at most.", None),
    "Calendar.ical": said("The file as it was sent; left out in lists.", None),
    "Calendar.events": said("How many times are read from the file; one that recurs is one.", 0),
    "Dates.from": said("The first day.", "2026-12-24"),
    "Dates.to": said("The last day.", "2026-12-26"),
    "days": said("MON, TUE, WED, THU, FRI, SAT, SUN.", ["SAT", "SUN"], minItems=1),
    "Week.from": said("From this time of the day on; null for midnight.", "22:00"),
    "Week.to": said("Until this time, on the next day where it is not later.", "06:00"),
    "Stretch.from": said("Its beginning, excluded.", INSTANT, format="date-time"),
    "Stretch.to": said("Its end, which is not.", LATER, format="date-time"),
    "local_from": said("The beginning in the zone of the calendar.",
                       "2027-01-31T09:00:00.000+01:00"),
    "local_to": said("The end in the zone of the calendar.", "2027-01-31T09:00:00.412+01:00"),
    **ignored("CalendarFields", "service_id", "events", "created_at", "updated_at"),
}  # fmt: skip

HEADERS = {"Authorization": "Bearer abc123", "Content-Type": "application/json"}
SCHEDULES = {
    "ScheduleFields.id": said("1 to 64 letters, digits, - and _; chosen at creation, else a UUID. "
                              "Ignored in an update.", "backup"),
    "ScheduleFields.rrule": said("A rule of RFC 5545, with its DTSTART before it, inline, or none.",
                                 "FREQ=DAILY;INTERVAL=1"),
    "Schedule.rrule": said("The rule, as it was written.", "FREQ=DAILY;INTERVAL=1"),
    "ScheduleFields.timezone": said("The IANA zone of a rule that names none.", "Europe/Berlin",
                                    default="UTC"),
    "callback_url": said("What is called: http or https.", "https://example.com/backup"),
    "ScheduleFields.method": said("GET, POST, PUT, DELETE, OPTIONS, PATCH or HEAD.", "POST",
                                  default="POST"),
    "ScheduleFields.headers": said("Headers of the call, as an object or a list of pairs. Secret "
                                   "ones are answered as `********`, and that value, sent back, "
                                   "keeps what is stored.", HEADERS,
                                   additionalProperties={"type": "string"}),
    "Schedule.headers": said("Headers of the call, secrets masked.",
                             {**HEADERS, "Authorization": "********"}),
    "body": said("The body of the call: text, or an object or array that is sent as JSON.",
                 '{"task":"backup"}'),
    "ScheduleFields.status": said("Whether it runs. `paused`: its events are skipped, and not "
                                  "caught up. `disabled`: it has none.", "active",
                                  enum=[*STATUSES, *STATES, ""], default="active"),
    "Schedule.status": said("Whether it runs.", "active", enum=STATUSES),
    "schedules": said("The schedules, the newest first.", []),
    "events": said("The events.", []),
    "page": said("The page, from 1.", 1),
    "limit": said("How many fit on a page.", 10),
    "total": said("How many there are.", 1),
    "_id": said("The id of the event, which is that of its run.", RUN, format="uuid"),
    "schedule_id": said("The id of its schedule.", "backup"),
    "run_time": said("The instant that it is of; of a gap, the first.", INSTANT,
                     format="date-time"),
    "Event.status": said("What became of it, the first first; the list grows.", []),
    "time": said("When it came to that.", INSTANT, format="date-time"),
    "EventStatus.status": said("The word for it.", "ready_queue",
                               enum=["ready_queue", "worker_queue", "completed", "error",
                                     "skipped", "expired", "cancelled"]),
    "EventStatus.message": said("What that means, or why.", "Event pre-queued for ready queue"),
    "Updated.message": said("That it is done.", "Schedule updated successfully."),
    "Deleted.message": said("That it is done.", "Schedule and associated events deleted."),
    **ignored("ScheduleFields", "task_id", "message", "service_id", "state", "created_at",
              "updated_at"),
}  # fmt: skip

REQUESTS = {
    "ShownRequest.method": said("The method.", "POST"),
    "ShownRequest.url": said("The address, secrets masked.", "https://example.com/reports"),
    "ShownRequest.header": said("The headers, secrets masked.", {"Accept": "application/json"}),
    "ShownRequest.command": said("Of a command: the line for `sh -c`.", "echo hello"),
    "ShownRequest.payload": said("The body.", '{"month": "last"}'),
}
FIELDS: dict[str, Json] = {
    **TASKS, **RUNS, **SERVICES, **CALENDARS, **SCHEDULES, **REQUESTS,
}  # fmt: skip

TIMES = {
    "Backfill": ("from", "to"),
    "TaskFields": ("scheduled_at", "start_at", "end_at", "paused_until"),
    "At": ("scheduled_at", "at"),
}
"""Times that are sent: RFC 3339 with an offset, or the empty text for none."""
SCHEMAS = {
    "Backfilled": "What has no run of a task's instants that have passed, and what was made.",
    "Calendar": "Times in which tasks that name it are not run.",
    "CreatedSchedule": "A schedule just created.",
    "CreatedTask": "A task just created.",
    "Dates": "Days from the first to the last.",
    "Stretch": "A time that is excluded.",
    "Week": "A part of some days of each week; without times all of the day.",
    "CreatedTasks": "What a bulk create made.",
    "Deleted": "What a deletion answers.",
    "Done": "How many runs a filter meant, and what became of them.",
    "Doubled": "A due instant that has more than one run.",
    "Event": "One event of a schedule: a run of it under the names of an older program.",
    "EventStatus": "What became of an event, and when.",
    "Events": "A page of a schedule's events.",
    "Execution": "One attempt of a run of a task.",
    "Executions": "A page of a task's attempts.",
    "Limits": "What a service may use; 0 for no limit.",
    "Explained": "Why a task fires at an instant, or why not.",
    "ExplainedRun": "What the ledger has of an instant.",
    "Missing": "A due instant that has no run and lies in no gap.",
    "NearInstant": "An instant of the trigger beside the one that is asked for.",
    "Occurrence": "An instant in UTC and in the task's zone.",
    "Preview": "What a trigger yields.",
    "RunList": "A page of the ledger, the newest first.",
    "Schedule": "A task whose trigger is an RRULE, under the names of an older program.",
    "ScheduleFields": "What can be sent of a schedule; an update changes what it sends.",
    "Scheduled": "The run that a schedule made, or found made already.",
    "Schedules": "A page of schedules, the newest first.",
    "ShownAttempt": "One try of a run.",
    "ShownBackoff": "The wait before the next try.",
    "ShownRequest": "What is sent to the target, but for the headers that every call carries; of a "
    "command what the shell is given, `command` and `env` alone.",
    "ShownRun": "One due instant of a task, or one run by hand; it ends once.",
    "ShownService": "A tenant: everything belongs to exactly one.",
    "ShownToken": "A token as it is listed: never the token, and never its hash.",
    "Task": "What to do and when: every field, null where unset.",
    "Updated": "What an update answers.",
    "Usage": "What a service uses at the moment.",
    "Verified": "Whether every due instant became exactly one run, in the interval that is named.",
}


def of(schema: str, field: str) -> Json | None:
    """Return what is said of a field, or None."""
    base = "Task" if schema == "CreatedTask" else schema
    return FIELDS.get(f"{base}.{field}") or FIELDS.get(field)
