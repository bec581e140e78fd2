"""`scheduler tasks create|update|delete|pause|resume`."""

from typing import Any

import click
import msgspec

from scheduler.cli import client, output, task_file, task_many
from scheduler.cli.client import Api
from scheduler.cli.failures import Usage
from scheduler.cli.options import Sectioned, talks, talks_of_task, which_task
from scheduler.cli.output import Output
from scheduler.cli.task_fields import sent, task_flags
from scheduler.cli.task_show import show
from scheduler.cli.times import Time


@click.command(cls=Sectioned)
@which_task(needed=False)
@task_flags
@Output
@talks_of_task
def create(api: Api, task_id: str | None, file: str | None, output: str, **given: Any) -> None:
    """Create a task. Without an id it gets one.

    \b
      scheduler tasks create --id hello --name "Say hello" \\
          --url http://127.0.0.1:9000/hello --frequency 10 --unit second
      scheduler tasks create report --name "Morning report" \\
          --url http://127.0.0.1:9000/hello --cron "30 7 * * MON-FRI" \\
          --timezone Europe/Berlin -H "X-From: scheduler" --tag daily
      scheduler tasks create -n "Feed 7" --service pets --endpoint "POST /pets/{id}/meals" \\
          -u id=7 -q size=large -H "X-From: scheduler" --body '{"food": "hay"}' --cron "0 8 * * *"
      scheduler tasks create -n Later --url http://127.0.0.1:9000/hello -t +10m
      scheduler tasks create --file task.yaml --status paused
      scheduler tasks create --file - < many.ndjson

    A file that holds a list, or a task a line, creates all of them; all or none, up to 10,000
    tasks and 4 MB, and what is more in further requests.

    Times are RFC 3339 with an offset, or like now, +10m, -2h, "in 1h30m", "1d ago".

    --url is what the task calls. The API is --server; only where --service-id or --token stand
    on the line, without --server and SCHEDULER_URL, the first --url is the API's, as in every
    other command, and a second one the task's.
    """
    fields = sent(given)
    found = task_file.read(file) if file is not None else {}
    if isinstance(found, list):
        if task_id:
            raise Usage("--id is of one task, and the file holds a list")
        task_many.create(api, [task_file.merged(each, fields) for each in found], output)
        return
    fields |= {"id": task_id} if task_id else {}
    body = client.encoded(task_file.merged(found, fields))
    show(api.ask("POST", "/tasks", body=body), output, "created")


@click.command(cls=Sectioned)
@which_task(needed=False)
@task_flags
@Output
@talks_of_task
def update(api: Api, task_id: str | None, file: str | None, output: str, **given: Any) -> None:
    """Change exactly the fields that are given of a task.

    \b
      scheduler tasks update hello --name "Say hello twice"
      scheduler tasks update --id hello --cron "0 9 * * *" --timezone Europe/Berlin
      scheduler tasks update hello --status paused
      scheduler tasks update hello --unset description --max-retries 5
      scheduler tasks get hello -o json > hello.json
      scheduler tasks update --file hello.json

    A trigger flag replaces the whole trigger. A file may name the task by its `id`.

    --url is what the task calls, and the API is --server, as in `create --help`.
    """
    body = task_file.one(file, sent(given))
    task_id = task_id or _id_in(body)
    if not task_id:
        raise Usage("which task? give its id, bare, as --id, or in the file")
    if not body:
        raise Usage("nothing to change: give at least one field, or --file")
    body.pop("id", None)
    answer = api.ask("PATCH", f"/tasks/{client.part(task_id)}", body=client.encoded(body))
    show(answer, output, "changed")


def _id_in(body: dict[str, Any]) -> str | None:
    found = msgspec.json.decode(msgspec.json.encode(body.get("id")))
    return found if isinstance(found, str) else None


@click.command(cls=Sectioned)
@which_task()
@Output
@talks
def delete(api: Api, task_id: str, output: str) -> None:
    """Delete a task and its future runs; its history stays.

    \b
      scheduler tasks delete hello
      scheduler tasks delete --id hello
    """
    answer = api.ask("DELETE", f"/tasks/{client.part(task_id)}")
    _done(answer.content, output, f"Task {task_id} is deleted.")


@click.command(cls=Sectioned)
@which_task()
@click.option("--until", "paused_until", type=Time(), help="When it resumes by itself.")
@Output
@talks
def pause(api: Api, task_id: str, paused_until: str | None, output: str) -> None:
    """Pause a task: what would be due is not run, and not caught up.

    \b
      scheduler tasks pause hello
      scheduler tasks pause hello --until +2h
    """
    fields = {"paused_until": paused_until} if paused_until else {"status": "paused"}
    answer = _change(api, task_id, fields)
    until = f" until {paused_until}" if paused_until else ""
    _done(answer, output, f"Task {task_id} is paused{until}.")


@click.command(cls=Sectioned)
@which_task()
@Output
@talks
def resume(api: Api, task_id: str, output: str) -> None:
    """End a pause, or make a disabled task active again.

    \b
      scheduler tasks resume hello
    """
    answer = _change(api, task_id, {"status": "active"})
    _done(answer, output, f"Task {task_id} is active.")


def _change(api: Api, task_id: str, fields: dict[str, Any]) -> bytes:
    path = f"/tasks/{client.part(task_id)}"
    return api.ask("PATCH", path, body=client.encoded(fields)).content


def _done(answer: bytes, shown: str, sentence: str) -> None:
    if shown == "json":
        output.print_json(answer)
    else:
        output.say(sentence)
