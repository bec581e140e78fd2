"""kill -9 at every point of a spec's way to SUCCESS."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import RECLAIM_S, Fault, Lane, Scenes, Shared, Stage, stage, together, until
from scheduler.embedded import EmbeddedPostgres
from spec_room import FILMOT, NEW, encoded

pytestmark = pytest.mark.alone


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Stage]:
    with stage(tmp_path) as found:
        yield found


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lane]:
    found = Lane([tmp_path_factory.mktemp("data") for _ in range(2)])
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
    found = Scenes(request, tmp_path_factory.mktemp("scenes"), 2, shared=shared, cluster=cluster)
    yield found
    found.close()


ASK = "scheduler.specs.aide:Aides.ask"
"""The first reads what is posted, the second reads it again, the third compiles it."""
POINTS = {
    "between a status and its commit": Fault("scheduler.specs.changes:reach", "after", nth=2),
    "while it is compiled": Fault(ASK, "before", nth=3),
    "between the client and its commit": Fault("scheduler.specs.changes:keep", "after"),
    "between serving and its commit": Fault("scheduler.specs.changes:serve", "after"),
}


@pytest.mark.parametrize("point", POINTS)
@together
def test_a_spec_comes_to_success_wherever_its_process_is_killed(
    here: Stage, cluster: Path, point: str
) -> None:
    doomed = here.scheduler(data=cluster, fault=POINTS[point]).ready()
    sql = here.sql(until(lambda: EmbeddedPostgres.join(cluster), 20, "Postgres runs"))
    sql.all("TRUNCATE spec, spec_document, spec_operation, run, history")
    doomed.armed.touch()  # before the first of all calls that are counted
    trace_id = doomed.do("POST", "/v1/api/spec", {**NEW, "spec": encoded(FILMOT)})["trace_id"]
    doomed.struck()

    survivor = here.scheduler(data=cluster).ready()
    at = f"/v1/api/spec/{trace_id}"
    left = RECLAIM_S - (time.monotonic() - survivor.started_at)
    until(lambda: survivor.do("GET", f"{at}/status")["status"] == "SUCCESS", left, "it serves")
    found = survivor.do("GET", f"{at}?client=true&spec=true")
    assert len(found["client"]["endpoints"]) == 2
    assert found["spec"] == encoded(FILMOT)

    def ended() -> bool:
        runs = survivor.do("GET", "/runs?kind=spec")["runs"]
        assert len(runs) <= 2
        return [run["state"] for run in runs] == ["succeeded", "succeeded"]

    until(ended, 10, "each step is one run, and it ended well")
