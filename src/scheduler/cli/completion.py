"""`scheduler completion`: what a shell needs to complete commands, ids and words."""

import click
from click.shell_completion import get_completion_class

PROGRAMS = ("scheduler", "taskctl")
SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print what SHELL needs to complete `scheduler` and `taskctl`: commands, ids, states.

    \b
      bash:  source <(scheduler completion bash)          in ~/.bashrc
      zsh:   source <(scheduler completion zsh)           in ~/.zshrc, after compinit
      fish:  scheduler completion fish > ~/.config/fish/conf.d/scheduler.fish

    Ids of tasks come from the API, with the credentials of the environment or of the
    credentials file.
    """
    found = get_completion_class(shell)
    if found is None:
        raise click.UsageError(f"nothing is known of {shell}")
    for program in PROGRAMS:
        variable = f"_{program}_complete".upper()
        made = found(click.Command(program), {}, program, variable)
        click.echo(made.source_template % made.source_vars())
