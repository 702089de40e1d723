"""Loggers of training runs: MLflow and TensorBoard.

Each is a callback of `nearfar.CML.fit`, which writes the columns of the history after every epoch,
and keeps the finished model's options, card and history when `finish` is called::

    with mlflow.start_run():
        logger = MLflowLogger()
        model = nf.CML().fit(train, validation=0.1, callbacks=[logger])
        logger.finish(model)
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from nearfar.errors import OptionError
from nearfar.model.cml import CML
from nearfar.runtime.checks import local_path, said
from nearfar.runtime.extras import load_extra
from nearfar.training.run import Epoch

_NO_MLFLOW = 'MLflowLogger needs MLflow, which is not installed: `pip install "nearfar[mlflow]"`.'
_NO_BOARD = (
    "TensorBoardLogger needs PyTorch and TensorBoard, which are not installed:"
    ' `pip install "nearfar[tensorboard]"`.'
)


class MLflowLogger:
    """Writes a run to the active run of MLflow, which MLflow starts if there is none.

    Metrics are the columns of the history, with the epoch as their step; columns without a value
    are left out. `finish` adds the options as parameters (``sampler.beta``, for example), and the
    card (``card.md``) and the history (``history.parquet``) as artifacts.

    Raises
    ------
    MissingExtraError
        MLflow is not installed.
    """

    def __init__(self) -> None:
        self._mlflow = load_extra("mlflow", _NO_MLFLOW)

    def __call__(self, epoch: Epoch) -> None:
        """Write an epoch."""
        self._mlflow.log_metrics(dict(numbers(epoch.record)), step=epoch.epoch)

    def finish(self, model: CML) -> None:
        """Write what is known of a trained model."""
        model = _checked(model)
        self._mlflow.log_params(dict(flat(model.options.to_dict())))
        self._mlflow.log_metrics({"gamma": model.gamma, "best_epoch": model.best_epoch})
        self._mlflow.log_text(model.card(), "card.md")
        with TemporaryDirectory() as folder:
            file = Path(folder) / "history.parquet"
            model.history.write_parquet(file)
            self._mlflow.log_artifact(str(file))


class TensorBoardLogger:
    """Writes a run to a folder for TensorBoard.

    Scalars are the columns of the history, with the epoch as their step; columns without a value
    are left out. `finish` adds the options and the card as text, and closes the files.

    Parameters
    ----------
    folder : path
        Where TensorBoard reads: ``tensorboard --logdir folder``.

    Raises
    ------
    MissingExtraError
        PyTorch or TensorBoard is not installed.
    """

    def __init__(self, folder: str | PathLike[str]) -> None:
        load_extra("tensorboard", _NO_BOARD)
        board = load_extra("torch.utils.tensorboard", _NO_BOARD)
        self._writer = board.SummaryWriter(str(local_path(folder, "folder")))

    def __call__(self, epoch: Epoch) -> None:
        """Write an epoch."""
        for name, value in numbers(epoch.record):
            self._writer.add_scalar(name, value, epoch.epoch)
        self._writer.flush()

    def finish(self, model: CML) -> None:
        """Write what is known of a trained model, and close the files."""
        model = _checked(model)
        rows = "\n".join(f"| {name} | {value} |" for name, value in flat(model.options.to_dict()))
        self._writer.add_text("options", f"| option | value |\n|---|---|\n{rows}")
        self._writer.add_text("card", model.card())
        self._writer.close()


def numbers(record: Mapping[str, float]) -> Iterator[tuple[str, float]]:
    """Yield the entries of a row of the history that have a value, but not the epoch.

    Examples
    --------
    >>> dict(numbers({"epoch": 3, "loss": 0.5, "effective": float("nan")}))
    {'loss': 0.5}
    """
    for name, value in record.items():
        if name != "epoch" and not math.isnan(value):
            yield name, float(value)


def flat(options: Mapping[str, Any], within: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the entries of nested options under their full names.

    Examples
    --------
    >>> dict(flat({"dim": 8, "sampler": {"kind": "Shared", "beta": 0.5}, "prior": None}))
    {'dim': 8, 'sampler.kind': 'Shared', 'sampler.beta': 0.5, 'prior': None}
    """
    for name, value in options.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{within}{name}.")
        else:
            yield f"{within}{name}", value


def _checked(model: Any) -> CML:
    if not isinstance(model, CML):
        raise OptionError(f"`model` must be a trained nearfar.CML; got {said(model)}.")
    return model
