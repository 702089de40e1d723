"""The spaces that are searched: which options vary, between which bounds, and why.

A dimension names a field of `Options` by its path, such as ``optimiser.learning_rate``; ``hybrid.``
stands for the hybrids of both sides. A *relative* dimension is a factor of the value that nearfar
recommends for the data. The factor 1 leaves the option at None, which is the recommendation itself.

The first trial of every study is the starting point of its space, with the defaults of all
dimensions, so no study returns options that did worse than these on its validation part.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from nearfar.data.interactions import Interactions
from nearfar.engine import Problem
from nearfar.errors import OptionError
from nearfar.method.hybrid import Hybrid
from nearfar.method.loss import Triplet
from nearfar.method.optimiser import Adam
from nearfar.method.options import Options
from nearfar.method.sampling import Popularity, TwoStage, Uniform
from nearfar.runtime.checks import one_of

Value = float | int
"""The value of one dimension."""


@dataclass(frozen=True)
class Between:
    """A dimension of numbers between two bounds."""

    path: str
    """The field of `Options`."""
    low: Value
    high: Value
    default: Value
    """The value of the first trial."""
    why: str
    """The reason for the bounds."""
    log: bool = False
    """Whether equal ratios are equally likely, instead of equal differences."""
    relative: bool = False
    """Whether it is a factor of the recommended value."""

    def suggest(self, trial: Any) -> Value:
        """Return the value that Optuna suggests for a trial."""
        if isinstance(self.default, int):
            return int(trial.suggest_int(self.path, self.low, self.high, log=self.log))
        return float(trial.suggest_float(self.path, self.low, self.high, log=self.log))

    @property
    def shown(self) -> str:
        """The bounds in words."""
        factor = " x recommended" if self.relative else ""
        return f"{self.low:g} to {self.high:g}{factor}{', logarithmic' if self.log else ''}"


@dataclass(frozen=True)
class Among:
    """A dimension with a few values."""

    path: str
    values: tuple[Value, ...]
    default: Value
    why: str
    relative: bool = False

    def suggest(self, trial: Any) -> Value:
        """Return the value that Optuna suggests for a trial."""
        chosen: Value = trial.suggest_categorical(self.path, list(self.values))
        return chosen

    @property
    def shown(self) -> str:
        """The values in words."""
        factor = " x recommended" if self.relative else ""
        return f"{', '.join(f'{one:g}' for one in self.values)}{factor}"


Dimension = Between | Among


@dataclass(frozen=True)
class SearchSpace:
    """A starting point, and the dimensions in which a study departs from it."""

    base: Options
    dimensions: tuple[Dimension, ...]

    @property
    def defaults(self) -> dict[str, Value]:
        """The values of the first trial, by path."""
        return {one.path: one.default for one in self.dimensions}

    def suggest(self, trial: Any) -> dict[str, Value]:
        """Return the values that Optuna suggests for a trial, by path."""
        return {one.path: one.suggest(trial) for one in self.dimensions}

    def options(self, values: Mapping[str, Value], train: Interactions) -> Options:
        """Return the options at a point of the space.

        Parameters
        ----------
        values : mapping of str to number
            By path. They are rounded to three digits, so that commands with them are short.
        train : Interactions
            The data that relative dimensions are relative to.

        Returns
        -------
        Options

        Examples
        --------
        >>> data = Interactions.from_pairs([(u, i) for u in range(8) for i in range(u, 8)])
        >>> space = SPACES["shared"]
        >>> space.options(space.defaults, data) == Options()
        True
        >>> space.options({**space.defaults, "triplet.temperature": 0.5}, data).triplet.temperature
        0.824

        With 6.78 effective items the recommended temperature is (50 / 6.78)^(1/4) = 1.648.
        """
        options = self.base
        for one in sorted(self.dimensions, key=lambda one: one.relative):
            value: Value | None = _rounded(values[one.path])
            if one.relative and value is not None:
                value = None if value == 1 else _recommended(one.path, value, options, train)
            options = _changed(options, one.path.split("."), value)
        return options


def space_of(name: Any, sides: tuple[str, ...] = (), *, dial: bool = False) -> SearchSpace:
    """Return a space by name.

    Parameters
    ----------
    name : str
        A name in `SPACES`.
    sides : tuple of str
        "items" and "users", where there are features.
    dial : bool
        Whether popularity is an objective: then the setting of the popularity dial varies too,
        because it moves along the front at no cost.

    Raises
    ------
    OptionError
        There is no such space, or it and the features do not go together.
    """
    space = SPACES[one_of("space", name, SPACES)]
    if name == "hybrid" and not sides:
        raise OptionError(
            "`space` 'hybrid' learns from features, and none are given; pass item_features="
            " or user_features=, or search another space."
        )
    if sides and name != "hybrid":
        raise OptionError(
            f"`space` {name!r} has no use for features, and item_features= or user_features= is"
            " given; search space='hybrid', or leave them out."
        )
    hybrids: dict[str, Any] = dict.fromkeys(sides, Hybrid())
    base = replace(space.base, **hybrids)
    return SearchSpace(base, (*space.dimensions, *([_DIAL] if dial else [])))


def _rounded(value: Value) -> Value:
    return value if isinstance(value, int) else float(f"{value:.3g}")


def _recommended(path: str, factor: Value, options: Options, train: Interactions) -> Value:
    """Return a factor of the value that is recommended for the data and the other options."""
    problem = Problem(train, replace(options, items=None, users=None), horizon=1)
    if path == "negatives":
        return max(1, min(round(factor * problem.n_candidates), len(problem.support)))
    return float(f"{factor * problem.triplet.known_temperature:.3g}")


def _changed(owner: Any, path: list[str], value: Any) -> Any:
    """Return options with the field at the end of a path changed."""
    first, *rest = path
    if first == "hybrid":
        sides = [side for side in ("items", "users") if getattr(owner, side) is not None]
        return replace(owner, **{s: _changed(getattr(owner, s), rest, value) for s in sides})
    return replace(
        owner, **{first: _changed(getattr(owner, first), rest, value) if rest else value}
    )


_DIAL: Final = Between(
    "prior.popularity", 0.1, 1.0, 1.0,
    "the whole dial but 0, from distance nearly alone to the calibrated prior",
)  # fmt: skip
_DIM: Final = Among(
    "dim", (64, 128, 256), 128,
    "half and twice the default; more costs time in proportion, and rarely pays",
)  # fmt: skip
_TEMPERATURE: Final = Between(
    "triplet.temperature", 0.6, 1.6, 1.0,
    "well inside 0.4 to 4, outside of which `fit` warns; the rule was fitted to a few data sets",
    log=True, relative=True,
)  # fmt: skip
_SHARED: Final = (
    Between("optimiser.learning_rate", 1e-3, 2e-2, 5e-3,
            "a fifth to four times the default: slower does not arrive within the epochs, faster"
            " is noise that averaging cannot remove", log=True),
    Between("sampler.beta", 0.4, 1.0, 0.8,
            "below, few popular items are drawn and more steps are wasted on rare ones; above 1,"
            " rare items are hardly drawn"),
    Between("triplet.margin", 0.0, 0.5, 0.2,
            "0 is the cross-entropy; at 0.5 most pairs are violated however near they are"),
    _TEMPERATURE,
    Among("negatives", (0.5, 1, 2), 1,
          "more negatives are harder ones, for more time", relative=True),
    _DIM,
)  # fmt: skip
_OWN: Final = Options(sampler=Uniform(), negatives=5, triplet=Triplet(1.0), optimiser=Adam(1e-3))
_OF_OWN: Final = (
    Between("optimiser.learning_rate", 1e-4, 1e-2, 1e-3,
            "the best rates of the rows of Table 2 lie between 3e-4 and 3e-3", log=True),
    Between("triplet.margin", 0.3, 2.0, 1.0,
            "squared distances on the sphere go to 4 and are 2 between unrelated points: more"
            " than 2 is violated by all of these", log=True),
    Between("negatives", 1, 20, 5,
            "1, 2 and 5 in the paper, 20 in CML's script; time grows with them", log=True),
    _DIM,
)  # fmt: skip
_BETA: Final = Between(
    "sampler.beta", 0.3, 1.0, 0.5,
    "1 and 0.8 in the paper; with the prior 0.5 is better on Last.fm",
)  # fmt: skip
SPACES: Final[Mapping[str, SearchSpace]] = {
    "shared": SearchSpace(Options(), _SHARED),
    "uniform": SearchSpace(
        _OWN,
        (*_OF_OWN, Among("batch", (256, 1024, 4096), 256,
                         "the paper's: uniform negatives are few in a small batch")),
    ),
    "popularity": SearchSpace(replace(_OWN, sampler=Popularity(0.5)), (*_OF_OWN, _BETA)),
    "two-stage": SearchSpace(
        replace(_OWN, sampler=TwoStage(500, 0.5, towards="user", sharpness=0.2)),
        (
            *_OF_OWN,
            _BETA,
            Between("sampler.candidates", 100, 2000, 500,
                    "2,000 in the paper; more are slower and the hardest of them harder", log=True),
            Between("sampler.sharpness", 0.0, 0.5, 0.2,
                    "0 chooses evenly; towards 1, most choices are items that the user would"
                    " like, and training collapses"),
        ),
    ),
    "hybrid": SearchSpace(
        Options(),
        (
            *_SHARED[:2],
            _TEMPERATURE,
            Between("hybrid.id_dropout", 0.0, 0.75, 0.25,
                    "0 leans on the learned part most, for items with many interactions; beyond"
                    " 0.75 little of it is learned"),
            Between("hybrid.id_decay", 5e-3, 0.5, 0.05,
                    "a tenth and ten times the default", log=True),
            Between("hybrid.encoder.decay", 3e-3, 0.3, 0.03,
                    "a tenth and ten times the default: rare words need more", log=True),
        ),
    ),
}  # fmt: skip
"""The spaces by name: "shared" starts from the defaults."""
