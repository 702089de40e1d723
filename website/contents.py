"""What the documentation site contains: its pages in order, and the names of its reference.

`NAVIGATION` has every page of ``docs/``, and `REFERENCE` every public name, each once; tests hold
them to that.
"""

from __future__ import annotations

NAVIGATION: dict[str, tuple[str, ...]] = {
    "Start": ("docs/tutorial.md", "docs/coming-from.md"),
    "Guides": (
        "docs/guides/data.md",
        "docs/guides/popularity.md",
        "docs/guides/new-users.md",
        "docs/guides/content.md",
        "docs/guides/tuning.md",
        "docs/guides/options.md",
        "docs/guides/serving.md",
        "docs/guides/gpu.md",
        "docs/cluster.md",
        "docs/guides/command-line.md",
        "docs/guides/reasons.md",
        "docs/guides/map.md",
        "docs/guides/item-index.md",
        "docs/guides/stores.md",
        "docs/guides/neighbours.md",
        "docs/guides/encoders.md",
        "docs/guides/spark.md",
        "docs/guides/other-libraries.md",
        "docs/troubleshooting.md",
    ),
    "Notebooks": (
        "docs/notebooks/first-model.ipynb",
        "docs/notebooks/against-popularity.ipynb",
        "docs/notebooks/content.ipynb",
    ),
    "Explanation": (
        "docs/paper.md",
        "docs/negatives.md",
        "docs/presets.md",
        "docs/exactness.md",
    ),
    "Results": (
        "docs/results/README.md",
        "docs/results/leaderboards.md",
        "docs/results/gpu.md",
        "benchmarks/README.md",
        "research/README.md",
    ),
    "Project": ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"),
}
"""Captions, and the pages below each: files, from the root of the repository."""

REFERENCE: dict[str, tuple[str, tuple[str, ...]]] = {
    "The model": ("Train, ask, save and load.", ("nearfar.CML",)),
    "Data": (
        "Interactions, features of items and users, and how a log becomes both.",
        (
            "nearfar.Interactions",
            "nearfar.prepare",
            "nearfar.Rules",
            "nearfar.Features",
            "nearfar.Contents",
            "nearfar.split",
            "nearfar.datasets",
        ),
    ),
    "Options": (
        "What is trained: sampler, loss, optimiser, prior and content.",
        (
            "nearfar.Options",
            "nearfar.Shared",
            "nearfar.Uniform",
            "nearfar.Popularity",
            "nearfar.TwoStage",
            "nearfar.Triplet",
            "nearfar.SpreadOut",
            "nearfar.Decorrelate",
            "nearfar.Adam",
            "nearfar.Adagrad",
            "nearfar.SGD",
            "nearfar.Averaging",
            "nearfar.Prior",
            "nearfar.CoOccurrence",
            "nearfar.Hybrid",
            "nearfar.Linear",
            "nearfar.Module",
            "nearfar.presets",
        ),
    ),
    "Evaluation": (
        "Accuracy, popularity bias, and what to compare them with.",
        (
            "nearfar.evaluate",
            "nearfar.Evaluation",
            "nearfar.front",
            "nearfar.Front",
            "nearfar.baselines",
        ),
    ),
    "Serving and export": (
        "Lists in milliseconds, over HTTP, from a database or on Spark.",
        (
            "nearfar.ItemIndex",
            "nearfar.export",
            "nearfar.export_to",
            "nearfar.serve",
            "nearfar.spark",
        ),
    ),
    "Experiments": (
        "A search for better options, grids of runs over folds, and their statistical comparison.",
        ("nearfar.tune", "nearfar.experiment"),
    ),
    "Errors": ("Every exception names the thing, its value and the remedy.", ("nearfar.errors",)),
}
"""Pages of the reference: title, what they are about, and the public names, modules last."""

PARTS: dict[str, tuple[str, ...]] = {
    "The method, in plain numpy": (
        "nearfar.method",
        "nearfar.method.geometry",
        "nearfar.method.proposal",
        "nearfar.method.sampling",
        "nearfar.method.loss",
        "nearfar.method.optimiser",
        "nearfar.method.prior",
        "nearfar.method.co_occurrence",
        "nearfar.method.hybrid",
        "nearfar.method.options",
    ),
    "Evaluation, part by part": (
        "nearfar.evaluation.metrics",
        "nearfar.evaluation.ranking",
        "nearfar.evaluation.content_baselines",
    ),
    "Training, part by part": (
        "nearfar.engine.problem",
        "nearfar.engine.reference",
        "nearfar.engine.item_module",
        "nearfar.training.calibration",
        "nearfar.training.content_diagnostics",
        "nearfar.training.drawn",
        "nearfar.runtime.counter",
    ),
    "Data, part by part": (
        "nearfar.data.feature_blocks",
        "nearfar.prepare.rules",
        "nearfar.model.batch",
    ),
    "Experiments, part by part": ("nearfar.experiment.paper", "nearfar.tuning.spaces"),
    "Serving, part by part": ("nearfar.serve.request_log",),
}
"""Modules that the explanation links to: pages of the reference for those who read the code."""
