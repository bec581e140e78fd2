"""Many tasks at once: as few requests as the API's limits allow."""

from collections.abc import Iterator, Sequence
from typing import Any

import click
import msgspec

from scheduler.cli import client, output
from scheduler.cli.client import Api, ApiRefused
from scheduler.cli.failures import Failed

MOST = 10_000
BYTES = 4_000_000
"""Below the server's own limit on a body, as it is set by default."""


class Created(msgspec.Struct):
    """What bulk creates made, together."""

    created: int
    ids: list[str]


def create(api: Api, tasks: Sequence[dict[str, Any]], shown: str) -> None:
    """Create tasks, and print how many, or the API's answer. Raises Refused."""
    if not tasks:
        raise Failed("there are no tasks in the file")
    texts = [client.encoded(each) for each in tasks]
    made = Created(0, [])
    with output.progress("creating tasks", len(texts)) as bar:
        pieces = list(_pieces(texts, BYTES))
        while pieces:
            piece = pieces.pop(0)
            try:
                answer = _send(api, piece)
            except ApiRefused as e:
                if e.status == 413 and len(piece) > 1:
                    pieces[:0] = [piece[: len(piece) // 2], piece[len(piece) // 2 :]]
                    continue
                raise _told(e, made.created) from None
            made.created += answer.created
            made.ids += answer.ids
            bar.to(made.created)
    if shown == "json":
        output.print_json(made)
        return
    click.echo(f"{made.created} task{'s' if made.created > 1 else ''} created.")


def _send(api: Api, piece: Sequence[bytes]) -> Created:
    body = b"[" + b",".join(piece) + b"]"
    found: Created = api.read(api.ask("POST", "/tasks/bulk", body=body, wait_s=120), Created)
    return found


def _pieces(texts: Sequence[bytes], most: int) -> Iterator[list[bytes]]:
    piece, size = list[bytes](), 0
    for text in texts:
        if piece and (len(piece) == MOST or size + len(text) > most):
            yield piece
            piece, size = [], 0
        piece.append(text)
        size += len(text) + 1
    yield piece


def _told(error: ApiRefused, before: int) -> ApiRefused:
    """Name places by the whole file, and say what is there already."""
    if before:
        for detail in error.error.details:
            place, bracket, rest = detail.field.removeprefix("[").partition("]")
            if bracket and place.isdecimal():
                detail.field = f"[{int(place) + before}]{rest}"
        error.say_besides(f"the first {before} tasks of the file were created before it")
    return error
