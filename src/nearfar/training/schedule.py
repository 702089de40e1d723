"""How long a run goes on, and what decides which of its epochs is the best."""

from __future__ import annotations

from dataclasses import dataclass

from nearfar.errors import OptionError
from nearfar.evaluation import metrics
from nearfar.runtime.checks import check_count


@dataclass(frozen=True)
class Schedule:
    """How long to train, and when and at what to look."""

    epochs: int = 50
    """Passes over the training pairs."""
    every: int = 1
    """Epochs between two evaluations on the validation part; the last epoch is always evaluated."""
    metric: str = "ndcg"
    """What decides which epoch is the best: a metric of `nearfar.evaluate`."""
    k: int = 50
    """Length of the evaluated lists."""
    patience: int | None = None
    """Stop after this many evaluations in a row without a new best; None never stops early."""

    def __post_init__(self) -> None:
        for name in ("epochs", "every", "k"):
            check_count(name, getattr(self, name))
        if self.patience is not None:
            check_count("patience", self.patience)
        if self.metric not in metrics.REGISTRY:
            known = ", ".join(metrics.names())
            raise OptionError(f"`metric` must be one of {known}; got {self.metric!r}.")

    def improves(self, value: float, best: float | None) -> bool:
        """Whether `value` of the metric beats `best`."""
        if best is None:
            return True
        lower = metrics.REGISTRY[self.metric].lower_is_better
        return value < best if lower else value > best
