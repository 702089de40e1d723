"""The training loop: epochs, validation, early stopping, checkpoints, progress.

The loop runs the steps of an engine in chunks of a fraction of a second. Between two chunks it may
report, save a checkpoint or be interrupted; none of this changes a bit of the result. At the end of
every epoch all rows are brought up to date, so the result does not depend on when the points were
read.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, fields, replace
from os import PathLike
from typing import Any

import numpy as np
import polars as pl

from nearfar.data.interactions import Interactions
from nearfar.engine import Collective, Engine, OnDevice, Problem, State, StepLog, make_engine
from nearfar.errors import DataError, DivergedError, EmptyDataError, OptionError
from nearfar.evaluation import metrics
from nearfar.evaluation.baselines import MostPopular
from nearfar.evaluation.ranking import evaluate
from nearfar.evaluation.result import Evaluation
from nearfar.runtime.arrays import Float32, Float64, Int32
from nearfar.runtime.caller import warn
from nearfar.runtime.checks import a_callable, listed, real, said, switch
from nearfar.runtime.devices import describe, resolve
from nearfar.runtime.progress import Reporter, shows
from nearfar.runtime.threads import (
    Ahead,
    checked_threads,
    interrupt_deferred,
    interrupts_noted,
    processes_here,
)
from nearfar.search.neighbours import Scorer
from nearfar.search.scoring import scorer_of
from nearfar.training import diagnostics
from nearfar.training.calibration import (
    Calibration,
    calibrated,
    calibrated_by,
    expected_weight,
)
from nearfar.training.checkpoint import Checkpoint
from nearfar.training.content_diagnostics import ContentSight
from nearfar.training.kept_together import together
from nearfar.training.schedule import Schedule
from nearfar.training.shard_comparisons import over_shards

_CHUNK_SECONDS = 0.2
_EPOCHS_TO_LEARN = 10
_COLUMNS = (
    "epoch", "loss", "spread_out", "decorrelate", "violated", "missed", "seconds",
    "effective", "false_push", "dimension",
    *(one.name for one in fields(ContentSight)),
)  # fmt: skip


@dataclass(frozen=True)
class Epoch:
    """The argument of a callback after each epoch."""

    epoch: int
    """1 for the first."""
    record: dict[str, float]
    """The epoch's row of the history."""
    points: Callable[[], Float32]
    """Returns the current points (N + M, d): users, then items."""


Callback = Callable[[Epoch], Any]
"""Called after each epoch; training stops if it returns a true value."""


@dataclass
class Progress:
    """The state of a run other than the engine's tables, small enough for JSON."""

    history: list[dict[str, float]] = field(default_factory=list)
    sums: dict[str, float] = field(default_factory=dict)
    """Totals of the step log over the current epoch."""
    best: float | None = None
    best_epoch: int = 0
    stale: int = 0
    """Evaluations since the best one."""
    stopped: bool = False
    """Whether patience or a callback has ended training before its last epoch."""
    seconds: float = 0.0
    averaged: int = 0
    """Epochs that are in the mean of the points, if there is one."""
    warned: bool = False
    """Whether the diagnostics have already warned about the run."""

    @property
    def top_ndcg(self) -> float:
        """The best NDCG on the validation part so far; 0 if there is none."""
        return max((record.get("validation_ndcg", 0.0) for record in self.history), default=0.0)


@dataclass(frozen=True)
class Trained:
    """The result of a run, including one that was interrupted."""

    points: Float32
    """(N + M, d): those of the best epoch if there is a validation part, otherwise the last. Of
    `Run.outcome_here`, those of the process's rows."""
    history: pl.DataFrame
    best_epoch: int
    """The epoch that the points are from; 0 before the end of the first."""
    tables: Float32 | None = None
    """With content: the vectors of `nearfar.engine.Engine.tables` that the points are made of."""

    def after(self, before: pl.DataFrame) -> Trained:
        """Return the result with the history of an earlier run prepended to its own."""
        n = before.height
        rows = [*before.to_dicts(), *self.history.to_dicts()]
        for row in rows[n:]:
            row["epoch"] += n
        history = pl.DataFrame(rows, infer_schema_length=None)
        return replace(self, history=history, best_epoch=n + self.best_epoch)


class Run:
    """One training run.

    Parameters
    ----------
    problem : Problem
    schedule : Schedule
    validation : Interactions or None
        On the axes of the training interactions. Users without any of these are left out.
    checkpoint : path, optional
        A folder to save the run in; if it already holds this run, training resumes from it.
    checkpoint_seconds : float
        Time between two checkpoints.
    callbacks : sequence of callables
    device, fast, threads
        See `nearfar.engine.make_engine`.
    state : State, optional
        The initial state of a run that is not resumed; ``problem.initial_state()`` if None.
    progress : bool or None
        Whether to show a progress bar; None shows it if the error stream is a terminal.
    """

    def __init__(
        self,
        problem: Problem,
        schedule: Schedule,
        *,
        validation: Interactions | None = None,
        checkpoint: str | PathLike[str] | None = None,
        checkpoint_seconds: float = 60.0,
        callbacks: Sequence[Callback] = (),
        device: str = "cpu",
        fast: bool = False,
        threads: int | None = None,
        progress: bool | None = None,
        state: State | None = None,
    ) -> None:
        problem.check_negatives()
        problem.check_content()
        if validation is not None:
            validation = _checked_validation(problem.interactions, validation)
        self.problem, self.schedule, self.validation = problem, schedule, validation
        self.weight = expected_weight(problem)
        self.callbacks = [
            a_callable("callbacks", one) for one in listed("callbacks", callbacks, "callables")
        ]
        self.show, fast = shows(progress), switch("fast", fast)
        seconds = real("checkpoint_seconds", checkpoint_seconds, least=0.0)
        self.device = resolve(device)
        self.threads = checked_threads(threads)
        if self.device == "cluster" and threads is None:  # processes of a host share its cores
            self.threads = max(1, self.threads // processes_here())
        self.progress = Progress()
        self.best_points: Float32 | None = None
        """The points of the best epoch; with content, the tables that they are made of. In a
        cluster, those of this process's rows."""
        self.checkpoint = (
            None
            if checkpoint is None
            else Checkpoint(checkpoint, problem, schedule, validation, seconds)
        )
        if self.checkpoint is not None and (saved := self.checkpoint.load()) is not None:
            state, self.best_points = saved.state, saved.best_points
            self.progress = Progress(**saved.progress)
        workers = self.threads if threads is not None else problem.useful_threads(self.threads)
        self.engine: Engine = make_engine(
            problem, state, device=self.device, threads=workers, fast=fast
        )
        if isinstance(self.engine, Collective) and self.best_points is not None:
            self.best_points = self.best_points[self.engine.table_rows]
        self.out_of_step = False
        """Whether a process of a cluster has failed, so that they cannot act together."""
        self._interrupts: list[Any] = []
        self._stopped_together = False
        self.show = self.show and self._reports

    def train(self) -> None:
        """Train to the last epoch, from the beginning or from the checkpoint.

        Raises
        ------
        DivergedError
            The loss is no longer a finite number.
        KeyboardInterrupt
            The run was interrupted; `outcome` returns the result so far.
        """
        if not self.progress.history:
            warning = diagnostics.warning_before_training(self.problem)
            if warning is not None:
                warn(warning)
        try:
            with Reporter(self.show, self.schedule.epochs, self.problem.steps_per_epoch) as report:
                where = "" if self.device == "cpu" else f"on {describe(self.device)}: "
                report.note(f"{where}compiling, if this is the first run on this machine")
                self.engine.run(0)
                by_popularity = self._rank_by_popularity()
                with self._noting_interrupts() as self._interrupts:
                    for _ in self._epochs(report):
                        pass
            if by_popularity is not None:
                self._compare_with_popularity(by_popularity.result())
        except DivergedError:  # in every process
            raise
        except BaseException as error:
            self.out_of_step = self._together and not self._stopped_together
            if isinstance(error, KeyboardInterrupt) and not self.out_of_step:
                self._save()
            raise
        self._save()

    def outcome(self) -> Trained:
        """Return the result of the run and release its tables."""
        epoch, best = self.progress.best_epoch, self.best_points
        if best is None:
            epoch = len(self.progress.history)
        if isinstance(self.engine, Collective) and best is not None:
            best = self.engine.whole(best)
        if self.problem.content is not None:
            tables = self.engine.tables() if best is None else best
            return Trained(self.problem.encoded(tables), self.history(), epoch, tables)
        return Trained(self.engine.finish() if best is None else best, self.history(), epoch)

    def outcome_here(self) -> Trained:
        """Return the result with the points of this process's rows, in a cluster."""
        assert isinstance(self.engine, Collective)
        epoch, best = self.progress.best_epoch, self.best_points
        if best is None:
            epoch, best = len(self.progress.history), self.engine.own_points()
        return Trained(best, self.history(), epoch)

    def _average(self, epoch: int) -> None:
        """Add the points after `epoch` to the mean, once."""
        averaging = self.problem.options.averaging
        if averaging is None or self.progress.averaged == epoch:
            return
        with interrupt_deferred():
            self.engine.average(averaging.weight(epoch))
            self.progress.averaged = epoch

    def history(self) -> pl.DataFrame:
        """Return a table with one row for each epoch; see `CML.history`."""
        frame = pl.DataFrame(self.progress.history, infer_schema_length=None)
        columns = (*_COLUMNS, *(f"validation_{name}" for name in metrics.names()))
        return frame[[name for name in columns if name in frame.columns]]

    def close(self) -> None:
        """Stop the engine's threads."""
        self.engine.close()

    def _epochs(self, report: Reporter) -> Iterator[None]:
        length = self.problem.steps_per_epoch
        while len(self.progress.history) < self.schedule.epochs and not self.progress.stopped:
            self._steps(report, (len(self.progress.history) + 1) * length)
            self.engine.settle()
            self._finish_epoch(report)
            yield

    def _steps(self, report: Reporter, end: int) -> None:
        """Run up to step `end` in chunks of a fraction of a second."""
        count, begun = 1, time.perf_counter()
        sums = self.progress.sums
        while self.engine.step < end:
            count = min(count, end - self.engine.step)
            with interrupt_deferred():
                log = self.engine.run(count)
                now = time.perf_counter()
                self.progress.seconds += now - begun
                for name, values in log.items():
                    sums[name] = _add_in_order(sums.get(name, 0.0), values)
            self._check_finite(log)
            report.steps(self.engine.step, self._mean_loss())
            is_due = self.checkpoint is not None and self.checkpoint.is_due()
            count = max(1, min(int(count * _CHUNK_SECONDS / max(now - begun, 1e-6)), 4 * count))
            saves, count = (int(value) for value in self._agreed([is_due, count]))
            if saves:
                self._save()
            self._interrupt_together()
            begun = time.perf_counter()

    def _check_finite(self, log: StepLog) -> None:
        total = log["triplet"] + log["spread_out"] + log["decorrelate"]
        bad = np.flatnonzero(~np.isfinite(total))
        if len(bad):
            step = self.engine.step - len(total) + int(bad[0])
            epoch, place = divmod(step, self.problem.steps_per_epoch)
            raise DivergedError(
                f"the loss is {total[bad[0]]} in epoch {epoch + 1}, step {place + 1} of"
                f" {self.problem.steps_per_epoch}; lower the learning rate (it is"
                f" {self.problem.options.optimiser.learning_rate!r}) or the weights of the"
                f" regularisers."
            )

    def _mean_loss(self) -> float:
        return self.progress.sums["triplet"] / self.progress.sums["pairs"]

    def _finish_epoch(self, report: Reporter) -> None:
        """Record the epoch, evaluate it and keep the best points, deferring interrupts."""
        state, epoch = self.progress, len(self.progress.history) + 1
        record = self._record(epoch)
        self._average(epoch)
        looks = epoch == self.schedule.epochs or epoch % self.schedule.every == 0
        if self.validation is not None and looks:
            report.note("validating")
            record.update(self._validate(self.validation))
        if epoch & (epoch - 1) == 0:  # 1, 2, 4, 8 ...: seldom, and for any speed of learning
            record.update(self._look(epoch).to_dict())
        if epoch == 1:
            self._warn_of_missed(int(record["missed"]))
        if "validation_ndcg" in record:
            self._warn_of_a_fall(epoch, record["validation_ndcg"])
        with interrupt_deferred():
            state.history.append(record)
            state.sums = {}
            if self.validation is not None and looks:
                self._compare(epoch, record[f"validation_{self.schedule.metric}"])
        report.epoch(record)
        event = Epoch(epoch, dict(record), self.engine.points)
        for callback in self.callbacks:
            state.stopped |= _is_true(callback(event))
        if self.callbacks:
            state.stopped = bool(self._agreed([state.stopped])[0])

    def _warn_of_missed(self, missed: int) -> None:
        places = self.problem.interactions.n_pairs * self.problem.n_negatives
        if missed > places / 2:
            warn(
                f"{missed:,} of {places:,} places for a negative stayed empty in the first epoch:"
                f" most draws found only items that the user already has, or no item that may be"
                f" drawn. Pairs without a negative do not train the model; use another sampler, or"
                f" more candidates."
            )

    def _look(self, epoch: int) -> diagnostics.Sight:
        return diagnostics.look_at(self.engine, self.validation, epoch)

    def _warn_of_a_fall(self, epoch: int, ndcg: float) -> None:
        state, top = self.progress, self.progress.top_ndcg
        if ndcg < diagnostics.FALLEN * top and not state.warned:
            state.warned = True
            self._warn(
                epoch,
                f"training goes badly: NDCG on the validation part was {top:.4f} and is"
                f" {ndcg:.4f} after epoch {epoch}.",
            )

    def _rank_by_popularity(self) -> Ahead[Evaluation] | None:
        """Begin to evaluate popularity on the validation part, if there is one.

        The first epoch is under way meanwhile. On a first run this compiles what the first
        validation needs.
        """
        train, validation = self.problem.interactions, self.validation
        if validation is None:
            return None
        k, threads = self.schedule.k, self.threads
        return Ahead(lambda: evaluate(MostPopular(train), train, validation, k=k, threads=threads))

    def _compare_with_popularity(self, by_popularity: Evaluation) -> None:
        """Warn if a run that went on long enough never ranked better than popularity does."""
        state = self.progress
        given_up = state.stale == self.schedule.patience
        if state.best is None or state.warned:
            return
        if len(state.history) < _EPOCHS_TO_LEARN and not given_up:
            return
        if state.top_ndcg <= (least := by_popularity.metrics["ndcg"]):
            state.warned = True
            self._warn(
                len(state.history),
                f"NDCG on the validation part reached {state.top_ndcg:.4f}, no more than"
                f" recommending the most popular items ({least:.4f}).",
            )

    def _warn(self, epoch: int, what: str) -> None:
        """Issue a warning with the probable cause and the remedy."""
        why = diagnostics.remedy(self._look(epoch), self.problem)
        warn(f"{what} {why}")

    def _record(self, epoch: int) -> dict[str, float]:
        sums, steps = self.progress.sums, self.problem.steps_per_epoch
        return {
            "epoch": epoch,
            "loss": self._mean_loss(),
            "spread_out": sums["spread_out"] / steps,
            "decorrelate": sums["decorrelate"] / steps,
            "violated": sums["violated"] / sums["pairs"],
            "missed": int(sums["missed"]),
            "seconds": self.progress.seconds,
        }

    def _validate(self, validation: Interactions) -> dict[str, float]:
        train, k, threads = self.problem.interactions, self.schedule.k, self.threads
        if isinstance(self.engine, Collective):
            compared = over_shards(
                self.engine, self.engine.own_points(), validation, self.schedule, threads
            )
            found = compared.metrics(self.weight)
        else:
            found = evaluate(self._scorer(), train, validation, k=k, threads=threads).metrics
        return {f"validation_{name}": found[name] for name in metrics.names()}

    def calibrated(self, points: Float32) -> Calibration:
        """Return gamma and lambda, on the validation part if it has chosen an epoch.

        `points` are all points; in a cluster each process uses those of its rows instead.
        """
        # a run that was interrupted or went astray before its first validation has no best epoch
        validation = None if self.best_points is None else self.validation
        problem, threads, n = self.problem, self.threads, self.problem.n_users
        if isinstance(self.engine, Collective) and validation is not None:
            assert self.best_points is not None
            own = self.engine.own_encoded(self.best_points)
            compared = over_shards(self.engine, own, validation, self.schedule, threads)
            return calibrated_by(compared, problem, threads)
        users, items = points[:n], points[n:]
        return calibrated(problem, users, items, validation, self.schedule, threads)

    def _interrupt_together(self) -> None:
        """Raise KeyboardInterrupt in every process of a cluster if one was interrupted."""
        if not isinstance(self.engine, Collective):
            return
        if self.engine.summed(np.array([float(len(self._interrupts))]))[0] > 0:
            self._stopped_together = True
            raise KeyboardInterrupt

    def _noting_interrupts(self) -> AbstractContextManager[list[Any]]:
        """Let an interrupt wait until all processes of a cluster know of it."""
        return interrupts_noted() if self._together else nullcontext([])

    def acting_together(self) -> AbstractContextManager[None]:
        """Let an interrupt wait for the end of what all processes of a cluster do together."""
        return interrupt_deferred() if self._together else nullcontext()

    @property
    def _together(self) -> bool:
        return isinstance(self.engine, Collective)

    def written_once(self, write: Callable[[], Any], what: str) -> None:
        """Write a file: in a cluster the first process does, and the others wait for it.

        Raises
        ------
        StoreError
            It cannot, which is raised in every process. `what` names the file.
        """
        if not isinstance(self.engine, Collective):
            write()
        else:
            together(self.engine, write if self.engine.rank == 0 else None, what)

    @property
    def in_parts(self) -> bool:
        """Whether the model is saved in parts, one a process; a hybrid is not."""
        return isinstance(self.engine, Collective) and self.problem.content is None

    @property
    def _reports(self) -> bool:
        """Whether this process evaluates, reports and saves; all but one of a cluster do not."""
        return not isinstance(self.engine, Collective) or self.engine.rank == 0

    def _agreed(self, values: Sequence[float]) -> list[float]:
        """Return the values of the first process of a cluster, or the same."""
        if not isinstance(self.engine, Collective):
            return list(values)
        agreed: list[float] = self.engine.agreed(np.array(values, np.float64)).tolist()
        return agreed

    def _scorer(self) -> Scorer:
        """Return a scorer by the current points, on the engine's device."""
        if self.problem.content is not None:
            # all are encoded once, rather than tile by tile
            points, n = self.engine.points(), self.problem.n_users
            return scorer_of(points[:n], points[n:], self.problem.options.geometry, self.weight)
        if not isinstance(self.engine, OnDevice):
            return _Live(self)
        import torch

        from nearfar.search.device_search import DevicePoints  # it imports PyTorch

        n, points = self.problem.n_users, self.engine.points_on_device()
        users, items = points[:n], points[n:]
        on_sphere = self.problem.options.geometry == "sphere"
        offset = None if on_sphere else -0.5 * (items * items).sum(1)
        if self.weight is not None:
            weight = torch.tensor(self.weight, device=items.device)
            offset = weight if offset is None else offset + weight
        return DevicePoints(users, items, offset, device=self.engine.device)

    def _compare(self, epoch: int, value: float) -> None:
        """Keep the points if `value` is the best so far; else count the evaluation as stale."""
        state = self.progress
        if self.schedule.improves(value, state.best):
            state.best, state.best_epoch, state.stale = value, epoch, 0
            self.best_points = self._points_to_keep(self.best_points)
        else:
            state.stale += 1
            state.stopped = state.stale == self.schedule.patience

    def _points_to_keep(self, out: Float32 | None) -> Float32:
        if isinstance(self.engine, Collective):
            return self.engine.own_tables(out)
        if self.problem.content is None:
            return self.engine.points(out=out)
        if out is None:  # without it, the tables may be those that training goes on with
            shape = self.problem.n_table_rows, self.problem.options.dim
            out = np.empty(shape, np.float32)
        return self.engine.tables(out=out)

    def _save(self) -> None:
        if self.checkpoint is not None:
            if isinstance(self.engine, Collective):
                self.checkpoint.save_part(self.engine, self.best_points, vars(self.progress))
            else:
                self.checkpoint.save(self.engine.state, self.best_points, vars(self.progress))


class _Live:
    """Scores by the current points, one tile at a time, without copying the tables."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.n_users, self.n_items = run.problem.n_users, run.problem.n_items

    def score_block(self, rows: Int32, first_item: int, out: Float32) -> None:
        """Score one tile; see `nearfar.search.neighbours.Scorer`."""
        n_rows, n_items = out.shape
        first = self.n_users + first_item
        queries = self.run.engine.points(rows.astype(np.int64))
        targets = self.run.engine.points(np.arange(first, first + n_items))
        weight = self.run.weight
        part = None if weight is None else weight[first_item : first_item + n_items]
        scorer = scorer_of(queries, targets, self.run.problem.options.geometry, part)
        scorer.score_block(np.arange(n_rows, dtype=np.int32), 0, out)


def _is_true(answer: Any) -> bool:
    """Return whether a callback asks to stop: any true value, such as numpy's True."""
    try:
        return bool(answer)
    except (ValueError, TypeError, RuntimeError):  # an array or a table is neither true nor false
        raise OptionError(
            f"A callback must return True to stop, or None; got {said(answer)}."
        ) from None


def _add_in_order(total: float, values: Float64) -> float:
    """Sum one by one, so that the result does not depend on the sizes of the chunks."""
    for value in values.tolist():
        total += value
    return total


def _checked_validation(train: Interactions, validation: Interactions) -> Interactions:
    """Return the validation part without users who have no training interactions."""
    if validation.n_pairs == 0:
        raise EmptyDataError(
            "`validation` leaves no interaction to validate on; use a larger share, or None."
        )
    if not train.has_axes_of(validation):
        raise DataError(
            "`validation` must have the same users and items as the training interactions, in the"
            " same order; split both from one Interactions with nearfar.split, or move it:"
            " validation.aligned(train.user_ids, train.item_ids)."
        )
    new = (train.user_counts == 0) & (validation.user_counts > 0)
    if not new.any():
        return validation
    n, of = np.count_nonzero(new), np.count_nonzero(validation.user_counts)
    told = f"{n:,} of the {of:,} users of the validation part have no training interactions"
    if n == of:
        raise EmptyDataError(f"{told}; nobody is left to validate on. Use another split.")
    warn(f"{told}; they are left out of it.")
    return validation.subset(~new[validation.pair_users()])
