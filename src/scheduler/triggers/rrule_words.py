"""A recurrence set in words."""

import calendar
from collections.abc import Iterable, Sequence
from datetime import date
from itertools import product

from scheduler.triggers.rrule_days import days_of
from scheduler.triggers.rrule_parts import Parts
from scheduler.triggers.rrule_text import EPOCH_DAY, Text, read_stamp
from scheduler.triggers.zones import DAY

TIMES_MOST = 6
"""So many times of day are named one by one."""
UNITS = {
    "SECONDLY": "second",
    "MINUTELY": "minute",
    "HOURLY": "hour",
    "DAILY": "day",
    "WEEKLY": "week",
    "MONTHLY": "month",
    "YEARLY": "year",
}
PLACES = {1: "first", 2: "second", 3: "third", 4: "fourth", 5: "fifth", -1: "last"}
EVERY_WEEKDAY = tuple((0, day) for day in range(5))


def words(text: Text, start: int) -> str:
    """Return what a text says that begins at a wall time (s)."""
    said = [_rule(parts, start) for parts in text.rules]
    if text.rdates:
        said.append(f"on {_many(len(text.rdates), 'date')} more" if said else _dates(text))
    whole = "; and ".join([said[0], *(_small(each) for each in said[1:])])
    but = [_small(_rule(parts, start)) for parts in text.exrules]
    if text.exdates:
        but.append(f"on {_many(len(text.exdates), 'date')}")
    return whole + (f"; but not {' and not '.join(but)}" if but else "")


def _dates(text: Text) -> str:
    return f"On {_many(len(text.rdates), 'date')}"


def _small(said: str) -> str:
    return said[0].lower() + said[1:]


def _many(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _rule(parts: Parts, start: int) -> str:
    said = _elapsed(parts, start) if parts.elapsed else _dayed(parts, start)
    if parts.count is not None:
        said += ", once" if parts.count == 1 else f", {parts.count} times"
    if parts.until is not None:
        until = read_stamp("UNTIL", parts.until)
        said += f", until {_moment(until.wall, dated=until.dated)}{' UTC' if until.zone else ''}"
    return said


def _moment(wall: int, *, dated: bool = False) -> str:
    day = date.fromordinal(wall // DAY + EPOCH_DAY).isoformat()
    return day if dated else f"{day} {_face(wall)}"


def _face(wall: int) -> str:
    hour, minute, second = wall // 3600 % 24, wall // 60 % 60, wall % 60
    return f"{hour:02}:{minute:02}" + (f":{second:02}" if second else "")


def _every(parts: Parts) -> str:
    unit = UNITS[parts.freq]
    return f"Every {unit}" if parts.interval == 1 else f"Every {parts.interval} {unit}s"


def _elapsed(parts: Parts, start: int) -> str:
    """Say when a rule of HOURLY, MINUTELY or SECONDLY is due."""
    said = _every(parts)
    if parts.bysecond:
        said += f" at second {_ranges(parts.bysecond)}"
    if parts.byminute:
        said += f"{' of' if parts.bysecond else ' at'} minute {_ranges(parts.byminute)}"
    if parts.byhour:
        said += f" in hour {_ranges(parts.byhour)}"
    if parts.bysetpos:
        said += f", the {_listed(_place(n) for n in parts.bysetpos)} of each"
    days = _on(parts, start)
    said += f", {days}" if days else ""
    return said if parts.interval == 1 else f"{said}, from {_moment(start)}"


def _dayed(parts: Parts, start: int) -> str:
    """Say when a rule of DAILY or more is due."""
    days, at = _on(parts, start), _at(parts, start)
    if parts.freq == "WEEKLY" and parts.interval == 1 and not parts.bysetpos:
        month = f" in {_months(parts.bymonth)}" if parts.bymonth else ""
        plain = "weekday" if parts.byday == EVERY_WEEKDAY else _listed(_weekdays(parts, start))
        return f"Every {plain}{month}{at}"
    said = f"{_every(parts)}{' ' if days else ''}{days}{at}"
    if parts.bysetpos and not _picked(parts):
        said += f", the {_listed(_place(n) for n in parts.bysetpos)} of these"
    return said


def _weekdays(parts: Parts, start: int) -> Sequence[str]:
    named = days_of(parts, start // DAY).named.byday
    if not named:
        return ["day"] if parts.freq == "WEEKLY" else []
    return [_weekday(*each) for each in named]


def _weekday(ordinal: int, day: int) -> str:
    name = calendar.day_name[day]
    return f"the {_place(ordinal)} {name}" if ordinal else name


def _place(number: int) -> str:
    if number in PLACES:
        return PLACES[number]
    return _ordinal(number) if number > 0 else f"{_ordinal(-number)} to last"


def _ordinal(number: int) -> str:
    ending = "th" if 10 < number % 100 < 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def _on(parts: Parts, start: int) -> str:
    """Say on which days, of those that the frequency leaves."""
    named = days_of(parts, start // DAY).named
    months = parts.bymonth or (named.bymonth if len(named.bymonth) < 12 else ())
    said = []
    single = len(months) == 1 and named.bymonthday and min(named.bymonthday) > 0
    weekdays = _weekdays(parts, start)
    if single and not named.byday:
        month = calendar.month_name[months[0]]
        said.append(f"on {_listed(map(str, named.bymonthday))} {month}")
        months = ()
    elif named.bymonthday:
        said.append(f"on the {_listed(map(_month_day, named.bymonthday))}")
        said += [f"in {_months(months)}"] if months and named.byday else []
        months = () if named.byday else months
    if named.byyearday:
        said.append(f"on the {_listed(_place(n) for n in named.byyearday)} day of the year")
    if named.byday:
        said.append(_weekdays_on(parts, weekdays, beside=bool(said)))
    if named.byweekno:
        said.append(f"in week {_listed(map(str, named.byweekno))}")
    if months:
        said.append(f"in {_months(months)}")
    return " ".join(said)


def _picked(parts: Parts) -> bool:
    """Say whether BYSETPOS picks from the weekdays of a month, and from nothing else."""
    days = parts.byday and not any(ordinal for ordinal, _ in parts.byday)
    times = len(parts.byhour) < 2 and len(parts.byminute) < 2 and len(parts.bysecond) < 2
    plain = not (parts.bymonthday or parts.byyearday or parts.byweekno)
    return bool(parts.freq == "MONTHLY" and parts.bysetpos and days and times and plain)


def _weekdays_on(parts: Parts, names: Sequence[str], *, beside: bool) -> str:
    if _picked(parts):
        places = _listed(_place(n) for n in parts.bysetpos)
        if parts.byday == EVERY_WEEKDAY:
            return f"on the {places} weekday"
        return f"on the {places} {_listed(names, 'or')}"
    if parts.byday == EVERY_WEEKDAY:
        return "if it is a weekday" if beside else "on weekdays"
    if beside:
        return f"if it is a {_listed(names, 'or')}"
    if parts.freq in ("MONTHLY", "YEARLY") and not any(ordinal for ordinal, _ in parts.byday):
        return f"on every {_listed(names)}"
    return f"on {_listed(names)}"


def _month_day(day: int) -> str:
    return _ordinal(day) if day > 0 else f"{'' if day == -1 else _ordinal(-day) + ' to '}last day"


def _months(months: Iterable[int]) -> str:
    return _listed(calendar.month_name[month] for month in months)


def _at(parts: Parts, start: int) -> str:
    """Say at which times of day."""
    hours = parts.byhour or (start // 3600 % 24,)
    minutes = parts.byminute or (start // 60 % 60,)
    seconds = parts.bysecond or (start % 60,)
    if len(hours) * len(minutes) * len(seconds) <= TIMES_MOST:
        times = product(hours, minutes, seconds)
        return f" at {_listed(_face(h * 3600 + m * 60 + s) for h, m, s in times)}"
    said = f" at minute {_ranges(minutes)} of hour {_ranges(hours)}"
    return f" at second {_ranges(seconds)}, {said[4:]}" if seconds != (0,) else said


def _ranges(numbers: Sequence[int]) -> str:
    """Name numbers, three and more in a row as 9 to 17."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    said = (
        [f"{run[0]} to {run[-1]}"] if len(run) > 2 else [str(number) for number in run]
        for run in runs
    )
    return _listed(each for run in said for each in run)


def _listed(names: Iterable[str], word: str = "and") -> str:
    """Join names as a, b and c."""
    every = list(names)
    return f" {word} ".join([", ".join(every[:-1]), every[-1]] if len(every) > 1 else every)
