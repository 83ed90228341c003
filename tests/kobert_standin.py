"""A small tokenizer in KoBERT's two layouts, trained here, and what SentencePiece itself makes of a text.

KoBERT's own files are no part of the project. The stand-in has their form: a Unigram with SentencePiece's usual
character map, whose ids are not those of the model's pieces but of a sorted vocabulary behind five special tokens.
"""

import csv
import io
import json
import unicodedata
from functools import cache
from pathlib import Path

from sentencepiece import SentencePieceProcessor, SentencePieceTrainer, sentencepiece_model_pb2

from finetune.data.sources import embedded_file

SPECIALS = ["[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]"]
CONFIG = {
    "model_type": "bert",
    "architectures": ["BertModel"],
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "pad_token_id": 1,
    "vocab_size": 8002,
}
"""KoBERT's configuration, but for what is BERT's default."""


@cache
def korean_texts() -> list[str]:
    """The embedded Korean reviews of the test split."""
    with embedded_file("reviews-ko", "test").open(encoding="utf-8", newline="") as lines:
        return [row["text"] for row in csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)]


@cache
def original_model() -> bytes:
    """A SentencePiece model with ids of its own, as in `tokenizer_78b3253a26.model`."""
    written = io.BytesIO()
    # Runs of dots and letters make ties between orders of the same pieces.
    texts = [*korean_texts(), *("ㅋㅋㅋ ... .... ㅠㅠ 100 1000 !! ??" for _ in range(50))]
    SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_writer=written, vocab_size=1200, model_type="unigram", minloglevel=2,
        num_threads=1, hard_vocab_limit=False,
    )  # fmt: skip
    return written.getvalue()


@cache
def vocabulary() -> list[str]:
    """The tokens in the order of the stand-in's ids."""
    model = sentencepiece_model_pb2.ModelProto.FromString(original_model())
    return [*SPECIALS, *sorted(piece.piece for piece in model.pieces if piece.piece not in ("<unk>", "<s>", "</s>"))]


def write_split_layout(directory: Path, *, as_json: bool = False) -> Path:
    """As `monologg/kobert` publishes it: a model, and a vocabulary beside it."""
    directory.mkdir(parents=True)
    (directory / "tokenizer_78b3253a26.model").write_bytes(original_model())
    if as_json:
        content = json.dumps({"idx_to_token": vocabulary()}, ensure_ascii=False)
        (directory / "kobertvocab_f38b8a4d6d.json").write_text(content, encoding="utf-8")
    else:
        (directory / "vocab.txt").write_text("\n".join(vocabulary()) + "\n", encoding="utf-8")
    _write_configuration(directory, {"do_lower_case": False})
    return directory


def write_own_layout(directory: Path, source: bytes | None = None, tokens: list[str] | None = None) -> Path:
    """As `skt/kobert-base-v1` publishes it: one model with the special tokens in it, said to be XLNet's."""
    directory.mkdir(parents=True)
    model = sentencepiece_model_pb2.ModelProto.FromString(source or original_model())
    scores = {piece.piece: piece.score for piece in model.pieces}
    del model.pieces[:]
    kinds = sentencepiece_model_pb2.ModelProto.SentencePiece
    for token in tokens or vocabulary():
        kind = kinds.UNKNOWN if token == "[UNK]" else kinds.CONTROL if token in SPECIALS else kinds.NORMAL
        model.pieces.add(piece=token, score=scores.get(token, 0.0), type=kind)
    model.trainer_spec.unk_id, model.trainer_spec.pad_id = 0, 1
    model.trainer_spec.bos_id = model.trainer_spec.eos_id = -1
    model.trainer_spec.unk_piece = "[UNK]"
    (directory / "spiece.model").write_bytes(model.SerializeToString())
    named = dict(zip(("unk_token", "pad_token", "cls_token", "sep_token", "mask_token"), SPECIALS, strict=True))
    _write_configuration(directory, {"tokenizer_class": "XLNetTokenizer", "do_lower_case": False, **named})
    return directory


def _write_configuration(directory: Path, tokenizer: dict[str, object]) -> None:
    (directory / "tokenizer_config.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    (directory / "config.json").write_text(json.dumps({**CONFIG, "vocab_size": len(vocabulary())}), encoding="utf-8")


class Reference:
    """KoBERT's ids by SentencePiece and the preprocessing of KoBERT's own tokenizer class, without special tokens."""

    def __init__(self, model: bytes, tokens: list[str]) -> None:
        self.processor = SentencePieceProcessor(model_proto=model)
        self.ids = {token: number for number, token in enumerate(tokens)}

    def encode(self, text: str, **sampling: object) -> list[int]:
        pieces = self.processor.encode(preprocess(text), out_type=str, **sampling)
        return [self.ids.get(piece, 0) for piece in pieces]


def preprocess(text: str) -> str:
    text = " ".join(text.strip().split()).replace("``", '"').replace("''", '"')
    return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))


def standin_reference() -> Reference:
    return Reference(original_model(), vocabulary())
