"""Targets: reviews and ratings of Amazon, and what is said of the products."""

import ast
import html
import json
import re
import warnings

from fuzzing.cases import InvalidError
from fuzzing.oracles import PARTS, is_text, json_table, text_table
from fuzzing.recipes import MalformedLineError, Read, described, needs, ratings, spoilt_text, strict
from fuzzing.spoil import IDS, NUMBERS
from fuzzing.tables import ODD_JSON

PRODUCTS = [
    {"asin": "1", "title": "A &amp; B", "categories": [["X", "Y"], ["X"]], "price": 9.99},
    {"asin": "2", "title": " ", "brand": "é🎬", "price": "$1,012.50"},
    {"asin": "3", "category": ["Z"], "price": 1e20},
    {"asin": "4", "title": 'it\'s "x"', "brand": None},
]


def products(rng, spoil):
    texts = [repr(one) if spoil.odds(0.5) else json.dumps(one) for one in PRODUCTS]
    spoil.lines(texts)
    return spoil.encoded(spoil.joined(texts), "utf-8")


def write_reviews(rng, spoil):
    texts = []
    for user, item, value, time in ratings(rng):
        row = {"reviewerID": json.dumps(user), "asin": json.dumps(item), "overall": value,
               "unixReviewTime": time, "reviewText": '"x"'}  # fmt: skip
        if spoil.odds(0.06):
            name = rng.choice(list(row))
            row[name] = rng.choice(ODD_JSON + [json.dumps(value) for value in IDS + NUMBERS])
            spoil.note(f"{row[name][:20]} for {name}")
        texts.append("{" + ", ".join(f'"{name}": {value}' for name, value in row.items()) + "}")
    spoil.lines(texts)
    data = spoil.encoded(spoil.joined(texts), "utf-8")
    return {"reviews_X_5.json": data, "meta_x.json": products(rng, spoil)}


def write_amazon_csv(rng, spoil):
    text = spoilt_text(spoil, ratings(rng), "iinn", ",")
    return {
        "ratings_X.csv": spoil.encoded(text, "utf-8"),
        "meta_X.json": products(rng, spoil),
    }


def read_reviews(take, main):
    keys = ["reviewerID", "asin", "overall", "unixReviewTime"]
    table = json_table(take(main), keys)
    return with_products(take("meta_x.json"), strict(table, dict(zip(PARTS, keys, strict=True))))


def read_amazon_csv(take, main):
    table = text_table(take(main), has_header=False)
    if len(table.columns) != 4:
        raise InvalidError("not 4 fields")
    first = table.rows[:100]
    long = [[len(row[side]) == 10 for row in first if row[side]] for side in (0, 1)]
    if all(long[0]) and not all(long[1]):
        raise InvalidError("the item first")
    rows = strict(table, {part: at for at, part in enumerate(PARTS)})
    return with_products(take("meta_X.json"), rows)


def with_products(data, rows):
    if data is None:
        return Read(rows)
    return Read(rows, *described(data, product))


def product(text):
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = ast.literal_eval(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            raise MalformedLineError from None
    needs(isinstance(found, dict))
    asin = found.get("asin")
    needs(isinstance(asin, str) and asin)

    def plain(value):
        return html.unescape(value).strip() or None if isinstance(value, str) else None

    categories = {}
    parts = [found.get("categories", found.get("category"))]
    while parts:
        part = parts.pop(0)
        if isinstance(part, list):
            parts = part + parts
        elif plain(part):
            categories[plain(part)] = None
    price = found.get("price")
    if isinstance(price, str):
        digits = price.strip().removeprefix("$").replace(",", "")
        price = float(digits) if re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,6})?", digits) else None
    if isinstance(price, bool) or not isinstance(price, (int, float)) or not 0 <= price < 1e12:
        price = None
    row = (asin, plain(found.get("title")), " | ".join(categories) or None,
           plain(found.get("brand")))  # fmt: skip
    needs(is_text("".join(text or "" for text in row)))
    return (*row, None if price is None else float(price))
