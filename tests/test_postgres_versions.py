"""The same program on an older Postgres, and behind a URL that names several hosts."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import asyncpg
import pytest

from conftest import eventually, running
from scheduler import pgbinaries, pgcluster
from scheduler.embedded import EmbeddedPostgres


@pytest.fixture(scope="module")
def postgres_16(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an empty database on the Postgres 16 that comes in the same package as 18."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pgbinaries, "MAJOR", "16")
        patch.setattr(pgbinaries, "COPIES", pgbinaries.COPIES.with_name("scheduler-postgres-16"))
        younger = ("--locale-provider", "--builtin-locale")  # both of Postgres 17
        flags = tuple(flag for flag in pgcluster.INITDB if not flag.startswith(younger))
        patch.setattr(pgcluster, "INITDB", flags)
        postgres = EmbeddedPostgres(tmp_path_factory.mktemp("pg16"))
        postgres.start()
        try:
            yield postgres.url
        finally:
            postgres.stop()


async def test_postgres_16_serves_as_well(postgres_16: str, tmp_path: Path, receiver) -> None:
    quick = {"DATABASE_MIGRATE": None}
    async with running(postgres_16, tmp_path, **quick) as app, app.client("alice") as alice:
        conn = await asyncpg.connect(postgres_16)
        assert (await conn.fetchval("SHOW server_version")).startswith("16.")
        await conn.close()
        receiver.then(503)
        task = {"name": "a", "url": f"{receiver.url}/a", "frequency": 1, "unit": "second"}
        task |= {"retry_backoff": {"initial_seconds": 0}}
        made = (await alice.post("/tasks", json=task)).json()
        await eventually(lambda: _at_least(receiver, 3))
        page = (await alice.get(f"/tasks/{made['id']}/executions")).json()
        ended = {each["status"] for each in page["records"]} - {"started"}
        assert ended == {"failed", "success"}
        changed = await alice.post(f"/tasks/{made['id']}", json={"status": "paused"})
        assert changed.status_code == 200
        assert (await alice.delete(f"/tasks/{made['id']}")).status_code == 204


def _at_least(receiver, calls: int) -> None:
    assert len(receiver.requests) >= calls


async def test_a_url_may_name_several_hosts(database_url: str, tmp_path: Path, receiver) -> None:
    """The first is not there; the connections go to the one that takes writes."""
    there = urlsplit(database_url)
    query = dict(part.split("=", 1) for part in there.query.split("&"))
    hosts = f"{quote('/nowhere', safe='')},{query['host']}"
    url = f"postgresql://postgres@{there.path}?host={hosts}&target_session_attrs=read-write"
    async with running(url, tmp_path) as app, app.client("alice") as alice:
        made = await alice.post("/tasks", json={"name": "a", "url": f"{receiver.url}/a"})
        ran = await alice.post(f"/tasks/{made.json()['id']}/execute")
        assert (ran.status_code, ran.json()["status"]) == (200, "success")
