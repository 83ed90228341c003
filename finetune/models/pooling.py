"""From the states of a text's tokens to one vector: their mean, their maximum, or a mean that is learnt (attention)."""

import torch
from torch import Tensor, nn


class AttentionPooling(nn.Module):
    """A weighted mean of the states, the weights being learnt (Yang et al. 2016, "Hierarchical Attention Networks").

    Each state is projected, and how well the tanh of that fits a learnt context vector is its weight before softmax.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.projection = nn.Linear(size, size)
        self.context = nn.Linear(size, 1, bias=False)

    def forward(self, states: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, length, size) -> (batch, size) and the weights, (batch, length), which add up to 1; 0 on padding."""
        fit = self.context(torch.tanh(self.projection(states))).squeeze(-1)
        fit = fit.masked_fill(~attention_mask.bool(), torch.finfo(fit.dtype).min)
        weights = fit.softmax(dim=-1)
        return torch.bmm(weights.unsqueeze(1), states).squeeze(1), weights


def mean_of_states(states: Tensor, attention_mask: Tensor) -> Tensor:
    """(batch, length, size) -> (batch, size): the mean over real tokens."""
    valid = attention_mask.unsqueeze(-1).bool()
    return states.masked_fill(~valid, 0.0).sum(dim=1) / attention_mask.sum(dim=1).clamp(min=1).unsqueeze(-1)


def max_of_states(states: Tensor, attention_mask: Tensor) -> Tensor:
    """(batch, length, size) -> (batch, size): the largest value of each dimension over real tokens."""
    valid = attention_mask.unsqueeze(-1).bool()
    return states.masked_fill(~valid, torch.finfo(states.dtype).min).amax(dim=1)
