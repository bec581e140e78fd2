"""What a target receives can be verified: Standard Webhooks, by the package that defines it."""

import time
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from conftest import App, RunApp, eventually
from receiver import Received
from scheduler.admin import acts
from scheduler.signing import Secrets

ADMIN = {"Authorization": "Bearer admin-token"}


@pytest.fixture
async def app(run_app: RunApp) -> AsyncIterator[App]:
    async with run_app(ADMIN_TOKEN="admin-token") as started:
        yield started


@pytest.fixture
async def admin(app: App) -> AsyncIterator[httpx.AsyncClient]:
    async with app.client(**ADMIN) as client:
        yield client


async def secret_of(app: App, name: str) -> str:
    return await acts.signing_secret(app.database, name)


def verified(request: Received, secret: str) -> None:
    names = ("webhook-id", "webhook-timestamp", "webhook-signature")
    headers = {name: request.header(name) or "" for name in names}
    Webhook(secret).verify(request.body, headers, json_parse=False)


async def executed(client: httpx.AsyncClient, **task: Any) -> httpx.Response:
    made = await client.post("/tasks", json={"name": "x", **task})
    assert made.status_code == 201, made.text
    return await client.post(f"/tasks/{made.json()['id']}/execute?retry=true")


@pytest.mark.parametrize("payload", [None, "text", {"a": ["ü", "\u2028"]}, "x" * 200_000])
async def test_a_call_is_verified_by_the_standard_package(app, alice, receiver, payload):
    answer = await executed(alice, url=receiver.url, payload=payload, method="POST")
    assert answer.status_code == 200
    verified(receiver.last, await secret_of(app, "alice"))
    assert receiver.last.header("webhook-id") == answer.json()["run_id"]
    assert abs(int(receiver.last.header("webhook-timestamp") or 0) - time.time()) < 60
    with pytest.raises(WebhookVerificationError):
        verified(receiver.last, await secret_of(app, "bob"))


async def test_a_call_that_falls_due_is_signed_like_one_by_hand(app, alice, receiver):
    await alice.post(
        "/tasks", json={"name": "x", "url": receiver.url, "frequency": 1, "unit": "second"}
    )
    await eventually(lambda: receiver.last)
    verified(receiver.last, await secret_of(app, "alice"))


async def test_every_attempt_has_the_same_id_and_a_signature_of_its_own(app, alice, receiver):
    receiver.then(500)
    answer = await executed(
        alice, url=receiver.url, max_retries=1, retry_backoff={"initial_seconds": 1.5, "factor": 1}
    )
    # Full jitter may let the second come at once: what counts is that both are right.
    await eventually(lambda: receiver.requests[1])
    assert answer.status_code in (200, 202)
    first, second = receiver.requests
    assert first.header("webhook-id") == second.header("webhook-id")
    for request in (first, second):
        verified(request, await secret_of(app, "alice"))


async def test_a_task_cannot_sign_for_its_service(app, alice, receiver):
    forged = {"Webhook-Signature": "v1,Zm9yZ2Vk", "WEBHOOK-ID": "mine", "webhook-timestamp": "1"}
    own = {"User-Agent": "mine", "X-Scheduler-Task": "mine", "idempotency-key": "mine"}
    await executed(alice, url=receiver.url, header={**forged, **own})
    verified(receiver.last, await secret_of(app, "alice"))  # header() refuses one that came twice
    assert receiver.last.header("webhook-id") != "mine"
    for name, value in own.items():
        assert receiver.last.header(name) == value


async def test_each_service_signs_with_its_own_secret(app, alice, bob, receiver):
    for name, client in (("alice", alice), ("bob", bob)):
        await executed(client, url=receiver.url)
        verified(receiver.last, await secret_of(app, name))


async def test_a_rotated_secret_signs_alone_within_seconds(app, admin, alice, receiver):
    before = await secret_of(app, "alice")
    await executed(alice, url=receiver.url, id="t")
    verified(receiver.last, before)
    answer = await admin.post("/services/alice/rotate?signing=true")
    after = answer.json()["signing_secret"]

    async def signs() -> None:
        assert (await alice.post("/tasks/t/execute")).status_code == 200
        try:
            verified(receiver.last, after)
        except WebhookVerificationError:
            raise AssertionError from None

    await eventually(signs, within=5)
    with pytest.raises(WebhookVerificationError):
        verified(receiver.last, before)
    assert len((receiver.last.header("webhook-signature") or "").split()) == 1


async def test_the_secret_of_a_service_created_long_ago_signs_too(app, alice, receiver, conn):
    """Migrations gave the services there were a secret each."""
    service = uuid4()
    await conn.execute(
        "INSERT INTO service (id, name, allow_commands, created_at, updated_at) "
        "VALUES ($1, 'old', false, now(), now())",
        service,
    )
    assert (
        len(await conn.fetchval("SELECT signing_secret FROM service WHERE id = $1", service)) == 32
    )


class Statements:
    """Counts what is asked of the database."""

    def __init__(self, conn: Any) -> None:
        self.conn, self.count = conn, 0

    async def execute(self, *words: Any) -> Any:
        self.count += 1
        return await self.conn.execute(*words)


async def test_a_secret_is_asked_for_once_in_two_seconds(app):
    now = 100.0
    kept = Secrets(lambda: now, app.database.vault)
    one, two, nobody = UUID(app.ids["alice"]), UUID(app.ids["bob"]), uuid4()
    async with app.database.api.connect() as conn:
        asked = Statements(conn)
        for _ in range(3):
            await kept.refresh(asked, {one, nobody})  # type: ignore[arg-type]
        assert asked.count == 1
        await kept.refresh(asked, {one, two})  # type: ignore[arg-type]
        assert asked.count == 2
        now += 2.1
        await kept.refresh(asked, {one, two})  # type: ignore[arg-type]
        assert asked.count == 3
        await kept.refresh(asked, set())  # type: ignore[arg-type]
        assert asked.count == 3
    assert kept.of(one) and kept.of(two) and kept.of(one) != kept.of(two)
    assert kept.of(nobody) is None
