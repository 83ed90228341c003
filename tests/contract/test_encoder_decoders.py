"""What every model with an encoder for its prompt promises: answers learnt, whatever the batch, cache or loader."""

import json
import shutil

import pytest
import torch
from command_line import fails
from crashes import Crash, crash_at
from decoders import CONTEXT, write_pairs
from encoder_decoders import FROM_SCRATCH, PRETRAINED, pairs_recipe
from safetensors.torch import load_file
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from finetune.cli import main
from finetune.generate import load_generator
from finetune.predict import evaluate_split
from finetune.recipe import parse_recipe
from finetune.training import train


@pytest.fixture(scope="module", params=[*FROM_SCRATCH, *PRETRAINED])
def trained(request, tmp_path_factory):
    """(what was learnt as pairs of prompt and answer, the run, its generator)."""
    directory = tmp_path_factory.mktemp(request.param)
    run = train(parse_recipe(pairs_recipe(directory, request.param)))
    return write_pairs(directory / "again.jsonl", 8), run, load_generator(str(run.path))


def written(generator, prompts, **options):
    return [texts[0].text.strip() for texts in generator.generate(prompts, {"max_new_tokens": 40, **options})]


def test_it_learns_eight_answers_by_heart_and_stops_by_itself(trained):
    pairs, run, generator = trained
    answers = generator.generate([prompt for prompt, _ in pairs], {"max_new_tokens": 40})
    assert [texts[0].text.strip() for texts in answers] == [answer for _, answer in pairs]
    assert all(texts[0].stopped for texts in answers)
    scores = run.scores()
    metrics = scores["splits"]["test"]["metrics"]
    assert metrics["token_accuracy"]["value"] > 0.95
    assert metrics["bits_per_byte"]["value"] < metrics["bits_per_character"]["value"] < 1.0
    assert scores["samples"]["metrics"]["chrf"] == 100


def test_plain_transformers_writes_the_same(trained):
    pairs, run, _ = trained
    model = AutoModelForSeq2SeqLM.from_pretrained(run.model_directory)
    tokenizer = AutoTokenizer.from_pretrained(run.model_directory)
    assert model.dtype == torch.float32
    batch = tokenizer([prompt for prompt, _ in pairs], return_tensors="pt", padding=True)
    texts = tokenizer.batch_decode(model.generate(**batch, max_new_tokens=40), skip_special_tokens=True)
    assert [text.strip() for text in texts] == [answer for _, answer in pairs]


def test_a_batch_writes_what_single_prompts_do(trained):
    pairs, _, generator = trained
    prompts = [*(prompt for prompt, _ in pairs), "배우", "", "a" * 300, "3 어제 봤는데 " * 3]
    for options in ({}, {"num_beams": 3}, {"use_cache": False}):
        together = written(generator, prompts, **options)
        assert together == [written(generator, [prompt], **options)[0] for prompt in prompts]


def test_the_cache_changes_nothing(trained):
    pairs, _, generator = trained
    prompts = [*(prompt for prompt, _ in pairs[:3]), "배우", ""]
    assert written(generator, prompts) == written(generator, prompts, use_cache=False)
    assert written(generator, prompts, num_beams=3) == written(generator, prompts, num_beams=3, use_cache=False)


def test_prompts_and_answers_of_any_length(trained):
    _, _, generator = trained
    for prompt in ("", " ".join(["영화"] * 5 * CONTEXT)):
        assert generator.generate([prompt], {"max_new_tokens": 10 * CONTEXT, "min_new_tokens": 5})[0][0].tokens >= 5


def test_a_seed_decides_what_is_sampled(trained):
    _, _, generator = trained
    options = {"max_new_tokens": 10, "temperature": 3.0, "num_return_sequences": 4}
    one, again, other = (generator.generate(["배우"], options, seed=seed) for seed in (1, 1, 2))
    assert one == again != other
    assert len(one[0]) == 4


def test_it_is_streamed_by_commands(trained, capsys):
    pairs, run, generator = trained
    prompt, answer = pairs[1]
    assert main(["generate", str(run.path), prompt]) == 0
    # A prompt that an encoder reads is not what the answer begins with.
    assert capsys.readouterr().out.strip() == answer
    assert "".join(generator.pieces(prompt)).strip() == answer
    assert main(["generate", str(run.path), prompt, "--num_beams", "2", "--num_return_sequences", "2"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.strip() == answer
    assert not second.startswith(prompt)


def test_it_is_scored_again_as_at_first(trained):
    _, run, _ = trained
    before = run.scores()["splits"]["validation"]
    assert evaluate_split(str(run.path), "validation")["metrics"] == before["metrics"]


def test_adapters_are_merged_and_write_the_same(tmp_path):
    tree = pairs_recipe(
        tmp_path, "t5", model={"tuning": "lora", "lora": {"rank": 16}}, training={"learning_rate": 3e-2}
    )
    run = train(parse_recipe(tree))
    assert json.loads((run.adapter_directory / "adapter_config.json").read_text())["task_type"] == "SEQ_2_SEQ_LM"
    first = run.scores()["splits"]["validation"]["metrics"]
    assert evaluate_split(str(run.path), "validation")["metrics"]["loss"]["value"] == pytest.approx(
        first["loss"]["value"], rel=1e-5
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {"prompt_column": None}}, "writes after a prompt; name its data.prompt_column"),
        ({"model": {"hidden_size": 47}}, "hidden_size 47 is odd"),
        ({"model": {"cell": "gru", "forget_bias": 2.0}}, "forget_bias is for cell lstm"),
        ({"model": {"teacher_forcing": 1.5}}, "model.teacher_forcing"),
        ({"task": "classify", "data": {"prompt_column": None}}, "model.family seq2seq learns to generate"),
        ({"generation": {"do_sample": True, "num_beams": 2}}, "num_beams looks for the likeliest text"),
        ({"generation": {"temperature": 0.5}}, "temperature and top_p are for do_sample true"),
        ({"model": {"family": "encoder_decoder"}}, "set exactly one of model_name_or_path and from_scratch"),
    ],
)
def test_what_does_not_go_together_is_refused(tmp_path, capsys, monkeypatch, changes, message):
    monkeypatch.chdir(tmp_path)
    tree = pairs_recipe(tmp_path, "lstm-general", **changes)
    if changes.get("model", {}).get("family"):
        tree["model"] = changes["model"]
    (tmp_path / "mine.yaml").write_text(json.dumps(tree), encoding="utf-8")
    assert message in fails(capsys, "train", "mine.yaml")
    assert not (tmp_path / "runs").exists()


def test_a_decoder_is_no_encoder_decoder(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tree = pairs_recipe(tmp_path, "lstm-general")
    tree["model"] = {"family": "encoder_decoder", "model_name_or_path": "embedded:mini-gpt-ko"}
    (tmp_path / "mine.yaml").write_text(json.dumps(tree), encoding="utf-8")
    line = fails(capsys, "train", "mine.yaml")
    assert "embedded:mini-gpt-ko" in line or "end token" in line


def test_where_it_looked_is_kept_and_shown(trained, tmp_path):
    _, run, _ = trained
    maps = run.attention_maps()
    looks_back = "none" not in run.name
    assert len(maps) == (3 if looks_back else 0)
    for found in maps:
        assert all(len(row) == len(found["source"]) for row in found["weights"])
        assert len(found["weights"]) == len(found["target"])
        assert all(abs(sum(row) - 1) < 0.01 for row in found["weights"])
    other = shutil.copytree(run.path, tmp_path / "other")
    assert main(["compare", str(run.path), str(other), "--output", str(tmp_path / "report")]) == 0
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert ("Where they looked" in page) == looks_back
    assert page.count("where it looked for sample") == 2 * len(maps)
    assert "100.0 %" in page.split("Exactly right")[1]


def test_a_crashed_run_goes_on_to_the_same_end(tmp_path, monkeypatch):
    """With tokens of its own among what the decoder is shown, which are drawn by epoch and row."""
    outcomes = []
    for name, step in (("undisturbed", None), ("crashed", 31)):
        (tmp_path / name).mkdir()
        recipe = parse_recipe(
            pairs_recipe(
                tmp_path / name,
                "lstm-general",
                model={"teacher_forcing": 0.3, "dropout": 0.2},
                training={"num_train_epochs": 40, "save_steps": 7, "batch_size": 4},
                generation={"samples": 2},
            )
        )
        if step is not None:
            with monkeypatch.context() as patch:
                crash_at(patch, step)
                with pytest.raises(Crash):
                    train(recipe)
        run = train(recipe, resume=True)
        log = [{key: value for key, value in record.items() if key != "seconds"} for record in run.log()]
        outcomes.append((load_file(run.model_directory / "model.safetensors"), log))
    (weights, log), (others, other_log) = outcomes
    assert log == other_log
    assert all(torch.equal(weights[name], others[name]) for name in weights)
