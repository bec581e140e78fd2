"""`scheduler schedules create|update|delete|pause|resume`."""

from typing import Any

import click
import msgspec

from scheduler.cli import client, task_file
from scheduler.cli import output as out
from scheduler.cli.client import Api
from scheduler.cli.failures import Usage
from scheduler.cli.options import Sectioned, talks
from scheduler.cli.output import Output
from scheduler.cli.schedule_fields import schedule_flags, sent, which_schedule
from scheduler.cli.schedule_show import PATH, path_of


@click.command(cls=Sectioned)
@which_schedule(needed=False)
@schedule_flags
@Output
@talks
def create(api: Api, schedule_id: str | None, file: str | None, output: str, **given: Any) -> None:
    """Create a schedule. Without an id it gets one.

    \b
      scheduler schedules create -n "Daily backup" --rrule "FREQ=DAILY;INTERVAL=1" \\
          --callback-url http://127.0.0.1:9000/backup -H "Authorization: Bearer abc123" \\
          --json '{"task":"backup"}'
      scheduler schedules create --id standup --name Standup --timezone Europe/Berlin \\
          --rrule "DTSTART:20270104T091500\\nRRULE:FREQ=WEEKLY;BYDAY=MO,WE,FR" \\
          --callback-url http://127.0.0.1:9000/standup
      scheduler schedules create --file schedule.yaml
    """
    body = _body(file, given) | ({"id": schedule_id} if schedule_id else {})
    answer = api.ask("POST", PATH, body=client.encoded(body))
    if output == "json":
        out.print_json(answer.content)
        return
    out.say(f"Schedule {api.read(answer, _Created).id} is created.")


class _Created(msgspec.Struct):
    id: str


@click.command(cls=Sectioned)
@which_schedule(needed=False)
@schedule_flags
@Output
@talks
def update(api: Api, schedule_id: str | None, file: str | None, output: str, **given: Any) -> None:
    """Change exactly the fields that are given of a schedule.

    \b
      scheduler schedules update standup --rrule "FREQ=DAILY;BYHOUR=9"
      scheduler schedules update --id standup --callback-url http://127.0.0.1:9000/other
      scheduler schedules get standup -o json > standup.json
      scheduler schedules update --file standup.json

    A file may name the schedule by its `id`.
    """
    body = _body(file, given)
    schedule_id = schedule_id or _id_in(body)
    if not schedule_id:
        raise Usage("which schedule? give its id, bare, as --id, or in the file")
    body.pop("id", None)
    if not body:
        raise Usage("nothing to change: give at least one field, or --file")
    answer = api.ask("PUT", path_of(schedule_id), body=client.encoded(body))
    _done(answer.content, output, f"Schedule {schedule_id} is changed.")


def _body(file: str | None, given: dict[str, Any]) -> dict[str, Any]:
    return task_file.one(file, sent(given))


def _id_in(body: dict[str, Any]) -> str | None:
    found = msgspec.json.decode(msgspec.json.encode(body.get("id")))
    return found if isinstance(found, str) else None


@click.command(cls=Sectioned)
@which_schedule()
@Output
@talks
def delete(api: Api, schedule_id: str, output: str) -> None:
    """Delete a schedule and its events to come; what ran stays in `scheduler runs`.

    \b
      scheduler schedules delete standup
    """
    answer = api.ask("DELETE", path_of(schedule_id))
    _done(answer.content, output, f"Schedule {schedule_id} is deleted.")


@click.command(cls=Sectioned)
@which_schedule()
@Output
@talks
def pause(api: Api, schedule_id: str, output: str) -> None:
    """Pause a schedule: what would be due is not run, and not caught up.

    \b
      scheduler schedules pause standup

    `scheduler tasks pause` has --until.
    """
    _set(api, schedule_id, "paused", output)


@click.command(cls=Sectioned)
@which_schedule()
@Output
@talks
def resume(api: Api, schedule_id: str, output: str) -> None:
    """End a pause, or make a disabled schedule active again.

    \b
      scheduler schedules resume standup
    """
    _set(api, schedule_id, "active", output)


def _set(api: Api, schedule_id: str, status: str, shown: str) -> None:
    answer = api.ask("PUT", path_of(schedule_id), body=client.encoded({"status": status}))
    _done(answer.content, shown, f"Schedule {schedule_id} is {status}.")


def _done(answer: bytes, shown: str, sentence: str) -> None:
    if shown == "json":
        out.print_json(answer)
    else:
        out.say(sentence)
