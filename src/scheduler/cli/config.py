"""`scheduler config`: the settings in force, a file of all of them, and what is wrong with one."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import click

from scheduler import config, configpage, opening
from scheduler.cli.flags import config_flags, paths
from scheduler.config import Loaded, Source
from scheduler.errors import StartupError
from scheduler.masking import MASK


@click.group("config")
def config_group() -> None:
    """Show the settings in force, or write a file of them."""


@config_group.command("show")
@click.option("-o", "--output", type=click.Choice(["pretty", "json"]), default="pretty")
@config_flags()
@click.pass_obj
def show(file: str | None, /, output: str, **flags: Any) -> None:
    """Print the settings in force, and where each comes from. Secrets are masked.

    Takes the flags of `scheduler serve`, to see what they would do.

    \b
    Examples:
      scheduler config show
      scheduler config show -o json | jq '.settings."worker.count"'
    """
    loaded = config.read(file=file, flags=paths(flags))
    _say(loaded)
    if output == "json":
        click.echo(json.dumps(_told(loaded), indent=2))
        return
    where = f"the file {loaded.file}" if loaded.file else "no file"
    click.echo(f"# In force, from {where}, the environment and flags")
    sources = {path: _source(source) for path, source in loaded.sources.items()}
    click.echo(configpage.in_force(loaded.settings, sources, f"'{MASK}'"))


def _say(loaded: Loaded) -> None:
    for note in loaded.notes:
        click.echo(f"scheduler: {note}", err=True)


def _source(source: Source) -> str:
    return {"environment": source.name, "alias": f"{source.name} (an older name)"}.get(
        source.kind, f"{source.kind} {source.name}"
    )


def _told(loaded: Loaded) -> dict[str, Any]:
    told = {}
    for section, name, _ in config.paths():
        path = f"{section}.{name}"
        value = getattr(getattr(loaded.settings, section), name)
        source = loaded.sources.get(path, Source("default"))
        told[path] = {
            "value": MASK if path in config.SECRET and value else value,
            "source": source.kind,
            "name": source.name or None,
            "environment": config.environment_name(section, name),
        }
    return {"file": str(loaded.file) if loaded.file else None, "settings": told}


@config_group.command("init")
@click.argument("file", type=click.Path(path_type=Path), default="config.yaml")
@click.option("--force", is_flag=True, help="Write over a file that is there.")
def init(file: Path, *, force: bool) -> None:
    """Write FILE (default config.yaml) with every setting as a comment."""
    flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if force else os.O_EXCL)
    try:
        # Readable by its owner alone: secrets may be put into it.
        with os.fdopen(os.open(file, flags, 0o600), "w") as opened:
            opened.write(configpage.sample())
    except FileExistsError:
        raise StartupError(f"{file} is there already; --force writes over it") from None
    except OSError as e:
        raise StartupError(f"{file} cannot be written: {e.strerror}") from None
    click.echo(f"{file} is written; every setting in it is a comment with its default.")


@config_group.command("check")
@click.argument("checked", metavar="[FILE]", required=False)
@click.pass_obj
def check(file: str | None, checked: str | None) -> None:
    """Say what is wrong with FILE, or with the settings in force; exits 1 where something is.

    With FILE the environment is left out; without it the file in use is read, and then the
    environment.
    """
    try:
        loaded = config.read(file=checked or file, environ={} if checked else os.environ)
        if not loaded.wrong:
            opening.judge(loaded.settings)
    except StartupError as e:
        click.echo(str(e))
        sys.exit(1)
    for line in [*loaded.wrong, *loaded.notes]:
        click.echo(line)
    if loaded.wrong:
        sys.exit(1)
    count = len(loaded.sources)
    words = f"{count} {'setting' if count == 1 else 'settings'}, all right"
    click.echo(f"{loaded.file or 'the environment'}: {words}")
