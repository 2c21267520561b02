"""What tests of the device backends share: a device that is none, and inputs of the loop."""

import numpy as np

from runtime.backends.device import ALIGNMENT
from runtime.errors import BackendError
from runtime.noise import draw
from runtime.sampler import sampler_table, trailing_timesteps


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
    alpha, sigma = bundle.schedule
    table = sampler_table(sampler, alpha, sigma, trailing_timesteps(len(alpha), steps))
    shape = (3, 3 * bundle.channels, bundle.resolution, bundle.resolution)
    draws = 1 + steps if table[:, -1].any() else 1
    noise = np.stack([draw(seed + i, shape, draws) for i in range(batch)], axis=1)
    images = np.random.default_rng(seed).uniform(-1, 1, (batch, 3, bundle.image_size, bundle.image_size))
    return images.astype(np.float32), noise, table
