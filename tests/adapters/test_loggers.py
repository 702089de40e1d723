"""Runs as MLflow and TensorBoard keep them, read back by these."""

import warnings

import polars as pl
import pytest

import nearfar as nf
from conftest import checkerboard
from nearfar.adapters.loggers import MLflowLogger, TensorBoardLogger, flat, numbers
from nearfar.errors import OptionError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def trained(logger):
    model = nf.CML(dim=4, batch=8, sampler=nf.Popularity(0.3), negatives=2)
    return model.fit(
        checkerboard(), epochs=4, validation=0.3, every=2, callbacks=[logger], progress=False
    )


@pytest.fixture
def mlflow(tmp_path, monkeypatch):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri((tmp_path / "runs").as_uri())
    yield mlflow
    while mlflow.active_run() is not None:
        mlflow.end_run()


def test_mlflow_keeps_curves_options_and_card(mlflow, tmp_path):
    with mlflow.start_run() as run:
        logger = MLflowLogger()
        model = trained(logger)
        logger.finish(model)
    client = mlflow.MlflowClient()
    for name in ("loss", "validation_ndcg"):
        kept = [(one.step, one.value) for one in client.get_metric_history(run.info.run_id, name)]
        column = model.history.filter(pl.col(name).is_not_null()).select("epoch", name)
        assert kept == column.rows()
    data = client.get_run(run.info.run_id).data
    assert data.params["sampler.beta"] == "0.3"
    assert data.params["dim"] == "4"
    assert data.metrics["best_epoch"] == model.best_epoch
    assert data.metrics["gamma"] == model.gamma
    uri = f"runs:/{run.info.run_id}"
    assert mlflow.artifacts.load_text(f"{uri}/card.md") == model.card()
    file = mlflow.artifacts.download_artifacts(f"{uri}/history.parquet", dst_path=str(tmp_path))
    assert pl.read_parquet(file).equals(model.history)


def test_tensorboard_keeps_curves_options_and_card(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    logger = TensorBoardLogger(tmp_path)
    model = trained(logger)
    logger.finish(model)
    kept = EventAccumulator(str(tmp_path))
    kept.Reload()
    for name in ("loss", "validation_ndcg"):
        column = model.history.filter(pl.col(name).is_not_null()).select("epoch", name)
        found = [(one.step, one.value) for one in kept.Scalars(name)]
        assert [step for step, _ in found] == column["epoch"].to_list()
        assert [v for _, v in found] == pytest.approx(column[name].to_list(), rel=1e-6)
    texts = {
        name: kept.Tensors(f"{name}/text_summary")[0].tensor_proto.string_val[0].decode()
        for name in ("options", "card")
    }
    assert "| sampler.beta | 0.3 |" in texts["options"]
    assert texts["card"] == model.card()


def test_what_is_no_model_is_refused(mlflow, tmp_path):
    for logger in (MLflowLogger(), TensorBoardLogger(tmp_path)):
        with pytest.raises(OptionError, match=r"`model` must be a trained nearfar\.CML; got 3"):
            logger.finish(3)


def test_missing_libraries_are_named(monkeypatch):
    import sys

    for name, logger, extra in (
        ("mlflow", MLflowLogger, "nearfar[mlflow]"),
        ("tensorboard", lambda: TensorBoardLogger("runs"), "nearfar[tensorboard]"),
    ):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(nf.errors.MissingExtraError, match=extra.replace("[", r"\[")):
            logger()


def test_names_of_nested_options():
    assert dict(flat({"a": {"b": {"c": 1}}, "d": None})) == {"a.b.c": 1, "d": None}
    assert dict(numbers({"epoch": 1, "x": float("nan"), "y": 2})) == {"y": 2.0}
