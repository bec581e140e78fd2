"""`scheduler worker`: a replica without the API, on a shared and on an embedded database."""

import signal
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from conftest import quick_folder
from harness import Scheduler, Shared, Sql, Stage, interval, stage, until
from scheduler.embedded import EmbeddedPostgres
from scheduler.joining import Joiners


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with (
        quick_folder(tmp_path_factory.mktemp("workers")) as home,
        stage(home) as found,
    ):
        yield found


@pytest.fixture(scope="module")
def shared(here: Stage) -> Shared:
    return here.shared()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


def worker(here: Stage, *flags: str, **more: Any) -> Scheduler:
    return here.scheduler("worker", words=("worker", *flags), **more)


def at_work(sql: Sql, role: str, pid: int) -> None:
    def beats() -> Any:
        if sql.one("SELECT to_regclass('replica')") is None:
            return False
        found = "SELECT count(*) FROM replica WHERE role = $1 AND pid = $2 AND beat > 0"
        return sql.one(found, role, pid)

    until(beats, 20, f"{role} {pid} beats")


def asked(port: int, path: str) -> tuple[int, bytes]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
        return answer.status, answer.read()


def refused(port: int, path: str) -> bool:
    try:
        asked(port, path)
    except urllib.error.HTTPError as e:
        return e.code == 404
    except OSError:
        return True
    return False


def test_a_worker_runs_what_a_server_takes_in_and_drains_when_told_to_stop(here, shared):
    url = shared.fresh()
    sql = here.sql(url)
    server = here.scheduler("serve", database=url).ready()
    port = free_port()
    replica = worker(here, "--health-port", str(port), database=url, worker_count=7)
    until(lambda: not refused(port, "/ready"), 20, "the worker is ready")
    assert asked(port, "/health") == (200, b'{"status":"ok"}')
    assert b"scheduler_held_runs" in asked(port, "/metrics")[1]
    for path in ("/", "/tasks", "/docs", "/services", "/dashboard"):
        assert refused(port, path), path
    at_work(sql, "worker", replica.pid)
    assert sql.one("SELECT role FROM replica WHERE pid = $1", server.pid) == "serve"

    held = interval("held", f"{here.target.url}/?hold=worker", frequency=1)
    server.create([held])
    server.signal(signal.SIGSTOP)  # whatever falls due is the worker's
    try:
        until(lambda: len(here.target.of("held")) >= 2, 20, "the worker calls")
        replica.signal(signal.SIGTERM)
        until(lambda: replica.logged("ready"), 5, "it logs")
        assert {line["service"] for line in replica.log()} == {"scheduler.worker"}
        before = len(here.target.of("held"))
        here.target.release("worker")
        assert replica.process.wait(20) == 0
    finally:
        server.signal(signal.SIGCONT)
    assert before >= 2
    assert replica.troubles() == []
    ended = sql.one("SELECT count(*) FROM history WHERE state = 'succeeded'")
    assert ended >= 1
    assert sql.one("SELECT count(*) FROM replica WHERE role = 'worker'") == 0


def test_a_worker_listens_nowhere_and_makes_no_service_and_no_credentials(here, shared):
    url, home = shared.fresh(), here.home / "nobody"
    replica = worker(here, database=url, server_port=free_port(), data_dir=home)
    sql = here.sql(url)
    at_work(sql, "worker", replica.pid)
    connections = psutil.Process(replica.pid).net_connections("inet")
    assert [found for found in connections if found.status == psutil.CONN_LISTEN] == []
    assert sql.one("SELECT count(*) FROM service") == 0
    assert not (home / "credentials.json").exists()
    assert replica.stop() == 0


@pytest.mark.slow
def test_a_server_that_starts_anew_leaves_a_joined_workers_runs_alone(here):
    """The lock on the data directory does not prove that workers are dead."""
    data = here.home / "embedded"
    server = here.scheduler("serve", data=data).ready()
    replica = worker(here, data=data)
    sql = here.sql(EmbeddedPostgres.join(data))
    at_work(sql, "worker", replica.pid)
    server.create([interval("once", f"{here.target.url}/?hold=joined", frequency=1)])
    server.kill()  # its Postgres lives on, and so does the worker
    until(lambda: len(here.target.of("once")) >= 2, 20, "the worker calls")
    holder = "SELECT r.id FROM replica r JOIN run ON run.claimed_by = r.id WHERE r.role = 'worker'"
    mine = until(lambda: sql.one(holder), 10, "the worker holds runs")

    second = here.scheduler("serve", data=data).ready()

    assert second.logged("started alone") == []
    assert sql.one("SELECT count(*) FROM replica WHERE id = $1", mine) == 1
    second.do("POST", "/tasks/once", {"status": "paused"})
    here.target.release("joined")
    until(lambda: sql.one("SELECT count(*) FROM run") == 0, 30, "all is settled")
    assert set(here.target.keys("once").values()) <= {1, 2}
    worked = [a for a in here.target.of("once") if a.attempt == 1]
    assert len(worked) == len({a.key for a in worked})
    assert replica.logged("taken for dead") == []
    assert replica.stop() == 0
    second.kill()
    third = here.scheduler("serve", data=data).ready()
    assert third.logged("started alone")  # now nobody else can be there
    assert third.stop() == 0


@pytest.mark.slow
def test_a_worker_on_its_own_runs_the_embedded_postgres_itself(here):
    data = here.home / "embedded"
    replica = worker(here, data=data)
    url = until(lambda: EmbeddedPostgres.join(data), 20, "Postgres runs")
    at_work(here.sql(url), "worker", replica.pid)
    taken = here.scheduler("serve", data=data)
    assert taken.process.wait(20) == 1
    assert f"process {replica.pid}" in (taken.home / f"{taken.name}.err").read_text()
    assert replica.stop() == 0
    assert EmbeddedPostgres.join(data) is None


def test_a_health_port_that_is_taken_is_one_sentence(here, shared):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        replica = worker(here, "--health-port", str(port), database=shared.url)
        assert replica.process.wait(20) == 1
    said = (replica.home / f"{replica.name}.err").read_text()
    assert len(said.splitlines()) == 1 and f"127.0.0.1:{port}" in said


def test_joiners_keep_out_who_takes_itself_for_the_only_one(tmp_path: Path):
    (tmp_path / "postgres").mkdir()
    server, one, two = (Joiners(tmp_path) for _ in range(3))
    one.enter()
    two.enter()
    assert not server.none()
    one.release()
    assert not server.none()
    two.release()
    assert server.none()
    assert not one._take(1)  # LOCK_SH
    server.release()
    one.enter()
    assert not server.none()
