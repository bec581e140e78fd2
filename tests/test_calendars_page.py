"""The pages of calendars: made, shown as a year, changed with a look ahead, deleted."""

import re
from datetime import UTC, datetime

import httpx
import pytest

from conftest import App
from pages import field, safe, signed_in, statements
from scheduler.clock import Slice
from scheduler.dashboard.calendars import calendar_effect, calendar_form, calendar_year
from scheduler.dashboard.calendars.calendar_year import Month
from scheduler.errors import ValidationFailed
from scheduler.triggers.calendar import Rules, Weekly

HOME = "/dashboard/calendars"
NEW = "/dashboard/new-calendar"
EVENT = "BEGIN:VEVENT\r\nUID:{0}\r\nDTSTART;VALUE=DATE:{0}\r\nEND:VEVENT\r\n"
FILE = f"BEGIN:VCALENDAR\r\n{EVENT.format('20300501')}{EVENT.format('20301003')}END:VCALENDAR\r\n"
NIGHTLY = {"name": "Nightly", "url": "http://127.0.0.1:9/", "cron": "0 3 * * *"}


async def send(
    client: httpx.AsyncClient, path: str, file: bytes | None = None, **fields: str
) -> httpx.Response:
    """Send a form of the pages, as a browser does."""
    form = field((await client.get(NEW)).text, "form")
    parts = {"file": ("days.ics", file or b"", "text/calendar")} if file is not None else {}
    sent = {"form": form, **fields}
    return await client.post(path, data=sent, files=parts or {"file": ("", b"")})


def titled(text: str, day: str) -> str | None:
    """Why a day is excluded, in the first month of a page that has such a day."""
    found = re.search(rf'title="([^"]*)">{day}<', text)
    return found[1] if found else None


async def test_who_has_none_is_taught(app: App):
    async with signed_in(app) as alice:
        page = await alice.get(HOME)
        safe(page)
        assert "No calendars yet" in page.text and "scheduler calendars create" in page.text


async def test_a_calendar_is_made_and_shown_as_a_year(app: App):
    async with signed_in(app) as alice:
        made = await send(
            alice,
            NEW,
            FILE.encode(),
            name="holidays",
            timezone="Europe/Berlin",
            dates="2030-12-24/2030-12-26\n2030-01-01",
            weekly="MON-FRI 22:00-06:00\nSAT, SUN",
            description="When <b>we</b> rest",
        )
        assert made.headers["Location"] == f"{HOME}/holidays?done=created"
        page = await alice.get(f"{HOME}/holidays?year=2030")
        safe(page)
        text = page.text
        assert "When &lt;b&gt;we&lt;/b&gt; rest" in text and "Europe/Berlin" in text
        assert titled(text, "24") == "every week, 00:00 to 06:00, 22:00 to 24:00"  # of January
        assert titled(text, "5") == "every week"
        december = text[text.index("<caption>December") :]
        assert titled(december, "24") == "a date; every week, 00:00 to 06:00, 22:00 to 24:00"
        may = text[text.index("<caption>May") :]
        assert "an event of the file" in titled(may, "1")
        assert text.count('<table class="month">') == 12
        listed = (await alice.get(HOME)).text
        assert "2 dates; MON,TUE,WED,THU,FRI 22:00-06:00; SAT,SUN; 2 events of a file" in listed
    async with app.client("alice") as api:
        known = (await api.get("/calendars/holidays")).json()
        assert known["ical"] == FILE and known["weekly"][1] == {
            "days": ["SAT", "SUN"],
            "from": None,
            "to": None,
        }


@pytest.mark.parametrize(
    ("field_", "value", "said"),
    [
        ("name", "no spaces", "1 to 64 letters"),
        ("timezone", "Berlin", "did you mean Europe/Berlin?"),
        ("dates", "2030-01-01\n2030-02-30", "line 2: is no date that exists"),
        ("dates", "1 May", "line 1: write a date like"),
        ("dates", "2030-05-02/2030-05-01", "line 1: must not lie before from"),
        ("weekly", "SAT\nSomeday", "line 2: write days"),
        ("weekly", "SAT 25:00-26:00", "line 1: must be a time of the day"),
    ],
)
async def test_what_is_wrong_stands_at_its_field_and_nothing_is_lost(
    app: App, field_: str, value: str, said: str
):
    right = {"name": "c", "timezone": "UTC", "dates": "2030-07-07", "weekly": "SUN"}
    async with signed_in(app) as alice:
        answer = await send(alice, NEW, **{**right, field_: value})
        assert answer.status_code == 400
        shown = answer.text[answer.text.index(f'id="wrong-{field_}"') :]
        assert said in shown[:400]
        for kept in ({**right, field_: value}).values():
            assert kept in answer.text
        assert "No calendars yet" in (await alice.get(HOME)).text


async def test_a_file_that_cannot_be_read_is_refused_and_kept_in_the_form(app: App):
    async with signed_in(app) as alice:
        answer = await send(alice, NEW, b"BEGIN:VCALENDAR\nthree", name="c", dates="2030-07-07")
        assert answer.status_code == 400 and 'id="wrong-ical"' in answer.text
        assert "three</textarea>" in answer.text and "2030-07-07" in answer.text
        answer = await send(alice, NEW, b"\xff\xfe", name="c", dates="2030-07-07")
        assert "is not UTF-8 text" in answer.text and "2030-07-07" in answer.text
        assert (await send(alice, NEW, b"x" * calendar_form.FORM_MOST, name="c")).status_code == 413


async def test_a_name_that_is_taken_is_told(app: App):
    async with signed_in(app) as alice:
        for status in (303, 409):
            answer = await send(alice, NEW, name="c", dates="2030-07-07")
            assert answer.status_code == status
        assert "there is a calendar c already" in answer.text and "2030-07-07" in answer.text


async def test_a_change_is_looked_at_before_it_is_made(app: App, conn):
    async with signed_in(app) as alice, app.client("alice") as api:
        year = datetime.now(UTC).year + 1
        await send(alice, NEW, name="c", dates=f"{year}-01-05")
        await api.post("/tasks", json={**NIGHTLY, "id": "night", "calendars": ["c"]})
        await api.post("/tasks", json={**NIGHTLY, "id": "other"})
        form = (await alice.get(f"{HOME}/c/edit")).text
        assert f"{year}-01-05</textarea>" in form
        change = {"timezone": "UTC", "dates": f"{year}-01-06"}
        looked = await send(alice, f"{HOME}/c/edit", preview="on", **change)
        assert looked.status_code == 200 and "Nothing is changed yet" in looked.text
        assert re.search(rf"{year}-01-05 03:00:00.*runs again", looked.text)
        assert re.search(rf"{year}-01-06 03:00:00.*runs no more", looked.text)
        assert "Nightly" in looked.text and f"{year}-01-06</textarea>" in looked.text
        assert (await api.get("/calendars/c")).json()["dates"] == [f"{year}-01-05"]
        done = await send(alice, f"{HOME}/c/edit", **change)
        assert done.headers["Location"] == f"{HOME}/c?done=changed"
        assert (await api.get("/calendars/c")).json()["dates"] == [f"{year}-01-06"]
        same = await send(alice, f"{HOME}/c/edit", preview="on", **change)
        assert "nothing moves within a year" in same.text
        assert "Nightly" in (await alice.get(f"{HOME}/c")).text


async def test_what_another_calendar_excludes_anyway_does_not_move(app: App):
    async with signed_in(app) as alice, app.client("alice") as api:
        year = datetime.now(UTC).year + 1
        await send(alice, NEW, name="all", weekly="MON-SUN")
        await send(alice, NEW, name="c")
        await api.post("/tasks", json={**NIGHTLY, "calendars": ["c", "all"]})
        looked = await send(alice, f"{HOME}/c/edit", preview="on", dates=f"{year}-01-06")
        assert "nothing moves within a year" in looked.text


async def test_a_file_stays_until_it_is_replaced_or_taken_away(app: App):
    async with signed_in(app) as alice, app.client("alice") as api:
        await send(alice, NEW, FILE.encode(), name="c")
        for fields, file, events in (
            ({}, None, 2),
            ({}, FILE.replace("20301003", "20301004"), 2),
            ({"drop": "on"}, None, 0),
        ):
            content = None if file is None else file.encode()
            assert (await send(alice, f"{HOME}/c/edit", content, **fields)).status_code == 303
            assert (await api.get("/calendars/c")).json()["events"] == events


async def test_a_calendar_in_use_stays_and_says_by_which_tasks(app: App):
    async with signed_in(app) as alice, app.client("alice") as api:
        await send(alice, NEW, name="c", dates="2030-07-07")
        await api.post("/tasks", json={**NIGHTLY, "id": "night", "calendars": ["c"]})
        asked = await alice.get(f"{HOME}/c/delete")
        assert "/dashboard/tasks/night" in asked.text and "so it stays" in asked.text
        form = field((await alice.get(NEW)).text, "form")
        refused = await alice.post(f"{HOME}/c/delete", data={"form": form})
        assert refused.status_code == 409 and "/dashboard/tasks/night" in refused.text
        await api.delete("/tasks/night")
        done = await alice.post(f"{HOME}/c/delete", data={"form": form})
        assert done.headers["Location"] == f"{HOME}?done=deleted"
        assert (await alice.get(f"{HOME}/c")).status_code == 404


async def test_another_services_calendar_is_none(app: App):
    async with signed_in(app) as alice, signed_in(app, "bob") as bob:
        await send(alice, NEW, name="c", dates="2030-07-07")
        for path in ("c", "c/edit", "c/delete"):
            assert (await bob.get(f"{HOME}/{path}")).status_code == 404
        assert (await send(bob, f"{HOME}/c/edit", dates="2031-01-01")).status_code == 404
        assert "No calendars yet" in (await bob.get(HOME)).text


async def test_a_form_from_elsewhere_changes_nothing(app: App):
    async with signed_in(app) as alice:
        sent = {"form": "x", "name": "c"}
        assert (await alice.post(NEW, data=sent, files={"file": ("", b"")})).status_code == 403
        assert "No calendars yet" in (await alice.get(HOME)).text


async def test_the_pages_run_five_statements_at_most(app: App):
    async with signed_in(app) as alice, app.client("alice") as api:
        await send(alice, NEW, name="c", dates="2030-07-07")
        await api.post("/tasks", json={**NIGHTLY, "calendars": ["c"]})
        for path in (HOME, f"{HOME}/c", f"{HOME}/c/edit", f"{HOME}/c/delete", NEW):
            with statements(app) as seen:
                assert (await alice.get(path)).status_code == 200
            assert len(seen) <= 5, seen


# The parts ----------------------------------------------------------------------------------------


def days(found: list[Month], word: str) -> int:
    return sum(1 for m in found for week in m.weeks for day in week if day and day.excluded == word)


async def test_a_year_has_its_days_also_where_the_clock_changes():
    for zone in ("Europe/Berlin", "America/Havana", "Asia/Kathmandu", "UTC"):
        every = Rules(zone, weekly=(Weekly(tuple(range(7))),))
        assert days(await calendar_year.months(every, 2028), "all") == 366, zone
        mondays = Rules(zone, weekly=(Weekly((0,)),))
        found = await calendar_year.months(mondays, 2027)
        assert (days(found, "all"), days(found, "part")) == (52, 0), zone


def test_a_year_that_is_none_is_this_one():
    now = int(datetime(2026, 12, 31, 23, 30, tzinfo=UTC).timestamp() * 1000)
    for text in ("", "x", "-5", "99999", "0", "²"):
        assert calendar_year.year_of(text, "Europe/Berlin", now) == 2027
    assert calendar_year.year_of("1999", "UTC", now) == 1999


def test_spans_that_differ_are_those_of_one_list_alone():
    one, other = [(0, 10), (20, 30), (40, 50)], [(5, 10), (20, 30), (45, 60)]
    assert calendar_effect.differing(one, other) == [(0, 5), (40, 45), (50, 60)]
    assert calendar_effect.differing(one, one) == []
    assert calendar_effect.differing([], other) == other


async def test_what_is_excluded_over_years_is_found_in_pieces():
    rules = Rules(weekly=(Weekly((0,)),))
    found = await calendar_year.excluded(rules, 0, 365 * 86_400_000, Slice())
    assert len(found) == 52 and all(end - start == 86_400_000 for start, end in found)


def test_lines_are_written_as_they_are_read():
    form = {"dates": "2030-01-01\n2030-02-01/2030-02-03", "weekly": "FRI-MON 22:00-06:00"}
    fields = calendar_form.read(form, new=False)
    assert calendar_form.week_words(fields.weekly[0]) == "FRI,SAT,SUN,MON 22:00-06:00"
    with pytest.raises(ValidationFailed, match="at most"):
        calendar_form.read({"dates": "2030-01-01\n" * 2001}, new=False)
