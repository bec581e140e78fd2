"""Parameters back from a request as it would be sent: texts, in the shape that a schema asks for.

The opposite of `styles`, and it shares nothing with it: what was written wrong must not be read
right.
"""

import re
from typing import Any, Literal
from urllib.parse import unquote, unquote_plus

Form = Literal["one", "array", "object"]
Pairs = list[tuple[str, str]]
"""Names, and values as they are encoded."""
Text = Any
"""A text, a list of texts, or an object of texts (`deepObject`: of any of these)."""
SEPARATORS = {
    "spaceDelimited": re.compile(r"%20|\+| "),
    "pipeDelimited": re.compile(r"%7[Cc]|\|"),
}
COMMA = re.compile(",")
BRACKETS = re.compile(r"\[([^\]]*)\]")


class Missing(Exception):
    """Nothing was sent."""


class Unread(Exception):
    """What was sent cannot be told from other things that are sent in the same place."""


def pairs(query: str) -> Pairs:
    """Return what a query or a form holds (application/x-www-form-urlencoded)."""
    parts = [each.partition("=") for each in query.split("&") if each]
    return [(unquote_plus(name), value) for name, _, value in parts]


def cookies(header: str) -> Pairs:
    """Return what a Cookie header holds (RFC 6265, 4.2)."""
    parts = [each.strip().partition("=") for each in header.split(";") if each.strip()]
    return [(unquote(name), value) for name, _, value in parts]


def in_pairs(
    sent: Pairs, name: str, style: str, form: Form, properties: set[str], *, explode: bool
) -> Text:
    """Return a parameter of a query, form or cookie. Raises Missing where it is not there.

    `properties` are those of its schema: an exploded object has no other mark. Raises Unread for
    one that names none.
    """
    if style == "deepObject" and (form == "object" or _is_deep(sent, name)):
        return _deep(sent, name)
    if form == "object" and explode:
        return _exploded(sent, name, properties)
    values = [value for each, value in sent if each == name]
    if not values:
        raise Missing(name)
    if form == "one" or explode or style == "deepObject":
        texts = [unquote_plus(value) for value in values]
        return texts[0] if form == "one" and len(texts) == 1 else texts
    parts = [unquote_plus(each) for each in SEPARATORS.get(style, COMMA).split(values[0])]
    return parts if form == "array" else _alternating(parts)


def _exploded(sent: Pairs, name: str, properties: set[str]) -> Text:
    if not properties:
        raise Unread(name)
    found: dict[str, Text] = {}
    for each, value in sent:
        if each in properties:
            gather(found, each, unquote_plus(value))
    if not found:
        raise Missing(name)
    return found


def _is_deep(sent: Pairs, name: str) -> bool:
    return any(each.startswith(f"{name}[") for each, _ in sent)


def _deep(sent: Pairs, name: str) -> Text:
    found: dict[str, Text] = {}
    for each, value in sent:
        if each.startswith(f"{name}["):
            *inside, last = BRACKETS.findall(each[len(name) :]) or [""]
            target = found
            for key in inside:
                target = target.setdefault(key, {})
                if not isinstance(target, dict):
                    raise Unread(name)
            gather(target, last, unquote_plus(value))
    if not found:
        raise Missing(name)
    return found


def gather(found: dict[str, Text], key: str, text: str) -> None:
    """Put a text into an object; one that comes twice is an array."""
    if key not in found:
        found[key] = text
    elif isinstance(found[key], list):
        found[key].append(text)
    else:
        found[key] = [found[key], text]


def listed(found: dict[str, Text]) -> list[Text] | None:
    """Return the items of an array in brackets, `[]` or numbered; None where it is none."""
    if found.keys() == {""}:
        return found[""] if isinstance(found[""], list) else [found[""]]
    numbers = [str(index) for index in range(len(found))]
    return [found[each] for each in numbers] if found.keys() == set(numbers) else None


def _alternating(parts: list[str]) -> Text:
    if len(parts) % 2:
        return parts
    return dict(zip(parts[::2], parts[1::2], strict=True))


def in_header(text: str, form: Form, *, explode: bool) -> Text:
    """Return what a header holds (`simple`, nothing encoded)."""
    return _listed([each.strip() for each in text.split(",")], text, form, explode=explode)


def in_path(text: str, name: str, style: str, form: Form, *, explode: bool) -> Text:
    """Return what stands in a path. Raises Unread where it has not the mark of its style."""
    if style == "matrix":
        return _matrix(text, name, form, explode=explode)
    if style == "label":
        if not text.startswith("."):
            raise Unread(name)
        text = text[1:]
    if form == "one":
        return unquote(text)
    parts = text.split("." if style == "label" and explode else ",")
    return _listed([unquote(each) for each in parts], text, form, explode=explode, encoded=parts)


def _listed(
    parts: list[str], text: str, form: Form, *, explode: bool, encoded: list[str] | None = None
) -> Text:
    if form == "one":
        return text
    if form == "array":
        return parts
    if not explode:
        return _alternating(parts)
    halves = [each.partition("=") for each in (encoded or parts)]
    read = unquote if encoded else str
    return {read(key): read(value) for key, _, value in halves}


def _matrix(text: str, name: str, form: Form, *, explode: bool) -> Text:
    halves = [each.partition("=") for each in text.split(";")[1:]]
    sent = [(unquote(key), value) for key, _, value in halves]
    if form == "object" and explode:
        return {key: unquote(value) for key, value in sent}
    values = [value for key, value in sent if key == name]
    if not values:
        raise Unread(name)
    if form == "one" or explode:
        texts = [unquote(value) for value in values]
        return texts[0] if form == "one" else texts
    parts = [unquote(each) for each in values[0].split(",")]
    return parts if form == "array" else _alternating(parts)
