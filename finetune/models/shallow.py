"""Classifiers without recurrence, to compare with: a bag of embeddings and a text CNN, as Hub-format models."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedConfig
from transformers.modeling_outputs import SequenceClassifierOutput

from finetune.models.pooling import AttentionPooling, max_of_states, mean_of_states
from finetune.models.recurrent import FromScratchPreTrainedModel


class ShallowConfig(PreTrainedConfig):
    """The sizes of a bag of embeddings, or with `filters` of a text CNN."""

    model_type = "finetune_shallow"

    def __init__(
        self,
        vocab_size: int = 8000,
        embedding_size: int = 128,
        filters: int = 0,
        kernel_sizes: Sequence[int] = (3, 4, 5),
        pooling: str = "mean",
        dropout: float = 0.3,
        token_dropout: float = 0.0,
        pad_token_id: int = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.vocab_size = vocab_size
        self.pad_token_id = pad_token_id
        self.embedding_size = embedding_size
        self.filters = filters
        self.kernel_sizes = list(kernel_sizes)
        self.pooling = pooling
        self.dropout = dropout
        self.token_dropout = token_dropout


class ShallowForSequenceClassification(FromScratchPreTrainedModel):
    """Embedding, filters over neighbouring tokens if there are any, pooling, dropout, a linear head.

    With filters it is the CNN of Kim 2014 (arXiv:1408.5882): of each filter the maximum over the text. Without, a bag
    of embeddings, which knows nothing of the order of words (Joulin et al. 2017, arXiv:1607.01759).
    """

    config_class = ShallowConfig
    config: ShallowConfig
    base_model_prefix = "shallow"

    def __init__(self, config: ShallowConfig) -> None:
        super().__init__(config)
        self.embedding = nn.Embedding(config.vocab_size, config.embedding_size, padding_idx=config.pad_token_id)
        self.dropout = nn.Dropout(config.dropout)
        kernel_sizes = config.kernel_sizes if config.filters else []
        self.convolutions = nn.ModuleList(
            # Zeros before the first token and after the last: each window that has a token in it counts.
            nn.Conv1d(config.embedding_size, config.filters, size, padding=size - 1)
            for size in kernel_sizes
        )
        size = config.filters * len(kernel_sizes) or config.embedding_size
        self.attention_pooling = AttentionPooling(size) if config.pooling == "attention" else None
        self.classifier = nn.Linear(size, len(config.id2label or {}))
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        **_: Any,
    ) -> SequenceClassifierOutput:
        """Logits (batch, labels) for token ids (batch, length) padded on the right.

        With `output_attentions` and attention pooling, `attentions` has the weights of the tokens, (batch, length).
        """
        if attention_mask is None:
            attention_mask = input_ids.ne(self.config.pad_token_id).long()
        # (batch, length, embedding); a padding token may have an embedding where it ends texts, too.
        states = self.dropout(self._drop_tokens(self.embedding(input_ids)))
        states = states * attention_mask.unsqueeze(-1).to(states.dtype)
        weights = None
        if self.config.filters:
            pooled = torch.cat([self._convolve(layer, states, attention_mask) for layer in self.convolutions], dim=-1)
        elif self.attention_pooling is not None:
            pooled, weights = self.attention_pooling(states, attention_mask)
        else:
            pool = max_of_states if self.config.pooling == "max" else mean_of_states
            pooled = pool(states, attention_mask)
        logits = self.classifier(self.dropout(pooled))
        loss = None if labels is None else self._loss(logits, labels)
        attentions = cast("Any", weights if output_attentions else None)
        return SequenceClassifierOutput(loss=loss, logits=logits, attentions=attentions)

    def _convolve(self, layer: nn.Module, states: Tensor, attention_mask: Tensor) -> Tensor:
        """(batch, length, embedding) -> (batch, filters): of each filter its maximum over windows with a token in."""
        (size,) = cast("nn.Conv1d", layer).kernel_size
        found = torch.relu(layer(states.transpose(1, 2))).transpose(1, 2)  # (batch, length + size - 1, filters)
        # The window that begins with a text's last token is the last that has one of its tokens in.
        return max_of_states(found, nn.functional.pad(attention_mask, (size - 1, 0), value=1))


AutoConfig.register(ShallowConfig.model_type, ShallowConfig, exist_ok=True)
AutoModelForSequenceClassification.register(ShallowConfig, ShallowForSequenceClassification, exist_ok=True)
