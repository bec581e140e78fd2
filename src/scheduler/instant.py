"""An instant: whole milliseconds since 1970, in the years 1 to 9999."""

from typing import Annotated

from msgspec import Meta

FIRST, LAST = -62_135_596_800_000, 253_402_300_799_999
"""The years 1 to 9999, in ms since 1970."""
Instant = Annotated[int, Meta(ge=FIRST, le=LAST)]
