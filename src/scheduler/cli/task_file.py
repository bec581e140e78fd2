"""Tasks from a file: JSON, YAML or a task a line, one or many."""

import re
from collections.abc import Iterable
from typing import Any

import msgspec
import yaml
from msgspec import Raw

from scheduler.cli.failures import Usage
from scheduler.cli.task_fields import Fields, read_file

RawFields = dict[str, Raw]
"""A task's fields as they are written: a number of 20 digits stays one."""
BOOL = "tag:yaml.org,2002:bool"
OTHER = ("tag:yaml.org,2002:timestamp", BOOL)


class Loader(yaml.CSafeLoader):
    """YAML in which a time is a text, and so is `no`: what they would be in JSON."""

    yaml_implicit_resolvers = {  # noqa: RUF012  (the library's own way)
        first: [(tag, pattern) for tag, pattern in found if tag not in OTHER]
        for first, found in yaml.CSafeLoader.yaml_implicit_resolvers.items()
    }


Loader.add_implicit_resolver(BOOL, re.compile(r"^(?:true|false)$"), ["t", "f"])


def read(path: str) -> RawFields | list[RawFields]:
    """Return the task that a file holds, or its tasks. Raises Usage."""
    text = read_file(path)
    where = "standard input" if path == "-" else path
    if not text.strip():
        raise Usage(f"{where} is empty: a task is JSON or YAML")
    try:
        return msgspec.json.decode(text, type=RawFields | list[RawFields])
    except msgspec.MsgspecError as e:
        why = str(e)
    except (UnicodeDecodeError, RecursionError) as e:
        raise Usage(f"{where} is no task: {e}") from None
    lines = [line for line in text.splitlines() if line.strip()]
    if lines[0].lstrip().startswith(b"{") and len(lines) > 1:
        return _lines(lines, where)
    if lines[0].lstrip()[:1] in (b"{", b"["):
        raise Usage(f"{where} is not the JSON of tasks: {why}")
    return _yaml(text, where)


def _lines(lines: Iterable[bytes], where: str) -> list[RawFields]:
    found = []
    for number, line in enumerate(lines, 1):
        try:
            found.append(msgspec.json.decode(line, type=RawFields))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as e:
            raise Usage(f"{where} is not a task a line: task {number}: {e}") from None
    return found


def _yaml(text: bytes, where: str) -> RawFields | list[RawFields]:
    try:
        documents = [each for each in yaml.load_all(text, Loader) if each is not None]
        if not documents:
            raise ValueError("it holds nothing")
        value: Any = documents[0] if len(documents) == 1 else documents
        return msgspec.json.decode(msgspec.json.encode(value), type=RawFields | list[RawFields])
    except (yaml.YAMLError, msgspec.MsgspecError, TypeError, ValueError, RecursionError) as e:
        said = " ".join(str(e).split())
        raise Usage(f"{where} is neither the JSON nor the YAML of tasks: {said}") from None


def one(path: str | None, fields: Fields) -> dict[str, Any]:
    """Return the task of a file, if there is one, with what flags give in its place.

    Raises Usage where the file holds several.
    """
    if path is None:
        return dict(fields)
    found = read(path)
    if isinstance(found, list):
        if len(found) != 1:
            raise Usage(f"the file holds {len(found)} tasks; this takes one")
        found = found[0]
    return merged(found, fields)


def merged(task: RawFields, fields: Fields) -> dict[str, Any]:
    """Return a task with what flags give in place of what it says."""
    rest = dict(task)
    if "header" in fields:  # `headers` says the same
        rest.pop("headers", None)
    return {**rest, **fields}
