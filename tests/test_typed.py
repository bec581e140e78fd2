"""Times that people type: in the reader's zone on every form, told where the clocks change."""

from typing import Any

import pytest

from conftest import App
from pages import field
from scheduler.dashboard import typed

BERLIN = "Europe/Berlin"
HERE = {"Cookie": "scheduler_zone=Europe%2FBerlin"}
AT = "/dashboard/tasks/t"
TWICE = "2037-10-25T02:30"
GAP = "2037-03-29T02:30"
HOURLY = {"id": "t", "name": "t", "url": "http://127.0.0.1:9/", "cron": "0 * * * *"}


@pytest.mark.parametrize(
    ("text", "zone", "expected"),
    [
        ("2037-07-01T09:00", BERLIN, "2037-07-01T07:00:00.000Z"),
        ("2037-01-01 09:00:05.25", BERLIN, "2037-01-01T08:00:05.250Z"),
        ("2037-07-01T09:00Z", BERLIN, "2037-07-01T09:00:00.000Z"),
        ("2037-07-01T09:00:00+03:00", BERLIN, "2037-07-01T09:00:00+03:00"),
        ("noon", BERLIN, "noon"),
        (TWICE, "UTC", "2037-10-25T02:30:00.000Z"),
    ],
)
def test_a_time_is_read_on_the_wall_of_its_zone(text, zone, expected):
    assert typed.absolute(text, zone) == expected


def test_a_time_that_the_clocks_leave_out_or_show_twice_is_told():
    with pytest.raises(ValueError, match=r"does not exist in Europe/Berlin.*would be 03:30"):
        typed.absolute(GAP, BERLIN)
    with pytest.raises(ValueError, match="comes twice") as said:
        typed.absolute(TWICE, BERLIN)
    first, second = "2037-10-25T00:30:00.000Z", "2037-10-25T01:30:00.000Z"
    assert f"{first} for the first time, {second} for the second" in str(said.value)
    for each in (first, second):  # what stands in a field is read as what it was
        at = typed.asked.instant(each)
        assert typed.wall(at, BERLIN) == each and typed.wall(at, "UTC") == each[:16]


FORMS: dict[str, tuple[str, dict[str, str]]] = {
    "from": ("/dashboard/runs", {}),
    "at": (f"{AT}/explain", {}),
    "to": (f"{AT}/backfill", {"from": "2037-01-01T00:00"}),
}


@pytest.mark.parametrize("name", FORMS)
async def test_each_form_has_the_readers_zone_keeps_what_is_wrong_and_says_why(
    visitor, alice, name
):
    await alice.post("/tasks", json=HOURLY)
    at, more = FORMS[name]
    empty = (await visitor.get(at)).text
    assert ", in UTC" in empty and field(empty, "times_in") == "UTC"
    here = (await visitor.get(at, headers=with_zone(visitor))).text
    assert f", in {BERLIN}" in here and field(here, "times_in") == BERLIN
    for wall, said in ((GAP, "does not exist in Europe/Berlin"), (TWICE, "comes twice in")):
        sent = {**more, name: wall, "times_in": BERLIN}
        wrong = await visitor.get(at, params=sent, headers=with_zone(visitor))
        assert wrong.status_code == 400 and said in wrong.text
        assert f'type="text" name="{name}" value="{wall}"' in wrong.text
        assert field(wrong.text, "times_in") == BERLIN


def with_zone(visitor: Any) -> dict[str, str]:
    """Headers of a browser whose script told its zone."""
    held = "; ".join(f"{name}={value}" for name, value in visitor.cookies.items())
    return {"Cookie": f"{held}; {HERE['Cookie']}"}


async def test_the_address_of_runs_is_absolute_and_each_reader_sees_it_in_its_own_zone(visitor):
    sent = {"from": "2037-07-01T09:00", "to": "", "times_in": BERLIN, "state": "failed"}
    answer = await visitor.get("/dashboard/runs", params=sent)
    assert answer.status_code == 303
    address = answer.headers["Location"]
    assert "times_in" not in address and "from=2037-07-01T07%3A00%3A00.000Z" in address
    assert field((await visitor.get(address)).text, "from") == "2037-07-01T07:00"
    there = (await visitor.get(address, headers=with_zone(visitor))).text
    assert field(there, "from") == "2037-07-01T09:00" and f"From, in {BERLIN}" in there


async def test_a_pause_ends_and_a_task_is_due_when_it_was_typed_for(visitor, alice, app: App):
    await alice.post("/tasks", json=HOURLY)
    form = {"form": field((await visitor.get(AT)).text, "form"), "times_in": BERLIN}
    pause = {**form, "for": "until", "until": "2037-07-01T09:00"}
    wrong = await visitor.post(f"{AT}/pause", data={**pause, "until": TWICE})
    assert wrong.status_code == 400 and f'name="until" value="{TWICE}"' in wrong.text
    assert (await visitor.post(f"{AT}/pause", data=pause)).status_code == 303
    paused = (await alice.get("/tasks/t")).json()
    assert paused["paused_until"] == "2037-07-01T07:00:00.000Z"
    once = {**form, "name": "o", "id": "o", "url": HOURLY["url"], "action": "http"}
    once |= {"trigger": "once", "scheduled_at": TWICE, "status": "active"}
    wrong = await visitor.post("/dashboard/new", data=once)
    assert wrong.status_code == 400 and "comes twice in" in wrong.text
    again = {**once, "scheduled_at": "2037-10-25T01:30:00Z"}
    assert (await visitor.post("/dashboard/new", data=again)).status_code == 303
    opened = (await visitor.get("/dashboard/tasks/o/edit", headers=with_zone(visitor))).text
    assert 'value="2037-10-25T01:30"' in opened  # a task is edited in its own zone
