"""The recurrent classifiers against cells unrolled by hand, a row and a token at a time, from the equations."""

import pytest
import torch
from torch import Tensor

from finetune.models.recurrent import RecurrentConfig, RecurrentForSequenceClassification


def step(cell: str, module: torch.nn.RNNBase, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """One token: the next (hidden, memory) from PyTorch's weight layout (gates stacked: i f g o; r z n)."""
    hidden, memory = state
    from_input = module.weight_ih_l0 @ x + module.bias_ih_l0
    from_hidden = module.weight_hh_l0 @ hidden + module.bias_hh_l0
    if cell == "rnn":
        return torch.tanh(from_input + from_hidden), memory
    if cell == "lstm":
        i, f, g, o = (from_input + from_hidden).chunk(4)
        memory = torch.sigmoid(f) * memory + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(memory), memory
    reset_in, update_in, new_in = from_input.chunk(3)
    reset_hidden, update_hidden, new_hidden = from_hidden.chunk(3)
    update = torch.sigmoid(update_in + update_hidden)
    new = torch.tanh(new_in + torch.sigmoid(reset_in + reset_hidden) * new_hidden)
    return (1 - update) * new + update * hidden, memory


def unroll(cell: str, module: torch.nn.RNNBase, inputs: list[Tensor]) -> list[Tensor]:
    size = module.hidden_size
    state = (inputs[0].new_zeros(size), inputs[0].new_zeros(size))
    outputs = []
    for x in inputs:
        state = step(cell, module, x, state)
        outputs.append(state[0])
    return outputs


def by_hand(model: RecurrentForSequenceClassification, ids: list[int]) -> Tensor:
    config = model.config
    states = [model.embedding.weight[i] for i in ids]
    for directions in model.layers:
        outputs = unroll(config.cell, directions[0], states)
        if len(directions) == 2:
            backward = unroll(config.cell, directions[1], states[::-1])[::-1]
            final = torch.cat([outputs[-1], backward[0]])
            states = [torch.cat(pair) for pair in zip(outputs, backward, strict=True)]
        else:
            final, states = outputs[-1], outputs
    stacked = torch.stack(states)
    pooled = {"last": final, "mean": stacked.mean(0), "max": stacked.max(0).values}[config.pooling]
    return model.classifier.weight @ pooled + model.classifier.bias


@pytest.mark.parametrize("pooling", ["last", "mean", "max"])
@pytest.mark.parametrize(("layers", "bidirectional"), [(1, False), (1, True), (2, True)])
@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_a_padded_batch_equals_each_row_unrolled_by_hand(cell, layers, bidirectional, pooling):
    torch.manual_seed(0)
    config = RecurrentConfig(
        vocab_size=30, cell=cell, embedding_size=7, hidden_size=5, num_hidden_layers=layers,
        bidirectional=bidirectional, pooling=pooling, num_labels=3,
    )  # fmt: skip
    model = RecurrentForSequenceClassification(config).double().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    rows = [[5, 9, 12, 7, 20, 3], [8], [4, 4, 6], [11, 2]]
    ids = torch.full((len(rows), 6), config.pad_token_id)
    mask = torch.zeros_like(ids)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = torch.tensor(row)
        mask[number, : len(row)] = 1
    logits = model(ids, attention_mask=mask).logits
    for number, row in enumerate(rows):
        assert torch.allclose(logits[number], by_hand(model, row), atol=1e-12)
