"""Specs in the database: what is written of a draft, and what a call then finds."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from uuid import UUID

import msgspec
import pytest

from conftest import SECRET_KEY, TOKENS
from scheduler import config, services
from scheduler.db import Conn, Database
from scheduler.documents.client import Client, Operation, Parameter
from scheduler.documents.messages import Compiled
from scheduler.errors import Conflict
from scheduler.sealing import Vault
from scheduler.specs import changes, model
from scheduler.specs.changes import NewSpec, Sent
from scheduler.specs.model import Stored

VAULT = Vault(SECRET_KEY.encode()[:32])
NOW = 1_800_000_000_000
LIST = Operation(method="GET", path="/pets", summary="all \x00 of them")
ONE = Operation(
    method="GET",
    path="/pets/{id}",
    parameters=[Parameter(name="id", in_="path", type="integer", required=True)],
)
CLIENT = Client(title="Pets", servers=["https://pets.test"])
WRITTEN = [msgspec.json.encode(each) for each in (ONE, LIST)]


@pytest.fixture
async def at(database_url: str) -> AsyncIterator[Conn]:
    """A connection in a transaction of this test's own."""
    database = Database(database_url, config.Database())
    async with AsyncExitStack() as stack:
        stack.push_async_callback(database.close)
        yield await stack.enter_async_context(database.api.begin())


async def service_of(at: Conn, name: str = "alice") -> UUID:
    created = await services.create(at, name, token=TOKENS[name], vault=VAULT)
    return created.service.id


async def made(at: Conn, service: UUID, name: str = "pets", *, trace: str = "T" * 16) -> Stored:
    headers = model.sealed(VAULT, service, {"X-Key": "s3cret"})
    new = NewSpec(
        trace_id=trace, name=name, headers=headers, url=None, sent=Sent(b"yaml", "0" * 64)
    )
    await changes.create(at, service, new, NOW)
    return await again(at, service, trace)


async def again(at: Conn, service: UUID, trace: str = "T" * 16) -> Stored:
    found = await model.of_trace(at, service, trace)
    assert found is not None
    return found


async def served(at: Conn, of: Stored, refused: dict[str, str] | None = None) -> Stored:
    for status in ("IN_PROGRESS", "READY_YAML", "READY_CLIENT"):
        of = await changes.reach(at, of, status, NOW) or of
    await changes.keep(at, of, Compiled(b"{}", CLIENT, WRITTEN))
    return await changes.serve(at, of, refused or {}, NOW) or of


async def test_a_call_finds_the_operation_that_serves(at):
    service = await service_of(at)
    await served(at, await made(at, service))

    found = await model.called(at, VAULT, service, " PETS ", "GET /pets/{id}")
    assert found is not None
    assert found.operation == ONE
    assert (found.status, found.serving, found.draft, found.version) == ("SUCCESS", 1, 1, 2)
    assert found.headers == {"X-Key": "s3cret"}


async def test_before_the_first_success_no_operation_serves(at):
    service = await service_of(at)
    of = await made(at, service)
    found = await model.called(at, VAULT, service, "pets", "GET /pets")
    assert found is not None
    assert (found.operation, found.serving, found.status) == (None, None, "WAITING")
    assert await model.document(at, service, of.key, 1) is None


async def test_what_is_unknown_is_none(at):
    service, bob = await service_of(at), await service_of(at, "bob")
    of = await served(at, await made(at, service))
    assert await model.called(at, VAULT, service, "cats", "GET /pets") is None
    assert await model.called(at, VAULT, service, "pe\x00ts", "GET /pets") is None
    found = await model.called(at, VAULT, service, "pets", "GET /cats\x00")
    assert found is not None
    assert found.operation is None

    assert await model.called(at, VAULT, bob, "pets", "GET /pets") is None
    assert await model.of_trace(at, bob, of.trace_id) is None
    assert await model.document(at, bob, of.key, 1) is None
    assert await model.operations(at, bob, of.key, 1) == []


async def test_a_document_comes_back_with_its_operations_in_order(at):
    service = await service_of(at)
    of = await served(at, await made(at, service), {"GET /pets": "no server"})
    assert await model.document(at, service, of.key, 1) == b"{}"
    one, every = await model.operations(at, service, of.key, 1)
    assert (one, every.endpoint, every.refused) == (ONE, "GET /pets", "no server")
    assert every.summary == "all \ufffd of them"  # jsonb can hold no NUL

    found = await model.called(at, VAULT, service, "pets", "GET /pets")
    assert found is not None
    assert found.operation == every


async def test_the_values_of_headers_are_sealed(at):
    service = await service_of(at)
    of = await made(at, service)
    assert "s3cret" not in str(of)
    assert model.opened(VAULT, service, of.headers) == {"X-Key": "s3cret"}


async def test_a_name_is_taken_once_in_a_service(at):
    service, bob = await service_of(at), await service_of(at, "bob")
    await made(at, service)
    await made(at, bob)
    with pytest.raises(Conflict, match="pets already"):
        async with at.begin_nested():
            await made(at, service, trace="U" * 16)


async def test_the_old_document_serves_until_the_new_one_does(at):
    service = await service_of(at)
    of = await served(at, await made(at, service))
    assert await changes.renew(at, of, Sent(b"newer", "1" * 64), NOW) == 2
    of = await again(at, service)
    assert (of.status, of.draft, of.serving) == ("WAITING", 2, 1)
    found = await model.called(at, VAULT, service, "pets", "GET /pets")
    assert found is not None
    assert found.operation is not None

    await served(at, of)
    assert (await again(at, service)).serving == 2
    assert await model.document(at, service, of.key, 1) is None
    assert await model.operations(at, service, of.key, 1) == []


async def test_an_older_draft_changes_nothing(at):
    service = await service_of(at)
    old = await made(at, service)
    await changes.renew(at, old, Sent(b"newer", "1" * 64), NOW)
    assert await changes.reach(at, old, "IN_PROGRESS", NOW) is None
    assert await changes.serve(at, old, {}, NOW) is None
    assert not await changes.fail(at, old, "why", NOW)
    assert (await again(at, service)).status == "WAITING"


async def test_a_failure_keeps_how_far_the_draft_came(at):
    service = await service_of(at)
    of = await made(at, service)
    of = await changes.reach(at, of, "IN_PROGRESS", NOW) or of
    assert await changes.fail(at, of, "bro\x00ken", NOW)
    of = await again(at, service)
    assert (of.status, of.reached, of.error) == ("ERROR", "IN_PROGRESS", "bro\ufffdken")
    assert not await changes.fail(at, of, "again", NOW)


async def test_a_deleted_spec_is_archived_and_its_name_is_free(at):
    service = await service_of(at)
    of = await served(at, await made(at, service))
    await changes.archive(at, of, NOW)
    assert await model.of_trace(at, service, of.trace_id) is None
    assert await model.operations(at, service, of.key, 1) == []
    row = (await at.exec_driver_sql("SELECT source, content FROM spec_archive")).one()
    assert row.source == b"yaml"
    assert '"status": "SUCCESS"' in row.content
    assert "s3cret" not in row.content
    await made(at, service)


async def test_deleted_specs_count_for_nothing_and_the_oldest_go_where_they_are_large(
    at, monkeypatch
):
    monkeypatch.setattr(changes, "ARCHIVED_BYTES", 2 * len(b"yaml"))
    service = await service_of(at)
    for name, trace in (("one", "A" * 16), ("two", "B" * 16), ("three", "C" * 16)):
        of = await made(at, service, name, trace=trace)
        assert (await model.kept(at, [service]))[service] == len(b"yaml")
        await changes.archive(at, of, NOW + ord(trace[0]))
        assert await model.kept(at, [service]) == {}
    rows = await at.exec_driver_sql("SELECT name FROM spec_archive ORDER BY archived_at")
    assert [row.name for row in rows] == ["two", "three"]


async def test_a_services_specs_go_with_it(at):
    service, bob = await service_of(at), await service_of(at, "bob")
    for name, trace in (("one", "A" * 16), ("two", "B" * 16), ("three", "C" * 16)):
        await served(at, await made(at, service, name, trace=trace))
    await changes.archive(at, await again(at, service, "A" * 16), NOW)
    await served(at, await made(at, bob))

    turns = 1
    while await model.remove_service(at, service, 1):
        turns += 1
    assert turns > 1
    tables = ("spec", "spec_document", "spec_operation", "spec_archive")
    for table in tables:
        rows = await at.exec_driver_sql(f"SELECT DISTINCT service_id FROM {table}")
        assert set(rows.scalars()) <= {bob}
    assert await model.remove_service(at, bob, 1000) is False


def test_names_are_folded():
    assert model.fold("  FilMot ") == "filmot"
