"""`scheduler processes run`."""

import secrets
from typing import Any

import click

from scheduler.cli import client, completers
from scheduler.cli import output as out
from scheduler.cli.client import Api
from scheduler.cli.options import In, Sectioned, talks_of_task
from scheduler.cli.output import Output
from scheduler.cli.process_fields import body_of, endpoint_of, pairs
from scheduler.cli.process_show import PATH, print_answer
from scheduler.cli.spec_change import headers_of
from scheduler.cli.task_show import Json, text
from scheduler.cli.times import Time

WITH, HOW = "What it is called with", "How it runs"


@click.command(cls=Sectioned)
@click.argument("service", shell_complete=completers.spec_names)
@click.argument("endpoint", metavar="'METHOD /PATH'")
@click.option(
    "-q",
    "--query",
    "query_params",
    multiple=True,
    cls=In,
    section=WITH,
    metavar="NAME=TEXT",
    help="A query parameter, NAME:=JSON for what is no text; repeated, an array.",
)
@click.option(
    "-u",
    "--path",
    "url_params",
    multiple=True,
    cls=In,
    section=WITH,
    metavar="NAME=TEXT",
    help="A part of the path, likewise.",
)
@click.option(
    "-H",
    "--header",
    "headers",
    multiple=True,
    cls=In,
    section=WITH,
    metavar="NAME=VALUE",
    help="A header, in place of the spec's of this name; repeatable.",
)
@click.option(
    "-d",
    "--data",
    cls=In,
    section=WITH,
    fields=("req_body",),
    metavar="JSON|@FILE",
    help="The body; @- reads it from standard input.",
)
@click.option(
    "--text",
    "words",
    cls=In,
    section=WITH,
    fields=(),
    metavar="TEXT|@FILE",
    help="The body where it is a text, or base64 of binary data.",
)
@click.option(
    "--url",
    multiple=True,
    cls=In,
    section=WITH,
    fields=("url",),
    help="Where the API is, whatever its document says.",
)
@click.option("--max-retries", type=int, cls=In, section=HOW, metavar="N", help="After the first.")
@click.option(
    "--timeout",
    "timeout_seconds",
    type=float,
    cls=In,
    section=HOW,
    fields=("timeout_seconds",),
    metavar="SECONDS",
    help="Of one attempt; default 3,600.",
)
@click.option(
    "--at",
    "scheduled_at",
    type=Time(),
    cls=In,
    section=HOW,
    fields=("scheduled_at",),
    metavar="TIME",
    help="Not before; RFC 3339 with an offset, or like +10m.",
)
@click.option(
    "--callback",
    "callback_url",
    cls=In,
    section=HOW,
    fields=("callback_url",),
    metavar="URL",
    help="Is told of the end, by a signed POST.",
)
@click.option(
    "--cache/--no-cache",
    default=None,
    cls=In,
    section=HOW,
    help="Whether an answer that is kept will do; default for GET and HEAD.",
)
@click.option(
    "--priority",
    type=int,
    cls=In,
    section=HOW,
    metavar="N",
    help="-100 to 100; higher goes first.",
)
@click.option("--wait", is_flag=True, help="Wait for its end, and print the answer.")
@Output
@talks_of_task
def run(
    api: Api,
    service: str,
    endpoint: str,
    output: str,
    *,
    wait: bool,
    data: str | None,
    words: str | None,
    **given: Any,
) -> None:
    """Call an endpoint of a spec by its name; prints the trace id, or with --wait the answer.

    \b
      scheduler processes run pets "GET /pets" -q limit:=10 -q tag=new --wait
      scheduler processes run pets "GET /pets/{id}" -u id=7 -H x-api-key=abc
      scheduler processes run pets "POST /pets" -d '{"name": "Tom"}' --max-retries 3
      scheduler processes run pets "PUT /pets/{id}" -u id=7 -d @tom.json --at +1h

    With --wait the answer is printed byte for byte, and this exits 1 where the call ends in ERROR;
    interrupted, the call goes on. --url is where the called API is, and this server's is --server.
    """
    method, path = endpoint_of(endpoint)
    body: Json = {"service": service, "method": method, "endpoint": path}
    for name, flag in (("query_params", "--query"), ("url_params", "--path")):
        found = pairs(given.pop(name), flag)
        body |= {name: found} if found else {}
    headers = headers_of(given.pop("headers"))
    body |= {"headers": headers} if headers else {}
    body |= body_of(data, words)
    body |= {name: value for name, value in given.items() if value is not None}
    # Of two that are the same request, sent again by something on the way, one call is made.
    key = secrets.token_hex(16)
    answer = api.ask("POST", PATH, body=client.encoded(body), key=key)
    made = api.read(answer, Json)
    if wait:
        print_answer(api, text(made, "trace_id"))
    elif output == "json":
        out.print_json(answer.content)
    else:
        out.say(text(made, "trace_id"))
