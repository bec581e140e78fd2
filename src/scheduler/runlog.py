"""One line for each run that failed for good; for debugging, one for each that ended."""

from typing import Any

import structlog

from scheduler import logs
from scheduler.run import End

log = structlog.get_logger()


def tell(end: End) -> None:
    """Log how a run ended, if anybody wants to know: a success costs next to nothing."""
    if end.state == "failed":
        log.warning("run failed", error=end.reason, **_fields(end))
    elif logs.debugging():
        log.debug("run ended", state=end.state, **_fields(end))


def _fields(end: End) -> dict[str, Any]:
    run = end.run
    other: dict[str, Any] = {
        "run_id": str(run.id),
        "task_id" if run.of_task else "trace_id": run.task_id,
        "service_id": str(run.service_id),
        "kind": run.kind,
        "attempts": len(run.attempts),
    }
    fields: dict[str, Any] = {"X-TRACE-ID": trace_id(end), "service": logs.WORKER}
    if end.started_at is not None:
        fields["time_start"] = logs.timestamp(end.started_at / 1000)
        fields["latency"] = logs.latency((end.finished_at - end.started_at) / 1000)
    fields["time_end"] = logs.timestamp(end.finished_at / 1000)
    status = run.attempts[-1].status_code if run.attempts else None
    if status is not None:
        fields["status"] = status
    return {**fields, "other_data": other}


def trace_id(end: End) -> str:
    """Return what all lines of a run share: that of its process or its spec, or its id's hash."""
    run = end.run
    return run.id.hex[-16:] if run.of_task or run.task_id is None else run.task_id
