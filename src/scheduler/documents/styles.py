"""Parameters as text: the styles of OpenAPI (3.1.1, 4.8.12.4 and appendix C), by RFC 6570.

A value is what JSON holds, a number with a fraction as `msgspec.Raw`: its digits are kept. What is
null is not there, and neither is an array or object with nothing in it (RFC 6570, 2.3). What is
nested deeper than a style reaches is written as JSON.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec

from scheduler.documents.client import Parameter, Style

Shape = str | list[str] | dict[str, str]
"""A value as a style sees it."""
DELIMITERS: dict[Style, str] = {"spaceDelimited": " ", "pipeDelimited": "|"}
Piece = TypeVar("Piece", str, bytes)
KEPT = ":/?@!$'()*,;="
"""What is reserved and changes nothing within a query."""
TRIPLET = re.compile(r"(%[0-9A-Fa-f]{2})")
JSON = re.compile(r"(?:application|text)/(?:[^;]*\+)?json\s*(?:;.*)?", re.IGNORECASE)

WRITTEN_MOST = 1 << 20
"""Characters that the parameters of a call may take; a list is written with its name many times."""

_decoder = msgspec.json.Decoder(float_hook=msgspec.Raw)


class WrongCall(Exception):
    """What was given for a call does not fit it; the message says what would."""


def within(most: int, pieces: Iterable[Piece], what: str) -> Iterator[Piece]:
    """Yield pieces, this long together at most. Raises WrongCall, which says what is longer."""
    left = most
    for piece in pieces:
        left -= len(piece)
        if left < 0:
            raise WrongCall(f"{what}: more than {most} bytes as they are sent; give fewer items")
        yield piece


def missing(name: str) -> WrongCall:
    """Return what says that something has to be there."""
    return WrongCall(f"{name} is required and must be specified")


def decoded(name: str, text: str | bytes) -> Any:
    """Return what a JSON text holds. Raises WrongCall."""
    try:
        return _decoder.decode(text)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise WrongCall(f"{name} must be JSON: {error}") from None


def as_json(value: Any) -> str:
    """Return a value as JSON, with the digits that it came with."""
    return msgspec.json.encode(value).decode()


def as_text(value: Any) -> str:
    """Return a value as it stands in a URL, a header or a form."""
    match value:
        case str():
            return value
        case None:
            return ""
        case _:
            return as_json(value)


def shaped(value: Any) -> Shape | None:
    """Return a value as a style sees it, None where there is nothing to be written."""
    match value:
        case None:
            return None
        case list():
            return [as_text(each) for each in value if each is not None] or None
        case dict():
            return {key: as_text(each) for key, each in value.items() if each is not None} or None
        case _:
            return as_text(value)


def encoded(text: str) -> str:
    """Return a text with all but the unreserved characters percent-encoded (RFC 3986, 2.3)."""
    return quote(text, safe="")


def reserved(text: str) -> str:
    """Return a text percent-encoded but for what is reserved (RFC 6570, 3.2.3).

    What would end a value within a query, or begin another, is encoded all the same.
    """
    parts = TRIPLET.split(text)
    return "".join(
        part if index % 2 else quote(part, safe=KEPT) for index, part in enumerate(parts)
    )


def plain(text: str) -> str:
    """Return a text as it is: headers have no encoding."""
    return text


def shape_of(parameter: Parameter, value: Any) -> Shape | None:
    """Return what a style writes; a text in place of an array is one that is written already."""
    delimiter = DELIMITERS.get(parameter.style, ",")
    if parameter.media_type:
        return _content(parameter, value)
    if isinstance(value, str) and parameter.type == "array" and not parameter.explode:
        return value.split(delimiter)
    return shaped(value)


def _content(parameter: Parameter, value: Any) -> str | None:
    if value is None:
        return None
    written = isinstance(value, str) and parameter.type != "string"
    return (
        as_json(value)
        if JSON.fullmatch(parameter.media_type or "") and not written
        else as_text(value)
    )


def simple(
    shape: Shape, encode: Callable[[str], str], *, explode: bool, separator: str = ","
) -> str:
    """Return values side by side, like `R=100,G=200` where it is exploded, else `R,100,G,200`."""
    if isinstance(shape, str):
        return encode(shape)
    if isinstance(shape, list):
        return separator.join(map(encode, shape))
    between = "=" if explode else separator
    return separator.join(f"{encode(key)}{between}{encode(each)}" for key, each in shape.items())


def in_path(parameter: Parameter, shape: Shape) -> str:
    """Return what stands in a path for an expression."""
    explode = parameter.explode
    if parameter.style == "label":
        separator = "." if explode else ","
        _refuse(parameter.name, shape, separator)
        return "." + simple(shape, encoded, explode=explode, separator=separator)
    if parameter.style == "matrix":
        return _matrix(encoded(parameter.name), shape, explode=explode)
    return simple(shape, encoded, explode=explode)


def _matrix(name: str, shape: Shape, *, explode: bool) -> str:
    if explode and isinstance(shape, dict):
        return "".join(_matrix(encoded(key), each, explode=False) for key, each in shape.items())
    if explode and isinstance(shape, list):
        each_of = (_matrix(name, each, explode=False) for each in shape)
        return "".join(within(WRITTEN_MOST, each_of, name))
    value = simple(shape, encoded, explode=False)
    return f";{name}={value}" if value else f";{name}"


def pairs(
    name: str,
    style: Style,
    value: Any,
    shape: Shape,
    encode: Callable[[str], str],
    *,
    explode: bool,
) -> Iterator[str]:
    """Yield each `name=value` of a query, form or cookie. Raises WrongCall.

    `value` is what `shape` was made of: `deepObject` goes down into it as far as it reaches.
    """
    name = encoded(name)
    if style == "deepObject" and not isinstance(shape, str):
        yield from deep(name, value if isinstance(value, dict | list) else shape, encode)
    elif isinstance(shape, str):
        yield f"{name}={encode(shape)}"
    elif explode and isinstance(shape, list):
        for each in shape:
            yield f"{name}={encode(each)}"
    elif explode and isinstance(shape, dict):
        for key, each in shape.items():
            yield f"{encoded(key)}={encode(each)}"
    else:
        delimiter = DELIMITERS.get(style, ",")
        _refuse(name, shape, delimiter)
        between = delimiter if delimiter == "," else encoded(delimiter)
        yield f"{name}={simple(shape, encode, explode=False, separator=between)}"


def _refuse(name: str, shape: Shape, separator: str) -> None:
    """Raise WrongCall where a separator that is not encoded, or always is, stands in a value."""
    if separator == "," or isinstance(shape, str):
        return
    texts = [*shape, *(shape.values() if isinstance(shape, dict) else ())]
    if any(separator in each for each in texts):
        raise WrongCall(f"{name} must hold no {separator!r} in a value: it separates values")


def deep(
    name: str, value: Any, encode: Callable[[str], str], *, repeated: bool = False
) -> Iterator[str]:
    """Yield the pairs of an object in brackets, like `color%5BR%5D=100`, at any depth.

    OpenAPI leaves it open how an array is written. Most read `ids%5B%5D=1`, and `lines%5B0%5D`
    where it holds objects; `repeated` writes `ids=1`, and objects in it as JSON.
    """
    if isinstance(value, dict):
        for key, each in value.items():
            yield from deep(f"{name}%5B{encoded(key)}%5D", each, encode, repeated=repeated)
    elif isinstance(value, list):
        kept = [each for each in value if each is not None]
        deeper = any(isinstance(each, dict | list) for each in kept)
        for at, each in enumerate(kept):
            if repeated:
                yield f"{name}={encode(as_text(each))}"
            else:
                yield from deep(f"{name}%5B{at if deeper else ''}%5D", each, encode)
    elif value is not None:
        yield f"{name}={encode(as_text(value))}"
