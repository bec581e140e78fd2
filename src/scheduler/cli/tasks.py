"""`scheduler tasks`, which is `taskctl` as well."""

import click

from scheduler.cli import Lazy

VERBS = {
    "create": ("task_change:create", "Create a task, or all tasks of a file."),
    "list": ("task_show:list_tasks", "List tasks, the newest first."),
    "get": ("task_show:get", "Show a task."),
    "update": ("task_change:update", "Change what is given of a task."),
    "delete": ("task_change:delete", "Delete a task and its future runs."),
    "execute": ("task_run:execute", "Run a task now."),
    "schedule": ("task_run:schedule", "Run a task at a time of your own."),
    "scheduled": ("task_show:scheduled", "List what fires in the next 24 hours, or in a range."),
    "preview": ("task_preview:preview", "Show what a trigger yields, of a task saved or not."),
    "explain": ("task_explain:explain", "Say why a task fires at an instant, or why not."),
    "backfill": ("task_backfill:backfill", "Make runs for instants that have passed without one."),
    "executions": ("task_show:executions", "List a task's executions, the newest first."),
    "pause": ("task_change:pause", "Let nothing be due until you resume it."),
    "resume": ("task_change:resume", "End a pause."),
}


@click.group(
    "tasks", cls=Lazy, table=VERBS, context_settings={"help_option_names": ["-h", "--help"]}
)
def tasks_group() -> None:
    """Create, list, change and run tasks.

    \b
      scheduler tasks create --id hello --name "Say hello" \\
          --url http://127.0.0.1:9000/hello --frequency 10 --unit second
      scheduler tasks list --status failed
      scheduler tasks execute hello

    `taskctl` is a shorter name for `scheduler tasks`.

    Exit codes: 0 done, 1 refused by the API or failed, 2 wrong usage, 3 the server cannot be
    reached, 130 interrupted.
    """
