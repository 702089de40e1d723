"""nearfar itself, through its engine: what `nf.CML.fit` runs, without its loop."""

from __future__ import annotations

from dataclasses import replace

import nearfar as nf
from common import HINGE
from nearfar.engine import Problem, make_engine
from nearfar.training.calibration import expected_weight
from peer_models import Factors, Setting

SAMPLERS = {"uniform": nf.Uniform, "popularity": nf.Popularity, "two-stage": nf.TwoStage}
OPTIMISERS = {"adam": nf.Adam, "sgd": nf.SGD, "adagrad": nf.Adagrad}
DEFAULT: Setting = {"options": "default"}
_OF_SAMPLER = ("beta", "candidates", "vectors")


def options_of(setting: Setting) -> nf.Options:
    """Turn a flat setting into options; d is 128 and the points lie on the sphere.

    ``{"options": "default"}`` is what ``nf.CML()`` trains.
    """
    if setting == DEFAULT:
        return nf.Options()
    sampler = SAMPLERS[setting.get("sampler", "uniform")]
    optimiser = OPTIMISERS[setting.get("optimiser", "adam")]
    return replace(
        HINGE,
        dim=128,
        sampler=sampler(**{name: setting[name] for name in _OF_SAMPLER if name in setting}),
        negatives=setting.get("negatives", 1),
        batch=setting["batch"],
        optimiser=optimiser(learning_rate=setting["learning_rate"]),
    )


class Nearfar:
    """Collaborative metric learning on the sphere."""

    def __init__(
        self, train: nf.Interactions, setting: Setting, *, threads: int, seed: int
    ) -> None:
        self.problem = Problem(train, options_of(setting), seed=seed)
        self.engine = make_engine(self.problem, None, device="cpu", threads=self._useful(threads))

    def _useful(self, threads: int) -> int:
        return self.problem.useful_threads(threads)

    def use(self, threads: int) -> None:
        """Train on `threads` threads from now on."""
        state = self.engine.state
        self.engine.close()
        self.engine = make_engine(self.problem, state, device="cpu", threads=self._useful(threads))

    def epoch(self, positives: int | None = None) -> int:
        """Train a pass, or about `positives` pairs of one; a pass ends with every row settled."""
        if positives is None:
            log = self.engine.run(self.problem.steps_per_epoch)
            self.engine.settle()
        else:
            log = self.engine.run(-(-positives // self.problem.options.batch))
        return int(log["pairs"].sum())

    def factors(self) -> Factors:
        """Give the points, and the items' weights by the rule if there is a prior."""
        points, weight = self.engine.points(), expected_weight(self.problem)
        return Factors(points[: self.problem.n_users], points[self.problem.n_users :], weight)
