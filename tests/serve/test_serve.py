"""The server: what it answers, what it refuses, and what it says of itself."""

import json
import re
from itertools import product
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings

import nearfar as nf
from conftest import PLAIN, random_data
from nearfar.errors import OptionError, StoreError, UnknownIdError
from nearfar.search.item_index import ItemIndex
from nearfar.serve import answers, create_app
from nearfar.serve.names import Names
from nearfar.serve.titles import Titles
from served import counted, ids, listed, pairs, post, serving

JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def client(saved_model):
    with serving(create_app(saved_model, max_body=100_000)) as one:
        yield one


# -------------------------------------------------------------------------------------------- lists


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
def test_recommendations_are_those_of_the_library(client, titled_model, options):
    for user in (0, 7):
        answer = post(client, "/v1/recommend", user=user, **options)
        assert listed(titled_model.recommend(user, **options)) == pairs(answer)
        assert answer["k"] == options.get("k", 10)
        ranks = [entry["rank"] for entry in answer["results"]]
        assert ranks == list(range(1, len(ranks) + 1))


def test_neighbours_are_those_of_the_library(client, titled_model):
    answer = post(client, "/v1/similar/items", item=5, k=4)
    assert listed(titled_model.similar_items(5, k=4)) == pairs(answer)
    answer = post(client, "/v1/similar/users", user=5, k=4)
    assert listed(titled_model.similar_users(5, k=4), "user_id") == pairs(answer)
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


def test_somebody_unknown_gets_more_of_what_they_like(client, titled_model):
    liked = [2, 4, 6, 8, "10", 2]
    answer = post(client, "/v1/recommend", items=liked, k=5)
    assert listed(titled_model.recommend(liked=[2, 4, 6, 8, 10], k=5)) == pairs(answer)
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


def test_integers_and_text_have_a_form_in_json():
    assert Names(nf.Interactions.from_pairs([("7", "x")]).user_ids).rows([7]).tolist() == [0]
    large = Names(nf.Interactions.from_pairs([(2**53 + 1, "x"), (5, "x")]).user_ids)
    assert large.shown([0, 1]) == [5, "9007199254740993"]
    assert large.rows(["9007199254740993"]).tolist() == [1]
    with pytest.raises(UnknownIdError, match="Unknown user id: 'x'"):
        large.rows(["x"])


def test_an_index_is_searched_and_shown(saved_model, titled_model, tmp_path):
    pytest.importorskip("faiss")
    index = ItemIndex.build(titled_model, recall=0.9, k=5)
    index.save(tmp_path / "index")
    with serving(create_app(saved_model, index=tmp_path / "index")) as client:
        assert client.get("/v1/model").json()["index"] == {"recall": index.recall, "k": 5}
        for user in (0, 7):
            answer = post(client, "/v1/recommend", user=user, k=5)
            assert listed(titled_model.recommend(user, k=5, index=index)) == pairs(answer)
            answer = post(client, "/v1/recommend", user=user, k=5, allow=[1, 2, 3, 4])
            assert listed(titled_model.recommend(user, k=5, allow=[1, 2, 3, 4])) == pairs(answer)
        answer = post(client, "/v1/similar/items", item=3, k=5)
        assert listed(titled_model.similar_items(3, k=5, index=index)) == pairs(answer)


def test_the_index_of_another_model_is_refused(saved_model, other_model, tmp_path):
    pytest.importorskip("faiss")
    ItemIndex.build(other_model).save(tmp_path / "index")
    with pytest.raises(StoreError):
        create_app(saved_model, index=tmp_path / "index")


# -------------------------------------------------------------------------------------------- facts


def test_vectors_are_those_of_the_model(client, titled_model):
    answer = post(client, "/v1/vectors", users=[3, 1], items=["5"])
    assert answer["dim"] == 3
    assert np.array_equal(np.float32(answer["users"]), titled_model.user_vectors[[3, 1]])
    assert np.array_equal(np.float32(answer["items"]), titled_model.item_vectors[[5]])
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


def test_the_model_is_described(client, titled_model):
    facts = client.get("/v1/model").json()
    assert facts["version"] == nf.__version__
    assert facts["fingerprint"] == titled_model.fingerprint
    counts = [facts[name] for name in ("n_users", "n_items", "n_pairs", "dim")]
    assert counts == [20, 20, 180, 3]
    assert facts["options"] == titled_model.options.to_dict()
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


def test_the_map_has_the_best_known_items(client, titled_model):
    drawn = client.get("/v1/map", params={"limit": 7}).json()
    assert drawn["n_items"] == 20
    lists = ("ids", "titles", "x", "y", "popularity", "category")
    assert {len(drawn[name]) for name in lists} == {7}
    assert drawn["ids"] == list(range(7))
    assert drawn["category"][:3] == ["even", "odd", "even"]
    assert drawn["titles"][2].startswith("Film 2 ")
    places = np.stack([drawn["x"], drawn["y"]], axis=1)
    assert places == pytest.approx(titled_model.projection.points[:7], abs=1e-6)
    assert drawn["method"] == "pca"
    whole = client.get("/v1/map").json()
    assert len(whole["ids"]) == 20


def test_somebody_has_a_place_on_the_map(client, titled_model):
    place = titled_model.projection.place(titled_model.user_vectors[3])
    assert tuple(post(client, "/v1/map/position", user=3).values()) == pytest.approx(
        place, abs=1e-6
    )
    assert post(client, "/v1/map/position", user=3) != post(client, "/v1/map/position", user=4)
    two = post(client, "/v1/map/position", items=[2, 4])
    assert two == post(client, "/v1/map/position", items=[4, 2, 2])
    assert set(two) == {"x", "y"}


def test_a_model_without_titles_says_so(other_model, tmp_path):
    other_model.save(tmp_path)
    with serving(create_app(tmp_path)) as client:
        drawn = client.get("/v1/map").json()
        assert (drawn["titles"], drawn["category"]) == (None, None)
        assert client.get("/v1/model").json()["categories"] is None
        entry = post(client, "/v1/recommend", user=0, k=1)["results"][0]
        assert entry["title"] is None


def test_similar_items_are_filtered(client, titled_model):
    filters = {"allow": [1, 3, 7, 9, 3], "deny": [7, 500]}
    answer = post(client, "/v1/similar/items", item=5, **filters)
    with pytest.warns(nf.errors.NearfarWarning, match="1 of the 2 ids in `deny`"):
        found = titled_model.similar_items(5, **filters)
    assert listed(found) == pairs(answer)
    assert sorted(ids(answer)) == [1, 3, 9]
    assert answer["unknown"] == {"deny": 1}
    many = post(client, "/v1/similar/items", item=5, deny=[6, *range(10_000, 11_500)])
    assert many["unknown"] == {"deny": 1500}
    assert 6 not in ids(many)


def check_reasons(answer, why):
    assert answer["id"] == why.item
    assert answer["title"] == why.title
    for name in ("score", "closeness", "content", "own", "prior", "neighbours", "n_own"):
        assert answer[name] == getattr(why, name)
    own = [(one["id"], one["title"], one["similarity"]) for one in answer["nearest"]]
    assert own == list(why.nearest.select("item_id", "title", "similarity").iter_rows())


def test_reasons_are_those_of_the_library(client, titled_model):
    check_reasons(post(client, "/v1/explain", user="4", item=6), titled_model.explain(4, 6))
    answer = post(client, "/v1/explain", items=[2, 8, 2], item="4", k=1)
    why = titled_model.explain(item=4, liked=[2, 8], k=1)
    check_reasons(answer, why)
    assert len(answer["nearest"]) == 1
    shown = {entry["id"]: entry["score"] for entry in
             post(client, "/v1/recommend", items=[2, 8], k=20)["results"]}  # fmt: skip
    assert shown[4] == answer["score"]
    error = post(client, "/v1/explain", 422, user=4)["error"]["message"]
    assert "item" in error


# ----------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("path", "asked", "message"),
    [
        ("/v1/recommend", {"user": 99}, "Unknown user id: 99"),
        ("/v1/recommend", {"user": "x"}, "Unknown user id: 'x'"),
        ("/v1/recommend", {"items": [1, 88, 77]}, "Unknown item ids .2 of them.: 88, 77"),
        ("/v1/similar/items", {"item": -1}, "Unknown item id: -1"),
        ("/v1/similar/users", {"user": "\u0000"}, "Unknown user id"),
        ("/v1/explain", {"user": 1, "item": 99}, "Unknown item id: 99"),
        ("/v1/explain", {"user": 99, "item": 1}, "Unknown user id: 99"),
        ("/v1/explain", {"items": [1, 88], "item": 1}, "Unknown item id: 88"),
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
        ({"items": list(range(1001))}, "`body.items`: .*at most 1000"),
        ({"user": 1, "alow": [1]}, "`body.alow`: there is no such field; /openapi.json"),
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
        ({"max_body": 0}, "`max_body` must be a whole number of at least 1; got 0"),
        ({"max_concurrent": 0}, "`max_concurrent` must be a whole number"),
        ({"max_waiting": -1}, "`max_waiting` must be a whole number of at least 0"),
        ({"threads": 0}, "`threads` must be a whole number"),
        ({"timeout": 0.0}, "`timeout` must be a positive number"),
        ({"timeout": float("nan")}, "`timeout` must be a positive number"),
        ({"token": ""}, "`token` must be printable ASCII"),
        ({"token": "é"}, "`token` must be printable ASCII"),
    ],
)
def test_options_out_of_range_are_refused(saved_model, options, message):
    with pytest.raises(OptionError, match=message):
        create_app(saved_model, **options)


def test_what_is_no_model_is_refused(tmp_path):
    with pytest.raises(StoreError, match="does not exist"):
        create_app(tmp_path / "nothing")


# ------------------------------------------------------------------------------------------ figures


def test_requests_are_counted_and_timed(saved_model, titled_model):
    with serving(create_app(saved_model)) as client:
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
        fingerprint = titled_model.interactions.fingerprint
        assert counted(client, "nearfar_model_info", fingerprint=fingerprint) == 1
        assert "12345" not in client.get("/metrics").text


# --------------------------------------------------------------------------------------------- page


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


def test_the_page_is_a_document_a_stylesheet_and_modules(client):
    document = client.get("/")
    assert not re.search(r"<style|<script[^>]*>[^<]| style=| on[a-z]+=", document.text)
    linked = re.findall(r"""(?:src|href)="([^"#:]+)\"""", document.text)
    assert sorted(linked) == ["page/main.js", "page/style.css"]
    folder = Path(nf.__file__).parent / "serve" / "page"
    kinds = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8"}
    for file in folder.iterdir():
        if file.name != "index.html":
            answer = client.get(f"/page/{file.name}")
            assert answer.status_code == 200
            assert answer.text == file.read_text("utf-8")
            assert answer.headers["content-type"] == kinds[file.suffix]
            for name in ("content-security-policy", "x-content-type-options", "cache-control"):
                assert answer.headers[name] == document.headers[name]
            assert not re.search(r"""[("'`]/v1/|from "(?!\./)""", answer.text)
    assert "unsafe-inline" not in document.headers["content-security-policy"]
    for path in ("/page/index.html", "/page/none.js", "/page/../routes.py", "/page/"):
        assert client.get(path).status_code == 404


def test_the_page_works_under_a_prefix(saved_model):
    inside = create_app(saved_model)
    outside = FastAPI(lifespan=lambda _: inside.router.lifespan_context(inside))
    outside.mount("/films", inside)
    with serving(outside) as client:
        document = client.get("/films/")
        assert document.headers["content-type"].startswith("text/html")
        for name in re.findall(r"""(?:src|href)="([^"#:]+)\"""", document.text):
            assert client.get(document.url.join(name)).status_code == 200
        main = client.get(document.url.join("page/main.js"))
        for name in re.findall(r"""from "([^"]+)\"""", main.text):
            assert client.get(main.url.join(name)).status_code == 200
        assert ids(post(client, "/films/v1/recommend", user=0, k=3))


def test_the_description_needs_nothing_from_elsewhere(client):
    described = client.get("/openapi.json").json()
    assert set(described["paths"]) == {
        "/v1/recommend", "/v1/similar/items", "/v1/similar/users", "/v1/explain",
        "/v1/vectors", "/v1/search",
        "/v1/model", "/v1/map", "/v1/map/position", "/health", "/healthz", "/readyz", "/metrics",
        "/reload", "/v1/items",
    }  # fmt: skip
    assert not re.search("https?://", json.dumps(described))


# ---------------------------------------------------------------------------------- from its schema


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


@pytest.mark.full
def test_answers_are_as_the_description_says(client):
    assert {200, 404, 422} <= set(check_against_the_description(client, 4))


@pytest.mark.slow
def test_many_answers_are_as_the_description_says(client):
    assert {200, 404, 422} <= set(check_against_the_description(client, 500))
