"""Target: the Taste Profile, with its tracks and mismatches."""

import re
import unicodedata

from fuzzing.cases import InvalidError
from fuzzing.oracles import text_table
from fuzzing.recipes import Read, needs, ratings, sieved, spoilt_text, strict


def song(number):
    return f"SO{number:016X}"


def write_plays(rng, spoil):
    rows = [[f"u{user}", song(int(item)), value]
            for user, item, value, _ in ratings(rng, whole_values=True)]  # fmt: skip
    plays = spoilt_text(spoil, rows, "iin", "\t")
    names = [("A", "x"), ("a ", "X"), ("B", "y"), ("A", "\uff58"), ("", ""), ("C", "")]
    tracks = [f"TR<SEP>{song(rng.randrange(1, 7))}<SEP>{a}<SEP>{t}" for a, t in names]
    spoil.lines(tracks)
    wrong = [f"ERROR: <{song(n)} TR{n:016X}> é  !=  z" for n in rng.sample(range(1, 9), 2)]
    spoil.lines(wrong)
    return {
        "train_triplets.txt": spoil.encoded(plays, "utf-8"),
        "unique_tracks.txt": spoil.encoded(spoil.joined(tracks), "utf-8"),
        "sid_mismatches.txt": spoil.encoded(spoil.joined(wrong), "utf-8"),
    }


def wrong_song(text):
    """Give the song of a line such as "ERROR: <SO... TR...> ..."."""
    head = text[: text.find(">")] if ">" in text else ""
    parts = head.removeprefix("ERROR: <").split(" ")
    needs(head.startswith("ERROR: <") and len(parts) == 2)
    for part, start in zip(parts, ("SO", "TR"), strict=True):
        needs(part.startswith(start) and re.fullmatch("[0-9A-Z]{18}", part))
    return parts[0]


def track(text):
    fields = text.split("<SEP>")
    needs(len(fields) == 4 and fields[1])
    return fields[1:]


def read_plays(take, main):
    table = text_table(take(main), "\t", has_header=False, quotes=False)
    if len(table.columns) != 3:
        raise InvalidError("not 3 fields")
    rows = strict(table, {"user": 0, "item": 1, "value": 2}, counts=True)
    wrong, rejected = [], []
    if take("sid_mismatches.txt") is not None:
        wrong, rejected = sieved(take("sid_mismatches.txt"), wrong_song, errors="replace")
    dropped = [row[1] in wrong for row in rows] if wrong else []
    if take("unique_tracks.txt") is None:
        return Read(rows, None, rejected, dropped)
    listed, more = sieved(take("unique_tracks.txt"), track)
    about = {}
    for item, artist, title in listed:
        if item not in wrong:
            about.setdefault(item, (artist, title))
    groups = {}
    for item, names in about.items():
        key = tuple(" ".join(unicodedata.normalize("NFKC", n).casefold().split()) for n in names)
        groups.setdefault(key if all(key) else item, []).append(item)
    one = {item: min(group) for group in groups.values() for item in group}
    items = [(item, title, artist) for item, (artist, title) in about.items() if one[item] == item]
    merged = [(user, one.get(item, item), plays) for user, item, plays in rows]
    return Read(merged, items, rejected + more, dropped)
