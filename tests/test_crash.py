"""kill -9 at every point between claim and settle, and a stop that was asked for."""

import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from harness import (
    RECLAIM_S,
    Fault,
    Lane,
    Ledger,
    Scenes,
    Scheduler,
    Shared,
    Stage,
    holds,
    interval,
    pause_all,
    postmaster,
    quiet,
    stage,
    together,
    until,
)
from scheduler.embedded import EmbeddedPostgres

pytestmark = pytest.mark.alone

ALLOWED = [f"allow-{n}" for n in range(20)]
SKIPPED = [f"skip-{n}" for n in range(5)]
RETRIED = [f"retry-{n}" for n in range(5)]
NAMES = ALLOWED + SKIPPED + RETRIED


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Stage]:
    with stage(tmp_path) as found:
        yield found


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lane]:
    found = Lane([tmp_path_factory.mktemp("data") for _ in range(3)])
    yield found
    found.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    found = Shared(tmp_path_factory.mktemp("shared"))
    yield found
    found.close()


@pytest.fixture(scope="module")
def scenes(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    shared: Shared,
    cluster: Lane,
) -> Iterator[Scenes]:
    found = Scenes(request, tmp_path_factory.mktemp("scenes"), 3, shared=shared, cluster=cluster)
    yield found
    found.close()


def database(data: Path) -> str:
    """The address of the Postgres that runs on a data directory."""
    return until(lambda: EmbeddedPostgres.join(data), 20, "Postgres runs")


def load(scheduler: Scheduler, url: str) -> None:
    """Tasks of a second: any number at once, one at a time, and such as fail at first."""
    quick = {"retry_backoff": {"initial_seconds": 0.1}}
    scheduler.create(
        [interval(name, f"{url}/{name}") for name in ALLOWED]
        + [interval(name, f"{url}/{name}", overlap="skip") for name in SKIPPED]
        + [interval(name, f"{url}/{name}?status=500&times=1", **quick) for name in RETRIED]
    )


# kill -9 ------------------------------------------------------------------------------------------

POINTS = {
    "before the claim": Fault("scheduler.queue:claim_on_time", "before"),
    "after the claim": Fault("scheduler.queue:claim_on_time", "after"),
    "before the send": Fault("scheduler.outbound:Outbound.send", "before", nth=7),
    "after the send": Fault("scheduler.outbound:Outbound.send", "after", nth=7),
    "before the settle": Fault("scheduler.queue:settle", "before"),
    "after the settle": Fault("scheduler.queue:settle", "after"),
    "between a retry and its commit": Fault("scheduler.queue:retry", "after"),
    "between a plan and its commit": Fault("scheduler.queue:enqueue", "after"),
}

HOLDING = ("after the claim", "before the send", "after the send", "before the settle")


@pytest.mark.parametrize("point", POINTS)
@together
def test_a_process_killed_on_its_way_loses_no_run_and_repeats_none_that_was_settled(
    here: Stage, cluster: Path, point: str
) -> None:
    doomed = here.scheduler(data=cluster, fault=POINTS[point], planner_window_seconds=4).ready()
    sql = here.sql(database(cluster))
    sql.all("TRUNCATE task, task_plan, run, history")
    load(doomed, here.target.url)
    until(lambda: len(here.target.arrivals) > 20, 10, "calls arrive")
    doomed.struck()

    settled = {row["id"] for row in sql.all("SELECT id FROM history")}
    held = {row["id"] for row in sql.all("SELECT id FROM run WHERE claimed_by IS NOT NULL")}
    assert settled
    assert held or point not in HOLDING
    before = here.target.keys()
    survivor = here.scheduler(data=cluster).ready()
    sql.url = database(cluster)

    def ended() -> bool:
        rows = sql.all("SELECT id FROM history WHERE id = ANY($1::uuid[])", list(held))
        return {row["id"] for row in rows} == held

    until(ended, RECLAIM_S - (time.monotonic() - survivor.started_at), "its runs are done")
    until(lambda: len(here.target.arrivals) > sum(before.values()) + 20, 10, "it goes on")
    pause_all(survivor, NAMES)
    quiet(sql, 10)

    ledger = Ledger.read(sql)
    assert ledger.mistakes() == []
    assert {row["state"] for row in ledger.rows()} <= {"succeeded", "skipped"}
    assert all(row["task_id"] in SKIPPED for row in ledger.rows("skipped"))
    after = here.target.keys()
    assert [key for key in settled if after[key] != before[key]] == []
    done = {row["id"]: row["task_id"] for row in ledger.rows("succeeded")}
    assert set(done) == set(after)
    again = {key for key, count in after.items() if count > 1 + (done[key] in RETRIED)}
    assert again <= held
    assert here.target.early() == []
    assert survivor.troubles() == []
    survivor.stop()


@pytest.mark.parametrize("committed", [True, False])
@together
def test_a_process_killed_while_its_settle_waits_repeats_the_call_only_if_that_was_undone(
    here: Stage, cluster: Path, committed: bool
) -> None:
    doomed = here.scheduler(data=cluster).ready()
    sql = here.sql(database(cluster))
    sql.all("TRUNCATE task, task_plan, run, history")
    doomed.do("POST", "/tasks", {"id": "t", "name": "t", "url": here.target.url + "/?hold=a"})
    run = doomed.do("POST", "/tasks/t/execute?async=true")["id"]
    until(lambda: here.target.arrivals, 5, "it is under way")
    blocked = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    with sql.locking("SELECT FROM run FOR UPDATE"):
        here.target.release("a")
        until(lambda: sql.all(blocked), 5, "the settle waits")
        doomed.kill()
        if not committed:
            sql.all(f"SELECT pg_terminate_backend(pid) FROM ({blocked}) AS b")
            until(lambda: not sql.all(blocked), 5, "the settle is undone")
    if committed:
        until(lambda: sql.all("SELECT FROM history"), 5, "the settle went through")
    survivor = here.scheduler(data=cluster).ready()
    sql.url = database(cluster)
    until(lambda: survivor.do("GET", f"/runs/{run}")["state"] == "succeeded", RECLAIM_S, "done")
    quiet(sql, 5)
    assert [str(a.key) for a in here.target.arrivals] == [run] * (1 if committed else 2)
    assert sql.one("SELECT count(*) FROM history") == 1
    survivor.stop()


@together
def test_program_and_postgres_killed_together_come_back_with_everything(
    here: Stage, cluster: Path
) -> None:
    doomed = here.scheduler(data=cluster).ready()
    sql = here.sql(database(cluster))
    sql.all("TRUNCATE task, task_plan, run, history")
    load(doomed, here.target.url)
    until(lambda: len(here.target.arrivals) > 60, 10, "calls arrive")
    settled = {row["id"] for row in sql.all("SELECT id FROM history")}
    server = postmaster(cluster)
    assert server is not None
    server.kill()
    doomed.kill()
    before = here.target.keys()

    survivor = here.scheduler(data=cluster).ready()
    sql.url = database(cluster)
    assert settled <= {row["id"] for row in sql.all("SELECT id FROM history")}
    until(lambda: len(here.target.arrivals) > sum(before.values()) + 60, 15, "it goes on")
    pause_all(survivor, NAMES)
    quiet(sql, 15)
    ledger = Ledger.read(sql)
    assert ledger.mistakes() == []
    after = here.target.keys()
    assert [key for key in settled if after[key] != before[key]] == []
    assert {row["state"] for row in ledger.rows()} <= {"succeeded", "skipped"}
    assert survivor.troubles() == []
    survivor.stop()


@together
def test_a_call_cut_by_kill_9_comes_again_under_the_same_key_and_its_attempt_is_listed(
    here: Stage, cluster: Path
) -> None:
    doomed = here.scheduler(data=cluster).ready()
    sql = here.sql(database(cluster))
    sql.all("TRUNCATE task, task_plan, run, history")
    doomed.do("POST", "/tasks", {"id": "t", "name": "t", "url": here.target.url + "/?hold=a"})
    run = doomed.do("POST", "/tasks/t/execute?async=true")["id"]
    until(lambda: here.target.arrivals, 5, "it is under way")
    doomed.kill()
    here.target.release("a")
    survivor = here.scheduler(data=cluster).ready()
    shown = until(
        lambda: (r := survivor.do("GET", f"/runs/{run}"))["state"] == "succeeded" and r,
        RECLAIM_S - (time.monotonic() - survivor.started_at),
        "done",
    )
    assert [str(a.key) for a in here.target.arrivals] == [run, run]
    assert [a["outcome"] for a in shown["attempts"]] == ["unknown", "succeeded"]
    executions = survivor.do("GET", "/tasks/t/executions")
    assert [e["status"] for e in executions["records"]] == ["success", "failed"]
    survivor.stop()


# SIGTERM ------------------------------------------------------------------------------------------


@together
def test_sigterm_lets_a_call_end_and_records_it_and_stops_postgres_last(
    here: Stage, cluster: Path
) -> None:
    first = here.scheduler(data=cluster).ready()
    sql = here.sql(database(cluster))
    sql.all("TRUNCATE task, task_plan, run, history")
    first.do("POST", "/tasks", {"id": "t", "name": "t", "url": here.target.url + "/?hold=a"})
    run = first.do("POST", "/tasks/t/execute?async=true")["id"]
    until(lambda: here.target.arrivals, 5, "it is under way")
    first.signal(signal.SIGTERM)
    holds(lambda: first.alive and postmaster(cluster), 1.5, "it waits for the call")
    here.target.release("a")
    assert first.process.wait(10) == 0
    assert postmaster(cluster) is None

    second = here.scheduler(data=cluster).ready()
    shown = second.do("GET", f"/runs/{run}")
    assert shown["state"] == "succeeded"
    assert len(shown["attempts"]) == 1
    assert len(here.target.arrivals) == 1
    assert second.stop() == 0


@together
def test_sigterm_gives_back_what_is_claimed_and_unsent(here: Stage, shared: Shared) -> None:
    url = shared.fresh()
    sql = here.sql(url)
    first = here.scheduler(database=url, worker_ahead_seconds=5).ready()
    first.create([interval(f"t{n}", here.target.url) for n in range(300)])
    mine = "SELECT count(*) FROM run WHERE claimed_by IS NOT NULL"
    for _ in range(3):
        until(lambda: sql.one(mine + " AND due > now()") > 600, 10, "much is held")
        assert first.stop() == 0
        assert sql.one(mine) == 0
        assert sql.one("SELECT count(*) FROM replica") == 0
        first = here.scheduler(database=url, worker_ahead_seconds=5).ready()
    pause_all(first, [f"t{n}" for n in range(300)])
    quiet(sql, 15)
    ledger = Ledger.read(sql)
    assert ledger.mistakes() == []
    assert {row["state"] for row in ledger.rows()} == {"succeeded"}
    assert max(here.target.keys().values()) == 1
    assert {row["attempts_n"] for row in ledger.rows()} == {1}
    assert first.stop() == 0


@together
def test_sigterm_while_a_claim_is_being_answered_gives_that_back_too(
    here: Stage, shared: Shared
) -> None:
    url = shared.fresh()
    sql = here.sql(url)
    fault = Fault("scheduler.queue:claim_on_time", "after", sign=signal.SIGTERM, pause=1.0)
    doomed = here.scheduler(database=url, fault=fault).ready()
    doomed.create([interval(f"t{n}", here.target.url) for n in range(20)])
    until(lambda: len(here.target.arrivals) > 20, 10, "calls arrive")
    doomed.armed.touch()
    assert doomed.process.wait(20) == 0
    left = sql.all("SELECT task_id, due FROM run WHERE claimed_by IS NOT NULL")
    assert left == []


@together
def test_calls_longer_than_the_drain_settle_as_unknown_and_come_again(
    here: Stage, cluster: Path
) -> None:
    first = here.scheduler(data=cluster, worker_drain_seconds=1).ready()
    sql = here.sql(database(cluster))
    sql.all("TRUNCATE task, task_plan, run, history")
    first.do("POST", "/tasks", {"id": "t", "name": "t", "url": here.target.url + "/?hold=a"})
    run = first.do("POST", "/tasks/t/execute?async=true")["id"]
    until(lambda: here.target.arrivals, 5, "it is under way")
    began = time.monotonic()
    assert first.stop() == 0
    assert time.monotonic() - began < 4

    here.target.release("a")
    second = here.scheduler(data=cluster).ready()
    shown = until(
        lambda: (r := second.do("GET", f"/runs/{run}"))["state"] == "succeeded" and r, 10, "done"
    )
    assert [a["outcome"] for a in shown["attempts"]] == ["unknown", "succeeded"]
    assert shown["attempts"][0]["error"].endswith("may have arrived")
    assert second.stop() == 0


@together
def test_a_second_sigterm_changes_nothing(here: Stage, cluster: Path) -> None:
    first = here.scheduler(data=cluster).ready()
    sql = here.sql(database(cluster))
    sql.all("TRUNCATE task, task_plan, run, history")
    first.do("POST", "/tasks", {"id": "t", "name": "t", "url": here.target.url + "/?delay=2"})
    first.do("POST", "/tasks/t/execute?async=true")
    until(lambda: here.target.arrivals, 5, "it is under way")
    for _ in range(3):
        first.signal(signal.SIGTERM)
        holds(lambda: first.alive, 0.3, "it drains")
    assert first.process.wait(10) == 0
    assert postmaster(cluster) is None
    assert here.target.arrivals[0].ended is not None


@together
def test_after_sigterm_nothing_more_is_sent_though_a_client_still_waits(
    here: Stage, shared: Shared
) -> None:
    url = shared.fresh()
    first = here.scheduler(database=url).ready()
    first.create([interval(f"t{n}", here.target.url) for n in range(20)])
    first.do("POST", "/tasks", {"id": "w", "name": "w", "url": here.target.url + "/?hold=a"})
    with ThreadPoolExecutor(1) as pool:
        waiter = pool.submit(first.call, "POST", "/tasks/w/execute")
        until(lambda: here.target.of("w"), 5, "a client waits for a run")
        first.signal(signal.SIGTERM)
        told = time.time()
        holds(lambda: first.alive, 3, "it drains")
        late = [a for a in list(here.target.arrivals) if a.at > told + 1]
        here.target.release("a")
        status, answer = waiter.result(10)
    assert late == []
    assert (status, answer.get("status")) == (200, "success")
    assert first.process.wait(10) == 0


@together
def test_sigterm_ends_a_process_that_still_waits_for_its_database(here: Stage) -> None:
    nowhere = here.home / "nowhere"
    nowhere.mkdir()
    url = f"postgresql://postgres@/scheduler?host={nowhere}&port=5432"
    waiting = here.scheduler(database=url)
    until(lambda: waiting.logged("waiting for the database"), 10, "it waits")
    assert waiting.stop(5) == 0


@together
def test_sigterm_in_the_first_second_leaves_no_postgres_behind(here: Stage, cluster: Path) -> None:
    for wait in (0.3, 0.5, 0.7, 0.9, 1.1):
        doomed = here.scheduler(data=cluster)
        until(lambda d=doomed, w=wait: time.monotonic() - d.started_at > w, 2)
        doomed.stop(10)
        until(lambda: postmaster(cluster) is None, 3, f"Postgres is gone, too, after {wait} s")
