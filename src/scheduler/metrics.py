"""What `/metrics` shows; no label names a service."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

REGISTRY = CollectorRegistry()

LAG_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30, 300)
TIME_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5)


def _histogram(name: str, text: str, buckets: tuple[float, ...] = TIME_BUCKETS) -> Histogram:
    return Histogram(f"scheduler_{name}", text, buckets=buckets, registry=REGISTRY)


def _gauge(name: str, text: str, labels: tuple[str, ...] = ()) -> Gauge:
    return Gauge(f"scheduler_{name}", text, labels, registry=REGISTRY)


def _counter(name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
    return Counter(f"scheduler_{name}", text, labels, registry=REGISTRY)


RUNS = _counter("runs", "Runs ended, by outcome.", ("outcome",))
ATTEMPTS = _counter("attempts", "Attempts made, by outcome.", ("outcome",))
LAG = _histogram("firing_lag_seconds", "From a run's due instant to its start.", LAG_BUCKETS)
QUEUE_DEPTH = _gauge("queue_depth", "Live runs that are due, claimed or not, up to 10,000.")
HELD = _gauge("held_runs", "Runs claimed by this replica and not started.")
IN_FLIGHT = _gauge("in_flight_runs", "Calls under way on this replica.")
UNSETTLED = _gauge("unsettled_outcomes", "Outcomes not yet written.")
PLAN = _histogram("plan_seconds", "One planning pass that made runs.")
CLAIM = _histogram("claim_seconds", "One claim that brought runs.")
SETTLE = _histogram("settle_seconds", "One group of outcomes written.")
LOOP_LAG = _histogram("loop_lag_seconds", "How late the event loop woke a timer.")
POOL = _gauge("pool_connections_in_use", "Database connections in use.", ("pool",))
HISTORY_BYTES = _gauge("history_bytes", "What history takes, indexes included; looked at hourly.")
REPLICAS = _gauge("replicas", "Replicas that beat, this one included.")
CLOCK_ERROR = _gauge("clock_error_seconds", "How far off the estimate of database time may be.")
LOST_FENCE = _counter("outcomes_too_late", "Outcomes of runs that were freed meanwhile.")
SET_ASIDE = _counter("tasks_set_aside", "Times a damaged task was passed over for an hour.")
ERRORS = _counter("engine_errors", "Errors in the engine's loops.", ("part",))
OUTBOUND = _gauge("outbound_connections", "Open connections to targets.")
LOG_LINES = _counter("log_lines_stored", "Log lines written into the database.")
LOG_DROPPED = _counter("log_lines_dropped", "Log lines that the store did not take.")
