"""What tests of the device backends share: a device and engines that are none, backends on them, the loop's inputs."""

import numpy as np
import onnxruntime as ort

from runtime.backends.device.backend import DeviceBackend
from runtime.backends.device.cuda import ALIGNMENT, Buffer
from runtime.backends.onnxruntime.cuda import OrtLauncher
from runtime.backends.tensorrt.launcher import TensorRTLauncher
from runtime.bundle import ENGINE_GRAPHS
from runtime.diffusion.plan import SamplingPlan
from runtime.errors import BackendError


class StandIn:
    """Host memory at its real addresses, a stream that runs at once, and a log of every call."""

    stream = 7

    def __init__(self):
        self.memory, self.log, self.recording, self.graphs = {}, [], None, {}
        self.closed, self.fail, self.captured = False, None, 0

    def use(self):
        pass

    def allocate(self, size):
        if self.fail == "allocate" and len(self.memory) == 5:
            raise BackendError("CUDA says out of memory.", "Use smaller batches.")
        raw = np.empty(size + ALIGNMENT, np.uint8)
        raw = raw[-raw.ctypes.data % ALIGNMENT :][:size]
        # Fresh device memory holds anything.
        raw.view(np.float32)[:] = np.nan
        address = raw.ctypes.data
        self.memory[address] = raw
        self.log.append(("allocate", address))
        return address

    def free(self, address):
        del self.memory[address]
        self.log.append(("free", address))

    def view(self, buffer):
        base = max(a for a in self.memory if a <= buffer.address)
        assert buffer.address % ALIGNMENT == 0, "TensorRT refuses such an address"
        start = buffer.address - base
        raw = self.memory[base][start : start + buffer.size]
        assert len(raw) == buffer.size, "beyond the allocation"
        return raw.view(buffer.dtype).reshape(buffer.shape)

    def upload(self, target, values):
        assert self.recording is None, "a copy from the host inside the captured loop"
        self.log.append(("upload", target.address))
        self.view(target)[:] = values

    def download(self, source):
        assert self.recording is None, "a copy to the host inside the captured loop"
        self.log.append(("download", source.address))
        return self.view(source).copy()

    def capture(self, launches):
        if self.fail == "capture":
            raise BackendError("CUDA says operation not permitted.", "...")
        self.recording = []
        launches()
        work, self.recording = self.recording, None
        graph = self.captured = self.captured + 1
        self.graphs[graph] = work
        self.log.append(("capture", graph))
        return graph

    def replay(self, graph):
        self.log.append(("replay", graph))
        for work in self.graphs[graph]:
            work()
        if self.fail == "replay":
            self.view(self.spoiled)[:] = 1

    def forget(self, graph):
        del self.graphs[graph]
        self.log.append(("forget", graph))

    def close(self):
        self.closed = True

    def submit(self, work):
        work() if self.recording is None else self.recording.append(work)


def inputs(bundle, batch, steps, sampler="ddim", seed=0):
    """Images, plan and seeds of a run."""
    plan = SamplingPlan.make(sampler, steps, bundle.schedule, bundle.channels, bundle.resolution)
    images = np.random.default_rng(seed).uniform(-1, 1, (batch, 3, bundle.image_size, bundle.image_size))
    return images.astype(np.float32), plan, list(range(seed, seed + batch))


def stacked(planes):
    """The values of a list of `Planes` as one array."""
    return np.stack([item.values for item in planes])


class Engine:
    """An engine as TensorRT has them, of a graph that ONNX Runtime runs on host memory."""

    def __init__(self, graph, most):
        self.graph, self.most, self.session = graph, most, ort.InferenceSession(graph.data)
        self.names = [spec.name for spec in (*graph.inputs, *graph.outputs)]
        self.num_io_tensors = len(self.names)
        self.get_tensor_name = self.names.__getitem__

    def get_tensor_mode(self, name):
        return "TensorIOMode.INPUT" if name in {s.name for s in self.graph.inputs} else "TensorIOMode.OUTPUT"

    def get_tensor_profile_shape(self, name, _):
        shape = next(s.shape for s in self.graph.inputs if s.name == name)
        return [tuple(k if isinstance(d, str) else d for d in shape) for k in (1, 1, self.most)]

    def create_execution_context(self):
        return Context(self)


class Context:
    def __init__(self, engine):
        self.engine, self.shapes, self.addresses = engine, {}, {}

    def set_input_shape(self, name, shape):
        self.shapes[name] = tuple(shape)

    def set_tensor_address(self, name, address):
        self.addresses[name] = address
        return name in self.engine.names

    def execute_async_v3(self, stream):
        assert stream == StandIn.stream
        device = self.engine.device
        if device.fail == "enqueue":
            return False
        shapes, addresses = dict(self.shapes), dict(self.addresses)
        captured = device.recording is not None

        def work():
            # What was captured on a context is lost when the context takes other shapes.
            assert not captured or self.shapes == shapes
            graph, view = self.engine.graph, device.view
            feeds = {s.name: view(Buffer(addresses[s.name], shapes[s.name])).copy() for s in graph.inputs}
            for spec, value in zip(graph.outputs, self.engine.session.run(None, feeds), strict=True):
                view(Buffer(addresses[spec.name], value.shape))[:] = value

        device.submit(work)
        return True


def made(bundle, kind, largest_batch=2, largest_points=50):
    """A device backend on stand-ins, and the devices that it opens."""
    devices = []

    def device():
        devices.append(StandIn())
        return devices[-1]

    def launcher(opened):
        if kind == "cuda":
            return OrtLauncher(bundle, "float32", opened, "CPUExecutionProvider", "cpu")
        engines = {n: Engine(bundle.graph("float32", n), largest_points) for n in ENGINE_GRAPHS}
        for engine in engines.values():
            engine.device = opened
        return TensorRTLauncher(engines, opened, "Build them again.")

    # An engine's profile ends at the same number for all sizes.
    most = (largest_batch, largest_points, largest_points, largest_points)
    backend = DeviceBackend(kind, bundle, "float32", device, launcher, *most)
    return backend, devices
