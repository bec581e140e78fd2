"""`scheduler serve` and `scheduler worker`: the processes that do the work."""

import sys
from pathlib import Path
from typing import Any

import click

from scheduler import config, server, worker
from scheduler.cli.flags import config_flags, paths
from scheduler.cli.reload import supervise


@click.command()
@click.option(
    "--credentials-file",
    type=click.Path(path_type=Path),
    help="Where the first start writes url, service_id and token; "
    "default credentials.json in the data directory.",
)
@click.option("--paused", is_flag=True, help="Run nothing until `scheduler resume`.")
@click.option("--reload", is_flag=True, help="Start anew when the program's files change.")
@config_flags()
@click.pass_obj
def serve(
    file: str | None,
    /,
    credentials_file: Path | None,
    *,
    paused: bool,
    reload: bool,
    **flags: Any,
) -> None:
    """Run everything: the API, the engine and, without DATABASE_URL, a Postgres.

    \b
    Examples:
      scheduler serve
      scheduler serve --port 9090 --log-level debug
      DATABASE_URL=postgresql://... scheduler serve
    """
    settings = config.load(file=file, flags=paths(flags))
    if reload:
        # The last of the same flag counts, and this one has none that takes it back.
        words = [word for word in sys.argv[1:] if word != "--reload"]
        sys.exit(supervise(words))
    server.serve(settings, credentials_file, paused=paused)


@click.command("worker")
@click.option(
    "--health-port",
    type=click.IntRange(0, 65_535),
    metavar="PORT",
    help="Serve /health, /ready and /metrics on this port; without it nothing listens.",
)
@config_flags("worker", "log")
@click.pass_obj
def work(file: str | None, /, health_port: int | None, **flags: Any) -> None:
    """Run a replica without the API, beside a server or alone.

    Without DATABASE_URL it joins the Postgres of the server on the same data directory, or runs
    it where no server does.

    \b
    Examples:
      DATABASE_URL=postgresql://... scheduler worker
      scheduler worker --worker-count 50 --health-port 8081
    """
    worker.work(config.load(file=file, flags=paths(flags)), health_port)
