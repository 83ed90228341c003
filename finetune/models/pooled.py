"""A pretrained encoder whose head sees the mean, the maximum or a learnt mean of all states, as a Hub-format model."""

import inspect
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from finetune.models.pooling import AttentionPooling, max_of_states, mean_of_states


class PooledEncoderConfig(PreTrainedConfig):
    """The encoder's own configuration, and what its head sees: `pooling` is mean, max or attention."""

    model_type = "finetune_pooled_encoder"
    sub_configs: ClassVar[dict[str, Any]] = {"encoder": AutoConfig}

    def __init__(
        self,
        encoder: PreTrainedConfig | dict[str, Any] | None = None,
        pooling: str = "mean",
        head_dropout: float = 0.1,
        **kwargs: Any,
    ) -> None:
        if isinstance(encoder, dict):
            values = dict(encoder)
            encoder = AutoConfig.for_model(values.pop("model_type"), **values)
        self.encoder = encoder
        self.pooling = pooling
        self.head_dropout = head_dropout
        super().__init__(**kwargs)


class PooledEncoderForSequenceClassification(PreTrainedModel):
    """Any encoder of transformers, pooling over all its states, dropout, a linear head."""

    config_class = PooledEncoderConfig
    config: PooledEncoderConfig
    base_model_prefix = "encoder"
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True

    def __init__(self, config: PooledEncoderConfig, encoder: PreTrainedModel | None = None) -> None:
        super().__init__(config)
        inner = config.encoder
        assert isinstance(inner, PreTrainedConfig)
        self.encoder = encoder if encoder is not None else AutoModel.from_config(inner, **without_pooler(inner))
        self.attention_pooling = AttentionPooling(inner.hidden_size) if config.pooling == "attention" else None
        self.dropout = nn.Dropout(config.head_dropout)
        self.classifier = nn.Linear(inner.hidden_size, len(config.id2label or {}))
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Of the head alone: the encoder begins its own."""
        if isinstance(module, nn.Linear) and not getattr(module.weight, "_is_hf_initialized", False):
            nn.init.normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        **_: Any,
    ) -> SequenceClassifierOutput:
        """Logits (batch, labels) for token ids (batch, length).

        With `output_attentions` and attention pooling, `attentions` has the weights of the tokens, (batch, length).
        """
        given = input_ids if input_ids is not None else inputs_embeds
        assert given is not None
        if attention_mask is None:
            attention_mask = torch.ones(given.shape[:2], dtype=torch.long, device=given.device)
        inputs: dict[str, Any] = {"attention_mask": attention_mask}
        named = {"input_ids": input_ids, "token_type_ids": token_type_ids, "inputs_embeds": inputs_embeds}
        inputs |= {name: value for name, value in named.items() if value is not None}
        states = self.encoder(**inputs).last_hidden_state  # (batch, length, hidden)
        pooled, weights = self.pool(states, attention_mask)
        logits = self.classifier(self.dropout(pooled))
        loss = None if labels is None else self._loss(logits, labels)
        attentions = cast("Any", weights if output_attentions else None)
        return SequenceClassifierOutput(loss=loss, logits=logits, attentions=attentions)

    def pool(self, states: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor | None]:
        """(batch, length, hidden) -> (batch, hidden), and of attention the weights, (batch, length)."""
        if self.attention_pooling is not None:
            return cast("tuple[Tensor, Tensor]", self.attention_pooling(states, attention_mask))
        pool = max_of_states if self.config.pooling == "max" else mean_of_states
        return pool(states, attention_mask), None

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        match self.config.problem_type:
            case "regression":
                return nn.functional.mse_loss(logits.squeeze(-1), labels)
            case "multi_label_classification":
                return nn.functional.binary_cross_entropy_with_logits(logits, labels.float())
            case _:
                return nn.functional.cross_entropy(logits, labels)


def without_pooler(config: PreTrainedConfig) -> dict[str, bool]:
    """What tells an encoder to leave its pooler out, where it can have one: no head here would look at it."""
    architecture = cast("Any", AutoModel._model_mapping)[type(config)]
    takes = "add_pooling_layer" in inspect.signature(architecture.__init__).parameters
    return {"add_pooling_layer": False} if takes else {}


AutoConfig.register(PooledEncoderConfig.model_type, PooledEncoderConfig, exist_ok=True)
AutoModelForSequenceClassification.register(PooledEncoderConfig, PooledEncoderForSequenceClassification, exist_ok=True)
