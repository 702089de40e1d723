"""Target: Book-Crossing, with its books."""

import html

from fuzzing.recipes import Read, described, needs, ratings, sieved


def mysql(*fields):
    escaped = [str(f).replace("\\", "\\\\").replace('"', '\\"') for f in fields]
    return ";".join(f'"{field}"' for field in escaped)


def write_books(rng, spoil):
    rows = [row[:3] for row in ratings(rng, whole_values=True)]
    spoil.cells(rows, "iin")
    texts = [mysql("User-ID", "ISBN", "Book-Rating")] * spoil.odds(0.7)
    texts += [mysql(*row) for row in rows]
    spoil.lines(texts)
    about = [mysql("ISBN", "Title", "Author", "Year", "Publisher", "S", "M", "L")]
    about += [
        mysql(item, f"T &amp; {item}", 'A "B"', "2000", "é", "s", "m", "l") for item in "1234"
    ]
    spoil.lines(about)
    return {
        "BX-Book-Ratings.csv": spoil.encoded(spoil.joined(texts), "latin-1"),
        "BX-Books.csv": spoil.encoded(spoil.joined(about), "latin-1"),
    }


def mysql_fields(text, n_fields):
    """Read fields by going through the characters; else split at every ";"."""
    fields, at = [], 0
    while text[at : at + 1] == '"':
        at, value = at + 1, ""
        while at < len(text) and text[at] != '"':
            if text[at] == "\\":
                if at + 1 == len(text):
                    break
                value += text[at + 1] if text[at + 1] in '"\\' else text[at : at + 2]
                at += 2
            else:
                value, at = value + text[at], at + 1
        if text[at : at + 1] != '"':
            break
        fields.append(value)
        at += 1
        if at == len(text):
            if len(fields) == n_fields:
                return fields
            break
        if text[at] != ";":
            break
        at += 1
    needs(len(text) > 1 and text[0] == text[-1] == '"')
    fields = text[1:-1].split('";"')
    needs(len(fields) == n_fields)
    return fields


def isbn_of(text):
    needs(html.unescape(text).strip())
    return html.unescape(text)


def book_rating(text):
    user, isbn, rating = mysql_fields(text, 3)
    needs(user and set(user) <= set("0123456789"))
    needs(rating in [*map(str, range(11))])
    return user, isbn_of(isbn), int(rating)


def book(text):
    isbn, *about = mysql_fields(text, 8)
    return isbn_of(isbn), *map(html.unescape, about[:4])


def read_books(take, main):
    latin = {"encoding": "latin-1"}
    rows, rejected = sieved(take(main), book_rating, header='"user-id";', **latin)
    data = take("BX-Books.csv")
    if data is None:
        return Read(rows, None, rejected)
    books, more = described(data, book, header='"isbn";', **latin)
    return Read(rows, books, rejected + more)
