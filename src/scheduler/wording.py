"""Values in words for the audit: secrets masked, and cut where they are long."""

from typing import Any

import msgspec

from scheduler.masking import mask, mask_words

READ_MOST = 4000
"""Characters of a value that are looked at."""
MOST = 400
"""Characters of a value that are kept."""
BREAKS = ' \n",&'


def words(value: Any) -> str | None:
    """Return a value of a field; None where there is none."""
    if value is None:
        return None
    if isinstance(value, msgspec.Raw):
        text = bytes(value).decode("utf-8", "replace")
        return None if text == "null" else _kept(text)
    if isinstance(value, dict):
        value = [f"{name}: {each}" for name, each in value.items()]
    if isinstance(value, list):
        value = ", ".join(map(str, value))
    return _kept(value if isinstance(value, str) else msgspec.json.encode(value).decode())


def address(url: str | None) -> str | None:
    """Return a URL as pages show it: what is secret in it masked."""
    return None if url is None else _cut(mask(url), len(url))


def _kept(text: str) -> str:
    """Return what of a text is kept, with how long it is where that is not all."""
    read = text[:READ_MOST]
    if len(text) > READ_MOST:  # cut within an address, maybe: between a password and its @
        last = max(read.rfind(c) for c in BREAKS)
        read = read[: last + 1] if "//" in read[last + 1 :] else read
    return _cut(mask_words(read), len(text))


def _cut(masked: str, size: int) -> str:
    if size <= READ_MOST and len(masked) <= MOST:
        return masked
    return f"{masked[:MOST]}… ({size:,} characters)"
