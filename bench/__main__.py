"""`python -m bench`: runs the scenarios, prints a JSON line for each, and writes the page."""

import argparse
import asyncio
import json
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import uvloop

from bench import (
    backlog,
    burst,
    by_hand,
    creating,
    idle,
    lists,
    memory,
    pages,
    processes,
    report,
    rrules,
    steady,
    streams,
)
from bench.machine import Meter, about
from bench.product import Product
from bench.sink import Sink
from bench.targets import TARGETS, judged

PAGE = Path("docs/benchmarks.md")
LINES = Path("bench/results.jsonl")

Figures = dict[str, Any]


class Sizes(NamedTuple):
    """How much of everything."""

    burst: int = 10_000
    steady_s: int = 20
    by_hand: int = 200
    stored: int = 1_000_000
    window_s: int = 60
    due: int = 50
    held: int = 10_000
    singly: int = 3000
    in_bulk: int = 10_000
    missed: int = 1000
    overdue: int = 100_000
    crowded_s: int = 20
    listed_tasks: int = 1_000_000
    listed_runs: int = 10_000_000
    paged_tasks: int = 10_000
    paged_runs: int = 100_000
    ruled: int = 10_000
    processes: int = 10_000
    operations: int = 1000
    streams: int = 1000


QUICK = Sizes(
    burst=1000,
    steady_s=3,
    by_hand=30,
    stored=20_000,
    window_s=10,
    due=10,
    held=1000,
    singly=200,
    in_bulk=500,
    missed=10,
    overdue=2000,
    crowded_s=4,
    listed_tasks=100_000,
    listed_runs=1_000_000,
    paged_tasks=1000,
    paged_runs=10_000,
    ruled=500,
    processes=500,
    operations=100,
    streams=150,
)


class Bench:
    """One pass over the wanted scenarios, each on a new database unless it needs another's."""

    def __init__(self, sink: Sink, sizes: Sizes, wanted: set[str], pass_number: int) -> None:
        self.sink = sink
        self.sizes = sizes
        self.wanted = wanted
        self.pass_number = pass_number
        self.lines: list[Figures] = []

    async def run(self) -> None:
        """Run what is wanted, in an order in which nothing warms up the next."""
        sink, sizes = self.sink, self.sizes
        plain = "burst"
        if self.wanted & {plain, "burst_stored"}:
            await self._alone(plain, lambda product: burst.burst(product, sink, sizes.burst))
        for kind, fire in (("steady", steady.once), ("interval", steady.interval)):
            for rate in (100, 300):
                await self._alone(
                    f"{kind}_{rate}",
                    lambda product, fire=fire, rate=rate: fire(product, sink, rate, sizes.steady_s),
                )
        await self._alone("immediate", lambda p: by_hand.immediate(p, sink, sizes.by_hand))
        await self._alone("memory", lambda p: memory.held(p, sink, sizes.held))
        await self._alone(
            "create", lambda p: creating.creating(p, sink, sizes.singly, sizes.in_bulk)
        )
        await self._alone(
            "lists", lambda p: lists.lists(p, sink, sizes.listed_tasks, sizes.listed_runs)
        )
        await self._alone(
            "pages", lambda p: pages.pages(p, sink, sizes.paged_tasks, sizes.paged_runs)
        )
        await self._alone("watched", lambda p: streams.watched(p, sink, sizes.burst))
        await self._alone("streams", lambda p: streams.streams(p, sink, sizes.streams))
        await self._alone("rrules", lambda _: rrules.planned(sizes.ruled))
        await self._alone(
            "processes", lambda p: processes.processes(p, sink, sizes.processes, sizes.operations)
        )
        await self._alone("start", self._start)
        await self._alone("downtime", lambda p: backlog.downtime(p, sink, sizes.missed))
        await self._alone("crowded", self._crowded)
        if self.wanted & {"idle_stored", "burst_stored"}:
            await self._stored()

    async def _alone(self, name: str, measure: Callable[[Product], Awaitable[Figures]]) -> None:
        if name not in self.wanted and not (name == "burst" and "burst_stored" in self.wanted):
            return
        try:
            async with Product() as product:
                await self._measure(name, product, measure)
        except Exception as e:
            self._failed(name, e)

    async def _measure(
        self, name: str, product: Product, measure: Callable[[Product], Awaitable[Figures]]
    ) -> None:
        print(f"{time.strftime('%H:%M:%S')} {name} ...", file=sys.stderr, flush=True)
        helpers = [self.sink.process.pid]
        before = Meter(product.pid, product.postmaster, product.backend, helpers).read()
        try:
            figures = await measure(product)
        except Exception as e:
            self._failed(name, e, product.log())
            return
        if "noise_cores" not in figures and name != "start":
            meter = Meter(product.pid, product.postmaster, product.backend, helpers)
            figures["noise_cores"] = meter.read().since(before).noise_cores
        self._line(name, figures | {"complaints": product.complaints()})

    async def _start(self, product: Product) -> Figures:
        first = product.started_s
        await product.stop()
        return {"n": 1, "first_s": first, "second_s": await product.start()}

    async def _crowded(self, product: Product) -> Figures:
        async with Sink() as hanging:
            return await backlog.crowded(
                product, self.sink, hanging, self.sizes.overdue, self.sizes.crowded_s
            )

    async def _stored(self) -> None:
        sizes = self.sizes
        try:
            async with Product() as product:
                print("filling ...", file=sys.stderr, flush=True)
                filled = {"fill_s": await idle.fill(product, self.sink, sizes.stored)}
                if "idle_stored" in self.wanted:
                    await self._measure("idle_stored", product, lambda p: self._idle(p, filled))
                if "burst_stored" in self.wanted:
                    await self._measure("burst_stored", product, self._burst_stored)
        except Exception as e:
            self._failed("stored", e)

    async def _idle(self, product: Product, filled: Figures) -> Figures:
        sizes = self.sizes
        measured = await idle.idle(product, self.sink, sizes.stored, sizes.window_s, sizes.due)
        return measured | filled

    async def _burst_stored(self, product: Product) -> Figures:
        figures = await burst.burst(product, self.sink, self.sizes.burst)
        figures["stored"] = self.sizes.stored
        plain = next((x for x in self.lines if x["scenario"] == "burst" and "cpu_us" in x), None)
        if plain is not None:
            ratio = figures["cpu_us"]["postgres"] / plain["cpu_us"]["postgres"]
            figures["postgres_of_plain"] = round(ratio, 2)
        return figures

    def _failed(self, name: str, error: Exception, log: str = "") -> None:
        print(f"{name} failed: {error!r}\n{log}", file=sys.stderr, flush=True)
        self._print({"scenario": name, "error": f"{type(error).__name__}: {error}"[:500]})

    def _line(self, name: str, figures: Figures) -> None:
        self._print({"scenario": name, **figures, "targets": list(judged(name, figures))})

    def _print(self, figures: Figures) -> None:
        line = figures | {"pass": self.pass_number} | about()
        self.lines.append(line)
        print(json.dumps(line), flush=True)


async def passes(sizes: Sizes, wanted: set[str], repeat: int) -> list[Figures]:
    """Run everything `repeat` times and return the lines; SIGTERM stops what was started."""
    me = asyncio.current_task()
    if me is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, me.cancel)
    lines = []
    for number in range(1, repeat + 1):
        async with Sink() as sink:
            bench = Bench(sink, sizes, wanted, number)
            await bench.run()
        lines += bench.lines
    return lines


def main() -> int:
    """Do what the arguments say; 1 where a scenario failed (not where it missed a target)."""
    arguments = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    names = ", ".join(TARGETS)
    arguments.add_argument("--only", metavar="NAMES", help=f"some of: {names}")
    arguments.add_argument("--quick", action="store_true", help="small sizes: does it run at all?")
    arguments.add_argument("--repeat", type=int, default=1, metavar="N")
    arguments.add_argument("--out", type=Path, metavar="FILE", help=f"lines; default {LINES}")
    arguments.add_argument("--page", type=Path, metavar="FILE", help=f"default {PAGE}")
    arguments.add_argument("--from", dest="read", type=Path, metavar="FILE",
                           help="measure nothing, write the page from these lines")  # fmt: skip
    given = arguments.parse_args()
    if given.read:
        report.write(report.read(given.read), given.page or PAGE)
        return 0
    wanted = set(given.only.split(",")) if given.only else set(TARGETS)
    if unknown := wanted - TARGETS.keys():
        arguments.error(f"there is no {', '.join(sorted(unknown))}; there are {names}")
    try:
        lines = uvloop.run(passes(QUICK if given.quick else Sizes(), wanted, given.repeat))
    except (asyncio.CancelledError, KeyboardInterrupt):
        return 130
    whole = not given.quick and not given.only
    if given.out or whole:
        out = given.out or LINES
        out.write_text("".join(json.dumps(line) + "\n" for line in lines))
    if given.page or whole:
        report.write(lines, given.page or PAGE)
    return 1 if any("error" in line for line in lines) else 0


if __name__ == "__main__":
    sys.exit(main())
