"""A backup of the embedded database, and what is made of it: real servers, real files."""

import io
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, strategies

from conftest import quick_folder
from scheduler import backups, disk, migrate, moving
from scheduler.backups import Facts
from scheduler.cli import cli
from scheduler.embedded import EmbeddedPostgres
from scheduler.errors import StartupError
from scheduler.moving import Room
from test_cli import served
from test_embedded import cleared, query

TABLES = """
SELECT array_agg(CAST(oid::regclass AS text)) FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')
"""
ROWS = "SELECT concat(count(*), md5(string_agg(t::text, ',' ORDER BY t::text))) FROM {} AS t"
SCHEMA = """
SELECT string_agg(what, chr(10) ORDER BY what) FROM (
    SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'
    UNION ALL SELECT conrelid::regclass || pg_get_constraintdef(oid) FROM pg_constraint
    WHERE connamespace = 'public'::regnamespace AND contype <> 'n') AS d (what)
"""
FACTS = Facts(
    scheduler="0.2.0", revision="0003", postgres="18", database_bytes=8 << 20,
    installation=None, tzdata="2026a", secret_fingerprint="0123456789abcdef0123456789abcdef",
)  # fmt: skip


def contents(url: str) -> tuple[dict[str, str], list[str]]:
    """A sum over the rows of each table, and every index and constraint."""
    rows = {table: query(url, ROWS.format(table)) for table in query(url, TABLES)}
    # Read again by Postgres, a BETWEEN has fewer brackets.
    return rows, sorted(re.sub("[()]", "", query(url, SCHEMA)).splitlines())


def run(base: Path, *words: str) -> Result:
    """Run a command on a data directory."""
    env = {"DATA_DIR": str(base), "DATABASE_URL": None, "SECRET_KEY": None}
    return CliRunner().invoke(cli, words, env=env)


def refused(base: Path, *words: str) -> str:
    """The sentence with which a command is refused."""
    done = run(base, *words)
    assert isinstance(done.exception, StartupError), done.output
    return str(done.exception)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with quick_folder(tmp_path_factory.mktemp("backup")) as folder:
        yield folder
        cleared(folder)


class Made:
    """A scheduler that has run for a moment: its directory, two backups, and what was in it."""

    def __init__(self, place: Path) -> None:
        self.base = place / "made"
        self.during, self.after = place / "during.zip", place / "after.zip"
        with served(place, DATA_DIR=str(self.base)) as (url, _):
            self.credentials = json.loads((self.base / "credentials.json").read_text())
            with self.client(url) as client:
                task = {"name": "tick", "url": f"{url}/health", "frequency": 1, "unit": "second"}
                assert client.post("/tasks", json={**task, "id": "tick"}).status_code == 201
            self.during_said = run(self.base, "backup", str(self.during))
        self.key = (self.base / "secret.key").read_bytes()
        postgres = EmbeddedPostgres(self.base)
        postgres.start()
        try:
            self.contents = contents(postgres.url)
        finally:
            postgres.stop()
        self.after_said = run(self.base, "backup", str(self.after), "--with-key")

    def client(self, url: str) -> httpx.Client:
        headers = {name: self.credentials[name] for name in ("service_id", "token")}
        return httpx.Client(base_url=url, headers=headers, trust_env=False)


@pytest.fixture(scope="module")
def made(place: Path) -> Made:
    return Made(place)


@pytest.fixture
def base(place: Path) -> Iterator[Path]:
    """A data directory that is not there yet."""
    yield place / "new"
    cleared(place / "new")
    shutil.rmtree(place / "new", ignore_errors=True)


# Backup ------------------------------------------------------------------------------------------


def test_a_backup_is_the_owners_alone_and_says_what_it_is_and_what_is_not_in_it(made: Made):
    assert made.during_said.exit_code == 0, made.during_said.output
    assert stat.S_IMODE(made.during.stat().st_mode) == 0o600
    assert "not in it" in made.during_said.stderr
    assert str(made.base / "secret.key") in made.during_said.stderr
    assert "whoever has the file has both" in made.after_said.stderr
    assert made.after_said.stdout == ""
    found = backups.read(made.during)
    assert found.key is None
    assert found.manifest.facts.postgres == "18"
    assert found.manifest.facts.revision == max(migrate.known())
    assert found.manifest.facts.database_bytes > 1 << 20
    names = set(zipfile.ZipFile(made.during).namelist())
    assert names == {"scheduler.dump", "manifest.json"}
    secret = made.credentials["token"].encode()
    assert secret not in b"".join(found.dump()) + made.during.read_bytes()


def test_a_file_that_is_there_is_replaced_only_when_told(made: Made, tmp_path: Path):
    file = tmp_path / "b.zip"
    file.write_text("mine")
    assert "--force" in refused(made.base, "backup", str(file))
    assert file.read_text() == "mine"
    assert run(made.base, "backup", str(file), "--force").exit_code == 0
    assert backups.read(file).manifest.dump.bytes > 1000
    assert os.listdir(tmp_path) == ["b.zip"]
    assert "another name" in refused(made.base, "backup", "/dev/null", "--force")


def test_what_goes_wrong_on_the_way_leaves_no_file(made: Made, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(disk, "free", lambda _: 100 << 20)
    (made.base.parent / "beside").mkdir()
    said = refused(made.base, "backup", str(made.base.parent / "beside" / "b.zip"))
    assert "100 MiB are left" in said and "256 MiB" in said
    assert os.listdir(made.base.parent / "beside") == []


def test_a_directory_without_a_database_is_not_given_one(tmp_path: Path):
    for words in (("backup", str(tmp_path / "b.zip")), ("upgrade",)):
        assert "no database" in refused(tmp_path / "typo", *words)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("words", [("backup", "x.zip"), ("restore", "x.zip"), ("upgrade",)])
def test_a_database_of_ones_own_has_ways_of_its_own(words, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", "postgresql://somewhere/else")
    done = CliRunner().invoke(cli, words)
    assert "DATABASE_URL is set" in str(done.exception) and "pg_" in str(done.exception)


def test_the_backup_gives_up_before_the_scheduler_would_have_to_stop(monkeypatch):
    left = iter([1 << 30, 1 << 20])
    monkeypatch.setattr(disk, "free", lambda _: next(left))
    with pytest.raises(StartupError, match="1 MiB are left"):
        list(moving.keeping(Room(Path("/"), 100), (bytes(10 << 20) for _ in range(10))))


# Restore -----------------------------------------------------------------------------------------


def test_restored_elsewhere_everything_is_there_as_it_was_with_its_key(made: Made, base: Path):
    done = run(base, "restore", str(made.after))
    assert done.exit_code == 0, done.output
    assert "starts paused" in done.stderr and "scheduler resume" in done.stderr
    postgres = EmbeddedPostgres(base)
    postgres.start()
    try:
        assert contents(postgres.url) == made.contents
        assert query(postgres.url, "SHOW fsync") == "on"
    finally:
        postgres.stop()
    assert (base / "secret.key").read_bytes() == made.key
    assert stat.S_IMODE((base / "secret.key").stat().st_mode) == 0o600
    assert not (base / "credentials.json").exists()
    again = refused(base, "restore", str(made.after))
    assert "not empty" in again and "DATA_DIR=" in again


KILLED = """
import os, signal, sys
from pathlib import Path
from scheduler import backups, moving
moving.restore(Path(sys.argv[1]), backups.read(Path(sys.argv[2])),
               moved=lambda _: os.kill(os.getpid(), signal.SIGKILL))
"""


def test_a_restore_that_is_killed_leaves_no_database_and_the_next_one_is_served(
    made: Made, base: Path
):
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(base), str(made.during)], check=False
    )
    assert killed.returncode == -9
    assert not (base / "postgres" / "data").exists()
    assert "no database" in refused(base, "backup", str(base.parent / "none.zip"))
    assert run(base, "restore", str(made.during)).exit_code == 0
    assert sorted(os.listdir(base / "postgres")) == ["data", "lock", "start.log"]
    (base / "secret.key").write_bytes(made.key)
    with served(base.parent, DATA_DIR=str(base)) as (url, _), made.client(url) as client:
        assert client.get("/tasks/tick").json()["name"] == "tick"
        assert client.get("/runs/verify").json()["doubled"] == []


def test_files_of_somebody_else_are_not_restored_over(made: Made, base: Path):
    base.mkdir()
    (base / "secret.key").write_text("another")
    assert "secret.key" in refused(base, "restore", str(made.after))
    (base / "secret.key").unlink()
    (base / "credentials.json").write_text("{}")
    assert "credentials.json" in refused(base, "restore", str(made.during))
    assert os.listdir(base) == ["credentials.json"]


def test_the_commands_of_the_page_do_what_it_says(made: Made, place: Path, monkeypatch):
    folder = place / "page"
    folder.mkdir()
    monkeypatch.chdir(folder)
    page = (Path(__file__).parent.parent / "docs" / "backup.md").read_text()
    for line in "".join(re.findall(r"```bash\n(.*?)```", page, re.DOTALL)).splitlines():
        found = re.fullmatch(r"(?:DATA_DIR=(\S+) )?scheduler (.*?)(?: > (\S+))?", line)
        assert found is not None, line
        base, words, file = found.groups()
        done = run(Path(base) if base else made.base, *words.split())
        assert done.exit_code == 0, done.output
        if file:
            Path(file).write_bytes(done.stdout_bytes)
        else:
            assert done.stdout == ""
    for name in ("monday.zip", "copy.zip"):
        backup = backups.read(Path(name))
        assert backup.key is None and backup.manifest.facts.postgres == "18"
    assert Path("elsewhere/postgres/data/PG_VERSION").is_file()


# The file ----------------------------------------------------------------------------------------


def written(
    path: Path, dump: bytes = b"what pg_dump said", key: bytes | None = None, **facts: Any
) -> Path:
    with path.open("wb") as file:
        pieces = [dump[:5], dump[5:]]
        at = "2026-11-21T00:00:00.000Z"
        backups.write(file, msgspec.structs.replace(FACTS, **facts), at, pieces, key)
    return path


def altered(path: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """The same backup with another manifest."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    manifest = json.loads(entries["manifest.json"])
    change(manifest)
    entries["manifest.json"] = json.dumps(manifest).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize(
    ("facts", "what"),
    [({"revision": "0999"}, "schema is at 0999"), ({"postgres": "19"}, "on Postgres 19")],
)
def test_what_a_newer_program_made_is_refused_before_anything_is_touched(
    facts, what, tmp_path: Path
):
    file = written(tmp_path / "b.zip", scheduler="9.9", **facts)
    said = refused(tmp_path / "new", "restore", str(file))
    assert what in said and "scheduler 9.9" in said
    assert not (tmp_path / "new").exists()


def test_a_newer_format_is_refused(tmp_path: Path):
    file = altered(written(tmp_path / "b.zip"), lambda m: m.update(format=2, facts="other"))
    assert "format 2" in refused(tmp_path / "new", "restore", str(file))


def test_a_database_larger_than_the_disk_is_refused(tmp_path: Path):
    file = written(tmp_path / "b.zip", database_bytes=1 << 60)
    assert "make room" in refused(tmp_path / "new", "restore", str(file))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"no zip at all" * 100])
def test_what_is_no_backup_is_one_sentence(content, tmp_path: Path):
    file = tmp_path / "b.zip"
    file.write_bytes(content)
    assert "no whole backup" in refused(tmp_path / "new", "restore", str(file))
    assert "cannot be read" in refused(tmp_path / "new", "restore", str(tmp_path / "none"))
    assert not (tmp_path / "new").exists()


@given(place=strategies.integers(0, 10_000), bit=strategies.integers(0, 7))
def test_a_backup_with_a_wrong_bit_is_refused_or_the_same(
    place: int, bit: int, tmp_path_factory: pytest.TempPathFactory
):
    file = tmp_path_factory.getbasetemp() / "bit.zip"
    raw = bytearray(written(file, key=b"key").read_bytes())
    raw[place % len(raw)] ^= 1 << bit
    file.write_bytes(raw)
    try:
        found = backups.read(file)
    except StartupError:
        return
    assert (b"".join(found.dump()), found.key) == (b"what pg_dump said", b"key")


@given(end=strategies.integers(0, 10_000))
def test_a_backup_that_was_cut_is_refused(end: int, tmp_path_factory: pytest.TempPathFactory):
    file = tmp_path_factory.getbasetemp() / "cut.zip"
    raw = written(file).read_bytes()
    file.write_bytes(raw[: end % len(raw)])
    with pytest.raises(StartupError):
        backups.read(file)


def test_it_is_written_to_what_cannot_be_gone_back_in():
    class Pipe(io.RawIOBase):
        def __init__(self) -> None:
            self.said = b""

        def writable(self) -> bool:
            return True

        def write(self, data: Any) -> int:
            self.said += bytes(data)
            return len(data)

    pipe = Pipe()
    backups.write(pipe, FACTS, "2026-11-21T00:00:00.000Z", [b"dump"], None)
    assert zipfile.ZipFile(io.BytesIO(pipe.said)).read("scheduler.dump") == b"dump"
