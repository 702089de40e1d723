"""The exceptions that nearfar raises.

::

    NearfarError
    ├── OptionError        (ValueError)       an option has an invalid value
    ├── DataError          (ValueError)       the input data cannot be used as it is
    │   ├── MissingColumnError                a requested column does not exist
    │   └── EmptyDataError                    no data is left to work with
    ├── UnknownIdError     (LookupError)      a user or item is not in the data or the model
    ├── NotFittedError     (RuntimeError)     the model must be fitted first
    ├── DivergedError      (ArithmeticError)  the loss is no longer a finite number
    ├── StoreError         (OSError)          a saved folder is missing, foreign, damaged or too new
    ├── SourceError        (OSError)          a data set could not be found or downloaded
    ├── ClusterError       (RuntimeError)     another process of a cluster has ended or is silent
    ├── ForkError          (RuntimeError)     a forked process cannot do this; start it by spawn
    └── MissingExtraError  (ImportError)      an optional dependency is not installed

Every message names the option or object, the value it got, what is allowed and, if known, the
remedy. Each class also derives from the built-in exception in parentheses, so code that does not
import nearfar can catch it.

A problem that does not prevent the work from continuing is a `NearfarWarning`.
"""

from __future__ import annotations


class NearfarError(Exception):
    """Base class of the exceptions that nearfar raises."""


class OptionError(NearfarError, ValueError):
    """An option has an invalid value."""


class DataError(NearfarError, ValueError):
    """The input data cannot be used as it is."""


class MissingColumnError(DataError):
    """A requested column does not exist."""


class EmptyDataError(DataError):
    """No data is left to work with."""


class UnknownIdError(NearfarError, LookupError):
    """A user or item is not in the data or the model."""


class NotFittedError(NearfarError, RuntimeError):
    """The model must be fitted first."""


class DivergedError(NearfarError, ArithmeticError):
    """The loss is no longer a finite number."""


class StoreError(NearfarError, OSError):
    """A saved folder is missing, foreign, damaged or too new."""


class SourceError(NearfarError, OSError):
    """A data set could not be found or downloaded."""


class ClusterError(NearfarError, RuntimeError):
    """Another process of a cluster has ended, or does not answer."""


class ForkError(NearfarError, RuntimeError):
    """A forked process cannot do this, because it lacks threads of its parent; use spawn."""


class MissingExtraError(NearfarError, ImportError):
    """An optional dependency is not installed."""


class NearfarWarning(UserWarning):
    """Something is probably not as intended; the work continues."""


def first_line(error: BaseException) -> str:
    """Return the first line of an error of another library, to be quoted in a message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
