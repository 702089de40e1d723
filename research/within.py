"""Where the popularity prior belongs: inside the loss, fixed or learned, or only afterwards.

    python research/within.py ml-100k lastfm/ -o research/results/within.csv

trains in plain PyTorch on the CPU. Points, batches, negatives, optimiser and epochs are the same;
only the score s in the loss T log(1 + sum_k exp(x_k / T)), x_k = margin - 2 (s_ij - s_ik), differs:

- ``afterwards``: s = u.v, as nearfar trains.
- ``inside``: s_ik = u.v_k - T / 2 log q_k for the negatives, q_k being the chance of item k to be
  among those of a step (`nearfar.method.prior.inclusion`). The sum over the negatives, each divided
  by q_k, estimates that over all items; 1 / q_k in it is x_k - T log q_k, and x_k has scores times
  2: hence T / 2. The positive item is there in any case, so it is not corrected.
- ``fixed``: s = u.v + gamma log f, with gamma by the rule, for positive items and negatives.
- ``learned``: s = u.v + b, b being learned from 0 by the same optimiser, with decay times the sum
  of b^2 over the items of the step added to the loss.

Lists are ranked by the mean over epochs, as in nearfar, of u.v + b_j of the variant (0 with
``inside``) + gamma log f_j. gamma, of either sign, and the epoch are those of the best NDCG on the
validation part: each variant has the prior afterwards as well. Each is tested once; the p-values
compare users with ``afterwards``.

It takes ml-100k, folders that `nearfar prepare` wrote, and the file of Amazon Beauty, of whose
users the last item is tested, the one before being the validation part. Runs that are there are not
computed again; the metrics of each user go into the folder `--runs`.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from torch import Tensor
from torch.nn.functional import normalize, softplus

import future
import nearfar as nf
from nearfar.engine.negatives import TrainingUsers
from nearfar.engine.problem import Problem
from nearfar.evaluation.front import at_gammas
from nearfar.experiment.significance import paired
from nearfar.method.prior import inclusion, item_weight
from nearfar.search.neighbours import Points
from nearfar.search.scoring import scorer_of
from nearfar.training.calibration import by_rule
from runs import add_line, has_line, load, show

FOLDS, SEED = 4, 0
GAMMAS = tuple(n / 100 for n in range(-10, 23))
SHOWN = ("map", "ndcg", "mmr", "recall")
CASE = ("data", "beta", "variant", "fold")


class Variant(NamedTuple):
    """What is in the score inside the loss."""

    name: str
    inside: bool = False
    fixed: bool = False
    decay: float | None = None
    """Of the learned b_j; None if there are none."""


VARIANTS = (
    Variant("afterwards"),
    Variant("inside", inside=True),
    Variant("fixed", fixed=True),
    Variant("learned, decay 0.1", decay=0.1),
    Variant("learned, decay 1", decay=1.0),
)


class Parts(NamedTuple):
    """Data of one fold, and the length of its lists."""

    learn: nf.Interactions
    held_out: nf.Interactions
    past: nf.Interactions
    """What is learned from and the validation part: known when the test is ranked."""
    test: nf.Interactions
    k: int


def parts_of(path: Path, fold: int) -> Parts:
    """Split as `nf.CML.fit` and research/future.py do."""
    if path.suffix == ".parquet":
        past, test = nf.split.leave_one_out(future.load(path), seed=SEED, last=True)
        learn, held_out = nf.split.leave_one_out(past, seed=SEED + 1, last=True)
        return Parts(learn, held_out, past, test, future.K)
    past, test = nf.split.k_fold(load(path), FOLDS, seed=SEED)[fold]
    learn, held_out = nf.split.ratio(past, test=0.1, seed=SEED)
    return Parts(learn, held_out, past, test, 50)


def options_for(learn: nf.Interactions, beta: float) -> nf.Options:
    """Return the defaults with beta and at most a fifth of the items as negatives."""
    n = min(512, np.count_nonzero(learn.item_counts) // 5)
    return nf.Options(sampler=nf.Shared(beta), negatives=n)


class Model:
    """Points and the items' own weights, trained by lazy Adam: only the rows of a step move."""

    def __init__(self, learn: nf.Interactions, variant: Variant, beta: float) -> None:
        self.options, counts = options_for(learn, beta), learn.item_counts
        problem = Problem(learn, self.options, seed=SEED)
        self.n_users, self.decay, self.known = learn.n_users, variant.decay, TrainingUsers(learn)
        self.users, self.items = (torch.tensor(x).long() for x in (learn.pair_users(), learn.items))
        weight = self.options.sampler.proposal(counts)
        with np.errstate(divide="ignore"):
            self.pause = (weight.max() / weight).astype(np.float32)
        self.loss, self.n_negatives = problem.triplet, self.options.negatives
        log_q = np.log(np.maximum(inclusion(weight, self.n_negatives), 1e-12))
        self.shift = torch.tensor(variant.inside * 0.5 * self.loss.temperature * log_q).float()
        self.rows = torch.zeros(problem.n_rows, 3, self.options.dim + 1)
        """The parameter and its two moments; the last column has the b_j."""
        self.rows[:, 0, :-1] = torch.tensor(problem.initial_state().rows[:, 0])
        if variant.fixed:
            self.rows[self.n_users :, 0, -1] = torch.tensor(item_weight(by_rule(problem), counts))
        self.mean, self.steps, self.epochs = torch.zeros_like(self.rows[:, 0]), 0, 0
        self.rng = np.random.default_rng(SEED)

    def train_epoch(self) -> None:
        """Visit every pair once, and add the points to their mean."""
        order = torch.from_numpy(self.rng.permutation(len(self.users)))
        for chosen in order.split(self.options.batch):
            self.step(self.users[chosen], self.items[chosen])
        self.epochs += 1
        now = torch.cat([normalize(self.rows[:, 0, :-1]), self.rows[:, 0, -1:]], 1)
        self.mean.lerp_(now, self.options.averaging.weight(self.epochs))

    def step(self, users: Tensor, items: Tensor) -> None:
        """Draw the negatives, and descend on the pairs and them."""
        drawn = torch.from_numpy(self.draw())
        asked = torch.cat([users, self.n_users + items, self.n_users + drawn])
        unique, at = asked.unique(return_inverse=True)
        rows = self.rows.index_select(0, unique)
        self.update(rows, self.gradient(rows[:, 0], at, users, drawn))
        self.rows.index_copy_(0, unique, rows)

    def gradient(self, now: Tensor, at: Tensor, users: Tensor, drawn: Tensor) -> Tensor:
        """Return that of the parameters `now`; pairs and negatives are found there `at`."""
        sizes, length = [len(users), len(users), len(drawn)], now[:, :-1].norm(dim=1, keepdim=True)
        points = now[:, :-1] / length
        u, v, w = points.index_select(0, at).split(sizes)
        _, b_j, b_k = now[at, -1].split(sizes)
        x = (b_k - self.shift[drawn]) - ((u * v).sum(1) + b_j)[:, None]
        x = (self.loss.margin + 2.0 * x.addmm_(u, w.T)) / self.loss.temperature
        known = self.known.shared(users.numpy(), drawn.numpy())
        x.masked_fill_(torch.from_numpy(known), -torch.inf)
        share = torch.exp(x - softplus(x.logsumexp(1))[:, None])  # the derivatives by x_k
        whole, gradient = share.sum(1, keepdim=True), torch.zeros_like(now)
        slopes = torch.cat([share @ w - whole * v, -whole * u, share.T @ u])
        tangent = gradient[:, :-1].index_add_(0, at, 2.0 * slopes)
        tangent -= (tangent * points).sum(1, keepdim=True) * points
        tangent /= length
        if self.decay is not None:
            slopes = torch.cat([self.decay * b_j - whole[:, 0], self.decay * b_k + share.sum(0)])
            gradient[:, -1].index_add_(0, at[len(users) :], 2.0 * slopes)
        return gradient

    def draw(self) -> npt.NDArray[np.int64]:
        """Draw distinct items by weight: those whose exponential clocks ring first."""
        clocks = self.rng.standard_exponential(len(self.pause), np.float32) * self.pause
        return np.argpartition(clocks, self.n_negatives)[: self.n_negatives]

    def update(self, rows: Tensor, gradient: Tensor) -> None:
        """Do a step of Adam on some rows; a gradient of 0 from the start moves nothing."""
        self.steps += 1
        adam, (now, m, v) = self.options.optimiser, rows.unbind(1)
        m.lerp_(gradient, 1.0 - adam.beta1)
        v.mul_(adam.beta2).addcmul_(gradient, gradient, value=1.0 - adam.beta2)
        scale = (v / (1.0 - adam.beta2**self.steps)).sqrt_().add_(adam.epsilon)
        now.addcdiv_(m, scale, value=-adam.learning_rate / (1.0 - adam.beta1**self.steps))

    def scorer(self) -> Points:
        """Return the scorer of the mean, before gamma log f_j is added."""
        points, own = normalize(self.mean[:, :-1]).numpy(), self.mean[self.n_users :, -1].numpy()
        return scorer_of(points[: self.n_users], points[self.n_users :], "sphere", own.copy())


class Best(NamedTuple):
    """What is best on the validation part."""

    ndcg: float = -1.0
    epoch: int = 0
    gamma: float = 0.0
    scorer: Points | None = None


def fitted(parts: Parts, variant: Variant, args: argparse.Namespace) -> Best:
    """Train; return the best on the validation part, of `args.users` users at most."""
    model, best, learn = Model(parts.learn, variant, args.beta), Best(), parts.learn
    some = np.random.default_rng(SEED).permutation(learn.n_users) < args.users
    held_out = parts.held_out.subset(some[parts.held_out.pair_users()])
    for epoch in range(1, args.epochs + 1):
        model.train_epoch()
        if epoch % args.every == 0 and epoch >= args.first:
            scorer = model.scorer()
            tried = at_gammas(scorer, learn, held_out, GAMMAS, k=parts.k, threads=1).frame["ndcg"]
            at = int(np.argmax(tried.to_numpy()))
            print(f"{variant.name}, epoch {epoch}: gamma {GAMMAS[at]}, {tried[at]:.5f}", flush=True)
            best = max(best, Best(tried[at], epoch, GAMMAS[at], scorer), key=lambda one: one.ndcg)
    return best


def tested(path: Path, case: dict[str, Any], variant: Variant, args: argparse.Namespace) -> None:
    """Train, choose and test; write the metrics of each user, and a line."""
    parts = parts_of(path, case["fold"])
    best = fitted(parts, variant, args)
    found = at_gammas(best.scorer, parts.past, parts.test, [best.gamma], k=parts.k, threads=1,
                      item_counts=parts.learn.item_counts)  # fmt: skip
    args.runs.mkdir(parents=True, exist_ok=True)
    users = found.per_user[0].with_columns(fold=pl.lit(case["fold"]))
    users.write_parquet(users_file(args.runs, case))
    chosen = {"gamma": best.gamma, "epoch": best.epoch, "epochs": args.epochs, "k": parts.k}
    metrics = {"validated": best.ndcg} | {name: found.frame[name][0] for name in SHOWN}
    metrics = {name: round(value, 6) for name, value in metrics.items()}
    add_line(lines_file(args.out), case | chosen | metrics)


def users_file(runs: Path, case: dict[str, Any]) -> Path:
    """Return the file of the metrics of each user."""
    return runs / f"{'-'.join(str(case[name]) for name in CASE).replace(', ', '-')}.parquet"


def lines_file(out: Path) -> Path:
    """Return the file that has a line for each run."""
    return out.with_name(f"{out.stem}_runs.csv")


def summaries(out: Path, runs: Path) -> Iterator[dict[str, Any]]:
    """Yield the table: means over folds, their deviation, and tests over users."""
    keys, numbers = ["data", "beta", "variant"], {one.name: n for n, one in enumerate(VARIANTS)}
    number = pl.col("variant").replace_strict(numbers)
    lines = pl.read_csv(lines_file(out)).sort("data", "beta", number, "fold")
    for (data, beta, variant), folds in lines.group_by(keys, maintain_order=True):
        same = lines.filter(data=data, beta=beta, variant="afterwards")
        same = same.filter(pl.col("fold").is_in(folds["fold"].to_list()))
        a, b = (pl.concat([pl.read_parquet(users_file(runs, c)) for c in part.to_dicts()])
                for part in (folds, same))  # fmt: skip
        line: dict[str, Any] = {"data": data, "beta": beta, "variant": variant, "folds": len(folds)}
        line |= {name: folds[name].mean() for name in ("gamma", "epoch", *SHOWN)}
        for name in ("map", "ndcg", "mmr"):
            line[f"{name}_std"] = folds[name].std()
            line[f"{name}_ratio"] = folds[name].mean() / same[name].mean()
            line[f"{name}_p"] = paired(a, b, name).t_p if variant != "afterwards" else None
        yield {n: float(f"{v:.4g}") if isinstance(v, float) else v for n, v in line.items()}


def main() -> None:
    """Compute what is missing, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--beta", type=float, default=0.5)
    parser.add_argument("--folds", type=int, nargs="+", default=list(range(FOLDS)))
    parser.add_argument("--variants", type=int, nargs="+", default=list(range(len(VARIANTS))))
    parser.add_argument("--epochs", type=int, default=48, help="of every variant")
    parser.add_argument("--first", type=int, default=8, help="epoch that is validated")
    parser.add_argument("--every", type=int, default=8)
    parser.add_argument("--users", type=int, default=4000, help="validated, at most")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    for path in args.data:
        for fold in args.folds if path.suffix != ".parquet" else [0]:
            for variant in [VARIANTS[n] for n in args.variants]:
                case = {"data": path.stem, "beta": args.beta, "variant": variant.name, "fold": fold}
                if not has_line(lines_file(args.out), case):
                    tested(path, case, variant, args)
        table = list(summaries(args.out, args.runs))
        pl.DataFrame(table, infer_schema_length=None).write_csv(args.out)
        show(path.name, table)


if __name__ == "__main__":
    main()
