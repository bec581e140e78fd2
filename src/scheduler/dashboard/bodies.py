"""What came back, made readable: JSON indented, terminals' colours taken out, bytes as numbers.

Pure. All of it still is text of others: `shown.block` makes markup of it.
"""

import re
from itertools import accumulate
from typing import Literal

import msgspec

READ_MOST = 64 << 10
"""Bytes of a body that are made readable; a page shows fewer characters than that."""
DEEPEST = 32
"""Levels of JSON that is indented: a deep one would grow a thousandfold."""
HEX_MOST = 1024
HEX_LINE = 16
ESCAPES = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]+[0-~]|[0-OQ-WYZ\\^_`-~])"
)
"""Control sequences of terminals (ECMA-48, 5.3 to 5.5; OSC ends with BEL, too)."""
STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)
UNPRINTABLE = re.compile("[\x00-\x08\x0e-\x1a\x1c-\x1f]")

Kind = Literal["none", "JSON", "text", "bytes"]


class Body(msgspec.Struct, frozen=True):
    """A body as a page shows it."""

    kind: Kind
    size: int
    """Bytes."""
    text: str = ""
    """To be read; of bytes their numbers."""
    raw: str = ""
    """As it came, where that is text and differs."""


def body(sent: bytes, *, terminal: bool = False) -> Body:
    """Return a body to be read, its beginning; `terminal` says that a command wrote it."""
    if not sent:
        return Body("none", 0)
    beginning = sent[:READ_MOST]
    raw = decoded(beginning)
    if raw is None:
        return Body("bytes", len(sent), hexadecimal(sent[:HEX_MOST]))
    pretty = indented(sent)
    if pretty is not None:
        return Body("JSON", len(sent), pretty, raw if pretty != raw else "")
    plain = without_escapes(raw) if terminal else raw
    return Body("text", len(sent), plain, raw if plain != raw else "")


def decoded(sent: bytes) -> str | None:
    """Return bytes as text, where they are UTF-8, but for a character that is cut off at the end.

    None where they are not, or where more than a few could not be seen.
    """
    try:
        text = sent.decode()
    except UnicodeDecodeError as e:
        if len(sent) - e.start > 3 or e.reason != "unexpected end of data":
            return None
        text = sent[: e.start].decode() + "\ufffd"
    odd = len(UNPRINTABLE.findall(text[:4096]))
    return None if odd > 8 and odd * 10 > len(text[:4096]) else text


def indented(sent: bytes) -> str | None:
    """Return JSON over many lines, its numbers as they were written; None for what is none."""
    start = sent.lstrip()[:1]
    if start not in (b"{", b"[") or len(sent) > READ_MOST:
        return None
    if is_deep(sent):
        return None
    try:
        return msgspec.json.format(sent, indent=2).decode()
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None


def is_deep(sent: bytes) -> bool:
    """Say whether JSON has more levels than are to be indented."""
    brackets = STRING.sub(b"", sent).translate(None, delete=NO_BRACKETS)
    return max(accumulate(1 if each in b"[{" else -1 for each in brackets), default=0) > DEEPEST


NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def without_escapes(text: str) -> str:
    """Return what a terminal would show at last: no colours, no lines that were written over."""
    bare = ESCAPES.sub("", text).replace("\r\n", "\n")
    return "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in bare.split("\n"))


def hexadecimal(sent: bytes) -> str:
    """Return bytes as numbers and letters, sixteen to a line."""
    lines = []
    for at in range(0, len(sent), HEX_LINE):
        some = sent[at : at + HEX_LINE]
        letters = "".join(chr(each) if 0x20 <= each < 0x7F else "." for each in some)
        lines.append(f"{at:06x}  {some.hex(' '):<{HEX_LINE * 3}} {letters}")
    return "\n".join(lines)
