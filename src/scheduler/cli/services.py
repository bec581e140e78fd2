"""`scheduler services`: the same as `/services`, on the database directly."""

from collections.abc import Callable
from functools import partial
from typing import Any
from uuid import UUID

import click
import msgspec

from scheduler import config
from scheduler.admin import acts
from scheduler.admin.model import QUOTAS, ServiceFields, ShownService
from scheduler.cli import plain
from scheduler.cli.database import with_database
from scheduler.cli.failures import Failed
from scheduler.cli.output import Listing, Output, ask, print_json
from scheduler.db import Database
from scheduler.service import MOST, MOST_OF_OTHERS, By

Which = click.argument("service")
BY = By("command line")
SETTING = "default"
"""The word that gives a quota back to the settings."""


class Quota(click.ParamType[int | str]):
    """A number, or the word that leaves it to the settings."""

    name = "number"

    def __init__(self, most: int) -> None:
        self._most = most

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | str:
        """Return the number or the word."""
        if value == SETTING:
            return SETTING
        if not (str(value).isascii() and str(value).isdecimal() and int(value) <= self._most):
            self.fail(f"{value!r} is neither a whole number nor {SETTING!r}", param, ctx)
        return int(value)


HELP = {
    "max_tasks": "Tasks it may have.",
    "max_runs_per_minute": "Runs its requests may make in a minute.",
    "max_in_flight": "Runs under way at once.",
    "max_body_bytes": "Bytes of a request's body.",
    "max_kept_bytes": "Bytes of its specs, and of answers to its processes.",
}


def quota_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add an option for each quota."""
    for name in reversed(QUOTAS):
        flag = "--" + name.replace("_", "-")
        words = f"{HELP[name]} 0 for no limit, {SETTING!r} for the setting's."
        command = click.option(flag, name, type=Quota(MOST.get(name, MOST_OF_OTHERS)), help=words)(
            command
        )
    return command


@click.group("services")
def services_group() -> None:
    """Create, list, change and delete services. SERVICE is an id or a name."""


@services_group.command("create")
@click.argument("name")
@click.option("--allow-commands/--no-allow-commands", help="Whether its tasks may run commands.")
@quota_options
@Output
@click.pass_obj
def create_service(
    file: str | None, /, name: str, output: str, *, allow_commands: bool, **quotas: int | str | None
) -> None:
    """Create a service and print its token and signing secret, once."""
    fields = ServiceFields(name=name, allow_commands=allow_commands, **_sent(quotas))
    made = with_database(
        config.load(file=file),
        lambda database: acts.create(database, BY, fields),
        make=True,
        unlock=True,
    )
    _print(made, output, "The token and the signing secret are not shown again.")


def _sent(quotas: dict[str, int | str | None]) -> dict[str, Any]:
    """Return the quotas that were given; the word for the setting's is null."""
    given = {name: value for name, value in quotas.items() if value is not None}
    return {name: None if value == SETTING else value for name, value in given.items()}


@services_group.command("list")
@Output
@click.pass_obj
def list_services(file: str | None, output: str) -> None:
    """List the services."""
    found = with_database(config.load(file=file), acts.list_all)
    if output == "json":
        print_json(found)
        return
    listing = Listing("ID", "Name", "Commands", "Created")
    listing.add(
        [s.service_id, s.name, "allowed" if s.allow_commands else "no", s.created_at or ""]
        for s in found
    )


@services_group.command("show")
@Which
@click.option("--signing", is_flag=True, help="Print the signing secret, too.")
@Output
@click.pass_obj
def show_service(file: str | None, service: str, output: str, *, signing: bool) -> None:
    """Show a service: its tokens, limits and use."""
    settings = config.load(file=file)

    async def work(database: Database) -> ShownService:
        face = await acts.show(database, settings.quotas, service)
        if signing:
            face.signing_secret = await acts.signing_secret(database, service)
        return face

    _print(with_database(settings, work, unlock=signing), output)


@services_group.command("update")
@Which
@click.option("--name", help="Its new name.")
@click.option(
    "--allow-commands/--no-allow-commands",
    default=None,
    help="Whether its tasks may run commands.",
)
@quota_options
@Output
@click.pass_obj
def update_service(
    file: str | None,
    /,
    service: str,
    output: str,
    *,
    name: str | None,
    allow_commands: bool | None,
    **quotas: int | str | None,
) -> None:
    """Change what is given of a service."""
    settings = config.load(file=file)
    given = {"name": name, "allow_commands": allow_commands}
    sent: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    fields = ServiceFields(**sent, **_sent(quotas))
    _print(
        with_database(settings, lambda db: acts.update(db, BY, settings.quotas, service, fields)),
        output,
    )


@services_group.command("rotate")
@Which
@click.option("--signing", is_flag=True, help="Rotate the signing secret, not the token.")
@Output
@click.pass_obj
def rotate_service(file: str | None, service: str, output: str, *, signing: bool) -> None:
    """Make a new token, which lives beside the newest one until now; an older one is revoked.

    With --signing make a new signing secret: it signs alone, at once.
    """
    work = partial(acts.rotate, by=BY, ref=service, signing=signing)
    made = with_database(config.load(file=file), work, unlock=signing)
    what = "signing secret" if signing else "token"
    _print(made, output, f"The {what} is not shown again.")


@services_group.command("revoke")
@Which
@click.option("--token-id", type=click.UUID, help="This token; `services show` lists them.")
@Output
@click.pass_obj
def revoke_service(file: str | None, service: str, output: str, token_id: UUID | None) -> None:
    """Revoke a token, or every live one but the newest; no replica takes it 5 seconds later."""
    work = partial(acts.revoke, by=BY, ref=service, token_id=token_id)
    _print(with_database(config.load(file=file), work), output)


@services_group.command("delete")
@Which
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def delete_service(file: str | None, service: str, *, yes: bool) -> None:
    """Delete a service with all its tasks, runs and history."""
    settings = config.load(file=file)
    with_database(settings, lambda database: acts.show(database, settings.quotas, service))
    question = f"Delete {plain.word(service)} with all its tasks, runs and history, for good?"
    if not yes and not ask(question):
        raise Failed("nothing was done")
    gone = with_database(settings, lambda db: acts.delete(db, BY, settings.auth, service))
    click.echo(f"{plain.word(gone)} is deleted.")


def _print(face: ShownService, output: str, warning: str | None = None) -> None:
    if output == "json":
        print_json(face)
        return
    told: dict[str, Any] = msgspec.to_builtins(face)
    limits, usage = told.pop("limits", None), told.pop("usage", {})
    tokens = told.pop("tokens", [])
    for name in QUOTAS:
        value = told.pop(name)
        if limits:
            used = usage.get(name.removeprefix("max_"))
            told[name] = f"{limits[name] or 'no limit'}" + (
                "" if used is None else f", used {used}"
            )
        elif value is not None:
            told[name] = value
    for name, value in told.items():
        click.echo(f"{name:<21}{_word(value)}")
    for token in tokens:
        end = f"revoked {token['revoked_at']}" if token["revoked_at"] else "live"
        used = token["last_used_at"] or "never"
        click.echo(f"{'tokens':<21}{token['id']}  made {token['created_at']}  used {used}  {end}")
    if warning:
        click.echo(warning)


def _word(value: Any) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else plain.word(value)
