"""RRULE: reading the text, the examples of its README and of RFC 5545, what is refused."""

from datetime import datetime
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from scheduler.instant import LAST
from scheduler.triggers import Trigger
from scheduler.triggers.rrule import Costly, Rrule, judge, read_rrule
from scheduler.triggers.rrule_text import DATES_MOST, LONGEST, RULES_MOST

NOW = 1_790_000_000_000
DTSTART = "DTSTART:20250101T083000Z\n"


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp()) * 1000


def first(text: str, many: int = 4, timezone: str | None = None, start: int = NOW, **rest: str):
    """The first instants of a rule, on its own wall clock."""
    rule = read_rrule(text, timezone, start, **rest)
    zone = ZoneInfo(rule.timezone)
    instants = islice(rule.between(-(10**14), LAST), many)
    return [f"{datetime.fromtimestamp(each / 1000, zone):%Y-%m-%d %H:%M:%S}" for each in instants]


README = [
    (
        "DTSTART:20250101T083000Z\nRRULE:FREQ=DAILY;INTERVAL=1",
        ["2025-01-01 08:30:00", "2025-01-02 08:30:00", "2025-01-03 08:30:00"],
    ),
    (
        "DTSTART:20250101T151500Z\nRRULE:FREQ=WEEKLY;INTERVAL=1;BYDAY=MO,WE,FR",
        ["2025-01-01 15:15:00", "2025-01-03 15:15:00", "2025-01-06 15:15:00"],
    ),
    (
        "DTSTART:20250101T100000Z\nRRULE:FREQ=MONTHLY;INTERVAL=1;BYMONTHDAY=1,15",
        [
            "2025-01-01 10:00:00",
            "2025-01-15 10:00:00",
            "2025-02-01 10:00:00",
            "2025-02-15 10:00:00",
        ],
    ),
    (
        "DTSTART:20250101T070000Z\nRRULE:FREQ=YEARLY;BYMONTH=12;BYMONTHDAY=25",
        ["2025-12-25 07:00:00", "2026-12-25 07:00:00"],
    ),
    (
        "DTSTART:20250101T184500Z\nRRULE:FREQ=DAILY;INTERVAL=1;COUNT=5",
        [f"2025-01-0{day} 18:45:00" for day in range(1, 6)] + [None],
    ),
    (
        "DTSTART:20250101T170000Z\nRRULE:FREQ=DAILY;UNTIL=20250110T170000Z",
        [f"2025-01-{day:02} 17:00:00" for day in range(1, 11)] + [None],
    ),
    (
        "DTSTART:20250101T020000Z\nRRULE:FREQ=HOURLY;INTERVAL=3",
        [f"2025-01-01 {hour:02}:00:00" for hour in (2, 5, 8, 11)],
    ),
    (
        "DTSTART:20250101T233000Z\nRRULE:FREQ=MONTHLY;BYDAY=MO;BYSETPOS=2",
        ["2025-01-13 23:30:00", "2025-02-10 23:30:00", "2025-03-10 23:30:00"],
    ),
]


@pytest.mark.parametrize(("text", "expected"), README, ids=[text for text, _ in README])
def test_the_examples_of_the_rrule_section_give_what_it_says(text, expected):
    ends = expected[-1] is None
    wanted = expected[:-1] if ends else expected
    found = first(text, len(wanted) + 1)
    assert found[: len(wanted)] == wanted
    assert (len(found) == len(wanted)) == ends
    for between in ("\r\n", "\\n", "\n\n", "\r"):
        assert first(text.replace("\n", between), len(wanted)) == wanted


# RFC 5545, 3.8.5.3: DTSTART 1997-09-02 09:00 in New York unless it says otherwise; what comes first.
RFC = [
    ("FREQ=DAILY;COUNT=10", "0902 0903 0904"),
    ("FREQ=DAILY;UNTIL=19971224T000000Z", "0902 0903 0904"),
    ("FREQ=DAILY;INTERVAL=2", "0902 0904 0906"),
    ("FREQ=DAILY;INTERVAL=10;COUNT=5", "0902 0912 0922 1002 1012 -"),
    ("FREQ=WEEKLY;COUNT=10", "0902 0909 0916 0923 0930 1007 1014 1021 1028 1104 -"),
    ("FREQ=WEEKLY;INTERVAL=2;WKST=SU", "0902 0916 0930 1014 1028 1111"),
    ("FREQ=WEEKLY;UNTIL=19971007T000000Z;WKST=SU;BYDAY=TU,TH",
     "0902 0904 0909 0911 0916 0918 0923 0925 0930 1002 -"),
    ("FREQ=WEEKLY;INTERVAL=2;COUNT=8;WKST=SU;BYDAY=TU,TH", "0902 0904 0916 0918 0930 1002 1014 1016 -"),
    ("FREQ=MONTHLY;COUNT=10;BYDAY=1FR", "0905 1003 1107 1205"),
    ("FREQ=MONTHLY;INTERVAL=2;COUNT=10;BYDAY=1SU,-1SU", "0907 0928 1102 1130"),
    ("FREQ=MONTHLY;COUNT=6;BYDAY=-2MO", "0922 1020 1117 1222"),
    ("FREQ=MONTHLY;BYMONTHDAY=-3", "0928 1029 1128 1229"),
    ("FREQ=MONTHLY;COUNT=10;BYMONTHDAY=2,15", "0902 0915 1002 1015"),
    ("FREQ=MONTHLY;COUNT=10;BYMONTHDAY=1,-1", "0930 1001 1031 1101"),
    ("FREQ=MONTHLY;INTERVAL=18;COUNT=10;BYMONTHDAY=10,11,12,13,14,15", "0910 0911 0912 0913 0914 0915"),
    ("FREQ=MONTHLY;INTERVAL=2;BYDAY=TU", "0902 0909 0916 0923 0930 1104"),
    ("FREQ=MONTHLY;BYDAY=SA;BYMONTHDAY=7,8,9,10,11,12,13", "0913 1011 1108 1213"),
    ("FREQ=MONTHLY;COUNT=3;BYDAY=TU,WE,TH;BYSETPOS=3", "0904 1007 1106 -"),
    ("FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-2", "0929 1030 1127 1230"),
    ("FREQ=DAILY;BYMONTHDAY=13;BYDAY=FR", "19980213 19980313 19981113 19990813"),
    ("FREQ=YEARLY;COUNT=10;BYMONTH=6,7", "19980602 19980702 19990602"),
    ("FREQ=YEARLY;INTERVAL=3;COUNT=10;BYYEARDAY=1,100,200", "20000101 20000409 20000718"),
    ("FREQ=YEARLY;BYDAY=20MO", "19980518 19990517 20000515"),
    ("FREQ=YEARLY;BYWEEKNO=20;BYDAY=MO", "19980511 19990517 20000515"),
    ("FREQ=YEARLY;BYMONTH=3;BYDAY=TH", "19980305 19980312 19980319"),
    ("FREQ=YEARLY;BYDAY=TH;BYMONTH=6,7,8", "19980604 19980611 19980618"),
    ("FREQ=YEARLY;INTERVAL=4;BYMONTH=11;BYDAY=TU;BYMONTHDAY=2,3,4,5,6,7,8", "19971104 20011106"),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "days"), RFC, ids=[rule for rule, _ in RFC])
def test_the_examples_of_rfc_5545_give_what_it_says(rule, days):
    wanted = [day if len(day) == 8 else f"1997{day}" for day in days.split() if day != "-"]
    found = first(f"DTSTART;TZID=America/New_York:19970902T090000\nRRULE:{rule}", len(wanted) + 1)
    assert [each[:10].replace("-", "") for each in found[: len(wanted)]] == wanted
    assert {each[11:] for each in found} == {"09:00:00"}
    assert (len(found) == len(wanted)) == days.endswith("-")


def test_rfc_5545_hours_and_minutes():
    zone = "DTSTART;TZID=America/New_York:19970902T090000\nRRULE:"
    times = [
        each[11:16] for each in first(zone + "FREQ=HOURLY;INTERVAL=3;UNTIL=19970902T210000Z", 9)
    ]
    assert times == ["09:00", "12:00", "15:00"]
    times = [each[11:16] for each in first(zone + "FREQ=MINUTELY;INTERVAL=15;COUNT=6", 9)]
    assert times == ["09:00", "09:15", "09:30", "09:45", "10:00", "10:15"]
    daily = first(zone + "FREQ=DAILY;BYHOUR=9,10,11,12,13,14,15,16;BYMINUTE=0,20,40", 1000)
    minutely = first(zone + "FREQ=MINUTELY;INTERVAL=20;BYHOUR=9,10,11,12,13,14,15,16", 1000)
    assert daily == minutely
    assert daily[23:25] == ["1997-09-02 16:40:00", "1997-09-03 09:00:00"]


# Reading ------------------------------------------------------------------------------------------

SAME = [
    "DTSTART;TZID=Europe/Berlin:20250101T083000\nRRULE:FREQ=DAILY",
    "RRULE:FREQ=DAILY\nDTSTART;TZID=Europe/Berlin:20250101T083000",
    "dtstart;tzid=Europe/Berlin:20250101t083000\nrrule:freq=daily",
    'DTSTART;VALUE=DATE-TIME;TZID="Europe/Berlin":20250101T083000\nFREQ=DAILY;',
    "DTSTART;TZID=Europe/Berlin:20250101T083000;FREQ=DAILY",
    "DTSTART;TZID=Europe/Berlin:20250101T083000\\nFREQ=DAILY",
    "DTSTART=TZID=Europe/Berlin:20250101T083000;FREQ=DAILY",
    "DTSTART=20250101T083000;TZID=Europe/Berlin;FREQ=DAILY",
    "FREQ=DAILY;DTSTART=20250101T083000;TZID=Europe/Berlin",
    "RRULE:FREQ=DAILY;DTSTART;TZID=Europe/Berlin:20250101T083000;INTERVAL=1",
    "DTSTART;TZID=Europe/Berlin:2025\r\n 0101T083000\r\nRRULE:FREQ=\r\n\tDAILY\r\n",
    "DTSTART;TZID=Europe/Berlin:20250101T083000\nRRULE=FREQ=DAILY",
]


@pytest.mark.parametrize("text", SAME)
def test_a_text_may_be_written_in_many_ways(text):
    rule = read_rrule(text, None, NOW)
    assert rule.timezone == "Europe/Berlin"
    assert rule.text == text
    assert first(text, 2) == ["2025-01-01 08:30:00", "2025-01-02 08:30:00"]
    assert rule.next(0) == at("2025-01-01T07:30:00Z")


def test_without_dtstart_a_rule_begins_when_it_is_made_in_whole_seconds():
    rule = read_rrule("FREQ=DAILY", None, NOW + 789)
    assert rule.start == NOW
    assert list(islice(rule.between(0, LAST), 2)) == [NOW, NOW + 86_400_000]


@pytest.mark.parametrize(
    ("text", "sent", "zone"),
    [
        ("FREQ=DAILY", None, "UTC"),
        ("FREQ=DAILY", "Europe/Berlin", "Europe/Berlin"),
        ("DTSTART:20250101T083000\nFREQ=DAILY", "Europe/Berlin", "Europe/Berlin"),
        ("DTSTART:20250101T083000Z\nFREQ=DAILY", None, "UTC"),
        ("DTSTART:20250101T083000Z\nFREQ=DAILY", "UTC", "UTC"),
        ("DTSTART;TZID=Asia/Tokyo:20250101T083000\nFREQ=DAILY", "Asia/Tokyo", "Asia/Tokyo"),
    ],
)
def test_the_zone_is_that_of_the_text_else_that_of_the_task_else_utc(text, sent, zone):
    assert read_rrule(text, sent, NOW).timezone == zone


def test_a_zone_beside_another_in_the_text_is_refused():
    with pytest.raises(ValueError, match="leave out timezone"):
        read_rrule(DTSTART + "FREQ=DAILY", "Europe/Berlin", NOW)
    with pytest.raises(ValueError, match="Asia/Tokyo"):
        Rrule("DTSTART;TZID=Asia/Tokyo:20250101T083000\nFREQ=DAILY", "UTC")


def test_a_start_that_the_rule_does_not_name_is_no_instant():
    found = first("DTSTART:20250101T083000Z\nRRULE:FREQ=WEEKLY;BYDAY=MO", 2)
    assert found == ["2025-01-06 08:30:00", "2025-01-13 08:30:00"]


def test_a_date_begins_at_midnight_and_bounds_inclusively():
    text = "DTSTART;VALUE=DATE:20250101\nRRULE:FREQ=DAILY;UNTIL=20250103"
    assert first(text, 9, "Asia/Tokyo") == [f"2025-01-0{day} 00:00:00" for day in (1, 2, 3)]
    text = "DTSTART:20250101T083000\nRRULE:FREQ=DAILY;UNTIL=20250102"
    assert first(text, 9) == ["2025-01-01 08:30:00", "2025-01-02 08:30:00"]


@pytest.mark.parametrize(
    ("until", "last"),
    [("20250630T083000", "2025-06-30"), ("20250630T063000Z", "2025-06-30"),
     ("20250630T062959Z", "2025-06-29"), ("20250630T082959", "2025-06-29"),
     ("20250630", "2025-06-30")],
)  # fmt: skip
def test_until_is_read_in_every_form(until, last):
    text = f"DTSTART;TZID=Europe/Berlin:20250601T083000\nRRULE:FREQ=DAILY;UNTIL={until}"
    assert first(text, 99)[-1][:10] == last


def test_dates_are_added_and_taken_away_in_every_form():
    text = "DTSTART;TZID=Europe/Berlin:20250601T083000\nRRULE:FREQ=DAILY;COUNT=6\nRDATE;TZID=America/New_York:20250601T120000,20250602T023000\nRDATE;VALUE=PERIOD:20250601T100000Z/PT1H\nRDATE;VALUE=DATE:20250607\nEXDATE;TZID=Europe/Berlin:20250602T083000\nEXDATE:20250603T063000Z\nEXDATE;VALUE=DATE:20250604\nEXRULE:FREQ=DAILY;INTERVAL=4;COUNT=2"  # fmt: skip
    assert first(text, 20) == ["2025-06-01 12:00:00", "2025-06-01 18:00:00", "2025-06-06 08:30:00",
                               "2025-06-07 00:00:00"]  # fmt: skip


WRONG = [
    ("", "needs an RRULE"),
    ("every day", "no line of a rule"),
    ("DTSTART:20250101T083000Z", "needs an RRULE"),
    ("FREQ=DAILY;INTERVAL=0", "INTERVAL"),
    ("FREQ=DAILY;INTERVAL=-1", "INTERVAL"),
    ("FREQ=DAILY;INTERVAL=999999999999", "INTERVAL"),
    ("FREQ=DAILY;COUNT=0", "COUNT"),
    ("FREQ=DAILY;COUNT=2;UNTIL=20250101", "exclude each other"),
    ("FREQ=DAILY;BYHOUR=25", "BYHOUR takes numbers from 0 to 23"),
    ("FREQ=DAILY;BYMONTH=13", "BYMONTH takes numbers from 1 to 12"),
    ("FREQ=DAILY;BYMONTH=-1", "BYMONTH"),
    ("FREQ=DAILY;BYMINUTE=60", "BYMINUTE"),
    ("FREQ=DAILY;BYSECOND=61", "BYSECOND"),
    ("FREQ=MONTHLY;BYMONTHDAY=32", "BYMONTHDAY"),
    ("FREQ=MONTHLY;BYMONTHDAY=0", "BYMONTHDAY"),
    ("FREQ=MONTHLY;BYDAY=XX", "BYDAY takes MO"),
    ("FREQ=MONTHLY;BYDAY=54MO", "BYDAY"),
    ("FREQ=WEEKLY;BYDAY=2MO", "with FREQ=MONTHLY or YEARLY"),
    ("FREQ=WEEKLY;BYMONTHDAY=3", "BYMONTHDAY does not go with FREQ=WEEKLY"),
    ("FREQ=MONTHLY;BYYEARDAY=3", "BYYEARDAY does not go"),
    ("FREQ=DAILY;BYWEEKNO=3", "BYWEEKNO does not go"),
    ("FREQ=YEARLY;BYWEEKNO=3;BYDAY=1MO", "beside BYWEEKNO"),
    ("FREQ=DAILY;BYSETPOS=1", "BYSETPOS"),
    ("FREQ=SECONDLY;BYSECOND=1,2;BYSETPOS=2", "BYSETPOS"),
    ("FREQ=DAILY;FREQ=DAILY", "FREQ stands there twice"),
    ("FREQ=FORTNIGHTLY", "FREQ must be one of"),
    ("INTERVAL=2", "FREQ must be one of"),
    ("FREQ=DAILY;RSCALE=GREGORIAN", "RSCALE is not supported"),
    ("FREQ=DAILY;BYEASTER=1", "there is no part BYEASTER"),
    ("FREQ=DAILY;UNTIL=tomorrow", "UNTIL must be like 20250131"),
    ("FREQ=DAILY;UNTIL=20250230", "UNTIL must be like"),
    ("RRULE;X=1:FREQ=DAILY", "RRULE takes no parameters"),
    ("DTSTART:20250101\nDTSTART:20250101\nFREQ=DAILY", "DTSTART stands there twice"),
    ("DTSTART:20251301T000000\nFREQ=DAILY", "DTSTART must be like"),
    ("DTSTART;TZID=Mars/Olympus:20250101T000000\nFREQ=DAILY", "TZID 'Mars/Olympus' of DTSTART is no IANA"),
    ("DTSTART;TZID=europe/berlin:20250101T000000\nFREQ=DAILY", "did you mean Europe/Berlin"),
    ("DTSTART;TZID=Europe/Berlin:20250101T000000Z\nFREQ=DAILY", "leave one of them out"),
    ("DTSTART;RANGE=X:20250101T000000\nFREQ=DAILY", "takes TZID and VALUE"),
    ("DTSTART;VALUE=PERIOD:20250101T000000Z/PT1H\nFREQ=DAILY", "VALUE of DTSTART"),
    ("FREQ=DAILY\nRDATE;VALUE=PERIOD:20250101T000000Z", "a period"),
    ("FREQ=DAILY\nEXDATE;VALUE=DATE:20250101T000000", "VALUE=DATE"),
    ("FREQ=DAILY\nSUMMARY:x", "there is no line 'SUMMARY'"),
    ("FREQ=DAILY\nbackup\x00", "plain letters"),
    ("FREQ=DAILY;" + "X" * LONGEST, "characters"),
    ("\n".join(["FREQ=DAILY"] * (RULES_MOST + 1)), "at most"),
    ("FREQ=DAILY\n" + "EXDATE:20250101\n" * (DATES_MOST + 1), "calendar"),
    ("FREQ=DAILY\n" + "EXDATE:20250101\n" * 3000, "lines"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "said"), WRONG, ids=[text[:40] for text, _ in WRONG])
def test_what_is_wrong_is_named_with_what_would_be_right(text, said):
    with pytest.raises(ValueError, match="(?s)" + said.replace("?", "\\?")):
        read_rrule(text, None, NOW)


LINES = st.sampled_from(
    [*SAME, *(text for text, _ in WRONG if len(text) < 200), *(t for t, _ in README)]
)
PIECES = st.sampled_from(
    ["FREQ=DAILY", "FREQ=HOURLY", "COUNT=2", "UNTIL=2025", "BYDAY=1MO", "BYDAY=", "BYHOUR=,", "DTSTART=", "DTSTART", "TZID=UTC", "VALUE=DATE", "RDATE:", "EXDATE:", "EXRULE:", ":", "=", "\n", "20250101T000000", "Z"]
)  # fmt: skip


@given(st.text(max_size=60) | st.lists(PIECES, max_size=9).map("".join) | LINES)
@settings(max_examples=400, deadline=None)
@example("DTSTART=;FREQ=DAILY")
@example("DTSTART;TZID=:20250101T000000;FREQ=DAILY")
@example("FREQ=DAILY;DTSTART")
@example("DTSTART:00010101T000000Z\nFREQ=DAILY;COUNT=2")
@example("DTSTART:99991231T235959Z\nFREQ=SECONDLY;BYHOUR=3")
@example("DTSTART;TZID=Asia/Tokyo:00010101T000000\nFREQ=HOURLY")
def test_reading_raises_nothing_but_value_error(text):
    try:
        rule = judge(read_rrule(text, None, NOW), NOW)
    except ValueError:
        return
    rule.next(NOW)
    rule.explain()


# Judging ------------------------------------------------------------------------------------------

NEVER = [
    "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30",
    "FREQ=SECONDLY;BYMONTH=2;BYMONTHDAY=30",
    "FREQ=MINUTELY;BYMONTH=2;BYMONTHDAY=30;BYHOUR=1;BYMINUTE=1",
    "FREQ=SECONDLY;INTERVAL=60;BYSECOND=1",
    "FREQ=HOURLY;INTERVAL=24;BYHOUR=1",
    "FREQ=DAILY;INTERVAL=7;BYDAY=MO",
    "FREQ=DAILY\nEXRULE:FREQ=DAILY",
    "FREQ=SECONDLY\nEXRULE:FREQ=SECONDLY;INTERVAL=1",
    "FREQ=DAILY;COUNT=2\nEXDATE:20250101T083000Z,20250102T083000Z",
    "FREQ=DAILY;UNTIL=20241231",
]
DEAR = [
    "FREQ=DAILY\nEXRULE:FREQ=HOURLY",
    "FREQ=SECONDLY\nEXRULE:FREQ=SECONDLY;BYHOUR=" + ",".join(map(str, range(23))),
    "FREQ=MONTHLY;BYDAY=MO;BYSETPOS=6",
    "FREQ=MINUTELY;INTERVAL=7;BYHOUR=1;BYMINUTE=1;BYDAY=MO",
    "FREQ=SECONDLY;INTERVAL=7;BYHOUR=9;COUNT=1000000000",
    "\nRRULE:".join(f"FREQ=SECONDLY;INTERVAL={n}" for n in range(2, 7)),
]
FINE = [
    "FREQ=SECONDLY",
    "FREQ=SECONDLY;COUNT=100000000000",
    "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=29;BYDAY=MO",
    "FREQ=MINUTELY;INTERVAL=10007;BYHOUR=1;BYMINUTE=1;BYDAY=MO",
    "FREQ=MINUTELY;INTERVAL=7;BYHOUR=9,10,11;BYDAY=MO,TU",
    "FREQ=MINUTELY\nEXRULE:FREQ=HOURLY",
    "FREQ=DAILY;COUNT=3",
    "FREQ=HOURLY;BYMINUTE=0,20,40;BYSETPOS=2",
]


@pytest.mark.parametrize("text", NEVER)
def test_a_rule_without_any_instant_is_refused(text):
    with pytest.raises(ValueError, match="has no instant: "):
        judge(read_rrule(DTSTART + "RRULE:" + text, None, NOW), NOW)


@pytest.mark.parametrize("name", ["RRULE", "EXRULE"])
@pytest.mark.parametrize(
    "dead",
    ["FREQ=MONTHLY;BYDAY=-2MO;BYMONTHDAY=-7", "FREQ=MONTHLY;INTERVAL=2;BYMONTH=4",
     "FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30;UNTIL=20300101T000000Z"],
)  # fmt: skip
def test_a_rule_without_any_instant_is_refused_among_others_too(name, dead):
    with pytest.raises(ValueError, match="has one rule without an instant: "):
        judge(read_rrule(f"{DTSTART}RRULE:FREQ=DAILY\n{name}:{dead}", None, NOW), NOW)


@pytest.mark.parametrize("text", DEAR)
def test_a_rule_that_costs_too_much_is_refused(text):
    with pytest.raises(ValueError, match="costs too much to expand: "):
        judge(read_rrule(DTSTART + "RRULE:" + text, None, NOW), NOW)


@pytest.mark.parametrize("text", FINE)
def test_what_is_rare_or_old_or_over_is_accepted(text):
    rule = judge(read_rrule(DTSTART + "RRULE:" + text, None, NOW), NOW)
    assert rule.next(0) is not None


@pytest.mark.parametrize(
    ("exrule", "before", "after"),
    [
        ("FREQ=MINUTELY;INTERVAL=5;BYDAY=SA,SU", "2027-01-08T23:55:00Z", "2027-01-11T00:00:00Z"),
        ("FREQ=DAILY;BYHOUR=0;BYMINUTE=0", "2027-01-08T23:55:00Z", "2027-01-09T00:05:00Z"),
        ("FREQ=HOURLY;BYMINUTE=0,5,10,15,20,25,30,35,40,45,50,55;BYDAY=SA,SU",
         "2027-01-08T23:55:00Z", "2027-01-11T00:00:00Z"),
    ],
)  # fmt: skip
def test_what_an_exrule_takes_away_in_a_row_is_passed_over(exrule, before, after):
    text = f"{DTSTART}RRULE:FREQ=MINUTELY;INTERVAL=5\nEXRULE:{exrule}"
    rule = judge(read_rrule(text, None, NOW), at("2027-01-04T10:00:00Z"))
    low, high = at(before), at(after)

    assert rule.next(low) == high
    assert rule.last(0, high - 1) == low
    assert list(rule.between(low - 1, high)) == [low, high]
    assert rule.count(low - 1, high) == 2


def test_a_rule_that_another_season_makes_too_dear_is_refused():
    text = f"{DTSTART}RRULE:FREQ=MINUTELY;INTERVAL=2\nEXRULE:FREQ=MINUTELY;INTERVAL=2;BYMONTH=12"

    with pytest.raises(ValueError, match="costs too much to expand: "):
        judge(read_rrule(text, None, NOW), at("2027-02-04T10:00:00Z"))


def test_where_count_ends_is_stored_and_means_the_same():
    rule = read_rrule(DTSTART + "FREQ=DAILY;COUNT=1000\nEXRULE:FREQ=DAILY;COUNT=10", None, NOW)
    made = judge(rule, NOW)
    assert made.ends == (at("2027-09-27T08:30:00Z") // 1000, at("2025-01-10T08:30:00Z") // 1000)
    assert list(made.between(0, LAST)) == list(rule.between(0, LAST))
    assert made.count(0, LAST) == 990
    assert msgspec.json.decode(msgspec.json.encode(made), type=Trigger) == made


def test_a_rule_that_was_never_judged_gives_up_instead_of_hanging():
    rule = read_rrule(DTSTART + "FREQ=MONTHLY;BYDAY=MO;BYSETPOS=6", None, NOW)
    with pytest.raises(Costly):
        rule.next(NOW)


# Words and notes ----------------------------------------------------------------------------------

SAID = [
    (README[0][0], "Every day at 08:30"),
    (README[1][0], "Every Monday, Wednesday and Friday at 15:15"),
    (README[2][0], "Every month on the 1st and 15th at 10:00"),
    (README[3][0], "Every year on 25 December at 07:00"),
    (README[4][0], "Every day at 18:45, 5 times"),
    (README[5][0], "Every day at 17:00, until 2025-01-10 17:00 UTC"),
    (README[6][0], "Every 3 hours, from 2025-01-01 02:00"),
    (README[7][0], "Every month on the second Monday at 23:30"),
    (DTSTART + "FREQ=DAILY;INTERVAL=2;UNTIL=20250301", "Every 2 days at 08:30, until 2025-03-01"),
    (DTSTART + "FREQ=WEEKLY;BYDAY=MO,TU,WE,TH,FR;BYHOUR=9,17", "Every weekday at 09:30 and 17:30"),
    (DTSTART + "FREQ=WEEKLY;INTERVAL=2;BYDAY=FR", "Every 2 weeks on Friday at 08:30"),
    (DTSTART + "FREQ=MONTHLY;BYDAY=-1FR", "Every month on the last Friday at 08:30"),
    (DTSTART + "FREQ=MONTHLY;BYMONTHDAY=-1", "Every month on the last day at 08:30"),
    (DTSTART + "FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-1",
     "Every month on the last weekday at 08:30"),
    (DTSTART + "FREQ=MONTHLY;BYDAY=FR;BYMONTHDAY=13;COUNT=1",
     "Every month on the 13th if it is a Friday at 08:30, once"),
    (DTSTART + "FREQ=YEARLY;BYMONTH=6,7;BYDAY=TH",
     "Every year on every Thursday in June and July at 08:30"),
    (DTSTART + "FREQ=MINUTELY;BYHOUR=9,10,11,12;BYDAY=MO,TU,WE,TH,FR",
     "Every minute in hour 9 to 12, on weekdays"),
    (DTSTART + "FREQ=HOURLY;BYMINUTE=0,30", "Every hour at minute 0 and 30"),
    (DTSTART + "FREQ=DAILY;BYHOUR=1,2;BYSETPOS=-1",
     "Every day at 01:30 and 02:30, the last of these"),
    (DTSTART + "FREQ=DAILY\nRRULE:FREQ=YEARLY\nEXRULE:FREQ=WEEKLY\nRDATE:20250101\nEXDATE:20250203",
     ("Every day at 08:30; and every year on 1 January at 08:30; and on 1 date more;"
     " but not every Wednesday at 08:30 and not on 1 date")),
]  # fmt: skip


@pytest.mark.parametrize(("text", "said"), SAID, ids=[said for _, said in SAID])
def test_a_rule_is_put_in_words(text, said):
    assert read_rrule(text, None, NOW).explain() == said


@pytest.mark.parametrize("rule", [rule for rule, _ in RFC] + list(FINE + NEVER))
def test_every_rule_has_words(rule):
    said = read_rrule(DTSTART + "RRULE:" + rule, None, NOW).explain()
    assert said.startswith("Every")
    assert "  " not in said


BERLIN = "DTSTART;TZID=Europe/Berlin:20250101T000000\nRRULE:FREQ=DAILY;"
SPRING, AUTUMN = "2025-03-30", "2025-10-26"
NOTES = [
    ("shift", "first", "BYHOUR=2;BYMINUTE=30", SPRING,
     [("03:30", "02:30 does not exist on this day; fires at 03:30")]),
    ("end", "first", "BYHOUR=2;BYMINUTE=30", SPRING,
     [("03:00", "02:30 does not exist on this day; fires at 03:00")]),
    ("skip", "first", "BYHOUR=2;BYMINUTE=30", "2025-03-31",
     [("02:30", "before it, 02:30 does not exist on 2025-03-30; is dropped")]),
    ("shift", "first", "BYHOUR=2,3;BYMINUTE=30", SPRING,
     [("03:30", "02:30 does not exist on this day; fires once, with 03:30")]),
    ("end", "first", "BYHOUR=2,3;BYMINUTE=0,30", SPRING,
     [("03:00", "02:00 and 02:30 do not exist on this day; fire once, with 03:00"),
      ("03:30", None)]),
    ("end", "first", "BYHOUR=2;BYMINUTE=10,30", SPRING,
     [("03:00", "02:10 and 02:30 do not exist on this day; fire once, at 03:00")]),
    ("shift", "first", "BYHOUR=2;BYMINUTE=30", AUTUMN,
     [("02:30", "02:30 comes twice on this day; fires the first time")]),
    ("shift", "second", "BYHOUR=2;BYMINUTE=30", AUTUMN,
     [("02:30", "02:30 comes twice on this day; fires the second time")]),
    ("shift", "both", "BYHOUR=2;BYMINUTE=30", AUTUMN,
     [("02:30", "02:30 comes twice on this day; fires both times")] * 2),
    ("shift", "first", "BYHOUR=4", SPRING, [("04:00", None)]),
]  # fmt: skip


@pytest.mark.parametrize(("gap", "overlap", "clock", "day", "expected"), NOTES)
def test_what_daylight_saving_did_is_noted(gap, overlap, clock, day, expected):
    rule = read_rrule(BERLIN + clock, None, NOW, gap, overlap)
    zone = ZoneInfo("Europe/Berlin")
    begin = int(datetime.fromisoformat(day).replace(tzinfo=zone).timestamp()) * 1000
    found = list(rule.between(begin - 1, begin + 26 * 3_600_000))
    on = [each for each in found if f"{datetime.fromtimestamp(each / 1000, zone):%F}" == day]
    seen = [(f"{datetime.fromtimestamp(each / 1000, zone):%H:%M}", rule.note(each)) for each in on]
    assert seen == expected


OTHER_NOTES = [
    # An RDATE is a fixed time, too, in its own zone.
    ("shift", "first", "RDATE:20270328T023000", "2027-03-28T01:30:00Z",
     "02:30 does not exist on this day; fires at 03:30"),
    ("end", "first", "RDATE:20270328T023000,20270328T021500", "2027-03-28T01:00:00Z",
     "02:15 and 02:30 do not exist on this day; fire once, at 03:00"),
    ("skip", "first", "RDATE:20270328T023000,20270401T120000", "2027-04-01T10:00:00Z",
     "before it, 02:30 does not exist on 2027-03-28; is dropped"),
    ("shift", "second", "RDATE:20271031T023000", "2027-10-31T01:30:00Z",
     "02:30 comes twice on this day; fires the second time"),
    ("shift", "first", "RDATE;TZID=America/New_York:20270314T023000", "2027-03-14T07:30:00Z",
     "02:30 does not exist on this day; fires at 03:30"),
    ("shift", "first", "RDATE:20270328T033000", "2027-03-28T01:30:00Z", None),
    ("shift", "first", "RDATE:20270328T003000Z", "2027-03-28T00:30:00Z", None),
    # A rule that follows elapsed time, but names hours.
    ("shift", "first", "RRULE:FREQ=HOURLY;BYHOUR=2", "2027-10-31T00:30:00Z",
     "02:30 comes twice on this day; fires both times"),
    ("shift", "first", "RRULE:FREQ=HOURLY;BYHOUR=2", "2027-10-31T01:30:00Z",
     "02:30 comes twice on this day; fires both times"),
    ("shift", "first", "RRULE:FREQ=HOURLY;BYHOUR=2", "2027-03-29T00:30:00Z",
     "before it, 02:30 does not exist on 2027-03-28; is dropped"),
    ("shift", "first", "RRULE:FREQ=HOURLY;BYHOUR=2", "2027-03-30T00:30:00Z", None),
    ("shift", "first", "RRULE:FREQ=HOURLY;BYHOUR=2;BYDAY=MO", "2027-03-29T00:30:00Z", None),
    ("shift", "first", "RRULE:FREQ=MINUTELY;INTERVAL=20;BYHOUR=2,3", "2027-03-28T01:10:00Z",
     "before it, 02:10, 02:30 and 02:50 do not exist on this day; are dropped"),
    ("shift", "first", "RRULE:FREQ=MINUTELY;INTERVAL=7;BYHOUR=2", "2027-10-31T00:37:00Z", None),
]  # fmt: skip


@pytest.mark.parametrize(("gap", "overlap", "line", "when", "expected"), OTHER_NOTES)
def test_dates_and_named_hours_have_notes_too(gap, overlap, line, when, expected):
    start = "DTSTART;TZID=Europe/Berlin:20261201T023000\n"
    rule = read_rrule(start + line, None, NOW, gap, overlap)
    assert rule.next(at(when) - 1) == at(when)
    assert rule.note(at(when)) == expected


def test_a_day_that_never_was_is_noted():
    rule = read_rrule("DTSTART;TZID=Pacific/Apia:20111228T100000\nRRULE:FREQ=DAILY", None, NOW)
    days = first(rule.text, 4)
    assert [day[8:10] for day in days] == ["28", "29", "31", "01"]
    assert rule.note(at("2011-12-30T20:00:00Z")) == (
        "10:00 does not exist on 2011-12-30; fires once, with 10:00"
    )


def test_elapsed_time_has_no_notes():
    rule = read_rrule("DTSTART;TZID=Europe/Berlin:20250329T000000\nRRULE:FREQ=HOURLY", None, NOW)
    found = list(islice(rule.between(0, LAST), 48))
    assert [after - before for before, after in pairwise(found)] == [3_600_000] * 47
    assert {rule.note(each) for each in found} == {None}
