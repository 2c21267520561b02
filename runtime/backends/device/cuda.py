"""What the sampling loop asks of a GPU: memory, copies, and a captured sequence of launches. One stream each.

`CudaDevice` is the real one, through cuda-bindings, without PyTorch. Tests drive the loop on a stand-in with the same
calls.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ...errors import AbsentError, BackendError, install_hint

# What TensorRT asks of the address of a tensor.
ALIGNMENT = 256


@dataclass(frozen=True)
class Buffer:
    """Device memory seen as an array: address in bytes, shape and NumPy dtype."""

    address: int
    shape: tuple[int, ...]
    dtype: str = "float32"

    @property
    def size(self) -> int:
        """Bytes."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def part(self, index: int, stride: int) -> Buffer:
        """Item `index` of a leading axis whose items lie `stride` bytes apart."""
        return Buffer(self.address + index * stride, self.shape[1:], self.dtype)


class Device(Protocol):
    """Memory and one stream of a GPU, used by one thread."""

    stream: int

    def use(self) -> None:
        """Makes it the calling thread's device; before any other call from that thread."""
        ...

    def allocate(self, size: int) -> int:
        """Address of `size` fresh bytes, aligned to `ALIGNMENT`."""
        ...

    def free(self, address: int) -> None:
        """Gives back what `allocate` gave."""
        ...

    def upload(self, target: Buffer, values: NDArray[Any]) -> None:
        """Host to device, in the stream's order; `values` may change afterwards."""
        ...

    def download(self, source: Buffer) -> NDArray[Any]:
        """Device to host, after all that is in the stream."""
        ...

    def capture(self, launches: Callable[[], object]) -> Any:
        """Records what `launches` puts into the stream instead of running it."""
        ...

    def replay(self, graph: Any) -> None:
        """Runs what was captured."""
        ...

    def forget(self, graph: Any) -> None:
        """Gives a captured graph back."""
        ...

    def close(self) -> None:
        """Gives the stream back."""
        ...


class CudaDevice:
    """`Device` on the first CUDA GPU. Copies go through pinned memory that grows to the largest copy.

    Raises:
        AbsentError: no cuda-bindings, or no GPU.
    """

    def __init__(self) -> None:
        cuda = self._cuda = first_gpu()
        # Another thread's allocation must not break this thread's capture.
        self._thread_local = cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._staging, self._staged = 0, 0
        self.use()
        self.stream: int = int(self._call(cuda.cudaStreamCreateWithFlags(cuda.cudaStreamNonBlocking)))

    def use(self) -> None:
        # The current device is a thread's own: a caller's PyTorch may have chosen another.
        self._call(self._cuda.cudaSetDevice(0))
        # ONNX Runtime captures in the global mode: without this its capture in another thread would refuse this one's
        # allocations, and break on them.
        self._call(self._cuda.cudaThreadExchangeStreamCaptureMode(self._thread_local))

    def allocate(self, size: int) -> int:
        return int(self._call(self._cuda.cudaMalloc(max(size, ALIGNMENT))))

    def free(self, address: int) -> None:
        self._call(self._cuda.cudaFree(address))

    def upload(self, target: Buffer, values: NDArray[Any]) -> None:
        data = np.ascontiguousarray(values, target.dtype)
        # What was staged before may still be on its way.
        self._call(self._cuda.cudaStreamSynchronize(self.stream))
        self._pinned(target.size)[:] = data.reshape(-1).view(np.uint8)
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call(self._cuda.cudaMemcpyAsync(target.address, self._staging, target.size, kind, self.stream))

    def download(self, source: Buffer) -> NDArray[Any]:
        staged = self._pinned(source.size)
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call(self._cuda.cudaMemcpyAsync(self._staging, source.address, source.size, kind, self.stream))
        self._call(self._cuda.cudaStreamSynchronize(self.stream))
        return staged.view(source.dtype).reshape(source.shape).copy()

    def capture(self, launches: Callable[[], object]) -> Any:
        self._call(self._cuda.cudaStreamBeginCapture(self.stream, self._thread_local))
        try:
            launches()
        except BaseException:
            # Ends the capture; what broke it is worth more than what ending it says.
            _, graph = self._cuda.cudaStreamEndCapture(self.stream)
            if graph is not None and int(graph):
                self._cuda.cudaGraphDestroy(graph)
            raise
        graph = self._call(self._cuda.cudaStreamEndCapture(self.stream))
        try:
            return self._call(self._cuda.cudaGraphInstantiate(graph, 0))
        finally:
            self._call(self._cuda.cudaGraphDestroy(graph))

    def replay(self, graph: Any) -> None:
        self._call(self._cuda.cudaGraphLaunch(graph, self.stream))

    def forget(self, graph: Any) -> None:
        self._call(self._cuda.cudaGraphExecDestroy(graph))

    def close(self) -> None:
        if self._staging:
            self._call(self._cuda.cudaFreeHost(self._staging))
            self._staging = self._staged = 0
        self._call(self._cuda.cudaStreamDestroy(self.stream))

    def _pinned(self, size: int) -> NDArray[np.uint8]:
        import ctypes

        if size > self._staged:
            if self._staging:
                # A copy may still be reading it.
                self._call(self._cuda.cudaStreamSynchronize(self.stream))
                self._call(self._cuda.cudaFreeHost(self._staging))
                self._staging = self._staged = 0
            self._staging, self._staged = int(self._call(self._cuda.cudaMallocHost(size))), size
        return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(self._staging))

    def _call(self, answer: tuple[Any, ...]) -> Any:
        status, *values = answer
        if int(status) != 0:
            _, text = self._cuda.cudaGetErrorString(status)
            raise BackendError(
                f"CUDA says {status.name}: {text.decode() if isinstance(text, bytes) else text}.",
                "If memory ran out, use smaller batches; `python -m runtime doctor` says what is there.",
            )
        return values[0] if values else None


def first_gpu() -> Any:
    """cuda-bindings' runtime module, with the first GPU as the calling thread's own.

    Raises:
        AbsentError: there is no GPU, or `cuda-bindings` is not installed.
    """
    try:
        from cuda.bindings import runtime as cuda
    except ImportError as error:
        hint = f"{install_hint('gpu')} Or, with TensorRT-RTX: {install_hint('tensorrt-rtx')}"
        raise AbsentError(f"cuda-bindings cannot be imported ({error}).", hint) from None
    status, count = cuda.cudaGetDeviceCount()
    if int(status) == 0 and count:
        (status,) = cuda.cudaSetDevice(0)
    if status.name == "cudaErrorInsufficientDriver" and shutil.which("nvidia-smi"):
        raise BackendError("The NVIDIA driver is older than cuda-bindings.", "Install a newer driver.")
    if int(status) != 0 or not count:
        raise AbsentError(
            f"There is no CUDA GPU here ({status.name}).",
            "Use backend='cpu'; engines for another machine's GPU are built with --flavour rtx --targets sm86,sm89.",
        )
    return cuda


def gpu_name() -> str:
    """Name and compute capability of the first GPU, as engines are tied to it: "NVIDIA L4, sm89".

    Raises:
        AbsentError: as in `first_gpu`.
        BackendError: the driver does not say.
    """
    status, properties = first_gpu().cudaGetDeviceProperties(0)
    if int(status) != 0:
        raise BackendError(f"The driver does not name its GPU ({status.name}).", "Does `nvidia-smi` run?")
    name = properties.name.decode().rstrip("\0") if isinstance(properties.name, bytes) else str(properties.name)
    return f"{name}, sm{properties.major}{properties.minor}"
