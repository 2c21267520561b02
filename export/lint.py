"""Graph lint: what would hurt or break an engine build, said before it, naming the node.

Errors are what TensorRT 10, 11 and RTX cannot parse or would read wrongly; warnings are what costs speed or memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import AttributeProto, NodeProto, TensorProto, helper, numpy_helper, shape_inference

from runtime.bundle import TensorSpec
from runtime.errors import ProjectError

# Operators of the default domain that the ONNX parsers of TensorRT 10, 11 and RTX 1 all take (docs/operators.md of
# onnx-tensorrt 10.x, less those that it lists with restrictions that a data path cannot keep).
SUPPORTED = frozenset(
    """Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization Cast CastLike Ceil Celu
    Clip Concat Constant ConstantOfShape Conv ConvTranspose Cos Cosh CumSum DepthToSpace DequantizeLinear Div Dropout
    Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor Gather GatherElements GatherND Gelu Gemm GlobalAveragePool
    GlobalLpPool GlobalMaxPool Greater GreaterOrEqual GridSample GroupNormalization GRU HardSigmoid HardSwish Identity
    If InstanceNormalization IsInf IsNaN LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax Loop
    LpNormalization LpPool LRN LSTM MatMul Max MaxPool Mean MeanVarianceNormalization Min Mish Mod Mul Neg
    NonMaxSuppression NonZero Not OneHot Or Pad ParametricSoftplus Pow PRelu QuantizeLinear RandomNormal
    RandomNormalLike RandomUniform RandomUniformLike Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp
    ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize ReverseSequence RNN RoiAlign
    Round ScaledTanh Scan ScatterElements ScatterND Selu Shape Shrink Sigmoid Sign Sin Sinh Size Slice Softmax Softplus
    Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh ThresholdedRelu Tile TopK Transpose Trilu Unsqueeze
    Upsample Where Xor""".split()  # noqa: SIM905 (a table of words)
)
_MAX_OPSET = 22
_REFUSED: dict[int, str] = {
    TensorProto.DOUBLE: "float64",
    TensorProto.STRING: "string",
    TensorProto.COMPLEX64: "complex64",
}


@dataclass(frozen=True)
class Finding:
    """One thing found. `breaks`: a build would fail, or give wrong results."""

    node: str
    operator: str
    message: str
    breaks: bool

    def __str__(self) -> str:
        return f"{'error' if self.breaks else 'warning'}: {self.node} ({self.operator}): {self.message}"


class LintError(ProjectError, RuntimeError):
    """A graph that cannot be built; the message names node and operator."""


def lint(proto: onnx.ModelProto, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> list[Finding]:
    """Looks a graph over.

    Args:
        proto: the graph.
        inputs, outputs: what the bundle says of them: names for dynamic axes.

    Returns:
        Findings, errors first.
    """
    try:
        typed = shape_inference.infer_shapes(proto)
    except shape_inference.InferenceError:
        typed = proto  # An operator that ONNX does not know either: it is reported by its name below.
    types = {v.name: v.type.tensor_type for v in (*typed.graph.value_info, *typed.graph.input, *typed.graph.output)}
    types |= {i.name: helper.make_tensor_type_proto(i.data_type, i.dims).tensor_type for i in proto.graph.initializer}
    findings = [*_opset(proto), *_fixed(proto, inputs, outputs)]
    initializers = {i.name: i for i in proto.graph.initializer}
    shapes = _shape_values(proto, set(initializers))
    for node in proto.graph.node:
        findings += _operator(node)
        findings += _dtypes(node, types, shapes)
        if node.op_type == "GridSample":
            findings += _grid_sample(node, types)
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            findings += _quantised(node, initializers, types)
    if not any(finding.breaks for finding in findings):
        findings += _baked_within(proto, inputs)
    return sorted(findings, key=lambda finding: not finding.breaks)


def check(proto: onnx.ModelProto, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> list[Finding]:
    """`lint`, raising `LintError` for what would break a build; returns the warnings."""
    findings = lint(proto, inputs, outputs)
    broken = [str(finding) for finding in findings if finding.breaks]
    if broken:
        raise LintError("The graph cannot become an engine. " + " ".join(broken))
    return findings


def _opset(proto: onnx.ModelProto) -> Iterator[Finding]:
    for opset in proto.opset_import:
        if opset.domain in ("", "ai.onnx") and opset.version > _MAX_OPSET:
            yield Finding(
                "graph", "opset", f"opset {opset.version} is newer than {_MAX_OPSET}, the newest known.", True
            )


def _operator(node: NodeProto) -> Iterator[Finding]:
    if node.domain not in ("", "ai.onnx"):
        yield Finding(node.name, node.op_type, f"the domain {node.domain!r} needs a plugin.", True)
    elif node.op_type not in SUPPORTED:
        yield Finding(node.name, node.op_type, "TensorRT has no such operator: write it with others.", True)
    elif node.op_type.startswith("Scatter") and _text(node, "reduction", "none") != "none":
        yield Finding(node.name, node.op_type, "a reduction while scattering does not parse.", True)


def _shape_values(proto: onnx.ModelProto, constants: set[str]) -> set[str]:
    """Names of what is computed from shapes and constants alone: its int64 never meets the data."""
    known = set(constants) | {""}
    for node in proto.graph.node:
        if node.op_type in ("Shape", "Size", "Constant") or known.issuperset(node.input):
            known.update(node.output)
    return known


def _dtypes(node: NodeProto, types: dict[str, onnx.TypeProto.Tensor], shapes: set[str]) -> Iterator[Finding]:
    for side, names in (("input", node.input), ("output", node.output)):
        for name in names:
            kind = types[name].elem_type if name in types else 0
            if kind in _REFUSED:
                yield Finding(node.name, node.op_type, f"its {side} {name!r} is {_REFUSED[kind]}: use float32.", True)
            elif kind == TensorProto.INT64 and side == "output" and name not in shapes:
                yield Finding(node.name, node.op_type, f"its output {name!r} is int64, in the data path.", False)


def _quantised(
    node: NodeProto, initializers: dict[str, TensorProto], types: dict[str, onnx.TypeProto.Tensor]
) -> Iterator[Finding]:
    """TensorRT's int8 is signed and symmetric, and its biases stay in floating point."""
    zero = initializers.get(node.input[2]) if len(node.input) > 2 else None
    if zero is not None and zero.data_type not in (TensorProto.INT8, TensorProto.FLOAT8E4M3FN, TensorProto.INT4):
        kind = TensorProto.DataType.Name(zero.data_type).lower()
        yield Finding(node.name, node.op_type, f"its zero point is {kind}: only int8 parses.", True)
    elif zero is not None and numpy_helper.to_array(zero).astype(np.float32).any():
        yield Finding(node.name, node.op_type, "its zero point is not 0: quantise symmetrically.", True)
    source = types.get(node.input[0])
    if node.op_type == "DequantizeLinear" and source is not None and source.elem_type == TensorProto.INT32:
        yield Finding(node.name, node.op_type, f"it dequantises int32 {node.input[0]!r}: keep biases in float32.", True)


def _grid_sample(node: NodeProto, types: dict[str, onnx.TypeProto.Tensor]) -> Iterator[Finding]:
    mode = _text(node, "mode", "linear")
    if mode not in ("linear", "bilinear"):
        yield Finding(node.name, node.op_type, f"mode {mode!r}: only linear is known to be read rightly.", True)
    shape = types.get(node.input[0])
    if shape is not None and shape.HasField("shape") and len(shape.shape.dim) != 4:
        yield Finding(node.name, node.op_type, f"rank {len(shape.shape.dim)}: only rank 4 is portable.", True)


def _fixed(proto: onnx.ModelProto, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> Iterator[Finding]:
    """Axes of inputs and outputs that should be dynamic and are constants."""
    for specs, values in ((inputs, proto.graph.input), (outputs, proto.graph.output)):
        found = {value.name: value.type.tensor_type.shape.dim for value in values}
        for spec in specs:
            for axis, size in enumerate(spec.shape):
                if isinstance(size, str) and spec.name in found and found[spec.name][axis].HasField("dim_value"):
                    fixed = found[spec.name][axis].dim_value
                    message = f"axis {axis} is fixed at {fixed} and should be dynamic ({size})."
                    yield Finding(spec.name, "input" if specs is inputs else "output", message, True)


def _baked_within(proto: onnx.ModelProto, inputs: Sequence[TensorSpec]) -> Iterator[Finding]:
    """Runs the graph at sizes that no example had: shapes baked into it then contradict one another."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    sizes: dict[str, int] = {}
    feeds = {}
    for spec in inputs:
        shape = [sizes.setdefault(s, 5 + 6 * len(sizes)) if isinstance(s, str) else s for s in spec.shape]
        feeds[spec.name] = np.zeros(shape, spec.dtype)
    try:
        ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"]).run(None, feeds)
    except Exception as error:  # ONNX Runtime raises a dozen types of its own, none of them public.
        said = ", ".join(f"{name} = {size}" for name, size in sizes.items())
        yield Finding("graph", "shapes", f"it does not run with {said}: {error}", True)


def _text(node: NodeProto, name: str, default: str) -> str:
    for attribute in node.attribute:
        if attribute.name == name and attribute.type == AttributeProto.STRING:
            return attribute.s.decode()
    return default
