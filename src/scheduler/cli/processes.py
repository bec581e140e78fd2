"""`scheduler processes`."""

import click

from scheduler.cli import Lazy

VERBS = {
    "run": ("process_run:run", "Call an endpoint of a spec by its name."),
    "status": ("process_show:status", "Say how far a call is."),
    "get": ("process_show:get", "Show what is called."),
    "response": ("process_show:response", "Print what the target answered."),
    "cancel": ("process_show:cancel", "End a call that has not ended."),
    "call": ("process_call:call", "Make the call that standard input describes."),
}


@click.group(
    "processes", cls=Lazy, table=VERBS, context_settings={"help_option_names": ["-h", "--help"]}
)
def processes_group() -> None:
    """Calls through a spec: they are queued, checked, retried, and their answers kept.

    \b
      scheduler processes run pets "GET /pets/{id}" -u id=7 --wait
      scheduler processes run pets "POST /pets" -d '{"name": "Tom"}'
      scheduler processes status WE7koqi5NvmmlINj
      scheduler processes response WE7koqi5NvmmlINj

    Exit codes: 0 done, 1 refused by the API or failed, 2 wrong usage, 3 the server cannot be
    reached, 130 interrupted.
    """
