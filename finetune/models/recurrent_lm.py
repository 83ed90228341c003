"""Recurrent language models (RNN, LSTM, GRU) as Hub-format models that `generate` as GPT-2 does.

What has been read is carried in a state of one size, so that a step costs the same after any number of tokens. The
regularisation is AWD-LSTM's (Merity, Keskar & Socher 2017, arXiv:1708.02182): locked dropout, whose mask is the same at
every step of a sequence, dropout of recurrent weights, whole embeddings dropped, and output weights tied to the
embeddings (Press & Wolf 2017, arXiv:1608.05859).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from transformers import AutoConfig, AutoModelForCausalLM, GenerationMixin
from transformers.utils.generic import ModelOutput

from finetune.models.recurrent import CELLS, RecurrentConfig, RecurrentPreTrainedModel, gather_positions

_STATES_AT_ONCE = 1024
"""Whose probabilities of all tokens are in memory together."""
State = tuple[Tensor, ...]
"""For each layer what it carries on: (1, batch, size), and of an LSTM (2, batch, size), the output and the cell."""


@dataclass
class RecurrentCausalLMOutput(ModelOutput):
    """The loss where labels were given, the logits, and the state after the last token.

    `state` is one of the names under which `generate` looks for what it has to carry on, and to reorder for beams.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    state: State | None = None


class AdaptiveHead(nn.Module):
    """Adaptive softmax (Grave et al. 2017, arXiv:1609.04309): rare tokens get few dimensions, and seldom a look.

    Tokens are taken to be in the order of their frequency, as vocabularies of words and characters are that are trained
    here. The clusters that begin at the cutoffs have a fourth of the dimensions of the one before.
    """

    takes_targets = True
    """It may be told which tokens are sought, and computes no others in their clusters' place."""

    def __init__(self, size: int, vocabulary_size: int, cutoffs: Sequence[int]) -> None:
        super().__init__()
        self.softmax = nn.AdaptiveLogSoftmaxWithLoss(size, vocabulary_size, list(cutoffs), div_value=4.0)

    def forward(self, states: Tensor, targets: Tensor | None = None) -> Tensor:
        """Log probabilities, (..., vocabulary), of states (..., size).

        With targets, (n,), the losses of states (n, size) as (n, 1); outside of training (n, 2), the second whether the
        target was the most probable token.
        """
        # PyTorch's module mixes its input's precision with that of autocast.
        with torch.autocast(states.device.type, enabled=False):
            if targets is None:
                return self.softmax.log_prob(states.float().flatten(0, -2)).unflatten(0, states.shape[:-1])
            losses: Tensor = -self.softmax(states.float(), targets).output
            if not self.training:
                found = torch.cat([self.softmax.predict(some) for some in states.float().split(_STATES_AT_ONCE)])
                return torch.stack([losses, (found == targets).float()], dim=1)
            # A cluster that no target is in gets a gradient all the same, of zero: processes wait for each other's.
            of_all = 0.0 * torch.stack([weight.sum() for weight in self.softmax.tail.parameters()]).sum()
            return (losses + of_all).unsqueeze(dim=1)


class RecurrentForCausalLM(RecurrentPreTrainedModel, GenerationMixin):
    """Embedding, stacked recurrent layers read from left to right, and the logits of the next token at each place."""

    _tied_weights_keys = {"lm_head.weight": "embedding.weight"}  # noqa: RUF012 (transformers wants a plain dict)

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__(config)
        if config.bidirectional:
            raise ValueError("a language model reads from left to right; bidirectional must be false")
        # Where texts end in the token that pads, its embedding has to be learnt.
        is_mere_padding = config.pad_token_id not in (config.bos_token_id, config.eos_token_id)
        padding = config.pad_token_id if is_mere_padding else None
        self.embedding = nn.Embedding(config.vocab_size, config.embedding_size, padding_idx=padding)
        sizes = [config.embedding_size, *[config.hidden_size] * config.num_hidden_layers]
        if config.tie_word_embeddings:
            sizes[-1] = config.embedding_size
        self.layers = nn.ModuleList(
            CELLS[config.cell](before, after, batch_first=True) for before, after in pairwise(sizes)
        )
        self.lm_head: nn.Module = nn.Linear(sizes[-1], config.vocab_size)
        if config.adaptive_softmax_cutoffs:
            self.lm_head = AdaptiveHead(sizes[-1], config.vocab_size, config.adaptive_softmax_cutoffs)
        self.post_init()

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        """No: `generate` would make a cache of keys and values."""
        return False

    def get_output_embeddings(self) -> nn.Module | None:
        return self.lm_head if isinstance(self.lm_head, nn.Linear) else None

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        self.lm_head = cast("nn.Linear", new_embeddings)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        state: State | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        **_: Any,
    ) -> RecurrentCausalLMOutput:
        """Logits (batch, length, vocabulary), or of the last `logits_to_keep` places, for token ids (batch, length).

        Padding may stand before or behind the tokens and changes nothing. With a `state` the tokens go on from it. The
        state after the last token is returned with `use_cache`, and without being asked where nothing is padded.
        `labels` are shifted here, as in transformers' own models: -100 is no target.
        """
        before = _padding_before(attention_mask)
        lengths = None if attention_mask is None or bool(attention_mask.all()) else attention_mask.sum(dim=1)
        states = self._locked_dropout(self._drop_tokens(self.embedding(input_ids)))  # (batch, length, embedding)
        if before is not None:
            states = gather_positions(states, _rolled(before, states.shape[1]))
        needs_state = use_cache is True or (use_cache is None and lengths is None)
        carried = []
        for number, layer in enumerate(self.layers):
            cell = cast("nn.RNNBase", layer)
            initial = None if state is None else state[number]
            states, final = self._run(cell, states, initial, lengths if needs_state else None)
            carried.append(final)
            states = self._locked_dropout(states)
        if before is not None:
            states = gather_positions(states, _rolled(-before, states.shape[1]))
        logits = self.lm_head(states[:, -logits_to_keep:] if logits_to_keep else states)
        loss = None
        if labels is not None:
            loss = nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        return RecurrentCausalLMOutput(loss=loss, logits=logits, state=tuple(carried) if needs_state else None)

    def _run(
        self, cell: nn.RNNBase, states: Tensor, initial: Tensor | None, lengths: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """One layer over (batch, length, size), padded on the right; (outputs, what it carries on).

        What it carries on is right for the last token of each row only where `lengths` are given.
        """
        begin: Any = initial
        if initial is not None and isinstance(cell, nn.LSTM):
            begin = (initial[:1].contiguous(), initial[1:].contiguous())
        inputs: Any = states
        if lengths is not None:
            inputs = pack_padded_sequence(states, lengths.cpu(), batch_first=True, enforce_sorted=False)
        weights = self._dropped_weights(cell)
        outputs, final = functional_call(cell, weights, (inputs, begin)) if weights else cell(inputs, begin)
        if lengths is not None:
            outputs, _ = pad_packed_sequence(outputs, batch_first=True, total_length=states.shape[1])
        return outputs, torch.cat(final) if isinstance(final, tuple) else final

    def prepare_inputs_for_generation(self, input_ids: Tensor, *_: Any, **kwargs: Any) -> dict[str, Any]:
        """The prompt with its padding at first, and then one token and the state."""
        state: State | None = kwargs.get("state")
        inputs: dict[str, Any] = {"use_cache": kwargs.get("use_cache"), "logits_to_keep": 1}
        if state is not None:
            return {**inputs, "input_ids": input_ids[:, -1:], "state": state}
        return {**inputs, "input_ids": input_ids, "attention_mask": kwargs.get("attention_mask")}

    def _reorder_cache(self, state: State, beam_idx: Tensor) -> State:
        """The state of each beam's new parent."""
        return tuple(layer.index_select(1, beam_idx.to(layer.device)) for layer in state)


def _padding_before(attention_mask: Tensor | None) -> Tensor | None:
    """How much padding stands before each row's tokens, (batch,); None where there is none."""
    if attention_mask is None or bool(attention_mask[:, 0].all()):
        return None
    return attention_mask.argmax(dim=1)


def _rolled(by: Tensor, length: int) -> Tensor:
    """For each row the positions that stand `by` further on, around the end: (batch, length)."""
    positions = torch.arange(length, device=by.device).unsqueeze(0)
    return (positions + by.unsqueeze(1)) % length


AutoConfig.register(RecurrentConfig.model_type, RecurrentConfig, exist_ok=True)
AutoModelForCausalLM.register(RecurrentConfig, RecurrentForCausalLM, exist_ok=True)
