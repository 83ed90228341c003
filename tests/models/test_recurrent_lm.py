"""The recurrent language model: its state, its beams, its padding and its dropout."""

import itertools

import pytest
import torch

from finetune import tasks
from finetune.models.recurrent import RecurrentConfig
from finetune.models.recurrent_lm import RecurrentForCausalLM

PAD, BOS, EOS = 0, 1, 2


def build(cell="lstm", layers=2, vocabulary=7, **options):
    torch.manual_seed(0)
    config = RecurrentConfig(
        vocab_size=vocabulary, cell=cell, embedding_size=12, hidden_size=16, num_hidden_layers=layers, dropout=0.0,
        pad_token_id=PAD, bos_token_id=BOS, eos_token_id=EOS, **{"tie_word_embeddings": True, **options},
    )  # fmt: skip
    return RecurrentForCausalLM(config).eval()


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("tie_word_embeddings", [True, False])
def test_two_calls_with_a_carried_state_are_one_call(cell, tie_word_embeddings):
    model, ids = build(cell, tie_word_embeddings=tie_word_embeddings), torch.randint(3, 7, (4, 11))
    whole = model(input_ids=ids)
    first = model(input_ids=ids[:, :5])
    second = model(input_ids=ids[:, 5:], state=first.state)
    assert torch.allclose(torch.cat([first.logits, second.logits], dim=1), whole.logits, atol=1e-6)
    for carried, expected in zip(second.state, whole.state, strict=True):
        assert carried.shape[0] == (2 if cell == "lstm" else 1)
        assert torch.allclose(carried, expected, atol=1e-6)


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("side", ["left", "right", "both"])
def test_padding_on_any_side_changes_nothing(cell, side):
    model = build(cell)
    rows = [torch.randint(3, 7, (length,)) for length in (3, 9, 1, 6)]
    before = {"left": [6, 0, 8, 3], "right": [0, 0, 0, 0], "both": [2, 0, 5, 1]}[side]
    ids, mask = torch.randint(0, 7, (4, 9)), torch.zeros(4, 9, dtype=torch.long)  # rubbish in the padding
    for i, row in enumerate(rows):
        ids[i, before[i] : before[i] + len(row)] = row
        mask[i, before[i] : before[i] + len(row)] = 1
    together = model(input_ids=ids, attention_mask=mask, use_cache=True)
    unasked = model(input_ids=ids, attention_mask=mask)
    assert unasked.state is None  # which would cost packing
    for i, row in enumerate(rows):
        alone = model(input_ids=row[None])
        for output in (together, unasked):
            assert torch.allclose(output.logits[i][mask[i].bool()], alone.logits[0], atol=1e-6)
        for padded, expected in zip(together.state, alone.state, strict=True):
            assert torch.allclose(padded[:, i], expected[:, 0], atol=1e-6)


def enumerated_best(model, prompt, steps):
    """The most probable continuation of exactly `steps` tokens, found by trying all."""
    every = torch.tensor(list(itertools.product(range(model.config.vocab_size), repeat=steps)))
    ids = torch.cat([prompt.expand(len(every), -1), every], dim=1)
    with torch.no_grad():
        logits = model(input_ids=ids[:, :-1]).logits[:, prompt.shape[1] - 1 :].log_softmax(dim=-1)
    scores = logits.gather(2, every[..., None]).sum(dim=(1, 2))
    return every[scores.argmax()], scores.max()


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize(("beams", "steps"), [(4, 2), (16, 3)])
@pytest.mark.parametrize("use_cache", [True, False])
def test_beams_find_the_best_of_all_continuations(cell, beams, steps, use_cache):
    """With as many beams as there are beginnings, the search leaves nothing out."""
    model = build(cell, vocabulary=4)
    model.generation_config.eos_token_id = None
    greedy_was_wrong = 0
    for start in (0, 2, 3) * 6:
        with torch.no_grad():
            for parameter in model.parameters():  # large enough for what came before to matter
                parameter.copy_(torch.randn_like(parameter))
        prompt = torch.tensor([[BOS, start]])
        best, score = enumerated_best(model, prompt, steps)
        options = {"max_new_tokens": steps, "do_sample": False, "use_cache": use_cache, "length_penalty": 0.0}
        options["attention_mask"] = torch.ones_like(prompt)  # token 0 is no padding here
        found = model.generate(
            input_ids=prompt, num_beams=beams, output_scores=True, return_dict_in_generate=True, **options
        )
        assert found.sequences[0, 2:].tolist() == best.tolist()
        assert found.sequences_scores[0] == pytest.approx(float(score), abs=1e-4)
        greedy = model.generate(input_ids=prompt, **options)
        greedy_was_wrong += greedy[0, 2:].tolist() != best.tolist()
    assert greedy_was_wrong or steps == 2  # else this test would say nothing about beams


def test_a_step_reads_one_token_however_many_came_before(monkeypatch):
    model, lengths = build(), []
    forward = type(model).forward

    def watched(self, input_ids, **options):
        lengths.append(input_ids.shape[1])
        return forward(self, input_ids, **options)

    monkeypatch.setattr(type(model), "forward", watched)
    model.generate(input_ids=torch.randint(3, 7, (2, 50)), max_new_tokens=20, min_new_tokens=20, do_sample=True)
    assert lengths == [50] + [1] * 19


def test_labels_are_shifted_as_in_transformers_own_models():
    model, ids = build(), torch.randint(3, 7, (2, 6))
    labels = ids.clone()
    labels[0, :3] = -100
    output = model(input_ids=ids, labels=labels)
    losses = torch.nn.functional.cross_entropy(output.logits[:, :-1].transpose(1, 2), ids[:, 1:], reduction="none")
    assert output.loss.item() == pytest.approx(torch.cat([losses[0, 2:], losses[1]]).mean().item())


def test_tied_weights_are_one_tensor_also_when_loaded(tmp_path):
    model = build()
    assert model.lm_head.weight is model.embedding.weight
    model.save_pretrained(tmp_path)
    loaded = RecurrentForCausalLM.from_pretrained(tmp_path)
    assert loaded.lm_head.weight is loaded.embedding.weight
    ids = torch.randint(3, 7, (2, 6))
    assert torch.equal(loaded(input_ids=ids).logits, model(input_ids=ids).logits)


def test_locked_dropout_has_one_mask_for_all_steps_and_weight_dropout_hits_recurrent_weights_alone():
    model = build(layers=1)
    model.config.dropout = 0.5
    model.train()
    dropped = model._locked_dropout(torch.ones(3, 5, 12))
    assert (dropped == dropped[:, :1]).all()
    assert set(dropped.unique().tolist()) == {0.0, 2.0}
    assert not (dropped[0] == dropped[1]).all()
    model.config.dropout, model.config.weight_dropout = 0.0, 0.5
    ids, weights = torch.randint(3, 7, (2, 6)), model.layers[0].weight_hh_l0.clone()
    one, other = model(input_ids=ids).logits, model(input_ids=ids).logits
    assert torch.allclose(one[:, 0], other[:, 0])  # nothing is carried to the first step
    assert not torch.allclose(one[:, 1:], other[:, 1:])
    other.sum().backward()
    assert model.layers[0].weight_hh_l0.grad.abs().sum() > 0
    assert torch.equal(model.layers[0].weight_hh_l0, weights)


def test_adaptive_softmax_gives_the_losses_of_its_own_probabilities():
    model = build(vocabulary=40, tie_word_embeddings=False, adaptive_softmax_cutoffs=[8, 20])
    ids = torch.randint(3, 40, (3, 9))
    batch = {"input_ids": ids[:, :-1], "labels": ids[:, 1:].clone()}
    batch["labels"][0, :4] = -100
    with torch.no_grad():
        logits = model(input_ids=batch["input_ids"]).logits
    assert torch.allclose(logits.exp().sum(dim=-1), torch.ones(3, 8), atol=1e-5)
    batch["labels"][1] = logits[1].argmax(dim=-1)
    expected = torch.nn.functional.cross_entropy(logits.transpose(1, 2), batch["labels"], reduction="sum")
    assert tasks.loss_sum(model, batch).item() == pytest.approx(expected.item(), rel=1e-5)
    with torch.no_grad():
        of_rows = tasks.outputs(model, batch)
    assert of_rows[:, 0].sum() == pytest.approx(expected.item(), rel=1e-5)
    hits = (logits.argmax(dim=-1) == batch["labels"]).sum(dim=1)
    assert hits[1] == 8
    assert of_rows[:, 1] == pytest.approx(hits.numpy())
    model.train()  # where it is told what is sought
    assert tasks.loss_sum(model, batch).item() == pytest.approx(expected.item(), rel=1e-5)
    prompt = {"input_ids": torch.tensor([[BOS, 5]]), "attention_mask": torch.ones(1, 2, dtype=torch.long)}
    assert model.eval().generate(**prompt, max_new_tokens=5, min_new_tokens=5).shape == (1, 7)


def test_it_reads_in_one_direction():
    with pytest.raises(ValueError, match="left to right"):
        build(bidirectional=True)
