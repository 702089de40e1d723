"""RecBole 1.2.1: its BPR model, data set, data loader and training epoch (dense Adam).

RecBole has no collaborative metric learning; BPR is its nearest model. It reads files and the
command line and writes folders, so it is given a temporary place and no arguments. NumPy 2 dropped
four names that it still assigns from; they are given back before it is imported.
"""

from __future__ import annotations

import logging
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path

import numpy as np
import polars as pl
import torch

import nearfar as nf
from peer_models import Factors, Setting

for _old, _new in (("float_", "float64"), ("complex_", "complex128"), ("unicode_", "str_")):
    if not hasattr(np, _old):
        setattr(np, _old, getattr(np, _new))

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from recbole.config import Config
    from recbole.data import create_dataset
    from recbole.data.dataloader import TrainDataLoader
    from recbole.model.general_recommender.bpr import BPR
    from recbole.sampler import Sampler
    from recbole.trainer import Trainer

_NAME = "pairs"


class _First:
    """The first batches of a loader, for an epoch that is cut short."""

    def __init__(self, loader: TrainDataLoader, count: int) -> None:
        self.loader, self.count = loader, count

    def __len__(self) -> int:
        return min(self.count, len(self.loader))

    def __iter__(self) -> Iterator[object]:
        for _, batch in zip(range(self.count), self.loader, strict=False):
            yield batch


class RecBoleBPR:
    """The library's own model and epoch; one uniform negative a pair, none that the user has."""

    def __init__(
        self, train: nf.Interactions, setting: Setting, *, threads: int, seed: int
    ) -> None:
        self.n_pairs, self.batch = train.n_pairs, setting["batch"]
        self.shape = (train.n_users, train.n_items)
        with _alone() as folder:
            _write(train, folder)
            config = Config(model="BPR", dataset=_NAME, config_dict=_config(folder, setting, seed))
            torch.manual_seed(seed)
            np.random.seed(seed)  # noqa: NPY002  # RecBole draws its negatives from it
            self.data = create_dataset(config)
            self.data._change_feat_format()  # what `build` does when nothing is held out
            sampler = Sampler(["train"], [self.data]).set_phase("train")
            self.loader = TrainDataLoader(config, self.data, sampler, shuffle=True)
            self.model = BPR(config, self.data)
            self.trainer = Trainer(config, self.model)
        self.use(threads)

    def use(self, threads: int) -> None:
        """Train on `threads` threads from now on."""
        torch.set_num_threads(threads)

    def epoch(self, positives: int | None = None) -> int:
        """Train a pass, or so many pairs, rounded up to whole batches."""
        if positives is None:
            self.trainer._train_epoch(self.loader, 0)
            return self.n_pairs
        part = _First(self.loader, -(-positives // self.batch))
        self.trainer._train_epoch(part, 0)
        return min(len(part) * self.batch, self.n_pairs)

    def factors(self) -> Factors:
        """Put the rows back in our order; what has no training pair has a row of zeros."""
        tables = (self.model.user_embedding, self.model.item_embedding)
        users, items = (
            self._in_order(field, table.weight.detach().numpy(), n)
            for field, table, n in zip(("user_id", "item_id"), tables, self.shape, strict=True)
        )
        return Factors(users, items, None)

    def _in_order(self, field: str, rows: np.ndarray, n: int) -> np.ndarray:
        """Row 0 is RecBole's padding; the others are named by the numbers that we wrote."""
        out = np.zeros((n, rows.shape[1]), np.float32)
        numbers = self.data.field2id_token[field][1:].astype(np.int64)
        out[numbers] = rows[1:]
        return out


def _config(folder: Path, setting: Setting, seed: int) -> dict[str, object]:
    return {
        "data_path": str(folder),
        "checkpoint_dir": str(folder),
        "load_col": {"inter": ["user_id", "item_id"]},
        "embedding_size": 128,
        "learning_rate": setting["learning_rate"],
        "weight_decay": setting.get("weight_decay", 0.0),
        "train_batch_size": setting["batch"],
        "seed": seed,
        "use_gpu": False,
        "show_progress": False,
        "state": "ERROR",
    }


def _write(train: nf.Interactions, folder: Path) -> None:
    """Write the pairs, by row number, as the file that RecBole reads."""
    (folder / _NAME).mkdir()
    columns = {"user_id:token": train.pair_users(), "item_id:token": train.items}
    pl.DataFrame(columns).write_csv(folder / _NAME / f"{_NAME}.inter", separator="\t")


@contextmanager
def _alone() -> Iterator[Path]:
    """Work in a temporary folder, without a command line and without chatter."""
    arguments, level = sys.argv, logging.root.level
    with tempfile.TemporaryDirectory() as name, chdir(name), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sys.argv = arguments[:1]
        logging.root.setLevel(logging.ERROR)
        try:
            yield Path(name)
        finally:
            sys.argv = arguments
            logging.root.setLevel(level)
