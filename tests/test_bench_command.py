"""`scheduler bench`: measures in a database of its own, and leaves nothing behind."""

import asyncio
import json
from typing import Any

import pytest
from click.testing import CliRunner

from conftest import url_of
from scheduler import config
from scheduler.bench import measure
from scheduler.bench.scratch import PREFIX
from scheduler.cli import cli
from scheduler.cli.bench import told
from scheduler.errors import StartupError


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    for name, value in (("LEAD_S", 1.0), ("STEADY_S", 1), ("STEADY_PER_S", 20), ("COMMITS", 5)):
        monkeypatch.setattr(measure, name, value)


async def left(maintenance: Any) -> list[str]:
    found = await maintenance.fetch("SELECT datname FROM pg_database")
    return [row["datname"] for row in found if row["datname"].startswith(PREFIX)]


async def test_it_measures_and_leaves_nothing(postgres, maintenance, tmp_path) -> None:
    seen: list[tuple[str, int, int]] = []

    def progress(*step: Any) -> None:
        seen.append(step)

    settings = config.load()
    report = await measure.measure(postgres.url, settings, 30, progress, None)
    assert report.runs == report.arrived == 30
    assert report.rate_per_s > 0 and report.cpu_us > 0 and report.postgres_cpu_us is None
    for figures in (report.burst_lag, report.steady_lag, report.round_trip, report.commit):
        assert 0 <= figures.p50 <= figures.p99 <= figures.max < 5000
    assert {what for what, _, _ in seen} == {"preparing", "creating", "burst", "steady"}
    assert await left(maintenance) == []
    assert list(tmp_path.iterdir()) == []  # no key, no credentials
    assert "30 arrived" in "\n".join(told(report))


async def test_what_cuts_it_short_leaves_nothing_either(postgres, maintenance) -> None:
    begun = asyncio.Event()

    def progress(what: str, _done: int, _of: int) -> None:
        if what == "creating":
            begun.set()

    running = asyncio.create_task(measure.measure(postgres.url, config.load(), 30, progress, None))
    await asyncio.wait_for(begun.wait(), 20)
    assert len(await left(maintenance)) == 1
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert await left(maintenance) == []


async def test_a_role_that_may_make_no_database_is_told(postgres, maintenance) -> None:
    await maintenance.execute("CREATE ROLE small LOGIN")
    url = url_of(postgres, "scheduler").replace("postgres@", "small@")
    try:
        with pytest.raises(StartupError, match="CREATEDB"):
            await measure.measure(url, config.load(), 1, lambda *_: None, None)
    finally:
        await maintenance.execute("DROP ROLE small")


def test_the_command_prints_json(monkeypatch, database_url) -> None:
    one = measure.Spread(1, 2, 3)
    report = measure.Report(5, 5, 9.5, one, 100, one, 7, 8, one, one)

    async def instead(*_: Any) -> measure.Report:
        return report

    monkeypatch.setattr("scheduler.cli.bench.measure", instead)
    monkeypatch.setenv("DATABASE_URL", database_url)
    run = CliRunner().invoke(cli, ["bench", "-n", "5", "-o", "json"])
    assert run.exit_code == 0, run.output
    assert json.loads(run.stdout)["burst_lag"] == {"p50": 1.0, "p99": 2.0, "max": 3.0}
