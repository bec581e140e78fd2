"""`/runs/verify` when clocks change: what was due goes by the task's own settings."""

from datetime import UTC, datetime

import msgspec
import pytest

from scheduler.db import ms, utc
from scheduler.planning import Planned
from scheduler.runs.verify import _due
from scheduler.triggers import Cron, Rrule
from test_queue import definition

DAY = 86_400_000


@pytest.mark.parametrize("dst_gap", ["skip", "shift", "end"])
@pytest.mark.parametrize("dst_overlap", ["first", "second", "both"])
@pytest.mark.parametrize("kind", ["cron", "rrule"])
def test_what_was_due_when_clocks_change_goes_by_the_tasks_own_setting(dst_gap, dst_overlap, kind):
    zone, settings = "Europe/Berlin", {"dst_gap": dst_gap, "dst_overlap": dst_overlap}
    if kind == "cron":
        trigger = Cron("30 2 * * *", zone, **settings)
    else:
        text = "DTSTART;TZID=Europe/Berlin:20200101T023000\nRRULE:FREQ=DAILY"
        trigger = Rrule(text, zone, **settings)
    made = datetime(2027, 1, 1, tzinfo=UTC)
    task = msgspec.structs.replace(definition(trigger=trigger), created_at=made, updated_at=made)
    since, until = ms(made), ms(made) + 365 * DAY
    due = _due(task, Planned(until, 0), since, until, 100_000)
    assert due is not None and due.instants == list(trigger.between(since, until))
    leap = [at for at in due.instants if utc(at).date().isoformat() == "2027-03-28"]
    back = [at for at in due.instants if utc(at).date().isoformat() == "2027-10-31"]
    at = {"skip": [], "shift": ["01:30"], "end": ["01:00"]}[dst_gap]
    assert [utc(each).strftime("%H:%M") for each in leap] == at
    times = {"first": ["00:30"], "second": ["01:30"], "both": ["00:30", "01:30"]}[dst_overlap]
    assert [utc(each).strftime("%H:%M") for each in back] == times
