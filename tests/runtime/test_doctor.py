"""The doctor's findings, one machine after another."""

import builtins
import sys
from types import SimpleNamespace

import onnxruntime as ort
import pytest

from runtime import doctor
from runtime.backends.tensorrt.installation import Flavour
from runtime.errors import BackendError
from tests.runtime.backends.fake_cuda import FakeCuda, Status


def findings(monkeypatch, *, which=None):
    monkeypatch.setattr(doctor.shutil, "which", lambda _: which)
    return {finding.subject: finding for finding in doctor.examine()}


@pytest.fixture
def cuda(monkeypatch):
    pytest.importorskip("cuda.bindings")
    fake = FakeCuda()
    monkeypatch.setattr("cuda.bindings.runtime", fake)
    return fake


def test_a_gpu_is_named_with_its_driver(monkeypatch, cuda):
    found = findings(monkeypatch)
    assert (found["gpu"].good, found["gpu"].detail) == (True, "NVIDIA L4, sm89")
    assert found["nvidia driver"].good
    assert found["nvidia driver"].detail == "for CUDA up to 13.2; cuda-bindings is for 13.0"


def test_no_gpu_is_in_order(monkeypatch, cuda):
    cuda.fail["count"] = Status(35)
    monkeypatch.setattr("shutil.which", lambda _: None)
    found = findings(monkeypatch)["gpu"]
    assert found.good is None
    assert "no CUDA GPU here (cudaErrorInsufficientDriver)" in found.detail


def test_a_driver_that_is_too_old_is_a_fault(monkeypatch, cuda):
    cuda.fail["count"] = Status(35)
    found = findings(monkeypatch, which="/usr/bin/nvidia-smi")["gpu"]
    assert found.good is False
    assert "The NVIDIA driver is older than cuda-bindings. Install a newer driver." in found.detail


def test_a_driver_that_finds_no_gpu_is_a_fault(monkeypatch, cuda):
    cuda.count = 0
    found = findings(monkeypatch, which="/usr/bin/nvidia-smi")["gpu"]
    assert found.good is False
    assert "nvidia-smi is there, but: There is no CUDA GPU" in found.detail


def test_without_cuda_bindings_the_command_is_said(monkeypatch):
    real = builtins.__import__

    def refuse(name, *rest, **named):
        if name.startswith("cuda"):
            raise ImportError("no cuda")
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", refuse)
    found = findings(monkeypatch)["gpu"]
    assert found.good is None
    assert "pip install '.[gpu]'" in found.detail
    assert "pip install '.[tensorrt-rtx]'" in found.detail


def module(builder):
    logger = type("Logger", (), {"ERROR": 1, "__init__": lambda self, _: None})
    return SimpleNamespace(__version__="10.1", Builder=builder, Logger=logger)


def refusing(_):
    raise RuntimeError("no libnvinfer")


@pytest.mark.parametrize(
    ("builder", "good", "said"),
    [
        (lambda _: object(), True, "10.1: builds engines"),
        (lambda _: None, False, "makes no builder."),
        (refusing, False, "makes no builder (no libnvinfer)"),
    ],
)
def test_tensorrt_is_asked_for_a_builder(monkeypatch, builder, good, said):
    monkeypatch.setattr(doctor, "find_flavour", lambda name: Flavour(name, module(builder)))
    found = findings(monkeypatch)
    for name in ("tensorrt", "rtx"):
        assert found[name].good is good
        assert said in found[name].detail


def test_an_absent_tensorrt_is_in_order_and_says_where_to_get_it(monkeypatch):
    def absent(name):
        raise BackendError("No TensorRT is installed.", "Run `pip install tensorrt`.")

    monkeypatch.setattr(doctor, "find_flavour", absent)
    found = findings(monkeypatch)["tensorrt"]
    assert (found.good, found.detail) == (None, "No TensorRT is installed. Run `pip install tensorrt`.")


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_cuda_provider_that_opens_nothing_is_a_fault(monkeypatch):
    """The CPU's wheel knows the provider's name and lacks its libraries: just what a broken install does."""
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    found = findings(monkeypatch)["cuda provider"]
    assert found.good is False
    assert "does not open the graphs" in found.detail
    assert "pip install '.[gpu]'" in found.detail


def test_a_cuda_provider_that_opens_a_graph_is_good(monkeypatch):
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    monkeypatch.setattr("runtime.backends.onnxruntime.session.open_session", lambda *_: None)
    assert findings(monkeypatch)["cuda provider"].good


def test_both_onnxruntimes_at_once_are_a_fault(monkeypatch):
    monkeypatch.setattr(doctor, "_version", lambda _: "1.32.0")
    found = findings(monkeypatch)["onnxruntime"]
    assert found.good is False
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in found.detail


def test_an_onnxruntime_that_does_not_import_is_a_fault(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    found = findings(monkeypatch)["onnxruntime"]
    assert found.good is False
    assert "cannot be imported" in found.detail
