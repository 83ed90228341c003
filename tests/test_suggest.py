"""Words to go on with: their probabilities are the model's, they begin as typed, and they come while one types."""

import math
import time

import pytest
import torch
from command_line import fails
from decoders import writing_recipe
from encoder_decoders import pairs_recipe

from finetune.cli import main
from finetune.generate import load_generator
from finetune.recipe import parse_recipe
from finetune.training import train

MINI = "embedded:mini-gpt-ko"


@pytest.fixture(scope="module")
def mini():
    return load_generator(MINI)


def next_log_probabilities(generator, ids):
    with torch.inference_mode():
        return generator.model(input_ids=torch.tensor([ids])).logits[0, -1].float().log_softmax(dim=-1)


def begins_word(generator):
    tokens = generator.tokenizer.convert_ids_to_tokens(list(range(len(generator.tokenizer))))
    special = set(generator.tokenizer.all_special_ids)
    return torch.tensor([i in special or token.startswith("▁") for i, token in enumerate(tokens)])


def probability_of(generator, before, word):
    """Of a word's tokens one after the other, and of a word's beginning or the end behind them."""
    total, ids = 0.0, list(before)
    for token in word:
        total += float(next_log_probabilities(generator, ids)[token])
        ids.append(token)
    ending = next_log_probabilities(generator, ids)[begins_word(generator)].logsumexp(dim=0)
    return math.exp(total + float(ending))


def test_behind_a_space_a_words_probability_is_that_of_its_tokens(mini):
    prompt = "배우들 연기가 "
    words = mini.suggest(prompt)
    assert len(words) == 5
    assert [word.probability for word in words] == sorted((word.probability for word in words), reverse=True)
    before = mini.encode(prompt.rstrip(), 1)
    for word in words:
        assert word.text.startswith(" ")
        tokens = mini.tokenizer(word.text, add_special_tokens=False)["input_ids"]
        # Its likeliest tokens are the tokenizer's own, or others of the same text.
        assert word.probability >= probability_of(mini, before, tokens) - 1e-6
    first = mini.tokenizer(words[0].text, add_special_tokens=False)["input_ids"]
    assert words[0].probability == pytest.approx(probability_of(mini, before, first), rel=1e-4)


def test_what_is_typed_is_read_anew_as_a_part_of_the_whole(mini):
    words = mini.suggest("배우들 연")
    assert words[0].text.startswith("기")  # 연기: acting; its one token begins with no token of 연
    assert 0.1 < sum(word.probability for word in words) <= 1.0
    whole = mini.suggest("배우들 ", count=50)
    among = [word for word in whole if word.text.strip().startswith("연")]
    # Among words that begin so, as often as the words that are looked at behind the space have it.
    if len(among) > 1:
        ratio = among[0].probability / among[1].probability
        shown = {word.text: word.probability for word in words}
        one, other = (word.text.strip().removeprefix("연") for word in among[:2])
        assert shown[one] / shown[other] == pytest.approx(ratio, rel=1e-3)


@pytest.mark.parametrize("prompt", ["", " ", "정", "정말 재미있", "ㅋㅋㅋ ", "zzzqqq", "긴 글 " * 200])
def test_any_prompt_is_gone_on_from(mini, prompt):
    words = mini.suggest(prompt, count=3)
    assert len(words) <= 3
    assert all(0 < word.probability <= 1 for word in words)
    assert len({word.text for word in words}) == len(words)


def test_it_is_fast_enough_to_type_with(mini):
    mini.suggest("정말 ")
    started = time.perf_counter()
    for prompt in ("정", "정말", "정말 ", "정말 재", "정말 재미"):
        mini.suggest(prompt)
    assert (time.perf_counter() - started) / 5 < 1.0  # some 0.05 s where nothing else runs


def test_where_each_token_is_a_word_they_are_the_likeliest_tokens(tmp_path):
    tree = writing_recipe(tmp_path, "lstm-adaptive", training={"num_train_epochs": 5, "eval_steps": 5})
    tree["model"] |= {"adaptive_softmax_cutoffs": []}
    generator = load_generator(str(train(parse_recipe(tree)).path))
    prompt = "어제 봤는데 "
    found = next_log_probabilities(generator, generator.encode(prompt.rstrip(), 1)).clone()
    found[generator.tokenizer.all_special_ids] = -math.inf
    best = found.topk(5)
    words = generator.suggest(prompt)
    assert [word.text.strip() for word in words] == generator.tokenizer.convert_ids_to_tokens(best.indices.tolist())
    assert [word.probability for word in words] == pytest.approx(best.values.exp().tolist(), rel=1e-4)


def test_the_command(capsys, tmp_path):
    assert main(["suggest", MINI, "배우들 연기가 ", "--count", "3"]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == 3
    assert all(0 < float(probability) < 1 and word for probability, word in lines)
    assert "--count 0" in fails(capsys, "suggest", MINI, "글", "--count", "0")
    tree = pairs_recipe(tmp_path, "rnn-none", training={"num_train_epochs": 1, "eval_steps": 1})
    run = train(parse_recipe(tree))
    assert "this one answers prompts" in fails(capsys, "suggest", str(run.path), "글")
