"""A run's classifier as ONNX files for onnxruntime, and how far these agree with the model that was trained."""

import copy
import logging
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from accelerate import Accelerator
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_outputs import SequenceClassifierOutput

from finetune import tasks
from finetune.data import load_splits
from finetune.data.splits import column
from finetune.errors import UserError
from finetune.evaluation import predict_outputs
from finetune.models.recurrent import RecurrentForSequenceClassification
from finetune.predict import Classifier, load_classifier
from finetune.progress import ProgressBar, say
from finetune.recipe import Task
from finetune.run import RunDirectory

FLOAT_FILE = "model.onnx"
INT8_FILE = "model_int8.onnx"
AGREEMENT_FILE = "agreement.json"
TOLERANCE = 1e-4
"""How far a probability of the float file may be from the model's; of a rating, relative to it where it is above 1."""
MOST_ROWS = 2000
_SINGLE_ROWS = 100
"""So many rows are read once more, each by itself: a graph may have learnt the size of its example by heart."""
_BATCH_SIZE = 32
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_MOST_BYTES = 2**31 - 2**24
"""An ONNX file is a Protocol Buffers message, of less than 2 GiB; some room is left for the graph."""
_GATES = {
    "LSTM": (0, 3, 1, 2),  # PyTorch: input, forget, cell, output; ONNX: input, output, forget, cell
    "GRU": (1, 0, 2),  # PyTorch: reset, update, new; ONNX: update, reset, hidden
    "RNN": (0,),
}


def export_run(run: RunDirectory, *, quantize: bool = True) -> dict[str, Any]:
    """Write the classifier or rater of a run to `onnx/` in its directory; returns what `agreement.json` there says.

    `model.onnx` computes in float32. With `quantize`, `model_int8.onnx` has its large weights in 8 bits: embeddings,
    matrix products and LSTMs; onnxruntime has no such GRU or RNN, so theirs stay as they are. Both take `input_ids`,
    `attention_mask` and, of a model that tells them apart, `token_type_ids`, int64 (batch, length), padded on the
    right, and give `logits`, float32 (batch, labels), or of a rater (batch, 1). The tokenizer is the one in `model/`.

    `agreement.json` holds, for each file, absolute differences between its probabilities (or ratings) and the model's,
    over the first test rows. Their labels are not read, so the test split is not scored by it. Each file reads the rows
    in batches of mixed lengths and some of them alone too, and of a row that is read twice the greater difference
    counts. The int8 file rounds activations by the range of a whole batch: a row's result depends on its neighbours.

    What stood in `onnx/` before is replaced when all of it is written, and stays if that fails.

    Raises:
        UserError: the run has no classifier, its data changed, packages are missing, the model cannot be expressed in
            ONNX, the float file differs by more than `TOLERANCE`, or another process exports this run.
    """
    _check_task(run)
    _check_packages()
    with _alone(run):
        return _export(run, quantize=quantize)


def _export(run: RunDirectory, *, quantize: bool) -> dict[str, Any]:
    classifier = load_classifier(str(run.path))
    _check_size(run, classifier.model)
    encoded, fingerprint = _test_rows(run, classifier)
    partial = _hidden(run, "partial")
    shutil.rmtree(partial, ignore_errors=True)  # of an export that was killed
    partial.mkdir()
    try:
        say(f"{run.name}: writing {FLOAT_FILE}")
        _write_float(classifier, partial / FLOAT_FILE, run)
        files = [FLOAT_FILE]
        if quantize:
            say(f"{run.name}: writing {INT8_FILE}")
            _write_int8(partial / FLOAT_FILE, partial / INT8_FILE)
            files.append(INT8_FILE)
        agreement = {
            "split": "test",
            "rows": len(encoded),
            "rows_read_alone": min(len(encoded), _SINGLE_ROWS),
            "rows_fingerprint": fingerprint,
            "of": "rating" if classifier.task == "rate" else "probability",
            "files": _compare(run, classifier, encoded, [partial / name for name in files]),
        }
        run.write_json(partial / AGREEMENT_FILE, agreement)
        _put_in_place(partial, run)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return agreement


def _check_task(run: RunDirectory) -> None:
    recipe = run.recipe()
    match recipe.task:
        case "generate":
            raise UserError(
                f"{run.path}: it writes text, and only classifiers and raters become ONNX files; choose a run of one, "
                "or use this one with `finetune generate`"
            )
        case "masked_lm":
            raise UserError(
                f"{run.path}: a pretrained model has no labels yet, and only classifiers and raters become ONNX files; "
                f"fine-tune it: finetune train RECIPE --model.model_name_or_path {run.model_directory}"
            )
        case _:
            run.trained_model()


def _check_packages() -> None:
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if missing:
        raise UserError(
            f"export to ONNX needs {', '.join(missing)}, not installed; `bash scripts/setup.sh onnx` in a checkout, or "
            f"`pip install {' '.join(missing)}`"
        )


def _check_size(run: RunDirectory, model: PreTrainedModel) -> None:
    size = sum(parameter.nbytes for parameter in model.parameters())
    if size > _MOST_BYTES:
        raise UserError(
            f"{run.path}: {size / 2**30:.1f} GiB of float32 weights, and an ONNX file holds less than 2; choose a "
            "smaller model"
        )


@contextmanager
def _alone(run: RunDirectory) -> Iterator[None]:
    """One export of a run at a time; the lock goes with the process, however it ends."""
    lock = FileLock(_hidden(run, "lock"), timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(f"{run.path}: another process is exporting this run; wait for it") from None
    try:
        yield
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the remarks of torch, onnxscript and onnxruntime on each other: nothing that a user could mend."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    # onnxruntime logs through the root, and a root without a handler is given one, which would stay.
    silence = logging.NullHandler()
    logging.root.addHandler(silence)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.root.removeHandler(silence)
        logging.disable(before)


def _test_rows(run: RunDirectory, classifier: Classifier) -> tuple[datasets.Dataset, str]:
    """The first test rows as the model reads them, without their labels, and the fingerprint of all of them."""
    recipe = run.recipe()
    splits = load_splits(recipe.data, recipe.task)
    fingerprint: str = splits.report["splits"]["test"]["rows_fingerprint"]
    if fingerprint != run.data()["splits"]["test"]["rows_fingerprint"]:
        raise UserError(f"{run.path}: the test rows are no longer those of the run; restore the data it names")
    rows = splits.test.select(range(min(len(splits.test), MOST_ROWS))).remove_columns("label")
    return tasks.encode(rows, classifier.tokenizer, classifier.max_length), fingerprint


@_quiet()
def _write_float(classifier: Classifier, file: Path, run: RunDirectory) -> None:
    """The model's graph in float32, traced on two rows of three tokens whose batch and length stay open."""
    model = classifier.model
    names = ["input_ids", "attention_mask"]
    if "token_type_ids" in classifier.tokenizer.model_input_names:
        names.append("token_type_ids")
    input_ids = torch.full((2, 3), classifier.tokenizer.pad_token_id)
    inputs = {"input_ids": input_ids, "attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0]])}
    inputs["token_type_ids"] = torch.zeros_like(input_ids)
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}
    if isinstance(model, RecurrentForSequenceClassification):
        model = _with_onnx_layers(model)
    try:
        program = torch.onnx.export(
            _Logits(model).eval(),
            kwargs={name: inputs[name] for name in names},
            dynamic_shapes=dict.fromkeys(names, axes),
            input_names=names,
            output_names=["logits"],
            dynamo=True,
            verbose=False,
        )
    except torch.onnx.errors.OnnxExporterError as error:
        cause = error.__cause__ or error
        reason = next((line.strip() for line in str(cause).splitlines() if line.strip()), type(cause).__name__)
        raise UserError(
            f"{run.path}: torch {torch.__version__} cannot write {type(classifier.model).__name__} as ONNX ({reason}); "
            "another version may, or choose a run of another model"
        ) from error
    assert program is not None
    proto = program.model_proto
    _check_axes(proto, classifier, run)
    _forget_origins(proto)
    file.write_bytes(proto.SerializeToString())


def _check_axes(proto: Any, classifier: Classifier, run: RunDirectory) -> None:
    """A model whose code asks for the size of its example may be written for that size, and torch does not say so."""
    for given in proto.graph.input:
        fixed = [axis.dim_value for axis in given.type.tensor_type.shape.dim if not axis.dim_param]
        if fixed:
            raise UserError(
                f"{run.path}: torch {torch.__version__} writes {type(classifier.model).__name__} for {given.name} of "
                f"size {fixed[0]} only; another version may do better, or choose a run of another model"
            )


def _forget_origins(proto: Any) -> None:
    """Take out what the exporter notes beside the graph.

    That is the source lines behind each node, which are paths of the machine and a third of a small file, and shapes
    between the nodes, which readers infer by themselves, and which no longer fit once a weight has been transposed.
    """
    del proto.graph.value_info[:]
    del proto.metadata_props[:]
    for part in (proto.graph, *proto.functions):
        del part.metadata_props[:]
        for node in part.node:
            del node.metadata_props[:]
            node.doc_string = ""
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.initializer):
        del value.metadata_props[:]


class _Logits(nn.Module):
    """A classifier that gives its logits alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        return self.model(input_ids=input_ids, attention_mask=attention_mask, **types).logits


class _OnnxLayer(nn.Module):
    """One direction of one recurrent layer as ONNX's operator, of which torch's exporter has the LSTM and GRU alone.

    Its weights stand in the file as the operator wants them, so that they can be quantized.
    """

    weight: Tensor
    recurrence: Tensor
    bias: Tensor

    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        self.operator = type(layer).__name__
        self.size = layer.hidden_size
        weights = {name: parameter.detach() for name, parameter in layer.named_parameters()}
        biases = [self._arrange(weights[name]) for name in ("bias_ih_l0", "bias_hh_l0")]
        self.register_buffer("weight", self._arrange(weights["weight_ih_l0"]))  # (1, gates * hidden, input)
        self.register_buffer("recurrence", self._arrange(weights["weight_hh_l0"]))  # (1, gates * hidden, hidden)
        self.register_buffer("bias", torch.cat(biases, dim=1))  # (1, 2 * gates * hidden)

    def _arrange(self, parameter: Tensor) -> Tensor:
        """(gates * hidden, ...) in PyTorch's order of gates -> (1, gates * hidden, ...) in ONNX's."""
        gates = parameter.view(-1, self.size, *parameter.shape[1:])
        return gates[list(_GATES[self.operator])].reshape(1, *parameter.shape)

    def forward(self, states: Tensor) -> tuple[Tensor]:
        """(batch, length, input) -> (batch, length, hidden)."""
        attributes: dict[str, Any] = {"hidden_size": self.size}
        if self.operator == "GRU":
            attributes["linear_before_reset"] = 1  # as PyTorch computes it, unlike the paper
        outputs = torch.onnx.ops.symbolic(
            self.operator,
            (states.transpose(0, 1), self.weight, self.recurrence, self.bias),
            attributes,
            dtype=states.dtype,
            shape=(states.shape[1], 1, states.shape[0], self.size),  # (length, directions, batch, hidden)
        )
        return (outputs.squeeze(1).transpose(0, 1),)


def _with_onnx_layers(model: RecurrentForSequenceClassification) -> RecurrentForSequenceClassification:
    """A copy of the model, fit for nothing but to be exported."""
    copied = copy.deepcopy(model)
    for directions in copied.layers:
        assert isinstance(directions, nn.ModuleList)
        for number, layer in enumerate(directions):
            assert isinstance(layer, nn.RNNBase)
            directions[number] = _OnnxLayer(layer)
    return copied


@_quiet()
def _write_int8(source: Path, file: Path) -> None:
    """The same graph with large weights in 8 bits, and activations rounded to 8 within the range that they have."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # Seven of the eight bits: with eight, processors without VNNI instructions overflow and give other results.
    quantize_dynamic(source, file, per_channel=True, reduce_range=True, weight_type=QuantType.QInt8)


class _OnnxModel(nn.Module):
    """A file that onnxruntime runs, called as the model is that it was written from."""

    def __init__(self, file: Path, config: PreTrainedConfig) -> None:
        super().__init__()
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3  # errors
        self.session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        self.config = config

    def forward(self, **inputs: Tensor) -> SequenceClassifierOutput:
        arrays = {name: tensor.numpy() for name, tensor in inputs.items()}
        return SequenceClassifierOutput(logits=torch.from_numpy(self.session.run(["logits"], arrays)[0]))


def _compare(
    run: RunDirectory, classifier: Classifier, encoded: datasets.Dataset, files: list[Path]
) -> dict[str, dict[str, Any]]:
    """How far each file is from the model over encoded rows, by its name.

    Raises:
        UserError: the float file is too far from it.
    """
    rows, alone = len(encoded), min(len(encoded), _SINGLE_ROWS)
    with ProgressBar(f"{run.name}: comparing", rows + len(files) * (rows + alone)) as bar:
        accelerator = Accelerator(cpu=True)
        expected = predict_outputs(
            classifier.model, encoded, classifier.tokenizer, accelerator, _BATCH_SIZE, bar.advance
        )  # (rows, labels)
        compared = {}
        for file in files:
            model = _OnnxModel(file, classifier.model.config)
            together = _outputs(model, encoded, classifier.tokenizer, _BATCH_SIZE, bar.advance)
            single = _outputs(model, encoded.select(range(alone)), classifier.tokenizer, 1, bar.advance)
            differences = np.abs(together - expected)
            differences[:alone] = np.maximum(differences[:alone], np.abs(single - expected[:alone]))
            if file.name == FLOAT_FILE:
                _check_agreement(run, differences, expected, encoded)
            entry = {
                "rows": rows,
                "largest_difference": float(differences.max()),
                "mean_difference": float(differences.mean()),
                "bytes": file.stat().st_size,
            }
            if classifier.task != "rate":
                same = _same_labels(together, expected, classifier.task)
                same[:alone] &= _same_labels(single, expected[:alone], classifier.task)
                entry["same_label"] = float(same.mean())
            compared[file.name] = entry
    return compared


def _same_labels(found: NDArray[np.float64], expected: NDArray[np.float64], task: Task) -> NDArray[np.bool_]:
    """Whether rows get the same label by both probabilities, (rows, labels); all the same, where they have several."""
    if task == "multi_label":
        return ((found >= tasks.THRESHOLD) == (expected >= tasks.THRESHOLD)).all(axis=1)
    return found.argmax(axis=1) == expected.argmax(axis=1)


def _outputs(
    model: nn.Module,
    encoded: datasets.Dataset,
    tokenizer: PreTrainedTokenizerBase,
    batch_size: int,
    advance: Callable[[int], None],
) -> NDArray[np.float64]:
    """`tasks.outputs`, (rows, labels), of rows in their own order, whatever their lengths."""
    columns = encoded.select_columns(tasks.input_columns(encoded))
    parts = []
    for batch in columns.iter(batch_size):
        found = tasks.outputs(model, tasks.collate(batch, tokenizer))
        parts.append(found)
        advance(len(found))
    return np.concatenate(parts)


def _check_agreement(
    run: RunDirectory, differences: NDArray[np.float64], expected: NDArray[np.float64], encoded: datasets.Dataset
) -> None:
    excess = differences / np.maximum(np.abs(expected), 1.0)  # probabilities are not above 1
    row = int(excess.max(axis=1).argmax())
    # Written so that a difference that is not a number fails too.
    if not excess.max() <= TOLERANCE:
        raise UserError(
            f"{run.path}: {FLOAT_FILE} differs from the model by {differences[row].max():.2g} on the row with id "
            f"{column(encoded, 'id')[row]!r}, more than {TOLERANCE:g}; nothing was written. Versions that were tested "
            "together: bash scripts/setup.sh onnx"
        )


def _put_in_place(partial: Path, run: RunDirectory) -> None:
    """Let what is finished take the place of an earlier export."""
    old = _hidden(run, "old")
    shutil.rmtree(old, ignore_errors=True)
    if run.onnx_directory.exists():
        run.onnx_directory.replace(old)
    partial.replace(run.onnx_directory)
    shutil.rmtree(old, ignore_errors=True)


def _hidden(run: RunDirectory, what: str) -> Path:
    """A path beside `onnx/` that no reader of the run looks at."""
    return run.onnx_directory.with_name(f".{run.onnx_directory.name}.{what}")
