"""What can be said of each setting: its sentence, default, bounds and names; as a page, as a file.

The sentence is the docstring below the setting in settings.py.
"""

import ast
import inspect
import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import yaml

from scheduler import config
from scheduler import settings as tree
from scheduler.config import Settings
from scheduler.configvalues import expected

PAGE = Path("docs/configuration.md")
WIDTH = 96


class Described(msgspec.Struct, frozen=True):
    """One setting; `aliases` are its older names in the environment, `flag` may be empty."""

    section: str
    name: str
    words: str
    default: Any
    takes: str
    variable: str
    aliases: tuple[str, ...]
    flag: str

    @property
    def path(self) -> str:
        """Return `section.name`."""
        return f"{self.section}.{self.name}"


@cache
def _sentences() -> dict[str, dict[str, str]]:
    """Read what stands below each setting, by class and name."""
    found: dict[str, dict[str, str]] = {}
    for node in ast.parse(inspect.getsource(tree)).body:
        if isinstance(node, ast.ClassDef):
            below = zip(node.body, node.body[1:], strict=False)
            found[node.name] = {
                field.target.id: " ".join(str(text.value.value).split())
                for field, text in below
                if isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
            }
    return found


def sections() -> Iterator[tuple[str, str, list[Described]]]:
    """Yield each section's name, its sentence, and its settings."""
    defaults = Settings()
    for section in msgspec.structs.fields(Settings):
        about = " ".join((section.type.__doc__ or "").split())
        words = _sentences()[section.type.__name__]
        yield (
            section.name,
            about,
            [
                Described(
                    section.name,
                    field.name,
                    words.get(field.name, ""),
                    getattr(getattr(defaults, section.name), field.name),
                    expected(field.type),
                    config.environment_name(section.name, field.name),
                    tuple(
                        alias
                        for alias, path in config.ALIASES.items()
                        if path == f"{section.name}.{field.name}"
                    ),
                    config.FLAGS.get(f"{section.name}.{field.name}", ""),
                )
                for field in msgspec.structs.fields(section.type)
            ],
        )


# The page ----------------------------------------------------------------------------------------

HEAD = """# Configuration

One tree of settings, read from defaults, then a file, then the environment, then flags of `scheduler serve`; the later wins.

- The file is YAML: `scheduler --config FILE serve`, else `./config.yaml`, else `./config/config.yaml`.
- The environment name of `worker.max_retries` is `WORKER_MAX_RETRIES`, and so for every other. A list has commas: `EGRESS_DENY=10.0.0.0/8,*.internal`.
- A wrong name in the file or a wrong value anywhere stops the start, with its path and what was expected. A variable that is nearly one of these gets a warning with the right name.
- `scheduler config init` writes a file with all of them, `scheduler config check` reads one and says what is wrong with it, `scheduler config show` prints what is in force and where each value comes from, secrets masked.

```yaml
server:
  port: 9090
worker:
  count: 500
egress:
  deny: [10.0.0.0/8]
```

```
scheduler: config.yaml: there is no setting worker.cuont; did you mean worker.count?
scheduler: WORKER_MAX_RETRYS sets nothing; did you mean WORKER_MAX_RETRIES?
```

This page is written from `src/scheduler/settings.py` by `make docs`.
"""  # noqa: E501
FOOT = """
`MONGO_*`, `REDIS_*` and `RABBITMQ_*`, and the sections `mongo` and `redis` of a file, are ignored with a warning each: clients of older programs set them.
"""  # noqa: E501


def page() -> str:
    """Return docs/configuration.md."""
    parts = [HEAD]
    for name, about, settings in sections():
        parts.append(f"\n## {name}\n\n{about}\n\n")
        parts.append("| setting | environment | default | |\n| --- | --- | --- | --- |\n")
        parts += [
            f"| `{each.path}` | `{each.variable}` | {_shown(each.default)} | {_more(each)} |\n"
            for each in settings
        ]
    return "".join([*parts, FOOT])


def _shown(value: Any) -> str:
    if value in ("", []):
        return "none"
    return f"`{', '.join(value) if isinstance(value, list) else _scalar(value)}`"


def _scalar(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else json.dumps(value).strip('"')


def _more(each: Described) -> str:
    ends = [_takes(each).strip()] if _takes(each) else []
    ends += [f"Flag `{each.flag}`."] if each.flag else []
    ends += [f"Also `{alias}`." for alias in each.aliases]
    return " ".join([each.words, *ends])


def _takes(each: Described) -> str:
    return "" if each.takes == "text" else f"{each.takes[0].upper()}{each.takes[1:]}. "


# The file ----------------------------------------------------------------------------------------

TOP = """# Settings of the scheduler, each with its default. Take the # away from what you change.
# Read after this file, and so stronger: the environment (the name in capitals), then flags.
# `scheduler config check FILE` says what is wrong with it.
"""


def sample() -> str:
    """Return a file of every setting, each a comment with its default."""
    parts = [TOP]
    for name, about, settings in sections():
        parts += ["\n", *(f"# {line}\n" for line in _folded(_plain(about))), f"{name}:\n"]
        for each in settings:
            names = ", ".join(filter(None, [each.variable, *each.aliases, each.flag]))
            parts += [f"  # {line}\n" for line in _folded(_plain(each.words))]
            parts += [f"  # {line}\n" for line in _folded(f"{_takes(each)}{names}")]
            parts.append(f"  # {each.name}: {written(each.default)}\n\n")
    return "".join(parts).rstrip() + "\n"


def written(value: Any) -> str:
    """Return a value as YAML has it on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")


def _plain(text: str) -> str:
    """Take Markdown's links away: in a file they lead nowhere."""
    while (at := text.find("](")) >= 0:
        start, end = text.rindex("[", 0, at), text.index(")", at)
        text = f"{text[:start]}docs/{text[start + 1 : at]}{text[end + 1 :]}"
    return text


def _folded(text: str) -> list[str]:
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) >= WIDTH - 4:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


# What is in force --------------------------------------------------------------------------------


def in_force(settings: Settings, sources: Mapping[str, str], mask: str) -> str:
    """Return YAML of all settings, each line with where its value comes from."""
    lines = []
    for name, _, each in sections():
        lines.append(f"{name}:")
        for one in each:
            value = getattr(getattr(settings, name), one.name)
            shown = mask if one.path in config.SECRET and value else written(value)
            lines.append(f"{f'  {one.name}: {shown}':<48}  # {sources.get(one.path, 'default')}")
    return "\n".join(lines)


if __name__ == "__main__":  # make docs
    PAGE.write_text(page())
