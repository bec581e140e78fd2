"""The `scheduler` command."""

import asyncio
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.table import Table

from scheduler import __version__, config, migrate, server, services
from scheduler.config import Settings
from scheduler.db import Database, rfc3339
from scheduler.embedded import EmbeddedPostgres
from scheduler.errors import StartupError, UserError
from scheduler.migrate import Status
from scheduler.services import Created, Service


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
@click.option("--config", "file", metavar="FILE", help="A YAML file of settings.")
@click.pass_context
def cli(context: click.Context, file: str | None) -> None:
    """A self-hosted scheduler: one process, one Postgres."""
    context.obj = file


def main() -> None:
    """Run the command; what the operator did wrong is a sentence, not a trace."""
    try:
        cli(standalone_mode=False)
    except click.ClickException as e:
        e.show()
        sys.exit(e.exit_code)
    except click.Abort:
        sys.exit(130)
    except (StartupError, UserError) as e:
        click.echo(f"scheduler: {e}", err=True)
        sys.exit(1)


@cli.command()
@click.option(
    "--credentials-file",
    type=click.Path(path_type=Path),
    help="Where the first start writes url, service_id and token; "
    "default credentials.json in the data directory.",
)
@click.option("--host", help="Listen on this address.")
@click.option("--port", type=int, help="Listen on this port; 0 takes a free one.")
@click.option("--prequeuer-ticker-seconds", type=float, help="Seconds between planning ticks.")
@click.option("--prequeuer-timeframe-minutes", type=int, help="How far ahead events are shown.")
@click.option("--worker-count", type=int, help="Concurrent callbacks.")
@click.option("--worker-max-retries", type=int, help="Tries after the first.")
@click.option("--log-level", help="debug, info, warn or error.")
@click.pass_obj
def serve(file: str | None, /, credentials_file: Path | None, **flags: Any) -> None:
    """Run everything: the API, the engine and, without DATABASE_URL, a Postgres."""
    server.serve(config.load(file=file, flags=_flags(flags)), credentials_file)


FLAGS = {
    "host": "server.host",
    "port": "server.port",
    "prequeuer_ticker_seconds": "prequeuer.ticker_interval_seconds",
    "prequeuer_timeframe_minutes": "prequeuer.event_timeframe_minutes",
    "worker_count": "worker.count",
    "worker_max_retries": "worker.max_retries",
    "log_level": "log.level",
}


def _flags(flags: dict[str, Any]) -> dict[str, Any]:
    return {FLAGS[name]: value for name, value in flags.items()}


def _with_database(settings: Settings, work: Callable[[str], Coroutine[Any, Any, Any]]) -> Any:
    """Do `work(url)` on the database in use; an embedded one is joined, or started meanwhile."""
    if settings.database.url:
        return asyncio.run(work(settings.database.url))
    base = server.data_dir(settings)
    running = EmbeddedPostgres.join(base)
    if running is not None:
        return asyncio.run(work(running))
    postgres = EmbeddedPostgres(base)
    postgres.start()
    try:
        return asyncio.run(work(postgres.url))
    finally:
        postgres.stop()


@cli.group("migrate")
def migrate_group() -> None:
    """Bring the database's schema up to date, or back."""


@migrate_group.command()
@click.pass_obj
def up(file: str | None) -> None:
    """Migrate to the newest revision."""
    _show(_with_database(config.load(file=file), migrate.up))


@migrate_group.command()
@click.argument("revision")
@click.pass_obj
def down(file: str | None, revision: str) -> None:
    """Migrate back to REVISION; `base` empties the database."""
    _show(_with_database(config.load(file=file), lambda url: migrate.down(url, revision)))


@migrate_group.command()
@click.pass_obj
def status(file: str | None) -> None:
    """Say where the database stands; exits 1 where there is something to do."""
    found = _with_database(config.load(file=file), migrate.status)
    _show(found)
    if not found.is_current:
        sys.exit(1)


def _show(found: Status) -> None:
    current = found.current or "empty"
    word = "current" if found.is_current else f"not current: this version has {found.head}"
    click.echo(f"revision {current}, {word}")


@cli.group("services")
def services_group() -> None:
    """Create and list services."""


Output = click.option("-o", "--output", type=click.Choice(["pretty", "json"]), default="pretty")


@services_group.command("create")
@click.argument("name")
@click.option("--allow-commands", is_flag=True, help="Its tasks may run commands.")
@Output
@click.pass_obj
def create_service(file: str | None, name: str, output: str, *, allow_commands: bool) -> None:
    """Create a service and print its token, once."""
    settings = config.load(file=file)

    async def work(url: str) -> Created:
        await migrate.up(url)
        database = Database(url, settings.database)
        try:
            async with database.api.begin() as conn:
                return await services.create(conn, name, allow_commands=allow_commands)
        finally:
            await database.close()

    created = _with_database(settings, work)
    if output == "json":
        _print_json({**_face(created.service), "token": created.token})
    else:
        click.echo(f"service_id  {created.service.id}\ntoken       {created.token}")
        click.echo("The token is not shown again.")


@services_group.command("list")
@Output
@click.pass_obj
def list_services(file: str | None, output: str) -> None:
    """List the services."""
    settings = config.load(file=file)

    async def work(url: str) -> list[Service]:
        if (await migrate.status(url)).current is None:
            return []
        database = Database(url, settings.database)
        try:
            async with database.api.connect() as conn:
                return await services.list_all(conn)
        finally:
            await database.close()

    found = _with_database(settings, work)
    if output == "json":
        _print_json([_face(service) for service in found])
        return
    table = Table(box=None)
    for heading in ("ID", "Name", "Commands", "Created"):
        table.add_column(heading, no_wrap=True, min_width=36 if heading == "ID" else None)
    for s in found:
        allowed = "allowed" if s.allow_commands else "no"
        table.add_row(str(s.id), s.name, allowed, rfc3339(s.created_at))
    Console(soft_wrap=True).print(table)


def _face(service: Service) -> dict[str, Any]:
    return {
        "service_id": str(service.id),
        "name": service.name,
        "allow_commands": service.allow_commands,
        "created_at": rfc3339(service.created_at),
        "updated_at": rfc3339(service.updated_at),
    }


def _print_json(value: object) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(value)).decode())
