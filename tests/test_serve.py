"""The server: what it answers, what it refuses, and that nobody notices a new model."""

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import product

import httpx
import numpy as np
import polars as pl
import pytest
import uvicorn
from hypothesis import HealthCheck, given, settings
from prometheus_client.parser import text_string_to_metric_families

import nearfar as nf
from conftest import PLAIN, checkerboard, plain, random_data
from nearfar.approximate import ItemIndex
from nearfar.cli import app as commands
from nearfar.cli import serving as serving_commands
from nearfar.errors import DataError, OptionError, StoreError, UnknownIdError
from nearfar.optimiser import Adam
from nearfar.serve import answers, create_app, schemas, server
from nearfar.serve.batches import Batches
from nearfar.serve.limits import Admission, BodyLimit, Deadline
from nearfar.serve.names import Names
from nearfar.serve.space import Space, Wish
from nearfar.serve.titles import Titles

TOKEN = "open-sesame"
JSON = {"Content-Type": "application/json"}


def titled(data):
    """Titles of all items but the last, hostile ones among them, and genres as MovieLens has."""
    titles = [f"Film {i} <img src=x onerror=alert(1)>" for i in range(data.n_items - 1)]
    genres = [f"{'even' if i % 2 == 0 else 'odd'} | other" for i in range(data.n_items - 1)]
    ids = data.item_ids.to_list()[:-1]
    return data.with_item_table(pl.DataFrame({"item_id": ids, "title": titles, "genres": genres}))


@pytest.fixture(scope="module")
def model():
    options = plain(dim=3, batch=8, negatives=3, optimiser=Adam(0.03))
    return nf.CML(options).fit(titled(checkerboard()), epochs=20)


@pytest.fixture(scope="module")
def other():
    """Another model, of other data."""
    return nf.CML(PLAIN, dim=4).fit(random_data(), epochs=1)


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "model"
    model.save(path)
    return path


@pytest.fixture
def folder(saved, tmp_path):
    """A copy that a test may change."""
    return shutil.copytree(saved, tmp_path / "model")


def until(condition):
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come about")


def asking(url):
    return httpx.Client(base_url=url, timeout=30)


@contextmanager
def serving(app):
    """A client of an application behind a real server, on a free port."""
    opened = server.open_socket("127.0.0.1", 0)
    url = server.address_of(opened)
    running = uvicorn.Server(uvicorn.Config(app, log_level="critical"))
    thread = threading.Thread(target=running.run, kwargs={"sockets": [opened]})
    thread.start()
    try:
        until(lambda: running.started)
        with asking(url) as client:
            yield client
    finally:
        running.should_exit = True
        thread.join()
        opened.close()


@pytest.fixture(scope="module")
def client(saved):
    with serving(create_app(saved, token=TOKEN, max_body=100_000)) as one:
        yield one


def post(client, path, status=200, /, **asked):
    answer = client.post(path, json=asked)
    assert answer.status_code == status, answer.text
    return answer.json()


def ids(answer):
    return [entry["id"] for entry in answer["results"]]


def pairs(answer):
    return [(entry["id"], pytest.approx(entry["score"], abs=1e-6)) for entry in answer["results"]]


def listed(frame, name="item_id"):
    return list(frame.select(name, "score").iter_rows())


# ------------------------------------------------------------------------------------- lists


def test_the_one_right_answer_comes_first(client):
    """User u has every item of their parity but u itself: that one is next."""
    first = [ids(post(client, "/v1/recommend", user=u, k=1))[0] for u in range(20)]
    assert np.mean(np.array(first) == np.arange(20)) >= 0.9


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"k": 3},
        {"k": 1000},
        {"exclude_seen": False},
        {"allow": [1, 3, 5, 3]},
        {"deny": [2, 4, 6, 8, 2], "k": 20},
        {"allow": [1, 2, 3, 4], "deny": [3], "exclude_seen": False},
        {"allow": []},
    ],
)
def test_recommendations_are_those_of_the_library(client, model, options):
    for user in (0, 7):
        answer = post(client, "/v1/recommend", user=user, **options)
        assert listed(model.recommend(user, **options)) == pairs(answer)
        assert answer["k"] == options.get("k", 10)
        ranks = [entry["rank"] for entry in answer["results"]]
        assert ranks == list(range(1, len(ranks) + 1))


def test_neighbours_are_those_of_the_library(client, model):
    answer = post(client, "/v1/similar/items", item=5, k=4)
    assert listed(model.similar_items(5, k=4)) == pairs(answer)
    answer = post(client, "/v1/similar/users", user=5, k=4)
    assert listed(model.similar_users(5, k=4), "user_id") == pairs(answer)
    assert all(entry["title"] is None for entry in answer["results"])


def test_scores_are_one_minus_half_the_squared_distance_off_the_sphere(tmp_path):
    free = nf.CML(PLAIN, dim=4, geometry="free").fit(random_data(), epochs=1)
    free.save(tmp_path)
    with serving(create_app(tmp_path)) as client:
        answer = post(client, "/v1/recommend", user=3, k=5)
        assert listed(free.recommend(3, k=5)) == pairs(answer)
        answer = post(client, "/v1/recommend", user=3, k=5, allow=[1, 2, 3], exclude_seen=False)
        expected = free.recommend(3, k=5, allow=[1, 2, 3], exclude_seen=False)
        assert listed(expected) == pairs(answer)
        answer = post(client, "/v1/similar/items", item=3, k=5)
        assert listed(free.similar_items(3, k=5)) == pairs(answer)


def test_somebody_unknown_gets_more_of_what_they_like(client, model):
    liked = [2, 4, 6, 8, "10", 2]
    answer = post(client, "/v1/recommend", items=liked, k=5)
    assert listed(model.recommend(liked=[2, 4, 6, 8, 10], k=5)) == pairs(answer)
    assert not {2, 4, 6, 8, 10} & set(ids(answer))
    assert np.mean(np.array(ids(answer)) % 2 == 0) >= 0.8
    assert answer == post(client, "/v1/recommend", items=[10, 8, 6, 4, 2], k=5)
    whole = post(client, "/v1/recommend", items=liked, k=20, exclude_seen=False)
    assert {2, 4, 6, 8, 10} < set(ids(whole))


def test_titles_come_with_items(client):
    answer = post(client, "/v1/recommend", user=0, k=20, exclude_seen=False)
    named = {entry["id"]: entry["title"] for entry in answer["results"]}
    assert named[3] == "Film 3 <img src=x onerror=alert(1)>"
    assert named[19] is None


def test_an_id_may_be_text_or_a_number(client):
    assert post(client, "/v1/recommend", user="3") == post(client, "/v1/recommend", user=3)
    assert post(client, "/v1/similar/items", item="3") == post(client, "/v1/similar/items", item=3)


def test_ids_of_any_type_have_a_form_in_json():
    assert Names(nf.Interactions.from_pairs([("7", "x")]).user_ids).rows([7]).tolist() == [0]
    mixed = Names(nf.Interactions.from_pairs([(1, "x"), ("1", "x"), (("t", 1), "x")]).user_ids)
    assert mixed.rows([1, "1", "('t', 1)"]).tolist() == [0, 1, 2]
    assert mixed.shown([0, 1, 2]) == [1, "1", "('t', 1)"]
    large = Names(nf.Interactions.from_pairs([(2**53 + 1, "x"), (5, "x")]).user_ids)
    assert large.shown([0, 1]) == [5, "9007199254740993"]
    assert large.rows(["9007199254740993"]).tolist() == [1]
    broken = Names(nf.Interactions.from_pairs([("\ud800", "x")]).user_ids)
    assert broken.shown([0]) == ["\\ud800"]
    assert broken.rows(["\\ud800"]).tolist() == [0]
    truth = Names(nf.Interactions.from_pairs([(True, "x"), (False, "x")]).user_ids)
    assert truth.rows(["True", "False"]).tolist() == [1, 0]
    with pytest.raises(UnknownIdError, match="Unknown user id: 1"):
        truth.rows([1])


def test_an_index_is_searched_and_shown(saved, model, tmp_path):
    pytest.importorskip("faiss")
    index = ItemIndex.build(model, recall=0.9, k=5)
    index.save(tmp_path / "index")
    with serving(create_app(saved, index=tmp_path / "index")) as client:
        assert client.get("/v1/model").json()["index"] == {"recall": index.recall, "k": 5}
        for user in (0, 7):
            answer = post(client, "/v1/recommend", user=user, k=5)
            assert listed(model.recommend(user, k=5, index=index)) == pairs(answer)
            answer = post(client, "/v1/recommend", user=user, k=5, allow=[1, 2, 3, 4])
            assert listed(model.recommend(user, k=5, allow=[1, 2, 3, 4])) == pairs(answer)
        answer = post(client, "/v1/similar/items", item=3, k=5)
        assert listed(model.similar_items(3, k=5, index=index)) == pairs(answer)


def test_the_index_of_another_model_is_refused(saved, other, tmp_path):
    pytest.importorskip("faiss")
    ItemIndex.build(other).save(tmp_path / "index")
    with pytest.raises(StoreError):
        create_app(saved, index=tmp_path / "index")


# ------------------------------------------------------------------------------ lists together


def test_lists_made_together_are_those_made_alone():
    rng = np.random.default_rng(0)
    table = rng.standard_normal((5000, 24), dtype=np.float32)
    space = Space(nf.training.scorer_of(table, table, "free"))
    wishes = [
        Wish(table[at], int(k), np.unique(rng.integers(0, 5000, 50)).astype(np.int32))
        for at, k in enumerate(rng.integers(1, 70, 40))
    ]

    async def all_at_once():
        with Batches(2) as batches:
            return await asyncio.gather(*(batches.nearest(space, wish) for wish in wishes))

    for wish, found in zip(wishes, asyncio.run(all_at_once()), strict=True):
        (alone,) = space.nearest([wish])
        assert len(found.rows) == wish.k
        assert found.rows.tolist() == alone.rows.tolist()
        assert found.scores == pytest.approx(alone.scores, abs=1e-5)
        assert not set(wish.hidden.tolist()) & set(found.rows.tolist())


class Recorder:
    """A space that notes which wishes came together, and is held up at the first."""

    def __init__(self):
        self.batches, self.go = [], threading.Event()

    def nearest(self, wishes):
        self.batches.append([wish.k for wish in wishes])
        assert self.go.wait(10)
        if any(wish.k == 13 for wish in wishes):
            raise DataError("thirteen")
        return [wish.k for wish in wishes]


def test_what_waits_is_the_next_batch_and_lengths_do_not_mix():
    space = Recorder()

    async def play():
        with Batches(1) as batches:
            wishes = [Wish(None, k, None) for k in (10, 9, 1000, 16, 11, 600)]
            tasks = [asyncio.create_task(batches.nearest(space, wish)) for wish in wishes]
            await asyncio.sleep(0.05)
            tasks[4].cancel()
            space.go.set()
            return await asyncio.gather(*tasks, return_exceptions=True)

    found = asyncio.run(play())
    assert space.batches == [[10], [9, 16], [1000, 600]]
    assert found[:4] == [10, 9, 1000, 16]
    assert found[5] == 600
    assert isinstance(found[4], asyncio.CancelledError)


def test_an_error_goes_to_those_of_its_batch_only():
    space = Recorder()
    space.go.set()

    async def play():
        with Batches(1) as batches:
            wishes = [Wish(None, k, None) for k in (5, 13, 14, 200)]
            tasks = (batches.nearest(space, wish) for wish in wishes)
            return await asyncio.gather(*tasks, return_exceptions=True)

    one, two, three, four = asyncio.run(play())
    assert (one, four) == (5, 200)
    assert isinstance(two, DataError)
    assert two is three


# ------------------------------------------------------------------------------------- facts


def test_vectors_are_those_of_the_model(client, model):
    answer = post(client, "/v1/vectors", users=[3, 1], items=["5"])
    assert answer["dim"] == 3
    assert np.array_equal(np.float32(answer["users"]), model.user_vectors[[3, 1]])
    assert np.array_equal(np.float32(answer["items"]), model.item_vectors[[5]])
    assert post(client, "/v1/vectors") == {"dim": 3, "users": [], "items": []}


def test_searching_finds_titles_and_ids_best_known_first(client):
    found = client.get("/v1/search", params={"q": "fILM 1", "limit": 4}).json()["results"]
    assert [entry["id"] for entry in found] == [1, 10, 11, 12]
    assert found[0] == {"id": 1, "title": "Film 1 <img src=x onerror=alert(1)>", "popularity": 9}
    (last,) = client.get("/v1/search", params={"q": "19"}).json()["results"]
    assert last == {"id": 19, "title": None, "popularity": 9}
    assert client.get("/v1/search", params={"q": "no such film"}).json() == {"results": []}
    assert len(client.get("/v1/search", params={"q": ""}).json()["results"]) == 20


def test_search_knows_no_case_stops_at_ends_and_prefers_the_popular():
    data = nf.Interactions.from_pairs(
        [(u, i) for i, n in (("x1", 1), ("x2", 3), ("x3", 2)) for u in range(n)]
    )
    table = pl.DataFrame({"item_id": ["x1", "x2"], "title": ["Straße", "ÉTÉ"], "category": [1, 2]})
    titles = Titles(data.with_item_table(table))
    assert titles.find("STRASSE", 9).tolist() == [0]
    assert titles.find("été", 9).tolist() == [1]
    assert titles.find("x", 9).tolist() == [1, 2, 0]
    assert titles.find("x", 2).tolist() == [1, 2]
    assert titles.find("étéx2", 9).tolist() == []  # a title and the id after it are two
    assert titles.find("x2straße", 9).tolist() == []
    assert titles.find("\ud800", 9).tolist() == []
    assert titles.categories([0, 1, 2]) == ["1", "2", None]
    assert Titles(data).of([0, 1]) == [None, None]


def test_categories_may_be_lists():
    data = nf.Interactions.from_pairs([(0, "a"), (0, "b")])
    table = pl.DataFrame({"item_id": ["a", "b"], "genres": [["x", "y"], []]})
    assert Titles(data.with_item_table(table)).categories([0, 1]) == ["x", None]


def test_the_model_is_described(client, model):
    facts = client.get("/v1/model").json()
    assert facts["version"] == nf.__version__
    assert facts["fingerprint"] == model.fingerprint
    counts = [facts[name] for name in ("n_users", "n_items", "n_pairs", "dim")]
    assert counts == [20, 20, 180, 3]
    assert facts["options"] == model.options.to_dict()
    assert (facts["history"], facts["index"], facts["categories"]) == ([], None, "genres")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", facts["loaded_at"])


@pytest.mark.filterwarnings("ignore::nearfar.errors.NearfarWarning")
def test_the_history_is_that_of_validated_epochs(tmp_path):
    fitted = nf.CML(PLAIN, dim=4).fit(random_data(), epochs=4, validation=0.2, every=2)
    fitted.save(tmp_path)
    with serving(create_app(tmp_path)) as client:
        facts = client.get("/v1/model").json()
    history, kept = facts["history"], facts["metrics"]["validation"]
    assert kept == pytest.approx(fitted.metrics["validation"])
    assert [line["epoch"] for line in history] == [2, 4]
    rows = fitted.history.filter(pl.col("epoch") % 2 == 0)
    assert [line["validation_ndcg"] for line in history] == rows["validation_ndcg"].to_list()
    assert all(line["validation_mmr"] > 0 for line in history)


def test_the_map_has_the_best_known_items(client, model):
    drawn = client.get("/v1/map", params={"limit": 7}).json()
    assert drawn["n_items"] == 20
    lists = ("ids", "titles", "x", "y", "popularity", "category")
    assert {len(drawn[name]) for name in lists} == {7}
    assert drawn["ids"] == list(range(7))
    assert drawn["category"][:3] == ["even", "odd", "even"]
    assert drawn["titles"][2].startswith("Film 2 ")
    places = np.stack([drawn["x"], drawn["y"]], axis=1)
    assert places == pytest.approx(model.projection.points[:7], abs=1e-6)
    assert drawn["method"] == "pca"
    whole = client.get("/v1/map").json()
    assert len(whole["ids"]) == 20


def test_somebody_has_a_place_on_the_map(client, model):
    place = model.projection.place(model.user_vectors[3])
    assert tuple(post(client, "/v1/map/position", user=3).values()) == pytest.approx(
        place, abs=1e-6
    )
    assert post(client, "/v1/map/position", user=3) != post(client, "/v1/map/position", user=4)
    two = post(client, "/v1/map/position", items=[2, 4])
    assert two == post(client, "/v1/map/position", items=[4, 2, 2])
    assert set(two) == {"x", "y"}


def test_a_model_without_titles_says_so(other, tmp_path):
    other.save(tmp_path)
    with serving(create_app(tmp_path)) as client:
        drawn = client.get("/v1/map").json()
        assert (drawn["titles"], drawn["category"]) == (None, None)
        assert client.get("/v1/model").json()["categories"] is None
        entry = post(client, "/v1/recommend", user=0, k=1)["results"][0]
        assert entry["title"] is None


# ----------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("path", "asked", "message"),
    [
        ("/v1/recommend", {"user": 99}, "Unknown user id: 99"),
        ("/v1/recommend", {"user": "x"}, "Unknown user id: 'x'"),
        ("/v1/recommend", {"items": [1, 88, 77]}, "Unknown item ids .2 of them.: 88, 77"),
        ("/v1/recommend", {"user": 1, "allow": [99]}, "Unknown item id: 99"),
        ("/v1/recommend", {"user": 1, "deny": [99]}, "Unknown item id: 99"),
        ("/v1/similar/items", {"item": -1}, "Unknown item id: -1"),
        ("/v1/similar/users", {"user": "\u0000"}, "Unknown user id"),
        ("/v1/vectors", {"users": [1, 99]}, "Unknown user id: 99"),
        ("/v1/map/position", {"user": 99}, "Unknown user id: 99"),
    ],
)
def test_unknown_ids_are_named(client, path, asked, message):
    error = post(client, path, 404, **asked)["error"]
    assert error["type"] == "UnknownIdError"
    assert re.search(message, error["message"])


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({}, "either `user` or `items`"),
        ({"user": 1, "items": [2]}, "either `user` or `items`"),
        ({"items": []}, "`body.items`: .*at least 1"),
        ({"user": 1, "k": 0}, "`body.k`: .*greater than or equal to 1"),
        ({"user": 1, "k": 1001}, "`body.k`: .*less than or equal to 1000"),
        ({"user": 1, "k": "3"}, "`body.k`: .*integer"),
        ({"user": 1, "k": 2.5}, "`body.k`: .*integer"),
        ({"user": 1, "exclude_seen": "no"}, "`body.exclude_seen`: .*boolean"),
        ({"user": True}, "`body.user`: .*integer"),
        ({"user": [1]}, "`body.user`"),
        ({"user": 2**64}, "`body.user`: .*less than"),
        ({"user": "x" * 257}, "`body.user`: .*at most 256"),
        ({"user": 1, "allow": list(range(1001))}, "`body.allow`: .*at most 1000"),
        ({"user": 1, "alow": [1]}, "`body.alow`: Extra inputs"),
        ({"items": [None, None, None]}, r"And \d+ more\."),
    ],
)
def test_what_is_out_of_bounds_is_refused(client, asked, message):
    error = post(client, "/v1/recommend", 422, **asked)["error"]
    assert error["type"] == "RequestError"
    assert re.search(message, error["message"]), error


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'{"user": NaN}',
        b'{"user": 1, "k": Infinity}',
        b'{"user": 1, "k": 1e999}',
        b'{"user": ' + b"9" * 5000 + b"}",
        b"[" * 90_000,
        b'{"user":' * 10_000,
        b'{"user": "\\ud800"}',
        b'{"user": 1, "\\ud800": 2}',
        b"\xff\xfe{}",
        b'{"user": "\xc3"}',
    ],
)
def test_what_is_no_request_is_refused(client, body):
    answer = client.post("/v1/recommend", content=body, headers=JSON)
    assert answer.status_code == 422
    assert answer.json()["error"]["type"] == "RequestError"


def test_a_body_must_say_that_it_is_json(client):
    answer = client.post("/v1/recommend", content=b'{"user": 1}', headers={"Content-Type": "x/y"})
    assert answer.status_code == 422


def test_of_a_name_given_twice_the_last_counts(client):
    body = b'{"user": 99, "k": 2, "user": 1}'
    answer = client.post("/v1/recommend", content=body, headers=JSON)
    assert answer.json() == post(client, "/v1/recommend", user=1, k=2)


@pytest.mark.parametrize(
    "query",
    ["/v1/search", "/v1/search?q=x&limit=0", "/v1/search?q=x&limit=1001", "/v1/search?q=x&limit=y",
     "/v1/search?q=" + "x" * 201, "/v1/map?limit=0", "/v1/map?limit=100001"],
)  # fmt: skip
def test_bad_queries_are_refused(client, query):
    answer = client.get(query)
    assert answer.status_code == 422
    assert answer.json()["error"]["type"] == "RequestError"


def test_other_paths_and_methods_are_refused(client):
    for method, path, status in (
        ("GET", "/nothing", 404),
        ("GET", "/docs", 404),
        ("GET", "/v1/recommend", 405),
        ("DELETE", "/v1/model", 405),
        ("GET", "/../../etc/passwd", 404),
    ):
        answer = client.request(method, path)
        assert answer.status_code == status
        assert answer.json()["error"]["type"] == "HttpError"


def test_a_body_that_is_too_large_is_refused_announced_or_not(client):
    def chunks():
        for _ in range(20):
            yield b" " * 10_000

    for content in (b" " * 100_001, chunks()):
        answer = client.post("/v1/recommend", content=content, headers=JSON)
        assert answer.status_code == 413
        assert answer.json()["error"]["type"] == "BodyTooLarge"
    whole = b'{"user": 1}'.ljust(100_000)
    assert client.post("/v1/recommend", content=whole, headers=JSON).status_code == 200


def test_a_fault_of_the_server_is_told_as_such(client, monkeypatch):
    def fault(*asked):
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(answers, "found", fault)
    answer = client.get("/v1/search?q=x")
    assert answer.status_code == 500
    assert answer.json()["error"]["type"] == "InternalError"
    assert "secret" not in answer.text
    assert client.get("/health").json() == {"status": "ok"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_body": 0}, "`max_body` must be at least 1; got 0"),
        ({"max_concurrent": 0}, "`max_concurrent` must be at least 1"),
        ({"max_waiting": -1}, "`max_waiting` must be at least 0"),
        ({"threads": 0}, "`threads` must be at least 1"),
        ({"timeout": 0.0}, "`timeout` must be a positive number"),
        ({"timeout": float("nan")}, "`timeout` must be a positive number"),
        ({"token": ""}, "`token` must be printable ASCII"),
        ({"token": "é"}, "`token` must be printable ASCII"),
    ],
)
def test_options_out_of_range_are_refused(saved, options, message):
    with pytest.raises(OptionError, match=message):
        create_app(saved, **options)


def test_what_is_no_model_is_refused(tmp_path):
    with pytest.raises(StoreError, match="does not exist"):
        create_app(tmp_path / "nothing")


# ------------------------------------------------------------------------------------- limits


class Gate:
    """Takes the place of a handler's work, and holds requests up until it is opened."""

    def __init__(self):
        self.inside, self.open = threading.Semaphore(0), threading.Event()

    def __call__(self, *asked):
        self.inside.release()
        assert self.open.wait(20)
        return schemas.FoundItems(results=[])

    def wait_for(self, n):
        for _ in range(n):
            assert self.inside.acquire(timeout=20)


@pytest.fixture
def gate(monkeypatch):
    made = Gate()
    monkeypatch.setattr(answers, "found", made)
    yield made
    made.open.set()


def in_flight(client):
    families = text_string_to_metric_families(client.get("/metrics").text)
    return next(f.samples[0].value for f in families if f.name == "nearfar_requests_in_flight")


def test_requests_beyond_those_that_wait_are_refused(saved, gate):
    app = create_app(saved, max_concurrent=1, max_waiting=1, timeout=30)
    with serving(app) as client, ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(client.get, "/v1/search?q=x") for _ in range(2)]
        gate.wait_for(1)
        until(lambda: in_flight(client) == 3)  # the two, and that for the figures itself
        refused = client.get("/v1/search?q=x")
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "1"
        assert refused.json()["error"]["type"] == "TooBusy"
        assert client.get("/health").status_code == 200
        gate.open.set()
        assert [answer.result().status_code for answer in asked] == [200, 200]
        assert client.get("/v1/search?q=x").status_code == 200


def test_a_late_answer_is_given_up(saved, gate):
    with serving(create_app(saved, max_concurrent=1, timeout=0.2)) as client:
        late = client.get("/v1/search?q=x")
        assert late.status_code == 504
        assert late.json()["error"]["type"] == "TimeoutError"
        assert "0.2 seconds" in late.json()["error"]["message"]
        gate.open.set()
        assert client.get("/v1/search?q=x").status_code == 200


def test_a_client_that_sends_slowly_takes_no_place_and_is_given_up(saved):
    with serving(create_app(saved, max_concurrent=1, max_waiting=0, timeout=1.0)) as client:
        address = (client.base_url.host, client.base_url.port)
        with socket.create_connection(address) as slow:
            slow.sendall(b"POST /v1/recommend HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{")
            assert client.get("/v1/model").status_code == 200
            slow.settimeout(20)
            assert slow.recv(100).startswith(b"HTTP/1.1 504 ")


def run_layer(layer, sends, receives=()):
    """Send one request through a layer of ASGI; give what the client gets."""
    got, coming = [], iter(receives)
    scope = {"type": "http", "path": "/x", "headers": []}

    async def receive():
        return next(coming)

    async def send(message):
        got.append(message)

    async def app(scope, receive, send):
        await sends(receive, send)

    asyncio.run(layer(app)(scope, receive, send))
    return got


def test_an_answer_that_does_not_end_is_cut_off():
    async def sends(receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.sleep(60)

    with pytest.raises(TimeoutError):
        run_layer(lambda app: Deadline(app, 0.01, ()), sends)


def test_a_client_that_goes_while_it_sends_gets_no_answer():
    async def sends(receive, send):
        raise AssertionError("the application is not asked")

    chunk = {"type": "http.request", "body": b"x", "more_body": True}
    gone = [chunk, {"type": "http.disconnect"}]
    assert run_layer(lambda app: BodyLimit(app, 10), sends, gone) == []


def test_a_body_comes_to_the_application_whole_and_then_what_follows():
    async def sends(receive, send):
        await send(await receive())
        await send(await receive())

    chunks = [{"type": "http.request", "body": b"ab", "more_body": True},
              {"type": "http.request", "body": b"c"}, {"type": "http.disconnect"}]  # fmt: skip
    got = run_layer(lambda app: BodyLimit(app, 3), sends, chunks)
    assert got[0] == {"type": "http.request", "body": b"abc", "more_body": False}
    assert got[1] == {"type": "http.disconnect"}


def test_layers_let_other_than_http_through():
    seen = []

    async def app(scope, receive, send):
        seen.append(scope["type"])

    layers = (Deadline(app, 1, ()), BodyLimit(app, 1), Admission(app, 1, 0, ()))
    for layer in layers:
        asyncio.run(layer({"type": "lifespan"}, None, None))
    assert seen == ["lifespan"] * 3


# ------------------------------------------------------------------------------------- reload


def reload(client, token=TOKEN):
    return client.post("/reload", headers={"Authorization": f"Bearer {token}"})


def test_reload_asks_for_the_token(client, saved):
    missing = client.post("/reload")
    assert (missing.status_code, missing.headers["www-authenticate"]) == (401, "Bearer")
    for wrong in ("Bearer x", TOKEN, "Basic x", f"Bearer {TOKEN}x"):
        answer = client.post("/reload", headers={"Authorization": wrong})
        assert (answer.status_code, answer.json()["error"]["type"]) == (403, "Forbidden")
    assert reload(client).status_code == 200
    with serving(create_app(saved)) as closed:
        answer = reload(closed)
        assert answer.status_code == 403
        assert "SIGHUP" in answer.json()["error"]["message"]


def test_reload_takes_the_new_model(folder, other):
    with serving(create_app(folder, token=TOKEN)) as client:
        before = client.get("/v1/model").json()
        other.save(folder)
        assert client.get("/v1/model").json() == before
        after = reload(client)
        assert after.status_code == 200
        assert after.json() == client.get("/v1/model").json()
        assert after.json()["fingerprint"] == other.interactions.fingerprint
        assert listed(other.recommend(25, k=3)) == pairs(
            post(client, "/v1/recommend", user=25, k=3)
        )


def broken_points(folder):
    (points,) = folder.glob("points-*.safetensors")
    points.write_bytes(points.read_bytes()[:-1] + b"x")


def not_a_number(folder):
    model = nf.CML.load(folder)
    nowhere = np.full_like(model.item_vectors, np.nan)
    made = model.projection
    model._fitted = model._fitted._replace(items=nowhere, projection=made)
    model.save(folder)


@pytest.mark.parametrize(
    ("damage", "kind", "message"),
    [
        (broken_points, "StoreError", "not as it was written"),
        (shutil.rmtree, "StoreError", "does not exist"),
        (not_a_number, "StoreError", "not a finite number"),
    ],
)
def test_a_broken_model_is_refused_and_the_old_one_stays(folder, damage, kind, message):
    with serving(create_app(folder, token=TOKEN)) as client:
        before = client.get("/v1/model").json()
        expected = post(client, "/v1/recommend", user=3)
        damage(folder)
        refused = reload(client)
        assert refused.status_code == 409
        assert refused.json()["error"]["type"] == kind
        assert message in refused.json()["error"]["message"]
        assert client.get("/v1/model").json() == before
        assert post(client, "/v1/recommend", user=3) == expected
        assert counted(client, "nearfar_reloads_total", outcome="refused") == 1
        assert counted(client, "nearfar_reloads_total", outcome="taken") == 0


def test_a_request_keeps_the_model_it_began_with(folder, model, other, monkeypatch):
    inside, go, nearest = threading.Event(), threading.Event(), Space.nearest

    def held_up(space, wishes):
        if wishes[0].k == 7:
            inside.set()
            assert go.wait(20)
        return nearest(space, wishes)

    monkeypatch.setattr(Space, "nearest", held_up)
    app = create_app(folder, token=TOKEN, timeout=30)
    with serving(app) as client, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(post, client, "/v1/recommend", user=3, k=7)
        assert inside.wait(20)
        other.save(folder)
        assert reload(client).json()["n_users"] == other.interactions.n_users
        go.set()
        assert pairs(asked.result()) == listed(model.recommend(3, k=7))
        assert pairs(post(client, "/v1/recommend", user=3, k=7)) == listed(other.recommend(3, k=7))


def test_reloading_under_load_drops_no_request(folder, model, other):
    """Every answer is that of the one model or of the other, and none is an error."""
    right = [
        [round(score, 5) for _, score in listed(one.recommend(3, k=5))] for one in (model, other)
    ]
    seen, stop = set(), threading.Event()

    def ask():
        n = 0
        with asking(url) as mine:
            while not stop.is_set():
                answer = post(mine, "/v1/recommend", user=3, k=5)
                scores = [round(entry["score"], 5) for entry in answer["results"]]
                seen.add(right.index(scores))
                n += 1
        return n

    with serving(create_app(folder, token=TOKEN)) as client, ThreadPoolExecutor(4) as pool:
        url = str(client.base_url)
        asked = [pool.submit(ask) for _ in range(4)]
        try:
            for one in (other, model, other, model, other):
                one.save(folder)
                assert reload(client).status_code == 200
        finally:
            stop.set()
        assert sum(one.result() for one in asked) > 20
        assert counted(client, "nearfar_requests_total", route="/v1/recommend", status="200") > 20
    assert seen == {0, 1}


# ------------------------------------------------------------------------------------ figures


def counted(client, name, **labels):
    for family in text_string_to_metric_families(client.get("/metrics").text):
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                return sample.value
    return None


def test_requests_are_counted_and_timed(saved, model):
    with serving(create_app(saved)) as client:
        for user in (1, 2, 99):
            client.post("/v1/recommend", json={"user": user})
        client.get("/nothing/12345")
        answer = client.get("/metrics")
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        route = "/v1/recommend"
        assert counted(client, "nearfar_requests_total", route=route, status="200") == 2
        assert counted(client, "nearfar_requests_total", route=route, status="404") == 1
        assert counted(client, "nearfar_requests_total", route="other", status="404") == 1
        assert counted(client, "nearfar_request_seconds_count", route=route) == 3
        assert 0 < counted(client, "nearfar_request_seconds_sum", route=route) < 30
        assert counted(client, "nearfar_requests_in_flight") == 1
        fingerprint = model.interactions.fingerprint
        assert counted(client, "nearfar_model_info", fingerprint=fingerprint) == 1
        assert "12345" not in client.get("/metrics").text


# --------------------------------------------------------------------------------------- page


def test_the_page_may_ask_nobody_else(client):
    page = client.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "connect-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert page.headers["x-content-type-options"] == "nosniff"
    linked = r"""(?:src|href|action)\s*=\s*["']?(?:[a-z]+:)?//|@import|url\(\s*["']?[a-z]+://"""
    assert not re.search(linked, page.text, re.IGNORECASE)


def test_the_description_needs_nothing_from_elsewhere(client):
    described = client.get("/openapi.json").json()
    assert set(described["paths"]) == {
        "/v1/recommend", "/v1/similar/items", "/v1/similar/users", "/v1/vectors", "/v1/search",
        "/v1/model", "/v1/map", "/v1/map/position", "/health", "/metrics", "/reload",
    }  # fmt: skip
    assert not re.search("https?://", json.dumps(described))


# ------------------------------------------------------------------------------- from its schema


def check_against_the_description(client, n):
    """Ask what the description allows, and what it does not; every answer must be as described."""
    import schemathesis
    from schemathesis import GenerationMode, checks

    kept = [
        checks.not_a_server_error,
        checks.status_code_conformance,
        checks.content_type_conformance,
        checks.response_headers_conformance,
        checks.response_schema_conformance,
        checks.negative_data_rejection,
    ]
    schema = schemathesis.openapi.from_url(f"{client.base_url}openapi.json")
    quiet = settings(
        max_examples=n,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    seen = []
    operations = [found.ok() for found in schema.get_all_operations()]
    for operation, mode in product(operations, GenerationMode):
        if mode is GenerationMode.NEGATIVE and "requestBody" not in operation.definition.raw:
            continue  # there is nothing to get wrong, or only text

        @quiet
        @given(case=operation.as_strategy(generation_mode=mode))
        def check(case):
            seen.append(case.call_and_validate(checks=kept).status_code)

        check()
    return seen


def test_answers_are_as_the_description_says(client):
    assert {200, 404, 422} <= set(check_against_the_description(client, 4))


@pytest.mark.slow
def test_many_answers_are_as_the_description_says(client):
    assert {200, 404, 422} <= set(check_against_the_description(client, 500))


# ------------------------------------------------------------------------------ the whole process


@contextmanager
def process(*words, env=None):
    """A server of its own; gives the process, and the address that it printed."""
    command = [sys.executable, "-m", "nearfar", "serve", *map(str, words), "--port", "0"]
    running = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(env or {})},
    )
    try:
        line = running.stdout.readline()
        assert "Serving" in line, running.stderr.read()
        yield running, line.split()[-1]
    finally:
        running.kill()
        running.communicate()


def test_sighup_loads_the_model_again(folder, other):
    with process(folder) as (running, url):
        assert url.startswith("http://127.0.0.1:")
        other.save(folder)
        running.send_signal(signal.SIGHUP)
        line = running.stderr.readline()
        assert line == f"nearfar: loaded again: {other.interactions!r}.\n"
        assert httpx.get(f"{url}v1/model").json()["n_users"] == other.interactions.n_users
        shutil.rmtree(folder)
        running.send_signal(signal.SIGHUP)
        assert "refused, and the old one is still served: " in running.stderr.readline()
        assert httpx.get(f"{url}health").status_code == 200


@pytest.mark.parametrize(("which", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_ends_it_after_the_requests_in_flight(saved, which, code):
    with process(saved) as (running, url):
        host, port = url.removeprefix("http://").rstrip("/").split(":")
        with socket.create_connection((host, int(port))) as client:
            body = b'{"user": 3, "k": 2}'
            client.sendall(
                b"POST /v1/recommend HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                b"Content-Length: %d\r\n\r\n%s" % (len(body), body[:5])
            )
            until(lambda: "in_flight 2.0" in httpx.get(f"{url}metrics").text)
            running.send_signal(which)
            until(lambda: refuses(host, int(port)))
            client.sendall(body[5:])
            client.settimeout(20)
            answer = b"".join(iter(lambda: client.recv(10_000), b""))
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b'"rank":2' in answer
        assert running.wait(20) == code
        assert running.stderr.read() == ""


def refuses(host, port):
    try:
        socket.create_connection((host, port), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False


def test_the_network_and_the_token_are_as_the_flags_say(saved, tmp_path):
    file = tmp_path / "token"
    file.write_text("from-file\n")
    words = (saved, "--host", "0.0.0.0", "--token-file", file)
    with process(*words) as (running, url), asking(url) as client:
        assert url.startswith("http://0.0.0.0:")
        assert "open to the network" in running.stderr.readline()
        assert reload(client, "from-file").status_code == 200
        assert reload(client, "else").status_code == 403


def test_the_token_may_be_in_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv("NEARFAR_TOKEN", raising=False)
    assert serving_commands._token(None) is None
    monkeypatch.setenv("NEARFAR_TOKEN", "from-environment")
    assert serving_commands._token(None) == "from-environment"
    (tmp_path / "token").write_text("from-file\n")
    assert serving_commands._token(tmp_path / "token") == "from-file"


@pytest.fixture
def run(capsys):
    def call(*words):
        with pytest.raises(SystemExit) as ended:
            commands(["serve", *map(str, words)])
        return ended.value.code, capsys.readouterr().err

    return call


def test_what_cannot_be_served_ends_with_a_line(run, saved, tmp_path):
    code, told = run(tmp_path, "--port", 0)
    assert (code, told.count("\n")) == (1, 1)
    assert "has no nearfar.json" in told
    with server.open_socket("127.0.0.1", 0) as taken:
        taken.listen()
        code, told = run(saved, "--port", taken.getsockname()[1])
        assert code == 1
        assert "cannot be taken" in told
        assert "`--port 0` takes a free one" in told
    code, told = run(saved, "--host", "no such host", "--port", 0)
    assert (code, "cannot be taken" in told) == (1, True)
    binary = tmp_path / "token"
    binary.write_bytes(b"\xff\xff")
    code, told = run(saved, "--port", 0, "--token-file", binary)
    assert (code, "must be text" in told) == (1, True)


def test_the_extra_is_named_where_it_is_missing():
    code = (
        "import sys; sys.modules['fastapi'] = None\n"
        "from nearfar.errors import MissingExtraError\n"
        "import nearfar.cli\n"
        "try:\n    import nearfar.serve\n"
        "except MissingExtraError as error:\n    print(error)"
    )
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "not installed: `pip install nearfar[serve]`" in told.stdout


def test_an_address_is_a_url():
    with server.open_socket("localhost", 0) as opened:
        assert server.is_local(opened)
        assert server.address_of(opened).endswith(f":{opened.getsockname()[1]}/")
