"""What diverse lists cost: accuracy, distance within a list, and milliseconds per user.

    python benchmarks/variety.py ml-100k
    python benchmarks/variety.py path/to/interactions

The data are a name of `nearfar.datasets` or a folder of `nearfar prepare`. One model with the
default options is trained, nothing is selected, and all settings are measured on the same lists of
its test part. Times are of whole calls of `recommend` for the same users, the settings in turn.
"""

import argparse
from pathlib import Path
from time import perf_counter

import numpy as np

import nearfar as nf

SETTINGS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7)
TIMED = 1000
ROUNDS = 5


def timed(model, k):
    """Return the milliseconds per user of each setting, of each round."""
    users = model.interactions.user_ids.take(np.flatnonzero(model.placed_users)[:TIMED])
    found = np.empty((ROUNDS, len(SETTINGS)))
    lists = {x: model.recommend(users, k, diversity=x, threads=1) for x in SETTINGS}
    for n in range(ROUNDS):
        for at, x in enumerate(SETTINGS):
            start = perf_counter()
            again = model.recommend(users, k, diversity=x, threads=1)
            found[n, at] = 1000 * (perf_counter() - start) / len(users)
            assert again.equals(lists[x])
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", help="the name of a data set, or a folder of `nearfar prepare`")
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=50)
    given = parser.parse_args()
    there = Path(given.data).is_dir()
    data = nf.Interactions.load(given.data) if there else nf.datasets.load(given.data)
    train, test = nf.split.ratio(data, test=0.25, seed=0)
    model = nf.CML().fit(train, epochs=given.epochs, validation=0.1, seed=0, progress=False)
    seen = model.interactions
    front = nf.front(model, seen, test, diversity=SETTINGS, k=given.k)
    times = timed(model, given.k)
    print(f"{given.data}: {seen.n_users:,} users, {seen.n_items:,} items, top {given.k}")
    print("| diversity | NDCG | recall | intra-list distance | coverage | MMR | ms per user |")
    print("|---|---|---|---|---|---|---|")
    for row, each in zip(front.frame.iter_rows(named=True), times.T, strict=True):
        print(
            f"| {row['diversity']:g} | {row['ndcg']:.4f} ± {row['ndcg_se']:.4f}"
            f" | {row['recall']:.4f} | {row['intra_list_distance']:.3f} | {row['coverage']:.3f}"
            f" | {row['mmr']:.1f} | {np.median(each):.2f} ({each.min():.2f}-{each.max():.2f}) |"
        )


if __name__ == "__main__":
    main()
