"""`CudaDevice`, what names the GPU and what differs between TensorRTs, on a CUDA that is none."""

from types import SimpleNamespace

import numpy as np
import pytest

from runtime.backends.device.cuda import ALIGNMENT, Buffer, CudaDevice, gpu_name
from runtime.backends.tensorrt.installation import Flavour
from runtime.errors import AbsentError, BackendError
from tests.runtime.backends.fake_cuda import FakeCuda, Status

pytest.importorskip("cuda.bindings")


@pytest.fixture
def cuda(monkeypatch):
    fake = FakeCuda()
    monkeypatch.setattr("cuda.bindings.runtime", fake)
    return fake


def test_what_goes_up_comes_down_through_pinned_memory_that_grows(cuda):
    device = CudaDevice()
    rng = np.random.default_rng(0)
    for shape in ((3, 2), (100, 7), (5,)):
        buffer = Buffer(device.allocate(4 * int(np.prod(shape))), shape)
        values = rng.standard_normal(shape).astype(np.float32)
        device.upload(buffer, values)
        np.testing.assert_array_equal(device.download(buffer), values)
        device.free(buffer.address)
    assert cuda.log.count("malloc host") == 2, "a smaller copy uses what is there"
    assert not cuda.memory
    device.close()
    assert not cuda.pinned
    assert cuda.streams == 0


def test_an_upload_waits_until_what_was_staged_before_has_left(cuda):
    device = CudaDevice()
    buffer = Buffer(device.allocate(4), (1,))
    cuda.log.clear()
    device.upload(buffer, np.ones(1, np.float32))
    assert cuda.log.index("synchronize") < cuda.log.index("upload")
    assert cuda.log[-1] == "upload", "the host does not wait for it"
    cuda.log.clear()
    device.download(buffer)
    assert cuda.log == ["download", "synchronize"]


def test_a_device_is_the_first_gpu_and_ignores_captures_of_other_threads(cuda):
    CudaDevice()
    assert cuda.log == ["count", "set", "set", "exchange", "stream"]


def test_a_capture_is_instantiated_replayed_and_given_back(cuda):
    device = CudaDevice()
    cuda.log.clear()
    graph = device.capture(lambda: cuda.log.append("work"))
    device.replay(graph)
    device.forget(graph)
    assert cuda.log == ["begin", "work", "end", "instantiate", "graph destroy", "launch", "exec destroy"]
    assert cuda.graphs == 0


@pytest.mark.parametrize("where", ["instantiate", "work"])
def test_a_capture_that_fails_is_ended_and_leaves_no_graph(cuda, where):
    device = CudaDevice()

    def work():
        if where == "work":
            raise BackendError("enqueue failed.", "...")

    cuda.fail["instantiate"] = Status(2)
    with pytest.raises(BackendError, match="enqueue failed" if where == "work" else "cudaErrorMemoryAllocation"):
        device.capture(work)
    assert "end" in cuda.log
    assert cuda.graphs == 0


def test_running_out_of_memory_is_named(cuda):
    device = CudaDevice()
    cuda.fail["malloc"] = Status(2)
    with pytest.raises(BackendError, match=r"CUDA says cudaErrorMemoryAllocation: out of memory\. .*smaller batches"):
        device.allocate(ALIGNMENT)


def test_without_a_gpu_there_is_no_device(cuda):
    cuda.count = 0
    with pytest.raises(AbsentError, match="no CUDA GPU"):
        CudaDevice()
    cuda.fail["count"] = Status(35)
    with pytest.raises(AbsentError, match=r"no CUDA GPU here \(cudaErrorInsufficientDriver\)"):
        gpu_name()


@pytest.mark.parametrize("name", [b"NVIDIA L4\0\0", "NVIDIA L4"])
def test_a_gpu_is_named_with_its_compute_capability(cuda, name):
    cuda.name = name
    assert gpu_name() == "NVIDIA L4, sm89"
    assert cuda.log.index("set") < cuda.log.index("properties")


@pytest.mark.parametrize(
    ("name", "version", "flags"), [("tensorrt", "10.13.2.6", 4), ("tensorrt", "11.0.0.9", 0), ("rtx", "1.7.1", 0)]
)
def test_only_tensorrt_10_is_told_that_the_graph_holds_the_precision(name, version, flags):
    flag = SimpleNamespace(STRONGLY_TYPED=2)
    assert (
        Flavour(name, SimpleNamespace(__version__=version, NetworkDefinitionCreationFlag=flag)).network_flags == flags
    )
