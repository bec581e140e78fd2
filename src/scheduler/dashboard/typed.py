"""Times that people type into forms."""

import re
from collections.abc import Mapping

from scheduler import asked

LOCAL = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d{1,3})?)?[Zz]?", re.ASCII)
"""What an input of a date and a time sends, and what people write of it."""


def form_time(sent: Mapping[str, str], field: str, now: int) -> int | None:
    """Return a time that a form sends (ms since 1970), in UTC where it names no offset.

    None where there is none. Raises ValidationFailed, also for one 100 years from `now`.
    """
    text = sent.get(field, "").strip()
    if LOCAL.fullmatch(text):
        text = text.rstrip("Zz")
        text = f"{text}Z" if text.count(":") > 1 else f"{text}:00Z"
    return asked.near({field: text}, field, now)
