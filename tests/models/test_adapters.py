"""LoRA: the base stays, the adapter alone is saved and merged, and both give the same logits."""

import json

import pytest
import torch
from decoders import DECODERS, write_pairs, writing_recipe
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from finetune.errors import UserError
from finetune.generate import load_generator
from finetune.recipe import parse_recipe
from finetune.training import train


@pytest.fixture(scope="module", params=list(DECODERS))
def adapted(request, tmp_path_factory):
    """(the base's model directory, the run whose adapters learnt other answers than the base, its pairs)."""
    directory = tmp_path_factory.mktemp(request.param)
    base = train(parse_recipe(writing_recipe(directory, request.param)))
    pairs = write_pairs(directory / "others.jsonl", 4)
    others = [(prompt, answer) for (prompt, _), (_, answer) in zip(pairs, [*pairs[1:], pairs[0]], strict=True)]
    lines = [json.dumps({"prompt": prompt, "text": answer}, ensure_ascii=False) for prompt, answer in others]
    (directory / "others.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    model = {
        "family": "decoder",
        "model_name_or_path": str(base.model_directory),
        "tuning": "lora",
        "lora": {"rank": 8, "alpha": 32},
        "dropout": 0.0,
    }
    files = dict.fromkeys(("train_file", "validation_file", "test_file"), str(directory / "others.jsonl"))
    training = {"num_train_epochs": 150, "eval_steps": 150}
    tree = writing_recipe(directory, request.param, data=files, training=training)
    return base.model_directory, train(parse_recipe({**tree, "name": "lora", "model": model})), others


def test_the_adapters_learn_and_the_base_stays(adapted):
    base, run, others = adapted
    generator = load_generator(str(run.path))
    answers = generator.generate([prompt for prompt, _ in others], {"max_new_tokens": 40})
    assert [texts[0].text.strip() for texts in answers] == [answer for _, answer in others]
    cost = run.scores()["cost"]
    assert cost["trainable_parameters"] < 0.5 * cost["parameters"]
    before, after = (load_file(directory / "model.safetensors") for directory in (base, run.model_directory))
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(before[name].ndim == 2 and "embed" not in name and "wte" not in name for name in changed)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft asks transformers for something by its old name
def test_base_and_adapter_give_the_merged_models_logits(adapted):
    base, run, _ = adapted
    merged = AutoModelForCausalLM.from_pretrained(run.model_directory)
    beside = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(run.adapter_directory)).eval()
    ids = torch.randint(5, 200, (3, 12))
    with torch.no_grad():
        assert torch.allclose(merged(input_ids=ids).logits, beside(input_ids=ids).logits, atol=1e-4)


def test_the_adapter_names_no_directory_of_this_machine(adapted):
    _, run, _ = adapted
    names = {path.name for path in run.adapter_directory.iterdir()}
    assert names == {"adapter_config.json", "adapter_model.safetensors"}
    config = json.loads((run.adapter_directory / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["base_model_name_or_path"] == "model"
    weights = (run.adapter_directory / "adapter_model.safetensors").stat().st_size
    assert weights < 0.7 * (run.model_directory / "model.safetensors").stat().st_size


def test_what_cannot_be_adapted_is_refused(tmp_path):
    tree = writing_recipe(tmp_path, "gpt2", training={"max_steps": 1})
    tree["model"] |= {"tuning": "lora", "lora": {"target_modules": ["nothing"]}}
    with pytest.raises(UserError, match=r"model\.lora: .*nothing"):
        train(parse_recipe(tree))
    scratch = {"family": "decoder", "from_scratch": {}, "tuning": "lora"}
    with pytest.raises(UserError, match="random weights have to be trained"):
        parse_recipe({**tree, "model": scratch})
