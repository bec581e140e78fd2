"""The `scheduler` command."""

import sys
from pathlib import Path
from typing import Any

import click

from scheduler import __version__, config, migrate, server
from scheduler.cli_database import with_url
from scheduler.cli_services import services_group
from scheduler.errors import StartupError, UserError
from scheduler.migrate import Status


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


@cli.group("migrate")
def migrate_group() -> None:
    """Bring the database's schema up to date, or back."""


@migrate_group.command()
@click.pass_obj
def up(file: str | None) -> None:
    """Migrate to the newest revision."""
    _show(with_url(config.load(file=file), migrate.up))


@migrate_group.command()
@click.argument("revision")
@click.pass_obj
def down(file: str | None, revision: str) -> None:
    """Migrate back to REVISION; `base` empties the database."""
    _show(with_url(config.load(file=file), lambda url: migrate.down(url, revision)))


@migrate_group.command()
@click.pass_obj
def status(file: str | None) -> None:
    """Say where the database stands; exits 1 where there is something to do."""
    found = with_url(config.load(file=file), migrate.status)
    _show(found)
    if not found.is_current:
        sys.exit(1)


def _show(found: Status) -> None:
    current = found.current or "empty"
    word = "current" if found.is_current else f"not current: this version has {found.head}"
    click.echo(f"revision {current}, {word}")


cli.add_command(services_group)
