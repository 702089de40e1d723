"""The tests of the engines can fail: each of these faults, put into a copy, is found by them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import nearfar

PACKAGE, TESTS = Path(nearfar.__file__).parent, Path(__file__).parent

FAULTS = {
    "positive and negative swapped": (
        "soft.py",
        "inside = real(margin) - real(2.0) * (real(near) - best)",
        "inside = real(margin) - real(2.0) * (best - real(near))",
    ),
    "farthest instead of nearest negative": (
        "soft.py",
        "if not s[r, k] <= best and best == best:",
        "if s[r, k] > -np.inf and (nearest < 0 or s[r, k] < best):",
    ),
    "sign of the user's gradient": (
        "gradients.py",
        "add_difference(total, at, c * inv[n], n, rest * inv[j], j, now.current)",
        "add_difference(total, at, rest * inv[j], j, c * inv[n], n, now.current)",
    ),
    "sign of the positive's gradient, if several pairs read it": (
        "gradients.py",
        "add_difference(total, at, c * inv[j], j, c * inv[i], i, cur)",
        "add_difference(total, at, c * inv[i], i, c * inv[j], j, cur)",
    ),
    "sign of the negative's gradient, if one pair reads it": (
        "gradients.py",
        "set_difference(total, count, f * inv[i], i, f * inv[u], u, cur)",
        "set_difference(total, count, f * inv[u], u, f * inv[i], i, cur)",
    ),
    "temperature ignored in the shares": (
        "soft.py",
        "y = (x[r, k] - top32) * scale32",
        "y = x[r, k] - top32",
    ),
    "sign of a shared negative's own part in its gradient": (
        "shared_step.py",
        "add(total, at, -whole, wide.points, u)",
        "add(total, at, whole, wide.points, u)",
    ),
    "sign of the spread-out gradient": (
        "gradients.py",
        "add(total, at, slope * now.inverse[other], now.current, other)",
        "add(total, at, -slope * now.inverse[other], now.current, other)",
    ),
    "batch transposed": (
        "plan.py",
        "plan.entries[count, 1] = n_users + positives.items[pair]",
        "plan.entries[size - 1 - count, 1] = n_users + positives.items[pair]",
    ),
    "gradient not projected onto the sphere": (
        "rows.py",
        "radial = dot(total, r, cur, u) * inverse * inverse",
        "radial = np.float32(0.0)",
    ),
    "rank weight of all negatives instead of the impostors": (
        "contrast.py",
        "loss.n_items * impostors // max(pair.found, 1)",
        "loss.n_items * pair.found // max(pair.found, 1)",
    ),
    "lazy Adam without the drift": (
        "descent.py",
        "return rule.learning_rate * weight, rule.epsilon * with_eps / weight",
        "return 0.0 * weight, rule.epsilon * with_eps / weight",
    ),
    "drift in the wrong direction": (
        "descent.py",
        "current[at, k] = rows[row, 0, k] - step",
        "current[at, k] = rows[row, 0, k] + step",
    ),
    "known positives not left out": (
        "plan.py",
        "while is_positive(positives, user, item):",
        "while attempt > 0 and is_positive(positives, user, item):",
    ),
    "stage 2 weight upside down": (
        "choose.py",
        "top / gap_of(max(zero, s[r, c]))",
        "gap_of(max(zero, s[r, c])) / np.float32(4.0)",
    ),
    "stage 2 looks at the user instead of the item": (
        "second_stage.py",
        "left_out, anchor = second.n_rows - frozen.shape[0], second.rule.anchor",
        "left_out, anchor = run.learner.rows.shape[0] - frozen.shape[0], 0",
    ),
    "stage 2 looks at the item instead of the user": (
        "second_stage.py",
        "left_out, anchor = second.n_rows - frozen.shape[0], second.rule.anchor",
        "left_out, anchor = run.learner.rows.shape[0] - frozen.shape[0], 1",
    ),
    "negative products cut off towards the user": (
        "choose.py",
        "least=ALL_OTHERS if spec.towards_user else 0.0",
        "least=0.0",
    ),
    "negative products not cut off towards the positive": (
        "choose.py",
        "least=ALL_OTHERS if spec.towards_user else 0.0",
        "least=ALL_OTHERS",
    ),
    "negative products weigh as much as positive ones": (
        "choose.py",
        "gap_of(max(zero, s[r, c]))",
        "gap_of(s[r, c])",
    ),
    "sharpness left out": (
        "choose.py",
        "exp_row(scratch, 0, n, exponent, 0.0, scratch[2])",
        "exp_row(scratch, 0, n, 2.0, 0.0, scratch[2])",
    ),
}


def test_every_fault_is_of_this_code():
    for file, old, new in FAULTS.values():
        assert (PACKAGE / "engine" / "cpu" / file).read_text().count(old) == 1, old
        assert old != new


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_the_cpu_engine_is_found(fault, tmp_path):
    file, old, new = FAULTS[fault]
    shutil.copytree(PACKAGE, tmp_path / "nearfar", ignore=shutil.ignore_patterns("__pycache__"))
    source = tmp_path / "nearfar" / "engine" / "cpu" / file
    source.write_text(source.read_text().replace(old, new))
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider",
         str(TESTS / "test_engine.py"), "-k", "agree or integers or shape"],
        env={**os.environ, "PYTHONPATH": str(tmp_path), "NUMBA_CACHE_DIR": str(tmp_path / "jit")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert run.returncode == 1, run.stdout[-2000:]  # 0: not found; above 1: not a test that failed
    assert "AssertionError" in run.stdout, run.stdout[-2000:]
