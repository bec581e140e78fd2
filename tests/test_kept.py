"""What a service may keep: bytes of specs, and of answers to processes."""

import base64
import json

import pytest

from conftest import eventually
from process_calls import AT, called, document, ended, operations, registered
from scheduler.specs.room import Room

BEARER = {"Authorization": "Bearer admin-token"}
PLENTY = 1 << 30
LONG = b"x" * 100_000


@pytest.fixture
async def app(run_app, monkeypatch):
    monkeypatch.setattr(Room, "SECONDS", 0.3)
    async with run_app(ADMIN_TOKEN="admin-token") as started:
        yield started


async def limit(app, **quotas):
    async with app.client(**BEARER) as admin:
        answer = await admin.patch("/services/alice", json=quotas)
        assert answer.status_code == 200, answer.text
        return answer.json()


async def kept(app) -> int:
    async with app.client(**BEARER) as admin:
        found = (await admin.get("/services/alice")).json()
    return found["usage"]["kept_bytes"]


def new(name: str):
    source = json.dumps(document("http://a.test", operations("GET /a"))).encode()
    return {"name": name, "headers": {}, "spec": base64.b64encode(source + b" " * 20_000).decode()}


async def test_what_a_service_keeps_is_counted_and_bounded(app, receiver):
    receiver.then(body=LONG).then(body=LONG)
    face = await limit(app, max_kept_bytes=150_000)
    assert (face["max_kept_bytes"], face["limits"]["max_kept_bytes"]) == (150_000, 150_000)
    async with app.client("alice") as alice, app.client("bob") as bob:
        await registered(alice, receiver.url, operations("GET /a"))
        await eventually(lambda: _assert_some(app, 100, 5_000))
        assert (await ended(alice, await called(alice, cache=False)))["status"] == "SUCCESS"
        await eventually(lambda: _assert_some(app, 100_000, 110_000))

        status = await ended(alice, await called(alice, cache=False))
        assert "and cannot be kept: this service keeps 10" in status.get("error", ""), status
        assert await kept(app) < 150_000, "the answer for which there was no room is not kept"

        await limit(app, max_kept_bytes=50_000)
        refused = await eventually(lambda: _assert_429(alice.post(AT, json=PROCESS)))
        assert "keeps 10" in refused and "may keep 50,000 (max_kept_bytes); delete" in refused
        assert "max_kept_bytes" in await _assert_429(alice.post("/v1/api/spec", json=new("more")))
        assert (await bob.post("/v1/api/spec", json=new("more"))).status_code == 200

        await limit(app, max_kept_bytes=0)
        assert (await alice.post("/v1/api/spec", json=new("more"))).status_code == 200
        await limit(app, max_kept_bytes=1 << 40)
        assert (await limit(app, max_kept_bytes=None))["limits"]["max_kept_bytes"] == PLENTY


PROCESS = {"service": "Filmot", "endpoint": "/a", "method": "GET"}


async def _assert_some(app, least, most):
    assert least < await kept(app) < most


async def _assert_429(answering) -> str:
    answer = await answering
    assert answer.status_code == 429, answer.text
    assert answer.json()["error"]["code"] == "too_many_requests"
    assert answer.headers["Retry-After"] == "60"
    return answer.json()["error"]["message"]
