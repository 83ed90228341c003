"""The proof of a push: the files to be pushed, loaded as a stranger would, say what the trained model said.

    python -P proof.py DIRECTORY

It is run in a process of its own, by its path: plain transformers (peft for an adapter) and no part of this package.
The last line of its output is JSON, `{"problems": [...], "shown": [...]}`.
"""

import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
import transformers

_AUTO_CLASSES = {
    "classify": "AutoModelForSequenceClassification",
    "multi_label": "AutoModelForSequenceClassification",
    "rate": "AutoModelForSequenceClassification",
    "masked_lm": "AutoModelForMaskedLM",
    "generate": "AutoModelForCausalLM",
}
_TOLERANCE = 1e-5
"""Of logits, relative to the largest, where rounding is the same; merged and separate adapters round differently."""
_ELSEWHERE, _ADAPTER = 1e-3, 1e-4
_WRITTEN_TEXTS, _NEW_TOKENS = 16, 192


def prove(directory: Path) -> dict[str, list[str]]:
    """What is wrong with the files of `directory`, a line each, and what was shown of them."""
    probe = json.loads((directory / "probe.json").read_text(encoding="utf-8"))
    problems: list[str] = []
    try:
        model, loading = _load(directory, probe)
        tokenizer = transformers.AutoTokenizer.from_pretrained(directory, trust_remote_code=False)
    except Exception as error:  # noqa: BLE001  whatever a stranger would meet is what has to be told
        return {"problems": [f"plain transformers cannot load it: {' '.join(str(error).split())[:400]}"], "shown": []}
    for kind in ("missing_keys", "mismatched_keys", "unexpected_keys"):
        if loading.get(kind):
            key = sorted(str(key) for key in loading[kind])[0]
            problems.append(f"weights: {len(loading[kind])} {kind.replace('_', ' ')}, such as {key}")
    labels = [model.config.id2label[i] for i in range(len(model.config.id2label))]
    if probe["labels"] and labels != probe["labels"]:
        problems.append(f"labels: {', '.join(labels)}; the trained model has {', '.join(probe['labels'])}")
    if probe["task"] == "multi_label" and model.config.problem_type != "multi_label_classification":
        problems.append(f"problem_type: {model.config.problem_type}; probabilities would not be each label's own")
    ids = [
        tokenizer(text, pair, truncation=True, max_length=probe["max_length"])["input_ids"]
        for text, pair in zip(probe["texts"], probe["pairs"], strict=True)
    ]
    if ids != probe["input_ids"]:
        wrong = next(i for i, of_text in enumerate(ids) if of_text != probe["input_ids"][i])
        problems.append(f"tokenizer: other ids than in training for {probe['texts'][wrong]!r}: not the model's own")
    difference, tolerance = _difference(model, tokenizer, probe)
    if not difference <= tolerance:
        problems.append(
            f"logits: {difference:.2g} away from those of the trained model, at most {tolerance:.2g} is rounding: "
            "other weights, or a head that was not trained"
        )
    shown = [
        f"{len(ids)} texts: the tokenizer's ids are those of training",
        f"logits within {difference:.2g} of the trained model's (at most {tolerance:.2g})",
        *([f"labels in their order: {', '.join(labels)}"] if probe["labels"] else []),
    ]
    if probe["task"] == "generate" and not problems:
        problem, said = _stops(directory, model, tokenizer, probe)
        problems += [problem] if problem else []
        shown.append(said)
    return {"problems": problems, "shown": shown}


def _load(directory: Path, probe: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The model in float32 and what transformers said of its loading."""
    if (directory / "adapter_config.json").exists():
        import peft

        adapted = getattr(peft, "AutoPeftModelForSeq2SeqLM" if _has_encoder(probe) else "AutoPeftModelForCausalLM")
        return adapted.from_pretrained(directory, dtype=torch.float32).eval(), {}
    # Code is run where it is this project's own, which was put beside the weights.
    is_ours = (directory / "pooling.py").exists()
    name = "AutoModelForSeq2SeqLM" if _has_encoder(probe) else _AUTO_CLASSES[probe["task"]]
    model, loading = getattr(transformers, name).from_pretrained(
        directory, dtype=torch.float32, output_loading_info=True, trust_remote_code=is_ours
    )
    return model.eval(), loading


def _has_encoder(probe: dict[str, Any]) -> bool:
    """Whether the model reads with an encoder what its decoder writes after."""
    return probe.get("decoder_start") is not None


def _difference(model: Any, tokenizer: Any, probe: dict[str, Any]) -> tuple[float, float]:
    """How far the logits are from the probe's at most, and how far rounding may bring them."""
    worst, largest = 0.0, 1.0
    with torch.inference_mode():
        for text, pair, expected in zip(probe["texts"], probe["pairs"], probe["logits"], strict=True):
            encoded = tokenizer(text, pair, truncation=True, max_length=probe["max_length"], return_tensors="pt")
            if _has_encoder(probe):
                encoded["decoder_input_ids"] = torch.tensor([[probe["decoder_start"]]])
            logits = model(**encoded).logits[0].double()
            found = logits[-1, probe["places"]] if probe["places"] else logits
            known = torch.tensor(expected, dtype=torch.float64)
            if found.shape != known.shape or not torch.isfinite(found).all():
                return float("inf"), _TOLERANCE
            worst = max(worst, (found - known).abs().max().item())
            largest = max(largest, known.abs().max().item())
    here = {
        "device": "cpu",
        "processor": platform.processor() or platform.machine(),
        "torch": torch.__version__.partition("+")[0],
        "dtype": "float32",
    }
    is_adapter = type(model).__name__.startswith("Peft")
    tolerance = _TOLERANCE if probe["computed_on"] == here else _ELSEWHERE
    return worst, largest * (max(tolerance, _ADAPTER) if is_adapter else tolerance)


def _stops(directory: Path, model: Any, tokenizer: Any, probe: dict[str, Any]) -> tuple[str | None, str]:
    """Whether what is generated ends by itself: what is wrong, if anything, and what was shown."""
    ends = model.generation_config.eos_token_id
    ends = [ends] if isinstance(ends, int) else list(ends or [])
    if tokenizer.eos_token_id not in ends:
        return f"generation: stops at {ends}, and the tokenizer's end token is {tokenizer.eos_token_id}", "no end token"
    scores = json.loads((directory / "scores.json").read_text(encoding="utf-8"))
    samples = scores.get("samples", {})
    share, settings = samples.get("metrics", {}).get("stopped"), samples.get("settings", {})
    length = settings.get("max_new_tokens", _NEW_TOKENS)
    torch.manual_seed(0)
    positions = getattr(model.config, "max_position_embeddings", None) or sys.maxsize
    stopped, of_each = 0, max(1, _WRITTEN_TEXTS // len(probe["prompt_ids"]))
    for prompt in probe["prompt_ids"]:
        before = 1 if _has_encoder(probe) else len(prompt)
        room = max(1, min(length, positions - before))
        with torch.inference_mode():
            written = model.generate(
                input_ids=torch.tensor([prompt] * of_each),
                attention_mask=torch.ones(of_each, len(prompt), dtype=torch.long),
                do_sample=True,
                top_k=0,
                temperature=settings.get("temperature", 1.0),
                top_p=settings.get("top_p", 1.0),
                max_new_tokens=room,
                pad_token_id=tokenizer.pad_token_id,
            )
        stopped += int(torch.isin(written[:, before:], torch.tensor(ends)).any(dim=1).sum())
    said = f"{stopped} of {of_each * len(probe['prompt_ids'])} texts ended by themselves within {length} tokens"
    # A model that never ended a text of its own accord in training's samples has no such promise to keep.
    if share and share > 0.5 and not stopped:
        return f"generation: {said}; of the run's own samples {share:.0%} did", said
    return None, said


if __name__ == "__main__":
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    result = prove(Path(sys.argv[1]))
    assert "finetune" not in sys.modules
    print(json.dumps(result, ensure_ascii=False))
