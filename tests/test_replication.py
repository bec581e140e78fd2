"""Several replicas on one database, some of which stall, die, go deaf, or lose their way to it."""

import itertools
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from harness import (
    RECLAIM_S,
    Fault,
    Ledger,
    Scenes,
    Scheduler,
    Shared,
    Sql,
    Stage,
    holds,
    interval,
    pause_all,
    quiet,
    stage,
    together,
    until,
)

pytestmark = pytest.mark.alone

STANDSTILL_S = 14.0
"""Within this the others have seen that a replica stands still: 10 s, and a beat each."""
DEAF = {"database_listen_url": "postgresql://postgres@/scheduler?host=/nowhere&port=5432"}


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Stage]:
    with stage(tmp_path) as found:
        yield found


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    found = Shared(tmp_path_factory.mktemp("shared"))
    yield found
    found.close()


@pytest.fixture(scope="module")
def scenes(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, shared: Shared
) -> Iterator[Scenes]:
    found = Scenes(request, tmp_path_factory.mktemp("scenes"), 3, shared=shared)
    yield found
    found.close()


def incarnation(sql: Sql, replica: Scheduler) -> UUID | None:
    found: UUID | None = sql.one("SELECT id FROM replica WHERE pid = $1", replica.pid)
    return found


def held_by(sql: Sql, who: UUID | None) -> dict[UUID, Any]:
    rows = sql.all("SELECT * FROM run WHERE claimed_by = $1", who)
    return {row["id"]: row for row in rows}


def busy(replica: Scheduler, sql: Sql, url: str) -> None:
    """Fill a replica that has one worker and holds one run: whatever comes is for the others."""
    replica.create([{"id": f"busy{n}", "name": f"busy{n}", "url": url} for n in range(2)])
    for n in range(2):
        replica.do("POST", f"/tasks/busy{n}/execute?async=true")
    me = incarnation(sql, replica)
    until(lambda: len(held_by(sql, me)) == 2, 5, "it is full")


# A service has three of four workers at most.
FULL = {"worker_count": 1, "worker_max_held": 1}


def stalls(here: Stage, shared: Shared, seconds: float) -> None:
    url = shared.fresh()
    sql = here.sql(url)
    one = here.scheduler("one", database=url).ready()
    two = here.scheduler("two", database=url).ready()
    names = [f"t{n}" for n in range(1000)]
    one.create([interval(n, here.target.url, 1 + i % 5) for i, n in enumerate(names)])
    before = incarnation(sql, two)
    until(lambda: len(held_by(sql, before)) > 50, 10, "both take part")
    until(lambda: len(here.target.arrivals) > 1500, 20, "calls arrive")

    two.signal(signal.SIGSTOP)
    until(two.stopped, 5, "it stands")
    stopped = datetime.now(UTC)
    held = held_by(sql, before)
    holds(two.stopped, seconds)
    assert held_by(sql, before) == {}
    assert incarnation(sql, two) is None
    two.signal(signal.SIGCONT)
    after = until(lambda: incarnation(sql, two), 5, "it comes back under a new name")
    assert after != before
    until(lambda: len(held_by(sql, after)) > 50, 10, "and takes part")
    pause_all(one, names)
    quiet(sql, 15)

    ledger = Ledger.read(sql)
    assert ledger.mistakes() == []
    assert {row["state"] for row in ledger.rows()} == {"succeeded"}
    again = {key for key, count in here.target.keys().items() if count > 1}
    in_flight = {key for key, row in held.items() if row["due"] <= stopped + timedelta(seconds=0.2)}
    assert again <= in_flight
    assert max(here.target.keys().values()) <= 2
    assert here.target.early() == []
    assert one.troubles() + two.troubles() == []
    assert [r.stop() for r in (one, two)] == [0, 0]
    assert sql.one("SELECT count(*) FROM run WHERE claimed_by IS NOT NULL") == 0


@pytest.mark.slow
def test_a_replica_stopped_for_fifteen_seconds_changes_nothing_for_a_thousand_tasks(
    here: Stage, shared: Shared
) -> None:
    stalls(here, shared, 15)


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.skipif(
    "'slow' not in config.getoption('-m')", reason="a minute longer; asked for with -m slow"
)
def test_a_replica_stopped_for_a_minute_changes_nothing_for_a_thousand_tasks(
    here: Stage, shared: Shared
) -> None:
    stalls(here, shared, 60)


@pytest.mark.slow
@together
def test_all_runs_of_a_killed_replica_are_done_by_the_other_within_fifteen_seconds(
    here: Stage, shared: Shared
) -> None:
    url = shared.fresh()
    sql = here.sql(url)
    one = here.scheduler("one", database=url).ready()
    two = here.scheduler("two", database=url).ready()
    calls = [f"call{n}" for n in range(40)]
    names = [f"t{n}" for n in range(100)]
    slow = f"{here.target.url}/?hold=calls&times=1"
    one.create([{"id": name, "name": name, "url": slow} for name in calls])
    one.create([interval(n, here.target.url) for n in names])
    for name in calls:
        random.choice([one, two]).do("POST", f"/tasks/{name}/execute?async=true")
    until(lambda: len(here.target.keys(*calls)) == len(calls), 10, "calls are under way")
    me = incarnation(sql, two)
    until(lambda: any(row["kind"] == "task" for row in held_by(sql, me).values()), 5, "it holds")
    two.kill()
    killed = time.monotonic()
    held = held_by(sql, me)
    assert sum(row["kind"] == "manual" for row in held.values()) > 5

    def taken_up() -> bool:
        rows = sql.all("SELECT id FROM run WHERE claimed_by = $1", me)
        return not rows

    until(taken_up, RECLAIM_S, "they are taken up")
    here.target.release("calls")

    def ended() -> bool:
        rows = sql.all("SELECT id FROM history WHERE id = ANY($1::uuid[])", list(held))
        return {row["id"] for row in rows} == set(held)

    until(ended, RECLAIM_S + 2 - (time.monotonic() - killed), "its runs are done")
    pause_all(one, names)
    quiet(sql, 10)
    ledger = Ledger.read(sql)
    assert ledger.mistakes() == []
    states = sql.all("SELECT state, count(*) FROM history GROUP BY state")
    assert {row["state"] for row in states} == {"succeeded"}
    assert {key for key, count in here.target.keys().items() if count > 1} <= set(held)
    assert here.target.early() == []
    assert one.troubles() == []


@pytest.mark.slow
@together
def test_what_a_replica_claimed_just_before_it_stalled_is_not_sent_when_it_wakes(
    here: Stage, shared: Shared
) -> None:
    url = shared.fresh()
    sql = here.sql(url)
    one = here.scheduler("one", database=url).ready()
    fault = Fault("scheduler.queue:claim_on_time", "after", sign=signal.SIGSTOP, pause=3)
    two = here.scheduler("two", database=url, fault=fault).ready()
    names = [f"t{n}" for n in range(200)]
    one.create([interval(n, here.target.url) for n in names])
    until(lambda: len(here.target.arrivals) > 400, 10, "calls arrive")
    me = incarnation(sql, two)
    two.armed.touch()
    until(two.stopped, 10, "it stands, the answer of its claim unread")
    held = held_by(sql, me)
    stopped = datetime.now(UTC)
    in_flight = {key for key, row in held.items() if row["due"] <= stopped + timedelta(seconds=0.1)}
    assert len(held) > len(in_flight)

    def ended() -> bool:
        rows = sql.all("SELECT id FROM history WHERE id = ANY($1::uuid[])", list(held))
        return {row["id"] for row in rows} == set(held)

    until(ended, STANDSTILL_S + 3, "the other one does them")
    settled = here.target.keys()
    two.signal(signal.SIGCONT)
    until(lambda: incarnation(sql, two) not in (None, me), 5, "it comes back under a new name")
    until(lambda: held_by(sql, incarnation(sql, two)), 5, "and takes part")
    pause_all(one, names)
    quiet(sql, 10)
    now = here.target.keys()
    assert [key for key in held.keys() - in_flight if now[key] != settled[key]] == []
    assert {key for key, count in now.items() if count > 1} <= in_flight
    assert Ledger.read(sql).mistakes() == []
    assert one.troubles() + two.troubles() == []


@pytest.mark.slow
@together
def test_a_replica_may_get_a_run_again_whose_first_call_it_still_waits_for(
    here: Stage, shared: Shared
) -> None:
    """It stalls, another one frees the run and tries it in vain, and it comes back to it."""
    url = shared.fresh()
    sql = here.sql(url)
    two = here.scheduler("two", database=url, worker_count=4).ready()
    slow = f"{here.target.url}/?hold=first&times=1&then=500"
    quick = {"initial_seconds": 0.2, "factor": 1}
    again = {"retry_backoff": quick, "max_retries": 100, "timeout_seconds": 90, "overlap": "allow"}
    two.do("POST", "/tasks", {"id": "t", "name": "t", "url": slow, **again})
    run = two.do("POST", "/tasks/t/execute?async=true&retry=true")["id"]
    until(lambda: len(here.target.arrivals) == 1, 5, "the call is under way")
    two.signal(signal.SIGSTOP)
    one = here.scheduler("one", database=url).ready()
    until(lambda: len(here.target.arrivals) > 1, STANDSTILL_S + 5, "another one tries it")
    two.signal(signal.SIGCONT)
    until(lambda: incarnation(sql, two), 5, "it comes back")
    one.stop()
    tried = len(here.target.arrivals)
    until(lambda: len(here.target.arrivals) > tried + 3, 10, "it tries it again itself")
    here.target.release("first")
    two.do("POST", "/tasks/t", {"url": f"{here.target.url}/?status=200"})
    until(lambda: two.do("GET", f"/runs/{run}")["state"] == "succeeded", 10, "it ends once")
    quiet(sql, 5)
    assert sql.one("SELECT count(*) FROM history") == 1

    held = {"id": "h", "name": "h", "url": f"{here.target.url}/?hold=later", "overlap": "allow"}
    two.do("POST", "/tasks", held)
    for _ in range(3):
        two.do("POST", "/tasks/h/execute?async=true")
    until(lambda: len(here.target.of("h")) == 3, 5, "all its workers still work")
    here.target.release("later")
    quiet(sql, 5)
    assert two.troubles() == []


@pytest.mark.slow
@pytest.mark.parametrize("how", ["cut", "silence"])
@together
def test_a_replica_that_cannot_reach_the_database_settles_nothing_twice_and_comes_back(
    here: Stage, shared: Shared, how: str
) -> None:
    url = shared.fresh()
    sql = here.sql(url)
    one = here.scheduler("one", database=url).ready()
    wire = here.wire(url)
    two = here.scheduler("two", database=wire.url).ready()
    names = [f"t{n}" for n in range(100)]
    one.create([interval(n, f"{here.target.url}/?delay=0.2") for n in names])
    until(lambda: len(here.target.arrivals) > 300, 10, "calls arrive")
    before = incarnation(sql, two)
    until(lambda: len(held_by(sql, before)) > 10, 15, "both take part")
    getattr(wire, how)()
    until(lambda: incarnation(sql, two) is None, STANDSTILL_S + 2, "it is taken for dead")
    assert two.call("GET", "/health")[0] == 200
    assert two.call("GET", "/ready")[0] == 503
    settled = {row["id"] for row in sql.all("SELECT id FROM history")}
    arrived = here.target.keys()
    wire.mend()
    after = until(lambda: incarnation(sql, two), 20, "it comes back under a new name")
    assert after != before
    until(lambda: len(held_by(sql, after)) > 10, 20, "and takes part")
    pause_all(one, names)
    quiet(sql, 15)

    ledger = Ledger.read(sql)
    assert ledger.mistakes() == []
    assert {row["state"] for row in ledger.rows()} == {"succeeded"}
    now = here.target.keys()
    assert [key for key in settled if now[key] != arrived[key]] == []
    assert max(now.values()) <= 2
    assert here.target.early() == []
    assert one.troubles() + two.troubles() == []
    assert two.stop() == 0


@together
def test_an_outcome_that_waits_for_the_database_does_not_swallow_a_later_one_of_its_run(
    here: Stage, shared: Shared
) -> None:
    """Its run was freed meanwhile, and came back to the same process under its new name."""
    url = shared.fresh()
    sql = here.sql(url)
    fault = Fault("scheduler.queue:settle", "before", sign=signal.SIGCONT, pause=6)
    two = here.scheduler("two", database=url, fault=fault).ready()
    task = {"id": "t", "name": "t", "url": f"{here.target.url}/?hold=a", "overlap": "allow"}
    two.do("POST", "/tasks", task)
    run = UUID(two.do("POST", "/tasks/t/execute?async=true")["id"])
    until(lambda: here.target.arrivals, 5, "it is under way")
    me = incarnation(sql, two)
    two.armed.touch()
    here.target.release("a")
    until(lambda: here.target.arrivals[0].ended, 5, "the outcome waits")
    # As another replica would, had this one not beaten for ten seconds.
    sql.all("DELETE FROM replica WHERE id = $1", me)
    until(lambda: incarnation(sql, two), 5, "it goes on under a new name")
    sql.all(
        "UPDATE run SET claimed_by = NULL, attempts_n = 1,"
        """ attempts = '[{"number": 1, "outcome": "unknown"}]' WHERE id = $1""",
        run,
    )
    until(lambda: len(here.target.arrivals) == 2, 5, "it is called again")
    until(lambda: two.do("GET", f"/runs/{run}")["state"] == "succeeded", 20, "and ends")
    quiet(sql, 3)
    assert sql.one("SELECT count(*) FROM history") == 1
    assert two.troubles() == []


@together
def test_without_notify_polling_finds_what_another_replica_was_told(
    here: Stage, shared: Shared
) -> None:
    url = shared.fresh()
    sql = here.sql(url)
    one = here.scheduler("one", database=url, **FULL, **DEAF).ready()
    busy(one, sql, f"{here.target.url}/?hold=busy")
    two = here.scheduler("two", database=url, **DEAF).ready()
    began = time.time()
    past = "2020-01-01T00:00:00Z"
    later = datetime.now(UTC) + timedelta(seconds=1.5)
    at_once, timed = [f"now{n}" for n in range(20)], [f"at{n}" for n in range(20)]
    one.create(
        [{"id": n, "name": n, "url": here.target.url, "scheduled_at": past} for n in at_once]
    )
    one.create(
        [
            {"id": n, "name": n, "url": here.target.url, "scheduled_at": later.isoformat()}
            for n in timed
        ]
    )
    until(lambda: len(here.target.keys(*at_once)) == 20, 5, "those due at once are done")
    assert max(here.target.of(n)[0].at for n in at_once) - began < 2
    until(lambda: len(here.target.keys(*timed)) == 20, 5, "the others at their time")
    assert max(here.target.of(n)[0].at for n in timed) < later.timestamp() + 0.6
    assert here.target.early() == []
    done = 'scheduler_runs_total{outcome="succeeded"}'
    until(lambda: two.metric(done) >= 38, 3, "by the one that nobody told")
    here.target.release("busy")


@together
def test_a_listener_killed_again_and_again_listens_again(here: Stage, shared: Shared) -> None:
    url = shared.fresh()
    sql = here.sql(url)
    one = here.scheduler("one", database=url, **FULL, worker_poll_seconds=60).ready()
    busy(one, sql, f"{here.target.url}/?hold=busy")
    two = here.scheduler("two", database=url, worker_poll_seconds=60).ready()
    until(lambda: one.metric("scheduler_replicas") == 2, 10, "they know of each other")
    listeners = """
        SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE application_name = 'scheduler listener' AND datname = current_database()
    """
    for _ in range(5):
        until(lambda: len(sql.all(listeners)) == 2, 10, "both listen")
    name = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'scheduler listener'"
    until(lambda: sql.one(name + " AND datname = current_database()") == 2, 10, "they listen again")
    task = {"id": "t", "name": "t", "url": here.target.url, "scheduled_at": "2020-01-01T00:00:00Z"}
    began = time.time()
    one.do("POST", "/tasks", task)
    until(lambda: here.target.of("t"), 5, "the hint got through")
    assert here.target.of("t")[0].at - began < 1
    here.target.release("busy")
    assert one.troubles() + two.troubles() == []


@pytest.mark.parametrize("hears", [True, False])
@together
def test_what_was_edited_or_deleted_elsewhere_is_not_fired_from_memory(
    here: Stage, shared: Shared, hears: bool
) -> None:
    """One that hears drops it at once; one that is deaf may start what was due within a second."""
    url = shared.fresh()
    sql = here.sql(url)
    ahead = {"worker_ahead_seconds": 4 if hears else 1}
    one = here.scheduler("one", database=url, **FULL, **ahead).ready()
    busy(one, sql, f"{here.target.url}/?hold=busy")
    two = here.scheduler("two", database=url, **ahead, **({} if hears else DEAF)).ready()
    kinds = ("edited", "deleted", "paused", "moved")
    names = {kind: [f"{kind}{n}" for n in range(20)] for kind in kinds}
    one.create([interval(n, f"{here.target.url}/old") for k in kinds for n in names[k]])
    me = incarnation(sql, two)
    until(lambda: len(here.target.keys()) > 160, 10, "calls arrive")
    until(lambda: len(held_by(sql, me)) > 60, 5, "they are held elsewhere")

    def change(name: str) -> tuple[str, float]:
        if name in names["deleted"]:
            one.do("DELETE", f"/tasks/{name}")
        else:
            body: dict[str, Any] = {"url": f"{here.target.url}/new"}
            if name in names["paused"]:
                body = {"status": "paused"}
            if name in names["moved"]:
                body |= {"frequency": 7, "unit": "minute"}
            one.do("POST", f"/tasks/{name}", body)
        return name, time.time()

    with ThreadPoolExecutor(4) as pool:
        changed = dict(pool.map(change, [n for k in kinds for n in names[k]]))
    until(lambda: len(here.target.of("edited0")) > 8, 15, "the edited ones go on")
    slack = 0.25 if hears else 1.05
    old = [a for a in list(here.target.arrivals) if a.path == "/old"]
    assert [a for a in old if a.scheduled_for > changed[a.task] + slack] == []
    new = Counter(a.task for a in list(here.target.arrivals) if a.path == "/new")
    assert set(new) == set(names["edited"])
    pause_all(one, names["edited"])
    here.target.release("busy")
    quiet(sql, 10)
    assert [m for m in Ledger.read(sql).mistakes() if m.startswith("edited")] == []
    assert max(here.target.keys().values()) == 1
    assert one.troubles() + two.troubles() == []


@pytest.mark.slow
@together
def test_a_task_that_takes_longer_than_its_interval_runs_one_at_a_time_and_every_instant_ends(
    here: Stage, shared: Shared
) -> None:
    url = shared.fresh()
    sql = here.sql(url)
    replicas = [here.scheduler(n, database=url).ready() for n in ("one", "two")]
    names = [f"t{n}" for n in range(20)]
    slow = f"{here.target.url}/?delay=2.5"
    replicas[0].create([interval(name, slow, overlap="skip") for name in names])
    until(lambda: len(here.target.arrivals) >= 20 * 5, 25, "calls arrive")
    pause_all(replicas[1], names)
    quiet(sql, 10)
    for name in names:
        calls = here.target.of(name)
        for earlier, later in itertools.pairwise(calls):
            assert earlier.ended is not None
            assert later.at >= earlier.ended, name
            assert later.scheduled_for - earlier.scheduled_for <= 3.5, name
    ledger = Ledger.read(sql)
    assert ledger.mistakes() == []
    assert {row["state"] for row in ledger.rows()} == {"succeeded", "skipped"}
    assert {row["reason"] for row in ledger.rows("skipped")} == {"overlap"}
    assert here.target.early() == []
    assert max(here.target.keys().values()) == 1
    assert replicas[0].troubles() + replicas[1].troubles() == []


@together
def test_a_replica_whose_workers_are_busy_leaves_what_is_due_to_an_idle_one(
    here: Stage, shared: Shared
) -> None:
    url = shared.fresh()
    sql = here.sql(url)
    one = here.scheduler("one", database=url, worker_count=4).ready()
    one.create(
        [{"id": f"h{n}", "name": "h", "url": f"{here.target.url}/?hold=h"} for n in range(3)]
    )
    for n in range(3):
        one.do("POST", f"/tasks/h{n}/execute?async=true")
    until(lambda: len(here.target.arrivals) == 3, 5, "one replica has its workers full")
    here.scheduler("two", database=url, worker_count=4).ready()
    later = (datetime.now(UTC) + timedelta(seconds=2)).isoformat()
    names = [f"t{n}" for n in range(100)]
    one.create([{"id": n, "name": n, "url": here.target.url, "scheduled_at": later} for n in names])
    done = "SELECT count(*) FROM history WHERE task_id LIKE 't%'"
    until(lambda: sql.one(done) == 100, 8, "the other one does them all")
    here.target.release("h")
    quiet(sql, 5)
