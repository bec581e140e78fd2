"""`scheduler bench`: measures this installation."""

import asyncio
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click
import msgspec
import structlog
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn
from rich.progress import Progress as Bars

from scheduler import config, home, logs
from scheduler.bench.measure import Progress, Report, Spread, measure
from scheduler.cli.database import with_url
from scheduler.pgcluster import Cluster


@click.command()
@click.option("-n", "--runs", type=click.IntRange(1, 100_000), default=1000, show_default=True)
@click.option("-o", "--output", type=click.Choice(["pretty", "json"]), default="pretty")
@click.pass_obj
def bench(file: str | None, /, runs: int, output: str) -> None:
    """Measure this installation: RUNS due at one instant, then a hundred a second.

    In a database made for it on the same server and dropped at the end, also at Ctrl-C; with an
    engine and a target of its own. A server that runs beside it takes part of the machine.

    \b
    Examples:
      scheduler bench
      scheduler bench -n 10000 -o json
    """
    settings = config.load(file=file)
    logs.configure(config.Log(level="error", stdout=False))
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())

    async def work(url: str) -> Report:
        postmaster = None
        if not settings.database.url:
            found = Cluster(home.data_dir(settings) / "postgres").postmaster()
            postmaster = found.pid if found else None
        with _drawn() as progress:
            task = asyncio.current_task()
            if task is not None:
                asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
            return await measure(url, settings, runs, progress, postmaster)

    try:
        report = with_url(settings, work)
    except asyncio.CancelledError:
        sys.exit(143)
    if output == "json":
        click.echo(msgspec.json.format(msgspec.json.encode(report)).decode())
        return
    for line in told(report):
        click.echo(line)


@contextmanager
def _drawn() -> Iterator[Progress]:
    """Draw a bar on standard error, where somebody sees it."""
    columns = TextColumn("{task.description:<10}"), BarColumn(), MofNCompleteColumn()
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        known: dict[str, TaskID] = {}

        def progress(what: str, done: int, of: int) -> None:
            if what not in known:
                known[what] = bars.add_task(what, total=of)
            bars.update(known[what], completed=done)

        yield progress


def told(report: Report) -> list[str]:
    """Return the lines that people read."""
    postgres = report.postgres_cpu_us
    lines = [
        ("database round trip", _ms(report.round_trip)),
        ("commit", _ms(report.commit)),
        (
            f"{report.runs} at one instant",
            f"{report.arrived} arrived, {report.rate_per_s:,.0f} a second",
        ),
        ("  firing lag", _ms(report.burst_lag)),
        (f"{report.steady_per_s} a second", f"firing lag {_ms(report.steady_lag)}"),
        ("CPU for each run", f"{report.cpu_us:,.0f} µs ours"),
    ]
    if postgres is not None:
        lines.append(("", f"{postgres:,.0f} µs Postgres"))
    return [f"{name:<24}{value}" for name, value in lines]


def _ms(of: Spread) -> str:
    return f"p50 {of.p50:g} ms, p99 {of.p99:g} ms, most {of.max:g} ms"
