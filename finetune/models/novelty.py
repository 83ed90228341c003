"""How unlike its training texts a text is to a classifier, by what the classifier's head sees of it."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import local
from typing import Any, Literal, cast, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from finetune.errors import UserError

NOVELTY_FILE = "novelty.safetensors"
"""Beside a model's weights."""
Method = Literal["autoencoder", "mahalanobis"]
METHODS: tuple[Method, ...] = get_args(Method)
Floats = NDArray[np.float64]

_HIDDEN, _CODE = 64, 16
EPOCHS = 200
"""Of an autoencoder, at most."""
_PATIENCE, _BATCH = 5, 128
_LEARNING_RATE = 1e-3
_HELD_OUT = 0.1
"""Of the training texts, the part that says when to stop."""
_TINY = 1e-6
"""Added to deviations: what a head never sees change says nothing. And what rounding may make of equal shares."""


class HeadInputs:
    """What a classifier's last linear layer was given at the last forward pass of this thread, (rows, features)."""

    def __init__(self, model: nn.Module) -> None:
        """Listens to the model from now on.

        Raises:
            UserError: the model does not end in a linear layer with an output for each label.
        """
        layer = last_layer(model)
        if layer is None:
            raise UserError(f"{type(model).__name__} does not end in a linear layer, so novelty cannot be told by it")
        self.size = layer.in_features
        self._seen = local()  # a page asks one model from several threads
        layer.register_forward_pre_hook(self._keep)

    def _keep(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._seen.inputs = inputs[0].detach()

    def last(self) -> Floats:
        found: Tensor = self._seen.inputs
        return cast("Floats", found.double().cpu().numpy())


def last_layer(model: nn.Module) -> nn.Linear | None:
    """The linear layer that gives a classifier's logits; None where the last one has other outputs than labels."""
    labels = len(cast("Any", model).config.id2label)
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    # Beside adapters there is the head that was, too, which is not trained.
    last = next((layer for layer in reversed(layers) if layer.weight.requires_grad), None)
    return last if last is not None and last.out_features == labels else None


@dataclass(frozen=True)
class NoveltyDetector:
    """Fitted on what a classifier's head saw of its training texts; its threshold is from validation texts.

    `autoencoder`: a narrow network that learnt to give back the standardised features; the score is its mean squared
    error. `mahalanobis`: the distance from their mean by their covariance, shrunk as Ledoit and Wolf (2004) say.
    """

    method: Method
    tensors: Mapping[str, Tensor]
    """`mean` and `scale`, (features,); `whitening`, (features, features), or the autoencoder's weights; `ordinary`."""
    false_alarms: float
    """The share of ordinary texts that may be called novel."""

    @property
    def features(self) -> int:
        """How many the head sees of a text."""
        return len(self.tensors["mean"])

    @property
    def ordinary(self) -> Floats:
        """The scores of the validation texts, from the lowest, (rows,)."""
        return self.tensors["ordinary"].double().numpy()

    @property
    def threshold(self) -> float:
        """The share of the validation texts from which on a text is novel, so that `false_alarms` are as rare as asked.

        The least that conformal prediction allows (Vovk, Gammerman and Shafer 2005): ceil((n + 1)(1 - false alarms))
        of n texts must be less novel.
        """
        count = len(self.tensors["ordinary"])
        return _rank(count, self.false_alarms) / (count + 1)

    def scores(self, features: Floats) -> Floats:
        """How novel each text is, (rows,), by what the head saw of it, (rows, features); the unit is the method's."""
        named = self.tensors
        standard = (torch.from_numpy(features).float() - named["mean"]) / named["scale"]
        if self.method == "mahalanobis":
            return cast("Floats", (standard.double() @ named["whitening"].double()).norm(dim=1).numpy())
        with torch.device("meta"):  # no weights are drawn, so that random numbers stay as they are
            network = _autoencoder(self.features)
        network.load_state_dict({name: value for name, value in named.items() if "." in name}, assign=True)
        with torch.inference_mode():
            return cast("Floats", (network(standard) - standard).double().square().mean(dim=1).numpy())

    def shares(self, scores: Floats) -> Floats:
        """Scores -> which share of the validation texts is less novel, (rows,).

        The text itself counts among them, so that none is more novel than all: that cannot be known from a sample.
        """
        ordinary = self.ordinary
        return np.searchsorted(ordinary, scores, side="left") / (len(ordinary) + 1)

    def is_novel(self, shares: Floats) -> NDArray[np.bool_]:
        """Which shares of `shares` reach the threshold, (rows,)."""
        return shares >= self.threshold - _TINY

    def save(self, directory: Path) -> None:
        """Put it beside the model's weights, over one that was there."""
        temporary = directory / f".{NOVELTY_FILE}.unfinished"
        metadata = {"format": "1", "method": self.method, "false_alarms": repr(self.false_alarms)}
        save_file({name: value.contiguous() for name, value in self.tensors.items()}, temporary, metadata)
        temporary.replace(directory / NOVELTY_FILE)


def load_novelty(directory: Path, features: int) -> NoveltyDetector | None:
    """The detector beside a model whose head sees so many features; None where there is none.

    Raises:
        UserError: a file that is damaged, or was made for another model.
    """
    file = directory / NOVELTY_FILE
    if not file.is_file():
        return None
    try:
        with safe_open(file, framework="pt") as stored:
            metadata = stored.metadata() or {}
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118  # no dictionary
        found = NoveltyDetector(cast("Method", metadata.get("method")), tensors, float(metadata["false_alarms"]))
        if found.method not in METHODS or found.features != features:
            raise ValueError(f"{found.method}, {found.features} features")
        found.scores(np.zeros((1, features)))
        if not 0 < found.threshold < 1 or len(found.ordinary) < 1:
            raise ValueError(f"{len(found.tensors['ordinary'])} scores")
    except (SafetensorError, KeyError, ValueError, RuntimeError, IndexError, ZeroDivisionError) as error:
        said = " ".join(str(error).split())
        raise UserError(f"{file}: no novelty detector of this model ({said}); remove it, or fit it again") from None
    return found


def fit_novelty(
    method: Method,
    train: Floats,
    validation: Floats,
    false_alarms: float,
    *,
    seed: int = 0,
    advance: Callable[[int], None] = lambda epochs: None,
) -> NoveltyDetector:
    """Fit on features of training texts, (rows, features), and set the threshold by those of validation texts.

    `advance` hears of the autoencoder's epochs.

    Raises:
        UserError: too few texts of either kind.
    """
    if len(train) < 2 * _BATCH:
        raise UserError(f"{len(train):,} training texts: at least {2 * _BATCH} are needed to say what is ordinary")
    if _rank(len(validation), false_alarms) > len(validation):
        needed = math.ceil(1 / false_alarms) - 1
        raise UserError(
            f"{len(validation):,} validation texts: {needed:,} are needed to call at most {false_alarms:.1%} novel"
        )
    mean, scale = train.mean(axis=0), train.std(axis=0) + _TINY
    tensors = {"mean": torch.from_numpy(mean).float(), "scale": torch.from_numpy(scale).float()}
    standard = (train - mean) / scale
    if method == "mahalanobis":
        from sklearn.covariance import LedoitWolf  # here: slow to load, and reading a detector does without

        precision = LedoitWolf(assume_centered=True).fit(standard).precision_
        tensors["whitening"] = torch.from_numpy(np.linalg.cholesky(precision)).float()
    else:
        tensors |= _fit_autoencoder(torch.from_numpy(standard).float(), seed, advance)
    fitted = NoveltyDetector(method, tensors, false_alarms)
    tensors["ordinary"] = torch.from_numpy(np.sort(fitted.scores(validation)))
    return fitted


def _rank(count: int, share: float) -> int:
    # Rounded: (19 + 1)(1 - 0.05) is a little more than 19 in floating point.
    return math.ceil(round((count + 1) * (1 - share), 9))


def _autoencoder(features: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(features, _HIDDEN),
        nn.GELU(),
        nn.Linear(_HIDDEN, _CODE),
        nn.GELU(),
        nn.Linear(_CODE, _HIDDEN),
        nn.GELU(),
        nn.Linear(_HIDDEN, features),
    )


@contextmanager
def _one_thread() -> Iterator[None]:
    """Of a network of this size the parts are too small to be worth the threads' waiting for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _fit_autoencoder(rows: Tensor, seed: int, advance: Callable[[int], None]) -> dict[str, Tensor]:
    """The weights at which a part that is held out is given back best; by the seed alone."""
    with torch.random.fork_rng(devices=[]), _one_thread():
        torch.manual_seed(seed)
        order = torch.randperm(len(rows))
        held = rows[order[: max(1, round(_HELD_OUT * len(rows)))]]
        rows = rows[order[len(held) :]]
        network = _autoencoder(rows.shape[1])
        optimizer = torch.optim.AdamW(network.parameters(), lr=_LEARNING_RATE)
        least, waited, best = math.inf, 0, network.state_dict()
        for _ in range(EPOCHS):
            for some in torch.randperm(len(rows)).split(_BATCH):
                optimizer.zero_grad()
                nn.functional.mse_loss(network(rows[some]), rows[some]).backward()
                optimizer.step()
            with torch.no_grad():
                loss = float(nn.functional.mse_loss(network(held), held))
            advance(1)
            waited += 1
            if loss < least:
                least, waited = loss, 0
                best = {name: value.clone() for name, value in network.state_dict().items()}
            if waited >= _PATIENCE:
                break
    return best
