"""Tiny random checkpoints of the BERT family, each with the tokenizer files and the traps of the real ones."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from kobert_standin import write_own_layout
from reviews import review_rows
from sentencepiece import SentencePieceTrainer
from tokenizers import ByteLevelBPETokenizer, Tokenizer, models, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing
from transformers import (
    AlbertConfig,
    AlbertForPreTraining,
    BertConfig,
    BertForMaskedLM,
    BertModel,
    DebertaV2Config,
    DebertaV2Model,
    DistilBertConfig,
    DistilBertForMaskedLM,
    ElectraConfig,
    ElectraForPreTraining,
    ModernBertConfig,
    ModernBertForMaskedLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
    XLMRobertaConfig,
    XLMRobertaForMaskedLM,
)

TEXTS = [text for text, _ in review_rows(300)]
SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}


def wordpiece(directory: Path, tokenizer_class: str, specials: tuple[str, ...]) -> int:
    """`vocab.txt`, as most Korean models publish it."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=400, special_tokens=list(specials), show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    vocabulary = tokenizer.get_vocab()
    (directory / "vocab.txt").write_text("\n".join(sorted(vocabulary, key=vocabulary.__getitem__)), encoding="utf-8")
    configure(directory, tokenizer_class=tokenizer_class, do_lower_case=False)
    return len(vocabulary)


def byte_level(directory: Path, specials: list[str]) -> ByteLevelBPETokenizer:
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(TEXTS, vocab_size=700, special_tokens=specials, show_progress=False)
    return tokenizer


def sentencepiece(file: Path, **symbols: Any) -> None:
    written = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS), model_writer=written, vocab_size=260, minloglevel=2, num_threads=1,
        hard_vocab_limit=False, **symbols,
    )  # fmt: skip
    file.write_bytes(written.getvalue())


def configure(directory: Path, **values: Any) -> None:
    (directory / "tokenizer_config.json").write_text(json.dumps(values), encoding="utf-8")


def bert(directory: Path) -> PreTrainedModel:
    """klue/bert-base: trained with a masked language model's head, and so without a pooler."""
    size = wordpiece(directory, "BertTokenizer", ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"))
    return BertForMaskedLM(BertConfig(vocab_size=size, **SIZES))


def kobert(directory: Path) -> PreTrainedModel:
    """skt/kobert-base-v1: a SentencePiece model said to be XLNet's, padding 1."""
    directory.rmdir()
    write_own_layout(directory)
    return BertModel(BertConfig(vocab_size=1202, pad_token_id=1, **SIZES))


def electra(directory: Path) -> PreTrainedModel:
    """KoELECTRA, KcELECTRA: embeddings narrower than the encoder, a discriminator's head, two layers in the head."""
    size = wordpiece(directory, "ElectraTokenizer", ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"))
    return ElectraForPreTraining(ElectraConfig(vocab_size=size, embedding_size=16, **SIZES))


def klue_roberta(directory: Path) -> PreTrainedModel:
    """klue/roberta-base: BERT's tokenizer, which gives two token types, for a model that has one."""
    size = wordpiece(directory, "BertTokenizer", ("[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]"))
    config = RobertaConfig(vocab_size=size, type_vocab_size=1, bos_token_id=0, pad_token_id=1, eos_token_id=2, **SIZES)
    return RobertaForMaskedLM(config)


def roberta(directory: Path) -> PreTrainedModel:
    """FacebookAI/roberta-base: bytes, and positions that begin behind the padding index."""
    tokenizer = byte_level(directory, ["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    tokenizer.save_model(str(directory))
    configure(directory, tokenizer_class="RobertaTokenizer")
    config = RobertaConfig(vocab_size=tokenizer.get_vocab_size(), type_vocab_size=1, **SIZES)
    return RobertaForMaskedLM(config)


def xlm_roberta(directory: Path) -> PreTrainedModel:
    """FacebookAI/xlm-roberta-base: ids one above those of its SentencePiece model."""
    sentencepiece(directory / "sentencepiece.bpe.model")
    configure(directory, tokenizer_class="XLMRobertaTokenizer")
    return XLMRobertaForMaskedLM(XLMRobertaConfig(vocab_size=262, type_vocab_size=1, **SIZES))


def distilbert(directory: Path) -> PreTrainedModel:
    """distilbert-base: no token types, other names for everything."""
    size = wordpiece(directory, "DistilBertTokenizer", ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"))
    config = DistilBertConfig(vocab_size=size, dim=32, n_layers=2, n_heads=2, hidden_dim=64, max_position_embeddings=64)
    return DistilBertForMaskedLM(config)


def albert(directory: Path) -> PreTrainedModel:
    """albert-base-v2: one layer's weights for all, embeddings narrower than the encoder, dropout 0."""
    sentencepiece(
        directory / "spiece.model", pad_id=0, unk_id=1, bos_id=-1, eos_id=-1, control_symbols="[CLS],[SEP],[MASK]",
        pad_piece="<pad>", unk_piece="<unk>",
    )  # fmt: skip
    configure(directory, tokenizer_class="AlbertTokenizer", keep_accents=True, do_lower_case=False)
    return AlbertForPreTraining(AlbertConfig(vocab_size=260, embedding_size=16, **SIZES))


def modernbert(directory: Path) -> PreTrainedModel:
    """answerdotai/ModernBERT-base: no position table, no token types, local and global layers."""
    tokenizer = byte_level(directory, ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"])
    size = tokenizer.get_vocab_size()
    tokenizer.save(str(directory / "raw.json"))
    raw = Tokenizer.from_file(str(directory / "raw.json"))
    (directory / "raw.json").unlink()
    raw.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=raw, unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]",
        mask_token="[MASK]", model_input_names=["input_ids", "attention_mask"],
    ).save_pretrained(directory)  # fmt: skip
    special = {"pad_token_id": 3, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
    config = ModernBertConfig(vocab_size=size, local_attention=8, global_attn_every_n_layers=2, **special, **SIZES)
    return ModernBertForMaskedLM(config)


def deberta_v3(directory: Path) -> PreTrainedModel:
    """microsoft/deberta-v3-base: relative positions, no sdpa, more embeddings than tokens, saved in half precision."""
    sentencepiece(
        directory / "spm.model", pad_id=0, bos_id=1, eos_id=2, unk_id=3, pad_piece="[PAD]", bos_piece="[CLS]",
        eos_piece="[SEP]", unk_piece="[UNK]",
    )  # fmt: skip
    configure(directory, tokenizer_class="DebertaV2Tokenizer", do_lower_case=False)
    relative = {"relative_attention": True, "position_biased_input": False, "pos_att_type": ["p2c", "c2p"]}
    shared = {"position_buckets": 16, "norm_rel_ebd": "layer_norm", "share_att_key": True, "max_relative_positions": -1}
    config = DebertaV2Config(vocab_size=350, type_vocab_size=0, pooler_hidden_size=32, **relative, **shared, **SIZES)
    return DebertaV2Model(config).half()


ARCHITECTURES: dict[str, Callable[[Path], PreTrainedModel]] = {
    "bert": bert,
    "kobert": kobert,
    "electra": electra,
    "klue-roberta": klue_roberta,
    "roberta": roberta,
    "xlm-roberta": xlm_roberta,
    "distilbert": distilbert,
    "albert": albert,
    "modernbert": modernbert,
    "deberta-v3": deberta_v3,
}
"""The checkpoints that a recipe may name; what is promised of all models is tested for each of these too."""


def write_checkpoint(directory: Path, architecture: str) -> Path:
    """A random checkpoint of an architecture, with its tokenizer's files; half of them in the old form."""
    directory.mkdir()
    torch.manual_seed(0)
    model = ARCHITECTURES[architecture](directory)
    config: PreTrainedConfig = model.config
    config.architectures = [type(model).__name__]
    if architecture in ("kobert", "electra", "roberta", "distilbert"):
        config.save_pretrained(directory)
        torch.save(model.state_dict(), directory / "pytorch_model.bin")
    else:
        model.save_pretrained(directory)
    return directory
