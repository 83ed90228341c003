"""The recurrent encoder-decoder: attention by its formulas, padding, states and its own tokens."""

import numpy as np
import pytest
import torch

from finetune.models.seq2seq import Attention, Seq2SeqConfig, Seq2SeqForConditionalGeneration

VARIANTS = [
    (cell, attention, feeding)
    for cell, attention, feeding in (
        ("lstm", "general", True),
        ("gru", "additive", False),
        ("rnn", "dot", True),
        ("lstm", "none", False),
        ("gru", "none", True),
    )
]
PAD, START, END = 1, 2, 3


@pytest.fixture(params=VARIANTS, ids=["-".join(map(str, variant)) for variant in VARIANTS])
def model(request):
    cell, attention, feeding = request.param
    torch.manual_seed(0)
    sizes = {"vocab_size": 20, "embedding_size": 8, "hidden_size": 16, "num_hidden_layers": 2}
    names = {"pad_token_id": PAD, "eos_token_id": END, "decoder_start_token_id": START}
    config = Seq2SeqConfig(cell=cell, attention=attention, input_feeding=feeding, **sizes, **names)
    return Seq2SeqForConditionalGeneration(config).eval()


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    draw = lambda length: torch.randint(4, 20, (3, length), generator=generator)  # noqa: E731
    mask = torch.ones(3, 7, dtype=torch.long)
    mask[1, 5:] = 0  # padded behind
    mask[2, :3] = 0  # and before
    return draw(7), mask, draw(5)


@pytest.mark.parametrize("kind", ["dot", "general", "additive"])
def test_attention_is_its_formula(kind):
    torch.manual_seed(0)
    attention = Attention(kind, 4)
    queries, memory = torch.randn(1, 2, 4), torch.randn(1, 3, 4)
    mask = torch.tensor([[1, 1, 0]])
    told, weights = attention(queries, memory, attention.key(memory), mask)
    found = {name: value.detach().numpy() for name, value in attention.named_parameters()}
    for place in range(2):
        q, states = queries[0, place].numpy(), memory[0].numpy()
        scores = {
            "dot": lambda k, q=q: q @ k,
            "general": lambda k, q=q: q @ found["key.weight"] @ k,
            "additive": lambda k, q=q: (
                found["score.weight"][0] @ np.tanh(found["query.weight"] @ q + found["key.weight"] @ k)
            ),
        }[kind]
        powers = np.exp([scores(states[0]), scores(states[1])])
        expected = np.append(powers / powers.sum(), 0.0)
        assert weights[0, place].detach().numpy() == pytest.approx(expected, abs=1e-6)
        mixed = np.tanh(found["combine.weight"] @ np.concatenate([expected @ states, q]))
        assert told[0, place].detach().numpy() == pytest.approx(mixed, abs=1e-6)


def test_padding_on_either_side_changes_nothing(model, batch):
    ids, mask, labels = batch
    together = model(ids, mask, labels=labels).logits
    for row, (begin, end) in enumerate(((0, 7), (0, 5), (3, 7))):
        alone = model(ids[row : row + 1, begin:end], labels=labels[row : row + 1]).logits
        assert torch.allclose(alone[0], together[row], atol=1e-6)


def test_going_on_from_a_state_is_reading_it_whole(model, batch):
    ids, mask, labels = batch
    inputs = model.prepare_decoder_input_ids_from_labels(labels)
    assert inputs[:, 0].tolist() == [START] * 3
    whole = model(ids, mask, decoder_input_ids=inputs, use_cache=True)
    first = model(ids, mask, decoder_input_ids=inputs[:, :2], use_cache=True)
    rest = model(ids, mask, decoder_input_ids=inputs[:, 2:], state=first.state, use_cache=True)
    assert torch.allclose(torch.cat([first.logits, rest.logits], dim=1), whole.logits, atol=1e-6)
    for one, other in zip(rest.state, whole.state, strict=True):
        assert torch.allclose(one, other, atol=1e-6)
    assert model(ids, mask, labels=labels).state is None


def test_shown_its_own_tokens_it_says_what_it_writes(model, batch):
    ids, mask, labels = batch
    everywhere = torch.ones_like(labels, dtype=torch.bool)
    own = model(ids, mask, labels=labels, own_tokens=everywhere).logits
    written = model.generate(
        ids, attention_mask=mask, max_new_tokens=5, do_sample=False, output_logits=True, return_dict_in_generate=True
    )
    for place, logits in enumerate(written.logits):
        going_on = ~(written.sequences[:, 1 : 1 + place] == END).any(dim=1)
        assert torch.allclose(own[:, place][going_on], logits[going_on], atol=1e-5)
    nowhere = model(ids, mask, labels=labels, own_tokens=~everywhere).logits
    assert torch.allclose(nowhere, model(ids, mask, labels=labels).logits, atol=1e-6)


def test_every_weight_is_learnt_and_the_loss_is_of_the_targets_alone(model, batch):
    ids, mask, labels = batch
    labels = labels.clone()
    labels[1, 3:] = -100
    output = model(ids, mask, labels=labels, own_tokens=torch.rand(labels.shape) < 0.5)
    log_probabilities = output.logits.log_softmax(dim=-1)
    picked = [-log_probabilities[i, j, labels[i, j]] for i in range(3) for j in range(5) if labels[i, j] >= 0]
    assert output.loss.item() == pytest.approx(torch.stack(picked).mean().item(), abs=1e-6)
    output.loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_where_it_looked_adds_up_to_one_and_never_at_padding(model, batch):
    ids, mask, labels = batch
    attentions = model(ids, mask, labels=labels, output_attentions=True).cross_attentions
    if model.config.attention == "none":
        assert attentions is None
        return
    (weights,) = attentions
    assert weights.shape == (3, 1, 5, 7)
    assert torch.allclose(weights.sum(dim=-1), torch.ones(3, 1, 5))
    assert weights[1, 0, :, 5:].abs().max() == 0
    assert weights[2, 0, :, :3].abs().max() == 0


def test_both_sides_share_their_embeddings_and_do_so_once_loaded(model, tmp_path):
    model.save_pretrained(tmp_path)
    again = Seq2SeqForConditionalGeneration.from_pretrained(tmp_path)
    assert again.encoder.embedding.weight is again.embedding.weight
    assert torch.equal(again.embedding.weight, model.embedding.weight)
