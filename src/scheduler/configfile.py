"""The file of settings: found, read as YAML, and its names checked."""

import difflib
from collections.abc import Collection
from pathlib import Path
from typing import Any

import msgspec
import yaml

from scheduler.errors import StartupError

PLACES = ("config.yaml", "config/config.yaml")
"""Where a file is looked for that nobody named."""

Tree = dict[str, dict[str, Any]]


class Found(msgspec.Struct):
    """What a file says; `path` is None where there is none.

    `ignored` are sections passed by, `unknown` sentences on names that no setting has.
    """

    path: Path | None
    tree: Tree
    ignored: list[str]
    unknown: list[str]


class Loader(yaml.SafeLoader):
    """YAML without what makes a file say two things: a key that stands there twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002  (the library's own)
        """Read a mapping. Raises a YAMLError that names a second key and its line."""
        seen: set[Any] = set()
        for key, _ in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else None
            if name is not None and name in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"{name} stands there twice, again in line {key.start_mark.line + 1}"
                )
            seen.add(name)
        return super().construct_mapping(node, deep=deep)


def find(file: str | None) -> Path | None:
    """Return the file that is meant. Raises StartupError where one was named that is not there."""
    path = next((Path(p) for p in ([file] if file else PLACES) if Path(p).is_file()), None)
    if path is None and file:
        raise StartupError(
            f"{file}: there is no such file; `scheduler config init {file}` writes one"
        )
    return path


def read(file: str | None, known: Collection[str], ignored: Collection[str]) -> Found:
    """Read the file that is meant; `known` are the paths of all settings.

    Raises StartupError where it is no tree of sections and their settings.
    """
    path = find(file)
    if path is None:
        return Found(None, {}, [], [])
    shape = f"{path}: expected sections, each with its settings below it"
    tree = _parsed(path)
    if not isinstance(tree, dict):
        raise StartupError(shape)
    passed = sorted(section for section in tree if section in ignored)
    for section in passed:
        del tree[section]
    tree = {section: {} if values is None else values for section, values in tree.items()}
    if not all(isinstance(values, dict) for values in tree.values()):
        raise StartupError(shape)
    return Found(path, tree, passed, unknown(tree, known))


def _parsed(path: Path) -> Any:
    try:
        # A loader of our own, of the safe kind.
        return yaml.load(path.read_text(), Loader) or {}  # noqa: S506
    except RecursionError:
        raise StartupError(f"{path}: cannot be read as YAML: it is nested too deep") from None
    except (yaml.YAMLError, OSError, ValueError) as e:
        words = " ".join(str(e).split())
        raise StartupError(f"{path}: cannot be read as YAML: {words}") from None


def unknown(tree: Tree, known: Collection[str]) -> list[str]:
    """Return a sentence for each name that is none of a setting."""
    found = []
    for section, values in tree.items():
        for name in values:
            path = f"{section}.{name}"
            if path not in known:
                near = difflib.get_close_matches(path, known, n=1)
                hint = f"; did you mean {near[0]}?" if near else ""
                found.append(f"there is no setting {path}{hint}")
    return found
