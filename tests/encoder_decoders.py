"""Models with an encoder for the prompt: recurrent from scratch, and tiny random T5 and BART with their tokenizers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from decoders import CONTEXT, TEXTS, write_pairs
from tokenizers import ByteLevelBPETokenizer, SentencePieceUnigramTokenizer
from tokenizers.processors import TemplateProcessing
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

_SIZES: dict[str, Any] = {"family": "seq2seq", "embedding_size": 32, "hidden_size": 48, "dropout": 0.0}
FROM_SCRATCH: dict[str, dict[str, Any]] = {
    "lstm-general": _SIZES,
    "gru-additive": {**_SIZES, "cell": "gru", "attention": "additive", "num_layers": 2, "input_feeding": False},
    "rnn-none": {**_SIZES, "cell": "rnn", "attention": "none"},
}


def t5(directory: Path) -> PreTrainedModel:
    """Texts end in </s>; the decoder starts from the padding; more embeddings than tokens."""
    backend = SentencePieceUnigramTokenizer()
    backend.train_from_iterator(
        TEXTS, vocab_size=400, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    backend.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend._tokenizer, **names)
    tokenizer.save_pretrained(directory)
    config = T5Config(
        vocab_size=len(tokenizer) + 28,
        d_model=48,
        d_kv=16,
        d_ff=96,
        num_layers=2,
        num_heads=3,
        decoder_start_token_id=0,
    )
    return T5ForConditionalGeneration(config)


def bart(directory: Path) -> PreTrainedModel:
    """Texts are <s> ... </s>; the decoder starts from the end token; positions are learnt."""
    backend = ByteLevelBPETokenizer()
    backend.train_from_iterator(
        TEXTS, vocab_size=400, special_tokens=["<s>", "<pad>", "</s>", "<unk>"], show_progress=False
    )
    backend.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    names = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend._tokenizer, **names)
    tokenizer.save_pretrained(directory)
    sizes = {"encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    widths = {"d_model": 32, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
    return BartForConditionalGeneration(
        BartConfig(vocab_size=len(tokenizer), max_position_embeddings=CONTEXT, **sizes, **widths)
    )


PRETRAINED: dict[str, Callable[[Path], PreTrainedModel]] = {"t5": t5, "bart": bart}


def pairs_recipe(directory: Path, name: str, **sections: Any) -> dict[str, Any]:
    """A recipe that learns eight answers by heart in seconds."""
    model = FROM_SCRATCH.get(name)
    if model is None:
        checkpoint = directory / "checkpoint"
        torch.manual_seed(0)
        PRETRAINED[name](checkpoint).save_pretrained(checkpoint)
        model = {"family": "encoder_decoder", "model_name_or_path": str(checkpoint), "dropout": 0.0}
    pairs = str(directory / "pairs.jsonl")
    write_pairs(directory / "pairs.jsonl", 8)
    epochs = 250 if model["family"] == "seq2seq" else 150
    tree: dict[str, Any] = {
        "name": name,
        "output_dir": str(directory / "runs"),
        "task": "generate",
        "data": {"train_file": pairs, "validation_file": pairs, "test_file": pairs, "prompt_column": "prompt"},
        "text": {"vocabulary_size": 300, "min_frequency": 1, "max_length": CONTEXT},
        "model": model,
        "training": {
            "num_train_epochs": epochs,
            "batch_size": 8,
            "learning_rate": 1e-2 if model["family"] == "seq2seq" else 4e-3,
            "warmup_ratio": 0.0,
            "eval_steps": epochs,
            "threads": 1,
        },
        "evaluation": {"bootstrap_samples": 100},
        "generation": {"samples": 8, "do_sample": False},
    }
    for section, values in sections.items():
        tree[section] = {**tree.get(section, {}), **values} if isinstance(values, dict) else values
    return tree
