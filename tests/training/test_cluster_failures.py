"""Failures of a cluster: processes and hosts that are killed, links that are cut. All slow.

torchrun runs here as its users run it; a host is a process group, or a network namespace.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid

import numpy as np
import pytest

from conftest import import_path, torch
from nearfar import CML
from nearfar.method.loss import Triplet
from nearfar.method.sampling import Shared
from nearfar.runtime import store
from ranks import ended, start
from training.test_cluster_run import LONG, PLAIN

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(torch is None, reason="PyTorch is not installed"),
]
SCRIPT = """
import os, sys, time, warnings
from datetime import timedelta
warnings.simplefilter("error")
path, checkpoint, out, timeout, stop_at = sys.argv[1:]
sys.path += path.split(os.pathsep)
import numpy as np
from nearfar.engine.cluster import process_group
from nearfar.errors import ClusterError
from training.test_cluster_failures import fitted, stop_in_a_save
rank, start = os.environ["RANK"], os.environ["TORCHELASTIC_RESTART_COUNT"]

def tell(what):
    size, pid = os.environ["WORLD_SIZE"], os.getpid()
    print(f"<{what} {rank} {size} {start} {pid} {time.time()}>", flush=True)

def each_epoch(_):
    tell("epoch")
    time.sleep(0.5)  # long enough to be hit

process_group.TIMEOUT = timedelta(seconds=float(timeout))
if stop_at and rank == "0":
    stop_in_a_save(stop_at, lambda: tell("stopped"))
process_group.join()
tell("joined")
try:
    model = fitted(checkpoint, each_epoch)
except ClusterError:
    tell("noticed")
    raise
np.save(f"{out}/{rank}.npy", np.concatenate([model.user_vectors, model.item_vectors]))
"""
EPOCHS, PATIENCE = 10, 500
"""PATIENCE: seconds after which a test gives up."""


def fitted(checkpoint, each_epoch):
    """Train with a checkpoint after each epoch."""
    triplet = Triplet(0.5, temperature=0.8)
    model = CML(PLAIN, dim=8, batch=512, negatives=20, sampler=Shared(0.5), triplet=triplet)
    return model.fit(
        LONG, epochs=EPOCHS, threads=1, checkpoint=checkpoint, checkpoint_seconds=0.0,
        progress=False, device="cluster", callbacks=[each_epoch],
    )  # fmt: skip


def stop_in_a_save(where, tell):
    """Stop for good in a save after three epochs: half of a part, or of the list, is written."""
    write, saved = store._write, [{"step": 0, "progress": {"history": []}}]

    def stopping(target, parts):
        whole, is_list = b"".join(map(bytes, parts)), target.name == store.MANIFEST
        if len(saved[-1]["progress"]["history"]) >= 3 and is_list == (where == "list"):
            store._temporary(target.parent).write_bytes(whole[: len(whole) // 2])
            print(f"<saved {saved[-1]['step']}>", flush=True)
            tell()
            time.sleep(PATIENCE)
        write(target, parts)
        if is_list:
            saved.append(json.loads(whole)["meta"])

    store._write = stopping


class Torchrun:
    """A running torchrun, with all that it starts in a process group of its own."""

    def __init__(self, folder, *flags, timeout=60, stop_at="", within=(), **environment):
        self.printed = folder / f"{uuid.uuid4().hex}.txt"
        (folder / "fit.py").write_text(SCRIPT)
        out = folder / "out"
        out.mkdir(exist_ok=True)
        words = [import_path(__file__), folder / "run", out, timeout, stop_at]
        command = [*within, sys.executable, "-m", "torch.distributed.run", *flags,
                   folder / "fit.py", *words]  # fmt: skip
        every = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", **environment}
        with self.printed.open("w") as to:
            self.process = subprocess.Popen(
                list(map(str, command)), env=every, start_new_session=True, stdout=to, stderr=to
            )

    def text(self):
        return self.printed.read_text()

    def told(self, what, start=0):
        """Return (rank, number of ranks, pid, time) of each time that a worker has told this."""
        found = re.findall(rf"<{what} (\d+) (\d+) {start} (\d+) ([\d.]+)>", self.text())
        return [(int(rank), int(size), int(pid), float(at)) for rank, size, pid, at in found]

    def until(self, what, start=0, n=1):
        """Wait until workers have told something so many times; return it all."""
        end = time.monotonic() + PATIENCE
        while len(found := self.told(what, start)) < n:
            assert self.process.poll() is None, self.text()
            assert time.monotonic() < end, self.text()
            time.sleep(0.01)
        return found

    def ended(self):
        return self.process.wait(PATIENCE)

    def kill(self):
        """Kill torchrun and its workers, which have process groups of their own."""
        pids = {pid for what in ("joined", "epoch") for start in range(5)
                for _, _, pid, _ in self.told(what, start)}  # fmt: skip
        at = time.time()
        for pid in (self.process.pid, *pids):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        return at


@pytest.fixture
def torchrun():
    """Start torchruns; what is still running at the end is killed."""
    running = []

    def started(*arguments, **options):
        running.append(Torchrun(*arguments, **options))
        return running[-1]

    yield started
    for one in running:
        if one.process.poll() is None:
            one.kill()
            one.process.wait()


ALONE = ("--standalone", "--nproc-per-node", 2)


def points(folder, ranks=2):
    found = [np.load(folder / "out" / f"{rank}.npy") for rank in range(ranks)]
    assert all(np.array_equal(one, found[0]) for one in found)
    return found[0]


def nothing_half_written(folder):
    """Every file of the checkpoint is in its list, which is whole."""
    saved = store.load_folder(folder / "run", kind="checkpoint")
    assert len(list((folder / "run").iterdir())) == 1 + len(saved.arrays)
    return saved.meta["step"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The points of two processes that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole")
    run = Torchrun(folder, *ALONE)
    assert run.ended() == 0, run.text()
    assert nothing_half_written(folder) > 0
    return points(folder)


def test_a_killed_process_is_noticed(tmp_path):
    words = [import_path(__file__), tmp_path / "run", tmp_path, 60, ""]
    running = start(2, SCRIPT, *words, TORCHELASTIC_RESTART_COUNT=0)
    end = time.monotonic() + PATIENCE
    while not (tmp_path / "run" / store.MANIFEST).exists() and time.monotonic() < end:
        time.sleep(0.01)
    at = time.time()
    running[1].kill()
    told, _ = ended(running, (1, -signal.SIGKILL))
    noticed = float(re.search(r"<noticed 0 2 0 \d+ ([\d.]+)>", told)[1])
    print(f"noticed after {noticed - at:.2f} s")
    assert 0 < noticed - at <= 2.0


def test_torchrun_goes_on_after_a_killed_process_with_its_only_restart(torchrun, whole, tmp_path):
    run = torchrun(tmp_path, *ALONE, "--max-restarts", 1)
    killed = next(pid for rank, _, pid, _ in run.until("epoch", n=6) if rank == 1)
    at = time.time()
    os.kill(killed, signal.SIGKILL)
    assert run.ended() == 0, run.text()
    again = run.told("epoch", 1)
    print(f"at work again after {again[0][3] - at:.1f} s")
    assert 0 < len(again) < 2 * EPOCHS  # it did not begin anew
    assert np.array_equal(points(tmp_path), whole)
    nothing_half_written(tmp_path)


@pytest.mark.parametrize("where", ["part", "list"])
def test_rank_0_killed_in_a_save_leaves_the_save_before(where, torchrun, whole, tmp_path):
    run = torchrun(tmp_path, *ALONE, stop_at=where)
    ((_, _, pid, _),) = run.until("stopped")
    os.kill(pid, signal.SIGKILL)
    assert run.ended() != 0
    saved = store.load_folder(tmp_path / "run", kind="checkpoint").meta
    assert f"<saved {saved['step']}>" in run.text()
    assert [file.suffix for file in (tmp_path / "run").iterdir()].count(".tmp") == 1
    again = torchrun(tmp_path, *ALONE)
    assert again.ended() == 0, again.text()
    assert len(again.told("epoch")) == 2 * (EPOCHS - len(saved["progress"]["history"]))
    assert np.array_equal(points(tmp_path), whole)
    nothing_half_written(tmp_path)


def hosts(torchrun, folder, *flags, addresses=("127.0.0.1",) * 2, **options):
    """Start a torchrun for each of two hosts; the first carries the rendezvous."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [
        torchrun(
            folder, *flags, "--nproc-per-node", 1, "--max-restarts", 1, "--rdzv-id", "hosts",
            "--rdzv-backend", "c10d", "--rdzv-endpoint", f"{addresses[0]}:{port}", "--local-addr",
            address, "--rdzv-conf", f"is_host={1 - place}",
            **{name: value[place] for name, value in options.items()},
        )
        for place, address in enumerate(addresses)
    ]  # fmt: skip


def test_a_lost_host_is_gone_on_without(torchrun, whole, tmp_path):
    first, second = hosts(torchrun, tmp_path, "--nnodes", "1:2")
    first.until("epoch", n=3)
    at = second.kill()
    noticed = first.until("noticed")[0][3]
    _, size, _, going = first.until("epoch", start=1)[0]
    print(f"noticed after {noticed - at:.2f} s, alone at work after {going - at:.1f} s")
    assert size == 1
    assert noticed - at <= 2.0
    assert going - at <= 90.0
    assert first.ended() == 0, first.text()
    assert np.sqrt(np.mean((points(tmp_path, 1) - whole) ** 2)) <= 1e-5


def test_without_the_host_of_the_rendezvous_all_end_and_start_again(torchrun, whole, tmp_path):
    first, second = hosts(torchrun, tmp_path, "--nnodes", "1:2")
    second.until("epoch", n=3)
    at = first.kill()
    assert second.ended() != 0
    print(f"ended after {time.time() - at:.1f} s")
    assert second.told("noticed")
    assert "RendezvousConnectionError" in second.text()
    again = torchrun(tmp_path, *ALONE)
    assert again.ended() == 0, again.text()
    assert np.array_equal(points(tmp_path), whole)


# ------------------------------------------------------------------------- two hosts and a link


class Link:
    """Two network namespaces with a limited link between them."""

    def __init__(self):
        self.names = [f"nf{uuid.uuid4().hex[:6]}{side}" for side in "ab"]
        self.addresses = ("10.213.77.1", "10.213.77.2")
        for name in self.names:
            ip("netns", "add", name)
        one, two = self.names
        ip("link", "add", one, "netns", one, "type", "veth", "peer", "name", two, "netns", two)
        for name, address in zip(self.names, self.addresses, strict=True):
            ip("-n", name, "addr", "add", f"{address}/24", "dev", name)
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "link", "set", name, "up")
            limit = ["rate", "200mbit", "burst", "256kb", "latency", "50ms"]
            ip("netns", "exec", name, "tc", "qdisc", "add", "dev", name, "root", "tbf", *limit)

    def cut(self, seconds):
        ip("-n", self.names[0], "link", "set", self.names[0], "down")
        time.sleep(seconds)
        ip("-n", self.names[0], "link", "set", self.names[0], "up")

    def hosts(self, torchrun, folder, *flags, timeout):
        within = [("ip", "netns", "exec", name) for name in self.names]
        return hosts(torchrun, folder, *flags, addresses=self.addresses, within=within,
                     timeout=[timeout] * 2, GLOO_SOCKET_IFNAME=self.names)  # fmt: skip

    def close(self):
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def ip(*words):
    done = subprocess.run(["ip", *words], check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"network namespaces cannot be made here: ip {' '.join(words)}: {done.stderr}")


@pytest.fixture
def link():
    missing = [name for name in ("ip", "tc") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} (iproute2) is not installed")
    made = Link()
    yield made
    made.close()


def test_a_link_cut_for_less_than_the_timeout_heals(torchrun, whole, link, tmp_path):
    both = link.hosts(torchrun, tmp_path, "--nnodes", 2, timeout=60)
    both[0].until("epoch", n=2)
    link.cut(10)
    assert [one.ended() for one in both] == [0, 0], both[0].text() + both[1].text()
    assert len(both[0].told("epoch")) == EPOCHS
    assert np.array_equal(points(tmp_path), whole)


@pytest.mark.parametrize("nodes", ["2", "1:2"])
def test_a_link_cut_for_longer_is_noticed_and_the_hosts_meet_again(
    nodes, torchrun, whole, link, tmp_path
):
    both = link.hosts(torchrun, tmp_path, "--nnodes", nodes, timeout=8)
    both[0].until("epoch", n=2)
    link.cut(20)
    assert [one.ended() for one in both] == [0, 0], both[0].text() + both[1].text()
    for one in both:
        assert "another process of the cluster has ended or cannot be reached" in one.text()
        assert "See its own error. A run with a checkpoint goes on from there" in one.text()
        assert {size for _, size, _, _ in one.told("joined", 1)} == {2}
    assert np.array_equal(points(tmp_path), whole)
