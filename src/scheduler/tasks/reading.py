"""Reading the fields of a body one by one, and gathering everything that is wrong with them."""

from collections.abc import Collection
from typing import Any

from msgspec import UNSET, UnsetType

from scheduler import asked, config
from scheduler.definition import Definition
from scheduler.errors import Detail
from scheduler.instant import FIRST
from scheduler.judge import Verdicts
from scheduler.tasks.model import Spent, TaskFields


class Reader:
    """Reads the fields of a body against the task as it stands, and gathers what is wrong.

    A field that is not sent is what is stored; `now` is in ms since 1970, `most` what a task may
    hold, `verdicts` the rules that were judged.
    """

    def __init__(
        self,
        fields: TaskFields,
        before: Definition,
        now: int,
        most: config.Tasks,
        *,
        new: bool = True,
        spent: Spent | None = None,
        gone: Collection[int] = (),
        verdicts: Verdicts | None = None,
    ) -> None:
        self.fields = fields
        self.before = before
        self.now = now
        self.most = most
        self.new = new
        self.spent = spent
        self.gone = gone
        self.verdicts = verdicts or Verdicts(now)
        self.wrong: list[Detail] = []

    def say(self, field: str, message: str) -> None:
        """Note that a field is wrong."""
        self.wrong.append(Detail(field, message))

    def sent(self, field: str, stored: Any) -> Any:
        """Return what is sent, or what is stored."""
        value = getattr(self.fields, field)
        return stored if value is UNSET else value

    def text(self, field: str, stored: Any, *, most: int, least: int = 0) -> Any:
        """Return a text of so many characters; None where it may be missing."""
        value = self.sent(field, stored)
        if value is None:
            if least:
                self.say(field, "is needed")
            return None
        if not least <= len(value) <= most or (least and not value.strip()):
            self.say(field, f"is needed, with {least} to {most} characters" if not value.strip()
                     else f"must have {least} to {most} characters, has {len(value)}")  # fmt: skip
        if "\x00" in value:
            self.say(field, "must not hold a NUL character")
        return value

    def number(self, field: str, stored: Any, least: float, most: float) -> Any:
        """Return a number from least to most, or None."""
        value = self.sent(field, stored)
        if value is not None and not least <= value <= most:
            self.say(field, f"must be {least:.15g} to {most:.15g}, is {short(value)}")
            return None
        return value

    def word(self, field: str, stored: Any, words: tuple[str, ...]) -> Any:
        """Return one of the words, or None."""
        value = self.sent(field, stored)
        if value and value not in words:
            self.say(field, f"must be one of {', '.join(words)}")
            return None
        return value or None

    def time(self, field: str) -> int | UnsetType | None:
        """Return a time in ms since 1970, None for no time; UNSET for none sent, or a wrong one."""
        value: str | UnsetType | None = getattr(self.fields, field)
        if value is UNSET:
            return UNSET
        if not value:
            return None
        try:
            at = asked.instant(value)
        except ValueError as e:
            self.say(field, str(e))
            return UNSET
        return None if at == FIRST else at  # the zero time of Go's clients


def short(value: object) -> str:
    """Return a value as a message may show it."""
    if isinstance(value, list | dict):
        return "an array" if isinstance(value, list) else "an object"
    text = str(value)
    return text if len(text) <= 25 else f"{text[:20]}..."
