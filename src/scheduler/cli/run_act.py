"""`scheduler runs replay|cancel`: one by its id, or many by a filter, counted first."""

from typing import Any

import click
import msgspec

from scheduler.cli import client
from scheduler.cli import output as out
from scheduler.cli.client import Api
from scheduler.cli.failures import Failed, Usage
from scheduler.cli.options import Sectioned, one_of, talks
from scheduler.cli.output import Output
from scheduler.cli.run_filters import read, run_filters, run_path
from scheduler.cli.task_show import Json, text

WAIT_S = 120.0
"""A call acts on up to 10,000 runs."""


class Done(msgspec.Struct):
    """What the API says of many; several answers are added up."""

    matched: int = 0
    more: bool = False
    done: int = 0
    aborted: int = 0
    refused: dict[str, int] = {}

    def add(self, other: "Done") -> None:
        """Count another answer in."""
        self.matched += other.matched
        self.done += other.done
        self.aborted += other.aborted
        self.more = other.more
        for why, many in other.refused.items():
            self.refused[why] = self.refused.get(why, 0) + many


def _which(command: Any) -> Any:
    command = click.option("-y", "--yes", is_flag=True, help="Do not ask.")(command)
    command = run_filters()(command)
    command = click.option(
        "-i", "--id", "named", metavar="RUN", help="The run's id, which may stand bare too."
    )(command)
    return click.argument("bare", metavar="[RUN]", required=False)(command)


@click.command(cls=Sectioned)
@_which
@Output
@talks
def replay(api: Api, bare: str | None, named: str | None, output: str, **more: Any) -> None:
    """Run again what has ended: a run by its id, or all that a filter means.

    \b
      scheduler runs replay 01a1fef5-f74f-86d0-9ea9-17673af662f2
      scheduler runs replay --task hello --state failed --from -1d
      scheduler runs replay --state failed,expired --yes

    The target sees the same id again, and the task runs as it stands now. Many are counted
    first, and you are asked.
    """
    _act(api, "replay", one_of(bare, named, "--id"), output, **more)


@click.command(cls=Sectioned)
@_which
@Output
@talks
def cancel(api: Api, bare: str | None, named: str | None, output: str, **more: Any) -> None:
    """End what is live: a run by its id, or all that a filter means.

    \b
      scheduler runs cancel 01a1fef5-f74f-86d0-9ea9-17673af662f2
      scheduler runs cancel --task hello --state scheduled
      scheduler runs cancel --task hello --yes

    What is under way is cut short, and may have arrived. Many are counted first, and you are
    asked.
    """
    _act(api, "cancel", one_of(bare, named, "--id"), output, **more)


def _act(
    api: Api, verb: str, run_id: str | None, output: str, *, yes: bool, **filters: Any
) -> None:
    which = read(filters)
    if bool(run_id) == bool(which):
        raise Usage(f"{verb} what? give a run's id, or filters like --task and --state: one")
    if run_id:
        _one(api, verb, run_id, output)
    else:
        _many(api, verb, which, output, yes=yes)


def _one(api: Api, verb: str, run_id: str, output: str) -> None:
    answer = api.ask("POST", f"{run_path(run_id)}/{verb}", wait_s=WAIT_S)
    if output == "json":
        out.print_json(answer.content)
        return
    run = api.read(answer, Json)
    of = f"{text(run, 'kind')} {text(run, 'trace_id')}" if run.get("trace_id") else ""
    of = of or f"task {text(run, 'task_id')}"
    said = f"Run {text(run, 'id')} of {of} is {text(run, 'state')}"
    ends = "; it is told to end" if verb == "cancel" and answer.status_code == 202 else ""
    out.say(f"{said}{ends}.")


def _many(api: Api, verb: str, which: Json, output: str, *, yes: bool) -> None:
    counted = _call(api, verb, {**which, "dry_run": True})
    if not counted.matched:
        _tell(counted, verb, output)
        return
    many = f"{counted.matched}{' or more' if counted.more else ''}"
    runs = "run" if many == "1" else "runs"
    # Those of later calls are not among what was counted; `more` is asked for once.
    if not yes and not out.ask(f"{verb.capitalize()} {many} {runs}?"):
        raise Failed("nothing was done")
    found = Done()
    with out.progress(f"{verb} {runs}", counted.matched) as bar:
        while True:
            step = _call(api, verb, which)
            found.add(step)
            bar.to(found.done + found.aborted, None if step.more else found.matched)
            # One that does nothing would do nothing again: a quota, or a task that is gone.
            if not step.more or not step.done + step.aborted or verb == "replay":
                break
    _tell(found, verb, output)


def _call(api: Api, verb: str, body: Json) -> Done:
    answer = api.ask("POST", f"/runs/{verb}", body=client.encoded(body), wait_s=WAIT_S)
    done: Done = api.read(answer, Done)
    return done


def _tell(found: Done, verb: str, output: str) -> None:
    if output == "json":
        out.print_json({"dry_run": False, **msgspec.to_builtins(found)})
    else:
        _words(found, verb)
    if found.refused or (found.more and verb == "replay"):
        raise Failed(_left(found))


def _words(found: Done, verb: str) -> None:
    past = {"replay": "replayed", "cancel": "cancelled"}[verb]
    if not found.matched:
        out.say(f"No run fits: nothing was {past}.")
        return
    aborted = f", {found.aborted} under way told to end" if found.aborted else ""
    out.say(f"{found.done} {past}{aborted}, of {found.matched}.")


def _left(found: Done) -> str:
    lines = [f"{many} stayed as they were: {why}" for why, many in found.refused.items()]
    if found.more:
        lines.append("there are more; say it again")
    return "\n  ".join(lines)
