"""`scheduler serve`: the process that does everything."""

from pathlib import Path
from typing import Any

import click

from scheduler import config, server


@click.command()
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
