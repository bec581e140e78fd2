"""Writes docs/benchmarks.md from the JSON lines; over several passes the median of each figure."""

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.machine import median
from bench.pages import PAGES

Figures = dict[str, Any]

NAMES = {
    "burst": "10,000 at one instant",
    "burst_stored": "10,000 at one instant, 1,000,000 more stored",
    "steady_100": "100 a second, each once",
    "steady_300": "300 a second, each once",
    "interval_100": "100 a second, 100 tasks every second",
    "interval_300": "300 a second, 300 tasks every second",
    "immediate": "by hand, 20 a second",
    "idle_stored": "1,000,000 stored, 50 due in a minute",
    "memory": "memory",
    "lists": "lists, 1,000,000 tasks and 10,000,000 runs stored",
    "pages": "pages of the dashboard, 10,000 tasks and 100,000 runs stored",
    "watched": "10,000 at one instant, 20 pages of the dashboard open",
    "streams": "1,000 pages of the dashboard open",
    "rrules": "recurrence rules, planning",
    "processes": "10,000 processes through a spec",
    "start": "start",
    "create": "creating through the API",
}

HEAD = """# Benchmarks

`make bench` measures, and writes this page; the lines that it was written from are in
`bench/results.jsonl`. Everything shares one machine: the scheduler, its embedded Postgres with the
settings it ships with (`fsync` and `synchronous_commit` on), the target, and the benchmark. Every
callback is an HTTP POST with a body of 100 bytes to a target in a process of its own, which notes
the arrival; history is kept; all settings are the defaults.
"""

METHOD = """## How it is measured

- **Bare client**: one Python process with uvloop and aiohttp that stores nothing and only sends, in
  the same run, just before and just after: as fast as it can over 200 connections (the ceiling,
  the better of the two), or from timers (the lag, of both together). It is what the scheduler
  would cost if everything but the call were free.
- **Lag** is from the instant to the arrival at the target. **Calls per second** are counted to the
  last arrival.
- **By hand**, lag is from the API's answer to the arrival: below zero where the call was there
  first.
- **CPU per run** is of the process and of all of Postgres's processes, but for the connection the
  benchmark itself uses, from 1.5 s before the instant (the first claim comes 1 s before) until no
  run is left in the queue. Planning is measured apart: from the writing of the tasks until the
  last has its run. The kernel counts in steps of 10 ms a process.
- The 10,000 tasks of a burst, and the million, are copies of a task made through the API, written
  with COPY into `task` and `task_plan`; the runs are made by the planner, as for every task that
  is older than `planner.window_seconds`.
- **Recurrence rules** are read from the JSON of their row and planned for the next minute, as the
  planner does every half minute, in the benchmark's own process, without the database; ages take
  turns, medians of five.
- **Noise** is what other processes, and the hypervisor, took of the machine's cores meanwhile.
- What the peers do is not measured here; the figures once measured on a machine like this, with
  its two cores shared the same way: graphile-worker 12,800 a second at 82 + 16 µs a run without
  history, pgqueuer 6,900 at 128 + 40, procrastinate 480 at 832 + 1,232.
- Losses in a crash, and how soon runs are reclaimed, are the tests' business.
"""


def read(path: Path) -> list[Figures]:
    """Return the lines of a file."""
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


def write(lines: Sequence[Figures], path: Path) -> None:
    """Write the page."""
    measured: dict[str, list[Figures]] = defaultdict(list)
    failed = []
    for line in lines:
        if "error" in line:
            failed.append(line)
        else:
            measured[line["scenario"]].append(line)
    parts = [HEAD, _where(lines), _promises(measured), _bursts(measured), _lags(measured)]
    parts += [_rest(measured), _failures(failed), METHOD]
    path.write_text("\n".join(part for part in parts if part))


def _where(lines: Sequence[Figures]) -> str:
    last = lines[-1]
    machine, versions = last["machine"], last["versions"]
    others = ", ".join(f"{name} {v}" for name, v in versions.items() if name != "commit")
    noise = [line["noise_cores"] for line in lines if "noise_cores" in line] or [0.0]
    passes = max(line["pass"] for line in lines)
    kind = "virtual machine" if machine["virtual"] else "machine"
    return (
        f"{last['date'][:10]}, commit {versions['commit']}: {machine['cores']} cores of a {kind} "
        f"({machine['cpu']}), {machine['memory_gb']} GB, {machine['system']}. {others}. "
        f"{passes} {'pass' if passes == 1 else 'passes, medians'}; "
        f"noise of others {min(noise):g} to {max(noise):g} cores.\n"
    )


def _promises(measured: dict[str, list[Figures]]) -> str:
    rows = []
    for scenario, name in NAMES.items():
        lines = measured.get(scenario, [])
        if not lines:
            continue
        for each in zip(*(line["targets"] for line in lines), strict=True):
            got = [target["got"] for target in each if target["got"] is not None]
            limits = [target["limit"] for target in each if target["limit"] is not None]
            rows.append((name, each[0], got, limits))
    table = [
        "## Promised and found\n",
        "| what | promised | found | kept |",
        "| --- | --- | --- | --- |",
    ]
    before = None
    for name, target, got, limits in rows:
        if name != before:
            table.append(f"| **{name}** | | | |")
            before = name
        table.append(f"| {target['what']} | {_must(target, limits)} | {_range(got)} | "
                     f"{_kept(target, got, limits)} |")  # fmt: skip
    return "\n".join(table) + "\n"


def _must(target: Figures, limits: Sequence[float]) -> str:
    if "bare" in target["must"] and limits:
        return f"{target['must']} = {_number(median(limits))}"
    return str(target["must"])


def _kept(target: Figures, got: Sequence[float], limits: Sequence[float]) -> str:
    if not got:
        return "not there yet"
    found, limit = median(got), median(limits)
    kept = found >= limit if target["at_least"] else found <= limit
    return "yes" if kept else "not yet" if target["later"] else "**no**"


def _range(values: Sequence[float]) -> str:
    if not values:
        return "-"
    middle = _number(median(values))
    if min(values) == max(values):
        return middle
    return f"{middle} ({_number(min(values))} to {_number(max(values))})"


def _number(value: float) -> str:
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.2f}".rstrip("0").rstrip(".") if value % 1 else f"{value:.0f}"


def _of(lines: Sequence[Figures], *path: str) -> str:
    values = []
    for line in lines:
        value: Any = line
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        if value is not None:
            values.append(value)
    return _range(values)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(row)} |" for row in lines]


def _bursts(measured: dict[str, list[Figures]]) -> str:
    head = ["", "calls/s", "bare client", "share of it", "lag p50 ms", "p99 ms", "CPU µs ours",
            "Postgres", "planning ours", "Postgres", "memory MB"]  # fmt: skip
    rows = []
    for scenario in ("burst", "burst_stored"):
        if lines := measured.get(scenario, []):
            paths = (
                ("per_s",),
                ("bare", "per_s"),
                ("of_bare",),
                ("lag_ms", "p50"),
                ("lag_ms", "p99"),
                ("cpu_us", "ours"),
                ("cpu_us", "postgres"),
                ("planning_cpu_us", "ours"),
                ("planning_cpu_us", "postgres"),
                ("rss_mb",),
            )
            rows.append([NAMES[scenario], *(_of(lines, *path) for path in paths)])
    bare = _of(measured.get("burst", []), "bare", "cpu_us")
    note = f"\nThe bare client uses {bare} µs of CPU a call.\n"
    return "\n".join(["## Bursts\n", *_table(head, rows)]) + note if rows else ""


def _lags(measured: dict[str, list[Figures]]) -> str:
    head = ["", "p50 ms", "p95", "p99", "max", "bare p50", "bare p99", "CPU µs a run ours",
            "Postgres"]  # fmt: skip
    rows = []
    for scenario in ("steady_100", "steady_300", "interval_100", "interval_300", "immediate"):
        if lines := measured.get(scenario, []):
            shares = [_of(lines, "lag_ms", share) for share in ("p50", "p95", "p99", "max")]
            beside = [_of(lines, "bare", "lag_ms", share) for share in ("p50", "p99")]
            cpu = [_of(lines, "cpu_us", who) for who in ("ours", "postgres")]
            rows.append([NAMES[scenario], *shares, *beside, *cpu])
    return "\n".join(["## Lag\n", *_table(head, rows)]) + "\n" if rows else ""


SHOWN = ("tasks", "tasks_pending", "tasks_tag_often", "tasks_words_rare", "tasks_words_often",
         "tasks_several", "runs", "runs_of_a_task", "runs_failed", "runs_reason", "runs_words",
         "executions", "executions_of_the_big_one")  # fmt: skip
REST = {
    "lists": tuple(
        (f"{name.replace('_', ' ')}, {share}, ms", (name, share))
        for name in SHOWN
        for share in ("p50", "max")
    ),
    "pages": tuple(
        (f"{name.replace('_', ' ')}, {words}", place)
        for name in PAGES
        for words, place in (
            ("first byte, p50, ms", ("page", name, "first_byte", "p50")),
            ("whole answer, p50, ms", ("page", name, "whole", "p50")),
            ("statements", ("page", name, "statements")),
            ("first paint, p50, ms", ("painted", name, "p50")),
        )
    ),
    "immediate": (
        ("the API's answer, p50 ms", ("call_ms", "p50")),
        ("from the call to the arrival, p50 ms", ("from_call_ms", "p50")),
        ("from the call to the arrival, p99 ms", ("from_call_ms", "p99")),
    ),
    "idle_stored": (
        ("our CPU, s a minute", ("cpu_s_per_minute", "ours")),
        ("Postgres CPU, s a minute", ("cpu_s_per_minute", "postgres")),
        ("lag p50, ms", ("lag_ms", "p50")),
        ("lag p99, ms", ("lag_ms", "p99")),
        ("our memory, MB", ("rss_mb",)),
        ("Postgres memory, MB, shared pages once", ("postgres_mb",)),
    ),
    "memory": (
        ("idle, MB", ("idle_mb",)),
        ("runs held", ("held",)),
        ("with them, MB", ("held_mb",)),
        ("afterwards, MB", ("after_mb",)),
        ("Postgres idle, MB, shared pages once", ("idle_postgres_mb",)),
    ),
    "create": (
        ("one a request, tasks per second", ("per_s",)),
        ("our CPU a task, µs", ("cpu_us", "ours")),
        ("Postgres CPU a task, µs", ("cpu_us", "postgres")),
        ("answer p50, 16 at a time, ms", ("answer_ms", "p50")),
        ("in bulk, tasks per second", ("bulk", "per_s")),
    ),
    "watched": (
        ("calls per second, of those with no page open", ("of_plain", "per_s")),
        ("lag p50, of that with no page open", ("of_plain", "lag_p50")),
        ("lag p99, of that with no page open", ("of_plain", "lag_p99")),
        ("our CPU a run, of that with no page open", ("of_plain", "cpu")),
        ("Postgres CPU a run, of that with no page open", ("of_plain", "postgres")),
    ),
    "streams": (
        ("memory of a stream, kB", ("kb_each",)),
        ("our CPU with none, s a minute", ("cpu_s_per_minute", "none", "ours")),
        ("our CPU, nothing happening, s a minute", ("cpu_s_per_minute", "open", "ours")),
        ("Postgres CPU, nothing happening, s a minute", ("cpu_s_per_minute", "open", "postgres")),
        ("from the end of a run to the last of 100 pages, p50 ms", ("end_to_last_ms", "p50")),
        ("from SIGTERM to the end, s", ("stopped_s",)),
    ),
    "rrules": tuple(
        (f"{name}, DTSTART {age.replace('_', ' ')} ago, CPU µs a task and tick", (kind, age))
        for kind, name in (
            ("secondly", "SECONDLY, 30 instants"),
            ("minutely", "MINUTELY"),
            ("daily", "10,000 daily"),
        )
        for age in ("1_day", "1_year", "10_years", "50_years")
    ),
    "processes": (
        ("distinct ones a second", ("per_s",)),
        ("plain tasks a second, before", ("plain", "per_s")),
        ("our CPU, µs", ("cpu_us", "ours")),
        ("of it the child that checks", ("cpu_us", "of_it_the_child")),
        ("our CPU of a plain task, µs", ("plain", "cpu_us", "ours")),
        ("Postgres CPU, µs", ("cpu_us", "postgres")),
        ("equal ones a second", ("equal", "per_s")),
        ("our CPU of an equal one, µs", ("equal", "cpu_us", "ours")),
        ("created through the API, a second", ("created_per_s",)),
        ("1,000 operations until SUCCESS, s", ("large", "s")),
        ("the API meanwhile, p99 ms", ("large", "api_ms", "p99")),
    ),
    "start": (
        ("first, the database made, s", ("first_s",)),
        ("second, s", ("second_s",)),
    ),
}


def _rest(measured: dict[str, list[Figures]]) -> str:
    rows = []
    for scenario, figures in REST.items():
        if lines := measured.get(scenario, []):
            rows.append([f"**{NAMES[scenario]}**", ""])
            rows += [[name, _of(lines, *path)] for name, path in figures]
    return "\n".join(["## The rest\n", *_table(["what", "found"], rows)]) + "\n" if rows else ""


def _failures(failed: Sequence[Figures]) -> str:
    return "\n".join(f"{line['scenario']} failed: {line['error']}\n" for line in failed)
