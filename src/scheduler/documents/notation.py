"""Notation: the bytes of a document, in YAML or JSON, made into values that JSON can hold.

YAML is read event by event, so that nothing is built that was not counted: aliases are written out
as far as the limit on size goes, and no tag makes anything but text, numbers, lists and objects
(YAML 1.2, 10.3: `no` and dates are texts, and so are keys like 200).
"""

import json
import math
import re
from typing import Any

import msgspec
import yaml

from scheduler.documents.messages import Limits

QUOTED = 100
"""Characters of a document's own that a finding repeats at a time."""
PLACE = 500
Path = tuple[Any, ...]
"""Linked: `(the path above, key or index)`; empty at the top."""
TOP: Path = ()

NUMBERS = re.compile(r"[-+]?(?:[0-9]+|(\.[0-9]+|[0-9]+(?:\.[0-9]*)?)([eE][-+]?[0-9]+)?)")
OTHER_BASE = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
NO_NUMBER = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
WORDS = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip
FIRST = frozenset("0123456789+-.")
TAG = "tag:yaml.org,2002:"
TAGS = {None, "!", *(TAG + name for name in ("str", "int", "float", "bool", "null", "map", "seq"))}


class Wrong(ValueError):
    """What is wrong with a document, and where."""

    def __init__(self, path: Path, message: str) -> None:
        where = place(path)
        super().__init__(f"{where}: {message}" if where else message)


def quoted(text: object) -> str:
    """Return what a document says, as a finding repeats it: short, and on one line."""
    short = str(text)[: QUOTED + 1]
    clean = "".join(letter if letter.isprintable() else " " for letter in short)
    return clean if len(short) <= QUOTED else f"{clean[:QUOTED]}…"


def place(path: Path) -> str:
    """Write a path like `paths./pets.get.parameters[0]`."""
    steps = []
    while path:
        path, step = path
        steps.append(f"[{step}]" if isinstance(step, int) else f".{quoted(step)}")
    return "".join(reversed(steps)).removeprefix(".")[:PLACE]


def values(source: bytes, limits: Limits) -> Any:
    """Read a document. Raises Wrong."""
    if len(source) > limits.max_bytes:
        raise Wrong(TOP, f"is longer than {limits.max_bytes} bytes (specs.max_bytes)")
    try:
        text = source.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise Wrong(TOP, f"is not UTF-8 at byte {e.start}; save it as UTF-8") from None
    if text.lstrip()[:1] in ("{", "["):
        try:
            found = json.loads(text, object_pairs_hook=_object, parse_int=_integer)
        except json.JSONDecodeError:
            found = _Yaml(limits).read(text)  # lists and objects look like that in YAML, too
        except RecursionError:
            raise _too_deep(TOP, limits) from None
    else:
        found = _Yaml(limits).read(text)
    _check(found, limits)
    return found


class _Twice(dict[str, Any]):
    """An object that names a key twice."""

    key = ""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    seen: set[str] = set()
    twice = _Twice(found)
    twice.key = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
    return twice


def _integer(digits: str) -> int | float:
    try:
        return int(digits)
    except ValueError:  # more digits than Python converts; no number that JSON readers share
        return math.inf


def _check(value: Any, limits: Limits) -> None:
    """Raise Wrong for what JSON, or the database, cannot hold."""
    stack: list[tuple[Any, Path, int]] = [(value, TOP, 0)]
    while stack:
        one, path, depth = stack.pop()
        if isinstance(one, str):
            _check_text(one, path)
        elif isinstance(one, float):
            if not math.isfinite(one):
                raise Wrong(path, "is no number that JSON can hold; write a smaller one")
        elif isinstance(one, dict | list):
            if depth >= limits.max_depth:
                raise _too_deep(path, limits)
            if isinstance(one, _Twice):
                raise Wrong(path, f'names "{quoted(one.key)}" twice; keep one of them')
            for key, each in one.items() if isinstance(one, dict) else enumerate(one):
                if isinstance(key, str):
                    _check_text(key, path)
                stack.append((each, (path, key), depth + 1))


def _check_text(text: str, path: Path) -> None:
    if "\0" in text:
        raise Wrong(path, "holds the character U+0000; leave it out")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise Wrong(path, "holds half a surrogate pair; write the whole character") from None


def _too_deep(path: Path, limits: Limits) -> Wrong:
    return Wrong(path, f"is nested deeper than {limits.max_depth} (specs.max_depth)")


class _Anchor(msgspec.Struct):
    """What an alias stands for; `size` as `_Yaml.size`, `height` in levels below it."""

    value: Any
    size: int
    height: int


class _Open(msgspec.Struct):
    """A list or an object whose end has not come yet."""

    value: dict[str, Any] | list[Any]
    anchor: str | None
    size: int
    """Before it."""
    height: int = 1
    key: str | None = None
    """Of the value that comes next, in an object."""
    merging: bool = False
    """That value is merged into it (`<<`)."""
    merged: list[Any] = msgspec.field(default_factory=list)


class _Yaml:
    """One document on the way."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.size = 0
        """Of what was read, with its aliases written out: characters, and one for each value."""
        self.stack: list[_Open] = []
        self.anchors: dict[str, _Anchor | None] = {}
        self.found: list[Any] = []

    def read(self, text: str) -> Any:
        try:
            for event in yaml.parse(text, Loader=yaml.CSafeLoader):
                self._event(event)
        except yaml.MarkedYAMLError as e:
            mark = e.problem_mark or e.context_mark
            where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
            what = quoted(e.problem or e.context or "it cannot be read")
            raise Wrong(TOP, f"is neither YAML nor JSON{where}: {what}") from None
        except yaml.YAMLError as e:
            reason = quoted(getattr(e, "reason", e))
            raise Wrong(TOP, f"is neither YAML nor JSON: {reason}") from None
        return self.found[0] if self.found else None

    def _event(self, event: Any) -> None:
        if isinstance(event, yaml.ScalarEvent):
            self._tagged(event)
            self.size += len(event.value) + 1
            self._put(self._scalar(event), event.anchor, event)
        elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            self._start(event)
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            self._end()
        elif isinstance(event, yaml.AliasEvent):
            self._alias(event)
        elif isinstance(event, yaml.DocumentStartEvent) and self.found:
            raise Wrong(TOP, "holds more than one document; send one")

    def _path(self) -> Path:
        path = TOP
        for one in self.stack:
            step = len(one.value) if isinstance(one.value, list) else one.key
            path = path if step is None else (path, step)
        return path

    def _tagged(self, event: Any) -> None:
        if event.tag not in TAGS:
            tag = quoted(event.tag)
            raise Wrong(self._path(), f"has the tag {tag}; only those of JSON's own kinds are read")

    def _scalar(self, event: Any) -> Any:
        text: str = event.value
        plain = event.tag is None and event.implicit[0]
        if self._is_key() or not (plain or event.tag in TAGS - {None, "!", TAG + "str"}):
            return text
        if self._is_text():
            return text
        return self._plain(text)

    def _plain(self, text: str) -> Any:
        if text in WORDS:
            return WORDS[text]
        if text[0] not in FIRST:
            return text
        if (number := NUMBERS.fullmatch(text)) is not None:
            if number[1] is None or (number[2] is None and "." not in number[1]):
                return _integer(text)
            return float(text)
        if OTHER_BASE.fullmatch(text):
            return int(text, 0)
        return math.nan if NO_NUMBER.fullmatch(text) else text

    def _is_key(self) -> bool:
        top = self.stack[-1] if self.stack else None
        return top is not None and isinstance(top.value, dict) and top.key is None

    def _is_text(self) -> bool:
        """Tell whether this is a version or a title, where `1.0` is no number."""
        keys = [one.key for one in self.stack]
        return keys in (["openapi"], ["info", "version"], ["info", "title"])

    def _start(self, event: Any) -> None:
        self._tagged(event)
        if self._is_key():
            raise Wrong(self._path(), "has a key that is no text; JSON has only such")
        if len(self.stack) >= self.limits.max_depth:
            raise _too_deep(self._path(), self.limits)
        if event.anchor is not None:
            self.anchors[event.anchor] = None  # until its end has come
        value: dict[str, Any] | list[Any] = {}
        if isinstance(event, yaml.SequenceStartEvent):
            value = []
        self.size += 1
        self.stack.append(_Open(value, event.anchor, self.size - 1))

    def _end(self) -> None:
        one = self.stack.pop()
        if isinstance(one.value, dict):
            for other in one.merged:
                for key, value in other.items():
                    one.value.setdefault(key, value)
        if one.anchor is not None:
            self.anchors[one.anchor] = _Anchor(one.value, self.size - one.size, one.height)
        if self.stack:
            self.stack[-1].height = max(self.stack[-1].height, one.height + 1)
        self._put(one.value, None, None)

    def _alias(self, event: Any) -> None:
        anchor = self.anchors.get(event.anchor)
        name = quoted(event.anchor)
        if anchor is None:
            what = (
                "stands inside what it names" if event.anchor in self.anchors else "names nothing"
            )
            raise Wrong(self._path(), f"*{name} {what}; write it out")
        if self._is_key() and not isinstance(anchor.value, str):
            raise Wrong(self._path(), f"*{name} is no text, and a key must be one")
        self.size += anchor.size
        if self.size > self.limits.max_bytes:
            most = self.limits.max_bytes
            raise Wrong(TOP, f"is longer than {most} bytes with its aliases written out")
        if len(self.stack) + anchor.height > self.limits.max_depth:
            raise _too_deep(self._path(), self.limits)
        if self.stack:
            self.stack[-1].height = max(self.stack[-1].height, anchor.height + 1)
        self._put(anchor.value, None, None)

    def _put(self, value: Any, anchor: str | None, scalar: Any) -> None:
        if anchor is not None:
            self.anchors[anchor] = _Anchor(value, len(str(value)) + 1, 0)
        if not self.stack:
            self.found.append(value)
            return
        top = self.stack[-1]
        if isinstance(top.value, list):
            top.value.append(value)
        elif top.key is None:
            self._key(top, value, scalar)
        else:
            if top.merging:
                top.merged += self._mergeable(value)
            else:
                top.value[top.key] = value
            top.key, top.merging = None, False

    def _key(self, top: _Open, key: str, scalar: Any) -> None:
        if key in top.value:
            raise Wrong(self._path(), f'names "{quoted(key)}" twice; keep one of them')
        top.merging = key == "<<" and scalar is not None and bool(scalar.implicit[0])
        top.key = key

    def _mergeable(self, value: Any) -> list[Any]:
        parts = value if isinstance(value, list) else [value]
        if not all(isinstance(part, dict) for part in parts):
            raise Wrong(self._path(), "merges what is no object")
        return parts
