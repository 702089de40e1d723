"""Warnings point at the caller's line, from whatever depth and through whatever is between."""

import subprocess
import sys
import textwrap
import warnings
from types import ModuleType

import numpy as np
import pytest

import nearfar as nf
from conftest import PLAIN, random_data
from nearfar.errors import NearfarWarning

INSIDE = """
import contextlib, functools
from nearfar.runtime.caller import warn

class Thing:
    @functools.cached_property
    def cached(self):
        warn("cached")

@contextlib.contextmanager
def managed():
    warn("managed")
    yield

def deep(n):
    return deep(n - 1) if n else warn("deep")

def hands_over(callback):
    return callback()
"""


@pytest.fixture
def inside():
    module = ModuleType("nearfar.made_up")
    exec(compile(INSIDE, "made_up.py", "exec"), module.__dict__)
    return module


def line_of(call):
    """Where a call of the package says that its only warning comes from."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        call()
    ((one),) = said
    assert one.category is NearfarWarning
    return one.filename, one.lineno


def test_any_depth_and_what_is_between_are_passed_over(inside):
    def managed():
        with inside.managed():
            pass

    first = sys._getframe().f_lineno
    calls = [
        lambda: inside.deep(0),
        lambda: inside.deep(9),
        lambda: inside.Thing().cached,
        lambda: inside.hands_over(lambda: inside.deep(3)),
    ]
    for at, call in enumerate(calls, start=first + 2):
        assert line_of(call) == (__file__, at)
    assert line_of(managed) == (__file__, first - 3)


def test_a_line_is_told_once_by_default(inside):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("default")
        for _ in range(3):
            inside.deep(1)
    assert len(said) == 1


def nearly_everything():
    pairs = [(u, i) for u in range(4) for i in range(4) if (u, i) != (3, 3)]
    return nf.Interactions.from_pairs(pairs)


HOT = nf.Triplet(temperature=50.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nf.CML(PLAIN, dim=4).fit(nearly_everything(), epochs=1), "stayed empty"),
        (lambda: nf.CML(dim=4, triplet=HOT).fit(random_data(), epochs=1), "recommended value is"),
        (lambda: slow().fit(random_data(), epochs=10, validation=0.2, k=5), "popular"),
        (lambda: known().partial_fit(random_data(), epochs=1), "recommended value is"),
    ],
    ids=["empty places", "temperature", "popularity", "partial_fit"],
)
def test_warnings_of_public_functions_point_here(call, message):
    with pytest.warns(NearfarWarning, match=message) as said:
        call()
    assert {one.filename for one in said} == {__file__}
    assert {one.lineno for one in said} == {call.__code__.co_firstlineno}


def slow():
    return nf.CML(PLAIN, dim=4, batch=32, optimiser=nf.Adam(1e-9))


def known():
    """A model that is fitted without a warning, and then given another temperature."""
    model = nf.CML(dim=4).fit(random_data(), epochs=1)
    model.options = nf.CML(model.options, triplet=HOT).options
    assert np.isfinite(model.item_vectors).all()
    return model


def test_a_warning_of_an_import_points_at_the_name_that_was_asked_for(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
        import numba, warnings
        njit = numba.njit
        def nowhere(cache=False, **options):
            if cache:
                raise RuntimeError("cannot cache: no locator available")
            return njit(**options)
        numba.njit = nowhere
        import nearfar
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            nearfar.CML
        print({(one.filename, one.lineno) for one in said})
        """)
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == repr({(str(script), 12)})
