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


def test_attention_weights_can_be_asked_for():
    model = build(pooling="attention", bidirectional=True)
    ids, mask = torch.tensor([[5, 6, 7, 1], [8, 9, 10, 11]]), torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]])
    weights = model(ids, attention_mask=mask, output_attentions=True).attentions
    assert weights.sum(dim=1).tolist() == pytest.approx([1.0, 1.0])
    assert weights[0, 3] == 0
    assert model(ids, attention_mask=mask).attentions is None
    states = []
    model.attention_pooling.register_forward_hook(lambda module, inputs, output: states.append((inputs[0], output[0])))
    model(ids, attention_mask=mask)
    of_tokens, pooled = states[0]
    torch.testing.assert_close(pooled, (weights.unsqueeze(-1) * of_tokens).sum(dim=1))


def test_skip_connections_lead_past_a_layer_that_says_nothing():
    plain, skipping = (build(num_hidden_layers=2, pooling="mean", skip_connections=skip) for skip in (False, True))
    one = build(pooling="mean")
    for model in (plain, skipping):
        model.load_state_dict(one.state_dict(), strict=False)
        for parameter in model.layers[1].parameters():
            torch.nn.init.zeros_(parameter)
    ids = torch.tensor([[5, 6, 7]])
    torch.testing.assert_close(skipping(ids).logits, one(ids).logits)
    assert not torch.allclose(plain(ids).logits, one(ids).logits)


def test_layer_normalisation_follows_each_layer():
    model = build(num_hidden_layers=2, layer_norm=True, pooling="mean")
    seen = []
    for norm in model.norms:
        norm.register_forward_hook(lambda module, inputs, output: seen.append(output))
    model(torch.tensor([[5, 6, 7]]))
    assert len(seen) == 2
    for states in seen:
        assert states.mean(dim=-1).abs().max() < 1e-5
        assert (states.var(dim=-1, unbiased=False) - 1).abs().max() < 0.2


def test_locked_dropout_has_one_mask_for_all_steps():
    model = build(dropout=0.5, locked_dropout=True)
    states = torch.ones(8, 10, 6)
    assert torch.equal(model._locked_dropout(states), states)
    torch.manual_seed(0)
    dropped = model.train()._locked_dropout(states)
    assert set(dropped.unique().tolist()) == {0.0, 2.0}
    assert torch.equal(dropped[:, 0], dropped[:, 9])
    seen = []
    model.layers[0][0].register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    model.embedding.weight.data.fill_(1.0)
    model(torch.full((8, 10), 5))
    assert torch.equal(seen[0][:, 0], seen[0][:, 9])


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_recurrent_weights_are_dropped_in_training_only(cell):
    model = build(cell=cell, weight_dropout=0.5, pooling="mean")
    ids = torch.tensor([[5, 6, 7, 8]])
    assert torch.equal(model(ids).logits, model(ids).logits)
    model.train()
    assert not torch.equal(model(ids).logits, model(ids).logits)
    first = torch.tensor([[5]])  # nothing has come back yet
    torch.testing.assert_close(model(first).logits, model(first).logits)
    model(ids).logits.sum().backward()
    assert model.layers[0][0].weight_hh_l0.grad.abs().sum() > 0


def test_recurrent_weights_begin_as_the_recipe_says():
    for cell, gates in (("rnn", 1), ("gru", 3), ("lstm", 4)):
        weights = build(cell=cell, initialization="orthogonal", hidden_size=12).layers[0][0].weight_hh_l0.detach()
        assert len(weights.split(12)) == gates
        for gate in weights.split(12):
            torch.testing.assert_close(gate @ gate.T, torch.eye(12), atol=1e-5, rtol=0)
    bound = (6 / (12 + 12)) ** 0.5
    xavier = build(cell="lstm", initialization="xavier", hidden_size=12).layers[0][0].weight_hh_l0
    assert 0.9 * bound < xavier.abs().max() <= bound
    assert build(cell="lstm", forget_bias=-2.0).layers[0][0].bias_ih_l0[5:10].tolist() == [-2.0] * 5


@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "relu", "leaky_relu", "gelu"])
def test_the_head_has_a_hidden_layer_with_its_activation(activation):
    model = build(head_activation=activation)
    seen = []
    model.classifier.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    model.head[0].register_forward_hook(lambda module, inputs, output: seen.append(output))
    model(torch.tensor([[5, 6]]))
    before, after = seen
    expected = {"leaky_relu": torch.nn.functional.leaky_relu, "gelu": torch.nn.functional.gelu}
    torch.testing.assert_close(after, expected.get(activation, getattr(torch, activation, None))(before))
