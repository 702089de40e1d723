"""Compile all that a GPU engine launches without a GPU: `python ahead.py`, one line of JSON a case.

The engine runs in plain torch on the processor. Beside each part its launch in Triton is made with
the same arguments, but only compiled, for the arguments' own alignments, as it would be on an H100.
"""

import json
import re
import sys
from collections import Counter

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from conftest import plain, random_data
from nearfar.engine import Problem
from nearfar.engine.gpu import memory, parts
from nearfar.engine.gpu.gpu_engine import GPUEngine
from nearfar.method.loss import Decorrelate, SpreadOut, Triplet
from nearfar.method.optimiser import SGD, Adagrad
from nearfar.method.sampling import Popularity, Shared, TwoStage, Uniform

STEPS = 3
DATA = random_data(crowded=True)
SOFT, RANK = Triplet(temperature=0.3), Triplet(0.5, rank_weight=True)
CASES = {
    "own": plain(dim=128, negatives=5, batch=64, sampler=Uniform()),
    "popularity": plain(dim=100, negatives=3, batch=32, sampler=Popularity(), triplet=SOFT),
    "spread": plain(dim=33, negatives=70, batch=20, spread_out=SpreadOut(0.1)),
    "ball": plain(dim=32, negatives=3, batch=50, geometry="ball", triplet=SOFT),
    "free": plain(dim=256, negatives=8, batch=64, geometry="free", triplet=RANK),
    "wide": plain(dim=128, negatives=300, batch=8, triplet=SOFT),
    "distinct": plain(
        dim=16, negatives=2, batch=10, sampler=Popularity(distinct=True), optimiser=Adagrad(0.05)
    ),
    "sgd": plain(dim=32, negatives=4, batch=16, optimiser=SGD(0.05), geometry="ball"),
    "two-stage": plain(dim=128, negatives=4, batch=50, sampler=TwoStage(40)),
    "two-stage user": plain(
        dim=128, negatives=4, batch=50, sampler=TwoStage(40, towards="user", sharpness=0.1)
    ),
    "released": plain(
        dim=64, negatives=1, batch=64, sampler=TwoStage(50, released_weight=True),
        geometry="ball", spread_out=SpreadOut(0.1),
    ),
    "shared": plain(dim=128, negatives=48, batch=64, sampler=Shared(), triplet=SOFT),
    "covariance": plain(
        dim=9, negatives=20, batch=30, sampler=Shared(), decorrelate=Decorrelate(1.0)
    ),
    "large": plain(dim=64, negatives=56, batch=10_000, sampler=Shared(0.5), geometry="free"),
}  # fmt: skip


class NoGPU:
    """A driver that knows what to compile for, and has nothing to run it."""

    def get_current_target(self):
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self):
        return 0

    def get_current_stream(self, device=None):
        return 0


def recorded(launched):
    """Let launches only compile, and note down each."""
    compiled = JITFunction.run

    def run(self, *args, grid, warmup, **options):
        kernel = compiled(self, *args, grid=grid, warmup=True, **options)
        kernel = kernel.result() if hasattr(kernel, "result") else kernel
        launched.append((self.__name__, kernel.asm["ptx"]))
        return kernel

    JITFunction.run = run


def beside(name):
    launch, eager = getattr(parts.kernel_parts(), name), getattr(parts.EAGER, name)

    def part(*args):
        launch(*args)
        eager(*args)

    return part


def main():
    driver.set_active(NoGPU())
    memory._MOST_STEPS_ON_HOST = STEPS
    launched = []
    recorded(launched)
    names = [name for name in parts.Parts._fields if name != "captured"]
    both = parts.EAGER._replace(**{name: beside(name) for name in names})
    for case, options in CASES.items():
        for fast in (False, True)[: 1 + (case == "shared")]:
            launched.clear()
            GPUEngine(Problem(DATA, options, horizon=10), device="cpu", parts=both, fast=fast).run(
                STEPS
            )
            ptx = dict(launched)
            found = {
                "case": case,
                "launches": Counter(name for name, _ in launched),
                "wide": {name: len(re.findall(r"\.global\S*\.v4", ptx[name])) for name in ptx},
                "local": [name for name in ptx if re.search(r"(ld|st)\.local", ptx[name])],
            }
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
