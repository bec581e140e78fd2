"""`scheduler doctor`: what is wrong with this installation, and what to do."""

import asyncio
import sys
from pathlib import Path

import click
import msgspec

from scheduler import config
from scheduler.cli import plain
from scheduler.doctor.examine import examine
from scheduler.doctor.finding import Finding

WORDS = {"ok": ("ok", "green"), "warn": ("warn", "yellow"), "fail": ("FAIL", "red")}


@click.command()
@click.option("-o", "--output", type=click.Choice(["pretty", "json"]), default="pretty")
@click.option(
    "--credentials-file",
    type=click.Path(path_type=Path),
    help="The file that clients read; default credentials.json in the data directory.",
)
@click.pass_obj
def doctor(file: str | None, /, output: str, credentials_file: Path | None) -> None:
    """Say what is wrong with this installation, and what to do; exits 1 where something fails.

    Changes nothing, and takes a few seconds, also where the database is away.

    \b
    Examples:
      scheduler doctor
      scheduler doctor -o json | jq '.[] | select(.state != "ok")'
    """
    loaded = config.read(file=file)
    found = asyncio.run(examine(loaded, credentials_file))
    if output == "json":
        click.echo(msgspec.json.format(msgspec.json.encode(found)).decode())
    else:
        for each in found:
            _print(each)
    if any(each.state == "fail" for each in found):
        sys.exit(1)


def _print(each: Finding) -> None:
    word, colour = WORDS[each.state]
    click.echo(f"{click.style(f'{word:<5}', fg=colour)}{each.name:<22}{plain.word(each.said)}")
    if each.todo:
        click.echo(f"{'':<27}-> {plain.word(each.todo)}")
