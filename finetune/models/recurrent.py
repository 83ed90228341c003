"""Recurrent classifiers (RNN, LSTM, GRU) as Hub-format models: they save, load and run through `pipeline` as BERT does.

Padding never changes a result and costs no packing: rows are padded on the right, where a forward recurrence meets the
padding only after the last token, and the backward direction runs forward over rows whose tokens were gathered in
reverse order.
"""

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from finetune.models.pooling import AttentionPooling, max_of_states, mean_of_states

CELLS: dict[str, Callable[..., nn.RNNBase]] = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "gelu": nn.GELU,
}


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
        locked_dropout: bool = False,
        skip_connections: bool = False,
        layer_norm: bool = False,
        head_activation: str = "none",
        initialization: str = "uniform",
        forget_bias: float = 1.0,
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
        self.locked_dropout = locked_dropout
        self.skip_connections = skip_connections
        self.layer_norm = layer_norm
        self.head_activation = head_activation
        self.initialization = initialization
        self.forget_bias = forget_bias
        self.adaptive_softmax_cutoffs = list(adaptive_softmax_cutoffs)


class FromScratchPreTrainedModel(PreTrainedModel):
    """What models without pretraining have in common: the embedding, how weights begin, a classifier's loss."""

    config: Any
    embedding: nn.Embedding

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Recurrent weights as the recipe says, by default uniform as in PyTorch; input weights by Glorot & Bengio.

        Orthogonal (Saxe et al. 2014) and Xavier matrices are drawn for each gate by itself. The LSTM's forget gate has
        a bias of its own, 1 by default, so that it begins open (Jozefowicz et al. 2015).
        """
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.1)
            if module.padding_idx is not None:
                nn.init.zeros_(module.weight[module.padding_idx])
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Conv1d):
            nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.RNNBase):
            bound = module.hidden_size**-0.5
            for name, parameter in module.named_parameters(recurse=False):
                if name.startswith("weight_ih"):
                    nn.init.xavier_uniform_(parameter)
                elif name.startswith("weight_hh"):
                    if self.config.initialization == "uniform":
                        nn.init.uniform_(parameter, -bound, bound)
                        continue
                    is_orthogonal = self.config.initialization == "orthogonal"
                    for gate in parameter.split(module.hidden_size):
                        (nn.init.orthogonal_ if is_orthogonal else nn.init.xavier_uniform_)(gate)
                else:
                    nn.init.zeros_(parameter)
                    if isinstance(module, nn.LSTM) and name.startswith("bias_ih"):
                        parameter[module.hidden_size : 2 * module.hidden_size] = self.config.forget_bias

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

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        match self.config.problem_type:
            case "regression":
                return nn.functional.mse_loss(logits.squeeze(-1), labels)
            case "multi_label_classification":
                return nn.functional.binary_cross_entropy_with_logits(logits, labels.float())
            case _:
                return nn.functional.cross_entropy(logits, labels)


class RecurrentPreTrainedModel(FromScratchPreTrainedModel):
    """What recurrent models have in common: the configuration, and what is dropped in training."""

    config_class = RecurrentConfig
    config: RecurrentConfig
    base_model_prefix = "recurrent"

    def _locked_dropout(self, states: Tensor) -> Tensor:
        """Dropout of (batch, length, size) with one mask for all steps of a row (Gal & Ghahramani 2016)."""
        if not self.training or self.config.dropout == 0:
            return states
        kept = states.new_ones(states.shape[0], 1, states.shape[2])
        return states * nn.functional.dropout(kept, self.config.dropout)

    def _dropped_weights(self, cell: nn.RNNBase) -> dict[str, Tensor]:
        """The recurrent weights of a layer with some of them dropped, in training (Wan et al. 2013, DropConnect)."""
        if not self.training or self.config.weight_dropout == 0:
            return {}
        whole = cast("Tensor", cell.weight_hh_l0)
        return {"weight_hh_l0": nn.functional.dropout(whole, self.config.weight_dropout)}


class RecurrentForSequenceClassification(RecurrentPreTrainedModel):
    """Embedding, stacked recurrent layers, pooling, dropout, a linear head with or without a hidden layer.

    With skip connections each layer after the first adds what it was given to what it says (He et al. 2016); layer
    normalisation (Ba et al. 2016) follows each layer.
    """

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
        size = config.hidden_size * directions
        self.norms = nn.ModuleList(nn.LayerNorm(size) for _ in self.layers) if config.layer_norm else None
        self.attention_pooling = AttentionPooling(size) if config.pooling == "attention" else None
        self.head = None
        if config.head_activation != "none":
            self.head = nn.Sequential(nn.Linear(size, size), ACTIVATIONS[config.head_activation]())
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

        Raises:
            ValueError: the attention mask has padding before or between tokens.
        """
        if attention_mask is None:
            attention_mask = input_ids.ne(self.config.pad_token_id).long()
        # A graph that is exported cannot raise.
        if not torch.compiler.is_exporting() and (attention_mask[:, 1:] > attention_mask[:, :-1]).any():
            raise ValueError("recurrent models need padding on the right; set tokenizer.padding_side = 'right'")
        lengths = attention_mask.sum(dim=1).clamp(min=1)  # (batch,)
        drop = self._locked_dropout if self.config.locked_dropout else self.dropout
        states = drop(self._drop_tokens(self.embedding(input_ids)))  # (batch, length, embedding)
        reverse = reversed_positions(lengths, input_ids.shape[1])
        for number, layer in enumerate(self.layers):
            directions = cast("nn.ModuleList", layer)
            before = states
            if number > 0:
                states = drop(states)
            outputs = [self._run(directions[0], states)]
            if len(directions) == 2:
                backward = self._run(directions[1], gather_positions(states, reverse))
                outputs.append(gather_positions(backward, reverse))
            states = torch.cat(outputs, dim=-1)  # (batch, length, directions * hidden)
            if self.config.skip_connections and number > 0:
                states = states + before
            if self.norms is not None:
                states = self.norms[number](states)
        weights = None
        if self.attention_pooling is not None:
            pooled, weights = self.attention_pooling(states, attention_mask)
        else:
            pooled = self._pool(states, attention_mask, lengths)
        pooled = self.dropout(pooled)
        logits = self.classifier(pooled if self.head is None else self.dropout(self.head(pooled)))
        loss = None if labels is None else self._loss(logits, labels)
        attentions = cast("Any", weights if output_attentions else None)
        return SequenceClassifierOutput(loss=loss, logits=logits, attentions=attentions)

    def _run(self, cell: nn.Module, states: Tensor) -> Tensor:
        """One direction of one layer: (batch, length, input) -> (batch, length, hidden)."""
        weights = self._dropped_weights(cast("nn.RNNBase", cell))
        outputs: Tensor = functional_call(cell, weights, (states,))[0] if weights else cell(states)[0]
        return outputs

    def _pool(self, states: Tensor, attention_mask: Tensor, lengths: Tensor) -> Tensor:
        """(batch, length, directions * hidden) -> (batch, directions * hidden), over real tokens only."""
        match self.config.pooling:
            case "mean":
                return mean_of_states(states, attention_mask)
            case "max":
                return max_of_states(states, attention_mask)
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
