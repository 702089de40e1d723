"""What is done to files: bytes flipped, cut, put in twice, packed and encoded."""

import bz2
import gzip
import lzma
from functools import partial

IDS = [
    "a,b", "a;b", "a\tb", "a|b", "a::b", "a:b", '"', '""', 'a"b', '"a"', "'", "a\nb", "a\r\nb",
    "a\rb", "", " ", " a ", "é", "🎬", "e\u0301", "x\0y", "\ufeff", "\x1a", "\x1ae", "\x1f", "\x85",
    "\u2028", "NaN", "null", "None", "\\N", "#", "=1+1", "007", "1e3", "x" * 3000, "&amp;", "\\",
    '\\"', "true", "user", "userId", "[1]", "{}",
]  # fmt: skip
NUMBERS = [
    "", "nan", "NaN", "inf", "-inf", "Infinity", "1e999", "-0", "-0.0", "+5", "007", " 5", "5 ",
    "1_000", "٣", "0x10", "9" * 30, "5.0", "1e3", ".5", "5.", "five", "-2", "9007199254740993",
    "9223372036854775807", "9223372036854775808", "1,5", "--5", "1e", "e5", ".", "+", "5\t", "true",
    "0", "1e-400", "1E5", "4.5", "1e300", "5f", "\u00a05", "1" * 400, "null",
]  # fmt: skip
BYTES = [
    b"\0", b"\r", b"\n", b"\r\n", b"\n\n", b'"', b'""', b",", b"\t", b";", b"|", b":", b"::", b" ",
    b"\\", b"'", b"\xff", b"\xfe", b"\xe9", b"\xc3", b"\xef\xbb\xbf", b"\xf0\x9f\x8e\xac", b"\x1a",
    b"\x1f", b"\x1ae", b"\x85", b"\xc2\x85", b"\xe2\x80\xa8", b"\xed\xa0\x80", b"{", b"}", b"[",
    b"NaN", b"inf", b"1e999", b"\\ud800", b"-", b".", b"#", b"\x0b", b"\x0c", b"<SEP>", b"&amp;",
    b"[" * 20_000, b"x" * 150_000, b"9" * 5000,
]  # fmt: skip
PACKERS = {
    "": bytes,
    ".gz": partial(gzip.compress, mtime=0),
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}


class Spoiler:
    """Draws from one random stream, and keeps a list of what was done."""

    def __init__(self, rng):
        self.rng = rng
        self.changes = []

    def odds(self, chance):
        return self.rng.random() < chance

    def note(self, change):
        self.changes.append(change)

    def cells(self, rows, kinds):
        """Put strange values into some cells of rows of text; `kinds` has "i" or "n" a column."""
        while self.odds(0.3):
            row = self.rng.randrange(len(rows))
            column = self.rng.randrange(len(kinds))
            value = self.rng.choice(IDS if kinds[column] == "i" else NUMBERS)
            rows[row][column] = value
            self.note(f"{value[:20]!r} in cell {row}, {column}")

    def lines(self, lines):
        """Repeat, drop, swap, cut up or lengthen some lines."""
        while lines and self.odds(0.2):
            at, what = self.rng.randrange(len(lines)), self.rng.randrange(6)
            line = lines[at]
            if what == 0:
                lines.insert(at, line)
            elif what == 1:
                del lines[at]
            elif what == 2:
                lines.insert(at, line[:0])
            elif what == 3:
                lines[at] = line[: self.rng.randrange(len(line) + 1)]
            elif what == 4:
                lines[at] = line + line
            else:
                lines.insert(0, lines.pop(at))
            self.note(("twice", "no", "empty before", "cut", "doubled", "first")[what] + f" {at}")

    def joined(self, lines):
        """Write lines with one kind of line end or with several; the last may be without."""
        ends = self.rng.choice([["\n"], ["\n"], ["\r\n"], ["\n", "\r\n"]])
        if self.odds(0.02):
            ends = ["\r"]
        text = "".join(line + self.rng.choice(ends) for line in lines)
        return text[:-1] if text and self.odds(0.1) else text

    def encoded(self, text, encoding):
        """Write in the encoding, or rarely in another one."""
        if self.odds(0.05):
            encoding = self.rng.choice(["latin-1", "utf-16", "utf-8-sig", "cp1252", "utf-16-le"])
            self.note(f"written as {encoding}")
        return text.encode(encoding, "replace")

    def bytes(self, data, chance=0.35):
        """Flip, insert, remove, repeat or cut off bytes."""
        while self.odds(chance):
            at = self.rng.randrange(len(data) + 1)
            end, what = at + self.rng.choice([1, 1, 2, 8, 40]), self.rng.randrange(9)
            if what < 3 and at < len(data):
                data = data[:at] + bytes([data[at] ^ (1 << self.rng.randrange(8))]) + data[at + 1 :]
            elif what < 5:
                piece = self.rng.choice(BYTES)
                data = data[:at] + piece + data[at:]
                what = f"{piece[:12]!r} at"
            elif what == 5:
                data = data[:at] + data[end:]
            elif what == 6:
                data = data[:at] + data[at:end] + data[at:]
            elif what == 7:
                data = data[:at]
            elif self.odds(0.2):
                data = b""
            self.note(f"{what} {at}")
        return data

    def packed(self, data, suffix):
        """Compress, in one or in two streams, and rarely spoil the result."""
        if not suffix:
            return data
        cut = self.rng.randrange(len(data) + 1)
        pack = PACKERS[suffix]
        whole = pack(data[:cut]) + pack(data[cut:]) if self.odds(0.5) else pack(data)
        return self.bytes(whole, 0.2)

    def suffix(self):
        return self.rng.choice(["", "", "", "", "", ".gz", ".bz2", ".xz"])
