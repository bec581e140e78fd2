"""`scheduler calendars`: named sets of times that tasks keep clear of."""

import re
from collections.abc import Callable
from typing import Any

import click
import msgspec

from scheduler.cli import client
from scheduler.cli import output as out
from scheduler.cli.client import Api
from scheduler.cli.failures import Failed, Usage
from scheduler.cli.options import In, Sectioned, talks
from scheduler.cli.output import Listing, Output
from scheduler.cli.task_fields import read_file
from scheduler.cli.times import Time

Json = dict[str, Any]
Fields = dict[str, Any]
DAYS = ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")
WEEKLY = re.compile(r"([A-Za-z,\s-]+?)(?:\s+(\d\d:\d\d)\s*-\s*(\d\d:\d\d))?")
Which = click.argument("name")


@click.group("calendars", context_settings={"help_option_names": ["-h", "--help"]})
def calendars_group() -> None:
    """Calendars: days and hours in which tasks that name them are not run.

    \b
      scheduler calendars create holidays --date 2026-12-25 --ical holidays.ics
      scheduler calendars create nights --weekly "MON-FRI 22:00-06:00" --timezone Europe/Berlin
      scheduler calendars excluded holidays --from now --to +60d
      scheduler tasks update report --calendar holidays --calendar nights
    """


def _flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add a flag for each field of a calendar."""
    for option in (
        click.option("--ical", metavar="FILE", help="An iCalendar file; - for standard input."),
        click.option(
            "--weekly",
            multiple=True,
            metavar="'DAYS [HH:MM-HH:MM]'",
            help="Days of each week, or hours of them: 'SAT,SUN', 'MON-FRI 22:00-06:00'.",
        ),
        click.option(
            "--date",
            "dates",
            cls=In,
            fields=("dates",),
            multiple=True,
            metavar="DAY[/DAY]",
            help="A day, or the first and last of several: 2026-12-24/2026-12-26; repeatable.",
        ),
        click.option("--timezone", metavar="ZONE", help="Of days and hours; default UTC."),
        click.option("-d", "--description", help="What it is for."),
    ):
        command = option(command)
    return command


@calendars_group.command("create", cls=Sectioned)
@Which
@_flags
@Output
@talks
def create_calendar(api: Api, name: str, output: str, **given: Any) -> None:
    """Create a calendar."""
    body = client.encoded({"name": name, **_sent(given)})
    _show(api.ask("POST", "/calendars", body=body).content, output)


@calendars_group.command("list", cls=Sectioned)
@Output
@talks
def list_calendars(api: Api, output: str) -> None:
    """List the calendars, by name."""
    raw = api.get("/calendars")
    if output == "json":
        out.print_json(raw)
        return
    listing = Listing("Name", "Zone", "Dates", "Weekly", "Events", "Description")
    listing.add(
        [
            each["name"],
            each["timezone"],
            str(len(each["dates"])),
            str(len(each["weekly"])),
            str(each["events"]),
            each["description"] or "",
        ]
        for each in msgspec.json.decode(raw, type=list[Json])
    )


@calendars_group.command("get", cls=Sectioned)
@Which
@Output
@talks
def get_calendar(api: Api, name: str, output: str) -> None:
    """Show a calendar."""
    _show(api.get(_path(name)), output)


@calendars_group.command("update", cls=Sectioned)
@Which
@_flags
@click.option(
    "--unset", multiple=True, metavar="FIELD", help="Empty a field, like --unset ical; repeatable."
)
@Output
@talks
def update_calendar(api: Api, name: str, unset: tuple[str, ...], output: str, **given: Any) -> None:
    """Change what is given of a calendar; --date and --weekly replace all there are."""
    fields: Fields = {**_sent(given), **dict.fromkeys(unset)}
    if not fields:
        raise Usage("update what? give a flag, like --date 2026-12-25")
    _show(api.ask("PUT", _path(name), body=client.encoded(fields)).content, output)


@calendars_group.command("delete", cls=Sectioned)
@Which
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@talks
def delete_calendar(api: Api, name: str, *, yes: bool) -> None:
    """Delete a calendar that no task names."""
    api.get(_path(name))
    if not yes and not out.ask(f"Delete the calendar {name}?"):
        raise Failed("nothing was done")
    api.ask("DELETE", _path(name))
    out.say(f"{name} is deleted.")


@calendars_group.command("excluded", cls=Sectioned)
@Which
@click.option("-f", "--from", "since", cls=In, fields=("from",), type=Time(), help="Default now.")
@click.option(
    "-t", "--to", "until", cls=In, fields=("to",), type=Time(), help="Default 365 days later."
)
@Output
@talks
def list_excluded(api: Api, name: str, since: str | None, until: str | None, output: str) -> None:
    """List the times that a calendar excludes, the first 1,000."""
    raw = api.get(f"{_path(name)}/excluded", {"from": since, "to": until})
    if output == "json":
        out.print_json(raw)
        return
    found = msgspec.json.decode(raw, type=list[Json])
    if not found:
        out.say("Nothing is excluded.")
        return
    listing = Listing("From", "To", "From there", "To there", spare=("From there", "To there"))
    listing.add([each["from"], each["to"], each["local_from"], each["local_to"]] for each in found)


def _path(name: str) -> str:
    return f"/calendars/{client.part(name)}"


def _sent(given: dict[str, Any]) -> Fields:
    """Return the fields that flags give. Raises Usage."""
    fields: Fields = {name: value for name, value in given.items() if value not in (None, ())}
    if "dates" in fields:
        fields["dates"] = [_dates(text) for text in fields["dates"]]
    if "weekly" in fields:
        fields["weekly"] = [_weekly(text) for text in fields["weekly"]]
    if "ical" in fields:
        try:
            fields["ical"] = read_file(fields["ical"]).decode()
        except UnicodeDecodeError:
            raise Usage(f"{given['ical']} is not UTF-8 text, as an iCalendar file is") from None
    return fields


def _dates(text: str) -> str | dict[str, str]:
    first, slash, last = text.partition("/")
    return {"from": first, "to": last} if slash else first


def _weekly(text: str) -> Fields:
    found = WEEKLY.fullmatch(text.strip())
    if found is None:
        raise Usage("--weekly is days and perhaps hours, like 'SAT,SUN' or 'MON-FRI 22:00-06:00'")
    days, start, end = found.groups()
    fields: Fields = {"days": [day for part in days.split(",") for day in _days(part.strip())]}
    return fields | ({"from": start, "to": end} if start else {})


def _days(part: str) -> list[str]:
    """Return the days of one name, or from one to another, over the weekend if need be."""
    first, dash, last = (each.strip().upper() for each in part.partition("-"))
    if not dash:
        return [first]
    if first not in DAYS or last not in DAYS:
        raise Usage(f"--weekly knows the days {', '.join(DAYS)}, and not {part}")
    begin, length = DAYS.index(first), (DAYS.index(last) - DAYS.index(first)) % 7 + 1
    return [DAYS[(begin + n) % 7] for n in range(length)]


def _show(raw: bytes, output: str) -> None:
    """Print a calendar."""
    if output == "json":
        out.print_json(raw)
        return
    each = msgspec.json.decode(raw, type=Json)
    out.card(
        [
            ("Name", each["name"]),
            ("Description", each["description"]),
            ("Zone", each["timezone"]),
            ("Dates", ", ".join(map(_dates_text, each["dates"])) or None),
            ("Weekly", "; ".join(map(_week_text, each["weekly"])) or None),
            ("Events", str(each["events"]) if each["events"] else None),
            ("Created", each["created_at"]),
            ("Updated", each["updated_at"]),
        ]
    )


def _dates_text(each: Any) -> str:
    return each if isinstance(each, str) else f"{each['from']}/{each['to']}"


def _week_text(each: Json) -> str:
    hours = f" {each['from']}-{each['to']}" if each["from"] else ""
    return ",".join(each["days"]) + hours
