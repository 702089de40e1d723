"""Every error nearfar raises on purpose.

::

    NearfarError
    ├── OptionError        (ValueError)       an option is out of its range
    ├── DataError          (ValueError)       the input data cannot be used as it is
    │   ├── MissingColumnError                a column that was asked for is not there
    │   └── EmptyDataError                    nothing is left to work with
    ├── UnknownIdError     (LookupError)      a user or item the data or the model does not know
    ├── NotFittedError     (RuntimeError)     the model has to be fitted first
    ├── DivergedError      (ArithmeticError)  the loss is no longer a finite number
    ├── StoreError         (OSError)          a saved folder is missing, foreign, damaged or too new
    ├── SourceError        (OSError)          a data set could not be found or fetched
    └── MissingExtraError  (ImportError)      an optional dependency is not installed

Every message names the thing, the value it got, what it must be and, where it is known, the remedy.
Each class also derives from the built-in error that fits it, so code that knows nothing of nearfar
can still catch it.

What is wrong but can go on is a `NearfarWarning`.
"""

from __future__ import annotations


class NearfarError(Exception):
    """Any error that nearfar raises on purpose."""


class OptionError(NearfarError, ValueError):
    """An option is out of its range."""


class DataError(NearfarError, ValueError):
    """The input data cannot be used as it is."""


class MissingColumnError(DataError):
    """A column that was asked for is not there."""


class EmptyDataError(DataError):
    """Nothing is left to work with."""


class UnknownIdError(NearfarError, LookupError):
    """A user or item that the data or the model does not know."""


class NotFittedError(NearfarError, RuntimeError):
    """The model has to be fitted first."""


class DivergedError(NearfarError, ArithmeticError):
    """The loss is no longer a finite number."""


class StoreError(NearfarError, OSError):
    """A saved folder is missing, foreign, damaged or too new."""


class SourceError(NearfarError, OSError):
    """A data set could not be found or fetched."""


class MissingExtraError(NearfarError, ImportError):
    """An optional dependency is not installed."""


class NearfarWarning(UserWarning):
    """Something is probably not as it was meant, and the work goes on."""
