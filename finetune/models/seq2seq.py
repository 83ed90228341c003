"""Sequence to sequence with attention, from scratch, as a Hub-format model that `generate` as T5 and BART do.

An encoder reads the source in both directions; a decoder writes the target token by token, and at each looks back at
the source (Bahdanau, Cho & Bengio 2015, arXiv:1409.0473), here from the state that has read the token before, as Luong,
Pham & Manning (2015, arXiv:1508.04025) have it. Without attention all that the decoder knows of the source is the state
that it begins with (Sutskever, Vinyals & Le 2014, arXiv:1409.3215), so that what attention buys can be seen.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSeq2SeqLM, GenerationMixin, PreTrainedConfig
from transformers.utils.generic import ModelOutput

from finetune.models.recurrent import CELLS, FromScratchPreTrainedModel, gather_positions, reversed_positions

State = tuple[Tensor, ...]
"""What the decoder carries on: of each layer (1, batch, hidden), or of an LSTM (2, batch, hidden), its output and its
cell; and last the (1, batch, hidden) from which the last token was told."""


class Seq2SeqConfig(PreTrainedConfig):
    """The sizes; `hidden_size` is the decoder's, and the encoder has half of it in each direction."""

    model_type = "finetune_seq2seq"

    def __init__(
        self,
        vocab_size: int = 8000,
        cell: str = "lstm",
        embedding_size: int = 128,
        hidden_size: int = 256,
        num_hidden_layers: int = 1,
        attention: str = "general",
        input_feeding: bool = True,
        dropout: float = 0.2,
        initialization: str = "uniform",
        forget_bias: float = 1.0,
        pad_token_id: int = 1,
        bos_token_id: int | None = None,
        eos_token_id: int | None = None,
        decoder_start_token_id: int | None = None,
        **kwargs: Any,
    ) -> None:
        # The two sides share their embeddings.
        super().__init__(**{"is_encoder_decoder": True, "tie_word_embeddings": True, **kwargs})
        self.vocab_size = vocab_size
        self.cell = cell
        self.embedding_size = embedding_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.attention = attention
        self.input_feeding = input_feeding
        self.dropout = dropout
        self.initialization = initialization
        self.forget_bias = forget_bias
        self.pad_token_id = pad_token_id
        self.bos_token_id = bos_token_id
        self.eos_token_id = eos_token_id
        self.decoder_start_token_id = decoder_start_token_id


@dataclass
class Seq2SeqEncoderOutput(ModelOutput):
    """What was read: a state of each token, (batch, source, hidden), and the decoder's first, (batch, layers, hidden).

    Of an LSTM there are two of each layer, its output and its cell.
    """

    last_hidden_state: Tensor | None = None
    initial_state: Tensor | None = None


@dataclass
class Seq2SeqOutput(ModelOutput):
    """The loss where labels were given, the logits, the state after the last token, and where the decoder looked.

    `cross_attentions` has one tensor, (batch, 1, target, source), as a transformer of one layer with one head would
    have; None without attention.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    state: State | None = None
    cross_attentions: tuple[Tensor, ...] | None = None
    encoder_last_hidden_state: Tensor | None = None


class Attention(nn.Module):
    """Where in the source to look: a score for each token of it, a softmax over them, and the mean that it weighs.

    `dot`: q·k; `general`: q·Wk (Luong et al. 2015, section 3.1); `additive`: v·tanh(Uq + Wk) (Bahdanau et al. 2015,
    appendix A.1.2), of the decoder's output q and the encoder's state k.
    """

    def __init__(self, kind: str, size: int) -> None:
        super().__init__()
        self.key = nn.Identity() if kind == "dot" else nn.Linear(size, size, bias=False)
        self.query = nn.Linear(size, size, bias=False) if kind == "additive" else None
        self.score = nn.Linear(size, 1, bias=False) if kind == "additive" else None
        self.combine = nn.Linear(2 * size, size, bias=False)

    def forward(self, queries: Tensor, memory: Tensor, keys: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """What the next tokens are told from, (batch, target, size), and the weights, (batch, target, source).

        Of outputs (batch, target, size), the source's states and `self.key` of them, (batch, source, size), and which
        of these are tokens, (batch, source).
        """
        if self.query is None or self.score is None:
            scores = queries @ keys.transpose(1, 2)
        else:
            sums = torch.tanh(self.query(queries).unsqueeze(2) + keys.unsqueeze(1))  # (batch, target, source, size)
            scores = self.score(sums).squeeze(-1)
        scores = scores.masked_fill(~mask.bool().unsqueeze(1), torch.finfo(scores.dtype).min)
        weights = scores.softmax(dim=-1)
        return torch.tanh(self.combine(torch.cat([weights @ memory, queries], dim=-1))), weights


class Seq2SeqEncoder(nn.Module):
    """Stacked recurrent layers that read in both directions, and the bridge to the decoder's first state."""

    main_input_name = "input_ids"

    def __init__(self, config: Seq2SeqConfig) -> None:
        super().__init__()
        self.embedding = nn.Embedding(config.vocab_size, config.embedding_size, padding_idx=config.pad_token_id)
        self.dropout = nn.Dropout(config.dropout)
        sizes = [config.embedding_size, *[config.hidden_size] * config.num_hidden_layers]
        self.layers = nn.ModuleList(
            nn.ModuleList(CELLS[config.cell](before, after // 2, batch_first=True) for _ in range(2))
            for before, after in pairwise(sizes)
        )
        self.states = config.num_hidden_layers * (2 if config.cell == "lstm" else 1)
        self.bridge = nn.Linear(config.hidden_size, self.states * config.hidden_size)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **_: Any) -> Seq2SeqEncoderOutput:
        """Read token ids (batch, source); padding may stand before or behind the tokens and changes nothing."""
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        length = input_ids.shape[1]
        lengths = attention_mask.sum(dim=1).clamp(min=1)
        # For each row the positions of its tokens from the first on, around the end.
        around = torch.arange(length, device=input_ids.device).unsqueeze(0)
        before = attention_mask.argmax(dim=1, keepdim=True)
        reverse = reversed_positions(lengths, length)
        states = gather_positions(self.dropout(self.embedding(input_ids)), (around + before) % length)
        for number, layer in enumerate(self.layers):
            forwards, backwards = cast("nn.ModuleList", layer)
            inputs = self.dropout(states) if number else states
            read_back = gather_positions(backwards(gather_positions(inputs, reverse))[0], reverse)
            states = torch.cat([forwards(inputs)[0], read_back], dim=-1)
        half = states.shape[-1] // 2
        rows = torch.arange(len(states), device=states.device)
        # Each direction has read all of the text where it ends.
        summary = torch.cat([states[rows, lengths - 1, :half], states[:, 0, half:]], dim=-1)
        initial = torch.tanh(self.bridge(summary)).unflatten(1, (self.states, -1))
        states = gather_positions(states, (around - before) % length)
        return Seq2SeqEncoderOutput(last_hidden_state=cast("Any", self.dropout(states)), initial_state=initial)


class Seq2SeqForConditionalGeneration(FromScratchPreTrainedModel, GenerationMixin):
    """Encoder, decoder, attention between them, and the logits of the next token at each place of the target."""

    config_class = Seq2SeqConfig
    config: Seq2SeqConfig
    base_model_prefix = "seq2seq"
    _tied_weights_keys = {"encoder.embedding.weight": "embedding.weight"}  # noqa: RUF012 (transformers wants a plain dict)

    def __init__(self, config: Seq2SeqConfig) -> None:
        super().__init__(config)
        self.embedding = nn.Embedding(config.vocab_size, config.embedding_size, padding_idx=config.pad_token_id)
        self.encoder = Seq2SeqEncoder(config)
        self.dropout = nn.Dropout(config.dropout)
        fed = config.hidden_size if config.input_feeding else 0
        sizes = [config.embedding_size + fed, *[config.hidden_size] * config.num_hidden_layers]
        self.layers = nn.ModuleList(
            CELLS[config.cell](before, after, batch_first=True) for before, after in pairwise(sizes)
        )
        self.attention = None if config.attention == "none" else Attention(config.attention, config.hidden_size)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """As in the other models from scratch, but linear layers by Glorot & Bengio: here they stand between layers."""
        super()._init_weights(module)
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        """No: `generate` would make a cache of keys and values."""
        return False

    def get_encoder(self, *_: Any, **__: Any) -> nn.Module:
        return self.encoder

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        self.lm_head = cast("nn.Linear", new_embeddings)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        encoder_outputs: Seq2SeqEncoderOutput | None = None,
        state: State | None = None,
        labels: Tensor | None = None,
        own_tokens: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        logits_to_keep: int = 0,
        **_: Any,
    ) -> Seq2SeqOutput:
        """Logits (batch, target, vocabulary), or of the last `logits_to_keep` places.

        For a source of token ids (batch, source), or what the encoder made of it, and a target's (batch, target), each
        of which is one place behind its label: the first is the start token. With `labels` (-100 is no target) and no
        target this is made of them. Where `own_tokens`, (batch, target), is true, the model is shown the token that it
        thinks likeliest instead, as it will be when it writes (scheduled sampling, Bengio et al. 2015,
        arXiv:1506.03099). With a `state` the target goes on from it; it is returned with `use_cache`.
        """
        if encoder_outputs is None:
            encoder_outputs = self.encoder(input_ids, attention_mask)
        memory, initial = encoder_outputs.last_hidden_state, encoder_outputs.initial_state
        assert memory is not None
        assert initial is not None
        if decoder_input_ids is None:
            assert labels is not None
            decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
        if attention_mask is None:
            attention_mask = memory.new_ones(memory.shape[:2], dtype=torch.long)
        if state is None:
            of_layers = initial.transpose(0, 1).contiguous().split(initial.shape[1] // len(self.layers))
            state = (*of_layers, memory.new_zeros(1, *initial.shape[::2]))
        keys = memory if self.attention is None else self.attention.key(memory)
        embedded = self.dropout(self.embedding(decoder_input_ids))
        is_stepwise = self.config.input_feeding or own_tokens is not None
        steps = embedded.split(1, dim=1) if is_stepwise else (embedded,)
        told: list[Tensor] = []
        looked: list[Tensor | None] = []
        for place, step in enumerate(steps):
            if own_tokens is not None and place > 0:
                step = torch.where(own_tokens[:, place, None, None], self._own(told[-1]), step)
            told_here, weights, state = self._decode(step, state, memory, keys, attention_mask)
            told.append(told_here)
            looked.append(weights)
        states = torch.cat(told, dim=1)
        logits = self.lm_head(states[:, -logits_to_keep:] if logits_to_keep else states)
        loss = None if labels is None else nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        attentions = None
        if output_attentions and self.attention is not None:
            attentions = (torch.cat(cast("list[Tensor]", looked), dim=1).unsqueeze(1),)
        return Seq2SeqOutput(
            loss=loss,
            logits=logits,
            state=state if use_cache else None,
            cross_attentions=attentions,
            encoder_last_hidden_state=memory,
        )

    def _decode(
        self, embedded: Tensor, state: State, memory: Tensor, keys: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor | None, State]:
        """Some places of the target: what their tokens are told from, where they looked, and the state after them."""
        states = embedded
        if self.config.input_feeding:
            states = torch.cat([states, state[-1].transpose(0, 1)], dim=-1)
        after = []
        for number, layer in enumerate(self.layers):
            begin: Any = state[number]
            if isinstance(layer, nn.LSTM):
                begin = (begin[:1].contiguous(), begin[1:].contiguous())
            states, final = layer(states, begin)
            after.append(torch.cat(final) if isinstance(final, tuple) else final)
            states = self.dropout(states)
        weights = None
        if self.attention is not None:
            states, weights = self.attention(states, memory, keys, mask)
            states = self.dropout(states)
        return states, weights, (*after, states[:, -1:].transpose(0, 1))

    def _own(self, told: Tensor) -> Tensor:
        """The embeddings of the tokens that are likeliest by (batch, 1, hidden), (batch, 1, embedding)."""
        with torch.no_grad():
            # Not by calling the head: where it is told to see the targets alone, it sees those of all places.
            ids = nn.functional.linear(told, self.lm_head.weight, self.lm_head.bias).argmax(dim=-1)
        embedded: Tensor = self.dropout(self.embedding(ids))
        return embedded

    def prepare_decoder_input_ids_from_labels(self, labels: Tensor) -> Tensor:
        """Labels (batch, target) one place later, behind the start token."""
        start = labels.new_full((len(labels), 1), cast("int", self.config.decoder_start_token_id))
        return torch.cat([start, labels[:, :-1].masked_fill(labels[:, :-1] < 0, self.config.pad_token_id)], dim=1)

    def prepare_inputs_for_generation(self, input_ids: Tensor, *_: Any, **kwargs: Any) -> dict[str, Any]:
        """The target so far at first, and then its last token and the state."""
        state: State | None = kwargs.get("state")
        return {
            "decoder_input_ids": input_ids if state is None else input_ids[:, -1:],
            "encoder_outputs": kwargs["encoder_outputs"],
            "attention_mask": kwargs.get("attention_mask"),
            "state": state,
            "use_cache": kwargs.get("use_cache"),
            "logits_to_keep": 1,
        }

    def _reorder_cache(self, state: State, beam_idx: Tensor) -> State:
        """The state of each beam's new parent."""
        return tuple(layer.index_select(1, beam_idx.to(layer.device)) for layer in state)


AutoConfig.register(Seq2SeqConfig.model_type, Seq2SeqConfig, exist_ok=True)
AutoModelForSeq2SeqLM.register(Seq2SeqConfig, Seq2SeqForConditionalGeneration, exist_ok=True)
