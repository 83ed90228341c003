"""What every model that writes promises: it learns answers by heart, stops by itself, and neither batches nor caches
change what it writes."""

import pytest
import torch
from decoders import CONTEXT, DECODERS, WRITERS, write_pairs, writing_recipe
from transformers import AutoModelForCausalLM, AutoTokenizer

from finetune.generate import load_generator
from finetune.recipe import parse_recipe
from finetune.training import train


@pytest.fixture(scope="module", params=[*WRITERS, *DECODERS])
def trained(request, tmp_path_factory):
    """(what was learnt as pairs of prompt and answer, the run, its generator)."""
    directory = tmp_path_factory.mktemp(request.param)
    run = train(parse_recipe(writing_recipe(directory, request.param)))
    return write_pairs(directory / "again.jsonl", 8), run, load_generator(str(run.path))


def written(generator, prompts, **options):
    return [texts[0].text.strip() for texts in generator.generate(prompts, {"max_new_tokens": 40, **options})]


def test_it_learns_eight_answers_by_heart_and_stops_by_itself(trained):
    pairs, run, generator = trained
    answers = generator.generate([prompt for prompt, _ in pairs], {"max_new_tokens": 40})
    assert [texts[0].text.strip() for texts in answers] == [answer for _, answer in pairs]
    assert all(texts[0].stopped for texts in answers)
    metrics = run.scores()["splits"]["test"]["metrics"]
    assert metrics["token_accuracy"]["value"] > 0.95
    assert metrics["perplexity"]["value"] < 1.5
    assert metrics["bits_per_byte"]["value"] < metrics["bits_per_character"]["value"] < 1.0


def test_plain_transformers_writes_the_same(trained):
    pairs, run, generator = trained
    model = AutoModelForCausalLM.from_pretrained(run.model_directory)
    tokenizer = AutoTokenizer.from_pretrained(run.model_directory)
    assert model.dtype == torch.float32
    assert tokenizer.padding_side == "left"
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert model.generation_config.pad_token_id == tokenizer.pad_token_id
    prompts = [prompt for prompt, _ in pairs]
    if tokenizer("가")["input_ids"][:1] != [generator.encode("", 1)[0]]:
        prompts = [tokenizer.decode(generator.encode("", 1)) + prompt for prompt in prompts]
    batch = tokenizer(prompts, return_tensors="pt", padding=True)
    ids = model.generate(**batch, max_new_tokens=40, do_sample=False)
    texts = tokenizer.batch_decode(ids[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    assert [text.strip() for text in texts] == [answer for _, answer in pairs]


def test_a_batch_writes_what_single_prompts_do(trained):
    pairs, _, generator = trained
    prompts = [*(prompt for prompt, _ in pairs), "배우", "", "a" * 300, "3 어제 봤는데 " * 3]
    for options in ({}, {"max_new_tokens": 10 * CONTEXT, "repetition_penalty": 3.0}):
        together = written(generator, prompts, **options)
        assert together == [written(generator, [prompt], **options)[0] for prompt in prompts]


def test_the_cache_changes_nothing(trained):
    pairs, _, generator = trained
    prompts = [*(prompt for prompt, _ in pairs[:3]), "배우", ""]
    assert written(generator, prompts) == written(generator, prompts, use_cache=False)
    assert written(generator, prompts, num_beams=3) == written(generator, prompts, num_beams=3, use_cache=False)


@pytest.mark.parametrize("words", [0, CONTEXT - 1, CONTEXT, CONTEXT + 1, 5 * CONTEXT])
def test_prompts_of_any_length_are_gone_on_from(trained, words):
    _, _, generator = trained
    prompt = " ".join(["영화"] * words)
    for new_tokens in (1, 20, 10 * CONTEXT):
        ids, room = generator.encode(prompt, new_tokens), new_tokens
        assert ids[0] == generator.encode("", 1)[0]
        if generator.model.config.model_type != "finetune_recurrent":  # which has a state of one size, and no limit
            assert len(ids) < CONTEXT
            room = min(new_tokens, CONTEXT - len(ids))
        text = generator.generate([prompt], {"max_new_tokens": new_tokens, "min_new_tokens": room})[0][0]
        assert text.tokens == room


def test_a_seed_decides_what_is_sampled(trained):
    _, _, generator = trained
    options = {"max_new_tokens": 10, "temperature": 3.0, "num_return_sequences": 4}
    one, again, other = (generator.generate([""], options, seed=seed) for seed in (1, 1, 2))
    assert one == again != other
    assert len(one[0]) == 4
