"""Calls through a spec: distinct ones beside plain tasks, equal ones, and a large document."""

import asyncio
import base64
import json
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Any

import psutil

from bench import burst, store
from bench.burst import CLAIMED_S, until
from bench.machine import Meter, spread
from bench.product import Product
from bench.sink import Sink

CONCURRENCY = 16
NEVER_MS = 4_070_908_800_000
"""2099; what was made for then is moved to its instant when all are made."""
MOVE = "UPDATE run SET due = $2, scheduled_for = $2 WHERE kind = 'process' AND scheduled_for = $1"
SPEC_S = 120.0
PROBE_S = 0.02
CHECKER = "scheduler.documents.checker"

Parameters = list[dict[str, Any]]


async def processes(product: Product, sink: Sink, calls: int, operations: int) -> dict[str, Any]:
    """Fire `calls` tasks, as many distinct processes, and as many equal ones, each at one instant;
    then add a document with so many operations.
    """
    plain = await burst.burst(product, sink, calls)
    await _add(product, "bench", _small(sink.url))
    await _fire(product, sink, [0])  # the child is there, and knows the document
    distinct = await _fire(product, sink, range(1, calls + 1))
    equal = await _fire(product, sink, [calls + 1] * calls)
    return {
        "n": calls,
        "plain": {name: plain[name] for name in ("per_s", "cpu_us", "lag_ms")},
        **distinct,
        "more_cpu_us": round(distinct["cpu_us"]["ours"] - plain["cpu_us"]["ours"], 1),
        "equal": equal,
        "upstream": equal["arrived"],
        "large": await _large(product, sink.url, operations),
    }


async def _fire(product: Product, sink: Sink, numbers: Iterable[int]) -> dict[str, Any]:
    """Have processes call the target, one a number, all at one instant."""
    numbers = list(numbers)
    await sink.ask("reset")
    meter = Meter(product.pid, product.postmaster, product.backend, [sink.process.pid])
    began = time.perf_counter()
    await _create(product, numbers)
    created_s = time.perf_counter() - began
    at_ms = (int(time.time()) + 4) * 1000
    await product.db.execute(MOVE, store.instant(NEVER_MS), store.instant(at_ms))
    await asyncio.sleep(max(at_ms / 1000 - CLAIMED_S - time.time(), 0))
    before, child = meter.read(), _child_s(product)
    with suppress(TimeoutError):  # what is left shows in the figures
        await until(lambda: store.unsettled(product.db, at_ms), at_ms / 1000 + 60, pause=0.02)
    used, child = meter.read().since(before), _child_s(product) - child
    arrivals = await sink.arrivals()
    lags = [when - at_ms / 1000 for _, when in arrivals]
    left = await store.left(product.db, at_ms)
    settled_s = used.at - CLAIMED_S
    return {
        "arrived": len(arrivals),
        "lost": len(set(numbers)) - len({number for number, _ in arrivals}),
        "unsettled": len(numbers) - left.get("succeeded", 0),
        "created_per_s": round(len(numbers) / created_s),
        "per_s": round(len(numbers) / settled_s) if settled_s > 0 else 0,
        "lag_ms": spread(lags),
        "cpu_us": {
            "ours": round(used.ours / len(numbers) * 1e6, 1),
            "of_it_the_child": round(child / len(numbers) * 1e6, 1),
            "postgres": round(used.postgres / len(numbers) * 1e6, 1),
        },
    }


async def _create(product: Product, numbers: list[int]) -> None:
    waiting = iter(numbers)
    body = {"service": "bench", "method": "GET", "endpoint": "/r/{number}"}
    body["scheduled_at"] = store.instant(NEVER_MS).isoformat()

    async def work() -> None:
        for number in waiting:
            sent = body | {"url_params": {"number": number}}
            await product.call("POST", "/v1/api/scheduler/process", sent)

    await asyncio.gather(*(work() for _ in range(CONCURRENCY)))


def _child_s(product: Product) -> float:
    """Return the CPU seconds of the child that checks requests."""
    for process in psutil.Process(product.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if CHECKER in process.cmdline():
                times = process.cpu_times()
                return times.user + times.system
    return 0.0


# A large document ---------------------------------------------------------------------------------


async def _large(product: Product, url: str, operations: int) -> dict[str, Any]:
    """Add a document and ask for tasks meanwhile; return how long each took."""
    sent = _document(url, operations)
    adding = asyncio.create_task(_add(product, "large", sent))
    answers = await _answers(adding, lambda: product.call("GET", "/tasks?count=1"))
    return {
        "operations": operations,
        "bytes": len(json.dumps(sent)),
        "s": round(await adding, 2),
        "api_ms": spread(answers),
    }


async def _answers(beside: asyncio.Task[Any], ask: Callable[[], Awaitable[Any]]) -> list[float]:
    took = []
    while not beside.done():
        began = time.perf_counter()
        await ask()
        took.append(time.perf_counter() - began)
        await asyncio.sleep(PROBE_S)
    return took


async def _add(product: Product, name: str, document: dict[str, Any]) -> float:
    """Add a spec; return the seconds until it can be called."""
    source = base64.b64encode(json.dumps(document).encode()).decode()
    began = time.perf_counter()
    made = await product.call("POST", "/v1/api/spec", {"name": name, "headers": {}, "spec": source})
    while time.perf_counter() - began < SPEC_S:
        found = await product.call("GET", f"/v1/api/spec/{made['trace_id']}")
        status = found["status"]["status"]
        if status == "SUCCESS":
            return time.perf_counter() - began
        if status == "ERROR":
            raise RuntimeError(f"the spec {name} failed: {found['status']}")
        await asyncio.sleep(PROBE_S)
    raise TimeoutError(f"the spec {name} cannot be called after {SPEC_S:g} s")


def _small(url: str) -> dict[str, Any]:
    paths = {"/r/{number}": {"get": _operation([_parameter("number", "path", "integer")])}}
    return _written(url, paths)


def _document(url: str, operations: int) -> dict[str, Any]:
    """Return a document like those that are published: parameters, bodies, shared schemas."""
    paths: dict[str, Any] = {}
    for n in range(operations // 2):
        named = _parameter("id", "path", "string")
        asked = [_parameter(f"filter{k}", "query", "string") for k in range(5)]
        paths[f"/things{n}/{{id}}"] = {
            "get": _operation([named, *asked]),
            "put": _operation([named]) | {"requestBody": _content(f"Thing{n % 100}")},
        }
    schemas = {f"Thing{n}": _schema(n) for n in range(100)}
    return _written(url, paths) | {"components": {"schemas": schemas}}


def _written(url: str, paths: dict[str, Any]) -> dict[str, Any]:
    return {
        "openapi": "3.0.3",
        "info": {"title": "A benchmark's", "version": "1"},
        "servers": [{"url": url}],
        "paths": paths,
    }


def _parameter(name: str, place: str, type_: str) -> dict[str, Any]:
    return {"name": name, "in": place, "required": place == "path", "schema": {"type": type_}}


def _operation(parameters: Parameters) -> dict[str, Any]:
    return {"parameters": parameters, "responses": {"200": {"description": "What was asked for."}}}


def _content(name: str) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{name}"}
    return {"required": True, "content": {"application/json": {"schema": schema}}}


def _schema(n: int) -> dict[str, Any]:
    properties: dict[str, Any] = {f"field{k}": {"type": "string"} for k in range(10)}
    properties["next"] = {"$ref": f"#/components/schemas/Thing{(n + 1) % 100}"}
    return {"type": "object", "required": ["field0"], "properties": properties}
