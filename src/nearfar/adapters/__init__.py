"""nearfar inside the libraries that people have: each module needs its library installed.

- `nearfar.adapters.lenskit_scorer`: a scorer for LensKit's pipelines and `batch.recommend`.
- `nearfar.adapters.rectools_model`: a model of RecTools, for its datasets and cross-validation.
- `nearfar.adapters.loggers`: callbacks of `CML.fit` that write to MLflow and TensorBoard.

scikit-learn's `clone` and `ParameterGrid` need nothing: see `nearfar.CML.get_params`.
"""
