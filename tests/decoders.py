"""Tiny random decoders, each with the tokenizer files and the traps of the real ones, and recipes that train them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from reviews import review_rows
from tokenizers import ByteLevelBPETokenizer
from tokenizers.processors import TemplateProcessing
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

TEXTS = [text for text, _ in review_rows(300)]
CONTEXT = 48
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
LLAMA_SIZES: dict[str, Any] = {**SIZES, "num_key_value_heads": 1, "max_position_embeddings": CONTEXT}
WRITERS: dict[str, dict[str, Any]] = {
    "gpt2-scratch": {"family": "decoder", "from_scratch": SIZES, "dropout": 0.0},
    "lstm": {"family": "recurrent", "cell": "lstm", "embedding_size": 32, "hidden_size": 48, "dropout": 0.0},
    "gru-stacked": {
        "family": "recurrent",
        "cell": "gru",
        "embedding_size": 48,
        "hidden_size": 64,
        "num_layers": 2,
        "dropout": 0.0,
    },
    "rnn-untied": {
        "family": "recurrent",
        "cell": "rnn",
        "embedding_size": 32,
        "hidden_size": 48,
        "tie_embeddings": False,
        "dropout": 0.0,
    },
    "lstm-adaptive": {
        "family": "recurrent",
        "cell": "lstm",
        "adaptive_softmax_cutoffs": [20, 30],
        "embedding_size": 64,
        "hidden_size": 128,
        "tie_embeddings": False,
        "dropout": 0.0,
    },
}
"""Models from scratch that write; what is promised of all of them is tested for each, and for `DECODERS`."""


def _byte_level(directory: Path, specials: list[str], **names: str) -> PreTrainedTokenizerFast:
    backend = ByteLevelBPETokenizer()
    backend.train_from_iterator(TEXTS, vocab_size=500, special_tokens=specials, show_progress=False)
    backend.save(str(directory / "raw.json"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(directory / "raw.json"), **names)
    (directory / "raw.json").unlink()
    return tokenizer


def gpt2(directory: Path) -> PreTrainedModel:
    """One special token for everything, and none to pad with."""
    end = "<|endoftext|>"
    tokenizer = _byte_level(directory, [end], bos_token=end, eos_token=end, unk_token=end)
    tokenizer.save_pretrained(directory)
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": CONTEXT}
    # The end token's id of the real ones, which is none of this vocabulary's: it is not to be believed.
    return GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **sizes))


def llama(directory: Path) -> PreTrainedModel:
    """A tokenizer that begins every text with <s>."""
    tokenizer = _byte_level(directory, ["<unk>", "<s>", "</s>"], bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.save_pretrained(directory)
    config = LlamaConfig(vocab_size=len(tokenizer), bos_token_id=1, eos_token_id=2, **LLAMA_SIZES)
    return LlamaForCausalLM(config)


def qwen2(directory: Path) -> PreTrainedModel:
    """No start token, a pad token of its own, and more embeddings than tokens."""
    end = "<|im_end|>"
    tokenizer = _byte_level(directory, ["<|endoftext|>", "<|im_start|>", end], eos_token=end, pad_token="<|endoftext|>")
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    tokenizer.save_pretrained(directory)
    return Qwen2ForCausalLM(Qwen2Config(vocab_size=len(tokenizer) + 40, **LLAMA_SIZES))


DECODERS: dict[str, Callable[[Path], PreTrainedModel]] = {"gpt2": gpt2, "llama": llama, "qwen2": qwen2}


def write_decoder(directory: Path, architecture: str) -> Path:
    """A checkpoint directory with random weights."""
    directory.mkdir(parents=True, exist_ok=True)
    DECODERS[architecture](directory).save_pretrained(directory)
    return directory


def write_pairs(path: Path, count: int) -> list[tuple[str, str]]:
    """A JSONL file of prompts and what follows them; returns both."""
    pairs = [(f"{number} {text.split()[0]}", text) for number, text in enumerate(TEXTS[:count])]
    lines = [json.dumps({"prompt": prompt, "text": text}, ensure_ascii=False) for prompt, text in pairs]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return pairs


def writing_recipe(directory: Path, name: str, **sections: Any) -> dict[str, Any]:
    """A recipe that learns eight answers by heart in seconds."""
    model = WRITERS.get(name)
    if model is None:
        checkpoint = write_decoder(directory / "checkpoint", name)
        model = {"family": "decoder", "model_name_or_path": str(checkpoint), "dropout": 0.0}
    pairs, epochs = str(directory / "pairs.jsonl"), 300 if model["family"] == "recurrent" else 60
    write_pairs(directory / "pairs.jsonl", 8)
    tree: dict[str, Any] = {
        "name": name,
        "output_dir": str(directory / "runs"),
        "task": "generate",
        "data": {"train_file": pairs, "validation_file": pairs, "test_file": pairs, "prompt_column": "prompt"},
        "text": {
            "vocabulary_size": 300,
            "min_frequency": 1,
            "max_length": CONTEXT,
            "unit": "whitespace" if "adaptive" in name else "subword",
        },
        "model": model,
        "training": {
            "num_train_epochs": epochs,
            "batch_size": 8,
            "learning_rate": 1e-2,
            "warmup_ratio": 0.0,
            "lr_scheduler_type": "linear",
            "eval_steps": epochs,
            "threads": 1,
        },
        "evaluation": {"bootstrap_samples": 100},
    }
    for section, values in sections.items():
        tree[section] = {**tree.get(section, {}), **values} if isinstance(values, dict) else values
    return tree
