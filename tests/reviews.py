"""Small data and recipes for tests."""

import random
from pathlib import Path
from typing import Any

from finetune.recipe import Recipe, parse_recipe

POSITIVE = ["정말 재미있다", "배우 연기가 훌륭하다", "다시 보고 싶다", "최고의 영화", "감동이 크다"]
NEGATIVE = ["너무 지루하다", "시간이 아깝다", "연기가 어색하다", "최악의 영화", "돈을 버렸다"]
FILLER = [
    "어제 봤는데",
    "친구와 함께",
    "극장에서",
    "주말에",
    "기대하고",
    "우연히",
    "두 번째로",
    "처음으로",
    "늦은 밤에",
    "비 오는 날",
]

TOPICS = {
    "연기": ["배우가 훌륭하다", "연기가 어색하다", "주연이 돋보인다"],
    "음악": ["음악이 좋다", "노래가 귀에 남는다", "배경음이 시끄럽다"],
    "이야기": ["줄거리가 탄탄하다", "이야기가 뻔하다", "결말이 아쉽다"],
}
"""What a review may be about, and how it then says so."""

MODELS: dict[str, dict[str, Any]] = {
    "encoder": {
        "family": "encoder",
        "from_scratch": {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 64,
        },
    },
    "rnn": {"family": "recurrent", "cell": "rnn", "embedding_size": 24, "hidden_size": 24},
    "lstm": {"family": "recurrent", "cell": "lstm", "embedding_size": 24, "hidden_size": 24},
    "gru": {"family": "recurrent", "cell": "gru", "embedding_size": 24, "hidden_size": 24, "pooling": "mean"},
    "bilstm-stacked": {
        "family": "recurrent",
        "cell": "lstm",
        "embedding_size": 24,
        "hidden_size": 20,
        "num_layers": 2,
        "bidirectional": True,
        "pooling": "last",
    },
    "bigru-max": {
        "family": "recurrent",
        "cell": "gru",
        "embedding_size": 24,
        "hidden_size": 20,
        "bidirectional": True,
        "pooling": "max",
    },
    "lstm-all": {
        "family": "recurrent",
        "cell": "lstm",
        "embedding_size": 24,
        "hidden_size": 20,
        "num_layers": 2,
        "bidirectional": True,
        "pooling": "attention",
        "skip_connections": True,
        "layer_norm": True,
        "locked_dropout": True,
        "head_activation": "gelu",
        "initialization": "orthogonal",
    },
    "encoder-attention": {
        "family": "encoder",
        "from_scratch": {
            "hidden_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 64,
        },
        "pooling": "attention",
    },
    "bag": {"family": "bag", "embedding_size": 24, "pooling": "attention"},
    "cnn": {"family": "cnn", "embedding_size": 24, "filters": 16, "kernel_sizes": [2, 3]},
}
"""The families and their variants; what is promised of all models is tested for each of these."""


def review_rows(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """`count` (text, label) rows, the labels alternating, the lengths varied."""
    chosen = random.Random(seed)
    rows = []
    for number in range(count):
        label, phrases = (("positive", POSITIVE), ("negative", NEGATIVE))[number % 2]
        words = [*chosen.sample(FILLER, chosen.randint(0, 5)), chosen.choice(phrases)]
        rows.append((f"{' '.join(words)} {number}", label))
    return rows


def write_csv(path: Path, count: int, seed: int = 0) -> Path:
    """A CSV file of `review_rows` with the columns text and label."""
    lines = ["text,label", *(f"{text},{label}" for text, label in review_rows(count, seed))]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_ratings(path: Path, count: int, seed: int = 0) -> Path:
    """A CSV file like `write_csv`'s whose labels are ratings from 1 to 10."""
    chosen = random.Random(seed)
    lines = ["text,label"]
    for text, label in review_rows(count, seed):
        lines.append(f"{text},{chosen.randint(7, 10) if label == 'positive' else chosen.randint(1, 4)}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def topic_rows(
    count: int, seed: int = 0, shares: tuple[float, float, float] = (0.6, 0.4, 0.3)
) -> list[tuple[str, list[str]]]:
    """`count` (text, labels) rows that speak of none, some or all of `TOPICS`, each in such a share of the rows."""
    chosen = random.Random(seed)
    rows = []
    for number in range(count):
        labels = [label for label, share in zip(TOPICS, shares, strict=True) if chosen.random() < share]
        parts = [*chosen.sample(FILLER, chosen.randint(1, 3)), *(chosen.choice(TOPICS[label]) for label in labels)]
        chosen.shuffle(parts)
        rows.append((f"{' '.join(parts)} {number}", labels))
    return rows


def write_topics(path: Path, count: int, seed: int = 0) -> Path:
    """A CSV file of `topic_rows` with the columns text and label, the labels parted by |."""
    lines = ["text,label", *(f"{text},{'|'.join(labels)}" for text, labels in topic_rows(count, seed))]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def small_recipe(directory: Path, model: str | dict[str, Any] = "lstm", rows: int = 120, **sections: Any) -> Recipe:
    """A recipe that trains in a second on rows written into `directory`."""
    training = {"num_train_epochs": 2, "batch_size": 8, "learning_rate": 5e-3, "threads": 1, "logging_steps": 1}
    tree: dict[str, Any] = {
        "name": "small",
        "output_dir": str(directory / "runs"),
        "data": {"train_file": str(write_csv(directory / "reviews.csv", rows))},
        "text": {"vocabulary_size": 300, "max_length": 32},
        "model": MODELS[model] if isinstance(model, str) else model,
        "training": training,
        "evaluation": {"bootstrap_samples": 100},
    }
    for section, values in sections.items():
        tree[section] = {**tree.get(section, {}), **values} if isinstance(values, dict) else values
    return parse_recipe(tree)
