"""The runner: what becomes of a run, by what its target said, its policy, and what came before."""

import asyncio
import email.utils
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from receiver import Receiver
from scheduler import actions, codec, config, task
from scheduler.actions.http import Http, HttpPerformer, retry_after_s
from scheduler.clock import Clock
from scheduler.db import Database
from scheduler.definition import Backoff, Definition
from scheduler.egress import Rules
from scheduler.outbound import Outbound, Response
from scheduler.planning import new_run
from scheduler.run import Attempt, End, Retry, Run
from scheduler.runner import EXCERPT_BYTES, UNKNOWN_MOST, Runner
from scheduler.settler import Outcome
from scheduler.triggers import Interval
from test_queue import ME, MINUTE, definition, now_ms

NOW = 1_800_000_000_000


class Says:
    """A performer that says what it is told, and takes its time on the clock of the test."""

    def __init__(self, *outcomes: actions.Outcome | BaseException, takes_ms: int = 0) -> None:
        self.outcomes = list(outcomes)
        self.calls: list[actions.Call] = []
        self.takes_ms = takes_ms
        self.now = NOW / 1000

    def prepare(self, action: Http, _expected: actions.Expected) -> object:
        if action.url == "bad":
            raise ValueError("the URL is bad")
        return action

    async def perform(self, _prepared: object, call: actions.Call) -> actions.Outcome:
        self.calls.append(call)
        call.may_send()
        self.now += self.takes_ms / 1000
        said = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if isinstance(said, BaseException):
            raise said
        return said


OK = actions.Outcome(succeeded=True, status_code=200, body=b"ok")
AGAIN = actions.Outcome(succeeded=False, status_code=503, error="503", retryable=True)
FINAL = actions.Outcome(succeeded=False, status_code=404, error="404")
UNKNOWN = actions.Outcome(succeeded=False, unknown=True, error="cut")


def runner_of(says: Says, **worker: int) -> Runner:
    clock, settings = Clock(lambda: says.now), config.Worker(**worker)
    return Runner({Http: says}, clock, settings, config.Runs(), lambda _holder: True)


def run_of(of: Definition, at: int = NOW, **changes) -> Run:
    new = new_run(of, at)
    known = {name: getattr(new, name) for name in ("id", "bucket", "service_id", "task_key",
                                                   "task_id", "kind", "version", "overlap")}  # fmt: skip
    given = {"scheduled_for": at, "due": at, "max_retries": None, "attempts": [], "priority": 0}
    return Run(**{**known, **given, "claimed_by": ME, **changes})


async def perform(says: Says, of: Definition, run: Run | None = None, **worker: int) -> Outcome:
    runner, run = runner_of(says, **worker), run or run_of(of)
    runner.equip(run, of)
    return await runner.perform(run)


def failed(n: int, outcome: str = "failed") -> list[Attempt]:
    return [Attempt(i + 1, outcome, NOW - 100 + i, NOW - 99 + i) for i in range(n)]


# What the target said ----------------------------------------------------------------------------


@pytest.fixture
async def outbound() -> AsyncIterator[Outbound]:
    async with Outbound(config.Http(), Rules(config.Egress())) as made:
        yield made


@pytest.fixture
def call(outbound: Outbound, receiver: Receiver) -> Callable[..., object]:
    """Perform a run of a task that calls the receiver, through the real performer."""

    async def perform_one(**policy) -> Outcome:
        clock = Clock(time.time)
        performers = {Http: HttpPerformer(outbound)}
        runner = Runner(performers, clock, config.Worker(), config.Runs(), lambda _holder: True)
        of = definition(url=receiver.url + "/", **policy)
        run = run_of(of, clock.now_ms())
        runner.equip(run, of)
        return await runner.perform(run)

    return perform_one


@pytest.mark.parametrize(
    ("status", "state"),
    [(s, "succeeded") for s in (200, 201, 204, 299)]
    + [(s, "failed") for s in (300, 301, 304, 400, 401, 403, 404, 409, 410, 422, 499)]
    + [(s, "retried") for s in (408, 425, 429, 500, 501, 502, 503, 504, 599)],
)
async def test_a_status_is_a_success_a_failure_or_worth_another_try(call, receiver, status, state):
    receiver.then(status, b"" if status in (204, 304) else b"said")
    to = (await call()).to
    if state == "retried":
        assert isinstance(to, Retry)
    else:
        assert isinstance(to, End)
        assert to.state == state
        assert (to.reason is None) == (state == "succeeded")
    assert to.run.attempts[0].status_code == status


async def test_an_expected_status_is_a_success_and_every_other_is_none(call, receiver):
    receiver.then(404)
    assert (await call(expected_status=((400, 404),))).to.state == "succeeded"
    receiver.then(200)
    to = (await call(expected_status=((400, 404),))).to
    assert (to.state, to.run.attempts[0].status_code) == ("failed", 200)
    assert "expected 400-404" in to.reason


SOON = "in ten minutes"  # from when the test runs, not from when it was read
PAST = "ten minutes ago"


@pytest.mark.parametrize(
    ("header", "least", "most"),
    [
        ("5", 5, 5), ("0", 0, 0), ("3600", 3600, 3600), ("7200", 3600, 3600),
        ("9" * 400, 3600, 3600), (SOON, 595 - 120, 600), (PAST, 0, 0),
        ("Fri, 31 Dec 9998 23:59:59 GMT", 3600, 3600), ("soon", 0, 0), ("-5", 0, 0), ("1.5", 0, 0),
        ("٣", 0, 0), ("", 0, 0), ("Mon, 01 Jan 0001 00:00:00 +2359", 0, 0),
    ],
)  # fmt: skip
async def test_retry_after_is_kept_up_to_an_hour(call, receiver, header, least, most):
    if header in (SOON, PAST):
        ahead = 600 if header == SOON else -600
        header = email.utils.formatdate(time.time() + ahead, usegmt=True)
    receiver.then(503, headers={"Retry-After": header.encode().decode("latin-1")})
    before = now_ms()
    to = (await call(retry_backoff=Backoff(0, 1, 0))).to
    assert isinstance(to, Retry)
    assert least * 1000 <= to.due - before + 5 <= most * 1000 + 5000


@given(st.text())
@example("0\x1f")
def test_no_retry_after_breaks_anything(value):
    response = Response(503, CIMultiDictProxy(CIMultiDict({"Retry-After": value})), b"", False)
    wait = retry_after_s(response)
    assert wait is None or 0 <= wait <= 3600


async def test_retry_after_of_a_final_answer_is_no_reason_to_try_again(call, receiver):
    receiver.then(404, headers={"Retry-After": "5"})
    assert isinstance((await call()).to, End)


# Retries -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [0, 1, 5])
async def test_a_task_is_tried_again_as_often_as_it_says(most):
    of, says = definition(max_retries=most), Says(AGAIN)
    run = run_of(of)
    for _ in range(most):
        assert isinstance((await perform(says, of, run)).to, Retry)
    end = (await perform(says, of, run)).to
    assert isinstance(end, End)
    assert (end.state, end.reason, len(run.attempts)) == ("failed", "503", most + 1)
    assert [call.attempt for call in says.calls] == list(range(1, most + 2))
    assert [attempt.number for attempt in run.attempts] == list(range(1, most + 2))


async def test_a_task_that_names_no_number_is_tried_again_as_often_as_the_setting_says():
    of, says = definition(), Says(AGAIN)
    run = run_of(of, attempts=failed(1))
    assert isinstance((await perform(says, of, run, max_retries=2)).to, Retry)
    assert isinstance((await perform(says, of, run, max_retries=2)).to, End)


async def test_a_run_by_hand_is_tried_once_whatever_its_task_says():
    of, says = definition(max_retries=5), Says(AGAIN)
    assert isinstance((await perform(says, of, run_of(of, max_retries=0))).to, End)


async def test_what_is_final_is_not_tried_again():
    assert isinstance((await perform(Says(FINAL), definition(max_retries=5))).to, End)


async def test_an_unknown_outcome_uses_up_no_retry():
    of = definition(max_retries=1)
    run = run_of(of, attempts=failed(19, "unknown"))
    assert isinstance((await perform(Says(AGAIN), of, run)).to, Retry)
    assert isinstance((await perform(Says(AGAIN), of, run)).to, End)


async def test_an_unknown_outcome_is_tried_again_though_no_retries_are_wanted():
    of = definition(max_retries=0)
    outcome = await perform(Says(UNKNOWN), of, run_of(of, max_retries=0))
    assert isinstance(outcome.to, Retry)
    assert outcome.run.attempts[0].outcome == "unknown"


async def test_a_run_whose_outcome_stays_unknown_ends_after_twenty():
    of, waits = definition(), []
    run, says = run_of(of), Says(UNKNOWN)
    for _ in range(UNKNOWN_MOST - 1):
        to = (await perform(says, of, run)).to
        assert isinstance(to, Retry)
        waits.append((to.due - NOW) / 1000)
    assert [round(wait) for wait in waits[:9]] == [2, 4, 8, 16, 32, 64, 128, 256, 300]
    assert round(max(waits)) == 300
    end = (await perform(says, of, run)).to
    assert isinstance(end, End)
    assert (end.state, len(run.attempts)) == ("failed", 20)


BACKOFFS = st.builds(
    Backoff, st.floats(0, 86_400), st.floats(1, 100), st.floats(0, 86_400)
)  # fmt: skip


@given(BACKOFFS, st.integers(0, 10_000))
def test_no_wait_is_longer_than_its_ceiling_and_none_overflows(backoff, tries):
    ceiling = backoff.ceiling_s(tries)
    assert 0 <= ceiling <= backoff.max_seconds
    if tries < 5:
        grown = backoff.initial_seconds * backoff.factor**tries
        assert ceiling == pytest.approx(min(grown, backoff.max_seconds))
    assert backoff.ceiling_s(tries + 1) >= ceiling


async def test_waits_take_any_part_of_the_ceiling():
    of = definition(max_retries=100, retry_backoff=Backoff(1, 2, 20))
    waits = []
    for tries in range(8):
        seen = []
        for _ in range(60):
            to = (await perform(Says(AGAIN), of, run_of(of, attempts=failed(tries)))).to
            seen.append((to.due - NOW) / 1000)
        ceiling = min(2**tries, 20)
        assert 0 <= min(seen) < ceiling / 2 < max(seen) <= ceiling + 0.002
        waits.append(max(seen))
    assert waits[-1] > 10


# What is kept ------------------------------------------------------------------------------------


async def test_of_an_attempt_that_another_follows_the_beginning_is_kept():
    body = "é".encode() * 5000
    again = msgspec.structs.replace(AGAIN, body=body)
    outcome = await perform(Says(again), definition())
    kept = outcome.run.attempts[0]
    assert kept.response == body[:EXCERPT_BYTES].decode("utf-8", "replace")
    assert kept.truncated


@pytest.mark.parametrize(
    ("body", "cut", "truncated"),
    [(None, False, False), (b"", False, False), (b"x" * EXCERPT_BYTES, False, False),
     (b"x" * EXCERPT_BYTES, True, True), (b"x" * (EXCERPT_BYTES + 1), False, True)],
)  # fmt: skip
async def test_an_attempt_says_if_there_was_more_and_takes_no_room_if_not(body, cut, truncated):
    again = msgspec.structs.replace(AGAIN, body=body, truncated=cut)
    (attempt,) = (await perform(Says(again), definition())).run.attempts
    assert attempt.truncated == truncated
    assert ("truncated" in codec.encode([attempt])) == truncated


@pytest.mark.parametrize("size", [0, 65_536, 65_537, 1 << 20])
async def test_the_last_body_is_kept_up_to_the_setting_and_says_if_there_was_more(size):
    outcome = await perform(Says(msgspec.structs.replace(OK, body=b"x" * size)), definition())
    assert len(outcome.to.response) == min(size, 65_536)
    assert outcome.to.truncated == (size > 65_536)


async def test_no_body_and_an_empty_one_are_told_apart():
    outcome = await perform(Says(msgspec.structs.replace(FINAL, body=None)), definition())
    assert outcome.to.response is None
    outcome = await perform(Says(msgspec.structs.replace(OK, body=b"")), definition())
    assert outcome.to.response == b""


async def test_a_run_began_when_its_first_attempt_did():
    of = definition()
    outcome = await perform(Says(OK, takes_ms=50), of, run_of(of, attempts=failed(2)))
    assert (outcome.to.started_at, outcome.to.finished_at) == (NOW - 100, NOW + 50)
    last = outcome.run.attempts[-1]
    assert (last.number, last.started_at, last.finished_at) == (3, NOW, NOW + 50)


# Runs that do not start --------------------------------------------------------------------------


async def test_a_run_too_old_to_start_expires_and_is_not_sent():
    of, says = definition(max_age_seconds=60), Says(OK)
    to = (await perform(says, of, run_of(of, NOW - 60_001))).to
    assert (to.state, says.calls) == ("expired", [])
    assert "60 s" in to.reason
    assert (await perform(says, of, run_of(of, NOW - 60_000))).to.state == "succeeded"


async def test_a_run_that_has_started_before_does_not_expire():
    of = definition(max_age_seconds=60)
    run = run_of(of, NOW - 3_600_000, attempts=failed(1))
    assert (await perform(Says(OK), of, run)).to.state == "succeeded"


async def test_a_damaged_run_fails_with_the_reason_and_is_not_sent():
    of, says = definition(), Says(OK)
    to = (await perform(says, of, run_of(of, damaged="it is broken"))).to
    assert (to.state, to.reason, says.calls) == ("failed", "it is broken", [])


async def test_a_damaged_task_fails_with_the_reason_and_is_not_sent():
    says = Says(OK)
    of = msgspec.structs.replace(definition(), damaged="cannot be read")
    to = (await perform(says, of)).to
    assert (to.state, to.reason) == ("failed", "cannot be read")
    to = (await perform(says, definition(url="bad"))).to
    assert (to.state, to.reason) == ("failed", "the task cannot be performed: the URL is bad")
    assert says.calls == []


async def test_a_run_whose_task_is_gone_ends_cancelled():
    to = (await runner_of(Says(OK)).perform(run_of(definition()))).to
    assert (to.state, to.reason) == ("cancelled", "the task was deleted")


@pytest.mark.parametrize("error", [ValueError("x"), KeyError(), ZeroDivisionError(), OSError()])
async def test_what_breaks_inside_is_a_failed_attempt_and_no_exception(error):
    assert isinstance((await perform(Says(error), definition())).to, Retry)
    outcome = await perform(Says(error), definition(max_retries=0))
    assert outcome.to.state == "failed"
    assert "inside the scheduler" in outcome.to.reason
    assert outcome.run.attempts[0].outcome == "failed"


async def test_a_run_that_is_cut_short_is_unknown():
    outcome = await perform(Says(asyncio.CancelledError()), definition(max_retries=0))
    assert isinstance(outcome.to, Retry)
    assert outcome.run.attempts[0].outcome == "unknown"
    assert "may have arrived" in outcome.run.attempts[0].error


async def test_a_run_whose_process_may_not_send_any_more_has_no_outcome(outbound, receiver):
    performers, clock = {Http: HttpPerformer(outbound)}, Clock(time.time)
    runner = Runner(performers, clock, config.Worker(), config.Runs(), lambda holder: holder != ME)
    of = definition(url=receiver.url + "/")
    run = run_of(of, clock.now_ms())
    runner.equip(run, of)
    assert await runner.perform(run) is None
    assert (receiver.requests, run.attempts) == ([], [])


# What it kept from running -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overlap", "takes_ms", "overlapped"),
    [("skip", 2500, True), ("skip", 900, False), ("allow", 2500, False), ("queue", 2500, False)],
)
async def test_a_long_run_names_the_span_in_which_its_own_instants_are_skipped(
    overlap, takes_ms, overlapped
):
    of = definition(trigger=Interval(1, "second", NOW), overlap=overlap)
    outcome = await perform(Says(OK, takes_ms=takes_ms), of)
    assert outcome.overlapped == ((of.key, NOW, NOW + takes_ms) if overlapped else None)


@pytest.mark.parametrize(
    ("late_ms", "misfire", "since"),
    [(1500, "latest", None), (2000, "latest", None), (2500, "latest", NOW - 2500),
     (2500, "skip", NOW - 2500), (2500, "all", None)],
)  # fmt: skip
async def test_a_run_that_begins_a_little_late_skips_nothing_and_a_late_one_all_since_its_instant(
    late_ms, misfire, since
):
    of = definition(trigger=Interval(1, "second", NOW - 20_500), misfire=misfire)
    run = run_of(of, NOW - late_ms)
    outcome = await perform(Says(OK, takes_ms=200), of, run)
    assert outcome.overlapped == (since and (of.key, since, NOW + 200))


# Tasks as they stand at the claim ----------------------------------------------------------------


async def test_runs_get_their_tasks_as_new_as_they_are(database_url):
    database, says = Database(database_url, config.Database()), Says(OK)
    runner, of = runner_of(says), definition()
    async with database.engine.begin() as conn:
        await task.create(conn, of)
        first, gone = run_of(of), run_of(definition())
        await runner.prepare(conn, [first, gone])
        assert first.work.task.version == 1
        assert gone.work is None
        await task.change(conn, msgspec.structs.replace(of, version=2, name="new"))
        same, newer = run_of(of), run_of(of, version=2)
        await runner.prepare(conn, [same])
        assert same.work is first.work  # not read again
        await runner.prepare(conn, [newer])
        assert newer.work.task.name == "new"
        await task.remove(conn, of.line)
        last = run_of(of, version=3)
        await runner.prepare(conn, [last])
        assert last.work is None
    await database.close()


async def test_tasks_are_kept_ready_while_their_requests_take_little(outbound):
    clock, performers = Clock(time.time), {Http: HttpPerformer(outbound)}
    runner = Runner(performers, clock, config.Worker(), config.Runs(), lambda _holder: True)
    tracemalloc.start()
    for n in range(63):
        action = Http(url="http://h/", payload=f"{n}".rjust(2 << 20))
        of = msgspec.structs.replace(definition(), action=action)
        runner.equip(run_of(of), of)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 80 << 20


async def test_each_call_carries_its_instant_and_its_attempt_and_its_deadline():
    of, says = definition(timeout_seconds=7.0), Says(OK)
    run = run_of(of, NOW - MINUTE, attempts=failed(2))
    await perform(says, of, run)
    (made,) = says.calls
    assert (made.run_id, made.task_id, made.attempt) == (run.id, of.id, 3)
    assert made.scheduled_for == NOW - MINUTE
    assert 6 < made.deadline - asyncio.get_running_loop().time() <= 7
