"""Tuning: the search for better options on a validation part, with Optuna.

`nearfar.tune` (`nearfar.tuning.tuner`) searches one of the spaces of `nearfar.tuning.spaces` and
returns a `nearfar.tuning.tuned.Tuned`. A trial (`nearfar.tuning.attempts`) is one value for each
parameter of the space; a study (`nearfar.tuning.study`) is all of them, in an SQLite file.
"""
