"""Writes a Keras model as ONNX, which runs without Keras: the same bytes for the same model."""

import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from src.errors import UserError

if TYPE_CHECKING:
    import keras
    import onnx


def convert(model: "keras.Model", path: Path, origin: Path | None = None) -> None:
    """Writes a Keras model as an ONNX file whose batch size is free.

    Args:
        model: As it was loaded.
        path: Where to write.
        origin: Where the model came from, for an error.

    Raises:
        UserError: If a layer has no counterpart in ONNX.
    """
    import keras
    import onnx

    # Keras exports only what was called once since it was loaded.
    model(keras.tree.map_structure(_blank, model.input))
    _teach_spectra()
    _teach_scalars()
    raw = path.with_name(f"raw.{path.name}")
    try:
        with warnings.catch_warnings():
            # Keras patches its converter, which knows NumPy 1, by asking for a name that NumPy 2 lacks.
            warnings.filterwarnings("ignore", "In the future `np.object`", FutureWarning)
            model.export(raw, format="onnx", verbose=False)
    except (ValueError, RuntimeError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{origin or path}: expected layers that ONNX can express, found: {reason}") from None
    converted = onnx.load(raw)
    raw.unlink()
    normalise(converted)
    onnx.checker.check_model(converted)
    path.write_bytes(converted.SerializeToString(deterministic=True))


def _teach_spectra() -> None:
    """Teaches the converter Fourier transforms: a product with cosines, and one with sines.

    By itself it knows only those whose magnitude is taken at once (tensorflow-onnx, issue 2155), while Keras'
    MelSpectrogram takes the real and the imaginary part.
    """
    from tf2onnx.handler import tf_op
    from tf2onnx.onnx_opset.signal import RFFTOp

    @tf_op("RFFT")
    class Transform(RFFTOp):
        @classmethod
        def version_13(cls, graph: Any, node: Any, **options: Any) -> None:
            """Leaves the transform alone whose parts are taken: nothing needs it once they are there."""
            if not {user.type for user in graph.find_output_consumers(node.output[0])} <= {"Real", "Imag"}:
                super().version_13(graph, node, **options)

    @tf_op(["Real", "Imag"])
    class Part:
        @classmethod
        def version_13(cls, graph: Any, node: Any, **_: Any) -> None:
            """Multiplies frames, (…, length), by a matrix, (length, length // 2 + 1)."""
            frames, length = node.inputs[0].input[0], node.inputs[0].inputs[1].get_tensor_value()[0]
            spectra = np.fft.rfft(np.eye(length))
            waves = (spectra.real if node.type == "Real" else spectra.imag).astype(np.float32)
            matrix = graph.make_const(f"{node.name}/waves", waves).output[0]
            known = {"shapes": [graph.get_shape(node.output[0])], "dtypes": [graph.get_dtype(frames)]}
            graph.remove_node(node.name)
            graph.make_node("MatMul", [frames, matrix], outputs=node.output, **known)


def _teach_scalars() -> None:
    """Teaches the converter's optimizer that a single number added to a convolution is no bias of it.

    MobileNetV3 adds such numbers; the optimizer fails on them, says so at length, and leaves the graph slow.
    """
    from tf2onnx.optimizer.transpose_optimizer import TransposeOptimizer

    handle = TransposeOptimizer._add_handler

    def add(self: Any, transpose: Any, node: Any) -> Any:
        constant = node.inputs[1]
        if constant.is_const() and constant.get_tensor_value(as_list=False).ndim == 0:
            return self._handle_node_having_branches(transpose, node)
        return handle(self, transpose, node)

    if handle.__name__ != add.__name__:
        TransposeOptimizer._add_handler = add


def _blank(tensor: "keras.KerasTensor") -> np.ndarray:
    """Returns zeros that fit an input; a free dimension has one element."""
    return np.zeros([size or 1 for size in tensor.shape], tensor.dtype)


# ── The same bytes for the same model ───────────────────────────────────────────────────────────────────
# The converter takes names from counters of the process and the order of nodes from sets. What a graph
# computes depends on neither, so the nodes are sorted by what they feed, and everything is named anew.


def normalise(model: "onnx.ModelProto") -> None:
    """Renames and reorders a model in place, so that its bytes follow from what it computes."""
    for field in ("doc_string", "metadata_props"):
        model.ClearField(field)
    imports = sorted(model.opset_import, key=lambda opset: opset.domain)
    _replace(model.opset_import, imports)
    names: dict[str, str] = {}
    _sort(model.graph)
    _name(model.graph, names, "")
    _rename(model.graph, names)
    model.graph.name = "model"
    _free_sizes(model.graph)


def _replace(field: object, items: list) -> None:
    """Sets a repeated field of a protocol buffer."""
    copies = [type(item).FromString(item.SerializeToString()) for item in items]
    del field[:]  # type: ignore[attr-defined]
    field.extend(copies)  # type: ignore[attr-defined]


def _graphs(node: "onnx.NodeProto") -> Iterator["onnx.GraphProto"]:
    """Yields the graphs inside a node: the branches of an If, the body of a Loop or Scan."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _needs(node: "onnx.NodeProto") -> list[str]:
    """Returns the values that a node takes, those used in the graphs inside it included."""
    inner = [name for graph in _graphs(node) for child in graph.node for name in _needs(child)]
    results = [value.name for graph in _graphs(node) for value in graph.output]
    return [*node.input, *inner, *results]


def _sort(graph: "onnx.GraphProto") -> None:
    """Sorts nodes so that each follows what it needs, from the outputs back; drops what feeds nothing."""
    for node in graph.node:
        _replace(node.attribute, sorted(node.attribute, key=lambda attribute: attribute.name))
        for inner in _graphs(node):
            _sort(inner)
    _settle_copies(graph)
    makers = {output: node for node in graph.node for output in node.output if output}
    order: list[onnx.NodeProto] = []
    done: set[str] = set()
    stack = [(value.name, False) for value in reversed(graph.output)]
    while stack:
        name, ready = stack.pop()
        node = makers.get(name)
        if node is None or name in done:
            continue
        if ready:
            done.update(node.output)
            order.append(node)
        else:
            stack.append((name, True))
            stack.extend((needed, False) for needed in reversed(_needs(node)))
    _replace(graph.node, order)


def _settle_copies(graph: "onnx.GraphProto") -> None:
    """Lets the first of several equal outputs be the one that is computed, the others its copies.

    Which of them the converter makes an Identity of which depends on the order of a set.
    """
    positions = {value.name: position for position, value in enumerate(graph.output)}
    makers = {output: node for node in graph.node for output in node.output if output}
    for node in graph.node:
        if node.op_type != "Identity" or node.input[0] not in makers:
            continue
        source, copy = node.input[0], node.output[0]
        if positions.get(copy, math.inf) < positions.get(source, -1):
            maker = makers[source]
            for other in graph.node:
                other.input[:] = [copy if name == source else name for name in other.input]
            maker.output[:] = [copy if name == source else name for name in maker.output]
            node.output[:] = [source]
            makers |= {copy: maker, source: node}


def _name(graph: "onnx.GraphProto", names: dict[str, str], prefix: str) -> None:
    """Adds to `names`: inputs and outputs by position, weights by their first use, nodes by their kind."""
    for kind, values in (("input", graph.input), ("output", graph.output)):
        for position, value in enumerate(values):
            new = kind if len(values) == 1 else f"{kind}_{position}"
            names.setdefault(value.name, prefix + new)
    weights = {weight.name: weight for weight in graph.initializer}
    used: list[str] = []
    for position, node in enumerate(graph.node):
        for name in _needs(node):
            if name in weights and name not in used:
                names.setdefault(name, f"{prefix}weight_{len(used)}")
                used.append(name)
        node.name = f"{prefix}{node.op_type}_{position}"
        for number, inner in enumerate(_graphs(node)):
            _name(inner, names, f"{node.name}/{number}/")
        for number, output in enumerate(node.output):
            names.setdefault(output, f"{node.name}:{number}" if number else node.name)
    used += [value.name for value in graph.output if value.name in weights]
    _replace(graph.initializer, [weights[name] for name in used])


def _rename(graph: "onnx.GraphProto", names: dict[str, str]) -> None:
    """Gives a graph, and the graphs inside it, their new names."""
    del graph.value_info[:]
    for field in ("doc_string", "metadata_props"):
        graph.ClearField(field)
    graph.name = "body"
    for value in [*graph.input, *graph.output, *graph.initializer]:
        value.name = names[value.name]
    for node in graph.node:
        node.ClearField("doc_string")
        if not node.domain:  # unset and empty mean the same
            node.ClearField("domain")
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names[name] if name else "" for name in node.output]
        for inner in _graphs(node):
            _rename(inner, names)


def _free_sizes(graph: "onnx.GraphProto") -> None:
    """Names the free dimensions: `batch` the first of each input and output, the others by appearance."""
    names: dict[str, str] = {}
    for value in [*graph.input, *graph.output]:
        shape = value.type.tensor_type.shape.dim
        if shape and not shape[0].HasField("dim_value"):
            shape[0].dim_param = "batch"
    _number(graph, names)


def _number(graph: "onnx.GraphProto", names: dict[str, str]) -> None:
    """Numbers the free dimensions of a graph and of the graphs inside it."""
    for value in [*graph.input, *graph.output]:
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param and size.dim_param != "batch":
                size.dim_param = names.setdefault(size.dim_param, f"size_{len(names) + 1}")
    for node in graph.node:
        for inner in _graphs(node):
            _number(inner, names)
