"""Real servers throughout; a killed scheduler is a real process."""

import asyncio
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import pytest

from scheduler import embedded, pgbinaries, pgcluster
from scheduler.embedded import EmbeddedPostgres
from scheduler.errors import StartupError

SOURCES = Path(embedded.__file__).parents[1]

APP = """
import json, os, resource, sys
from pathlib import Path
from scheduler import pgbinaries
from scheduler.embedded import EmbeddedPostgres
from scheduler.errors import StartupError

base, prelude = sys.argv[1:]
pgbinaries.version()
exec(prelude)
postgres = EmbeddedPostgres(Path(base))
try:
    postgres.start(lambda said: print(json.dumps({"progress": said}), flush=True))
except StartupError as error:
    print(json.dumps({"error": str(error)}), flush=True)
    sys.exit(1)
print(json.dumps({"url": postgres.url}), flush=True)
sys.stdin.read()
postgres.stop()
print(json.dumps({"stopped": True}), flush=True)
"""
BECOME_NOBODY = "os.setgroups([]); os.setgid({gid}); os.setuid({uid})"

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


class App:
    """A scheduler in a process of its own, which can be killed."""

    def __init__(self, base: Path, prelude: str = "", under: tuple[str, ...] = ()) -> None:
        self.process = subprocess.Popen(
            [*under, sys.executable, "-c", APP, str(base), prelude],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": os.pathsep.join([str(SOURCES), *sys.path])},
            text=True,
        )

    def answer(self) -> dict[str, Any]:
        """What came of the start."""
        for line in self.process.stdout:
            said = json.loads(line)
            if "progress" not in said:
                return said
        return {}

    def kill(self) -> None:
        self.process.kill()
        self.close()

    def close(self) -> str:
        """Ask it to stop."""
        return self.process.communicate()[0]


def query(url: str, sql: str) -> Any:
    async def fetch() -> Any:
        conn = await asyncpg.connect(url)
        try:
            return await conn.fetchval(sql)
        finally:
            await conn.close()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, fetch()).result()


def eventually(check: Callable[[], Any], seconds: float = 10.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (result := check()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)
    return result


def pid_file(base: Path) -> Path:
    return base / "postgres" / "data" / "postmaster.pid"


def postmaster(base: Path) -> int:
    return int(pid_file(base).read_text().split()[0])


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: gone(pid))


def servers_in(root: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["name"]):
        try:
            if process.name() in ("postgres", "initdb") and process.cwd().startswith(str(root)):
                found.append(process)
        except psutil.Error:
            continue
    return found


def cleared(root: Path) -> None:
    left = servers_in(root)
    for process in left:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(left, 10)


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Path]:
    """A data directory that is not there yet. Its parents are the test user's, mode 0700."""
    yield tmp_path / "data"
    cleared(tmp_path)
    shutil.rmtree(tmp_path, ignore_errors=True)  # pytest would keep gigabytes


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("made") / "data"
    postgres = EmbeddedPostgres(base)
    postgres.start()
    query(postgres.url, "create table kept (n int)")
    postgres.stop()
    return base


@pytest.fixture
def base(bare: Path, made: Path) -> Path:
    """A data directory with a stopped cluster, and a table in it."""
    subprocess.run(["cp", "-a", made, bare], check=True)
    return bare


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A directory that every user can reach."""
    place = Path(tempfile.mkdtemp(prefix="scheduler-test-"))
    place.chmod(0o755)
    yield place
    cleared(place)
    shutil.rmtree(place)


@pytest.fixture
def start(request: pytest.FixtureRequest) -> Callable[[Path], EmbeddedPostgres]:
    def started(base: Path) -> EmbeddedPostgres:
        postgres = EmbeddedPostgres(base)
        request.addfinalizer(postgres.stop)
        postgres.start()
        return postgres

    return started


Start = Callable[[Path], EmbeddedPostgres]


def refusal(base: Path) -> str:
    """The one sentence with which a start is refused."""
    postgres = EmbeddedPostgres(base)
    with pytest.raises(StartupError) as caught:
        postgres.start()

    assert not postgres.alive()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Starting.


def test_the_first_start_makes_the_database(
    bare: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPORT", "1")
    monkeypatch.setenv("PGOPTIONS", "--nonsense")

    url = start(bare).url

    monkeypatch.delenv("PGOPTIONS")
    assert query(url, "select current_database()") == "scheduler"


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("listen_addresses", ""),
        ("fsync", "on"),
        ("synchronous_commit", "on"),
        ("data_checksums", "on"),
        ("server_encoding", "UTF8"),
        ("jit", "off"),
        ("timezone", "UTC"),
        ("max_connections", "60"),
        ("max_wal_size", "2GB"),
        ("log_rotation_size", "20MB"),
    ],
)
def test_the_settings_are_sensible(running: str, setting: str, value: str) -> None:
    assert query(running, f"select current_setting('{setting}')") == value


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, made: Path) -> Iterator[str]:
    base = tmp_path_factory.mktemp("running") / "data"
    subprocess.run(["cp", "-a", made, base], check=True)
    postgres = EmbeddedPostgres(base)
    postgres.start()
    yield postgres.url
    postgres.stop()


def test_text_is_ordered_by_code_point_and_has_upper_case_beyond_ascii(running: str) -> None:
    assert query(running, "select upper('äß') || ('Z' < 'a')::text") == "Äßtrue"


def test_a_second_start_finds_the_rows_of_the_first(base: Path, start: Start) -> None:
    first = start(base)
    query(first.url, "insert into kept values (7)")
    first.stop()

    assert query(start(base).url, "select n from kept") == 7


def test_starting_twice_is_starting_once(base: Path, start: Start) -> None:
    postgres = start(base)
    pid = postmaster(base)

    postgres.start()

    assert postmaster(base) == pid


def test_ctrl_c_reaches_only_the_scheduler(base: Path, start: Start) -> None:
    start(base)

    assert os.getsid(postmaster(base)) == postmaster(base)


# Users and places.


@as_root
def test_roots_postgres_is_not_roots(base: Path, start: Start) -> None:
    start(base)

    assert psutil.Process(postmaster(base)).uids().real != 0


@as_root
def test_roots_postgres_runs_as_the_owner_of_its_data(base: Path, start: Start) -> None:
    nobody = pwd.getpwnam("nobody")
    subprocess.run(["chown", "-R", "nobody", base / "postgres" / "data"], check=True)

    start(base)

    assert psutil.Process(postmaster(base)).uids().real == nobody.pw_uid


@as_root
def test_data_that_belongs_to_root_is_refused(base: Path) -> None:
    os.chown(base / "postgres" / "data", 0, 0)

    assert "belongs to root" in refusal(base)


@as_root
def test_it_runs_for_a_user_who_is_not_root(open_place: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    os.chown(open_place, nobody.pw_uid, nobody.pw_gid)
    base = open_place / "data"

    app = App(base, BECOME_NOBODY.format(uid=nobody.pw_uid, gid=nobody.pw_gid))

    assert query(app.answer()["url"], "select 1") == 1
    assert psutil.Process(postmaster(base)).uids().real == nobody.pw_uid
    assert "stopped" in app.close()


@as_root
def test_without_proc_it_runs_for_a_user_and_tells_root_to_become_one(
    open_place: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nobody = pwd.getpwnam("nobody")
    os.chown(open_place, nobody.pw_uid, nobody.pw_gid)
    become = BECOME_NOBODY.format(uid=nobody.pw_uid, gid=nobody.pw_gid)

    app = App(
        open_place / "data", f"from scheduler import pgcluster; pgcluster.HERE = '/none'; {become}"
    )

    assert query(app.answer()["url"], "select 1") == 1
    assert "stopped" in app.close()

    monkeypatch.setattr(pgcluster, "HERE", "/none")

    assert "not root" in refusal(base)


@as_root
def test_a_user_is_told_that_a_directory_is_not_theirs(base: Path, open_place: Path) -> None:
    nobody = pwd.getpwnam("nobody")

    app = App(base, BECOME_NOBODY.format(uid=nobody.pw_uid, gid=nobody.pw_gid))

    assert "Permission denied" in app.answer()["error"]
    app.close()


@as_root
def test_directories_that_only_root_may_enter_stay_so(bare: Path, start: Start) -> None:
    bare.mkdir(mode=0o700)
    path = [bare, *bare.parents]
    modes = [directory.stat().st_mode for directory in path]

    assert query(start(bare).url, "select 1") == 1
    assert [directory.stat().st_mode for directory in path] == modes


def test_nobody_else_may_enter_the_cluster(base: Path, start: Start) -> None:
    start(base)

    assert (base / "postgres").stat().st_mode & 0o077 == 0
    assert (base / "postgres" / "data").stat().st_mode & 0o077 == 0


@as_root
def test_programs_that_only_root_can_reach_are_copied_once(
    base: Path,
    start: Start,
    tmp_path: Path,
    open_place: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    site = tmp_path / "site"  # pytest's directories are mode 0700
    copy_of_the_wheel(site)
    monkeypatch.syspath_prepend(site)
    monkeypatch.setattr(pgbinaries, "COPIES", open_place / "var" / "copies")
    who = pgbinaries.account(base / "none")

    with ThreadPoolExecutor(2) as threads:
        first, second = threads.map(pgbinaries.locate, [who, who])

    assert first == second
    assert first.directory.is_relative_to(open_place)
    assert query(start(base).url, "select 1") == 1
    assert sorted(path.name for path in (open_place / "var" / "copies").iterdir()) == sorted(
        [pgbinaries.version(), "lock"]
    )


def copy_of_the_wheel(site: Path) -> None:
    spec = pgbinaries.importlib.util.find_spec(pgbinaries.PACKAGE)
    package = Path(spec.submodule_search_locations[0])
    (site / package.name).mkdir(parents=True, mode=0o700)
    (site / package.name / "__init__.py").touch()
    install = pgbinaries.INSTALLS[pgbinaries.MAJOR]
    shutil.copytree(package / install, site / package.name / install)
    shutil.copytree(f"{package}.libs", site / f"{package.name}.libs")


AWKWARD = "a space, 100% of a:b, ü, 'quotes\" $HOME"


@pytest.mark.parametrize(
    "name", [AWKWARD, "x" * 90, "/".join(["y" * 200] * 8)], ids=["awkward", "long", "very long"]
)
def test_any_path_will_do(bare: Path, start: Start, name: str) -> None:
    base = bare / name

    url = start(base).url

    assert len(url) < 400
    assert query(url, "select 1") == 1
    assert query(EmbeddedPostgres.join(base), "select 1") == 1


def test_a_long_path_can_be_used_by_other_processes_too(bare: Path) -> None:
    app = App(bare / ("x" * 90))

    assert query(app.answer()["url"], "select 1") == 1
    app.close()


def test_other_files_in_the_data_directory_stay(bare: Path, start: Start) -> None:
    bare.mkdir()
    (bare / "secret.key").write_text("mine")

    start(bare)

    assert (bare / "secret.key").read_text() == "mine"
    assert sorted(path.name for path in bare.iterdir()) == ["postgres", "secret.key"]


# Refusing.


def test_a_second_scheduler_gets_a_sentence(base: Path) -> None:
    app = App(base)
    assert "url" in app.answer()

    sentence = refusal(base)

    assert sentence.startswith(f"The data directory {base} is in use by another scheduler, process")
    assert str(app.process.pid) in sentence
    app.close()


def test_the_lock_comes_before_the_start(base: Path) -> None:
    first, second = EmbeddedPostgres(base), EmbeddedPostgres(base)
    first.lock()
    first.lock()

    with pytest.raises(StartupError, match="in use"):
        second.lock()

    first.stop()
    second.lock()
    second.stop()


def test_another_major_version_is_refused(base: Path) -> None:
    (base / "postgres" / "data" / "PG_VERSION").write_text("17\n")

    assert "is of Postgres 17" in refusal(base)


def test_somebody_elses_files_in_the_clusters_place_are_refused(bare: Path) -> None:
    data = bare / "postgres" / "data"
    data.mkdir(parents=True)
    (data / "thesis.txt").write_text("years")
    if os.geteuid() == 0:
        shutil.chown(data, "nobody")

    assert "no database" in refusal(bare)
    assert (data / "thesis.txt").read_text() == "years"


def test_a_data_directory_that_is_a_file_is_refused(bare: Path) -> None:
    bare.write_text("")

    assert "File exists" in refusal(bare)


def test_a_server_that_does_not_start_says_why(base: Path, start: Start) -> None:
    conf = base / "postgres" / "data" / "postgresql.conf"
    good = conf.read_text()
    conf.write_text("nonsense = 1\n")

    assert 'configuration file "/proc/self/cwd/postgresql.conf" contains errors' in refusal(base)

    conf.write_text(good)
    start(base)


def test_a_full_disk_is_one_sentence_and_leaves_nothing(bare: Path) -> None:
    app = App(bare, "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))")

    error = app.answer()["error"]

    assert "could not be made" in error
    assert "\n" not in error
    assert [path.name for path in (bare / "postgres").iterdir()] == ["lock"]
    app.close()


# Killing.


@pytest.mark.alone
def test_a_killed_scheduler_leaves_a_server_that_the_next_one_adopts(
    base: Path, start: Start
) -> None:
    app = App(base)
    query(app.answer()["url"], "insert into kept values (7)")
    pid = postmaster(base)
    app.kill()

    began = time.perf_counter()
    postgres = start(base)
    took = time.perf_counter() - began

    assert postmaster(base) == pid
    assert took < 0.5
    assert query(postgres.url, "select n from kept") == 7

    postgres.stop()

    assert gone(pid)


@as_root
@pytest.mark.skipif(not shutil.which("setpriv"), reason="setpriv takes capabilities away")
def test_root_without_ptrace_as_in_a_container_adopts_too(base: Path) -> None:
    first = App(base)
    first.answer()
    pid = postmaster(base)
    first.kill()

    second = App(base, under=("setpriv", "--bounding-set", "-sys_ptrace"))

    assert "url" in second.answer()
    assert postmaster(base) == pid
    assert "stopped" in second.close()
    assert gone(pid)


def test_a_server_with_other_settings_is_replaced(
    base: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = App(base)
    app.answer()
    pid = postmaster(base)
    app.kill()
    monkeypatch.setitem(pgcluster.SETTINGS, "work_mem", "5MB")

    postgres = start(base)

    assert gone(pid)
    assert query(postgres.url, "select current_setting('work_mem')") == "5MB"


def test_a_server_that_is_stopping_is_waited_for_and_started_again(
    base: Path, start: Start
) -> None:
    app = App(base)
    app.answer()
    pid = postmaster(base)
    app.kill()
    os.kill(pid, signal.SIGINT)

    assert query(start(base).url, "select 1") == 1
    assert postmaster(base) != pid


def test_a_killed_postgres_is_started_again(base: Path, start: Start) -> None:
    postgres = start(base)
    query(postgres.url, "insert into kept values (7)")
    kill(postmaster(base))
    assert not postgres.alive()

    postgres.ensure()

    assert postgres.alive()
    assert query(postgres.url, "select n from kept") == 7


def test_a_living_postgres_is_left_alone(base: Path, start: Start) -> None:
    postgres = start(base)
    pid = postmaster(base)

    postgres.ensure()

    assert postmaster(base) == pid


def test_a_backend_that_outlives_its_postmaster_does_not_stop_the_next(
    base: Path, start: Start
) -> None:
    postgres = start(base)
    url, busy = postgres.url, "select count(*) from generate_series(1, 10000000000) busy"
    with ThreadPoolExecutor(1) as thread:
        answer = thread.submit(query, url, busy)
        eventually(lambda: query(url, "select count(*) from pg_stat_activity where query like '%busy' and state = 'active' and pid <> pg_backend_pid()"))  # fmt: skip
        kill(postmaster(base))

        postgres.ensure()

        assert query(url, "select 1") == 1
        assert isinstance(answer.exception(10), Exception)


@pytest.fixture
def strangers() -> Iterator[dict[str, int]]:
    """Pids that are in use, and not by Postgres."""
    child = subprocess.Popen(["true"])
    eventually(lambda: psutil.Process(child.pid).status() == psutil.STATUS_ZOMBIE)
    yield {"our own": os.getpid(), "our parent": os.getppid(), "a zombie": child.pid}
    child.wait()


@pytest.mark.parametrize("reused", ["our own", "our parent", "a zombie"])
def test_both_killed_and_the_pid_given_to_another(
    base: Path, start: Start, strangers: dict[str, int], reused: str
) -> None:
    app = App(base)
    query(app.answer()["url"], "insert into kept values (7)")
    app.kill()
    kill(postmaster(base))
    for file in (pid_file(base), base / "postgres" / "data" / ".s.PGSQL.5432.lock"):
        _, rest = file.read_text().split("\n", 1)
        file.write_text(f"{strangers[reused]}\n{rest}")

    postgres = start(base)

    assert query(postgres.url, "select n from kept") == 7


@pytest.mark.parametrize("text", ["", "\n", "nonsense\n", "-1\n", "99999999999999999999\n"])
def test_a_pid_file_with_nonsense_in_it_is_no_server(base: Path, start: Start, text: str) -> None:
    pid_file(base).write_text(text)

    assert EmbeddedPostgres.join(base) is None
    assert query(start(base).url, "select 1") == 1


def test_the_server_of_another_directory_is_not_adopted(
    base: Path, start: Start, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    subprocess.run(["cp", "-a", base, other], check=True)  # with the same system identifier
    start(other)
    shutil.copy(pid_file(other), pid_file(base))

    start(base)

    assert postmaster(base) != postmaster(other)
    assert not gone(postmaster(other))


def test_a_scheduler_killed_while_making_the_database_leaves_no_half_of_one(
    bare: Path, start: Start
) -> None:
    app = App(bare)
    eventually(lambda: list(bare.glob("postgres/new-*/base")))
    app.kill()
    assert not (bare / "postgres" / "data").exists()

    assert query(start(bare).url, "select 1") == 1


# Recovering.


def unready(base: Path) -> Path:
    """Leave a server without scheduler whose state says that it is still starting."""
    app = App(base)
    app.answer()
    app.kill()
    file = pid_file(base)
    file.write_text(file.read_text().replace("ready", "starting"))
    return file


def test_recovery_is_waited_for_and_told(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = unready(base)
    monkeypatch.setattr(embedded, "TELL_EVERY", 0.02)
    told: list[str] = []

    def progress(said: str) -> None:
        told.append(said)
        if len(told) == 3:
            file.write_text(file.read_text().replace("starting", "ready"))

    postgres = EmbeddedPostgres(base)
    postgres.start(progress)

    assert told == ["Postgres is starting, 0 s so far"] * 3
    postgres.stop()


def test_a_crash_is_called_one(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = App(base)
    query(app.answer()["url"], "insert into kept select generate_series(1, 200000)")
    app.kill()
    kill(postmaster(base))
    monkeypatch.setattr(embedded, "TELL_EVERY", 0.0)
    told: list[str] = []

    postgres = EmbeddedPostgres(base)
    postgres.start(told.append)

    assert "Postgres is recovering after a crash, 0 s so far" in told
    assert query(postgres.url, "select count(*) from kept") == 200000
    postgres.stop()


def test_a_stop_ends_a_start_that_waits(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unready(base)
    monkeypatch.setattr(embedded, "TELL_EVERY", 0.0)
    waiting = threading.Event()
    postgres = EmbeddedPostgres(base)
    with ThreadPoolExecutor(1) as thread:
        starting = thread.submit(postgres.start, lambda _: waiting.set())
        waiting.wait(10)

        postgres.stop()

        assert "stopped while it was starting" in str(starting.exception(10))


# Stopping.


def test_stop_ends_every_process_and_frees_the_lock(
    base: Path, start: Start, tmp_path: Path
) -> None:
    postgres = start(base)

    postgres.stop()
    postgres.stop()

    assert not servers_in(tmp_path)
    assert not pid_file(base).exists()
    again = EmbeddedPostgres(base)
    again.lock()
    again.stop()


def test_stop_does_not_wait_for_those_who_are_connected(base: Path, start: Start) -> None:
    postgres = start(base)
    with ThreadPoolExecutor(1) as thread:
        sleeping = thread.submit(query, postgres.url, "select pg_sleep(60)")
        eventually(lambda: query(postgres.url, "select count(*) from pg_stat_activity where query like '%sleep(60)' and pid <> pg_backend_pid()"))  # fmt: skip

        postgres.stop()

        assert isinstance(sleeping.exception(10), Exception)


def test_a_stopped_server_is_not_brought_back(base: Path, start: Start) -> None:
    postgres = start(base)
    postgres.stop()

    postgres.ensure()

    assert not postgres.alive()
    assert not pid_file(base).exists()


# Joining and logs.


def test_join_finds_the_server_of_another_process(base: Path) -> None:
    assert EmbeddedPostgres.join(base) is None

    app = App(base)
    url = app.answer()["url"]

    assert query(EmbeddedPostgres.join(base), "select 1") == query(url, "select 1") == 1

    app.close()

    assert EmbeddedPostgres.join(base) is None


def test_join_of_nothing_is_none_and_makes_nothing(bare: Path) -> None:
    assert EmbeddedPostgres.join(bare) is None
    assert not bare.exists()


def test_only_the_newest_logs_are_kept(base: Path, start: Start) -> None:
    postgres = start(base)
    log = base / "postgres" / "data" / "log"
    for day in range(1, 9):
        (log / f"postgres-2020-01-0{day}T000000.log").touch()

    postgres.ensure()

    kept = sorted(path.name for path in log.iterdir())
    assert len(kept) == pgcluster.LOGS_KEPT
    assert not kept[-1].startswith("postgres-2020")
