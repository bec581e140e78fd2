"""`scheduler schedules`."""

import click

from scheduler.cli import Lazy

VERBS = {
    "create": ("schedule_change:create", "Create a schedule."),
    "list": ("schedule_show:list_schedules", "List schedules, the newest first."),
    "get": ("schedule_show:get", "Show a schedule."),
    "update": ("schedule_change:update", "Change what is given of a schedule."),
    "delete": ("schedule_change:delete", "Delete a schedule and its events to come."),
    "pending": ("schedule_show:pending", "List events that have not ended, the soonest first."),
    "history": ("schedule_show:history", "List events that have ended, the newest first."),
    "pause": ("schedule_change:pause", "Let nothing be due until you resume it."),
    "resume": ("schedule_change:resume", "End a pause."),
}


@click.group(
    "schedules", cls=Lazy, table=VERBS, context_settings={"help_option_names": ["-h", "--help"]}
)
def schedules_group() -> None:
    """Create, list and change schedules: tasks with an RRULE, and their events.

    \b
      scheduler schedules create -n "Daily backup" --rrule "FREQ=DAILY;INTERVAL=1" \\
          --callback-url http://127.0.0.1:9000/backup
      scheduler schedules list
      scheduler schedules pending 64b76c5986b6c9f24f1c0952

    Exit codes: 0 done, 1 refused by the API or failed, 2 wrong usage, 3 the server cannot be
    reached, 130 interrupted.
    """
