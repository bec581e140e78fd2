"""Text that others wrote, made harmless for a terminal: nothing in it moves, hides or turns."""

import re
import unicodedata

KEPT = "\u200c\u200d"
"""Joiners, which some scripts and many emoji need: they show nothing of their own."""
HOSTILE = re.compile(r"[^\n -~]")


def word(text: object) -> str:
    """Return text on one line, with every character that is not seen written as an escape."""
    said = str(text)
    return said if said.isprintable() else "".join(_shown(each) for each in said)


def body(text: str) -> str:
    """Return text of several lines: line ends and tabs stay, the rest is as for `word`."""
    return "\n".join(word(line.expandtabs()) for line in re.split(r"\r\n|\n", text))


def json(text: str) -> str:
    """Return formatted JSON with what is not seen as `\\u` escapes: the same value."""
    return HOSTILE.sub(lambda found: _escaped(found[0]), text)


def _seen(character: str) -> bool:
    if character.isprintable() or character in KEPT:
        return True
    return unicodedata.category(character) == "Zs"


def _shown(character: str) -> str:
    if _seen(character):
        return character
    code = ord(character)
    named = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(character)
    wide = f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
    return named or (wide if code < 0x10000 else f"\\U{code:08x}")


def _escaped(character: str) -> str:
    if _seen(character):
        return character
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[n : n + 2].hex()}" for n in range(0, len(units), 2))
