"""The bare client: one uvloop process that only sends, with aiohttp; what the product is beside.

It stores nothing, claims nothing and retries nothing: no Python scheduler on aiohttp can be faster.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import time
from itertools import count
from typing import Any

import aiohttp
import uvloop

PAYLOAD = b"x" * 100
CONCURRENCY = 200


async def post(http: aiohttp.ClientSession, url: str) -> None:
    """Send one call and read its answer."""
    async with http.post(url, data=PAYLOAD) as answer:
        await answer.read()
        answer.raise_for_status()


async def ceiling(url: str, calls: int) -> dict[str, float]:
    """Send as fast as possible over 200 connections that are open already."""
    async with _session() as http:
        await asyncio.gather(*(post(http, f"{url}/reset") for _ in range(CONCURRENCY)))
        numbers = iter(range(calls))

        async def work() -> None:
            for number in numbers:
                await post(http, f"{url}/r/{number}")

        cpu, began = time.process_time(), time.perf_counter()
        await asyncio.gather(*(work() for _ in range(CONCURRENCY)))
        took, used = time.perf_counter() - began, time.process_time() - cpu
    return {"per_s": round(calls / took), "cpu_us": round(used / calls * 1e6, 1)}


async def timed(url: str, calls: int, start: float, step: float) -> None:
    """Send call k at `start + k * step` (seconds since 1970), each from a timer of its own."""
    loop = asyncio.get_running_loop()
    zero = loop.time() - time.time()
    running: set[asyncio.Task[None]] = set()
    numbers = count()
    async with _session() as http:

        def fire() -> None:
            task = loop.create_task(post(http, f"{url}/r/{next(numbers)}"))
            running.add(task)
            task.add_done_callback(running.discard)

        for call in range(calls):
            loop.call_at(zero + start + call * step, fire)
        await asyncio.sleep(start + calls * step - time.time() + 0.5)
        await asyncio.gather(*running)


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=CONCURRENCY))


async def run(*args: object) -> Any:
    """Run the bare client in a process of its own and return what it found."""
    command = [sys.executable, "-m", "bench.bare", *map(str, args)]
    done = await asyncio.to_thread(
        subprocess.run, command, check=True, stdout=subprocess.PIPE, text=True
    )
    return json.loads(done.stdout)


def main() -> None:
    """Do what the arguments say and print a JSON object."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("url")
    arguments.add_argument("calls", type=int)
    arguments.add_argument("--start", type=float)
    arguments.add_argument("--step", type=float, default=0.0)
    given = arguments.parse_args()
    if given.start is None:
        print(json.dumps(uvloop.run(ceiling(given.url, given.calls))))
    else:
        uvloop.run(timed(given.url, given.calls, given.start, given.step))
        print("{}")


if __name__ == "__main__":
    main()
