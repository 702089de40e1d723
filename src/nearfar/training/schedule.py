"""The length of a run, and how its best epoch is selected."""

from __future__ import annotations

from dataclasses import dataclass

from nearfar.errors import OptionError
from nearfar.evaluation import metrics
from nearfar.runtime.checks import check_count


@dataclass(frozen=True)
class Schedule:
    """The length of a run, its validation interval and metric, and early stopping."""

    epochs: int = 50
    """Passes over the training pairs."""
    every: int = 1
    """Epochs between two evaluations on the validation part; the last epoch is always evaluated."""
    metric: str = "ndcg"
    """The metric of `nearfar.evaluate` that selects the best epoch."""
    k: int = 50
    """Length of the evaluated lists."""
    patience: int | None = None
    """Stop after this many consecutive evaluations without a new best; None never stops early."""

    def __post_init__(self) -> None:
        for name in ("epochs", "every", "k"):
            check_count(name, getattr(self, name))
        if self.patience is not None:
            check_count("patience", self.patience)
        if self.metric not in metrics.REGISTRY:
            known = ", ".join(metrics.names())
            raise OptionError(f"`metric` must be one of {known}; got {self.metric!r}.")

    def improves(self, value: float, best: float | None) -> bool:
        """Return whether `value` of the metric is better than `best`."""
        if best is None:
            return True
        lower = metrics.REGISTRY[self.metric].lower_is_better
        return value < best if lower else value > best
