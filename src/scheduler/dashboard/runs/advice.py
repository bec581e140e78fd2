"""Why a run ended as it did, in words, and what to do about it. Pure."""

import re

from scheduler.actions.http import TRY_AGAIN
from scheduler.runs.model import ShownAttempt, ShownRun
from scheduler.tasks.reasons import SKIPPED

SKIPS = {
    "overlap": "Let runs overlap, or have them wait in line: the task's overlap is allow or queue.",
    "misfire": "Nothing could run it in time. With misfire latest or all it is made up for; a "
    "backfill does so now.",
    "paused": "Resume the task; a backfill makes up for what passed.",
    "calendar": "The task keeps clear of this time. Take the calendar off it, or change it.",
}
STATUSES = {
    400: "The target does not accept what was sent: compare the request with what it expects.",
    401: "The target wants other credentials: look at the header that carries them.",
    403: "The target knows the credentials, and does not allow this.",
    404: "There is nothing at this address: look at the URL.",
    405: "The target has this address, but not with this method.",
    413: "What was sent is larger than the target takes.",
    429: "The target is called too often: run the task less often, or set max_concurrency.",
}
WORDS = (
    (r"^egress: ", "The rules of egress refuse this address: see egress.allow and egress.deny."),
    (r"certificate of ", "The target's certificate does not hold: renew it, or correct the name."),
    (r"^the name .* was not found", "Nobody knows this host name from here: look at the URL."),
    (
        r"^no connection to |closed the connection before",
        ("Nothing accepts connections there: see that the target runs, and that it can be reached "
        "from here."),
    ),
    (
        r"did not answer in full|no time was left|did not end within",
        ("It took longer than the task's timeout: make the target faster, or raise "
        "timeout_seconds."),
    ),
    (r"exit code ", ("What the command wrote says why; where other codes are fine, name them in "
     "expected_status.")),
    (r"commands\.", "Raise that setting, or have the command take less."),
    (r"may have arrived", "Nobody knows whether the target acted on it: see there, then replay."),
    (r"could not start within", "The machine was busy or down: raise max_age_seconds, or replay."),
    (r"is required and must be specified", "Send this value: the document asks for it."),
    (r"is not available", "Register the spec under this name, or mend it: see APIs."),
)  # fmt: skip


def advice(run: ShownRun) -> str:
    """Return what can be done about the end of a run; nothing where all is well."""
    if run.state == "skipped":
        return SKIPS.get(run.reason or "", "")
    if run.state not in ("failed", "expired", "cancelled") or not run.reason:
        return ""
    last = run.attempts[-1] if run.attempts else None
    code = last.status_code if last else None
    by_code = ""
    if code is not None and not _is_command(run):
        by_code = STATUSES.get(code, "")
        if not by_code and code >= 500:
            by_code = "The target failed by itself: its own log says why. Replay when it is mended."
        if not by_code and 300 <= code < 400:
            by_code = "The target leads elsewhere: call that address, or set follow_redirects."
    found = next((said for word, said in WORDS if re.search(word, run.reason)), "")
    return by_code or found


def told(run: ShownRun) -> str:
    """Return a run's reason as a sentence, where it is but a word."""
    if run.state == "skipped" and run.reason in SKIPPED:
        return f"Skipped: {SKIPPED[run.reason]}."
    if run.state == "skipped" and run.reason == "misfire":
        return "Skipped: nothing could run it in time, and the task's misfire rule passes it over."
    return run.reason or ""


def again(run: ShownRun, each: ShownAttempt) -> str:
    """Return why an attempt was followed by another, or was the last."""
    if each.outcome == "succeeded":
        return ""
    if each.outcome == "cancelled":
        return "Someone cancelled the run."
    last = each is run.attempts[-1]
    if not last or run.state in ("retrying", "running"):
        return _why(run, each)
    if run.state != "failed":
        return ""
    if each.outcome == "unknown":
        return "Not tried again: the target may have acted on it."
    code = each.status_code
    final = code is not None and code < 500 and code not in TRY_AGAIN and not _is_command(run)
    if final:
        return (
            f"Not tried again: {code} will not change by itself. 408, 425, 429, 5xx and broken "
            "connections are tried again."
        )
    if len(run.attempts) > 1:
        return "Not tried again: all tries are used up."
    return "Not tried again: the first try was the only one."


def _why(run: ShownRun, each: ShownAttempt) -> str:
    if each.outcome == "unknown":
        return "Tried again: it was cut short, and nobody knows what came of it."
    if each.status_code is None:
        return "Tried again: there was no answer."
    if _is_command(run):
        return f"Tried again: exit code {each.status_code}."
    return f"Tried again: {each.status_code} may be gone the next time."


def _is_command(run: ShownRun) -> bool:
    return bool(run.request and run.request.command)
