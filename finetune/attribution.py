"""Which pieces of a text speak for a prediction: integrated gradients (Sundararajan et al. 2017, arXiv:1703.01365).

On the straight way from the embeddings of a text without content to those of the text, the gradient of the prediction
is summed up for each token. The sums add up to what the text changes in the prediction (completeness), but for what a
finite number of gradients misses, and that is told.
"""

import copy
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from finetune import tasks
from finetune.errors import UserError
from finetune.predict import Classifier

_STEPS = (32, 64, 128, 256)
"""So many gradients are taken, the next number only where the error of the one before is over the tolerance."""
_TOLERANCE = 0.005
"""Of a probability, or of a rating's change where that is more than 1."""
_TOKENS_AT_ONCE = 1024
"""A pass over more would be hardly faster, and a base model keeps up to a megabyte of each for the gradient."""
_JUMP = 0.2
"""So much of the whole change within the first hundredth of the way is a jump."""

Span = tuple[int, int]


@dataclass(frozen=True)
class TokenAttribution:
    """A piece of the text, as small as the tokens let it be: `text[start:end]`, and what it adds to the value."""

    text: str
    start: int
    end: int
    score: float


@dataclass(frozen=True)
class Attribution:
    """A prediction, and which pieces of the text it rests on."""

    label: str | None
    """The label that is explained; None from a rater."""
    value: float
    """Its probability for the text, or the rating."""
    baseline: float
    """The same for a text without content, which has padding in place of every token (for some models, the mask)."""
    tokens: tuple[TokenAttribution, ...]
    """The pieces that were read, in the order of the text; they do not overlap.

    White space is in none of them: tokens of it count for the word behind, at the end of the text for the one before.
    """
    error: float
    """What the scores lack to add up to `value - baseline`."""


def attribute(classifier: Classifier, text: str, label: str | None = None, steps: int | None = None) -> Attribution:
    """How much each piece of a text adds to the probability of `label`, the likeliest if it is None, or to the rating.

    Where a text may have several labels, the probability of each rests on its own logit alone.

    With `steps` so many gradients are taken, otherwise as many as bring the error down to half a percent, up to 256.
    The model itself is only read: others may use it meanwhile.

    Raises:
        UserError: the model has no such label, a text has no tokens, or the model does not embed a text in one table.
    """
    target = _target(classifier, label)
    # With the same settings at every call: a tokenizer that is set anew while another thread uses it raises.
    encoded = classifier.tokenizer(
        [text], truncation=True, max_length=classifier.max_length, return_attention_mask=False
    )
    ids: list[int] = encoded["input_ids"][0]
    if not ids:
        raise UserError("the tokenizer makes no tokens of this text, so there is nothing to predict from")
    spans = _fast_spans(encoded.encodings[0]) if encoded.encodings else _aligned_spans(ids, text, classifier.tokenizer)
    is_given = torch.tensor([place in spans for place in range(len(ids))])
    device = classifier.model.device
    batch = {name: tensor.to(device) for name, tensor in tasks.collate(encoded, classifier.tokenizer).items()}
    # A caller may predict in inference mode, in which there are no gradients.
    with torch.inference_mode(False), torch.no_grad():
        predict = _FromEmbeddings(classifier.model, batch)
        states = predict.embed(batch["input_ids"])
        values = predict(states)[0]
        empty = _without_content(predict, states, values, is_given.to(device), classifier.tokenizer)
        baselines = predict(empty)[0]
        if target is None:
            target = int(values.argmax())
        value, baseline = float(values[target]), float(baselines[target])
        scores, error = [0.0] * len(ids), 0.0
        if spans:
            for count in _STEPS if steps is None else (steps,):
                scores = _integrate(predict, states, empty, target, count)
                error = value - baseline - math.fsum(scores)
                if abs(error) <= _TOLERANCE * max(1.0, abs(value - baseline)):
                    break
    rates = classifier.task == "rate"
    return Attribution(
        label=None if rates else classifier.labels[target],
        value=value,
        baseline=baseline,
        tokens=_pieces(text, [(span, scores[place]) for place, span in spans.items()]),
        error=error,
    )


def _target(classifier: Classifier, label: str | None) -> int | None:
    """Which output is to be explained; None if it is the largest."""
    if classifier.task == "rate":
        if label is not None:
            raise UserError(f"label {label!r}: the model rates, it has no labels")
        return 0
    if label is None:
        return None
    if label not in classifier.labels:
        raise UserError(f"label {label!r}: the model has {', '.join(classifier.labels)}")
    return classifier.labels.index(label)


class _FromEmbeddings:
    """What a model says of a text, as a function of the embeddings of its tokens.

    The ids stay those of the text, for the models that count positions or look for the end by them.
    """

    def __init__(self, model: PreTrainedModel, batch: dict[str, Tensor]) -> None:
        self._model = _twin(model)
        self._batch = batch
        self._given: Tensor | None = None
        self._times_read = 0
        try:
            self.embed: nn.Module = self._model.get_input_embeddings()
        except NotImplementedError:
            raise _not_embedding(model) from None
        self.embed.register_forward_hook(self._give)

    def _give(self, *_: Any) -> Tensor | None:
        self._times_read += 1
        return self._given

    def __call__(self, states: Tensor) -> Tensor:
        """`tasks.probabilities`, (rows, labels), or the rating, (rows, 1), in float64.

        `states` are embeddings of the text, (rows, length, size).
        """
        inputs = {name: tensor.expand(len(states), -1) for name, tensor in self._batch.items()}
        self._given, self._times_read = states, 0
        try:
            logits: Tensor = self._model(**inputs).logits.double()
        finally:
            self._given = None
        if self._times_read != 1:
            raise _not_embedding(self._model)
        return tasks.probabilities(self._model, logits)


def _not_embedding(model: nn.Module) -> UserError:
    return UserError(f"{type(model).__name__} does not read a text by one table of embeddings; it cannot be explained")


def _twin(model: PreTrainedModel) -> PreTrainedModel:
    """The same model with the same weights in memory, but modules of its own, ready for gradients of its inputs.

    A hook on the model itself would also catch the predictions of other threads.
    """
    shared: dict[int, Any] = {id(buffer): buffer for buffer in model.buffers()}
    for parameter in model.parameters():
        shared[id(parameter)] = nn.Parameter(parameter.detach(), requires_grad=False)
    twin = copy.deepcopy(model, shared).eval()
    for module in twin.modules():
        if isinstance(module, nn.RNNBase):
            # cuDNN has gradients of recurrent layers in training mode only, which differs by the dropout.
            module.dropout = 0.0
            module.train()
    return twin


def _without_content(
    predict: _FromEmbeddings, states: Tensor, values: Tensor, is_given: Tensor, tokenizer: PreTrainedTokenizerBase
) -> Tensor:
    """Embeddings with padding in place of the tokens that `is_given` marks, or with the mask if there is a jump.

    The embedding of padding is zero in most models. One that does nothing to embeddings before it normalises them, such
    as DeBERTa, is told everything as soon as they are not, and no number of gradients on the way sees that.
    """
    of_padding, *of_mask = (
        torch.where(is_given.unsqueeze(-1), predict.embed(torch.tensor(token, device=states.device)), states)
        for token in (tokenizer.pad_token_id, tokenizer.mask_token_id)
        if token is not None
    )
    for empty in (of_padding, *of_mask):
        begin, near = predict(empty)[0], predict(empty + 0.01 * (states - empty))[0]
        if (near - begin).abs().max() <= max(_TOLERANCE, _JUMP * float((values - begin).abs().max())):
            return empty
    return of_padding


def _integrate(predict: _FromEmbeddings, states: Tensor, empty: Tensor, target: int, steps: int) -> list[float]:
    """The score of each token of the text, (length,)."""
    # Here and not above: half a second, most of it for drawing.
    from captum.attr import IntegratedGradients

    found: Tensor = IntegratedGradients(predict).attribute(
        states,
        empty,
        target=target,
        n_steps=steps,
        method="gausslegendre",
        internal_batch_size=max(1, _TOKENS_AT_ONCE // states.shape[1]),
    )
    return found[0].double().sum(dim=-1).tolist()


def _fast_spans(encoding: Any) -> dict[int, Span]:
    """Where in the text each token stands, by its place among the tokens; those added to the text are left out."""
    return {
        place: span
        for place, (span, is_added) in enumerate(zip(encoding.offsets, encoding.special_tokens_mask, strict=True))
        if not is_added
    }


def _aligned_spans(ids: Sequence[int], text: str, tokenizer: PreTrainedTokenizerBase) -> dict[int, Span]:
    """`_fast_spans` for a tokenizer in Python, which does not say where its tokens stand: they are looked for.

    Tokens that are not found, among them the unknown ones, share what is left of the text between their neighbours.
    """
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    places = [place for place, token in enumerate(ids) if token not in special]
    lowered = text.lower()
    if len(lowered) != len(text):
        lowered = text
    spans: dict[int, Span] = {}
    lost: list[int] = []
    end = 0
    for place, surface in zip(places, _surfaces([ids[place] for place in places], tokenizer), strict=True):
        span = _find(surface, lowered if surface.islower() else text, end, exactly=not lost)
        if span is None:
            lost.append(place)
            continue
        spans |= dict.fromkeys(lost, (end, span[0])) | {place: span}
        lost, end = [], span[1]
    # The text may go on where the tokens were cut off; an unknown token is a word at most.
    words = list(re.finditer(r"\S+", text[end:]))[: len(lost)]
    return spans | dict.fromkeys(lost, (end, end + words[-1].end() if words else end))


def _surfaces(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> Iterator[str]:
    """What each token adds to the text, with a space before it where it begins a word; empty where it is unknown."""
    tokens = cast("list[str]", tokenizer.convert_ids_to_tokens(list(ids)))
    for place, token in enumerate(tokens):
        before = tokens[max(0, place - 1) : place]
        prefix = tokenizer.convert_tokens_to_string(before) if before else ""
        both: str = tokenizer.convert_tokens_to_string([*before, token])
        is_known = ids[place] != tokenizer.unk_token_id and both.startswith(prefix)
        yield both.removeprefix(prefix) if is_known else ""


def _find(surface: str, text: str, begin: int, *, exactly: bool) -> Span | None:
    """Where a token stands in the text from `begin` on: `exactly` there, spaces apart, or wherever it is first."""
    word = surface.strip()
    if not word:
        return None
    if exactly:
        begin += len(text[begin:]) - len(text[begin:].lstrip())
        return (begin, begin + len(word)) if text.startswith(word, begin) else None
    pattern = re.escape(word)
    # What begins a word is no part of the unknown word before it, if it can be helped.
    found = re.compile(rf"\b{pattern}" if surface[0].isspace() and word[0].isalnum() else pattern).search(text, begin)
    found = found or re.compile(pattern).search(text, begin)
    return None if found is None else found.span()


def _pieces(text: str, scored: Sequence[tuple[Span, float]]) -> tuple[TokenAttribution, ...]:
    """Scored spans of the text, in the order of the tokens -> pieces of it; spans that share characters become one."""
    pieces: list[tuple[int, int, float]] = []
    of_spaces = 0.0
    for (start, end), score in scored:
        while start < end and text[start].isspace():
            start += 1
        while start < end and text[end - 1].isspace():
            end -= 1
        if start == end:
            of_spaces += score
            continue
        score, of_spaces = score + of_spaces, 0.0
        while pieces and start < pieces[-1][1]:
            begun, ended, before = pieces.pop()
            start, end, score = min(begun, start), max(ended, end), before + score
        pieces.append((start, end, score))
    if pieces:
        start, end, score = pieces[-1]
        pieces[-1] = (start, end, score + of_spaces)
    elif scored:
        pieces = [(min(start for (start, _), _ in scored), max(end for (_, end), _ in scored), of_spaces)]
    return tuple(TokenAttribution(text[start:end], start, end, score) for start, end, score in pieces)
