"""Uses nearfar in processes made by fork, after the parent has used it; a script of test_forks.

Prints a JSON object: for each use, "done", the error that was raised, or "hangs".
"""

import io
import json
import multiprocessing
import pickle
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl

import nearfar as nf
from nearfar.data.ids import Ids
from nearfar.model.batch import recommend_to

SECONDS = 60
PLAIN = nf.Options(
    dim=3, batch=8, sampler=nf.Uniform(), negatives=5, triplet=nf.Triplet(), optimiser=nf.Adam(),
    averaging=None,
)  # fmt: skip
"""As in conftest, which would import PyTorch into each process."""


def board(n=20):
    """User u likes item i when both are even or both are odd; with titles."""
    pairs = [(u, i) for u in range(n) for i in range(n) if (u + i) % 2 == 0 and u != i]
    titles = pl.DataFrame({"item_id": range(n), "title": [f"Film {i}" for i in range(n)]})
    return nf.Interactions.from_pairs(pairs).with_item_table(titles)


def uses(folder):
    """The uses by name; each in a process of its own."""
    data = board()
    train, test = nf.split.ratio(data, test=0.3, seed=0)
    others, given, theirs = nf.split.by_user(data, 0.25, given=0.5)
    model = nf.CML(PLAIN).fit(train, epochs=2, validation=0.1, threads=2)
    model.save(folder / "model")
    train.save(folder / "train")
    nf.evaluate(model, train, test, k=3)
    frame = data.to_frame()
    frame.write_csv(folder / "data.csv")
    frame.write_parquet(folder / "data.parquet")
    texts = nf.Interactions.from_pairs([("3", "5")])
    users = pl.Series([3, 1, 2])
    sent, many = pickle.dumps((model, data)), model.recommend_all(3)
    assert many.height

    def new():
        return nf.CML(PLAIN)

    extras = of_extras(model, train, test)
    points = np.concatenate([model.user_vectors, model.item_vectors])
    grid = nf.experiment.Grid((nf.experiment.Setting("one", model.options),), (0.01,), folds=2)
    return {
        # with what the parent has
        "fit": lambda: new().fit(train, epochs=2, threads=2).history.rows(),
        "fit with validation": lambda: new().fit(train, epochs=2, validation=0.2).metrics,
        "partial_fit": lambda: model.partial_fit(test, epochs=1, threads=2),
        "evaluate": lambda: str(nf.evaluate(model, train, test, k=3)),
        "evaluate new users": lambda: nf.evaluate(
            new().fit(others, epochs=1), others, theirs, k=3, new_users="fold_in", given=given
        ),
        "metrics": lambda: model.metrics,
        "recommend one": lambda: model.recommend(3).rows(),
        "recommend many": lambda: model.recommend([3, 4]).rows(),
        "recommend a series": lambda: model.recommend(users).rows(),
        "recommend to unknown": lambda: model.recommend([3, 99], unknown="skip").rows(),
        "recommend to an unknown series": lambda: model.recommend(99 - users, unknown="skip"),
        "recommend liked": lambda: model.recommend(liked=[2, 4]).rows(),
        "recommend a series liked": lambda: model.recommend(liked=users).rows(),
        "recommend with filters": lambda: model.recommend(1, allow=users, deny=users[:1]).rows(),
        "recommend all": lambda: model.recommend_all(3).rows(),
        "similar items": lambda: model.similar_items(users).rows(),
        "similar users": lambda: model.similar_users(3).rows(),
        "fold_in": lambda: (model.fold_in(users), model.fold_in_item([1])),
        "project": lambda: model.project().points,
        "split": lambda: (nf.split.k_fold(data, 3, seed=1), nf.split.by_user(data, 0.25)),
        "subset": lambda: data.subset(data.items > 3).compact(),
        "with_ids_like": lambda: nf.Interactions.with_ids_like(data, texts),
        "union": lambda: data.union(test),
        "union with new ids": lambda: data.union(nf.Interactions.from_csr(train.to_csr())),
        "aligned": lambda: data.aligned(train.user_ids, Ids.numbered(5, "item")),
        "without": lambda: data.without(train),
        "to_frame": lambda: data.to_frame().rows(),
        "titles": lambda: data.titles([1, 2]),
        "with_item_table": lambda: data.with_item_table(data.item_table),
        "fingerprint": lambda: (data.fingerprint, data == train, repr(data), str(model)),
        "pickle": lambda: pickle.dumps((model, data, nf.evaluate(model, train, test, k=3))),
        "unpickle": lambda: pickle.loads(sent)[0].recommend(3).rows(),
        "a frame to the parent": lambda: pickle.dumps(model.recommend([3, 4])),
        "baselines": lambda: nf.evaluate(nf.baselines.MostPopular(train), train, test, k=3),
        # from elsewhere and to elsewhere
        "ids": lambda: Ids(["b", "a"]),
        "from_pairs": lambda: nf.Interactions.from_pairs([(1, 2), (2, 3)]),
        "from_pairs with times": lambda: nf.Interactions.from_pairs([(1, 2, 5), (2, 3, 6)]),
        "from_csr": lambda: nf.Interactions.from_csr(train.to_csr(), range(20)),
        "from_frame": lambda: nf.Interactions.from_frame(frame),
        "from a lazy frame": lambda: nf.Interactions.from_frame(frame.lazy()),
        "read csv": lambda: nf.Interactions.read(folder / "data.csv"),
        "read parquet": lambda: nf.Interactions.read(folder / "data.parquet"),
        "prepare": lambda: nf.prepare(frame.rename({"user_id": "user", "item_id": "item"})),
        "save data": lambda: data.save(folder / "saved"),
        "load data": lambda: nf.Interactions.load(folder / "train"),
        "save": lambda: model.save(folder / "other"),
        "load": lambda: nf.CML.load(folder / "model"),
        "load mapped": lambda: nf.CML.load(folder / "model", mmap=True),
        "fit with a checkpoint": lambda: new().fit(train, epochs=1, checkpoint=folder / "run"),
        "export": lambda: nf.export(model, folder / "vectors.parquet"),
        "export numpy": lambda: nf.export(model, folder / "vectors.npy", "numpy"),
        "batch": lambda: recommend_to(folder / "lists", model, k=3),
        "datasets": lambda: nf.datasets.load("ml-100k", folder),
        "grid": lambda: grid.run({"data": data}, folder / "results", workers=0),
        "diagnose": lambda: nf.experiment.diagnose(points, train, test, model.options, k=3),
        "report": lambda: nf.experiment.write_report(folder / "results"),
        **extras,
    }


def of_extras(model, train, test):
    """The uses of faiss and PyTorch, as far as they are installed; this process has used both."""
    found = {}
    if find_spec("faiss"):
        found["index"] = lambda: nf.ItemIndex.build(model, k=3, threads=2)
        index = found["index"]()
        found["recommend with an index"] = lambda: model.recommend(3, k=3, index=index)
    if find_spec("torch"):
        import torch

        torch.set_num_threads(2)
        assert torch.ones(2**20).exp().sum()  # starts threads, which tables this small do not
        device = "torch:cpu"
        found["fit with PyTorch"] = lambda: nf.CML(PLAIN).fit(train, epochs=1, device=device)
        found["evaluate with PyTorch"] = lambda: nf.evaluate(model, train, test, device=device)
    return found


def attempt(use, pipe):
    sys.stdout = io.StringIO()
    try:
        use()
    except Exception as error:
        pipe.send(f"{type(error).__name__}: {error}")
    else:
        pipe.send("done")
    pipe.close()


def attempts(uses):
    """What came of each use in a forked process of its own."""
    context, running = multiprocessing.get_context("fork"), {}
    for name, use in uses.items():
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=attempt, args=(use, theirs))
        process.start()
        theirs.close()
        running[name] = process, ours
    end, said = time.monotonic() + SECONDS, {}
    for name, (process, ours) in running.items():
        try:
            said[name] = ours.recv() if ours.poll(max(0.0, end - time.monotonic())) else "hangs"
        except EOFError:
            said[name] = "ends without a word"
        if said[name] == "hangs":
            process.kill()
        process.join()
    return said


def learn(train, seed):
    """A job for a pool: data and a model go from process to process."""
    return nf.CML(PLAIN).fit(train, epochs=1, seed=seed)


def reread(folder):
    """A job that needs the threads of polars."""
    return nf.CML.load(folder).recommend(3, k=3)


def pools(folder):
    """What jobs give in pools of processes, forked and spawned."""
    train, said = nf.Interactions.load(folder / "train"), {}
    expected = [learn(train, seed).recommend(3).rows() for seed in (0, 1)]
    for method in ("fork", "spawn"):
        with multiprocessing.get_context(method).Pool(2) as pool:
            made = pool.starmap_async(learn, [(train, 0), (train, 1)]).get(SECONDS)
            try:
                read = pool.map_async(reread, [folder / "model"] * 2).get(SECONDS)
            except nf.errors.NearfarError as error:
                read = f"{type(error).__name__}: {error}"
            else:
                read = [one.height for one in read]
        same = [one.recommend(3).rows() for one in made] == expected
        said[method] = {"learn": same, "reread": read}
    return said


def server(folder):
    """What a server answers in a forked process, of an application made before the fork."""
    import httpx
    import uvicorn

    from nearfar.serve import create_app
    from nearfar.serve import server as sockets

    app = create_app(folder / "model", token="token")
    opened = sockets.open_socket("127.0.0.1", 0)
    config = uvicorn.Config(app, log_level="critical")
    process = multiprocessing.get_context("fork").Process(
        target=uvicorn.Server(config).run, kwargs={"sockets": [opened]}
    )
    process.start()
    said, likes = {}, {"items": [2, 4], "k": 3}
    try:
        with httpx.Client(base_url=sockets.address_of(opened), timeout=20) as client:
            for _ in range(500):
                try:
                    client.get("/health")
                    break
                except httpx.ConnectError:
                    time.sleep(0.02)
            asked = {
                "/v1/recommend": likes, "/v1/similar/items": {"item": 3},
                "/v1/similar/users": {"user": 3}, "/v1/map/position": {"user": 3},
                "/v1/vectors": {"users": [3], "items": [5]}, "/reload": {},
                "/v1/explain": {"user": 3, "item": 5},
                "/v1/items": {"items": [{"id": 1, "features": {}}]},
            }  # fmt: skip
            for path in [*app.openapi()["paths"], "/", "/page/main.js", "/openapi.json"]:
                try:
                    answer = (
                        client.post(
                            path, json=asked[path], headers={"Authorization": "Bearer token"}
                        )
                        if path in asked
                        else client.get(path, params={"q": "film"})
                    )
                    said[path] = answer.status_code, answer.text[:200]
                except httpx.TimeoutException:
                    said[path] = 0, "hangs"
    finally:
        process.kill()
        process.join()
        opened.close()
    return said


def main():
    pairs = [(u, i) for u in range(4) for i in range(4) if u != i]
    unused = attempts({"from_pairs": lambda: nf.Interactions.from_pairs(pairs)})
    with TemporaryDirectory() as place:
        folder = Path(place)
        named = uses(folder)
        before = sorted(one.name for one in folder.iterdir())
        said = attempts(named)
        left = sorted({one.name for one in folder.iterdir()} - {*before, "run"})
        found = {"before any use": unused, "after": said, "left behind": left}
        found |= {"pools": pools(folder), "server": server(folder)}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
