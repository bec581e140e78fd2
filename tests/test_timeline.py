"""The timeline: two weeks by the hour, what comes due in them, and what is special about a day."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pytest

from browsing import accessible, shifted
from conftest import App, RunApp
from pages import signed_in, statements
from scheduler.agenda import Alike
from scheduler.dashboard.timeline import forecast, weeks
from scheduler.dashboard.timeline.ahead import Ahead, ahead
from scheduler.dashboard.timeline.minutes import HOUR
from scheduler.planning import Planned
from scheduler.triggers import Bounds, Cron, Interval, Once, Rrule
from scheduler.triggers.calendar import Rules
from scheduler.triggers.excluded import Calendar, Excluded

DAY = 24 * HOUR
NOW = int(datetime(2026, 11, 22, 6, 20, tzinfo=UTC).timestamp()) * 1000
SINCE = NOW - NOW % DAY


def alike(trigger: Any, tasks: int = 1, bounds: Bounds | None = None, **more: Any) -> Alike:
    named = [(f"{tasks}-{n}", "n") for n in range(min(tasks, 10))]
    return Alike(trigger, bounds or Bounds(), more.pop("begin", None), tasks, named, **more)


async def made(*these: Alike | Ahead, hours: int = 48) -> forecast.Forecast:
    all_of = [
        each if isinstance(each, Ahead) else Ahead(each, None, None, each.tasks) for each in these
    ]
    return await forecast.forecast(all_of, NOW, SINCE, SINCE + hours * HOUR)


async def test_each_hour_says_how_much_comes_due_in_what_is_left_of_it():
    found = await made(alike(Interval(10, "minute", 0)), alike(Once(NOW + DAY), 3))
    assert found.hours[:8] == [0, 0, 0, 0, 0, 0, 3, 6]
    assert found.hours[30] == 6 + 3 and sum(found.hours) == 3 + 41 * 6 + 3


@pytest.mark.parametrize("month", [4, 10])
async def test_weeks_with_half_an_hour_more_or_less_have_a_cell_for_all_that_comes(month):
    now = int(datetime(2026, month, 4, tzinfo=UTC).timestamp()) * 1000
    since, until = weeks.span(now, "Australia/Lord_Howe")
    assert (until - since) % HOUR == HOUR // 2
    cells = weeks.grid(since, until, "Australia/Lord_Howe")[1]
    each = Interval(10, "minute", 0)
    found = await forecast.forecast([Ahead(alike(each))], now, since, until)
    assert len(found.hours) == len(cells)
    assert sum(found.hours) == each.count(now, until - 1)


async def test_what_is_due_each_second_is_counted_and_not_compared():
    found = await made(alike(Interval(1, "second", 0), 4), alike(Cron("0 8 * * *"), 2))
    assert found.hours[6:9] == [4 * 2399, 4 * 3600, 4 * 3600 + 2]
    assert found.dense == 4
    assert [(each.tasks, each.at) for each in found.peaks] == [
        (2, NOW - NOW % DAY + 8 * HOUR),
        (2, NOW - NOW % DAY + 32 * HOUR),
    ]


async def test_of_many_kinds_intervals_are_counted_as_one_by_one():
    since = NOW - NOW % DAY
    many = [
        Interval(n % 13 + 1, unit, since + (n * 977_777) % (2 * DAY))
        for n in range(500)
        for unit in ("minute", "hour")
    ]
    found = await made(*map(alike, many))
    wanted = [0] * 48
    for each in many:
        for at in each.between(NOW, since + 2 * DAY - 1):
            wanted[(at - since) // HOUR] += 1
    assert found.hours == wanted and found.late == 0


async def test_what_falls_together_is_told_with_whose_it_is():
    found = await made(
        alike(Cron("0 * * * *"), 5),
        alike(Cron("0 9 * * *"), 2),
        alike(Interval(1, "hour", 1)),
    )
    assert (found.peaks[0].tasks, found.peaks[0].at) == (7, NOW - NOW % DAY + 9 * HOUR)
    assert [each for each, _ in found.peaks[0].named] == ["5-0", "5-1", "5-2", "5-3", "5-4"]


async def test_calendars_pauses_and_bounds_take_from_what_comes():
    saturday = Excluded(Calendar(uuid4(), 1, "off", Rules(dates=((20780, 20780),))))
    assert datetime.fromtimestamp(20780 * 86400, UTC).date().isoformat() == "2026-11-23"
    found = await made(Ahead(alike(Cron("0 * * * *")), saturday))
    assert sum(found.hours[:24]) == 17 and sum(found.hours[24:]) == 0
    dense = await made(Ahead(alike(Interval(1, "second", 0)), saturday))
    assert sum(dense.hours[24:]) == 0 and dense.hours[23] == 3600
    paused = await made(alike(Cron("0 * * * *"), begin=NOW + DAY))
    assert sum(paused.hours) == 17
    ended = await made(alike(Cron("0 * * * *"), bounds=Bounds(end_at=NOW + 2 * HOUR)))
    assert sum(ended.hours) == 2


async def test_only_so_many_runs_come_as_are_left_of_each_task():
    keys = [UUID(int=n) for n in range(3)]
    of = alike(Cron("0 * * * *"), 3, Bounds(max_runs=5), keys=keys)
    plans = {keys[0]: Planned(NOW, 5), keys[1]: Planned(NOW, 3)}
    these = await ahead([of], {}, plans)
    assert sorted((each.left, each.tasks) for each in these) == [(2, 1), (5, 1)]
    found = await forecast.forecast(these, NOW, SINCE, SINCE + 2 * DAY)
    assert sum(found.hours) == 7


async def test_a_long_rule_is_counted_and_one_that_takes_too_many_steps_is_left_out_and_said():
    long = Rrule("FREQ=DAILY;BYHOUR=" + ",".join(str(n % 24) for n in range(150)), start=NOW)
    each = "\n".join(f"RRULE:FREQ=SECONDLY;INTERVAL={n}" for n in (1, 2, 3))
    together = Rrule(each, start=NOW)
    found = await made(alike(long, 7), alike(together, 3), alike(Cron("0 9 * * *")))
    assert found.rules == 3 and sum(found.hours) == 7 * 41 + 2


async def test_of_what_is_due_in_an_hour_so_many_are_listed_and_the_others_after_them():
    hour = NOW - NOW % HOUR + HOUR
    these = [alike(Cron(f"{n} * * * *")) for n in range(60)]
    all_of = [Ahead(each, None, None, 1) for each in these]
    first = await forecast.forecast(all_of, NOW, SINCE, SINCE + 2 * DAY, hour)
    rest = await forecast.forecast(all_of, NOW, SINCE, SINCE + 2 * DAY, hour, forecast.LISTED)
    assert (len(first.listed), first.more, len(rest.listed), rest.more) == (50, 10, 10, 0)
    due = [each.first for each in (*first.listed, *rest.listed)]
    assert due == [hour + n * 60_000 for n in range(60)]


async def test_a_forecast_of_many_kinds_ends_in_time(monkeypatch):
    monkeypatch.setattr(forecast, "BUDGET_S", 0.001)
    many = [alike(Cron(f"{n % 60} {n // 60 % 24} * * *")) for n in range(3000)]
    found = await made(*many, hours=24 * 8)
    assert 0 < found.late < 3000
    assert sum(found.hours) >= 3000 - found.late


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Asia/Kathmandu", "America/St_Johns"])
def test_two_weeks_are_days_of_hours_on_the_clock_of_a_zone(zone):
    since, until = weeks.span(NOW, zone)
    days, cells = weeks.grid(since, until, zone)
    assert len(days) == 15 and [len(day.cells) for day in days] == [24] * 15
    info = ZoneInfo(zone)
    assert days[7].date == weeks.local(NOW, info).date()
    cell = cells[(NOW - since) // HOUR]
    assert cell.begin <= NOW < cell.begin + cell.length
    assert days[7].cells[weeks.local(NOW, info).hour] is cell


def test_a_day_on_which_clocks_change_has_an_hour_twice_or_not_at_all():
    fall = int(datetime(2026, 10, 25, 12, tzinfo=UTC).timestamp()) * 1000
    days, cells = weeks.grid(*weeks.span(fall, "Europe/Berlin"), "Europe/Berlin")
    assert [cell.length // HOUR for cell in days[7].cells[:4]] == [1, 1, 2, 1]
    assert len(cells) == 15 * 24 + 1
    spring = int(datetime(2027, 3, 28, 12, tzinfo=UTC).timestamp()) * 1000
    days, _ = weeks.grid(*weeks.span(spring, "Europe/Berlin"), "Europe/Berlin")
    assert [cell.length // HOUR for cell in days[7].cells[:4]] == [1, 1, 0, 1]
    assert [
        (each.zone, each.before, each.after, each.forward)
        for each in weeks.changes(["Europe/Berlin", "UTC"], spring - DAY, spring + DAY)
    ] == [("Europe/Berlin", "2027-03-28 02:00", "2027-03-28 03:00", True)]


def test_the_fullest_hours_stand_out():
    cells = [weeks.Cell(NOW + n * HOUR, HOUR, due=due) for n, due in enumerate((0, 1, 60, 120))]
    weeks.graded(cells, NOW)
    assert [cell.level for cell in cells] == [0, 1, 3, 4]


# The page ----------------------------------------------------------------------------------------


def at_midnight(days: int) -> str:
    at = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return f"{at + timedelta(days=days):%Y-%m-%d}"


async def test_the_page_shows_what_comes_and_what_is_special_about_a_day(visitor, alice, app: App):
    empty = await visitor.get("/dashboard/timeline")
    assert "Nothing is to come" in empty.text
    off = at_midnight(2)
    await alice.post("/calendars", json={"name": "off", "dates": [off]})
    for n in range(3):
        task = {"id": f"t{n}", "name": f"T<{n}>", "url": "http://127.0.0.1:9/", "cron": "0 5 * * *"}
        assert (await alice.post("/tasks", json={**task, "calendars": ["off"]})).status_code == 201
    with statements(app) as seen:
        page = await visitor.get("/dashboard/timeline")
    assert page.status_code == 200 and len(seen) <= 5
    assert "3 tasks</strong>" in page.text and "T&lt;0&gt;" in page.text
    assert re.search(rf'id="d{off}".*?<bdi>off</bdi></span> excludes the day', page.text, re.DOTALL)
    hours = re.findall(r"/dashboard/timeline\?zone=UTC&amp;hour=([^#]+)#hour", page.text)
    assert 5 <= len(hours) <= 7 and not any(off in each for each in hours)
    there = await visitor.get(f"/dashboard/timeline?zone=UTC&hour={hours[0]}")
    assert there.text.count('href="/dashboard/tasks/t1"') == 1 + there.text.count(
        "3 tasks</strong>"
    )
    async with signed_in(app, "bob") as other:
        assert "T&lt;" not in (await other.get("/dashboard/timeline")).text


async def test_a_zone_or_an_hour_that_is_none_is_told_what_would_be_right(visitor):
    wrong = await visitor.get("/dashboard/timeline?zone=europe/berlin")
    assert wrong.status_code == 400 and "Europe/Berlin" in wrong.text
    assert (await visitor.get("/dashboard/timeline?hour=2001-01-01T00:00:00Z")).status_code == 400
    visitor.cookies.set("scheduler_zone", '"><script>')
    assert "<option selected>UTC</option>" in (await visitor.get("/dashboard/timeline")).text


async def test_the_reader_sees_days_of_their_own_and_walks_them_by_keys(run_app: RunApp, browse):
    async with run_app() as app:
        async with app.client("alice") as alice:
            task = {"id": "t", "name": "T", "url": "http://127.0.0.1:9/", "cron": "30 * * * *"}
            await alice.post("/tasks", json=task)
        async with browse(app, timezone_id="Australia/Adelaide") as page:
            await page.goto(f"{app.url}/dashboard/timeline")
            assert await page.input_value("[name=zone]") == "Australia/Adelaide"
            assert await page.locator("[data-heat] tr.today").count() == 1
            await accessible(page)
            await page.locator("[data-heat] a[tabindex='0']").focus()
            await page.keyboard.press("ArrowDown")
            await page.keyboard.press("ArrowRight")
            at = page.locator("[data-heat] a:focus")
            assert "1 to come" in await at.get_attribute("title")
            await page.keyboard.press("Enter")
            await page.wait_for_selector("#hour")
            assert await page.locator("tr[data-row] a[href='/dashboard/tasks/t']").count() == 1
            assert await shifted(page) < 0.01
