"""Recurrent classifiers: configuration and refusals; the contract tests hold what all models promise."""

import pytest
import torch

from finetune.models.recurrent import RecurrentConfig, RecurrentForSequenceClassification


def build(**options):
    sizes = {"vocab_size": 20, "embedding_size": 6, "hidden_size": 5, "num_labels": 3, "dropout": 0.0}
    return RecurrentForSequenceClassification(RecurrentConfig(**{**sizes, **options})).eval()


def test_padding_on_the_left_is_refused():
    with pytest.raises(ValueError, match="padding on the right"):
        build()(torch.tensor([[1, 5, 6]]), attention_mask=torch.tensor([[0, 1, 1]]))


def test_without_a_mask_pad_tokens_are_padding():
    model = build(bidirectional=True)
    ids = torch.tensor([[5, 6, 1, 1]])
    assert torch.equal(model(ids).logits, model(ids, attention_mask=torch.tensor([[1, 1, 0, 0]])).logits)


def test_a_row_of_padding_alone_gives_finite_logits():
    for pooling in ("last", "mean", "max"):
        logits = build(bidirectional=True, pooling=pooling)(torch.full((2, 3), 1)).logits
        assert logits.isfinite().all()


def test_the_forget_gate_starts_open():
    layer = build(cell="lstm").layers[0][0]
    assert layer.bias_ih_l0[5:10].tolist() == [1.0] * 5
    assert layer.bias_hh_l0.abs().sum() == 0


def test_token_dropout_drops_whole_tokens_in_training_only():
    model = build(token_dropout=0.5)
    states = torch.ones(40, 10, 6)
    assert torch.equal(model._drop_tokens(states), states)
    torch.manual_seed(0)
    dropped = model.train()._drop_tokens(states)
    assert set(dropped.unique().tolist()) == {0.0, 2.0}
    assert torch.equal(dropped.amin(dim=-1), dropped.amax(dim=-1))
    assert abs(dropped.mean().item() - 1.0) < 0.1


def test_the_loss_is_cross_entropy():
    model = build()
    labels = torch.tensor([0, 2])
    output = model(torch.tensor([[5, 6], [7, 8]]), labels=labels)
    expected = torch.nn.functional.cross_entropy(output.logits, labels)
    assert torch.equal(output.loss, expected)
