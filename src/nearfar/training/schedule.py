"""The length of a run, and how its best epoch is selected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from nearfar.evaluation import metrics
from nearfar.runtime.checks import one_of, set_fields, whole

MOST_EPOCHS: Final = 1_000_000
"""More are refused: they are a slip."""


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
        set_fields(
            self,
            epochs=whole("epochs", self.epochs, 1, MOST_EPOCHS),
            every=whole("every", self.every),
            metric=one_of("metric", self.metric, metrics.names()),
            k=whole("k", self.k, 1, metrics.MOST_K),
            patience=None if self.patience is None else whole("patience", self.patience),
        )

    def improves(self, value: float, best: float | None) -> bool:
        """Return whether `value` of the metric is better than `best`."""
        if best is None:
            return True
        lower = metrics.REGISTRY[self.metric].lower_is_better
        return value < best if lower else value > best
