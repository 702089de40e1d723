r"""The structure of separated text: a state machine that reads bytes, checks them and counts.

Each byte is of one of six kinds, and the machine is in one of a few modes; `_TURNS` has the next
mode for each mode and kind. This table is the whole grammar:

- lines end with ``\n`` or ``\r\n``; empty lines are skipped;
- a field that starts with ``"`` ends at the next ``"`` that is not doubled, and only a separator or
  a line end may follow; everything between belongs to the field, including line ends;
- any other field contains no ``"``;
- there is no NUL, and no ``\r`` without ``\n`` outside quotes.

On request the machine writes its input in a *plain form*: fields separated by 0x1f, records ended
by ``\n``, no quotes, no empty lines. Characters of a field that would be ambiguous there are
written as 0x1a and a letter (`ESCAPES`). The plain form can be read without a grammar.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from nearfar.runtime.arrays import Int
from nearfar.runtime.jit import inlined, kernel

(START, FIELD, PLAIN, QUOTED, CLOSED, RETURN, BLANK) = range(7)
"""Modes: before a record; before a further field of it; in an unquoted field; in a quoted field;
after a quote in a quoted field; after the ``\r`` of a record; after the ``\r`` of an empty line."""
(NUL, LONE_RETURN, STRAY_QUOTE, AFTER_QUOTE, WIDTH, UNCLOSED, FOUND) = range(7, 14)
"""Modes in which the machine stops: a NUL; a ``\r`` without ``\n``; a quote inside an unquoted
field; text after a closing quote; a record with more or fewer fields than the first; the end of the
text inside quotes; and the end of the requested record."""

_ORDINARY, _SEPARATOR, _FEED, _RETURN, _QUOTE, _NUL = range(6)
_TURNS: Final = np.array([
    # ordinary     separator    \n           \r           "            NUL
    [PLAIN,        FIELD,       START,       BLANK,       QUOTED,      NUL],  # START
    [PLAIN,        FIELD,       START,       RETURN,      QUOTED,      NUL],  # FIELD
    [PLAIN,        FIELD,       START,       RETURN,      STRAY_QUOTE, NUL],  # PLAIN
    [QUOTED,       QUOTED,      QUOTED,      QUOTED,      CLOSED,      NUL],  # QUOTED
    [AFTER_QUOTE,  FIELD,       START,       RETURN,      QUOTED,      NUL],  # CLOSED
    [LONE_RETURN,  LONE_RETURN, START,       LONE_RETURN, LONE_RETURN, NUL],  # RETURN
    [LONE_RETURN,  LONE_RETURN, START,       LONE_RETURN, LONE_RETURN, NUL],  # BLANK
], np.int64)  # fmt: skip

PLAIN_SEPARATOR: Final = "\x1f"
"""The separator of fields in the plain form."""
ESCAPES: Final = {"\x1ae": "", "\x1af": "\x1f", "\x1as": "\x1a", "\x1an": "\n", "\x1ar": "\r"}
"""The escapes of characters of a field in the plain form. The first, for the empty string, is added
to a quoted field that is the only one of its record: an empty field would give an empty line."""

_LETTERS: Final = np.zeros(256, np.uint8)
for _written, _character in ESCAPES.items():
    _LETTERS[ord(_character or "\x00")] = ord(_written[1])

# positions in the machine's state
(_MODE, _LINE, _SEPARATORS, _FIELDS, _WIDTH, _RECORDS, _SOUGHT, _RECORD_LINE, _QUOTE_LINE,
 _IRREGULAR, _ESCAPED) = _PLACES = range(11)  # fmt: skip


@inlined
def _record(state: Any, fields: Int) -> Int:
    """Count a record with this number of fields; return the mode after it."""
    state[_FIELDS] = fields
    if state[_RECORDS] == 0:
        state[_WIDTH] = fields
    elif state[_WIDTH] != fields:
        return WIDTH
    state[_RECORDS] += 1
    return FOUND if state[_RECORDS] == state[_SOUGHT] else START


@kernel
def _advance(data: Any, kinds: Any, state: Any, out: Any) -> Int:
    """Read `data`; write its plain form to `out`, unless that has size 0, and return its length."""
    mode, line, separators = state[_MODE], state[_LINE], state[_SEPARATORS]
    written, copying = 0, len(out) > 0
    for byte in data:
        kind = kinds[byte]
        if kind == _ORDINARY and mode == PLAIN and not copying:
            continue
        before, mode = mode, _TURNS[mode, kind]
        if before == START:
            state[_RECORD_LINE] = line
            separators = 0
        letter, raw = 0, -1  # what to write: a letter after 0x1a, or a byte as it is
        if before == CLOSED and mode in (START, RETURN) and separators == 0:
            letter = _LETTERS[0]
        if mode == FIELD:
            separators += 1
            raw = 0x1F
        elif mode == START and before in (START, BLANK):
            state[_IRREGULAR] = 1
        elif mode == START:
            raw = 0x0A
            mode = _record(state, separators + 1)
        elif mode == QUOTED and before in (START, FIELD):
            state[_QUOTE_LINE] = line
            state[_IRREGULAR] = 1
        elif mode in (PLAIN, QUOTED):
            letter = _LETTERS[byte]
            raw = -1 if letter else byte
        if copying:
            if letter:
                out[written] = 0x1A
                out[written + 1] = letter
                written += 2
                state[_ESCAPED] = 1
            if raw >= 0:
                out[written] = raw
                written += 1
        if mode > BLANK:
            break
        line += kind == _FEED
    state[_MODE], state[_LINE], state[_SEPARATORS] = mode, line, separators
    return written


class Structure:
    """A state machine that checks the structure of a text in UTF-8.

    Parameters
    ----------
    separator : str
        One ASCII character.
    quotes : bool
        Whether fields can be quoted; if not, ``"`` is an ordinary character.
    sought : int
        The number of records after which the machine stops; 0 for no limit.
    """

    def __init__(self, separator: str, *, quotes: bool, sought: int = 0) -> None:
        self._kinds = np.full(256, _ORDINARY, np.int64)
        if quotes:
            self._kinds[ord('"')] = _QUOTE
        for character, kind in (("\n", _FEED), ("\r", _RETURN), ("\0", _NUL),
                                (separator, _SEPARATOR)):  # fmt: skip
            self._kinds[ord(character)] = kind
        self._state = np.zeros(len(_PLACES), np.int64)
        self._state[_LINE], self._state[_SOUGHT] = 1, sought
        self._out = np.empty(0, np.uint8)

    def feed(self, data: bytes, *, copying: bool = False) -> memoryview:
        """Read `data`; return its plain form if `copying`, valid until the next call."""
        if copying and len(self._out) < 2 * len(data) + 2:
            self._out = np.empty(2 * len(data) + 2, np.uint8)
        out = self._out if copying else self._out[:0]
        written = _advance(np.frombuffer(data, np.uint8), self._kinds, self._state, out)
        return out[:written].data

    def end(self, *, copying: bool = False) -> memoryview:
        """End the text; the last line needs no line end."""
        if self.mode in (FIELD, PLAIN, CLOSED):
            return self.feed(b"\n", copying=copying)
        ends = {QUOTED: UNCLOSED, RETURN: LONE_RETURN, BLANK: LONE_RETURN}
        self._state[_MODE] = ends.get(self.mode, self.mode)
        return memoryview(b"")

    @property
    def mode(self) -> int:
        """The current mode, one of the constants above."""
        return int(self._state[_MODE])

    @property
    def line(self) -> int:
        """Number of the current line, from 1."""
        return int(self._state[_LINE])

    @property
    def records(self) -> int:
        """Number of complete records."""
        return int(self._state[_RECORDS])

    @property
    def record_line(self) -> int:
        """Line in which the current record starts; between records, that of the last one."""
        return int(self._state[_RECORD_LINE])

    @property
    def quote_line(self) -> int:
        """Line in which the last quoted field starts."""
        return int(self._state[_QUOTE_LINE])

    @property
    def fields(self) -> int:
        """Number of fields of the last complete record."""
        return int(self._state[_FIELDS])

    @property
    def width(self) -> int:
        """Number of fields of the first record."""
        return int(self._state[_WIDTH])

    @property
    def irregular(self) -> bool:
        """Whether there were quoted fields or empty lines."""
        return bool(self._state[_IRREGULAR])

    @property
    def escaped(self) -> bool:
        """Whether the plain form contains any of the `ESCAPES`."""
        return bool(self._state[_ESCAPED])
