"""cuda-bindings' runtime module on host memory: one GPU that copies with memmove and writes down what it is told."""

import ctypes
from types import SimpleNamespace

import numpy as np


class Status(int):
    name = property(
        lambda self: {0: "cudaSuccess", 2: "cudaErrorMemoryAllocation", 35: "cudaErrorInsufficientDriver"}[self]
    )


OK = Status(0)


class FakeCuda:
    """Attributes: log of calls that matter; fail, a call's name to its status; memory and pinned, what is held."""

    cudaStreamNonBlocking = 1
    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal="thread-local")

    def __init__(self, name=b"NVIDIA L4", capability=(8, 9), driver=13020, count=1):
        self.log, self.fail, self.memory, self.pinned, self.streams, self.graphs = [], {}, {}, {}, 0, 0
        self.name, self.capability, self.driver, self.count = name, capability, driver, count

    def _said(self, call, *values):
        self.log.append(call)
        return (self.fail[call], *[None] * len(values)) if call in self.fail else (OK, *values)

    def cudaGetDeviceCount(self):
        return self._said("count", self.count)

    def cudaSetDevice(self, index):
        assert index == 0
        return self._said("set")

    def cudaGetDeviceProperties(self, index):
        return self._said(
            "properties", SimpleNamespace(name=self.name, major=self.capability[0], minor=self.capability[1])
        )

    def cudaDriverGetVersion(self):
        return OK, self.driver

    def cudaRuntimeGetVersion(self):
        return OK, 13000

    def cudaGetErrorString(self, status):
        return OK, b"out of memory"

    def cudaThreadExchangeStreamCaptureMode(self, mode):
        assert mode == "thread-local"
        return self._said("exchange", "global")

    def cudaStreamCreateWithFlags(self, flags):
        self.streams += flags
        return self._said("stream", 77)

    def cudaStreamDestroy(self, stream):
        self.streams -= 1
        return self._said("destroy")

    def cudaStreamSynchronize(self, stream):
        assert stream == 77
        return self._said("synchronize")

    def _allocate(self, held, size):
        raw = np.zeros(size, np.uint8)
        held[raw.ctypes.data] = raw
        return raw.ctypes.data

    def cudaMalloc(self, size):
        if "malloc" in self.fail:
            return self._said("malloc", 0)
        return self._said("malloc", self._allocate(self.memory, size))

    def cudaFree(self, address):
        del self.memory[address]
        return self._said("free")

    def cudaMallocHost(self, size):
        return self._said("malloc host", self._allocate(self.pinned, size))

    def cudaFreeHost(self, address):
        del self.pinned[address]
        return self._said("free host")

    def cudaMemcpyAsync(self, target, source, size, kind, stream):
        host, device = (source, target) if kind == 1 else (target, source)
        assert any(a <= host and host + size <= a + len(raw) for a, raw in self.pinned.items()), "not pinned"
        assert any(a <= device and device + size <= a + len(raw) for a, raw in self.memory.items()), "not on the device"
        ctypes.memmove(target, source, size)
        return self._said("upload" if kind == 1 else "download")

    def cudaStreamBeginCapture(self, stream, mode):
        assert (stream, mode) == (77, "thread-local")
        return self._said("begin")

    def cudaStreamEndCapture(self, stream):
        self.graphs += 1
        return self._said("end", 5)

    def cudaGraphInstantiate(self, graph, flags):
        return self._said("instantiate", 6)

    def cudaGraphDestroy(self, graph):
        assert graph == 5
        self.graphs -= 1
        return self._said("graph destroy")

    def cudaGraphLaunch(self, graph, stream):
        assert (graph, stream) == (6, 77)
        return self._said("launch")

    def cudaGraphExecDestroy(self, graph):
        assert graph == 6
        return self._said("exec destroy")
