"""Words of a command line that someone pasted, as a POSIX shell or the one of Windows reads them.

Nothing is run, and nothing is put in for a variable: what only a shell could know is said.
"""

import re

import msgspec

PLAIN = re.compile(r"[^\s'\"\\$`|&;<>()#]+")
IN_DOUBLE = re.compile(r'[^"\\$`]+')
ESCAPES = {
    "n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v",
    "e": "\x1b", "E": "\x1b", "\\": "\\", "'": "'", '"': '"', "?": "?",
}  # fmt: skip
ANSI = re.compile(
    r"\\(?:x([0-9a-fA-F]{1,2})|u([0-9a-fA-F]{1,4})|U([0-9a-fA-F]{1,8})|([0-7]{1,3})|(.))", re.DOTALL
)
"""Escapes of `$'...'` (bash, 3.1.2.4)."""
VARIABLE = re.compile(r"\$(?:\w+|\{[^}]{0,200}\}|\([^)]{0,200}\))")
CONTINUED = re.compile(
    r"""(?P<end>[\\^`][ \t]*\r?\n)|\\.|\$'(?:[^'\\]|\\.)*+'?|'[^']*+'?|"(?:[^"\\]|\\.)*+"?""",
    re.DOTALL,
)
"""The end of a line that goes on; or what is quoted, in which there is none."""
BLANK = re.compile(r"\s*+")
GAP = re.compile(r"\s++(-?)")
"""All that stands between two words, with how an option begins: it is looked at once."""
CARET = re.compile(r"\^(.)", re.DOTALL)

SHORT = 60
"""Characters of what is quoted in a note."""


class Words(msgspec.Struct):
    """What a line is made of, and what of it could not be read as the shell would."""

    words: list[str]
    notes: list[str]


def words(text: str) -> Words:
    """Return the words of the first command of a text."""
    before, caret, _ = text.partition('^"')
    if (
        caret and "'" not in before
    ):  # Windows' shell, as browsers write for it: a caret before what means much
        text = CARET.sub(lambda found: "" if found[1] in "\r\n" else found[1], text)
        return _Reader(GAP.sub(_joined, text), windows=True).read()
    return _Reader(CONTINUED.sub(_bare, text) if _has_odd_ends(text) else text).read()


def _bare(found: re.Match[str]) -> str:
    return " " if found["end"] else found[0]


def _joined(gap: re.Match[str]) -> str:
    """Let a command go on in the next line where that begins with an option."""
    return gap[0].replace("\n", " ") if gap[1] else gap[0]


def _has_odd_ends(text: str) -> bool:
    """Say whether lines end in `^`, or in a backslash with a space after it."""
    return re.search(r"\^[ \t]*\r?\n|\\[ \t]+\r?\n|\\\r\n", text) is not None


class _Reader:
    def __init__(self, text: str, *, windows: bool = False) -> None:
        self._text, self._at, self._windows = text, 0, windows
        self._words: list[str] = []
        self._word: list[str] | None = None
        self._is_address = False
        self._notes: dict[str, None] = {}

    def read(self) -> Words:
        while self._at < len(self._text):
            if not self._step():
                break
        self._end()
        return Words(self._words, list(self._notes))

    def _end(self) -> None:
        if self._word is not None:
            self._words.append("".join(self._word))
        self._word, self._is_address = None, False

    def _add(self, text: str) -> None:
        self._word = self._word or []
        self._word.append(text)
        self._is_address = self._is_address or "://" in text

    def _note(self, note: str) -> None:
        self._notes[note] = None

    def _step(self) -> bool:
        """Read on; False at the end of the command."""
        text, at = self._text, self._at
        plain = PLAIN.match(text, at)
        if plain:
            self._add(plain[0])
            self._at = plain.end()
            return True
        sign = text[at]
        self._at += 1
        if sign.isspace():
            self._end()
            # A line's end is the command's, but before anything was said.
            return sign != "\n" or not self._words or self._goes_on()
        if sign == "'" and not self._windows:
            self._single()
        elif sign == '"':
            self._double()
        elif sign == "\\":
            self._escaped()
        elif sign == "$" and not self._windows:
            self._dollar()
        elif sign == "#" and self._word is None and not self._windows:
            self._at = _line_end(text, at)
        elif sign in "|&;<>()" and not self._belongs(sign):
            return self._operator(sign)
        else:
            if sign == "`":
                self._note("what stands in backticks is left as it is written")
            self._add(sign)
        return True

    def _goes_on(self) -> bool:
        """Say whether the next line begins with an option: its line's end was lost."""
        following = BLANK.match(self._text, self._at)
        at = following.end() if following else self._at
        if self._text.startswith("-", at):
            self._at = at
            return True
        if at < len(self._text):
            rest = self._text[at : at + SHORT + 1]
            self._note(f"only the first command is read; left out is: {_short(rest)}")
        return False

    def _belongs(self, sign: str) -> bool:
        """Say whether a sign is meant as part of an address that nobody quoted."""
        following = self._text[self._at : self._at + 1]
        return (
            self._is_address and sign in "&;()" and bool(following) and not following.isspace()
        ) or (self._windows)

    def _operator(self, sign: str) -> bool:
        rest = self._text[self._at :].strip()
        self._end()
        if sign == ";" and not rest:
            return False
        if sign in "<>":
            self._note(f"what stands after {sign} is left out: {_short(rest)}")
        elif rest:
            self._note(f"only the first command is read; left out is: {sign} {_short(rest)}")
        return False

    def _single(self) -> None:
        end = self._text.find("'", self._at)
        self._close(end)
        self._add(self._text[self._at : end if end >= 0 else len(self._text)])
        self._at = end + 1 if end >= 0 else len(self._text)

    def _close(self, end: int) -> None:
        if end < 0:
            self._note("a quotation mark is not closed; all after it was taken as one text")

    def _double(self) -> None:
        text = self._text
        self._add("")
        while self._at < len(text):
            plain = IN_DOUBLE.match(text, self._at)
            if plain:
                self._add(plain[0])
                self._at = plain.end()
                continue
            sign, following = text[self._at], text[self._at + 1 : self._at + 2]
            self._at += 1
            if sign == '"':
                return
            if sign == "\\" and following and following in ('"\\' if self._windows else '"\\$`\n'):
                self._add("" if following == "\n" else following)
                self._at += 1
            else:
                if sign == "$":
                    self._note_variable()
                self._add(sign)
        self._close(-1)

    def _escaped(self) -> None:
        following = self._text[self._at : self._at + 1]
        self._at += 1
        if self._windows and following != '"':
            self._add("\\" + following)
        elif following != "\n":
            self._add(following)

    def _dollar(self) -> None:
        if self._text[self._at : self._at + 1] == "'":
            self._at += 1
            self._ansi()
        elif self._text[self._at : self._at + 1] == '"':
            pass  # bash translates such a text; it is the text
        else:
            self._note_variable()
            self._add("$")

    def _note_variable(self) -> None:
        found = VARIABLE.match(self._text, self._at - 1)
        if found:
            self._note(f"{_short(found[0])} is known to your shell alone; put its value in")

    def _ansi(self) -> None:
        self._add("")
        begin = at = self._at
        while at < len(self._text) and self._text[at] != "'":
            at += 2 if self._text[at] == "\\" else 1
        inside, self._at = self._text[begin:at], at + 1
        if at >= len(self._text):
            self._close(-1)
        units = ANSI.sub(_unescaped, inside).encode("utf-16-le", "surrogatepass")
        self._add(units.decode("utf-16-le", "replace"))  # browsers write a pair for what is beyond


def _unescaped(found: re.Match[str]) -> str:
    number = found[1] or found[2] or found[3]
    if number:
        code = int(number, 16)
        return chr(code) if code < 0x110000 else "\ufffd"
    if found[4]:
        return chr(int(found[4], 8) & 0xFF)
    return ESCAPES.get(found[5], found[0])


def _line_end(text: str, at: int) -> int:
    end = text.find("\n", at)
    return end if end >= 0 else len(text)


def _short(text: str) -> str:
    return text if len(text) <= SHORT else f"{text[:SHORT]}..."
