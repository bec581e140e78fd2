"""Options that commands share: the connection, which task or run is meant, sections of help."""

import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import click

from scheduler.cli import client, completers
from scheduler.cli.client import Api, ApiRefused
from scheduler.cli.failures import Failed, Usage
from scheduler.cli.output import tolerant

Callback = Callable[..., Any]
ROUTES = ("bulk", "scheduled", "preview")
"""Words below /tasks that are no ids."""
URL_HELP = "The API's address; else SCHEDULER_URL, else the credentials file."


class Sectioned(click.Command):
    """A command whose help has its options in sections, by their `section`."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, each below its section."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            if isinstance(param, click.Argument):
                continue  # the usage line has it
            record = param.get_help_record(ctx)
            if record is not None:
                name = getattr(param, "section", "Options")
                sections.setdefault(name, []).append(record)
        for name in sorted(sections, key=["Connection", "Options"].__contains__):
            with formatter.section(name):
                formatter.write_dl(sections[name])


class In(click.Option):
    """An option that belongs to a section of the help, and stands for fields of the API."""

    def __init__(
        self, *args: Any, section: str = "Options", fields: Sequence[str] = (), **more: Any
    ) -> None:
        super().__init__(*args, **more)
        self.section = section
        self.fields = fields or (self.name or "",)


def talks(callback: Callback) -> Callback:
    """Add --url, --service-id and --token, and hand the command the API as its first argument."""
    return _talks(callback, "--url", "--server")


def talks_of_task(callback: Callback) -> Callback:
    """Add the same where --url is what a task calls, and the API is --server."""
    return _talks(callback, "--server")


def _talks(callback: Callback, *flags: str) -> Callback:
    @functools.wraps(callback)
    @click.pass_context
    def run(
        ctx: click.Context,
        /,
        server: str | None,
        service_id: str | None,
        token: str | None,
        **given: Any,
    ) -> Any:
        tolerant()
        if "--url" not in flags:
            server, given["url"] = _either(server, given["url"], named=bool(service_id or token))
        file = ctx.find_root().obj
        with Api(client.find(file, server, service_id, token)) as api:
            try:
                return callback(api, **given)
            except ApiRefused as e:
                e.name(flags_of(ctx.command, given.get("file")))
                raise

    section: dict[str, Any] = {"cls": In, "section": "Connection"}
    for option in (
        click.option("--token", help="Its token; else SCHEDULER_TOKEN, else the same.", **section),
        click.option(
            "--service-id",
            metavar="ID",
            help="The service's id or name; else SCHEDULER_SERVICE_ID, else the same.",
            **section,
        ),
        click.option(*flags, "server", metavar="URL", help=URL_HELP, **section),
    ):
        run = option(run)
    return run


def _either(
    server: str | None, urls: tuple[str, ...], *, named: bool
) -> tuple[str | None, str | None]:
    """Return the API's address and the task's url, where `--url` may be either.

    It is the task's, as the field is called; but the first is the API's, as in every other
    command, where there are two, or where credentials are on the line and nothing else names
    the API: a token goes to nobody's target.
    """
    first_is_server = len(urls) > 1 or (named and not os.environ.get("SCHEDULER_URL"))
    if server is None and urls and first_is_server:
        server, urls = urls[0], urls[1:]
    if len(urls) > 1:
        raise Usage("--url is there too often: a task calls one URL")
    return server, urls[0] if urls else None


def flags_of(command: click.Command, file: object = None) -> dict[str, str]:
    """Map fields of the API to the flags of a command; none where a file holds the fields."""
    if file is not None:
        return {}
    found = dict[str, str]()
    for param in command.params:
        if isinstance(param, click.Option):
            flag = next((each for each in param.opts if each.startswith("--")), param.opts[0])
            for name in getattr(param, "fields", (param.name or "",)):
                found[name] = flag
    return found


# Which -------------------------------------------------------------------------------------------


def which_task(*, needed: bool = True) -> Callable[[Callback], Callback]:
    """Add TASK and --id, either of which names a task; it comes as `task_id`."""

    def add(callback: Callback) -> Callback:
        @functools.wraps(callback)
        def run(*args: Any, bare: str | None, named: str | None, **more: Any) -> Any:
            task_id = one_of(bare, named, "--id")
            if needed and not task_id:
                raise Usage("which task? give its id, bare or as --id")
            if task_id in ROUTES:
                raise Failed(f"there is no task {task_id}")
            return callback(*args, task_id=task_id, **more)

        complete = completers.task_ids
        named = click.option(
            "-i",
            "--id",
            "named",
            metavar="TASK",
            help="The task's id, which may stand bare too.",
            shell_complete=complete,
        )
        bare = click.argument("bare", metavar="[TASK]", required=False, shell_complete=complete)
        return bare(named(run))

    return add


def one_of(bare: str | None, named: str | None, flag: str) -> str | None:
    """Return what is named in one of two ways. Raises Usage where they differ."""
    if bare is not None and named is not None and bare != named:
        raise Usage(f"{bare} and {flag} {named} are two; give one")
    return bare if bare is not None else named
