"""Postgres killed, its connections cut, its tables locked, its rows damaged by hand."""

import contextlib
import json
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from harness import (
    Ledger,
    Scenes,
    Scheduler,
    Shared,
    Sql,
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

NAMES = [f"t{n}" for n in range(200)]


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


def more(here: Stage, calls: int, within: float = 10) -> None:
    """Return when so many more calls have come."""
    seen = len(here.target.arrivals)
    until(lambda: len(here.target.arrivals) >= seen + calls, within, f"{calls} calls more")


def each_once(here: Stage, sql: Sql, *replicas: Scheduler, within: float = 15) -> None:
    """Let it come to rest; every instant has succeeded, and was called once, not too early."""
    pause_all(replicas[0], NAMES)
    quiet(sql, within)
    ledger = Ledger.read(sql)
    assert ledger.mistakes() == []
    assert {row["state"] for row in ledger.rows()} == {"succeeded"}
    keys = here.target.keys()
    assert {row["id"] for row in ledger.rows()} == set(keys)
    assert {row["attempts_n"] for row in ledger.rows()} == {1}
    assert max(keys.values()) == 1
    assert here.target.early() == []
    assert [r.troubles() for r in replicas] == [[] for _ in replicas]


@pytest.mark.slow
@together
def test_postgres_killed_under_load_loses_and_doubles_nothing(here: Stage) -> None:
    shared = here.shared()
    one, two = (here.scheduler(n, database=shared.url).ready() for n in ("one", "two"))
    one.create([interval(n, f"{here.target.url}/?delay=0.1") for n in NAMES])
    more(here, 400)
    who = {row["id"] for row in shared.sql.all("SELECT id FROM replica")}
    shared.kill()
    shared.start()
    more(here, 400, 15)

    shared.kill()
    until(lambda: one.call("GET", "/tasks")[0] == 503, 10, "it says so")
    assert one.call("GET", "/health")[0] == 200
    until(lambda: "does not beat" in str(one.call("GET", "/ready")[1]), 12, "it is not ready")
    # Nobody knows now whether others have freed these runs: nothing is sent any more.
    sent = len(here.target.arrivals)
    holds(lambda: len(here.target.arrivals) == sent, 1.5, "nothing is sent")
    shared.start()
    more(here, 800, 20)
    assert {row["id"] for row in shared.sql.all("SELECT id FROM replica")} == who
    each_once(here, shared.sql, one, two)


@together
def test_connections_killed_one_by_one_lose_and_double_nothing(here: Stage, shared: Shared) -> None:
    url = shared.fresh()
    sql = here.sql(url)
    one, two = (here.scheduler(n, database=url).ready() for n in ("one", "two"))
    one.create([interval(n, here.target.url) for n in NAMES])
    more(here, 300)
    ours = """
        SELECT pid, application_name FROM pg_stat_activity
        WHERE application_name LIKE 'scheduler %' AND datname = current_database()
    """
    killed = set()
    for _ in range(6):
        for row in sql.all(ours):
            sql.one("SELECT pg_terminate_backend($1)", row["pid"])
            killed.add(row["application_name"])
        more(here, 60)
    assert killed == {"scheduler engine", "scheduler api", "scheduler listener"}
    until(lambda: one.call("GET", "/ready")[0] == 200, 5, "it is ready")
    each_once(here, sql, one, two)


@together
def test_an_embedded_postgres_that_was_killed_is_started_again(here: Stage) -> None:
    data = here.home / "data"
    one = here.scheduler(data=data).ready()
    sql = here.sql(EmbeddedPostgres.join(data) or "")
    one.create([interval(n, here.target.url) for n in NAMES])
    for sign in (signal.SIGKILL, signal.SIGQUIT):
        more(here, 300)
        server = postmaster(data)
        assert server is not None
        server.send_signal(sign)
        server.wait(10)
        until(lambda: postmaster(data), 15, "it is back")
        more(here, 300, 15)
    each_once(here, sql, one)
    assert one.stop() == 0
    assert postmaster(data) is None


@contextlib.contextmanager
def reading_only(shared: Shared, url: str, sql: Sql) -> Iterator[None]:
    """Let nothing be written to a database meanwhile."""
    name = url.partition("/fresh")[2].partition("?")[0]
    cut = """
        SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE application_name LIKE 'scheduler %' AND datname = current_database()
    """
    for mode in ("on", "off"):
        shared.sql.all(f"ALTER DATABASE fresh{name} SET default_transaction_read_only = {mode}")
        sql.all(cut)
        if mode == "on":
            yield


@together
def test_a_database_that_only_reads_for_a_while_is_waited_for(here: Stage, shared: Shared) -> None:
    """As after a failover, while the address still leads to a standby."""
    url = shared.fresh()
    sql = here.sql(url)
    one = here.scheduler("one", database=url).ready()
    one.create([interval(n, here.target.url) for n in NAMES])
    more(here, 300)
    with reading_only(shared, url, sql):
        until(lambda: one.logged("the database is away"), 5, "it notices")
        task = interval("new", here.target.url)
        until(lambda: one.call("POST", "/tasks", task)[0] == 503, 5, "it cannot write")
    more(here, 400, 15)
    each_once(here, sql, one)


@together
def test_what_was_missed_while_the_database_was_away_is_judged_before_the_first_claim(
    here: Stage, shared: Shared
) -> None:
    url = shared.fresh()
    sql = here.sql(url)
    one = here.scheduler("one", database=url).ready()
    late = {"misfire": "skip", "misfire_grace_seconds": 1}
    one.create([interval(n, here.target.url, **late) for n in NAMES[:20]])
    more(here, 60)
    with reading_only(shared, url, sql):
        until(lambda: one.logged("the queue cannot be reached"), 5, "it cannot claim")
        waits = "SELECT now() - min(due) FROM run WHERE claimed_by IS NULL"
        until(lambda: sql.one(waits) > timedelta(seconds=4), 15, "some are overdue")
    more(here, 60, 20)
    lag = "SELECT max(started_at - scheduled_for) FROM history WHERE state = 'succeeded'"
    assert sql.one(lag) < timedelta(seconds=2.5)
    assert sql.one("SELECT count(*) FROM history WHERE reason = 'misfire'") > 0


@pytest.mark.slow
@together
def test_tables_locked_for_longer_than_a_statement_may_take_are_waited_for(
    here: Stage, shared: Shared
) -> None:
    url = shared.fresh()
    sql = here.sql(url)
    one, two = (here.scheduler(n, database=url).ready() for n in ("one", "two"))
    one.create([interval(n, here.target.url) for n in NAMES])
    more(here, 300)
    with sql.locking("LOCK TABLE run, history, task_plan IN ACCESS EXCLUSIVE MODE"):
        until(lambda: one.log() and two.log(), 1)
        until(lambda: one.logged("outcomes wait") or two.logged("outcomes wait"), 12, "they wait")
    more(here, 800, 20)
    each_once(here, sql, one, two)


@together
def test_a_settle_that_meets_no_partition_makes_it(here: Stage, shared: Shared) -> None:
    url = shared.fresh()
    sql = here.sql(url)
    one = here.scheduler("one", database=url).ready()
    one.create([interval(n, here.target.url) for n in NAMES[:20]])
    for (partition,) in sql.all("SELECT inhrelid::regclass::text FROM pg_inherits "
                                "WHERE inhparent = 'history'::regclass"):  # fmt: skip
        sql.all(f"DROP TABLE {partition}")
    more(here, 60)
    until(lambda: sql.one("SELECT count(*) FROM history") > 40, 5, "they are recorded")
    assert one.troubles() == []


@together
def test_a_partition_that_cannot_be_made_yet_does_not_end_the_settling(
    here: Stage, shared: Shared
) -> None:
    url = shared.fresh()
    sql = here.sql(url)
    one = here.scheduler("one", database=url).ready()
    one.create([interval(n, here.target.url) for n in NAMES[:20]])
    names = [row[0] for row in sql.all("SELECT inhrelid::regclass::text FROM pg_inherits "
                                       "WHERE inhparent = 'history'::regclass")]  # fmt: skip
    more(here, 20)
    for name in names:
        sql.all(f"DROP TABLE {name}")
        sql.all(f"CREATE TABLE {name} (something integer)")
    more(here, 40)
    until(lambda: one.metric("scheduler_unsettled_outcomes") > 20, 10, "outcomes wait")
    for name in names:
        sql.all(f"DROP TABLE {name}")
    until(lambda: sql.one("SELECT count(*) FROM history") > 40, 15, "they are recorded")
    assert one.logged("a part of the engine died") == []


# Damaged by hand ----------------------------------------------------------------------------------

DEEP = "[" * 3000 + "]" * 3000
HUGE = "1" + "0" * 400
HTTP = '{"kind": "http", "url": "http://127.0.0.1:9/", '
EVERY = '{"kind": "interval", "unit": "second", '

TASKS = {
    "trigger-words": ("trigger", '"garbage"'),
    "trigger-null": ("trigger", "null"),
    "trigger-list": ("trigger", "[]"),
    "trigger-kind": ("trigger", '{"kind": "moon"}'),
    "trigger-lacks": ("trigger", '{"kind": "interval"}'),
    "trigger-zero": ("trigger", EVERY + '"frequency": 0, "anchor": 1}'),
    "trigger-minus": ("trigger", EVERY + '"frequency": -1, "anchor": 1}'),
    "trigger-back": ("trigger", EVERY + '"frequency": -3600, "anchor": 1}'),
    "trigger-huge": ("trigger", EVERY + f'"frequency": {HUGE}, "anchor": 1}}'),
    "trigger-far": ("trigger", EVERY + '"frequency": 1, "anchor": 9223372036854775807}'),
    "trigger-past": ("trigger", EVERY + '"frequency": 1, "anchor": -9223372036854775807}'),
    "trigger-deep": ("trigger", f'{{"kind": "interval", "x": {DEEP}}}'),
    "once-far": ("trigger", '{"kind": "once", "at": 9223372036854775807}'),
    "action-words": ("action", '"garbage"'),
    "action-url": ("action", '{"kind": "http", "url": "::::"}'),
    "action-breaks": ("action", HTTP + '"header": {"a": "b\\r\\nc"}}'),
    "action-header": ("action", HTTP + '"header": {"a": 5}}'),
    "action-letters": ("action", HTTP + '"header": {"\u00e4": "\u20ac"}}'),
    "action-method": ("action", HTTP + '"method": "G E T"}'),
    "action-deep": ("action", HTTP + f'"header": {DEEP}}}'),
    "policy-words": ("policy", '"garbage"'),
    "policy-grace": ("policy", '{"misfire_grace_seconds": 1e300}'),
    "policy-minus": ("policy", '{"misfire_grace_seconds": -1e300}'),
    "policy-timeout": ("policy", '{"timeout_seconds": -5}'),
    "policy-forever": ("policy", '{"timeout_seconds": 1e300}'),
    "policy-factor": ("policy", '{"retry_backoff": {"factor": 1e308, "initial_seconds": 1e308}}'),
    "policy-status": ("policy", '{"expected_status": [[1]]}'),
    "policy-huge": ("policy", f'{{"max_retries": {HUGE}}}'),
    "policy-age": ("policy", '{"max_age_seconds": -1e300}'),
    "tags-number": ("tags", "5"),
}

RUNS = {
    "attempts-words": ("attempts", '"garbage"'),
    "attempts-object": ("attempts", "{}"),
    "attempts-number": ("attempts", "[5]"),
    "attempts-fields": ("attempts", '[{"number": "x"}]'),
    "attempts-huge": ("attempts", f'[{{"number": {HUGE}, "outcome": "failed"}}]'),
    "attempts-deep": ("attempts", DEEP),
    "key": ("task_key", uuid4()),
    "no-key": ("task_key", None),
    "kind": ("kind", "moon"),
    "service": ("service_id", uuid4()),
    "version": ("version", 2**31 - 1),
    "retries": ("max_retries", -5),
}

HISTORY = {
    "attempts-words": '"garbage"',
    "attempts-object": "{}",
    "attempts-number": "[5]",
    "attempts-huge": f'[{{"number": {HUGE}, "outcome": "failed"}}]',
    "attempts-deep": DEEP,
}

GOOD = [f"good{n}" for n in range(10)]


def go_on(here: Stage) -> None:
    """See that every good task is called on time for a few seconds."""
    since = time.time()

    def called() -> bool:
        calls = [a for a in list(here.target.arrivals) if a.scheduled_for > since]
        return all(sum(a.task == name for a in calls) >= 4 for name in GOOD)

    until(called, 10, "the others go on")
    calls = [a for a in list(here.target.arrivals) if a.scheduled_for > since]
    assert max(a.at - a.scheduled_for for a in calls if a.task in GOOD) < 1


def damaged(here: Stage, shared: Shared, names: list[str]) -> tuple[Scheduler, Sql, str]:
    url = shared.fresh()
    one = here.scheduler("one", database=url, planner_window_seconds=4).ready()
    one.create([interval(n, here.target.url) for n in GOOD + names])
    until(lambda: len(here.target.keys(*GOOD)) >= 10, 5, "calls arrive")
    return one, here.sql(url), url


@together
def test_a_task_damaged_by_hand_is_set_aside_and_seen_and_the_others_go_on(
    here: Stage, shared: Shared
) -> None:
    one, sql, url = damaged(here, shared, list(TASKS))
    for name, (column, value) in TASKS.items():
        sql.all(f"UPDATE task SET {column} = $1::jsonb, version = version + 1 WHERE id = $2",
                value, name)  # fmt: skip
    go_on(here)
    go_on(here)
    bad = {
        name: answer
        for name in TASKS
        for path in ("", "/executions")
        if (answer := one.call("GET", f"/tasks/{name}{path}"))[0] != 200
    }
    assert bad == {}
    status, listed = one.call("GET", "/tasks")
    assert status == 200
    states = {task["id"]: task for task in listed}
    broken = [n for n in TASKS if n.split("-")[1] in ("words", "list", "kind", "lacks", "deep")]
    assert [n for n in broken if states[n]["state"] != "failed"] == []
    assert [n for n in broken if "cannot be read" not in states[n].get("message", "")] == []
    logged = {line["task"] for line in one.logged("task set aside")}
    assert {n for n in broken if n.startswith("trigger")} <= logged
    reasons = sql.all("SELECT task_id, reason FROM history WHERE state = 'failed'")
    assert {n for n in broken if n.startswith("trigger")} <= {row["task_id"] for row in reasons}
    assert one.troubles() == []
    planned = one.metric("scheduler_plan_seconds_count")
    holds(lambda: True, 2)
    assert one.metric("scheduler_plan_seconds_count") - planned < 20, "the planner runs hot"

    one.stop()
    sql.all("""UPDATE run SET due = due - interval '1 h', scheduled_for = due - interval '1 h'
               WHERE task_id LIKE 'policy%' AND claimed_by IS NULL""")
    again = here.scheduler("again", database=url, planner_window_seconds=4).ready()
    go_on(here)
    assert again.troubles() == []
    for name in TASKS:
        assert again.call("DELETE", f"/tasks/{name}")[0] == 204, name


@together
def test_a_run_damaged_by_hand_is_set_aside_and_seen_and_the_others_go_on(
    here: Stage, shared: Shared
) -> None:
    one, sql, url = damaged(here, shared, list(RUNS))
    hurt: dict[str, UUID] = {}
    for name, (column, value) in RUNS.items():
        cast = "::jsonb" if column == "attempts" else ""
        row = sql.all(
            f"""UPDATE run SET {column} = $1{cast} WHERE id = (
                SELECT id FROM run WHERE task_id = $2 AND claimed_by IS NULL
                ORDER BY due LIMIT 1) RETURNING id""",
            value,
            name,
        )
        hurt[name] = row[0]["id"]
    go_on(here)
    seen = {}
    for name, run in hurt.items():
        status, shown = one.call("GET", f"/runs/{run}")
        seen[name] = shown["state"] if status == 200 else status
    broken = [n for n in RUNS if n.startswith("attempts") and n != "attempts-huge"]
    assert {n: seen[n] for n in broken} == dict.fromkeys(broken, "failed")
    assert sql.one("SELECT reason FROM history WHERE id = $1", hurt["attempts-deep"])
    for name in RUNS:
        assert one.call("GET", f"/tasks/{name}/executions")[0] == 200, name
        assert one.call("GET", f"/tasks/{name}")[0] == 200, name
    assert one.troubles() == []
    # The tasks themselves are whole: they go on, too.
    since = time.time()
    until(lambda: {a.task for a in list(here.target.arrivals) if a.scheduled_for > since}
          >= set(RUNS), 5, "all tasks go on")  # fmt: skip
    one.stop()
    again = here.scheduler("again", database=url, planner_window_seconds=4).ready()
    go_on(here)
    assert again.troubles() == []


@together
def test_history_damaged_by_hand_is_shown_as_far_as_it_goes(here: Stage, shared: Shared) -> None:
    one, sql, _ = damaged(here, shared, list(HISTORY))
    until(lambda: {row[0] for row in sql.all("SELECT task_id FROM history")} >= set(HISTORY), 5)
    for name, value in HISTORY.items():
        sql.all("UPDATE history SET attempts = $1::jsonb WHERE task_id = $2", value, name)
    pause_all(one, list(HISTORY))
    for name in HISTORY:
        (run,) = sql.all("SELECT id FROM history WHERE task_id = $1 LIMIT 1", name)[0]
        assert one.do("GET", f"/runs/{run}")["state"] == "succeeded", name
        page = one.do("GET", f"/tasks/{name}/executions")
        assert page["total_count"] >= 0, name
        assert one.do("GET", f"/tasks/{name}")["id"] == name
    go_on(here)
    assert one.troubles() == []


@together
def test_a_task_repaired_by_hand_fires_each_instant_once(here: Stage, shared: Shared) -> None:
    url = shared.fresh()
    sql = here.sql(url)
    one = here.scheduler("one", database=url, planner_window_seconds=20).ready()
    one.create([interval("t", here.target.url)])
    until(lambda: here.target.arrivals, 5, "it is called")
    good: Any = json.loads(sql.one("SELECT trigger FROM task"))
    sql.all("""UPDATE task SET trigger = '"garbage"'""")
    sql.all("UPDATE task_plan SET next_plan_at = now()")  # or ten seconds later
    until(lambda: one.logged("task set aside"), 5, "it is set aside")
    calls = len(here.target.arrivals)
    until(lambda: len(here.target.arrivals) > calls + 4, 10, "what was planned before goes on")
    sql.all("UPDATE task SET trigger = $1::jsonb", json.dumps(good))
    sql.all("UPDATE task_plan SET next_plan_at = now()")
    calls = len(here.target.arrivals)
    until(lambda: len(here.target.arrivals) > calls + 4, 10, "it goes on")
    pause_all(one, ["t"])
    quiet(sql, 5)
    assert max(here.target.keys().values()) == 1
    ended = sql.all("SELECT id, count(*) FROM history WHERE attempts_n > 0 GROUP BY id")
    assert {row["count"] for row in ended} == {1}


@together
def test_a_task_repaired_by_hand_is_read_again_without_a_new_version(
    here: Stage, shared: Shared
) -> None:
    url = shared.fresh()
    sql = here.sql(url)
    one = here.scheduler("one", database=url).ready()
    first = (datetime.now(UTC) + timedelta(seconds=2)).isoformat()
    one.create([interval("t", here.target.url, scheduled_at=first)])
    good = sql.one("SELECT action FROM task")
    sql.all("""UPDATE task SET action = '"garbage"'""")
    until(lambda: sql.all("SELECT FROM history WHERE state = 'failed'"), 6, "it fails, and says so")
    sql.all("UPDATE task SET action = $1::jsonb", good)
    until(lambda: len(here.target.arrivals) > 3, 8, "it is called")
    assert one.troubles() == []
