"""The page that `nearfar serve` shows, in a real browser before a real server."""

import os
import re
import shutil
import socket
import threading
from dataclasses import dataclass, field
from importlib import import_module
from itertools import combinations
from urllib.parse import parse_qs, urlsplit

import numpy as np
import polars as pl
import pytest

from nearfar import CML, Interactions, evaluate, split
from nearfar.method.prior import Prior
from nearfar.method.sampling import Shared, Uniform

REQUIRED = bool(os.environ.get("NEARFAR_REQUIRE_BROWSER"))
"""Set where the page must be tested, as by .ci/run: what is missing is a failure then, no skip."""


def imported(name, missing):
    return import_module(name) if REQUIRED else pytest.importorskip(name, reason=missing)


playwright = imported("playwright.sync_api", "playwright is not installed")
uvicorn = imported("uvicorn", "the extra nearfar[serve] is not installed")
serve = imported("nearfar.serve", "the extra nearfar[serve] is not installed")
served = imported("served", "the extra nearfar[serve] is not installed")

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
CHROME = next(filter(None, map(shutil.which, NAMES)), None)
MISSING = f"there is no browser here: none of {NAMES}"
pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(CHROME is None and not REQUIRED, reason=MISSING),
    pytest.mark.filterwarnings("ignore:NDCG on the validation part"),  # four epochs of nothing much
    pytest.mark.filterwarnings("ignore:training goes badly"),
]

IMAGE = "<img src=x onerror=\"document.title='broken'\">"
SCRIPT = "</script><script>document.title='broken'</script>"
HOSTILE = {"0": IMAGE, "1": SCRIPT, "2": "Unbreakable" * 30, "3": "wide words " * 30, "4": "  "}
ODD = "a/b?c=1&d #é%"
"""An id that has to be quoted in an address."""
GENRES = ("Comedy", "Drama", "Western", "Noir")


def films():
    """60 users and 80 films of four genres; a user likes one genre, and the first films most."""
    rng = np.random.default_rng(0)
    pairs = []
    for user in range(60):
        liked = [item for item in range(80) if item % 4 == user % 4]
        weights = 1 / (1 + np.arange(len(liked)))
        kept = rng.choice(liked, 9, replace=False, p=weights / weights.sum())
        pairs += [(f"u{user}", ODD if item == 7 else str(item)) for item in kept]
    data = Interactions.from_pairs(pairs)
    ids = list(data.item_ids)
    number = [7 if one == ODD else int(one) for one in ids]
    genres = [GENRES[n % 4] for n in number]
    plain = [f"{genre} film {n}" for genre, n in zip(genres, number, strict=True)]
    table = {
        "item_id": ids,
        "title": [HOSTILE.get(one, title) for one, title in zip(ids, plain, strict=True)],
        "genres": [f"{genre} | Film" for genre in genres],
    }
    return data.with_item_table(pl.DataFrame(table))


def fitted(data, **how):
    options = CML(dim=8, batch=64, sampler=Uniform(), negatives=5, prior=None)
    return options.fit(data, epochs=4, seed=0, **how)


@pytest.fixture(scope="module")
def model():
    return fitted(films(), validation=0.2)


def free_port():
    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        return tried.getsockname()[1]


class Site:
    """A server of a saved model on a thread, which can go and come back on the same port."""

    def __init__(self, path, prefix="", strips=False):
        self.path, self.port, self.prefix, self.strips = path, free_port(), prefix, strips
        self.start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}{self.prefix}/"

    def start(self):
        app = serve.create_app(self.path, root_path=self.prefix)
        if self.strips:
            app = served.stripping(app, self.prefix)
        config = uvicorn.Config(app, port=self.port, log_level="error", ws="none")
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()
        while not self.server.started:
            assert self.thread.is_alive(), "the server did not start"
            self.thread.join(0.02)

    def stop(self):
        self.server.should_exit = True
        self.thread.join()


@pytest.fixture(scope="module")
def sites(tmp_path_factory):
    """Serve models; every server is stopped in the end."""
    made = []

    def start(model, **how):
        path = tmp_path_factory.mktemp("served") / "model"
        model.save(path)
        made.append(Site(path, **how))
        return made[-1]

    yield start
    for site in made:
        site.stop()


@pytest.fixture(scope="module")
def site(model, sites):
    return sites(model)


@pytest.fixture(scope="module")
def browser():
    assert CHROME is not None, MISSING
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(
            executable_path=CHROME, args=["--no-sandbox"] if root else []
        )
        yield browser
        browser.close()


@dataclass
class Watched:
    """What a page asked for, and what went wrong on it."""

    origin: str
    asked: list = field(default_factory=list)
    wrong: list = field(default_factory=list)

    def watch(self, page):
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("console", lambda said: said.type == "error" and self.wrong.append(said.text))


@pytest.fixture
def visit(browser, site):
    """Open the page, as often as it is wanted; at the end all visits are checked.

    No request may have left the server, and no error may have been seen but those that start with
    what is in `visit.expected`.
    """
    contexts, watched = [], []

    def open_page(address="", *, at=site, width=1280, scheme="light", before="", touch=False):
        context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme=scheme,
            reduced_motion="reduce",
            has_touch=touch,
        )
        contexts.append(context)
        page = context.new_page()
        watched.append(Watched(at.url))
        watched[-1].watch(page)
        if before:
            page.add_init_script(before)
        page.goto(at.url + address)
        page.locator("#chart-said").wait_for(state="hidden")
        return page

    open_page.expected = ()
    yield open_page
    for context in contexts:
        context.close()
    for one in watched:
        assert one.asked
        assert [url for url in one.asked if not url.startswith((one.origin, "data:"))] == []
        assert [text for text in one.wrong if not text.startswith(open_page.expected)] == []


def find(page, words, key="Enter"):
    """Type into the search, and take the first that is found."""
    page.fill("#find", words)
    page.locator("#found li").first.wait_for()
    page.press("#find", key)


def rows(page, place):
    """The titles of a list, when it is that of the last question."""
    page.locator(f"{place} .body[aria-busy]").wait_for(state="detached")
    page.locator(f"{place} .rows .open").first.wait_for()
    return page.locator(f"{place} .rows .open").all_inner_texts()


def taste(page):
    return page.locator("#taste .title").all_inner_texts()


def recommended(page, change):
    """What is recommended after `change()` was answered."""
    with page.expect_response("**/v1/recommend"):
        change()
    return rows(page, "#recommended")


def titles(model, frame):
    """The titles of a frame of items, as they are shown."""
    shown = model.interactions.titles(frame["item_id"])
    return [
        (title or "").strip() or one for title, one in zip(shown, frame["item_id"], strict=True)
    ]


# ---------------------------------------------------------------------------------- what it does


def test_a_search_leads_to_the_neighbours(visit, model):
    page = visit()
    page.fill("#find", "drama film")
    options = page.locator("#found li")
    options.first.wait_for()
    counts = dict(zip(model.interactions.item_ids, model.interactions.item_counts, strict=True))
    known = [int(re.search(r"(\d+) user", text)[1]) for text in options.all_inner_texts()]
    assert known == sorted(known, reverse=True)
    assert page.get_attribute("#find", "aria-expanded") == "true"
    find(page, "drama film 5")
    assert page.inner_text("#item .name") == "Drama film 5"
    assert f"{counts['5']} users" in page.inner_text("#item .body")
    nearest = model.similar_items("5", k=10)
    assert rows(page, "#item") == titles(model, nearest)
    scores = page.locator("#item .score").all_inner_texts()
    assert [float(text.split()[-1]) for text in scores] == pytest.approx(nearest["score"], abs=6e-4)


def reasons(page):
    """The items that are given as the reasons, and the text, when it is there."""
    page.locator("#reasons .because").wait_for()
    page.locator("#reasons[aria-busy]").wait_for(state="detached")
    return page.locator("#reasons .open").all_inner_texts(), page.inner_text("#reasons")


def test_a_recommendation_has_reasons(visit, model):
    page = visit("#taste=6&taste=2&taste=10&taste=9")
    rows(page, "#recommended")
    assert page.inner_text("#reasons") == ""
    page.click("#recommended .rows .open >> nth=0")
    chosen = parse_qs(urlsplit(page.url).fragment)["item"][0]
    why = model.explain(item=chosen, liked=["6", "2", "10", "9"])
    near, text = reasons(page)
    assert near == titles(model, why.nearest)
    assert text.startswith("Because you like ")
    assert "and 1 other item." in text
    assert f"Score {why.score:.3f} = {why.closeness:.3f} closeness" in text
    page.click("#reasons .open >> nth=0")  # an item of the taste has none
    page.locator("#reasons .because").wait_for(state="detached")
    assert page.locator("#item .name").inner_text().strip() == near[0]


def test_the_reasons_for_a_user_follow_the_dial(visit, sites, dialled):
    page = visit("#user=u3&item=5&popularity=0.5", at=sites(dialled))
    why = dialled.explain("u3", "5", popularity=0.5)
    near, text = reasons(page)
    assert near == titles(dialled, why.nearest)
    assert text.startswith("Because user u3 has ")
    assert f"{why.closeness:.3f} closeness + {why.prior:.3f} popularity" in text
    rows(page, "#recommended")
    page.fill("#popularity", "1")
    page.get_by_text(f"{dialled.explain('u3', '5', popularity=1).prior:.3f} popularity").wait_for()


def test_a_taste_changes_what_is_recommended(visit):
    page = visit()
    first = recommended(page, lambda: find(page, "western film 6", "Shift+Enter"))
    assert taste(page) == ["Western film 6"]
    assert "Western film 6" not in first
    second = recommended(page, lambda: page.click("#recommended .rows .add >> nth=0"))
    assert taste(page) == ["Western film 6", first[0]]
    assert first[0] not in second
    assert second != first
    recommended(page, lambda: page.click("#taste button[aria-label^='Remove'] >> nth=0"))
    assert taste(page) == [first[0]]
    page.click("#clear")
    assert taste(page) == []
    assert page.locator("#recommended .rows").count() == 0


def test_neighbours_go_into_the_taste_and_out_of_it(visit):
    page = visit("#item=5")
    nearest = rows(page, "#item")
    button = page.locator("#item .rows .add").first
    recommended(page, button.click)
    assert taste(page) == [nearest[0]]
    assert button.get_attribute("aria-pressed") == "true"
    button.click()
    assert taste(page) == []


def test_a_user_has_a_list_and_a_place(visit, model):
    page = visit()
    page.fill("#user-id", "u3")
    shown = recommended(page, lambda: page.press("#user-id", "Enter"))
    assert shown == titles(model, model.recommend("u3", k=10))
    assert "user u3" in page.inner_text("#whose")
    assert pixels(page, "--taste") == 0
    with page.expect_response("**/v1/map/position"):
        page.check("#place")
    page.locator("#marks >> text=position").wait_for()
    assert pixels(page, "--taste") > 20
    page.uncheck("#place")
    assert page.locator("#marks >> text=position").count() == 0


def test_a_user_nobody_knows_is_told(visit):
    visit.expected = ("Failed to load resource: the server responded with a status of 404",)
    page = visit()
    page.fill("#user-id", "nobody")
    page.click("#user button")
    told = page.locator("#recommended .trouble")
    told.wait_for()
    assert "nobody" in told.inner_text()
    assert "nobody" in page.inner_text("#live")


def test_a_search_that_finds_nothing_says_so(visit):
    page = visit()
    page.fill("#find", "<b>zzz</b>")
    page.locator("#find-trouble >> text=<b>zzz</b>").wait_for()
    assert page.locator("#found").is_hidden()
    page.press("#find", "Escape")
    assert page.input_value("#find") == ""


def test_enter_before_the_answer_takes_the_first_for_these_words(visit):
    page = visit()
    find(page, "noir film 39")
    page.fill("#find", "drama film 9")
    page.press("#find", "Enter")
    page.locator("#item .name >> text=Drama film 9").wait_for()


def test_facts_and_accuracy_of_the_model(visit, model):
    page = visit()
    facts = page.locator(".facts").inner_text()
    assert f"{model.interactions.n_items}" in facts
    assert "exact" in facts
    page.click("#accuracy summary")
    table = page.locator("#accuracy details tbody tr").all_inner_texts()
    assert [row.split()[0] for row in table] == ["1", "2", "3", "4"]
    figures = [float(row.split()[1]) for row in table]
    assert figures == pytest.approx(model.history["validation_ndcg"], abs=6e-5)
    assert page.locator("#accuracy svg circle").count() == 4
    assert f"epoch {1 + int(np.argmax(figures))}" in page.get_attribute(
        "#accuracy svg", "aria-label"
    )


@pytest.mark.filterwarnings("ignore::nearfar.errors.NearfarWarning")
def test_the_figures_saved_with_the_model_are_shown(visit, sites):
    train, test = split.ratio(films(), test=0.2, seed=0)
    made = fitted(train, validation=0.2)
    made.keep_evaluation(evaluate(made, train, test, k=5))
    page = visit(at=sites(made))
    table = page.locator("#accuracy table").first
    assert table.locator("thead th").all_inner_texts() == ["metric", "validation", "test"]
    rows = [row.split("\t") for row in table.locator("tbody tr").all_inner_texts()]
    shown = {name: figures for name, *figures in rows}
    for name, spelt in (("ndcg", "NDCG"), ("mmr", "MMR")):
        saved = [made.metrics[part][name] for part in ("validation", "test")]
        assert [float(figure) for figure in shown[spelt]] == pytest.approx(saved, rel=1e-2)
    assert shown["k"] == ["\u2013", "5"]


@pytest.fixture(scope="module")
def dialled():
    """A model with a dial, which has a front of its calibration."""
    made = CML(dim=8, batch=64, sampler=Shared(0.8), negatives=30, prior=Prior())
    return made.fit(films(), epochs=12, seed=0, validation=0.2, k=10)


def turn(page, popularity):
    """Move the slider, as its arrow keys do, and return what is recommended then."""
    page.focus("#popularity")
    steps = round((popularity - float(page.input_value("#popularity"))) / 0.05)
    for _ in range(abs(steps) - 1):
        page.keyboard.press("ArrowRight" if steps > 0 else "ArrowLeft")
    shown = recommended(
        page, lambda: page.keyboard.press("ArrowRight" if steps > 0 else "ArrowLeft")
    )
    assert float(page.input_value("#popularity")) == pytest.approx(popularity)
    return shown


def position(page):
    """The numbers that are told of the front, and where its point is between the least and most."""
    told = page.text_content("#front .told")
    setting, ndcg, mmr = (float(one) for one in re.findall(r"\d+\.?\d*", told))
    at = {name: float(page.get_attribute("#front .best", name)) for name in ("cx", "cy")}
    return setting, ndcg, mmr, at


def test_the_slider_moves_the_list_and_the_point_on_the_front(visit, sites, dialled):
    page = visit(at=sites(dialled))
    counts = dict(zip(dialled.interactions.item_ids, dialled.interactions.item_counts, strict=True))
    page.fill("#user-id", "u3")
    shown = recommended(page, lambda: page.press("#user-id", "Enter"))
    assert shown == titles(dialled, dialled.recommend("u3", k=10))
    assert page.input_value("#popularity") == "1"
    table = dialled.calibration
    places = []
    for popularity in (0.0, 0.5, 1.5):
        shown = turn(page, popularity)
        expected = dialled.recommend("u3", k=10, popularity=popularity)
        assert shown == titles(dialled, expected)
        median = np.median([counts[one] for one in expected["item_id"]])
        assert page.inner_text("#dial-list") == (
            f"Median popularity of this list: {median:g} users."
        )
        assert f"{popularity:.2f}; the model's own is 1.00" in page.inner_text("#dial label")
        setting, ndcg, mmr, at = position(page)
        assert setting == popularity
        x = table["popularity"].to_numpy()
        assert ndcg == pytest.approx(np.interp(popularity, x, table["ndcg"]), abs=6e-5)
        assert mmr == pytest.approx(np.interp(popularity, x, table["mmr"]), rel=0.01)
        places.append((mmr, at["cx"]))
    assert places == sorted(places)
    assert len({x for _, x in places}) == 3
    assert parse_qs(urlsplit(page.url).fragment)["popularity"] == ["1.5"]


def test_the_setting_is_in_the_address_and_goes_back(visit, sites, dialled):
    site = sites(dialled)
    page = visit("#user=u3&popularity=0.25", at=site)
    assert rows(page, "#recommended") == titles(
        dialled, dialled.recommend("u3", k=10, popularity=0.25)
    )
    assert page.input_value("#popularity") == "0.25"
    turn(page, 0.3)
    with page.expect_response("**/v1/recommend"):
        page.go_back()
    assert page.input_value("#popularity") == "0.25"


def test_the_weight_of_an_item_is_in_its_tip(visit, sites, dialled):
    page = visit("#popularity=0.5", at=sites(dialled))
    point(page)
    tip = page.inner_text("#chart .tip")
    n, weight = int(re.search(r"(\d+) users?", tip)[1]), float(re.search(r"weight (\S+)", tip)[1])
    assert weight == pytest.approx(0.5 * dialled.gamma * np.log(n), abs=6e-4)


def test_a_model_without_a_prior_has_no_slider(visit, model):
    page = visit("#user=u3&popularity=0.5")
    assert rows(page, "#recommended") == titles(model, model.recommend("u3", k=10))
    assert page.locator("#dial").is_hidden()
    assert page.locator("#front").count() == 0
    point(page)
    assert "weight" not in page.inner_text("#chart .tip")


@pytest.mark.parametrize("width", [320, 1280])
def test_the_slider_and_the_front_fit_and_stand_out(visit, sites, dialled, width):
    page = visit("#user=u3&popularity=0.05", at=sites(dialled), width=width)
    rows(page, "#recommended")
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width
    check_words(page, width)
    found = page.evaluate(CONTRAST)
    assert [pair for pair in found if pair[0] < 4.5] == []
    tab_to(page, "#popularity")


@pytest.mark.parametrize("strips", [False, True], ids=["the server", "the proxy"])
def test_it_works_under_a_prefix_that_either_removes(visit, model, sites, strips):
    """`visit` sees that every address asked for has the prefix, and that the policy holds."""
    page = visit(at=sites(model, prefix="/shop/films", strips=strips))
    find(page, "drama film 5")
    assert rows(page, "#item") == titles(model, model.similar_items("5", k=10))
    recommended(page, lambda: find(page, "western film 6", "Shift+Enter"))
    assert page.locator(".facts").inner_text()
    assert urlsplit(page.url).path == "/shop/films/"
    page.reload()
    page.locator("#chart-said").wait_for(state="hidden")
    assert taste(page) == ["Western film 6"]


# --------------------------------------------------------------------------------------- the map


def pixels(page, colour):
    """How many pixels of the map have a colour of the style."""
    return page.evaluate(
        """(name) => {
          const canvas = document.querySelector("#chart canvas");
          const hex = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
          const wanted = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
          const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
          let n = 0;
          for (let i = 0; i < data.length; i += 4)
            n += data[i] === wanted[0] && data[i + 1] === wanted[1] && data[i + 2] === wanted[2];
          return n;
        }""",
        colour,
    )


def picture(page):
    """The map, when it has been drawn."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
    return page.evaluate("() => document.querySelector('#chart canvas').toDataURL()")


def point(page):
    """Go over the map until a point is hit; its place and what is said of it."""
    box = page.locator("#chart canvas").bounding_box()
    for across in np.linspace(0.2, 0.8, 40):
        for down in np.linspace(0.2, 0.8, 20):
            place = box["x"] + across * box["width"], box["y"] + down * box["height"]
            page.mouse.move(*place)
            if page.locator("#chart .tip").is_visible():
                return place, page.inner_text("#chart .tip .title >> nth=0")
    raise AssertionError("no point is where the map is")


def test_a_point_says_what_it_is_and_a_click_takes_it(visit):
    page = visit()
    place, title = point(page)
    page.mouse.click(*place)
    assert page.inner_text("#item .name") == title
    assert taste(page) == []
    page.check("#clicks [value=add]")
    page.mouse.click(*place)
    assert taste(page) == [title]


def test_the_map_moves_by_mouse_and_keys_and_comes_back(visit):
    page = visit()
    before = picture(page)
    box = page.locator("#chart canvas").bounding_box()
    page.mouse.move(box["x"] + 12, box["y"] + 12)
    page.mouse.wheel(0, -300)
    closer = picture(page)
    (left, top), _ = point(page)
    page.mouse.down()
    page.mouse.move(left + 90, top + 40, steps=4)
    page.mouse.up()
    page.mouse.move(0, 0)
    moved = picture(page)
    assert len({before, closer, moved}) == 3
    assert page.locator("#item .name").count() == 0, "a drag of a point is no click on it"
    page.click("[data-zoom=whole]")
    assert picture(page) == before
    page.focus("#chart")
    for key in ("+", "Shift+ArrowLeft"):
        page.press("#chart", key)
        assert picture(page) != before
    page.press("#chart", "0")
    assert picture(page) == before


def test_the_map_moves_by_touch(visit):
    page = visit(width=400, touch=True)
    box = page.locator("#chart canvas").bounding_box()
    middle = box["x"] + box["width"] / 2, min(box["y"] + box["height"] / 2, 700)
    hand = page.context.new_cdp_session(page)

    def fingers(kind, *apart):
        points = [{"x": middle[0] + off, "y": middle[1], "id": n} for n, off in enumerate(apart)]
        hand.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    before = picture(page)
    fingers("touchStart", -30, 30)
    fingers("touchMove", -80, 80)
    fingers("touchEnd")
    spread = picture(page)
    fingers("touchStart", 0)
    fingers("touchMove", 60)
    fingers("touchEnd")
    assert len({before, spread, picture(page)}) == 3
    assert page.locator("#item .name").count() == 0


def test_the_map_is_coloured_by_popularity_or_category(visit):
    page = visit()
    by_popularity = picture(page)
    page.check("#colours [value=category]")
    assert picture(page) != by_popularity
    names = page.locator("#scale button").all_inner_texts()
    assert sorted(names) == sorted(GENRES)
    every = picture(page)
    page.click("#scale button >> nth=0")
    assert page.get_attribute("#scale button >> nth=0", "aria-pressed") == "true"
    assert picture(page) != every
    page.click("#scale button >> nth=0")
    assert picture(page) == every


def test_what_is_marked_is_seen_on_the_map(visit):
    page = visit()
    colours = ("--near", "--taste", "--recommended")
    assert [pixels(page, colour) for colour in colours] == [0, 0, 0]
    page = visit("#item=5&taste=6")
    rows(page, "#item")
    rows(page, "#recommended")
    picture(page)
    assert min(pixels(page, colour) for colour in colours) > 20
    assert page.inner_text("#marks").split("\n") == [
        "neighbour",
        "recommended",
        "taste",
        "the item",
    ]


# ---------------------------------------------------------------------------- for everybody


def tab_to(page, selector):
    """Press Tab until the focus is on what matches; whatever has it on the way shows it."""
    for _ in range(60):
        page.keyboard.press("Tab")
        style = page.evaluate("() => getComputedStyle(document.activeElement).outlineStyle")
        assert style != "none", page.evaluate("() => document.activeElement.outerHTML")
        if page.evaluate("(what) => document.activeElement.matches(what)", selector):
            return
    raise AssertionError(f"{selector} cannot be reached")


def test_everything_can_be_done_with_the_keyboard(visit):
    page = visit()
    tab_to(page, ".skip")
    tab_to(page, "#find")
    page.keyboard.type("comedy film")
    page.locator("#found li").first.wait_for()
    for key in ("ArrowDown", "ArrowDown", "ArrowUp"):
        page.keyboard.press(key)
    active = page.get_attribute("#find", "aria-activedescendant")
    chosen = page.inner_text(f"#{active} .title")
    assert page.get_attribute(f"#{active}", "aria-selected") == "true"
    page.keyboard.press("Enter")
    rows(page, "#item")
    assert page.inner_text("#item .name") == chosen
    tab_to(page, "#item .rows .add")
    first = recommended(page, lambda: page.keyboard.press("Enter"))
    tab_to(page, "#recommended .rows .add")
    recommended(page, lambda: page.keyboard.press("Enter"))
    assert page.evaluate("() => document.activeElement.matches('#recommended .add')")
    assert taste(page)[1] == first[0]
    page.locator("#taste .square").first.focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    assert taste(page) == []
    assert page.evaluate("() => document.activeElement.id") == "find"


def test_the_map_can_be_read_with_the_keyboard(visit):
    page = visit()
    page.focus("#chart")
    said = []
    for key in ("ArrowRight", "ArrowRight", "ArrowDown"):
        page.keyboard.press(key)
        said.append(page.inner_text("#live"))
    assert len(set(said)) == 3
    assert all(re.search(r", \d+ users?$", text) for text in said)
    page.keyboard.press("Enter")
    assert said[-1].startswith(page.inner_text("#item .name"))
    recommended(page, lambda: page.keyboard.press("a"))
    assert [said[-1].rsplit(",", 1)[0]] == taste(page)


def test_changes_are_said(visit):
    page = visit("#item=5")
    rows(page, "#item")
    assert "10 neighbours of Drama film 5" in page.inner_text("#live")
    recommended(page, lambda: find(page, "noir film 39", "Shift+Enter"))
    page.wait_for_function(
        "() => document.getElementById('live').innerText.includes('recommended')"
    )
    assert page.get_attribute("#live", "role") == "status"
    assert page.inner_text("#live").startswith("Noir film 39")


@pytest.mark.parametrize("width", [320, 400, 900, 1280, 1600])
def test_nothing_reaches_over_the_edge(visit, width):
    page = visit("#item=2&taste=2&taste=3&taste=0&place=yes", width=width)
    rows(page, "#item")
    rows(page, "#recommended")
    page.fill("#find", "e")
    page.locator("#found li").first.wait_for()
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width
    check_words(page, width)


def check_words(page, width):
    """No words of a figure lie on each other or reach over the edge."""
    boxes = [text.bounding_box() for text in page.locator("#accuracy svg text").all()]
    assert len(boxes) >= 6
    for one, other in combinations(boxes, 2):
        beside = one["x"] + one["width"] <= other["x"] or other["x"] + other["width"] <= one["x"]
        above = one["y"] + one["height"] <= other["y"] or other["y"] + other["height"] <= one["y"]
        assert beside or above, "words of the figure lie on each other"
        assert 0 <= one["x"] <= one["x"] + one["width"] <= width


CONTRAST = """() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (node) => {
    for (; node; node = node.parentElement) {
      const [r, g, b, a = 1] = parse(getComputedStyle(node).backgroundColor);
      if (a === 1) return [r, g, b];
    }
  };
  const found = [];
  const check = (node, style, text) => {
    const colour = node.namespaceURI.endsWith("svg") ? style.fill : style.color;
    const [a, b] = [light(parse(colour)), light(behind(node))].sort((x, y) => y - x);
    found.push([(a + 0.05) / (b + 0.05), text]);
  };
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].filter((child) => child.nodeType === 3 && child.data.trim());
    if (own.length && node.getClientRects().length && !node.closest("script, noscript, .unseen"))
      check(node, getComputedStyle(node), own[0].data.trim().slice(0, 40));
    if (node.placeholder) check(node, getComputedStyle(node, "::placeholder"), node.placeholder);
  }
  return found;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out(visit, scheme):
    page = visit("#item=5&taste=6&place=yes", scheme=scheme)
    rows(page, "#item")
    rows(page, "#recommended")
    point(page)
    page.fill("#find", "film")
    page.locator("#found li").first.wait_for()
    page.press("#find", "ArrowDown")
    found = page.evaluate(CONTRAST)
    assert len(found) > 80
    assert [pair for pair in found if pair[0] < 4.5] == []


# ---------------------------------------------------------------------------- what may go wrong


@pytest.mark.parametrize("title", [IMAGE, SCRIPT])
def test_a_title_is_never_more_than_text(visit, title):
    page = visit()
    before = page.title()
    page.fill("#find", title[:20])
    page.locator("#found li").first.wait_for()
    assert page.inner_text("#found .title >> nth=0") == title
    page.press("#find", "Enter")
    rows(page, "#item")
    assert page.inner_text("#item .name") == title
    recommended(page, lambda: page.click("#item .add >> nth=0"))
    assert taste(page) == [title]
    assert page.locator("img").count() == 0
    assert page.locator("script").count() == 1
    assert page.title() == before


def test_an_item_without_a_title_goes_by_its_id(visit):
    page = visit("#item=4")
    rows(page, "#item")
    assert page.inner_text("#item .name") == "4"


LATE = """() => {
  const real = window.fetch;
  let n = 0;
  window.fetch = async (path, options = {}) => {
    const late = new URL(path, location.href).pathname === "/v1/recommend" && n++ === 0;
    const answer = await real(path, { ...options, signal: null });
    if (late) await new Promise((done) => setTimeout(done, 900));
    if (late) window.late = true;
    return answer;
  };
}"""
"""The first list of recommendations comes after the others, and cannot be called off."""


def test_an_answer_that_comes_late_is_not_shown(visit):
    page = visit(before=f"({LATE})()")
    with page.expect_response("**/v1/recommend"):
        find(page, "western film 6", "Shift+Enter")
    newer = recommended(page, lambda: find(page, "noir film 39", "Shift+Enter"))
    page.wait_for_function("() => window.late")
    page.wait_for_timeout(100)
    assert rows(page, "#recommended") == newer
    assert "Noir film 39" not in newer


def test_the_address_holds_what_is_looked_at(visit):
    page = visit()
    find(page, "noir film 7")
    rows(page, "#item")
    recommended(page, lambda: page.click("#item .add >> nth=0"))
    shown = recommended(page, lambda: find(page, "noir film 39", "Shift+Enter"))
    words = parse_qs(urlsplit(page.url).fragment)
    assert words == {"item": [ODD], "taste": [ODD, "39"]}
    again = visit(page.url.removeprefix(page.url.split("#")[0]))
    assert rows(again, "#recommended") == shown
    assert again.inner_text("#item .name") == "Noir film 7"
    assert taste(again) == ["Noir film 7", "Noir film 39"]
    page.go_back()
    assert taste(page) == ["Noir film 7"]
    page.go_back()
    page.go_back()
    assert page.locator("#item .name").count() == 0
    page.go_forward()
    assert rows(page, "#item") == rows(again, "#item")


def test_a_server_that_is_gone_is_told_and_asked_again(visit, model, sites):
    visit.expected = ("Failed to load resource: net::ERR_CONNECTION",)
    here = sites(model)
    page = visit("#item=5", at=here)
    expected = rows(page, "#item")
    here.stop()
    find_open = page.locator("#item .rows .open").first
    find_open.click()
    told = page.locator("#item .trouble")
    told.wait_for()
    assert "cannot be reached" in told.inner_text()
    assert "cannot be reached" in page.inner_text("#live")
    here.start()
    told.locator("button").click()
    assert rows(page, "#item") != expected
    assert page.inner_text("#item .name") == expected[0]


def test_ids_that_are_great_numbers_stay_exact(visit, sites):
    first = 2**60 + 1
    pairs = [(u, first + i) for u in range(12) for i in range(12) if (u + i) % 2 == 0 and u != i]
    page = visit(at=sites(fitted(Interactions.from_pairs(pairs))))
    find(page, str(first))
    assert len(rows(page, "#item")) == 10
    assert page.inner_text("#item .name") == str(first)
    page.fill("#user-id", "3")
    assert recommended(page, lambda: page.press("#user-id", "Enter"))
    assert page.locator("#colours [value=category]").is_hidden()
    assert "no metrics" in page.inner_text("#accuracy")
