"""A model repository for Triton: its configurations in Triton's own schema, and the loop beside the runtime."""

import hashlib
import importlib.util
import sys
import types
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

import runtime
from export.to_triton import GRAPHS, LOOP, TritonError, make_repository
from runtime.backends.tensorrt.engine_file import EngineKey, engine_path, write_engine
from runtime.bundle import load_bundle

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    folder = tmp_path_factory.mktemp("triton")
    (folder / "other").mkdir()
    make_repository(load_bundle(runtime.default_bundle()), folder)
    return folder


class Tensor:
    def __init__(self, name, values):
        self._name, self._values = name, values

    def name(self):
        return self._name

    def as_numpy(self):
        return self._values


class Request:
    """What `triton_python_backend_utils` has of requests and answers, with the repository's graphs behind it."""

    repository = None
    sessions: dict = {}  # noqa: RUF012

    def __init__(self, model_name="", requested_output_names=(), inputs=()):
        self._model, self._outputs, self._inputs = model_name, requested_output_names, inputs

    def inputs(self):
        return self._inputs

    def exec(self):
        path = str(self.repository / self._model / "1" / "model.onnx")
        session = self.sessions.setdefault(path, None) or ort.InferenceSession(path, providers=["CPUExecutionProvider"])
        self.sessions[path] = session
        found = session.run(list(self._outputs), {t.name(): t.as_numpy() for t in self._inputs})
        return Response([Tensor(name, values) for name, values in zip(self._outputs, found, strict=True)])


class Response:
    def __init__(self, tensors, error=None):
        self.tensors, self._error = tensors, error

    def has_error(self):
        return self._error is not None

    def error(self):
        return self._error


class Failure(Exception):
    def message(self):
        return str(self)


@pytest.fixture
def loop(repository, monkeypatch):
    stub = types.ModuleType("triton_python_backend_utils")
    stub.Tensor, stub.InferenceRequest, stub.InferenceResponse = Tensor, Request, Response
    stub.TritonError = stub.TritonModelException = Failure
    stub.get_output_tensor_by_name = lambda answer, name: next(t for t in answer.tensors if t.name() == name)
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", stub)
    monkeypatch.setattr(Request, "repository", repository)
    spec = importlib.util.spec_from_file_location("loop", repository / "reconstruct" / "1" / "model.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = module.TritonPythonModel()
    model.initialize({"model_repository": str(repository / "reconstruct"), "model_version": "1"})
    return model


def test_the_loop_gives_what_the_runtime_gives(loop):
    image = ROOT / "examples" / "mug.png"
    given = {"SEED": np.array([3]), "STEPS": np.array([2]), "AZIMUTH": np.array([30.0]), "SIZE": np.array([64])}
    content = Tensor("IMAGE", np.array([image.read_bytes()], object))
    (answer,) = loop.execute([Request(inputs=[content, *(Tensor(name, value) for name, value in given.items())])])
    assert not answer.has_error(), answer.error()
    triplane, view = (tensor.as_numpy() for tensor in answer.tensors)
    with runtime.load(precision="float32", backend="cpu") as rt:
        scene = rt.reconstruct(image, seed=3, steps=2)
        np.testing.assert_allclose(triplane, scene.triplane, atol=1e-4)
        expected = scene.render(runtime.Camera.orbit(30), 64, exact=True).to_uint8()
    assert np.abs(view.astype(int) - expected).max() <= 1


def test_what_cannot_be_read_is_an_error_of_its_request(loop):
    good = Request(inputs=[Tensor("IMAGE", np.array([(ROOT / "examples" / "mug.png").read_bytes()], object))])
    bad = Request(inputs=[Tensor("IMAGE", np.array([b"no image"], object))])
    first, second = loop.execute([bad, good])
    assert "cannot be read as an image" in str(first.error())
    assert not second.has_error()


def test_configurations_are_triton_s(repository):
    pb2 = pytest.importorskip("tritonclient.grpc.model_config_pb2", reason="tritonclient is not installed")
    from google.protobuf import text_format

    for name in (*GRAPHS, "reconstruct"):
        config = text_format.Parse((repository / name / "config.pbtxt").read_text(), pb2.ModelConfig())
        assert config.name == name
        if name == "reconstruct":
            assert (repository / name / "1" / "model.py").read_text() == LOOP.read_text()
            assert [tensor.name for tensor in config.output] == ["TRIPLANE", "VIEW"]
            continue
        session = ort.InferenceSession(repository / name / "1" / "model.onnx", providers=["CPUExecutionProvider"])
        for side, actual in ((config.input, session.get_inputs()), (config.output, session.get_outputs())):
            for told, tensor in zip(side, actual, strict=True):
                sizes = [size if isinstance(size, int) else -1 for size in tensor.shape]
                assert list(told.dims) == (sizes[1:] if config.max_batch_size else sizes)
                assert told.name == tensor.name


def test_engines_are_unpacked_and_those_of_others_refused(tmp_path):
    bundle = load_bundle(runtime.default_bundle())

    def build(flavour="tensorrt", change=""):
        for name in GRAPHS:
            graph = bundle.graph("float32", name)
            sizes = [
                [4 if size == "batch" else 64 if isinstance(size, str) else size for size in graph.inputs[0].shape]
            ]
            profile = {graph.inputs[0].name: sizes * 3}
            digest = hashlib.sha256(graph.data).hexdigest() + change
            key = EngineKey(digest, flavour, "10.13", "NVIDIA L4, sm89", profile, {})
            (tmp_path / "engines" / "float32").mkdir(parents=True, exist_ok=True)
            write_engine(engine_path(tmp_path / "engines", "float32", name), key, b"plan of " + name.encode())

    build()
    make_repository(bundle, tmp_path / "models", engines=tmp_path / "engines")
    assert (tmp_path / "models" / "coarse" / "1" / "model.plan").read_bytes() == b"plan of coarse"
    assert "max_batch_size: 4\n" in (tmp_path / "models" / "coarse" / "config.pbtxt").read_text()
    for options, said in (({"flavour": "rtx"}, "TensorRT-RTX"), ({"change": "x"}, "another bundle")):
        build(**options)
        with pytest.raises(TritonError, match=said):
            make_repository(bundle, tmp_path / "models", engines=tmp_path / "engines")


def test_inputs_out_of_range_are_errors_of_their_request(loop):
    image = Tensor("IMAGE", np.array([(ROOT / "examples" / "mug.png").read_bytes()], object))
    for name, value in (("SIZE", 100_000), ("SIZE", 0), ("SEED", -1), ("STEPS", 5000), ("ELEVATION", 500)):
        (answer,) = loop.execute([Request(inputs=[image, Tensor(name, np.array([value]))])])
        assert answer.has_error(), name


def test_what_is_missing_is_said(tmp_path):
    bundle = load_bundle(runtime.default_bundle())
    with pytest.raises(TritonError, match="no engine of coarse"):
        make_repository(bundle, tmp_path, engines=tmp_path)
    with pytest.raises(runtime.OptionError):
        make_repository(bundle, tmp_path, precision="float8")
    assert not list(tmp_path.iterdir())
