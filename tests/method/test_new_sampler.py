"""A sampler of one's own, defined here: it trains, is saved and has flags as those of the package.

`RankWeighted` draws in a way for which no engine has kernels; `RankProposal` draws the same law by
redraws, as `Popularity` does, and so trains on every engine.
"""

import inspect
import json
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest
from scipy import stats

import nearfar as nf
from conftest import hopeless, plain, random_data
from nearfar.engine import Problem, make_engine
from nearfar.engine.reference import ReferenceEngine
from nearfar.errors import OptionError
from nearfar.method.draws import Drawn, Needs, draw_own
from nearfar.method.options import STRATEGIES, Options, register_sampler
from nearfar.runtime.counter import Purpose, uniform

DATA = random_data(crowded=True)


def weight_by_rank(item_counts, power):
    """1 / rank^power, the most popular item being the first."""
    rank = np.empty(len(item_counts))
    rank[np.argsort(-np.asarray(item_counts), kind="stable")] = np.arange(1, len(item_counts) + 1)
    return rank**-power


@dataclass(frozen=True)
class RankWeighted:
    """Pr(j) ~ 1 / rank_j^power over the items that the user does not have, without redraws."""

    power: float = 1.0
    """How much more often popular items are drawn; 0 is uniform."""

    @property
    def needs(self):
        """Negatives of its own for each pair."""
        return Needs(usual=4)

    def proposal(self, item_counts):
        """Return 1 / rank^power."""
        return weight_by_rank(item_counts, self.power)

    def draw(self, batch):
        """Look each place up in the cumulative weights of the user's unknown items."""
        items, n = batch.support.astype(np.int64), batch.negatives
        cumulative = np.cumsum(
            batch.table.weight[items] * ~batch.known.shared(batch.users, items), axis=1
        )
        cumulative = np.broadcast_to(cumulative, (len(batch.users), len(items)))
        u = uniform(batch.source.stream(Purpose.NEGATIVE), np.arange(len(batch.users) * n))
        found = [
            np.searchsorted(row, part * row[-1], side="right")
            for row, part in zip(cumulative, u.reshape(-1, n), strict=True)
        ]
        some = np.broadcast_to(cumulative[:, -1:] > 0, (len(batch.users), n))
        return Drawn(items[np.minimum(found, len(items) - 1)], some)


@dataclass(frozen=True)
class RankProposal:
    """The same law by redraws: only the weight is new, so that every engine can draw it."""

    power: float = 1.0
    """As with `RankWeighted`."""

    @property
    def needs(self):
        """Negatives of its own for each pair, drawn again as often as 100 times."""
        return Needs(redraws=100, kernel="independent")

    def proposal(self, item_counts):
        """Return 1 / rank^power."""
        return weight_by_rank(item_counts, self.power)

    def draw(self, batch):
        """Draw again until the user does not have the item."""
        return draw_own(batch, 100)


@dataclass
class Thawed:
    """Not frozen."""

    needs = proposal = draw = None


@dataclass(frozen=True)
class Demanding:
    """A field without a default."""

    power: float
    needs = proposal = draw = None


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    """Both samplers are known in the tests here, and nowhere else."""
    monkeypatch.setitem(STRATEGIES, "sampler", STRATEGIES["sampler"])
    register_sampler(RankWeighted)
    register_sampler(RankProposal)


def fitted(sampler, device="reference"):
    options = plain(dim=6, batch=32, sampler=sampler, negatives=None, optimiser=nf.Adam(0.02))
    return nf.CML(options).fit(DATA, epochs=3, seed=1, device=device)


@pytest.mark.parametrize("kind", [RankWeighted, RankProposal])
@pytest.mark.parametrize("power", [1.0, 0.3])
def test_it_draws_its_own_law(kind, power):
    problem = Problem(DATA, plain(dim=2, batch=DATA.n_pairs, sampler=kind(power), negatives=4))
    engine, user = ReferenceEngine(problem), 1
    drawn = []
    for step in range(150):
        pairs = engine.pairs(step)
        for (who, _), negatives in zip(pairs, engine.negatives(step, pairs), strict=True):
            drawn += negatives if who == user else []
    for other in (0.0, 0.5):
        law = weight_by_rank(DATA.item_counts, power + other)
        law[DATA.positives(user)] = 0
        seen = np.bincount(drawn, minlength=DATA.n_items)
        assert not seen[law == 0].any()
        expected = (law / law.sum() * len(drawn))[law > 0]
        p = stats.chisquare(seen[law > 0], expected).pvalue
        assert p > 1e-3 if other == 0 else p < 1e-6


@hopeless
def test_it_trains_is_evaluated_saved_and_described(tmp_path):
    train, test = nf.split.ratio(DATA, test=0.25, seed=0)
    options = plain(dim=6, batch=32, sampler=RankWeighted(0.5), negatives=None)
    model = nf.CML(options).fit(train, epochs=3, seed=1, device="reference", validation=0.1)
    assert Problem(train, model.options).n_negatives == 4
    assert 0 < nf.evaluate(model, train, test, k=10).metrics["recall"] < 1
    assert model.fold_in([1, 2, 5]).shape == model.fold_in_item([1, 2]).shape == (6,)
    model.save(tmp_path / "model")
    assert "RankWeighted(power=0.5)" in next((tmp_path / "model").glob("*.md")).read_text()
    again = nf.CML.load(tmp_path / "model")
    assert again.options == model.options
    assert hash(again.options) == hash(model.options)
    assert np.array_equal(again.item_vectors, model.item_vectors)
    assert again.recommend([1, 2], k=3).equals(model.recommend([1, 2], k=3))


def test_its_parameter_changes_the_model():
    assert not np.array_equal(
        fitted(RankWeighted(0.5)).item_vectors, fitted(RankWeighted(2.0)).item_vectors
    )


@pytest.mark.parametrize("device", ["cpu", "torch:cpu"])
def test_engines_without_kernels_for_it_refuse_it_before_training(device):
    with pytest.raises(
        OptionError,
        match=r'sampler=RankWeighted\(power=1.0\) .* reference engine .* device="reference"',
    ):
        fitted(RankWeighted(), device)


@pytest.mark.parametrize("device", ["cpu", "torch:cpu"])
def test_engines_train_with_its_weight_where_only_that_is_new(device):
    problem = Problem(DATA, plain(dim=6, batch=32, sampler=RankProposal()), seed=2, horizon=20)
    results = []
    for name in ("reference", device):
        engine = make_engine(problem, None, device=name, threads=1)
        log = engine.run(20)
        results.append((engine.points(), log["missed"]))
        engine.close()
    np.testing.assert_allclose(results[0][0], results[1][0], atol=1e-5)
    assert np.array_equal(results[0][1], results[1][1])


MODULE = """from dataclasses import dataclass
import numpy as np
from nearfar.method.draws import Drawn, Needs
from nearfar.method.options import register_sampler
from nearfar.runtime.counter import Purpose, uniform
"""
PROGRAM = "import sampler_of_mine; from nearfar.cli import main; main()"


@pytest.mark.full  # long
def test_it_is_in_the_command_line(tmp_path):
    """Of a program that imports a module with the sampler, and then runs the command line."""
    parts = [MODULE, inspect.getsource(weight_by_rank)]
    parts.append("@register_sampler\n" + inspect.getsource(RankWeighted))
    (tmp_path / "sampler_of_mine.py").write_text("\n\n".join(parts))

    def nearfar(*words):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, *words],
            capture_output=True, text=True, check=False, cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return " ".join(done.stdout.split())

    said = nearfar("fit", "--help")
    assert "rank-weighted" in said
    assert "--power" in said
    assert "How much more often popular items are drawn" in said
    DATA.save(tmp_path / "data")
    nearfar(
        "fit", str(tmp_path / "data"), "-o", str(tmp_path / "model"), "--sampler", "rank-weighted",
        "--power", "0.5", "--dim", "4", "--epochs", "1", "--device", "reference", "--no-progress",
        "--margin", "1", "--temperature", "0",
    )  # fmt: skip
    saved = nf.CML.load(tmp_path / "model").options
    assert (saved.sampler, saved.negatives) == (RankWeighted(0.5), None)


def test_options_of_it_survive_json():
    options = Options(sampler=RankWeighted(0.5))
    assert Options.from_dict(json.loads(json.dumps(options.to_dict()))) == options


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (RankWeighted, "already a sampler 'RankWeighted'"),
        (nf.Adam, r"Adam lacks \['needs', 'proposal', 'draw'\]"),
        (type("Loose", (), dict.fromkeys(("needs", "proposal", "draw"))), "frozen dataclass"),
        (Thawed, "frozen dataclass"),
        (Demanding, "whose fields have defaults"),
    ],
)
def test_what_is_no_sampler_is_not_registered(kind, message):
    before = STRATEGIES["sampler"]
    with pytest.raises(OptionError, match=message):
        register_sampler(kind)
    assert STRATEGIES["sampler"] == before


def test_a_sampler_that_is_not_registered_is_refused(monkeypatch):
    known = tuple(kind for kind in STRATEGIES["sampler"] if kind is not RankWeighted)
    monkeypatch.setitem(STRATEGIES, "sampler", known)
    with pytest.raises(OptionError, match=r"`sampler` must be Uniform.*register_sampler"):
        Options(sampler=RankWeighted())
