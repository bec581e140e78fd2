"""Specs: what is refused, what an update does, who sees what, and what a crash leaves."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import App, eventually
from scheduler.actions.step import Step
from scheduler.embedded import EmbeddedPostgres
from scheduler.specs import listing, model, wanted
from scheduler.specs.model import Stored
from scheduler.specs.pipeline import message_of, step, step_id
from spec_room import (
    EXAMPLE,
    FILMOT,
    NEW,
    STEPS,
    WRONG,
    changed,
    comes_to,
    created,
    encoded,
    ended,
    newcomer,
    one_for_all,
    shown,
    sql,
    status,
    unclaimed,
)

SECRET = "a-value-that-nobody-else-may-see"
ONE = FILMOT.partition("  /getsearchsubtitles")[0]


@pytest.fixture(scope="module")
async def room(
    postgres: EmbeddedPostgres,
    maintenance: asyncpg.Connection,
    template: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[App]:
    folder = tmp_path_factory.mktemp("specs")
    async with one_for_all(postgres, maintenance, template, folder) as app:
        yield app


@pytest.fixture
async def client(room: App) -> AsyncIterator[httpx.AsyncClient]:
    async with newcomer(room) as client:
        yield client


@pytest.fixture
async def other(room: App) -> AsyncIterator[httpx.AsyncClient]:
    """Another service."""
    async with newcomer(room) as client:
        yield client


async def stored(room: App, client: httpx.AsyncClient, trace_id: str) -> Stored:
    service = (await sql(room, f"SELECT service_id FROM spec WHERE trace_id = '{trace_id}'"))[0][0]
    async with room.database.api.connect() as conn:
        found = await model.of_trace(conn, service, trace_id)
    assert found is not None
    return found


async def runs_of(client: httpx.AsyncClient, state: str = "") -> list[dict[str, Any]]:
    answer = await client.get("/runs", params={"kind": "spec", "state": state})
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["runs"]
    return found


# What is refused ----------------------------------------------------------------------------------

REFUSED = {
    "nothing": ({}, {"name", "headers", "spec"}),
    "an empty name": ({**NEW, "name": "  "}, {"name"}),
    "a long name": ({**NEW, "name": "n" * 201}, {"name"}),
    "a name with a NUL": ({**NEW, "name": "a\x00b"}, {"name"}),
    "headers that are none": ({**NEW, "headers": [["a", "b"]]}, {"headers"}),
    "no headers": ({**NEW, "headers": None}, {"headers"}),
    "a header that is no text": ({**NEW, "headers": {"a": 1}}, {"headers.a"}),
    "a header with a line break": ({**NEW, "headers": {"a": "b\r\nc: d"}}, {"headers.a"}),
    "a header twice": ({**NEW, "headers": {"A": "1", "a": "2"}}, {"headers.a"}),
    "a header's name": ({**NEW, "headers": {"a b": "1"}}, {"headers.a b"}),
    "a header of the connection": ({**NEW, "headers": {"Connection": "x"}}, {"headers.Connection"}),
    "large headers": ({**NEW, "headers": {"a": "x" * 20_000}}, {"headers"}),
    "many headers": ({**NEW, "headers": {f"h{n}": "x" for n in range(101)}}, {"headers"}),
    "a document that is no text": ({**NEW, "spec": {"openapi": "3.0.3"}}, {"spec"}),
    "an empty document": ({**NEW, "spec": ""}, {"spec"}),
    "no base64": ({**NEW, "spec": "openapi: 3.0.3"}, {"spec"}),
    "base64 that is cut": ({**NEW, "spec": EXAMPLE[:-1]}, {"spec"}),
    "base64url": ({**NEW, "spec": "b3BlbmFwaTogMy4w-_8="}, {"spec"}),
    "neither YAML nor JSON": ({**NEW, "spec": encoded("{")}, {"spec"}),
    "bytes": ({**NEW, "spec": encoded(b"\xff\xfe\x00")}, {"spec"}),
    "a list": ({**NEW, "spec": encoded("[]")}, {"spec"}),
    "no OpenAPI": ({**NEW, "spec": encoded("a: 1")}, {"spec"}),
    "Swagger": ({**NEW, "spec": encoded('swagger: "2.0"\npaths: {}')}, {"spec"}),
    "an address that is none": ({**NEW, "url": "ftp://x"}, {"url"}),
    "a field that there is not": ({**NEW, "nmae": "x"}, {"nmae"}),
}


@pytest.mark.parametrize("why", REFUSED)
async def test_what_is_wrong_is_named(why, client):
    sent, fields = REFUSED[why]
    answer = await client.post("/v1/api/spec", json=sent)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["code"] == "validation_failed"
    assert {detail["field"] for detail in error["details"]} == fields
    assert (await client.get("/v1/api/spec/0/10")).json()["count"] == 0


async def test_an_update_is_read_as_strictly(client):
    trace_id = await created(client)
    for sent, fields in REFUSED.values():
        if sent:
            answer = await client.put(f"/v1/api/spec/{trace_id}", json=sent)
            assert answer.status_code == 400, answer.text
            assert {each["field"] for each in answer.json()["error"]["details"]} == fields
    assert (await shown(client, trace_id, "?spec=true"))["spec"] == EXAMPLE


async def test_swagger_is_called_by_its_name(client):
    sent = {**NEW, "spec": encoded('swagger: "2.0"\npaths: {}')}
    message = (await client.post("/v1/api/spec", json=sent)).json()["error"]["message"]
    assert "Swagger 2.0" in message


def test_base64_in_many_pieces_is_read_about_as_fast_as_in_one():
    def seconds(sent: str) -> float:
        began = time.thread_time()
        wanted._decoded(sent, 8 << 20)
        return time.thread_time() - began

    whole, pieces = "AAAA" * 500_000, "A A A A " * 500_000
    assert min(seconds(pieces) for _ in range(3)) < 4 * min(seconds(whole) for _ in range(3))


async def test_base64_may_have_line_breaks(client):
    lined = "\r\n".join(EXAMPLE[at : at + 20] for at in range(0, len(EXAMPLE), 20))
    trace_id = await created(client, spec=f" {lined}\n")
    assert (await shown(client, trace_id, "?spec=true"))["spec"] == EXAMPLE


@given(st.binary(min_size=1, max_size=200), st.lists(st.sampled_from(" \t\r\n"), max_size=5))
@settings(max_examples=50)
def test_any_bytes_come_out_of_their_base64(source, between):
    plain = encoded(source)
    spread = "".join(between).join(plain[at : at + 3] for at in range(0, len(plain), 3))
    assert wanted._decoded(spread, 1000).source == source


@given(st.text(max_size=50))
@settings(max_examples=50)
def test_a_folded_name_stays_as_it_is(name):
    assert model.fold(model.fold(name)) == model.fold(name)
    assert model.fold(f" {name}\n") == model.fold(name)


async def test_a_document_may_be_larger_than_other_bodies(run_app):
    small = {"SERVER_MAX_BODY_BYTES": "2000", "SPECS_MAX_BYTES": "20000"}
    async with run_app(**small) as app, app.client("alice") as alice:
        padded = FILMOT + "#" * 15_000
        assert len(encoded(padded)) > 20_000
        trace_id = await created(alice, spec=encoded(padded))
        assert (await shown(alice, trace_id, "?spec=true"))["spec"] == encoded(padded)
        for size, expected in ((20_000, 400), (200_000, 413)):
            sent = {**NEW, "name": "more", "spec": encoded(FILMOT + "#" * size)}
            answer = await alice.post("/v1/api/spec", json=sent)
            assert answer.status_code == expected
            assert "specs.max_bytes" in answer.json()["error"]["message"]


async def test_a_name_is_one_specs(client, other):
    await created(client, name="Filmot")
    answer = await client.post("/v1/api/spec", json={**NEW, "name": " FILMOT "})
    assert answer.status_code == 409
    assert "filmot" in answer.json()["error"]["message"]
    await created(other, name="Filmot")

    second = await created(client, name="second")
    answer = await client.put(f"/v1/api/spec/{second}", json={"name": "Filmot"})
    assert answer.status_code == 409
    await changed(client, second, name="SECOND")


async def test_of_two_at_once_one_gets_the_name(client):
    sent = [client.post("/v1/api/spec", json=NEW) for _ in range(5)]
    answers = await asyncio.gather(*sent)
    assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409, 409]
    assert (await client.get("/v1/api/spec/0/10")).json()["count"] == 1


async def test_a_service_has_so_many_specs_at_most(run_app):
    async with run_app(SPECS_MAX_SPECS="2") as app, app.client("alice") as alice:
        sent = [alice.post("/v1/api/spec", json={**NEW, "name": f"n{n}"}) for n in range(4)]
        answers = await asyncio.gather(*sent)
        assert sorted(answer.status_code for answer in answers) == [200, 200, 409, 409]
        refused = next(each for each in answers if each.status_code == 409)
        assert "specs.max_specs" in refused.json()["error"]["message"]


@pytest.mark.parametrize(
    "path",
    ["-1/10", "x/10", "0/0", "0/1001", "0/x", "1000001/1", "0/10?spec=maybe", "0/1?client=2"],
)
async def test_a_page_that_is_none_is_refused(path, client):
    answer = await client.get(f"/v1/api/spec/{path}")
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["details"]


# Who sees what ------------------------------------------------------------------------------------

ROUTES = [
    ("GET", ""),
    ("GET", "?spec=true&client=true"),
    ("PUT", ""),
    ("DELETE", ""),
    ("GET", "/status"),
    ("POST", "/review"),
    ("GET", "/files/spec.yaml"),
    ("GET", "/files/service.metadata.yaml"),
    ("GET", "/files/client.zip"),
]


async def test_anothers_spec_is_not_there(room, client, other):
    trace_id = await created(client, name="mine")
    await ended(client, trace_id)
    async with room.client() as nobody:
        for method, path in ROUTES:
            at = f"/v1/api/spec/{trace_id}{path}"
            answer = await other.request(method, at, json={} if method == "PUT" else None)
            assert answer.status_code == 404, at
            assert (await nobody.request(method, at)).status_code == 401
    assert (await other.get("/v1/api/spec/0/10")).json() == {"count": 0, "results": []}
    assert (await status(client, trace_id))["status"] == "SUCCESS"


@pytest.mark.parametrize("trace_id", ["0iNULRtUjwi8DJoz", "%00", "x" * 300, "%F0%9F%92%A9"])
async def test_a_spec_that_never_was_is_not_there(trace_id, client):
    for method, path in ROUTES:
        answer = await client.request(
            method, f"/v1/api/spec/{trace_id}{path}", json={} if method == "PUT" else None
        )
        assert answer.status_code == 404


async def test_header_values_come_back_to_their_own_service_alone(room, client, other, capsys):
    headers = {"X-Anything": SECRET}
    trace_id = await created(client, headers=headers)
    await ended(client, trace_id)
    assert (await shown(client, trace_id))["headers"] == headers
    for refused in ({"name": 1}, {"spec": "?"}, {"headers": {"X-Anything": SECRET + "\n"}}):
        answer = await client.put(f"/v1/api/spec/{trace_id}", json={"headers": headers, **refused})
        assert answer.status_code == 400
        assert SECRET not in answer.text
    for path in ("/runs", "/v1/api/spec/0/10", f"/v1/api/spec/{trace_id}/files/spec.yaml"):
        assert SECRET not in (await other.get(path)).text
    assert SECRET not in (await client.get("/runs")).text
    for run in await runs_of(client):
        assert SECRET not in (await client.get(f"/runs/{run['id']}")).text
    for table in ("spec", "spec_document", "spec_operation", "run", "history"):
        rows = await sql(room, f"SELECT CAST(t AS text) FROM {table} t")
        assert not any(SECRET in row[0] for row in rows), table
    written = capsys.readouterr()
    assert SECRET not in written.out + written.err

    assert (await client.delete(f"/v1/api/spec/{trace_id}")).status_code == 204
    rows = await sql(room, "SELECT CAST(t AS text) FROM spec_archive t")
    assert not any(SECRET in row[0] for row in rows)


# Updates ------------------------------------------------------------------------------------------


async def test_what_was_answered_can_be_sent_back(client):
    trace_id = await created(client, spec=encoded(FILMOT))
    await ended(client, trace_id)
    before = await shown(client, trace_id, "?spec=true&client=true")
    assert (await client.put(f"/v1/api/spec/{trace_id}", json=before)).status_code == 204
    after = await shown(client, trace_id, "?spec=true&client=true")
    assert {**after, "updated_at": None} == {**before, "updated_at": None}


async def test_an_update_changes_what_it_sends(client):
    trace_id = await created(client, spec=encoded(FILMOT))
    await ended(client, trace_id)
    before = await shown(client, trace_id, "?spec=true&client=true")
    await changed(client, trace_id, name="Renamed")
    await changed(client, trace_id, headers={"X-New": "1"})
    await changed(client, trace_id, url="https://elsewhere.test/api")
    after = await shown(client, trace_id, "?spec=true&client=true")
    assert (after["name"], after["headers"]) == ("renamed", {"X-New": "1"})
    assert after["client"]["url"] == "https://elsewhere.test/api"
    assert after["client"]["headers"] == ["X-New"]
    assert after["client"]["endpoints"] == before["client"]["endpoints"]
    assert (after["status"], after["spec"]) == (before["status"], before["spec"])
    assert after["updated_at"] > before["updated_at"]
    await changed(client, trace_id, url=None)
    after = await shown(client, trace_id, "?client=true")
    assert after["client"]["url"] == before["client"]["url"]


async def test_an_update_of_no_document_is_one_run(client):
    trace_id = await created(client)
    await ended(client, trace_id)

    async def of_the_document() -> list[dict[str, Any]]:
        found = await runs_of(client, "succeeded")
        assert len(found) == 2
        return found

    await eventually(of_the_document)
    await changed(client, trace_id, **NEW)

    async def all_three() -> None:
        found = await runs_of(client, "succeeded")
        assert len(found) == 3
        assert {run["trace_id"] for run in found} == {trace_id}

    await eventually(all_three)
    await changed(client, trace_id)  # nothing at all
    assert len(await runs_of(client)) == 3


async def test_the_old_client_serves_while_the_new_document_is_read(room, client):
    trace_id = await created(client, spec=encoded(ONE))
    await ended(client, trace_id)
    with unclaimed(room):
        await changed(client, trace_id, spec=encoded(FILMOT))
        found = await shown(client, trace_id, "?spec=true&client=true")
        assert found["status"]["status"] == "WAITING"
        assert found["spec"] == encoded(FILMOT)
        assert list(found["client"]["endpoints"]) == ["GET /getsearchchannels"]
        assert (await stored(room, client, trace_id)).serving == 1
    await ended(client, trace_id)
    assert (await stored(room, client, trace_id)).serving == 2
    assert len((await shown(client, trace_id, "?client=true"))["client"]["endpoints"]) == 2
    rows = await sql(
        room,
        "SELECT DISTINCT o.draft FROM spec_operation o JOIN spec s ON s.key = o.spec_key "
        f"WHERE s.trace_id = '{trace_id}'",
    )
    assert rows == [(2,)]


async def test_a_new_document_that_is_wrong_leaves_the_old_client(room, client):
    trace_id = await created(client, spec=encoded(ONE))
    await ended(client, trace_id)
    await changed(client, trace_id, spec=encoded(WRONG))
    found = await ended(client, trace_id, "ERROR")
    assert found["step"] == STEPS[:3]
    client_shown = (await shown(client, trace_id, "?client=true"))["client"]
    assert list(client_shown["endpoints"]) == ["GET /getsearchchannels"]
    assert (await stored(room, client, trace_id)).serving == 1

    await changed(client, trace_id, spec=encoded(FILMOT))
    await ended(client, trace_id)
    assert (await stored(room, client, trace_id)).serving == 3


async def test_the_newest_of_several_documents_wins(room, client):
    trace_id = await created(client, spec=encoded(WRONG))
    for n in range(4):
        await changed(client, trace_id, spec=encoded(f"{FILMOT}# {n}\n"))
    await ended(client, trace_id)
    of = await stored(room, client, trace_id)
    assert (of.draft, of.serving) == (5, 5)
    assert (await shown(client, trace_id, "?spec=true"))["spec"] == encoded(f"{FILMOT}# 3\n")

    async def all_ended() -> None:
        found = await runs_of(client)
        assert {run["state"] for run in found} <= {"succeeded", "failed"}

    await eventually(all_ended)


async def test_updates_and_a_delete_at_once_leave_nothing_half_done(room, client):
    trace_id = await created(client, spec=encoded(ONE))
    sent = [
        client.put(f"/v1/api/spec/{trace_id}", json={"spec": encoded(FILMOT)}),
        client.put(f"/v1/api/spec/{trace_id}", json={"name": "other"}),
        client.delete(f"/v1/api/spec/{trace_id}"),
        client.delete(f"/v1/api/spec/{trace_id}"),
        client.put(f"/v1/api/spec/{trace_id}", json={"headers": {}}),
    ]
    answers = await asyncio.gather(*sent)
    assert {answer.status_code for answer in answers} <= {204, 404}
    assert sorted(answer.status_code for answer in answers[2:4]) == [204, 404]
    assert (await client.get(f"/v1/api/spec/{trace_id}")).status_code == 404

    async def nothing_left() -> None:
        assert await runs_of(client, "scheduled,running,retrying") == []
        for table in ("spec_document", "spec_operation"):
            left = await sql(
                room, f"SELECT 1 FROM {table} WHERE spec_key NOT IN (SELECT key FROM spec)"
            )
            assert left == [], table

    await eventually(nothing_left)


async def test_a_deleted_spec_that_was_on_its_way_ends_its_runs(room, client):
    with unclaimed(room):
        trace_id = await created(client)
        assert (await client.delete(f"/v1/api/spec/{trace_id}")).status_code == 204

    async def cancelled() -> None:
        (run,) = await runs_of(client)
        assert run["state"] == "cancelled"

    await eventually(cancelled)
    assert await created(client) != trace_id  # the name is free


# Lists and files ----------------------------------------------------------------------------------


async def test_a_page_ends_where_its_documents_are_much(client):
    padded = [encoded(f"{ONE}# {'x' * 3_500_000}{n}") for n in range(4)]
    for n, spec in enumerate(padded):
        await created(client, name=f"large-{n}", spec=spec)
    assert 2 * 3_500_000 < listing.PAGE_BYTES < 3 * 3_500_000
    answer = await client.get("/v1/api/spec/0/10?spec=true")
    found = answer.json()
    assert found["count"] == 4
    assert [each["spec"] for each in found["results"]] == [padded[3], padded[2]]
    following = answer.links["next"]["url"]
    assert following == "/v1/api/spec/2/10?spec=true"
    answer = await client.get(following)
    assert [each["spec"] for each in answer.json()["results"]] == [padded[1], padded[0]]
    assert "next" not in answer.links
    assert len((await client.get("/v1/api/spec/0/10")).json()["results"]) == 4


async def test_a_page_ends_where_its_clients_are_much_however_small_they_are_stored(client):
    schema = {"type": "string", "enum": ["x" * 1_500_000]}
    item = {"$ref": "#/components/parameters/q"}
    document = {
        "openapi": "3.0.3",
        "info": {"title": "Large", "version": "1"},
        "components": {"parameters": {"q": {"name": "q", "in": "query", "schema": schema}}},
        "paths": {
            f"/{n}": {"get": {"parameters": [item], "responses": {"200": {"description": "ok"}}}}
            for n in range(3)
        },
    }
    for n in range(2):
        spec = encoded(json.dumps(document))
        await ended(client, await created(client, name=f"large-{n}", spec=spec))
    answer = await client.get("/v1/api/spec/0/10?client=true")
    assert [each["name"] for each in answer.json()["results"]] == ["large-1"]
    assert answer.links["next"]["url"] == "/v1/api/spec/1/10?client=true"


async def test_a_document_comes_back_as_a_file_to_the_byte(client):
    source = FILMOT.replace("\n", "\r\n").encode() + b"# \xc3\xa9\r\n"
    trace_id = await created(client, spec=encoded(source))
    answer = await client.get(f"/v1/api/spec/{trace_id}/files/spec.yaml")
    assert answer.content == source
    assert answer.headers["content-type"].partition(";")[0] == "application/yaml"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "attachment" in answer.headers["content-disposition"]
    head = await client.head(f"/v1/api/spec/{trace_id}/files/spec.yaml")
    assert (head.status_code, head.content) == (200, b"")


@pytest.mark.parametrize("name", ["1234567890", "null", "a: b", "é#1", "- x"])
async def test_the_metadata_file_is_yaml_whatever_the_name(name, client):
    trace_id = await created(client, name=name)
    text = (await client.get(f"/v1/api/spec/{trace_id}/files/service.metadata.yaml")).text
    found = yaml.safe_load(text)
    assert (found["trace_id"], found["name"]) == (trace_id, name)
    assert isinstance(found["updated_at"], str)


async def test_there_is_no_package_before_there_is_a_client(client):
    trace_id = await created(client, spec=encoded(WRONG))
    await ended(client, trace_id, "ERROR")
    answer = await client.get(f"/v1/api/spec/{trace_id}/files/client.zip")
    assert answer.status_code == 409
    assert "ERROR" in answer.json()["error"]["message"]


async def test_a_package_is_written_once(room, client):
    trace_id = await created(client, spec=encoded(FILMOT))
    await ended(client, trace_id)
    at = f"/v1/api/spec/{trace_id}/files/client.zip"
    answers = await asyncio.gather(*(client.get(at, timeout=60) for _ in range(3)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert answers[0].content[:2] == b"PK"
    (kept,) = await sql(
        room,
        "SELECT d.package FROM spec_document d JOIN spec s ON s.key = d.spec_key "
        f"WHERE s.trace_id = '{trace_id}'",
    )
    assert kept[0] == answers[0].content
    await changed(client, trace_id, name="another")
    again = await client.get(at, timeout=60)
    assert again.content != answers[0].content


# Its end, whatever happens ------------------------------------------------------------------------


async def test_a_spec_whose_run_someone_cancels_is_an_error(room, client):
    with unclaimed(room):
        trace_id = await created(client)
        (run,) = await runs_of(client)
        assert (await client.post(f"/runs/{run['id']}/cancel")).status_code == 200
        found = await ended(client, trace_id, "ERROR")
    assert found["error"] == "someone cancelled it"
    assert found["step"] == STEPS[:1]


async def test_a_spec_whose_run_has_no_more_tries_is_an_error(room, client):
    with unclaimed(room):
        trace_id = await created(client)
        tries = [{"number": n, "outcome": "unknown", "started_at": n} for n in range(1, 21)]
        await sql(
            room,
            f"UPDATE run SET attempts = '{json.dumps(tries)}', attempts_n = 20 "
            f"WHERE task_id = '{trace_id}'",
        )
    found = await ended(client, trace_id, "ERROR")
    assert found["error"] == "its outcome stayed unknown 20 times"


async def test_a_spec_whose_run_is_replayed_goes_on(room, client):
    with unclaimed(room):
        trace_id = await created(client)
        (run,) = await runs_of(client)
        await client.post(f"/runs/{run['id']}/cancel")
        await ended(client, trace_id, "ERROR")
    answer = await client.post(f"/runs/{run['id']}/replay")
    assert answer.status_code == 202, answer.text
    await comes_to(client, trace_id, "SUCCESS")


async def test_a_document_that_ended_in_error_can_be_sent_again(room, client):
    with unclaimed(room):
        trace_id = await created(client)
        (run,) = await runs_of(client)
        await client.post(f"/runs/{run['id']}/cancel")
        await ended(client, trace_id, "ERROR")
    await changed(client, trace_id, spec=EXAMPLE)
    await comes_to(client, trace_id, "SUCCESS")


@pytest.mark.parametrize("reached", ["WAITING", "IN_PROGRESS", "READY_YAML"])
async def test_a_step_that_was_cut_short_is_done_again(reached, room, client):
    """As a crash leaves it: the row is on its way, and the run comes again."""
    with unclaimed(room):
        trace_id = await created(client, spec=encoded(FILMOT))
        where = f"WHERE trace_id = '{trace_id}'"
        await sql(room, f"UPDATE spec SET status = '{reached}', reached = '{reached}' {where}")
    await ended(client, trace_id)
    assert len((await shown(client, trace_id, "?client=true"))["client"]["endpoints"]) == 2


async def test_a_step_that_is_done_twice_changes_nothing(room, client):
    trace_id = await created(client, spec=encoded(FILMOT))
    await ended(client, trace_id)
    before, of = await shown(client, trace_id), await stored(room, client, trace_id)
    performer = room.engine.runner._performers[Step]
    for message in ("SPEC", "SPEC_CLIENT_GENERATED"):
        outcome = await performer._perform(Step(of.key, 1, message), of.service_id)
        assert outcome.succeeded
    assert await shown(client, trace_id) == before
    assert await stored(room, client, trace_id) == of


async def test_a_spec_is_taken_on_by_another_replica(run_app, replica):
    async with run_app() as app, app.client("alice") as alice:
        with unclaimed(app):
            trace_id = await created(alice, spec=encoded(FILMOT))
            await replica()
            await ended(alice, trace_id)


async def test_a_spec_waits_for_a_review_however_long(run_app):
    async with run_app(SPECS_REVIEW="manual") as app, app.client("alice") as alice:
        trace_id = await created(alice)
        await comes_to(alice, trace_id, "READY_CLIENT")
        looked = app.engine._chores[0].work
        for _ in range(3):
            await looked()
        assert (await status(alice, trace_id))["status"] == "READY_CLIENT"
        sent = [alice.post(f"/v1/api/spec/{trace_id}/review") for _ in range(3)]
        assert {answer.status_code for answer in await asyncio.gather(*sent)} <= {204, 409}
        await comes_to(alice, trace_id, "SUCCESS")
        assert len(await runs_of(alice, "succeeded")) == 2


def test_a_run_tells_which_message_it_stands_for():
    key, service = UUID(int=1), UUID(int=2)
    for message in ("SPEC", "SPEC_CLIENT_GENERATED"):
        run = step(service, key, "T" * 16, 3, message, 0)
        assert run.id == step_id(service, key, 3, message)
        assert message_of(service, key, 3, run.id) == message
        assert message_of(service, key, 4, run.id) != message
    one, two = (step(service, key, "T" * 16, 3, "SPEC_UPDATE", 0) for _ in range(2))
    assert one.id != two.id
    assert message_of(service, key, 3, one.id) == "SPEC_UPDATE"
