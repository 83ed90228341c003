"""Text in: one tokenizer per model, loaded with it or trained on the training rows alone."""

from finetune.text.augmentation import NoiseAugmenter
from finetune.text.causal import encode_documents
from finetune.text.masking import Masker, bytes_of_tokens
from finetune.text.pairs import ScheduledSampler, encode_pairs
from finetune.text.sampling import SubwordSampler
from finetune.text.tokenizer import build_tokenizer, fingerprint, load_tokenizer, save_tokenizer, tokenizer_of_rows
from finetune.text.vocabulary import train_tokenizer

__all__ = [
    "Masker",
    "NoiseAugmenter",
    "ScheduledSampler",
    "SubwordSampler",
    "build_tokenizer",
    "bytes_of_tokens",
    "encode_documents",
    "encode_pairs",
    "fingerprint",
    "load_tokenizer",
    "save_tokenizer",
    "tokenizer_of_rows",
    "train_tokenizer",
]
