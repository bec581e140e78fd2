"""What each field of a body or an answer means, an example, and its bounds.

A field is looked up as `Schema.field`, then by its name alone: the same word means the same thing
everywhere. Bounds are those that the program checks; those of a field that may be null hold for
what is not.
"""

from scheduler.described import process_fields, spec_fields
from scheduler.described.room_fields import CALENDARS, REQUESTS, RUNS, SCHEDULES, SERVICES
from scheduler.described.said import Json
from scheduler.described.task_fields import TASKS

FIELDS: dict[str, Json] = {
    **TASKS, **RUNS, **SERVICES, **CALENDARS, **SCHEDULES, **REQUESTS, **spec_fields.SPECS,
    **process_fields.PROCESSES,
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
    "Impact": "The tasks that a spec's document does not fit.",
    "Misfit": "A task that calls what a spec's document has not, or not in this way.",
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
    **spec_fields.SCHEMAS,
    "Updated": "What an update answers.",
    "Usage": "What a service uses at the moment.",
    **process_fields.SCHEMAS,
    "Verified": "Whether every due instant became exactly one run, in the interval that is named.",
}


def of(schema: str, field: str) -> Json | None:
    """Return what is said of a field, or None."""
    base = "Task" if schema == "CreatedTask" else schema
    return FIELDS.get(f"{base}.{field}") or FIELDS.get(field)
