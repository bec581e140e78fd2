"""The `scheduler` command: a file for each group of commands, imported when it is asked for.

`scheduler --help` imports none of them, so that it answers at once.
"""

import errno
import importlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from scheduler import __version__
from scheduler.errors import StartupError, UserError

COMMANDS = {
    "serve": ("serve:serve", "Run everything in one process."),
    "worker": ("serve:work", "Run a replica without the API."),
    "tasks": ("tasks:tasks_group", "Create, list, change and run tasks."),
    "schedules": ("schedules:schedules_group", "Tasks with an RRULE, and their events."),
    "specs": ("specs:specs_group", "APIs described by OpenAPI documents, to be called by name."),
    "processes": ("processes:processes_group", "Calls of those APIs, each with its answer kept."),
    "runs": ("runs:runs_group", "What ran, what is to come, and why not."),
    "calendars": ("calendars:calendars_group", "Days and hours in which tasks are not run."),
    "services": ("services:services_group", "Create, list and change services."),
    "config": ("config:config_group", "Show the settings in force, or write a file of them."),
    "doctor": ("doctor:doctor", "Say what is wrong with this installation, and what to do."),
    "logs": ("logs:logs", "Show log lines that are kept in the database."),
    "migrate": ("migrate:migrate_group", "Bring the database's schema up to date, or back."),
    "backup": ("backup:backup", "Write the embedded database to a file."),
    "restore": ("backup:restore", "Fill an empty data directory from a backup."),
    "upgrade": ("backup:upgrade", "Move the embedded database to this version's Postgres."),
    "pause": ("pause:pause", "Let no replica of this database run anything."),
    "resume": ("pause:resume", "End a pause."),
    "secrets": ("secrets:secrets_group", "The key that seals stored secrets."),
    "bench": ("bench:bench", "Measure this installation."),
    "completion": ("completion:completion", "Print what a shell needs to complete commands."),
}
"""By name: where the command is, and its line in the list of commands."""


class Lazy(click.Group):
    """A group whose commands are imported when they are asked for, by a table like COMMANDS."""

    def __init__(self, *args: Any, table: Mapping[str, tuple[str, str]], **more: Any) -> None:
        super().__init__(*args, **more)
        self.table = table

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """Return the names, in the order of the table."""
        return list(self.table)

    def get_command(self, _ctx: click.Context, name: str) -> click.Command | None:
        """Import a command; None where there is none of this name."""
        if name not in self.table:
            return None
        module, _, attribute = self.table[name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(f"{__name__}.{module}"), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command meant, or fail with the nearest right name."""
        try:
            return super().resolve_command(ctx, args)
        except click.NoSuchCommand:
            raise click.NoSuchCommand(args[0], possibilities=self.table, ctx=ctx) from None

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands, from the table alone."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in self.table.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return the names that begin so, from the table alone, and this group's options."""
        found = [
            CompletionItem(name, help=line)
            for name, (_, line) in self.table.items()
            if name.startswith(incomplete)
        ]
        return found + click.Command.shell_complete(self, ctx, incomplete)


@click.group(cls=Lazy, table=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
@click.option("--config", "file", metavar="FILE", help="A YAML file of settings.")
@click.pass_context
def cli(context: click.Context, file: str | None) -> None:
    """A self-hosted scheduler: one process, one Postgres."""
    context.obj = file


UNWRITTEN = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def main(command: click.Command = cli, **more: Any) -> None:
    """Run the command; what the operator did wrong is a sentence, not a trace."""
    _open_streams()
    try:
        command(standalone_mode=False, **more)
    except click.ClickException as e:
        e.show()
        sys.exit(e.exit_code)
    except click.Abort:
        sys.exit(130)
    except (StartupError, UserError) as e:
        click.echo(f"scheduler: {e}", err=True)
        sys.exit(1)
    except OSError as e:
        if e.errno not in UNWRITTEN:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is left is not tried again at the exit
        click.echo(f"scheduler: {e.filename or 'the output'}: {e.strerror}", err=True)
        sys.exit(1)


def _open_streams() -> None:
    """Put nothing in the place of each standard stream that the caller has closed."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115  (as long as we live)


def taskctl() -> None:
    """Run `taskctl`, a second name for `scheduler tasks`."""
    command = cli.get_command(click.Context(cli), "tasks")
    assert command is not None  # noqa: S101
    main(command, prog_name="taskctl")
