"""A frozen encoder says the same of a text in every epoch: its head can be trained on what it said once."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling, SequenceClassifierOutput

from finetune.models.pooled import PooledEncoderForSequenceClassification

_MISFITS = (TypeError, AttributeError, ValueError, RuntimeError, IndexError)
"""What a head raises that looks at more than the first state of a text."""
_TOLERANCE = 1e-5
"""Relative; between logits of the same weights, computed for one text or for several at a time."""


class _Remembered(nn.Module):
    """Stands where an encoder stood, and gives each text's first state as it was computed before."""

    def __init__(self, pooler: nn.Module | None) -> None:
        super().__init__()
        self.pooler = pooler
        self.features: Tensor | None = None

    def forward(self, *_: Any, **__: Any) -> BaseModelOutputWithPooling:
        assert self.features is not None
        states: Any = self.features.unsqueeze(1)  # (batch, 1, hidden)
        pooled = None if self.pooler is None else self.pooler(states)
        return BaseModelOutputWithPooling(last_hidden_state=states, pooler_output=pooled)


class FrozenEncoder(nn.Module):
    """A classifier whose encoder is frozen, cut in two: `features` of a text, and the head, which is this module.

    Of a head over the mean or maximum of all states the features are what it is given; of any other the state of the
    first token, below the pooler where there is one. As a module it has the weights of the head alone, so that they are
    what is optimised and saved; they are the classifier's own, which needs no copying at the end.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.is_pooled = isinstance(model, PooledEncoderForSequenceClassification)
        self._whole = (model,)  # in a tuple, so that it is no part of this module
        base = getattr(model, model.base_model_prefix)
        self.remembered = _Remembered(None if self.is_pooled else getattr(base, "pooler", None))
        heads = {name: child for name, child in model.named_children() if child is not base}
        self.head = nn.ModuleDict(heads)

    @property
    def config(self) -> Any:
        return self._whole[0].config

    @torch.inference_mode()
    def features(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """What the encoder says of each text, (batch, hidden), in its evaluation mode."""
        model: Any = self._whole[0]
        encoder = getattr(model, model.base_model_prefix)
        # It is no part of this module, and whoever looked at the whole model may have left it in training mode.
        encoder.eval()
        states = encoder(**inputs).last_hidden_state
        return model.pool(states, inputs["attention_mask"])[0] if self.is_pooled else states[:, 0]

    def forward(self, features: Tensor, labels: Tensor | None = None) -> Any:
        """The classifier's output for features (batch, hidden)."""
        model: Any = self._whole[0]
        if self.is_pooled:
            return SequenceClassifierOutput(logits=model.classifier(model.dropout(features)))
        prefix = model.base_model_prefix
        encoder = getattr(model, prefix)
        self.remembered.features = features
        try:
            setattr(model, prefix, self.remembered)
            # What the head asks of its inputs is their number of rows at most.
            ids = torch.zeros(features.shape[0], 1, dtype=torch.long, device=features.device)
            return SequenceClassifierOutput(logits=model(input_ids=ids).logits)
        finally:
            setattr(model, prefix, encoder)
            self.remembered.features = None

    def says_the_same(self, inputs: Mapping[str, Tensor]) -> bool:
        """Whether the head on features gives the classifier's logits for `inputs`, but for rounding."""
        model = self._whole[0]
        was_training = model.training
        model.eval()
        try:
            with torch.inference_mode():
                whole, from_features = model(**inputs).logits, self(self.features(inputs)).logits
        except _MISFITS:
            return False
        finally:
            model.train(was_training)
        if whole.shape != from_features.shape:
            return False
        return bool((whole - from_features).abs().max() <= _TOLERANCE * whole.abs().max().clamp(min=1.0))


def can_be_cut(model: PreTrainedModel) -> bool:
    """Whether the head of a frozen model looks at one vector of each text."""
    is_attention = isinstance(model, PooledEncoderForSequenceClassification) and model.attention_pooling is not None
    return not is_attention and hasattr(model, model.base_model_prefix)
