"""The metrics of the paper's Table 2, for comparison."""

from __future__ import annotations

from typing import Final, Literal

PaperData = Literal["amazon", "book-crossing", "echonest"]

PAPER: Final[dict[tuple[str, int, int], dict[str, tuple[float, float, float]]]] = {
    key: dict(zip(("amazon", "book-crossing", "echonest"), metrics, strict=True))
    for key, metrics in {
        ("Uniform", 1, 4096): ((2.26, 7.55, 111.8), (1.12, 3.98, 55.2), (4.88, 12.78, 241.8)),
        ("Uniform", 1, 1024): ((2.13, 7.19, 101.7), (1.08, 3.86, 53.2), (4.41, 11.70, 196.5)),
        ("Uniform", 1, 256): ((1.82, 6.47, 86.4), (0.93, 3.50, 44.5), (3.66, 9.90, 146.7)),
        ("Uniform", 2, 4096): ((2.34, 7.72, 114.5), (1.15, 4.06, 54.9), (5.16, 13.39, 265.5)),
        ("Uniform", 2, 1024): ((2.23, 7.49, 109.5), (1.13, 3.97, 54.5), (4.85, 12.60, 231.7)),
        ("Uniform", 2, 256): ((2.04, 6.98, 96.0), (1.04, 3.74, 49.5), (4.18, 11.14, 175.0)),
        ("Uniform", 5, 4096): ((2.48, 8.06, 118.5), (1.15, 4.13, 53.7), (5.71, 14.50, 315.5)),
        ("Uniform", 5, 1024): ((2.45, 8.01, 115.2), (1.15, 4.07, 55.2), (5.56, 14.17, 287.5)),
        ("Uniform", 5, 256): ((2.31, 7.68, 107.2), (1.12, 3.94, 53.5), (5.11, 13.10, 229.1)),
        ("Popularity", 1, 256): ((2.12, 7.14, 26.2), (1.04, 3.54, 8.3), (6.48, 15.55, 54.3)),
        ("Popularity", 2, 256): ((2.43, 7.83, 24.3), (1.22, 3.87, 6.9), (7.26, 17.00, 46.1)),
        ("Popularity", 5, 256): ((2.57, 7.89, 17.2), (1.25, 3.75, 4.1), (8.00, 18.44, 33.8)),
        ("TwoStage", 1, 256): ((2.32, 7.78, 32.9), (1.26, 4.13, 10.1), (6.99, 16.69, 96.1)),
        ("TwoStage", 2, 256): ((2.57, 8.14, 27.9), (1.30, 4.12, 7.6), (7.91, 18.32, 78.9)),
        ("TwoStage", 5, 256): ((2.73, 8.23, 19.6), (1.38, 4.12, 4.5), (8.70, 19.37, 48.4)),
    }.items()
}
"""The rows of the paper's Table 2 in its order: by sampler, negatives and batch, the MAP %, NDCG %
and MMR of each data set."""
