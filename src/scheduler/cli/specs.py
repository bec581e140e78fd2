"""`scheduler specs`."""

import click

from scheduler.cli import Lazy

VERBS = {
    "add": ("spec_change:add", "Register an OpenAPI document under a name."),
    "list": ("spec_show:list_specs", "List specs, the newest first."),
    "get": ("spec_show:get", "Show a spec, or print its document."),
    "status": ("spec_show:status", "Say how far a spec is."),
    "operations": ("spec_show:operations", "List what can be called, and what cannot."),
    "update": ("spec_change:update", "Change what is given of a spec."),
    "review": ("spec_change:review", "Let a spec that waits for it be called."),
    "impact": ("spec_show:impact", "List the tasks that do not fit their spec any more."),
    "client": ("spec_show:package", "Download a typed Python client."),
    "delete": ("spec_change:delete", "Delete a spec."),
}


@click.group(
    "specs", cls=Lazy, table=VERBS, context_settings={"help_option_names": ["-h", "--help"]}
)
def specs_group() -> None:
    """APIs that are described by an OpenAPI document, and are called by a name.

    \b
      scheduler specs add openapi.yaml --name pets --header x-api-key=abc --wait
      scheduler specs operations pets
      scheduler processes run pets "GET /pets/{id}" -u id=7 --wait

    Each is meant by its name, or by its trace id.

    Exit codes: 0 done, 1 refused by the API or failed, 2 wrong usage, 3 the server cannot be
    reached, 130 interrupted.
    """
