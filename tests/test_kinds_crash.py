"""kill -9 of the replica that makes a call through a spec: it goes again only where that is safe."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from harness import RECLAIM_S, Scheduler, stage, until
from process_calls import AT, document, operations

pytestmark = pytest.mark.alone


def registered(scheduler: Scheduler, url: str) -> None:
    """A spec of two endpoints, ready to be called."""
    paths = operations("GET /a", "POST /a")
    source = base64.b64encode(json.dumps(document(url, paths)).encode()).decode()
    status, made = scheduler.call(
        "POST", "/v1/api/spec", {"name": "pets", "spec": source, "headers": {}}
    )
    assert status == 200, made
    path = f"/v1/api/spec/{made['trace_id']}/status"
    until(lambda: scheduler.call("GET", path)[1]["status"] == "SUCCESS", 20, "it can be called")


def called(scheduler: Scheduler, method: str, **more: Any) -> str:
    """A call that the target does not answer until it is told to."""
    body = {"service": "pets", "endpoint": "/a", "method": method, "cache": False, **more}
    status, made = scheduler.call("POST", AT, {**body, "query_params": {"hold": "these"}})
    assert status == 200, made
    return str(made["trace_id"])


def run_of(scheduler: Scheduler, trace: str) -> Any:
    (run,) = scheduler.call("GET", f"/runs?trace_id={trace}")[1]["runs"]
    return run


def test_a_call_that_may_have_arrived_goes_again_only_where_it_is_safe(tmp_path: Path):
    with stage(tmp_path) as here:
        url = here.shared().url
        doomed = here.scheduler(database=url).ready()
        registered(doomed, here.target.url)
        safe, unsafe = called(doomed, "GET"), called(doomed, "POST")
        named = called(doomed, "POST", max_retries=1)
        until(lambda: len(here.target.arrivals) == 3, 10, "the three calls are under way")
        survivor = here.scheduler(database=url).ready()
        doomed.kill()
        here.target.release("these")

        def over() -> bool:
            states = [run_of(survivor, trace)["state"] for trace in (safe, unsafe, named)]
            return states == ["succeeded", "failed", "succeeded"]

        until(over, RECLAIM_S + 5, "each has ended as it may")
        run = run_of(survivor, unsafe)
        assert run["reason"] == "the call may have arrived"
        assert [each["outcome"] for each in run["attempts"]] == ["unknown"]
        for trace in (safe, named):
            outcomes = [each["outcome"] for each in run_of(survivor, trace)["attempts"]]
            assert outcomes == ["unknown", "succeeded"]
        assert sorted(here.target.keys().values()) == [1, 2, 2]
