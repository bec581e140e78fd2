"""Aides: the children in which documents are read, compiled and reviewed, and requests checked."""

import asyncio
import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import msgspec
import psutil
import pytest

from conftest import eventually
from scheduler.config import Specs
from scheduler.documents import child
from scheduler.documents.checker import REMEMBERED, Memory
from scheduler.documents.messages import (
    Answer,
    Check,
    Compile,
    Compiled,
    Finding,
    Fine,
    Learn,
    Limits,
    Read,
    Request,
    Review,
    Reviewed,
    Unknown,
)
from scheduler.errors import TooManyRequests, Unavailable
from scheduler.specs import aide
from scheduler.specs.aide import LARGE, Aides

pytestmark = pytest.mark.alone

ALICE, BOB = UUID(int=1), UUID(int=2)
LIMITS = Limits(max_bytes=8 << 20, max_depth=100, max_operations=5000)
DOCUMENT = json.dumps({
    "openapi": "3.0.3",
    "info": {"title": "T", "version": "1"},
    "servers": [{"url": "https://h.example"}],
    "paths": {"/pets": {"get": {
        "parameters": [
            {"name": "limit", "in": "query", "required": True, "schema": {"type": "integer"}},
            {"name": "slow", "in": "query", "schema": {"type": "string", "pattern": "^(a+)+$"}},
        ],
        "responses": {"200": {"description": "fine"}},
    }}},
}).encode()  # fmt: skip
READ = Read(DOCUMENT, LIMITS)
LIBRARIES = {
    "openapi_core",
    "openapi_spec_validator",
    "openapi_schema_validator",
    "openapi_python_client",
    "jsonschema",
    "jsonschema_rs",
    "jsonschema_path",
}


def check(query: str, document: str = "a/1") -> Check:
    return Check(document, "GET /pets", Request("GET", f"https://h.example/pets?{query}", []))


SLOW = check(f"limit=1&slow={'a' * 60}!")


@pytest.fixture
async def aides() -> AsyncIterator[Aides]:
    async with Aides(Specs()) as found:
        yield found


def children() -> dict[str, psutil.Process]:
    """The children of this process, by the last word of their modules."""
    found: dict[str, psutil.Process] = {}
    for each in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended
            line = each.cmdline()
            if "-P" in line:
                found[line[-1].rsplit(".", 1)[-1]] = each
    return found


# What they do -------------------------------------------------------------------------------------


async def test_a_document_goes_from_bytes_to_checked_requests(aides):
    assert children() == {}, "they start when they are asked first"
    assert await aides.ask(ALICE, READ, 5) == Fine()
    assert set(children()) == {"reader"}

    compiled = await aides.ask(ALICE, Compile(DOCUMENT, LIMITS), 5)
    assert isinstance(compiled, Compiled)
    assert [json.loads(each)["path"] for each in compiled.operations] == ["/pets"]
    review = Review(compiled.document, compiled.operations, None)
    assert await aides.ask(ALICE, review, 5) == Reviewed({})
    assert set(children()) == {"reader", "compiler"}

    assert await aides.ask(ALICE, check("limit=1"), 5) == Unknown()
    assert await aides.ask(ALICE, Learn("a/1", compiled.document), 5) == Fine()
    assert await aides.ask(ALICE, check("limit=1"), 5) == Fine()
    wrong = await aides.ask(ALICE, check("limit=x"), 5)
    assert isinstance(wrong, Finding) and "limit" in wrong.message


def test_documents_that_were_not_asked_for_lately_are_forgotten():
    memory = Memory()
    large = DOCUMENT + b" " * (REMEMBERED // 3)
    for name in ("a", "b"):
        assert memory.answer(Learn(name, large)) == Fine()
    assert memory.answer(check("limit=1", "a")) == Fine()
    assert memory.answer(Learn("c", large)) == Fine()
    assert memory.answer(check("limit=1", "b")) == Unknown()
    assert memory.answer(check("limit=1", "a")) == Fine()
    for _ in range(9):
        assert memory.answer(Learn("a", large)) == Fine()
    assert memory.answer(check("limit=1", "c")) == Fine(), "one that is learnt again counts once"


def test_a_check_that_brings_its_document_needs_none_to_be_remembered():
    memory = Memory()
    large = DOCUMENT + b" " * REMEMBERED
    assert memory.answer(Learn("a", DOCUMENT)) == Fine()
    assert memory.answer(Learn("b", large)) == Fine()
    asked = check("limit=1", "a")
    assert memory.answer(asked) == Unknown()
    assert memory.answer(msgspec.structs.replace(asked, source=DOCUMENT)) == Fine()


async def test_requests_that_wait_are_checked_together(aides):
    await aides.ask(ALICE, Learn("a/1", DOCUMENT), 5)
    before = time.process_time()
    answers = await asyncio.gather(
        *(aides.ask(ALICE, check(f"limit={'x' if n % 10 == 3 else n}"), 5) for n in range(90))
    )
    assert [isinstance(each, Finding) for each in answers] == [n % 10 == 3 for n in range(90)]
    assert (time.process_time() - before) / 90 < 0.002


async def test_services_take_turns(aides):
    await aides.ask(ALICE, READ, 5)
    children()["reader"].suspend()
    done: list[str] = []

    async def wait(name: str, service: UUID) -> None:
        await aides.ask(service, READ, 5)
        done.append(name)

    tasks = [asyncio.create_task(wait(f"alice {n}", ALICE)) for n in range(6)]
    tasks.append(asyncio.create_task(wait("bob", BOB)))
    await eventually(lambda: _stand(aides, {ALICE: 5, BOB: 1}))
    children()["reader"].resume()
    await asyncio.gather(*tasks)
    assert done.index("bob") <= 2


def _stand(aides: Aides, waiting: dict[UUID, int]) -> None:
    assert {key: len(line) for key, line in aides._reader._waiting.items()} == waiting


def _taken(aides: Aides) -> None:
    assert aides._reader._working is not None and not aides._reader._waiting


async def test_a_service_may_have_so_many_documents_waiting_and_no_more(aides):
    await aides.ask(ALICE, READ, 5)
    children()["reader"].suspend()
    tasks = [asyncio.create_task(aides.ask(ALICE, READ, 5))]
    await eventually(lambda: _taken(aides))
    tasks += [asyncio.create_task(aides.ask(ALICE, READ, 5)) for _ in range(100)]
    await eventually(lambda: _stand(aides, {ALICE: 100}))
    with pytest.raises(TooManyRequests, match="100 documents of this service wait to be read"):
        await aides.ask(ALICE, READ, 5)
    children()["reader"].resume()
    assert set(await asyncio.gather(*tasks)) == {Fine()}


# What may go wrong --------------------------------------------------------------------------------


async def test_what_takes_too_long_is_given_up_and_costs_nobody_else(aides):
    await aides.ask(ALICE, Learn("a/1", DOCUMENT), 5)
    first = children()["checker"].pid
    answers = await asyncio.gather(
        aides.ask(ALICE, check("limit=1"), 5),
        aides.ask(BOB, SLOW, 0.3),
        aides.ask(ALICE, check("limit=2"), 5),
    )
    assert isinstance(answers[1], Finding) and answers[1].spent
    assert "takes more than 0.3 seconds" in answers[1].message
    assert {type(answers[0]), type(answers[2])} <= {Fine, Unknown}
    assert await aides.ask(ALICE, check("limit=1"), 5) == Unknown(), "another child has its place"
    assert children()["checker"].pid != first


async def test_a_service_whose_checks_take_long_holds_up_nobody_else(aides):
    await aides.ask(BOB, Learn("b/1", DOCUMENT), 5)
    await aides.ask(ALICE, Learn("a/1", DOCUMENT), 5)
    slow = [
        asyncio.create_task(aides.ask(ALICE, check(f"limit=1&slow={'a' * 60}!{n}"), 2))
        for n in range(10)
    ]
    await asyncio.sleep(0)  # they wait before Bob's
    answer = await aides.ask(BOB, check("limit=1", "b/1"), 2)
    if isinstance(answer, Unknown):  # the child that knew it was in the middle of one of Alice's
        await aides.ask(BOB, Learn("b/1", DOCUMENT), 5)
        answer = await aides.ask(BOB, check("limit=1", "b/1"), 2)
    assert answer == Fine()
    ended = [each.result() for each in slow if each.done()]
    assert set(ended) <= {Unknown()}, "Bob waits for no pattern of Alice's"

    quick = await aides.ask(BOB, check("limit=2", "b/1"), 2)
    assert quick == Fine(), "and her later ones do not end the child that knows his document"
    for each in slow:
        each.cancel()
    await asyncio.gather(*slow, return_exceptions=True)


async def test_a_check_that_takes_long_is_given_all_its_time_apart_from_others(aides):
    await aides.ask(ALICE, Learn("a/1", DOCUMENT), 5)
    assert await aides.ask(ALICE, SLOW, 1) == Unknown(), "the child apart does not know it yet"
    await aides.ask(ALICE, Learn("a/1", DOCUMENT), 5)
    answer = await aides.ask(ALICE, SLOW, 1)
    assert isinstance(answer, Finding) and "takes more than 1 seconds" in answer.message


async def test_a_child_that_is_killed_is_replaced_and_what_it_was_asked_is_asked_again(aides):
    await aides.ask(ALICE, READ, 5)
    reader = children()["reader"]
    reader.suspend()
    asked = asyncio.create_task(aides.ask(ALICE, READ, 5))
    await eventually(lambda: _taken(aides))
    reader.kill()
    assert await asked == Fine()
    assert children()["reader"].pid != reader.pid


async def test_a_child_that_is_silent_is_killed(aides, monkeypatch):
    monkeypatch.setattr(aide, "BIT_S", 0.1)
    await aides.ask(ALICE, READ, 5)
    reader = children()["reader"]
    reader.suspend()
    assert await aides.ask(ALICE, READ, 0.1) == Fine()
    assert not reader.is_running()


async def test_questions_that_were_sent_together_with_one_that_ends_the_child_are_answered(
    aides, monkeypatch
):
    monkeypatch.setattr(aide, "BIT_S", 0.1)
    await aides.ask(ALICE, Learn("a/1", DOCUMENT), 5)
    checker = children()["checker"]
    checker.suspend()
    asked = [asyncio.create_task(aides.ask(ALICE, check(f"limit={n}"), 0.1)) for n in range(5)]
    assert set(await asyncio.gather(*asked)) == {Unknown()}
    assert not checker.is_running()


async def test_too_much_memory_is_a_finding(aides):
    await aides.ask(ALICE, READ, 5)
    reader = children()["reader"]
    most = reader.memory_info().rss + (20 << 20)
    resource.prlimit(reader.pid, resource.RLIMIT_DATA, (most, most))
    many = b"[" + b",".join([b"{}"] * 1_000_000) + b"]"
    answer = await aides.ask(ALICE, Read(many, LIMITS), 30)
    assert answer == Finding("takes too much memory; send a smaller document", spent=True)
    assert not reader.is_running(), "what it left behind goes with it"
    assert await aides.ask(ALICE, READ, 5) == Fine()


async def test_aides_that_are_closed_leave_no_child_and_tell_who_waits():
    async with Aides(Specs()) as aides:
        await aides.ask(ALICE, READ, 5)
        reader = children()["reader"]
        reader.suspend()
        asked = [asyncio.create_task(aides.ask(ALICE, READ, 5)) for _ in range(2)]
        await eventually(lambda: _stand(aides, {ALICE: 1}))
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(answer) for answer in answers] == [Unavailable, Unavailable]
    assert not reader.is_running()


async def test_a_child_that_nobody_asks_ends_and_starts_again(aides, monkeypatch):
    monkeypatch.setattr(aide._Aide, "idle_s", 0.05)
    assert await aides.ask(ALICE, READ, 5) == Fine()

    def gone() -> None:
        assert children() == {}

    await eventually(gone)
    assert await aides.ask(ALICE, READ, 5) == Fine()


# What they are ------------------------------------------------------------------------------------


async def every(aides: Aides) -> list[Answer]:
    return [
        await aides.ask(ALICE, READ, 5),
        await aides.ask(ALICE, Compile(DOCUMENT, LIMITS), 5),
        await aides.ask(ALICE, Learn("a/1", DOCUMENT), 5),
    ]


async def test_a_child_has_nothing_of_ours_and_only_so_much_of_the_machine(
    aides, monkeypatch, tmp_path
):
    monkeypatch.setenv("SECRET_KEY", "the-key-of-the-house")
    with (tmp_path / "open").open("w") as kept:
        os.set_inheritable(kept.fileno(), True)
        await every(aides)
        for name, process in children().items():
            assert set(process.environ()) <= {"PYTHONPATH", "LC_ALL", "LC_CTYPE"}, name
            assert process.open_files() == [], name
            assert process.cwd() == "/"
            assert process.nice() > 0
            most = {"checker": 512 << 20}.get(name, 1 << 30)
            assert resource.prlimit(process.pid, resource.RLIMIT_DATA) == (most, most)


def test_a_child_opens_and_reaches_nothing():
    tries = """
import socket, subprocess, sys, urllib.request
from scheduler.documents import child
child.serve = lambda *_: None
child.work(lambda ask: ask, 1 << 30)
for wrong in (
    lambda: socket.create_connection(("127.0.0.1", 9)),
    lambda: socket.getaddrinfo("localhost", 80),
    lambda: urllib.request.urlopen("http://127.0.0.1:9/"),
    lambda: urllib.request.urlopen("file:///etc/passwd"),
    lambda: open("/etc/passwd"),
    lambda: open(b"/etc/passwd"),
    lambda: open(sys.prefix + "/../../../../../../../../etc/passwd"),
    lambda: __import__("pathlib").Path("/etc/passwd").read_text(),
    lambda: __import__("os").open("/etc/passwd", 0),
    lambda: subprocess.run(["id"]),
    lambda: __import__("os").system("id"),
    lambda: __import__("os").fork(),
):
    try:
        wrong()
    except (PermissionError, urllib.request.URLError) as e:
        assert isinstance(getattr(e, "reason", e), PermissionError), e
    else:
        raise SystemExit("it was let")
import sqlite3
"""
    done = subprocess.run(
        [sys.executable, "-c", tries], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_server_does_not_load_the_libraries_of_the_children():
    loaded = "import sys, scheduler.server, scheduler.worker; print(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", loaded], capture_output=True, text=True, check=True
    )
    assert "scheduler.specs.aide" in done.stdout.split()
    assert not {name.partition(".")[0] for name in done.stdout.split()} & LIBRARIES


def test_the_child_that_reads_loads_little():
    loaded = "import sys, scheduler.documents.reader; print(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", loaded], capture_output=True, text=True, check=True
    )
    forbidden = LIBRARIES | {"sqlalchemy", "litestar", "asyncio", "asyncpg"}
    assert not {name.partition(".")[0] for name in done.stdout.split()} & forbidden


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM])
def test_no_child_outlives_its_parent(sign):
    parent = """
import asyncio
from uuid import UUID
from scheduler.config import Specs
from scheduler.specs.aide import Aides
from scheduler.documents.messages import Limits, Read

async def main():
    async with Aides(Specs()) as aides:
        await aides.ask(UUID(int=1), Read(b"", Limits(1, 1, 1)), 5)
        print("up", flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""
    with subprocess.Popen(
        [sys.executable, "-c", parent], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == b"up\n"
        (reader,) = psutil.Process(process.pid).children()
        reader.suspend()
        process.send_signal(sign)
        process.wait(10)
        _, alive = psutil.wait_procs([reader], timeout=10)
        assert alive == []


# How long they take -------------------------------------------------------------------------------


def large(version: str, operations: int) -> bytes:
    """A document like those of large public APIs."""
    schemas: dict[str, Any] = {
        f"S{n}": {"type": "object", "required": ["id", "kind"], "properties": {
            "id": {"type": "integer", "format": "int64", "example": n},
            "kind": {"type": "string", "enum": ["one", "two", "three"]},
            "name": {"type": "string", "maxLength": 100, "description": "What it is called. " * 5},
            "next": {"$ref": f"#/components/schemas/S{(n + 1) % 300}"},
            "tags": {"type": "array", "items": {"type": "string"}}}}
        for n in range(300)
    }  # fmt: skip
    paths: dict[str, Any] = {}
    for n in range(operations // 4):
        answer = {"description": "fine", "content": {"application/json": {
            "schema": {"$ref": f"#/components/schemas/S{n % 300}"}}}}  # fmt: skip
        body = {"required": True, "content": answer["content"]}
        paths[f"/things{n}/{{id}}"] = {
            method: {
                "operationId": f"{method}_{n}",
                "summary": "Does something to a thing",
                "parameters": [
                    {"name": "id", "in": "path", "required": True, "schema": {"type": "integer"}},
                    {"$ref": "#/components/parameters/page"},
                ],
                "responses": {"200": answer, "404": {"description": "none"}},
                **({"requestBody": body} if method in ("post", "put") else {}),
            }
            for method in ("get", "post", "put", "delete")
        }
    page = {"name": "page", "in": "query", "required": True, "schema": {"type": "integer"}}
    return json.dumps({
        "openapi": version,
        "info": {"title": "Large", "version": "1"},
        "servers": [{"url": "https://h.example"}],
        "paths": paths,
        "components": {"schemas": schemas, "parameters": {"page": page}},
    }).encode()  # fmt: skip


@pytest.mark.parametrize("version", ["3.0.3", "3.1.0"])
async def test_a_thousand_operations_are_compiled_and_reviewed_in_seconds(aides, version):
    source = large(version, 1000)
    started, ours = time.monotonic(), time.process_time()
    compiled = await aides.ask(ALICE, Compile(source, LIMITS), 60)
    assert isinstance(compiled, Compiled), compiled
    assert len(compiled.operations) == 1000
    reviewed = await aides.ask(ALICE, Review(compiled.document, compiled.operations, None), 60)
    assert reviewed == Reviewed({})
    took, ours = time.monotonic() - started, time.process_time() - ours
    print(f"{version}: {len(source)} bytes, {took:.2f} s, of them {ours * 1000:.0f} ms ours")
    assert took < 10
    assert ours < 0.2


def test_an_ask_that_nobody_thought_of_is_answered(monkeypatch):
    found = list(child._answers(lambda _: 1 // 0, [aide.Asked(READ, 1)]))  # type: ignore[arg-type,return-value]
    ((answer, whole),) = found
    assert isinstance(answer, Finding) and "ZeroDivisionError" in answer.message and whole


async def test_a_large_body_is_checked_apart_up_to_a_limit(aides):
    post = {"requestBody": {"content": {"application/json": {"schema": {"type": "object"}}}}}
    document = {"openapi": "3.1.0", "info": {"title": "t", "version": "1"}, "paths": {}}
    document["paths"] = {"/a": {"post": post | {"responses": {}}}}
    source = json.dumps(document).encode()
    headers = [("content-type", "application/json")]
    request = Request("POST", "http://a.test/a", headers, b"[" + b"1," * LARGE + b"1]")
    most = len(request.body)
    asked = Check("a/1", "POST /a", request, source, most)
    wrong = await aides.ask(ALICE, asked, 20)
    assert isinstance(wrong, Finding) and "req_body must be an object" in wrong.message
    assert set(children()) == {"checker"} and aides._checker.pid is None
    unseen = Check("a/1", "POST /a", request, source, most - 1)
    assert await aides.ask(ALICE, unseen, 20) == Fine()
    assert aides._checker.pid is not None, "one that is not looked at takes no time"
