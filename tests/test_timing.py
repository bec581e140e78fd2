"""What a body says of triggers, bounds and pauses; and that what GET answers changes nothing."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler import config
from scheduler.db import ms, rfc3339
from scheduler.definition import Definition
from scheduler.errors import ValidationFailed
from scheduler.tasks import edit, model
from scheduler.triggers import Bounds, Cron, Interval, Once

SERVICE = UUID(int=1)
NOW = ms(datetime(2027, 3, 27, 12, 0, 0, 123_000, tzinfo=UTC))
HOUR, DAY = 3_600_000, 86_400_000
BERLIN = {"cron": "30 2 * * *", "timezone": "Europe/Berlin"}
HOURLY = {"frequency": 1, "unit": "hour"}


def at(offset: int) -> str:
    return str(rfc3339(NOW + offset))


def body(fields: dict[str, Any]) -> model.TaskFields:
    return model.read_fields(msgspec.json.encode(fields))


def made(now: int = NOW, **fields: Any) -> Definition:
    return new(now, **fields).task


def new(now: int = NOW, **fields: Any) -> edit.Edit:
    return edit.new_task(
        body({"name": "a", "url": "http://h/", **fields}), SERVICE, now, config.Tasks()
    )


def changed(of: Definition, now: int = NOW, **fields: Any) -> Definition:
    return edit.edited(body(fields), of, now, config.Tasks()).task


def refused(of: Definition | None = None, **fields: Any) -> dict[str, str]:
    with pytest.raises(ValidationFailed) as caught:
        changed(of, **fields) if of else made(**fields)
    return {detail.field: detail.message for detail in caught.value.details}


# What GET answers may be sent back ---------------------------------------------------------------

AROUND = st.integers(-3 * DAY, 3 * DAY).map(at)
TRIGGERS = st.one_of(
    st.just({}),
    st.fixed_dictionaries({"scheduled_at": AROUND}),
    st.fixed_dictionaries(
        {"frequency": st.integers(1, 100), "unit": st.sampled_from(["second", "minute", "day"])},
        optional={"scheduled_at": AROUND, "jitter_seconds": st.floats(0, 3600)},
    ),
    st.fixed_dictionaries(
        {"cron": st.sampled_from(["* * * * *", "30 2 * * *", "@monthly", " */5 * * * * * "])},
        optional={
            "timezone": st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kathmandu"]),
            "jitter_seconds": st.floats(0, 3600),
        },
    ),
)
BOUNDS = st.fixed_dictionaries(
    {},
    optional={
        "start_at": st.integers(-3 * DAY, 0).map(at),
        "end_at": st.integers(0, 3 * DAY).map(at),
        "max_runs": st.integers(1, 20),
        "max_concurrency": st.integers(1, 1000),
        "priority": st.integers(-100, 100),
    },
)
STANCES = st.one_of(
    st.just({}),
    st.sampled_from(["active", "paused", "disabled"]).map(lambda word: {"status": word}),
    st.integers(1, 3 * DAY).map(lambda offset: {"paused_until": at(offset)}),
)


@settings(max_examples=500, deadline=None)
@given(
    TRIGGERS, BOUNDS, STANCES, st.integers(0, 4 * DAY), st.integers(0, DAY),
    st.one_of(st.none(), st.tuples(st.integers(0, 25), st.integers(NOW, NOW + DAY))),
)  # fmt: skip
def test_what_get_answers_may_be_sent_back_whole_and_changes_nothing(
    trigger, bounds, stance, read_after, sent_after, spent
):
    before = made(**trigger, **bounds, **stance)
    read, sent = NOW + read_after, NOW + read_after + sent_after
    answer = msgspec.json.encode(model.shown(before, "pending", read, spent))

    result = edit.edited(model.read_fields(answer), before, sent, config.Tasks(), spent)

    after = result.task
    assert not result.at_once
    assert (after.trigger, after.bounds) == (before.trigger, before.bounds)
    assert after.status == model.standing(before, sent)
    stands = before.paused_until is not None and before.paused_until > sent
    assert after.paused_until == (before.paused_until if stands else None)
    shown = [
        msgspec.structs.replace(model.shown(of, "pending", sent, spent), updated_at=None)
        for of in (before, after)
    ]
    assert shown[0] == shown[1]


# Triggers ----------------------------------------------------------------------------------------


def test_a_cron_is_read_in_its_zone_and_utc_is_the_default():
    assert made(**BERLIN).trigger == Cron("30 2 * * *", "Europe/Berlin")
    assert made(cron="30 2 * * *").trigger == Cron("30 2 * * *", "UTC")
    assert made(cron="30 2 * * *", timezone=None).trigger == Cron("30 2 * * *", "UTC")


@pytest.mark.parametrize(
    ("stored", "sent", "trigger"),
    [
        (HOURLY, BERLIN, Cron("30 2 * * *", "Europe/Berlin")),
        (BERLIN, HOURLY, Interval(1, "hour", NOW + HOUR)),
        (BERLIN, {"cron": "0 1 * * *"}, Cron("0 1 * * *", "Europe/Berlin")),
        (BERLIN, {"timezone": "Asia/Kathmandu"}, Cron("30 2 * * *", "Asia/Kathmandu")),
        (BERLIN, {"timezone": None}, Cron("30 2 * * *", "UTC")),
        (BERLIN, {"cron": None}, None),
        (BERLIN, {"cron": ""}, None),
        (BERLIN, {"name": "b"}, Cron("30 2 * * *", "Europe/Berlin")),
        (BERLIN, {"scheduled_at": None}, Cron("30 2 * * *", "Europe/Berlin")),
        (BERLIN, {"scheduled_at": at(DAY)}, Once(NOW + DAY)),
        (BERLIN, {"cron": None, "scheduled_at": at(DAY)}, Once(NOW + DAY)),
        ({"scheduled_at": at(DAY)}, BERLIN, Cron("30 2 * * *", "Europe/Berlin")),
        ({"scheduled_at": at(DAY)}, {"scheduled_at": None}, None),
        ({"scheduled_at": at(DAY), "status": "disabled"}, {"scheduled_at": None}, None),
        ({**HOURLY, "scheduled_at": at(5)}, {"frequency": None}, None),
    ],
)
def test_a_trigger_field_replaces_the_trigger_and_null_removes(stored, sent, trigger):
    if sent.get("frequency", 1) is None:
        sent = {**sent, "unit": None}
    assert changed(made(**stored), **sent).trigger == trigger


def test_two_triggers_in_one_body_are_refused():
    assert "two triggers" in refused(**HOURLY, **BERLIN)["cron"]
    assert "two triggers" in refused(made(**BERLIN), **HOURLY, **BERLIN)["cron"]
    assert "second trigger" in refused(**BERLIN, scheduled_at=at(DAY))["scheduled_at"]
    assert "second trigger" in refused(made(), **BERLIN, scheduled_at=at(DAY))["scheduled_at"]
    assert "unit" in refused(cron="* * * * *", unit="hour")
    assert "frequency" in refused(made(**BERLIN), unit="hour")


def test_the_next_instant_of_a_cron_may_stand_beside_it():
    task = made(**BERLIN)
    due = rfc3339(model.next_due(task, NOW))
    assert made(**BERLIN, scheduled_at=due).trigger == task.trigger
    moved = changed(task, cron="0 1 * * *", scheduled_at=due)
    assert moved.trigger == Cron("0 1 * * *", "Europe/Berlin")


def test_a_time_zone_goes_with_cron_alone():
    for fields in ({}, HOURLY, {"scheduled_at": at(DAY)}):
        assert "goes with cron" in refused(**fields, timezone="Europe/Berlin")["timezone"]
        assert made(**fields, timezone="UTC").trigger == made(**fields).trigger
    assert "goes with cron" in refused(made(**BERLIN), **HOURLY, timezone="Asia/Tokyo")["timezone"]
    assert "Europe/Berlin" in refused(cron="* * * * *", timezone="berlin")["timezone"]


def test_all_that_is_wrong_is_said_at_once():
    wrong = refused(cron="* *", timezone="Mars/X", start_at=at(5), end_at=at(0), max_runs=0,
                    jitter_seconds=-1, max_concurrency=1001, priority=101, paused_until="x")  # fmt: skip
    assert set(wrong) == {
        "cron", "timezone", "end_at", "max_runs", "jitter_seconds", "max_concurrency", "priority",
        "paused_until",
    }  # fmt: skip


# Bounds ------------------------------------------------------------------------------------------


def test_an_interval_begins_at_a_start_that_is_to_come():
    task = made(**HOURLY, start_at=at(DAY + 7))
    assert model.next_due(task, NOW) == NOW + DAY + 7
    assert model.next_due(made(**HOURLY, start_at=at(-DAY)), NOW) == NOW + HOUR
    assert model.next_due(changed(made(start_at=at(DAY)), **HOURLY), NOW) == NOW + DAY
    both = made(**HOURLY, start_at=at(DAY), scheduled_at=at(60_000))
    assert model.next_due(both, NOW) == NOW + DAY + 60_000


def test_a_later_start_does_not_move_the_grid():
    task = changed(made(**HOURLY), start_at=at(DAY + 60_000))
    assert model.next_due(task, NOW) == NOW + DAY + HOUR


def test_both_ends_are_included():
    task = made(**HOURLY, start_at=at(HOUR), end_at=at(2 * HOUR))
    assert model.next_due(task, NOW) == NOW + HOUR
    assert model.next_due(task, NOW + HOUR) == NOW + 2 * HOUR
    assert model.next_due(task, NOW + 2 * HOUR) is None
    assert made(**HOURLY, start_at=at(HOUR), end_at=at(HOUR)).bounds.end_at == NOW + HOUR


def test_an_end_before_the_start_is_refused_whichever_is_sent():
    assert "end_at" in refused(start_at=at(2), end_at=at(1))
    assert "start_at" in refused(made(end_at=at(1)), start_at=at(2))
    assert "end_at" in refused(made(start_at=at(2)), end_at=at(1))


def test_an_end_in_the_past_is_taken_and_nothing_is_due():
    ended = new(**HOURLY, scheduled_at=at(-5), end_at=at(-1))
    assert model.next_due(ended.task, NOW) is None
    assert not ended.at_once
    assert not new(scheduled_at=at(-5), start_at=at(HOUR)).at_once
    assert new(scheduled_at=at(-5), start_at=at(-HOUR)).at_once


def test_null_removes_a_bound():
    task = made(**HOURLY, start_at=at(0), end_at=at(DAY), max_runs=3, jitter_seconds=1.5)
    assert task.bounds == Bounds(NOW, NOW + DAY, 3, 1500)
    fields = dict.fromkeys(("start_at", "end_at", "max_runs", "jitter_seconds"))
    assert changed(task, **fields).bounds == Bounds()


def test_jitter_goes_with_what_recurs():
    assert "recurs" in refused(scheduled_at=at(DAY), jitter_seconds=1)["jitter_seconds"]
    assert made(scheduled_at=at(DAY), jitter_seconds=0).bounds == Bounds()
    task = changed(
        made(**HOURLY, jitter_seconds=9), frequency=None, unit=None, scheduled_at=at(DAY)
    )
    assert (task.trigger, task.bounds) == (Once(NOW + DAY), Bounds())


def test_of_a_task_with_max_runs_what_is_planned_is_still_due():
    task = made(**HOURLY, max_runs=2)
    assert model.next_due(task, NOW, (1, NOW)) == NOW + HOUR
    assert model.next_due(task, NOW, (2, NOW + HOUR)) == NOW + HOUR
    assert model.next_due(task, NOW, (2, NOW + HOUR - 1)) is None
    assert model.next_due(task, NOW + HOUR, (2, NOW + HOUR)) is None


# Pauses ------------------------------------------------------------------------------------------

LATER = at(DAY)


@pytest.mark.parametrize(
    ("stored", "sent", "status", "until"),
    [
        ({}, {"paused_until": LATER}, "paused", LATER),
        ({}, {"paused_until": LATER, "status": "paused"}, "paused", LATER),
        ({"status": "paused"}, {"paused_until": LATER}, "paused", LATER),
        ({"status": "disabled"}, {"paused_until": LATER}, "paused", LATER),
        ({"paused_until": LATER}, {"status": "active"}, "active", None),
        ({"paused_until": LATER}, {"status": "disabled"}, "disabled", None),
        ({"paused_until": LATER}, {"status": "paused"}, "paused", LATER),
        ({"paused_until": LATER}, {"paused_until": None}, "paused", None),
        ({"paused_until": LATER}, {"paused_until": None, "status": "active"}, "active", None),
        ({"paused_until": LATER}, {"name": "b"}, "paused", LATER),
        ({"status": "paused"}, {"paused_until": at(0)}, "active", None),
        ({}, {"paused_until": at(-1), "status": "paused"}, "active", None),
        ({"status": "disabled"}, {"paused_until": at(-1)}, "disabled", None),
    ],
)
def test_a_pause_has_an_end_or_none(stored, sent, status, until):
    task = changed(made(**stored), **sent)
    assert (task.status, rfc3339(task.paused_until)) == (status, until)


@pytest.mark.parametrize("status", ["active", "disabled", "pending", None])
def test_an_end_of_a_pause_needs_a_pause(status):
    assert "paused" in refused(status=status, paused_until=LATER)["paused_until"]


def test_a_pause_that_is_over_is_answered_as_active():
    task = made(**HOURLY, paused_until=at(DAY))
    for after, status, until in ((DAY - 1, "paused", LATER), (DAY, "active", None)):
        shown = model.shown(task, "pending", NOW + after)
        assert (shown.status, shown.paused_until) == (status, until)
    assert changed(task, NOW + DAY, status="paused").paused_until is None
    assert changed(task, NOW + DAY, paused_until=None).status == "active"


def test_a_paused_task_answers_the_instant_that_it_resumes_with():
    task = made(**HOURLY, paused_until=at(DAY))
    assert model.next_due(task, NOW) == NOW + DAY
    later = made(**HOURLY, paused_until=at(DAY + 1))
    assert model.next_due(later, NOW) == NOW + DAY + HOUR


# What is answered --------------------------------------------------------------------------------


def test_every_field_is_answered_and_null_where_unset():
    shown = model.shown(made(), "created", NOW)
    names = ("cron", "timezone", "start_at", "end_at", "max_runs", "jitter_seconds",
             "paused_until", "max_concurrency")  # fmt: skip
    assert [getattr(shown, name) for name in names] == [None] * 8
    assert shown.priority == 0
    sent = {**BERLIN, "start_at": at(1), "end_at": at(DAY * 9), "max_runs": 3,
            "jitter_seconds": 2.5, "max_concurrency": 4, "priority": -7, "paused_until": LATER}  # fmt: skip
    answer = msgspec.json.decode(msgspec.json.encode(model.shown(made(**sent), "pending", NOW)))
    assert answer.items() >= {**sent, "status": "paused"}.items()
    wanted = datetime(2027, 3, 29, 0, 30, tzinfo=UTC)  # after the pause, and late by the jitter
    due = datetime.fromisoformat(answer["scheduled_at"])
    assert wanted <= due <= wanted + timedelta(seconds=2.5)


@pytest.mark.parametrize(
    ("field", "good", "bad"),
    [("max_concurrency", (1, 1000), (0, 1001)), ("priority", (-100, 100), (-101, 101)),
     ("max_runs", (1, 10**9), (0, 10**9 + 1)), ("jitter_seconds", (0, 86_400), (-0.1, 86_401))],
)  # fmt: skip
def test_numbers_have_their_limits(field, good, bad):
    for value in good:
        made(**{field: value})
    for value in bad:
        assert field in refused(**{field: value})
