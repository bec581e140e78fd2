"""`scheduler runs`: the ledger."""

import click

from scheduler.cli import Lazy

VERBS = {
    "list": ("run_show:list_runs", "List runs, the newest first."),
    "get": ("run_show:get", "Show a run, its answer and its attempts."),
    "tail": ("run_tail:tail", "Show runs as they end."),
    "replay": ("run_act:replay", "Run again what has ended: one run, or many by a filter."),
    "cancel": ("run_act:cancel", "End what is live: one run, or many by a filter."),
    "verify": ("run_verify:verify", "Check that every due instant has its one run."),
}


@click.group(
    "runs", cls=Lazy, table=VERBS, context_settings={"help_option_names": ["-h", "--help"]}
)
def runs_group() -> None:
    """What ran, what is to come, and why not.

    \b
      scheduler runs list --task hello --state failed,skipped
      scheduler runs tail
      scheduler runs verify

    Exit codes: 0 done, 1 refused by the API or failed, 2 wrong usage, 3 the server cannot be
    reached, 130 interrupted.
    """
