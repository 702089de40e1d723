"""One dial: every way to ask for lists gives the same ones at the same setting."""

import json
import pickle
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

import nearfar as nf
from conftest import hopeless, random_data
from nearfar.cli import app
from nearfar.method.prior import Prior
from nearfar.model.batch import recommend_to
from nearfar.search.neighbours import top_k
from nearfar.serve import create_app
from served import post, serving

faiss = pytest.importorskip("faiss")
pytestmark = hopeless
OPTIONS = nf.Options(dim=4, batch=32, sampler=nf.Shared(0.5), negatives=8)
SETTINGS = (0, 0.5, 1)
K = 5


@pytest.fixture(scope="module", params=["sphere", pytest.param("ball", marks=pytest.mark.full)])
def world(request, tmp_path_factory):
    """A model, its folder, an index of recall 1 and servers with and without it."""
    place = tmp_path_factory.mktemp("dial")
    train, test = nf.split.ratio(random_data(), test=0.25, seed=0)
    model = nf.CML(OPTIONS, prior=Prior(gamma=0.3), geometry=request.param)
    model.fit(train, epochs=2, threads=1)
    model.save(place / "model")
    random_data().save(place / "data")
    index = nf.ItemIndex.build(model, recall=1, k=K)
    index.save(place / "index")
    apps = (create_app(place / "model"), create_app(place / "model", index=place / "index"))
    with serving(apps[0]) as plain, serving(apps[1]) as indexed:
        yield SimpleNamespace(place=place, model=model, train=train, test=test, index=index,
                              plain=plain, indexed=indexed)  # fmt: skip


def users(world):
    return np.flatnonzero(world.train.user_counts).tolist()


def by_user(frame):
    """The lists of a frame of many users."""
    return {one: part["item_id"].to_list() for (one,), part in frame.group_by("user_id")}


def command(*words):
    found = CliRunner().invoke(app, [str(word) for word in words])
    assert found.exit_code == 0, found.output
    return json.loads(found.stdout)


# ------------------------------------------------------------------------------------ the ways


def over_http(client, world, x):
    answers = {user: post(client, "/v1/recommend", user=user, k=K, popularity=x)
               for user in users(world)}  # fmt: skip
    return {user: [one["id"] for one in found["results"]] for user, found in answers.items()}


def by_command(world, x, *more):
    asked = [word for user in users(world) for word in ("--user", user)]
    found = command("recommend", world.place / "model", *asked, "--k", K, "--popularity", x,
                    "--json", *more)  # fmt: skip
    return {
        one["user_id"]: [item["item_id"] for item in one["nearest"]]
        for one in found["recommendations"]
    }


def in_a_batch(world, x, index=None):
    folder = world.place / f"lists-{x}-{index is None}"
    recommend_to(folder, world.model, k=K, popularity=x, index=index, progress=False)
    return by_user(pl.read_parquet(folder / "part-*.parquet"))


def by_numpy(world, x):
    """The lists of what `export` writes, which needs nothing of nearfar."""
    files = {}
    for what, more in (("items", {"popularity": x}), ("users", {})):
        path = world.place / f"{what}-{x}.parquet"
        path.unlink(missing_ok=True)
        files[what] = pl.read_parquet(nf.export(world.model, path, what=what, **more)[0])
    items, points = files["items"], files["users"]["vector"].to_numpy()
    vectors, weight = items["vector"].to_numpy(), items["weight"].to_numpy()
    if world.model.options.geometry != "sphere":
        weight = weight - 0.5 * np.sum(vectors**2, axis=1)
    return unseen(world, points @ vectors.T + weight, items["id"].to_numpy())


def by_faiss(world, x):
    """The lists of the index that `export` writes."""
    path = world.place / f"items-{x}.faiss"
    path.unlink(missing_ok=True)
    nf.export(world.model, path, "faiss", popularity=x)
    points = world.model.user_vectors
    ones = np.ones((len(points), 1), np.float32)
    scores, ids = faiss.read_index(str(path)).search(np.hstack([points, ones]), world.train.n_items)
    table = np.take_along_axis(scores, np.argsort(ids, axis=1), axis=1)
    return unseen(world, table, world.train.item_ids.values.to_numpy())


def unseen(world, scores, ids):
    """The best items by a table of scores that a user does not have, and that somebody has."""
    lists = {}
    for user in users(world):
        left = np.where(world.train.item_counts > 0, scores[user], -np.inf)
        left[world.train.positives(user)] = -np.inf
        lists[user] = ids[np.argsort(-left, kind="stable")[:K]].tolist()
    return lists


def by_scorer(scorer, world):
    seen = world.train.indptr, world.train.items
    there = world.train.item_counts > 0
    found = top_k(scorer, users(world), K, exclude=seen, allow=there).items
    return dict(zip(users(world), found.tolist(), strict=True))


WAYS = {
    "recommend_all": lambda w, x: by_user(w.model.recommend_all(K, popularity=x)),
    "recommend with an index": lambda w, x: by_user(
        w.model.recommend(users(w), K, popularity=x, index=w.index)),
    "recommend_all with an index": lambda w, x: by_user(
        w.model.recommend_all(K, popularity=x, index=w.index)),
    "a loaded model and index": lambda w, x: by_user(
        nf.CML.load(w.place / "model").recommend_all(
            K, popularity=x, index=nf.ItemIndex.load(w.place / "index", w.model))),
    "pickled": lambda w, x: by_user(
        pickle.loads(pickle.dumps(w.model)).recommend_all(
            K, popularity=x, index=pickle.loads(pickle.dumps(w.index)))),
    "scorer": lambda w, x: by_scorer(w.model.scorer(popularity=x), w),
    "scorer of an index": lambda w, x: by_scorer(
        w.index.scorer(w.model.user_vectors, popularity=x), w),
    "batch": in_a_batch,
    "batch with an index": lambda w, x: in_a_batch(w, x, w.index),
    "HTTP": lambda w, x: over_http(w.plain, w, x),
    "HTTP with an index": lambda w, x: over_http(w.indexed, w, x),
    "command line": by_command,
    "command line with an index": lambda w, x: by_command(w, x, "--index", w.place / "index"),
    "export and numpy": by_numpy,
    "export and faiss": by_faiss,
}  # fmt: skip
"""From a world and a setting to the list of each user."""


@pytest.mark.parametrize("way", WAYS)
def test_the_lists_are_those_of_recommend(world, way):
    seen = []
    for x in SETTINGS:
        expected = by_user(world.model.recommend(users(world), K, popularity=x))
        assert WAYS[way](world, x) == expected
        seen.append(expected)
    assert seen[0] != seen[1] != seen[2]


# ------------------------------------------------------------------------------------ the metrics


def by_hand(world, x):
    """Recall and MMR of the lists of `recommend`, as nearfar.evaluate defines them."""
    counts, recall, median = world.train.item_counts, [], []
    for user in np.flatnonzero((world.test.user_counts > 0) & (world.train.user_counts > 0)):
        listed = world.model.recommend(int(user), K, popularity=x)["item_id"].to_numpy()
        relevant = world.test.positives(user)
        recall.append(np.isin(listed, relevant).sum() / len(relevant))
        median.append(np.median(counts[listed]))
    return {"recall": pytest.approx(np.mean(recall)), "mmr": pytest.approx(np.mean(median))}


def evaluated(world, x):
    return nf.evaluate(world.model, world.train, world.test, k=K, popularity=x).metrics


def evaluated_by_command(world, x):
    words = ("evaluate", world.place / "model", world.place / "data", "--k", K, "--json")
    found = command(*words, "--popularity", x)
    assert found["popularity"] == x
    return found["metrics"]


def on_the_front(world, x):
    found = nf.front(world.model, world.train, world.test, k=K, popularity=SETTINGS).frame
    return found.filter(popularity=x).to_dicts()[0]


def on_the_front_by_command(world, x):
    words = ("front", world.place / "model", world.place / "data", "--k", K, "--json")
    return command(*words, "--popularity", x)["settings"][0]


@pytest.mark.parametrize(
    "way", [evaluated, evaluated_by_command, on_the_front, on_the_front_by_command]
)
def test_the_metrics_are_those_of_the_lists(world, way):
    seen = []
    for x in SETTINGS:
        found = way(world, x)
        expected = by_hand(world, x)
        assert {name: found[name] for name in expected} == expected
        seen.append(found["mmr"])
    assert seen == sorted(set(seen))
