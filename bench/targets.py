"""What the design promises of each figure, and whether a run kept it."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

Figures = dict[str, Any]


class Target(NamedTuple):
    """One promise; `limit` may depend on the bare client's figure in the same run."""

    what: str
    must: str
    got: Callable[[Figures], float | None]
    limit: Callable[[Figures], float]
    at_least: bool = False
    later: bool = False
    """Not due from the start."""


def _at(*path: str) -> Callable[[Figures], float | None]:
    def read(figures: Figures) -> float | None:
        value: Any = figures
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        return value

    return read


def _just(limit: float) -> Callable[[Figures], float]:
    return lambda _: limit


def _beside_bare(share: str, times: float, more_ms: float) -> Callable[[Figures], float]:
    return lambda figures: round(figures["bare"]["lag_ms"][share] * times + more_ms, 2)


NONE_LOST = [
    Target("lost", "0", _at("lost"), _just(0)),
    Target("doubled", "0", _at("doubled"), _just(0)),
]
NONE_EARLY = [Target("early", "0", _at("early"), _just(0))]
BURST = [
    Target("calls per second", "5,000", _at("per_s"), _just(5000), at_least=True),
    Target("our CPU per run, µs", "150", _at("cpu_us", "ours"), _just(150)),
    Target("our CPU per run, µs", "25 (later)", _at("cpu_us", "ours"), _just(25), later=True),
    Target("Postgres CPU per run, µs", "18", _at("cpu_us", "postgres"), _just(18)),
    Target("planning, our CPU per run, µs", "10", _at("planning_cpu_us", "ours"), _just(10)),
    Target(
        "planning, Postgres CPU per run, µs", "10", _at("planning_cpu_us", "postgres"), _just(10)
    ),
    Target("not in history", "0", _at("unsettled"), _just(0)),
    *NONE_LOST,
    *NONE_EARLY,
]
STEADY = [
    Target("lag p50, ms", "bare + 2", _at("lag_ms", "p50"), _beside_bare("p50", 1, 2)),
    Target("lag p99, ms", "2.5 x bare + 5", _at("lag_ms", "p99"), _beside_bare("p99", 2.5, 5)),
    *NONE_LOST,
    *NONE_EARLY,
]
TARGETS: dict[str, list[Target]] = {
    "burst": BURST,
    "burst_stored": [
        Target(
            "Postgres CPU per run / that of the plain burst",
            "1.3",
            _at("postgres_of_plain"),
            _just(1.3),
        ),
        *NONE_LOST,
        *NONE_EARLY,
    ],
    "steady_100": STEADY,
    "steady_300": STEADY,
    "interval_100": STEADY,
    "interval_300": STEADY,
    "immediate": [
        Target("answer to arrival p50, ms", "1.5", _at("lag_ms", "p50"), _just(1.5)),
        Target("answer to arrival p99, ms", "8", _at("lag_ms", "p99"), _just(8)),
        *NONE_LOST,
    ],
    "idle_stored": [
        Target("our CPU, s a minute", "0.5", _at("cpu_s_per_minute", "ours"), _just(0.5)),
        Target("Postgres CPU, s a minute", "0.2", _at("cpu_s_per_minute", "postgres"), _just(0.2)),
        Target("lag p50, ms", "3", _at("lag_ms", "p50"), _just(3)),
        *NONE_LOST,
        *NONE_EARLY,
    ],
    "memory": [
        Target("idle, MB", "150", _at("idle_mb"), _just(150)),
        Target("10,000 runs held, MB", "400", _at("held_mb"), _just(400)),
        *NONE_LOST,
    ],
    "downtime": [
        Target("instants without an end", "0", _at("uncounted"), _just(0)),
        Target("rules not kept", "0", _at("out_of_rule"), _just(0)),
        Target("most runs waiting", "30,000", _at("most_waiting"), _just(30_000)),
        Target("lag p99 of a steady service, ms", "50", _at("lag_ms", "p99"), _just(50)),
        *NONE_LOST,
        *NONE_EARLY,
    ],
    "crowded": [
        Target("lag p99 of a steady service, ms", "50", _at("lag_ms", "p99"), _just(50)),
        *NONE_LOST,
        *NONE_EARLY,
    ],
    "lists": [
        Target("first page of the slowest list, p50, ms", "50", _at("slowest_p50"), _just(50))
    ],
    "pages": [
        Target("slowest page, whole answer, p50, ms", "150", _at("slowest_p50"), _just(150)),
        Target("slowest first paint, p50, ms", "300", _at("slowest_paint_p50"), _just(300)),
        Target("statements of a page, at most", "5", _at("most_statements"), _just(5)),
    ],
    "watched": [
        Target(
            "calls per second / with no page open",
            "0.85",
            _at("of_plain", "per_s"),
            _just(0.85),
            at_least=True,
        ),
        Target("lag p99 / with no page open", "1.2", _at("of_plain", "lag_p99"), _just(1.2)),
        *NONE_LOST,
    ],
    "streams": [
        Target("memory of a stream, kB", "100", _at("kb_each"), _just(100)),
        Target(
            "our CPU, nothing happening, s a minute",
            "6",
            _at("cpu_s_per_minute", "open", "ours"),
            _just(6),
        ),
        Target(
            "from the end of a run to the last page, ms",
            "2,000",
            _at("end_to_last_ms", "max"),
            _just(2000),
        ),
        Target("from SIGTERM to the end, s", "5", _at("stopped_s"), _just(5)),
        Target("pages that were not told", "0", _at("cut"), _just(0)),
    ],
    "rrules": [
        Target("the oldest DTSTART / one of yesterday, at most", "1.5", _at("flat"), _just(1.5)),
        Target(
            "10,000 daily rules, a task and tick, µs", "50", _at("daily", "50_years"), _just(50)
        ),
    ],
    "processes": [
        Target("CPU more than a plain task, µs a run", "2,000", _at("more_cpu_us"), _just(2000)),
        Target("calls of equal ones that are sent", "1", _at("upstream"), _just(1)),
        Target("large document, until SUCCESS, s", "15", _at("large", "s"), _just(15)),
        Target("the API meanwhile, p99 ms", "100", _at("large", "api_ms", "p99"), _just(100)),
        Target("not in history", "0", _at("unsettled"), _just(0)),
        Target("lost", "0", _at("lost"), _just(0)),
    ],
    "start": [Target("second start, s", "3", _at("second_s"), _just(3))],
    "create": [
        Target("bulk, tasks per second", "5,000", _at("bulk", "per_s"), _just(5000), at_least=True),
        Target(
            "bulk, tasks per second",
            "20,000 (later)",
            _at("bulk", "per_s"),
            _just(20_000),
            at_least=True,
            later=True,
        ),
        Target("bulk, the loop held, ms", "5", _at("bulk", "health_ms", "max"), _just(5)),
    ],
}


def judged(scenario: str, figures: Figures) -> Iterator[dict[str, Any]]:
    """Yield every promise of a scenario with what was found."""
    for target in TARGETS[scenario]:
        got = target.got(figures)
        limit = target.limit(figures) if got is not None else None
        met = None
        if got is not None and limit is not None:
            met = got >= limit if target.at_least else got <= limit
        yield {
            "what": target.what,
            "must": target.must,
            "limit": limit,
            "got": got,
            "met": met,
            "at_least": target.at_least,
            "later": target.later,
        }
