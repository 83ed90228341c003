"""The bag of embeddings and the text CNN: what they know of order, and that padding changes nothing."""

import pytest
import torch

from finetune.models.shallow import ShallowConfig, ShallowForSequenceClassification


def build(**options):
    torch.manual_seed(0)
    sizes = {"vocab_size": 20, "embedding_size": 6, "num_labels": 3, "dropout": 0.0}
    return ShallowForSequenceClassification(ShallowConfig(**{**sizes, **options})).eval()


IDS, MASK = torch.tensor([[5, 6, 7, 8, 1, 1]]), torch.tensor([[1, 1, 1, 1, 0, 0]])


@pytest.mark.parametrize("pooling", ["mean", "max", "attention"])
def test_a_bag_knows_no_order(pooling):
    model = build(pooling=pooling)
    torch.testing.assert_close(model(IDS[:, [3, 1, 0, 2]]).logits, model(IDS, attention_mask=MASK).logits)
    assert not torch.allclose(model(torch.tensor([[5, 6, 7, 9]])).logits, model(IDS, attention_mask=MASK).logits)


def test_a_bags_mean_is_the_mean_of_its_embeddings():
    model = build()
    pooled = model.embedding.weight[[5, 6, 7, 8]].mean(dim=0)
    torch.testing.assert_close(model(IDS, attention_mask=MASK).logits[0], model.classifier(pooled))


def test_filters_see_windows_and_the_largest_counts():
    model = build(filters=4, kernel_sizes=[2, 3])
    pooled = []
    for layer in model.convolutions:
        (size,) = layer.kernel_size
        zeros = torch.zeros(size - 1, 6)
        padded = torch.cat([zeros, model.embedding.weight[[5, 6, 7, 8]], zeros])
        windows = [padded[start : start + size] for start in range(len(padded) - size + 1)]
        values = torch.stack([(layer.weight * window.T).sum(dim=(1, 2)) + layer.bias for window in windows])
        pooled.append(values.relu().amax(dim=0))
    expected = model.classifier(torch.cat(pooled))
    torch.testing.assert_close(model(IDS, attention_mask=MASK).logits[0], expected)
    assert not torch.allclose(model(IDS[:, [3, 1, 0, 2]]).logits[0], expected)


def test_a_text_shorter_than_a_filter_has_windows():
    model = build(filters=4, kernel_sizes=[5])
    one = model(torch.tensor([[5]])).logits
    assert one.isfinite().all()
    torch.testing.assert_close(model(torch.tensor([[5, 1, 1, 1]])).logits, one)


def test_attention_weights_can_be_asked_for():
    weights = build(pooling="attention")(IDS, attention_mask=MASK, output_attentions=True).attentions
    assert weights[0, :4].sum().item() == pytest.approx(1.0)
    assert not weights[0, 4:].any()
