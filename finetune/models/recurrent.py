"""Recurrent classifiers (RNN, LSTM, GRU) as Hub-format models: they save, load and run through `pipeline` as BERT does.

Padding never changes a result and costs no packing: rows are padded on the right, where a forward recurrence meets the
padding only after the last token, and the backward direction runs forward over rows whose tokens were gathered in
reverse order.
"""

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

CELLS: dict[str, Callable[..., nn.RNNBase]] = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


class RecurrentConfig(PreTrainedConfig):
    """The sizes of a recurrent classifier or language model; `hidden_size` is per direction.

    With tied embeddings a language model's last layer is as wide as the embeddings.
    """

    model_type = "finetune_recurrent"

    def __init__(
        self,
        vocab_size: int = 8000,
        cell: str = "lstm",
        embedding_size: int = 128,
        hidden_size: int = 128,
        num_hidden_layers: int = 1,
        bidirectional: bool = False,
        pooling: str = "last",
        dropout: float = 0.3,
        token_dropout: float = 0.0,
        weight_dropout: float = 0.0,
        adaptive_softmax_cutoffs: Sequence[int] = (),
        pad_token_id: int = 1,
        bos_token_id: int | None = None,
        eos_token_id: int | None = None,
        tie_word_embeddings: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.vocab_size = vocab_size
        self.pad_token_id = pad_token_id
        self.bos_token_id = bos_token_id
        self.eos_token_id = eos_token_id
        self.tie_word_embeddings = tie_word_embeddings
        self.cell = cell
        self.embedding_size = embedding_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.bidirectional = bidirectional
        self.pooling = pooling
        self.dropout = dropout
        self.token_dropout = token_dropout
        self.weight_dropout = weight_dropout
        self.adaptive_softmax_cutoffs = list(adaptive_softmax_cutoffs)


class RecurrentPreTrainedModel(PreTrainedModel):
    """What recurrent models have in common: the configuration, the embedding and how weights begin."""

    config_class = RecurrentConfig
    config: RecurrentConfig
    base_model_prefix = "recurrent"
    embedding: nn.Embedding

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Uniform for recurrent weights as PyTorch does, 1 for the LSTM's forget gate (Jozefowicz et al. 2015)."""
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.1)
            if module.padding_idx is not None:
                nn.init.zeros_(module.weight[module.padding_idx])
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.RNNBase):
            bound = module.hidden_size**-0.5
            for name, parameter in module.named_parameters(recurse=False):
                if name.startswith("weight_ih"):
                    nn.init.xavier_uniform_(parameter)
                elif name.startswith("weight_hh"):
                    nn.init.uniform_(parameter, -bound, bound)
                else:
                    nn.init.zeros_(parameter)
                    if isinstance(module, nn.LSTM) and name.startswith("bias_ih"):
                        parameter[module.hidden_size : 2 * module.hidden_size] = 1.0

    def get_input_embeddings(self) -> nn.Module:
        return self.embedding

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.embedding = cast("nn.Embedding", value)

    def _drop_tokens(self, states: Tensor) -> Tensor:
        """Zero whole token embeddings in training and scale up the others (Gal & Ghahramani 2016, section 4.2)."""
        if not self.training or self.config.token_dropout == 0:
            return states
        kept = states.new_ones(*states.shape[:2], 1)
        return states * nn.functional.dropout(kept, self.config.token_dropout)


class RecurrentForSequenceClassification(RecurrentPreTrainedModel):
    """Embedding, stacked recurrent layers, pooling, dropout, a linear head."""

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__(config)
        directions = 2 if config.bidirectional else 1
        self.embedding = nn.Embedding(config.vocab_size, config.embedding_size, padding_idx=config.pad_token_id)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList()
        for layer in range(config.num_hidden_layers):
            input_size = config.embedding_size if layer == 0 else config.hidden_size * directions
            self.layers.append(
                nn.ModuleList(
                    CELLS[config.cell](input_size, config.hidden_size, batch_first=True) for _ in range(directions)
                )
            )
        self.classifier = nn.Linear(config.hidden_size * directions, len(config.id2label or {}))
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        **_: Any,
    ) -> SequenceClassifierOutput:
        """Logits (batch, labels) for token ids (batch, length) padded on the right.

        Raises:
            ValueError: the attention mask has padding before or between tokens.
        """
        if attention_mask is None:
            attention_mask = input_ids.ne(self.config.pad_token_id).long()
        # A graph that is exported cannot raise.
        if not torch.compiler.is_exporting() and (attention_mask[:, 1:] > attention_mask[:, :-1]).any():
            raise ValueError("recurrent models need padding on the right; set tokenizer.padding_side = 'right'")
        lengths = attention_mask.sum(dim=1).clamp(min=1)  # (batch,)
        states = self.dropout(self._drop_tokens(self.embedding(input_ids)))  # (batch, length, embedding)
        reverse = reversed_positions(lengths, input_ids.shape[1])
        for number, layer in enumerate(self.layers):
            directions = cast("nn.ModuleList", layer)
            if number > 0:
                states = self.dropout(states)
            outputs = [directions[0](states)[0]]
            if len(directions) == 2:
                backward = directions[1](gather_positions(states, reverse))[0]
                outputs.append(gather_positions(backward, reverse))
            states = torch.cat(outputs, dim=-1)  # (batch, length, directions * hidden)
        logits = self.classifier(self.dropout(self._pool(states, attention_mask, lengths)))
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)

    def _pool(self, states: Tensor, attention_mask: Tensor, lengths: Tensor) -> Tensor:
        """(batch, length, directions * hidden) -> (batch, directions * hidden), over real tokens only."""
        valid = attention_mask.unsqueeze(-1).bool()
        match self.config.pooling:
            case "mean":
                return states.masked_fill(~valid, 0.0).sum(dim=1) / lengths.unsqueeze(-1)
            case "max":
                return states.masked_fill(~valid, torch.finfo(states.dtype).min).amax(dim=1)
            case _:
                rows = torch.arange(states.shape[0], device=states.device)  # len() would fix the size of an export
                last = states[rows, lengths - 1]
                if not self.config.bidirectional:
                    return last
                # The backward direction has read the whole text when it arrives at the first token.
                size = self.config.hidden_size
                return torch.cat([last[:, :size], states[:, 0, size:]], dim=-1)


def reversed_positions(lengths: Tensor, length: int) -> Tensor:
    """For each row the positions of its tokens in reverse order, padding in place: (batch, length).

    The permutation is its own inverse, so that gathering twice gives the first order back.
    """
    positions = torch.arange(length, device=lengths.device).unsqueeze(0)
    last = lengths.unsqueeze(1) - 1
    return torch.where(positions <= last, last - positions, positions)


def gather_positions(states: Tensor, positions: Tensor) -> Tensor:
    """`states` (batch, length, size) with the positions of each row in another order."""
    return states.gather(1, positions.unsqueeze(-1).expand(-1, -1, states.shape[-1]))


AutoConfig.register(RecurrentConfig.model_type, RecurrentConfig, exist_ok=True)
AutoModelForSequenceClassification.register(RecurrentConfig, RecurrentForSequenceClassification, exist_ok=True)
