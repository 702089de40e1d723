"""What an index saves, beside exact search, other numbers of lists, and HNSW, at equal recall.

The best 10 items of single users and of 2,048 at once, what they have left out, on one thread, for
two models: Gowalla (`CML(dim=64, sampler=Shared(0), prior=None)`, 6 epochs of the LightGCN train
part; bare faiss knows no weights), and one of Echonest's size (d = 128) trained on made-up
interactions, in which four of five of a user's items are of the user's own of 300 tastes. Both are
trained here, and kept in --models for the next time.

- exact: `nearfar.search.neighbours.top_k`; nearfar: the same with an `ItemIndex`, recall 0.95;
- numpy: the product with one vector, and `argpartition`;
- bare faiss, so much more asked for as the user has seen: IVF-Flat with 1, 2 and 4 x sqrt(M) lists
  and HNSW with 16 and 32 links, each at the least number of lists (or ef) of a doubling series that
  reaches 0.95 on 512 users; nothing is filtered, scored or put in order there.

    python benchmarks/index.py [--users 2048] [--rounds 5] [--data FILE] [--models FOLDER]

Before timing it checks that every score of the index is the exact one, in order, and that no list
holds what was to be left out or is short. Writes results/index.csv, and results/batch.csv: what
`recommend_to` takes for all users of the larger model, its peak of memory in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import faiss
import numpy as np
import polars as pl

import nearfar as nf
from common import (
    DIM,
    HINGE,
    N_ITEMS,
    N_PAIRS,
    N_USERS,
    Spread,
    forget_peak,
    in_own_process,
    made_up_pairs,
    memory_mib,
    ratios,
    rounds,
    show,
    write,
)
from nearfar.data.ids import Ids
from nearfar.model.batch import recommend_to
from nearfar.search.neighbours import SPARE, Points, top_k

K, RECALL, TASTES, SINGLES, CHOSEN_ON = 10, 0.95, 300, 100, 512
DATA = Path(__file__).parents[2] / "shared" / "data" / "gowalla-lightgcn.parquet"
NO_DATA = 3


class Question(NamedTuple):
    """A model, and a sample of its users."""

    name: str
    model: nf.CML
    index: nf.ItemIndex
    build_s: float
    users: np.ndarray[Any, Any]
    """The sample: rows, increasing."""
    exact: np.ndarray[Any, Any]
    """(sample, K) the right answers."""

    @property
    def seen(self) -> tuple[Any, Any]:
        """What is left out."""
        return self.model.interactions.indptr, self.model.interactions.items


# ------------------------------------------------------------------------------------ models


def gowalla(data: Path) -> nf.CML:
    frame = pl.read_parquet(data).filter(pl.col("split") == "train")
    options = nf.CML(dim=64, sampler=nf.Shared(0.0), prior=None)
    return options.fit(nf.Interactions.from_frame(frame, "user", "item"), epochs=6)


def tasteful() -> nf.CML:
    """Train on made-up interactions of Echonest's size: items i of user u with i = u mod 300."""
    users, items = made_up_pairs(N_USERS, N_ITEMS, N_PAIRS)
    own = np.random.default_rng(1).random(N_PAIRS) < 0.8
    moved = items - items % TASTES + users % TASTES
    items = np.where(own & (moved < N_ITEMS), moved, items)
    axes = Ids.numbered(N_USERS, "user"), Ids.numbered(N_ITEMS, "item")
    data = nf.Interactions.from_rows(users, items, *axes)
    return nf.CML(HINGE, dim=DIM, optimiser=nf.Adam(1e-3)).fit(data, epochs=8)


def kept(folder: Path, make: Callable[[], nf.CML]) -> nf.CML:
    """Load a model, or make and save it."""
    if not folder.exists():
        make().save(folder)
    return nf.CML.load(folder)


def ask(name: str, model: nf.CML, n_users: int) -> Question:
    begun = time.perf_counter()
    index = nf.ItemIndex.build(model, RECALL, K, threads=1)
    seconds = time.perf_counter() - begun
    drawn = np.random.default_rng(3).permutation(model.interactions.n_users)[:n_users]
    users = np.sort(drawn).astype(np.int32)
    seen = model.interactions.indptr, model.interactions.items
    exact = top_k(model.scorer(), users, K, exclude=seen).items
    return Question(name, model, index, seconds, users, exact)


def check(question: Question) -> float:
    """Compare the lists of the index with exact search; give its recall."""
    scorer, points = question.index.scorer(question.model.user_vectors), question.model.scorer()
    assert isinstance(points, Points)
    found = top_k(scorer, question.users, K, exclude=question.seen)
    assert (found.items >= 0).all()
    indptr, items = question.seen
    for place, user in enumerate(question.users):
        mine = found.items[place]
        assert not np.isin(mine, items[indptr[user] : indptr[user + 1]]).any()
        scores = points.targets[mine].astype(np.float64) @ points.queries[user]
        np.testing.assert_allclose(found.scores[place], scores, rtol=1e-6, atol=1e-7)
    assert (np.diff(found.scores, axis=1) <= 0).all()
    return recall_of(question, found.items)


def recall_of(question: Question, found: Any) -> float:
    pairs = zip(question.exact[: len(found)], found, strict=True)
    return float(np.mean([np.isin(best, mine).mean() for best, mine in pairs]))


# ---------------------------------------------------------------------------------- bare faiss


class Bare(NamedTuple):
    """An index of faiss, at the setting that reaches the recall."""

    index: Any
    options: Any
    setting: int
    recall: float
    build_s: float


def bare(question: Question, make: Callable[[Any], Any], options: Any, most: int) -> Bare:
    targets = question.model.item_vectors
    begun = time.perf_counter()
    index = make(targets)
    seconds = time.perf_counter() - begun
    setting = 1
    while True:
        recall = recall_of(question, bare_lists(question, index, options(setting)))
        if recall >= RECALL or setting >= most:
            return Bare(index, options(setting), setting, recall, seconds)
        setting *= 2


def bare_lists(question: Question, index: Any, options: Any) -> list[Any]:
    """List the best items of the users the setting is chosen on."""
    indptr, items = question.seen
    found = []
    for user in question.users[:CHOSEN_ON]:
        hidden = items[indptr[user] : indptr[user + 1]]
        mine = bare_one(question, index, options, user)
        found.append(mine[~np.isin(mine, hidden)][:K])
    return found


def bare_one(question: Question, index: Any, options: Any, user: int) -> Any:
    indptr = question.seen[0]
    n = K + SPARE + int(indptr[user + 1] - indptr[user])
    return index.search(question.model.user_vectors[user][None], n, params=options)[1][0]


def ivf(times: float, targets: Any) -> Any:
    n_items, dim = targets.shape
    index = faiss.IndexIVFFlat(faiss.IndexFlatL2(dim), dim, round(times * n_items**0.5))
    index.train(targets)
    index.add(targets)
    return index


def hnsw(links: int, targets: Any) -> Any:
    index = faiss.IndexHNSWFlat(targets.shape[1], links)
    index.add(targets)
    return index


# ------------------------------------------------------------------------------------- timing


def timed(question: Question, n_rounds: int) -> list[dict[str, object]]:
    """Time single users and the whole sample, all contestants in turn."""
    faiss.omp_set_num_threads(1)
    own, own_recall = question.index.figures, check(question)
    model, singles = question.model, question.users[:SINGLES]
    n_items = model.interactions.n_items
    rivals = {
        f"faiss IVF, {times} sqrt(M) lists": bare(
            question, partial(ivf, times), lambda n: faiss.SearchParametersIVF(nprobe=n), n_items
        )
        for times in (1, 2, 4)
    } | {
        f"faiss HNSW, {links} links": bare(
            question, partial(hnsw, links), lambda n: faiss.SearchParametersHNSW(efSearch=n), 4096
        )
        for links in (16, 32)
    }
    whole = {
        "exact": model.scorer(),
        "nearfar": question.index.scorer(model.user_vectors, threads=1),
    }
    one_by_one: dict[str, Callable[[], object]] = {
        name: partial(searched_singly, question, scorer, singles) for name, scorer in whole.items()
    }
    one_by_one["numpy"] = partial(multiplied_singly, question, singles)
    one_by_one |= {
        name: partial(bare_singly, question, rival, singles) for name, rival in rivals.items()
    }
    at_once = {name: partial(searched, question, scorer) for name, scorer in whole.items()}
    for case in (*one_by_one.values(), *at_once.values()):  # kernels, pages, caches
        case()
    single_s, batch_s = rounds(one_by_one, n_rounds), rounds(at_once, n_rounds)
    known = {
        "exact": (None, 1.0, None),
        "nearfar": (own.n_probed, own_recall, question.build_s),
        "numpy": (None, 1.0, None),
    } | {name: (rival.setting, rival.recall, rival.build_s) for name, rival in rivals.items()}
    lines: list[dict[str, object]] = []
    for name, (setting, recall, build_s) in known.items():
        line: dict[str, object] = {
            "model": question.name,
            "n_items": n_items,
            "how": name,
            "setting": setting,
            "recall": round(recall, 4),
            "build_s": None if build_s is None else round(build_s, 1),
            **Spread.of([s / len(singles) * 1e6 for s in single_s[name]]).columns("single_us", 0),
            **ratios(single_s["exact"], single_s[name]).columns("single_faster", 2),
        }
        if name in batch_s:
            each = [s / len(question.users) * 1e6 for s in batch_s[name]]
            line |= Spread.of(each).columns("batch_us", 0)
            line |= ratios(batch_s["exact"], batch_s[name]).columns("batch_faster", 2)
        else:
            line |= {"batch_us": None, "batch_faster": None}
        lines.append(line)
    return lines


def searched_singly(question: Question, scorer: Any, users: Any) -> None:
    for user in users:
        top_k(scorer, [user], K, exclude=question.seen)


def multiplied_singly(question: Question, users: Any) -> None:
    model, (indptr, items) = question.model, question.seen
    for user in users:
        scores = model.item_vectors @ model.user_vectors[user]
        scores[items[indptr[user] : indptr[user + 1]]] = -np.inf
        best = np.argpartition(-scores, K)[:K]
        best[np.argsort(-scores[best])]


def searched(question: Question, scorer: Any) -> None:
    top_k(scorer, question.users, K, exclude=question.seen)


def bare_singly(question: Question, rival: Bare, users: Any) -> None:
    for user in users:
        bare_one(question, rival.index, rival.options, user)


def batch_case(folder: str) -> dict[str, object]:
    """Write the lists of all users; give the time, and the peak beyond the loaded model."""
    model = nf.CML.load(folder)
    model.recommend(0, K)
    with TemporaryDirectory() as scratch:
        forget_peak()
        before, begun = memory_mib(), time.perf_counter()
        done = recommend_to(scratch, model, k=K, threads=2, progress=False)
        seconds = time.perf_counter() - begun
        written = sum(file.stat().st_size for file in Path(scratch).iterdir()) / 2**20
    return {
        "users": done.n_users,
        "n_items": model.interactions.n_items,
        "parts": done.n_parts,
        "seconds": round(seconds, 1),
        "written_mib": round(written, 1),
        "growth_mib": round(memory_mib("VmHWM") - before, 0),
    }


def main() -> None:
    """Ask both models, and write all tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--data", type=Path, default=DATA, help="gowalla-lightgcn.parquet")
    parser.add_argument("--models", type=Path, help="folder to keep the models in")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        print(json.dumps(batch_case(**json.loads(args.case))))
        return
    with TemporaryDirectory() as scratch:
        folder = args.models or Path(scratch)
        made_up = kept(folder / "made-up", tasteful)
        questions = [ask("made up", made_up, args.users)]
        if args.data.exists():
            real = kept(folder / "gowalla", partial(gowalla, args.data))
            questions.insert(0, ask("Gowalla", real, args.users))
        lines = [line for question in questions for line in timed(question, args.rounds)]
        show("The best 10, on one thread", lines)
        write("index", lines)
        all_users = [in_own_process(__file__, {"folder": str(folder / "made-up")})]
        show("recommend_to, all users, two threads", all_users)
        write("batch", all_users)
    if len(questions) == 1:
        print(f"Gowalla is left out: {args.data} is not there.")
        raise SystemExit(NO_DATA)


if __name__ == "__main__":
    main()
