"""Who may run commands: the installation's word, the service's, and that of the system."""

import os
import shlex

from scheduler import config
from scheduler.actions import Command
from scheduler.definition import Definition
from scheduler.errors import Forbidden
from scheduler.service import Service


def check_command(
    of: Definition, service: Service, settings: config.Commands, *, root: bool | None = None
) -> None:
    """Raise Forbidden where a task is a command, and its service may not run any here.

    `root` says whether this process is root's; by default it is looked up.
    """
    refusal = _refusal(service, settings, root=os.geteuid() == 0 if root is None else root)
    if isinstance(of.action, Command) and refusal is not None:
        raise Forbidden(refusal)


def check_edit(
    before: Definition, after: Definition, service: Service, settings: config.Commands
) -> None:
    """Raise Forbidden where an edit leaves a command to be run that may not be.

    A command that may not run any more can still be paused, disabled and deleted.
    """
    if after.status == "active" or after.action != before.action:
        check_command(after, service, settings)


def _refusal(service: Service, settings: config.Commands, *, root: bool) -> str | None:
    if not settings.enabled:
        return "commands are switched off here; the setting commands.enabled switches them on"
    if not service.allow_commands:
        return (
            f"the service {service.name} may not run commands; `scheduler services update "
            f"{shlex.quote(service.name)} --allow-commands` lets it"
        )
    if not root and not settings.same_user:
        return (
            "the server is not root, so commands would run as its own user; "
            "the setting commands.same_user lets them"
        )
    return None
