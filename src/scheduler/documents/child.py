"""What the children of specs have in common: each ask has its CPU time, each error an answer."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from scheduler.answering import Spent, limited, serve
from scheduler.documents.messages import Answer, Ask, Asked, Finding, Said, Unasked
from scheduler.documents.notation import Wrong, quoted

RECURSION = 3000
"""Frames: values may be nested 500 deep, and a validator takes a few for each level."""
NEVER = ("socket.", "subprocess.", "os.exec", "os.fork", "os.posix_spawn", "os.system", "urllib.")
"""Beginnings of the names of events (PEP 578) that have no business here."""
ROOTS = tuple({str(Path(root)) for root in (sys.prefix, sys.base_prefix, *sys.path) if root})
"""Where libraries may still load what is theirs."""


def work(answer: Callable[[Ask], Answer], memory_bytes: int) -> None:
    """Answer asks until nobody asks any more."""
    decoder = msgspec.msgpack.Decoder(list[Asked])
    sys.setrecursionlimit(RECURSION)
    sys.addaudithook(_refuse)

    def said(sent: bytes) -> bytes:
        answers: list[Answer] = []
        last = False
        asked = decoder.decode(sent)
        for found, whole in _answers(answer, asked):
            answers.append(found)
            if not whole:  # what comes after it is for another child, and may be as long
                answers += [Unasked()] * (len(asked) - len(answers))
                last = True
                break
        return msgspec.msgpack.encode(Said(answers, last))

    serve(said, memory_bytes)


def _answers(answer: Callable[[Ask], Answer], asked: list[Asked]) -> Iterator[tuple[Answer, bool]]:
    for one in asked:
        try:
            with limited(one.seconds):
                found = answer(one.ask)
        except Spent:
            why = f"takes more than {one.seconds:g} seconds; send a smaller document"
            yield Finding(why, spent=True), False
        except MemoryError:
            why = "takes too much memory; send a smaller document"
            yield Finding(why, spent=True), False
        except RecursionError:
            yield Finding("is nested too deeply; send it with less in each other"), True
        except Wrong as e:
            yield Finding(str(e)), True
        except Exception as e:  # noqa: BLE001  # of a document that nobody thought of
            yield Finding(f"cannot be read ({quoted(f'{type(e).__name__}: {e}')})"), True
        else:
            yield found, True


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    """Have nothing be fetched, started or read because a document says so."""
    if event.startswith(NEVER):
        raise PermissionError(event)
    if event == "open" and not isinstance(arguments[0], int):
        path = os.path.normpath(os.fsdecode(arguments[0]))
        if not path.startswith(ROOTS):
            raise PermissionError(event)
