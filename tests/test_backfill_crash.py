"""A backfill and kill -9: asked for again it makes what is left, and every instant arrives."""

import http.client
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from harness import RECLAIM_S, Fault, Scheduler, Stage, stage, until
from scheduler.embedded import EmbeddedPostgres

pytestmark = pytest.mark.alone

HOURS = 60


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Stage]:
    with stage(tmp_path) as found:
        yield found


def half_an_hour_ago() -> datetime:
    """The last instant of a rule that is due each hour, and not while the test runs."""
    return datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(minutes=30)


def backfill(scheduler: Scheduler, last: datetime) -> tuple[int, dict]:
    first = last - timedelta(hours=HOURS - 1)
    body = {"from": first.isoformat(), "to": last.isoformat(), "per_minute": 6000}
    return scheduler.call("POST", "/tasks/t/backfill", body)


def test_a_process_killed_in_the_middle_loses_no_instant_of_a_backfill(
    here: Stage, tmp_path: Path
) -> None:
    fault = Fault("scheduler.outbound:Outbound.send", "after", nth=20)
    doomed = here.scheduler(data=tmp_path / "data", fault=fault).ready()
    last = half_an_hour_ago()
    task = {"id": "t", "name": "t", "cron": f"{last.minute} * * * *"}
    doomed.do("POST", "/tasks", {**task, "url": here.target.url, "misfire": "skip"})
    assert backfill(doomed, last)[1]["made"] == HOURS
    doomed.struck()
    before = len(here.target.arrivals)
    assert 0 < before < HOURS

    survivor = here.scheduler(data=tmp_path / "data").ready()
    status, found = backfill(survivor, last)
    assert (status, found["existing"], found["made"]) == (200, HOURS, 0)
    sql = here.sql(until(lambda: EmbeddedPostgres.join(tmp_path / "data"), 20, "Postgres runs"))
    left = "SELECT count(*) FROM run WHERE scheduled_for < now()"
    deadline = RECLAIM_S + 10 - (time.monotonic() - survivor.started_at)
    until(lambda: sql.one(left) == 0, deadline, "all have ended")
    ended = sql.all("SELECT state, scheduled_for FROM history")
    assert Counter(row["state"] for row in ended) == {"succeeded": HOURS}
    assert len({row["scheduled_for"] for row in ended}) == HOURS
    arrived = Counter(a.scheduled_for for a in here.target.arrivals)
    assert len(arrived) == HOURS
    again = [at for at, count in arrived.items() if count > 1]
    assert len(again) <= 1
    assert survivor.do("GET", "/runs/verify")["doubled"] == []
    survivor.stop()


def test_a_process_killed_before_the_commit_leaves_what_can_be_asked_for_again(
    here: Stage, tmp_path: Path
) -> None:
    fault = Fault("scheduler.backfills:make", "after")
    doomed = here.scheduler(data=tmp_path / "data", fault=fault).ready()
    last = half_an_hour_ago()
    cron = f"{last.minute} * * * *"
    task = {"id": "t", "name": "t", "cron": cron, "url": here.target.url}
    doomed.do("POST", "/tasks", task)
    doomed.armed.touch()
    with pytest.raises((OSError, http.client.HTTPException)):
        backfill(doomed, last)
    doomed.struck()
    survivor = here.scheduler(data=tmp_path / "data").ready()
    assert backfill(survivor, last)[1]["made"] == HOURS
    until(lambda: len(here.target.arrivals) >= HOURS, 20, "all arrive")
    assert set(Counter(a.scheduled_for for a in here.target.arrivals).values()) == {1}
    survivor.stop()
