"""Names of devices: what is accepted, what is refused, and without PyTorch."""

import subprocess
import sys

import pytest

from nearfar.errors import ForkError, MissingExtraError, OptionError
from nearfar.runtime.devices import (
    describe,
    free_bytes,
    load_torch,
    resolve,
    resolve_ranking,
    torch_device,
)


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


@pytest.fixture
def gpus(torch, monkeypatch):
    """Make PyTorch see so many GPUs."""

    def see(n):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: n > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: n)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU {device.index}")

    return see


@pytest.fixture
def no_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)


def test_importing_the_module_does_not_import_torch():
    asked = "import sys, nearfar.runtime.devices; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", asked], check=False).returncode == 0


@pytest.mark.parametrize("name", ["cpu", "reference"])
def test_own_devices_need_no_torch(no_torch, name):
    assert resolve(name) == describe(name) == name
    assert torch_device(name) is None


def test_gpus_by_their_names(gpus, torch):
    gpus(2)
    assert resolve("auto") == resolve("cuda") == resolve("torch:cuda") == "cuda"
    assert resolve("cuda:1") == resolve("torch:cuda:1") == "cuda:1"
    assert torch_device("cuda:1") == torch.device("cuda", 1)
    assert describe("cuda:1") == "cuda:1 (GPU 1)"


def test_torch_on_another_device(torch):
    assert resolve("torch:cpu") == describe("torch:cpu") == "torch:cpu"
    assert torch_device("torch:cpu") == torch.device("cpu")


def test_auto_is_the_processor_where_there_is_no_gpu(gpus):
    gpus(0)
    assert resolve("auto") == "cpu"


def test_auto_is_the_processor_without_torch(no_torch):
    assert resolve("auto") == "cpu"


@pytest.mark.parametrize("name", ["tpu", "", "CUDA", "cuda:", "cuda:x", "cuda1", "torch:", None, 0])
def test_other_names_are_refused(name):
    wanted = r"`device` must be one of cpu, reference, auto, cuda.*; got " + repr(name)
    with pytest.raises(OptionError, match=wanted):
        resolve(name)


def test_a_gpu_that_is_not_there(gpus):
    gpus(0)
    wanted = "`device` is 'cuda', but PyTorch .* finds no GPU .*; use device='cpu', or 'auto'"
    with pytest.raises(OptionError, match=wanted):
        resolve("cuda")


@pytest.mark.parametrize(("n", "there"), [(1, "1 GPU, cuda:0"), (2, "2 GPUs, cuda:0 to cuda:1")])
def test_an_index_beyond_the_gpus(gpus, n, there):
    gpus(n)
    with pytest.raises(OptionError, match=f"`device` is 'cuda:7', but PyTorch finds {there};"):
        resolve("torch:cuda:7")


@pytest.mark.parametrize("name", ["torch:abacus", "torch:meta"])
def test_a_device_that_torch_cannot_use(torch, name):
    with pytest.raises(OptionError, match=rf"`device` is '{name}', .*cannot use here \(.*\);"):
        resolve(name)


@pytest.mark.parametrize("name", ["cuda", "cuda:1", "torch:cpu"])
def test_without_torch_the_extra_is_named(no_torch, name):
    wanted = rf'device=\'{name}\' needs PyTorch.*`pip install "nearfar\[torch\]"`'
    with pytest.raises(MissingExtraError, match=wanted):
        resolve(name)


def test_ranking_is_not_for_the_reference():
    assert resolve_ranking("cpu") == "cpu"
    with pytest.raises(OptionError, match=r"'reference', which is for training only; rank with"):
        resolve_ranking("reference")


def test_only_a_gpu_says_what_memory_is_left(torch, monkeypatch):
    assert free_bytes(torch.device("cpu")) is None
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100, 1000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 70)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 30)
    assert free_bytes(torch.device("cuda")) == 140


def test_what_asks_for_torch_is_named(no_torch):
    with pytest.raises(MissingExtraError, match=r"^A tune needs PyTorch"):
        load_torch("A tune")
    with pytest.raises(MissingExtraError, match=r"^This needs PyTorch"):
        load_torch()


def test_an_error_inside_torch_is_not_taken_for_its_absence(monkeypatch, tmp_path):
    (tmp_path / "torch.py").write_text("import a_module_that_torch_misses")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    with pytest.raises(ModuleNotFoundError, match="a_module_that_torch_misses"):
        load_torch()


def test_a_process_forked_from_one_that_used_a_gpu(gpus, torch, monkeypatch):
    gpus(1)
    monkeypatch.setattr(torch.cuda, "_is_in_bad_fork", lambda: True)
    assert resolve("auto") == "cpu"
    for name in ("cuda", "torch:cuda:0"):
        with pytest.raises(ForkError, match=r"`device` is 'cuda.*spawn"):
            resolve(name)
