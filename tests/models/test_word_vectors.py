"""Word vectors: reproducible, true to what was planted, and at home in the model that begins with them."""

import hashlib
import math
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from reviews import small_recipe
from safetensors import safe_open
from transformers import AutoConfig

import finetune
from finetune.errors import UserError
from finetune.evaluation.analogies import Words, language_of, nearest_words, questions_of, score_analogies, whole_words
from finetune.models import build_model, learn_vectors, save_vectors, start_from_vectors
from finetune.models.initial_embeddings import load_vectors
from finetune.recipe import RecurrentModel, WordVectorModel, parse_recipe, published_tree
from finetune.run import RunDirectory, find_vectors
from finetune.text import train_tokenizer
from finetune.training import train

METHODS = ("cbow", "skip_gram", "ppmi")
FRUITS = ["사과", "포도", "참외", "자두"]
TOOLS = ["망치", "톱", "나사", "못"]
SAID_OF = {"fruit": ["달게", "익은", "먹는", "과즙이"], "tool": ["무거운", "녹슨", "고치는", "쇠로"]}


def planted_texts(count: int = 1500, seed: int = 0) -> list[str]:
    """Fruits and tools, each in the company of words of their kind, and never of one another."""
    chosen = random.Random(seed)
    texts = []
    for number in range(count):
        words, kind = ((FRUITS, "fruit"), (TOOLS, "tool"))[number % 2]
        said = chosen.sample(SAID_OF[kind], 3)
        texts.append(f"{said[0]} {said[1]} {chosen.choice(words)} {said[2]}")
    return texts


def word_tokenizer(texts, size=200, unit="whitespace"):
    return train_tokenizer(
        texts, unit=unit, vocabulary_size=size, min_frequency=1, lowercase=False, max_length=32, begin_token=False
    )


def encode(texts, tokenizer):
    return datasets.Dataset.from_dict({"input_ids": tokenizer(texts)["input_ids"]})


def learn(texts, tokenizer, method, seed=1, **sizes):
    sizes = {"dimensions": 16, "subsampling": 0, **sizes}
    return learn_vectors(encode(texts, tokenizer), WordVectorModel(method=method, **sizes), tokenizer, 5, seed)


@pytest.fixture(scope="module")
def texts():
    return planted_texts()


@pytest.fixture(scope="module")
def tokenizer(texts):
    return word_tokenizer(texts)


@pytest.fixture(scope="module")
def run(texts, tokenizer, tmp_path_factory):
    """A directory with skip-gram vectors of width 16."""
    directory = RunDirectory(tmp_path_factory.mktemp("vectors"))
    save_vectors(directory, learn(texts, tokenizer, "skip_gram")[0], tokenizer, {"method": "skip_gram"})
    return directory


# --- learning ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_words_in_the_same_company_are_neighbours(texts, tokenizer, method):
    words = whole_words(*learn(texts, tokenizer, method), tokenizer)
    for group in (FRUITS, TOOLS):
        for word in group:
            (place,) = words.places([word])
            order = np.argsort(-(words.vectors @ words.vectors[place]))
            nearest = [words.texts[i] for i in order if words.texts[i] in (*FRUITS, *TOOLS) and i != place]
            assert set(nearest[:3]) == set(group) - {word}


@pytest.mark.parametrize("method", METHODS)
def test_a_seed_decides_all(texts, tokenizer, method):
    once, counts = learn(texts, tokenizer, method)
    again, _ = learn(texts, tokenizer, method)
    assert once.tobytes() == again.tobytes()
    assert once.shape == (len(tokenizer), 16)
    assert once.dtype == np.float32
    ids = [token for row in tokenizer(texts)["input_ids"] for token in row]
    assert counts.tolist() == np.bincount(ids, minlength=len(tokenizer)).tolist()
    if method != "ppmi":  # the first directions of a matrix are what they are
        assert (once != learn(texts, tokenizer, method, seed=2)[0]).any()


@pytest.mark.slow
def test_the_hash_of_a_process_does_not_matter(tmp_path):
    """The same vectors from processes with other hashes of texts."""
    code = (
        "import hashlib, test_word_vectors as t\n"
        "texts = t.planted_texts(200)\n"
        "vectors, _ = t.learn(texts, t.word_tokenizer(texts), 'skip_gram')\n"
        "print(hashlib.sha256(vectors.tobytes()).hexdigest())\n"
    )
    texts = planted_texts(200)
    found = {hashlib.sha256(learn(texts, word_tokenizer(texts), "skip_gram")[0].tobytes()).hexdigest()}
    here = Path(__file__).parent
    places = [str(here), str(here.parent), str(Path(finetune.__file__).parent.parent)]
    for seed in ("1", "2"):
        path = os.pathsep.join([*places, os.environ["PYTHONPATH"]])
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": path}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        found.add(done.stdout.split()[-1])
    assert len(found) == 1


@pytest.mark.parametrize("method", METHODS)
def test_rare_and_special_tokens_have_no_vector(texts, method):
    rare = [*texts, *["달게 드문말 먹는"] * 4]
    tokenizer = word_tokenizer(rare)
    vectors, counts = learn(rare, tokenizer, method, min_count=5)
    without = {tokenizer.convert_ids_to_tokens(int(i)) for i in np.flatnonzero(~vectors.any(axis=1))}
    assert without == {*tokenizer.all_special_tokens, "드문말"}
    assert counts[tokenizer.convert_tokens_to_ids("드문말")] == 4
    assert vectors[tokenizer.convert_tokens_to_ids("달게")].any()
    with pytest.raises(UserError, match="min_count 99999: no token stands so often"):
        learn(rare, tokenizer, method, min_count=99999)


def test_rows_longer_than_a_job_and_empty_ones_are_read(tokenizer):
    """A small text is cut into many jobs for gensim, and a row may be longer than one."""
    long = " ".join(FRUITS * 200)
    vectors, _ = learn([long, "", long, "모르는말"], tokenizer, "cbow", min_count=1)
    assert np.isfinite(vectors).all()
    assert vectors.any(axis=1).sum() == len(FRUITS)


def test_every_epoch_is_counted_and_what_fails_in_gensims_thread_is_raised(texts, tokenizer):
    encoded, seen = encode(texts, tokenizer), []
    learn_vectors(encoded, WordVectorModel(dimensions=4), tokenizer, 3, 0, seen.append)
    assert sum(seen) == 3 * len(texts)
    seen.clear()
    learn_vectors(encoded, WordVectorModel(dimensions=4, method="ppmi"), tokenizer, 3, 0, seen.append)
    assert sum(seen) == len(texts)

    def fail(_):
        raise BrokenPipeError("nobody reads")

    with pytest.raises(BrokenPipeError):
        learn_vectors(encoded, WordVectorModel(dimensions=4), tokenizer, 3, 0, fail)


# --- files ------------------------------------------------------------------------------------------------------------


def test_vectors_come_back_from_their_file(run, texts, tokenizer):
    expected, _ = learn(texts, tokenizer, "skip_gram")
    assert load_vectors(find_vectors(str(run.model_directory))).tobytes() == expected.tobytes()
    with safe_open(run.vectors_file, framework="numpy") as file:
        assert list(file.keys()) == ["embeddings"]
    names = {path.name for path in run.model_directory.iterdir()}
    assert names == {"word_vectors.safetensors", "word_vectors.json", "tokenizer.json", "tokenizer_config.json"}
    with pytest.raises(ValueError, match="Unrecognized model"):
        AutoConfig.from_pretrained(run.model_directory)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no word_vectors.safetensors there"), (b"torn", "not readable as safetensors")],
)
def test_a_place_without_vectors_is_refused(tmp_path, tokenizer, content, message):
    if content is not None:
        (tmp_path / "word_vectors.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=message):
        start(tmp_path, tokenizer)


# --- as initial embeddings --------------------------------------------------------------------------------------------


def start(place, tokenizer, **settings):
    """(model, its random embeddings, the line) of a classifier that begins with the vectors at `place`."""
    settings = {"embedding_size": 16, "hidden_size": 8, **settings}
    model_settings = RecurrentModel(initial_embeddings=str(place), **settings)
    torch.manual_seed(0)
    model = build_model(model_settings, "classify", ["a", "b"], tokenizer, 32, "eager")
    before = model.get_input_embeddings().weight.detach().clone()
    return model, before, start_from_vectors(model, model_settings, tokenizer)


def test_equal_tokenizers_take_the_rows_as_they_are(run, tokenizer):
    model, before, line = start(run.model_directory, tokenizer)
    after = model.get_input_embeddings().weight.detach()
    vectors = torch.from_numpy(load_vectors(run.model_directory))
    known = vectors.any(dim=1)
    assert line == f"  initial embeddings: {int(known.sum())} of {len(tokenizer)} tokens have a vector"
    assert torch.equal(after[~known], before[~known])
    factors = after[known] / vectors[known]
    torch.testing.assert_close(factors, torch.full_like(factors, float(factors[0, 0])))
    # Neither drowned by the random rows around them nor drowning them.
    assert after[known].square().mean().sqrt() == pytest.approx(float(before[known].square().mean().sqrt()), rel=1e-5)
    assert model.get_input_embeddings().weight.requires_grad


def test_other_tokenizers_are_matched_by_the_tokens_own_text(run, tokenizer):
    others = ["과일은 사과 포도", "연장은 망치 나사", "과일은 연장은"]
    other = word_tokenizer(others)
    model, before, line = start(run.model_directory, other)
    after = model.get_input_embeddings().weight.detach()
    vectors = torch.from_numpy(load_vectors(run.model_directory))
    assert line == f"  initial embeddings: 4 of {len(other)} tokens have a vector"
    for word in ("사과", "포도", "망치", "나사"):
        mine, theirs = other.convert_tokens_to_ids(word), tokenizer.convert_tokens_to_ids(word)
        assert mine != theirs
        assert torch.cosine_similarity(after[mine], vectors[theirs], dim=0) == pytest.approx(1, abs=1e-5)
    for word in ("과일은", "연장은", "[UNK]", "[PAD]"):
        mine = other.convert_tokens_to_ids(word)
        assert torch.equal(after[mine], before[mine])


def test_what_does_not_fit_is_said(run, tokenizer):
    with pytest.raises(UserError, match=r"model\.embedding_size 24 .* 16; set model\.embedding_size 16"):
        start(run.model_directory, tokenizer, embedding_size=24)
    with pytest.raises(UserError, match=r"no token .* has a vector there; set text\.tokenizer_name_or_path"):
        start(run.model_directory, word_tokenizer(["전혀 다른 글"]))
    with pytest.raises(UserError, match="freeze_embeddings needs initial_embeddings"):
        parse_recipe(
            {
                "name": "x",
                "data": {"train_file": "x.csv"},
                "model": {"family": "recurrent", "freeze_embeddings": True},
            }
        )


@pytest.mark.parametrize("freeze", [True, False])
def test_frozen_embeddings_stay_while_the_rest_learns(tmp_path, freeze):
    recipe = small_recipe(tmp_path, "gru", rows=60, training={"num_train_epochs": 1})
    texts = [line.rpartition(",")[0] for line in (tmp_path / "reviews.csv").read_text().splitlines()[1:]]
    tokenizer = word_tokenizer(texts, unit="subword", size=150)
    place = RunDirectory(tmp_path / "vectors")
    place.path.mkdir()
    save_vectors(place, learn(texts, tokenizer, "ppmi", dimensions=24)[0], tokenizer, {})
    tree = recipe.model_dump(mode="json")
    tree["text"]["tokenizer_name_or_path"] = str(place.model_directory)
    tree["model"] |= {
        "initial_embeddings": str(place.model_directory),
        "freeze_embeddings": freeze,
        "dropout": 0.0,
    }
    recipe = parse_recipe(tree)
    torch.manual_seed(0)
    done = train(recipe)
    with safe_open(done.model_directory / "model.safetensors", framework="pt") as file:
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
    vectors = torch.from_numpy(load_vectors(place.model_directory))
    known = vectors.any(dim=1)
    learnt = weights["embedding.weight"][known]
    factors = learnt / vectors[known].masked_fill(vectors[known] == 0, torch.nan)
    is_one_factor = bool((factors.nan_to_num(factors.nanmean()) / factors.nanmean() - 1).abs().max() < 1e-4)
    assert is_one_factor == freeze
    assert weights["classifier.bias"].any()  # it began at zero
    cost = done.scores()["cost"]
    assert cost["parameters"] - cost["trainable_parameters"] == (weights["embedding.weight"].numel() if freeze else 0)


def test_what_is_published_names_no_place(tmp_path):
    (tmp_path / "runs" / "vectors").mkdir(parents=True)
    model = {"family": "recurrent", "initial_embeddings": str(tmp_path / "runs" / "vectors")}
    recipe = parse_recipe({"name": "x", "data": {"train_file": str(tmp_path / "a.csv")}, "model": model})
    published = published_tree(recipe.model_dump(mode="json"))
    assert published["model"]["initial_embeddings"] == "./vectors"
    assert str(tmp_path) not in str(published)


# --- what they know ---------------------------------------------------------------------------------------------------


def planted_words() -> tuple[Words, np.ndarray]:
    """Vectors in which a second feature is added to each of four words, and one word that is in the way of none."""
    names = ["왕", "여왕", "남자", "여자", "오빠", "언니", "멀리"]
    tokenizer = word_tokenizer([" ".join(names)])
    kinds = {"왕": 0, "여왕": 0, "남자": 1, "여자": 1, "오빠": 2, "언니": 2}
    vectors = np.zeros((len(tokenizer), 6), dtype=np.float32)
    for name in names:
        token = tokenizer.convert_tokens_to_ids(name)
        vectors[token, kinds.get(name, 5)] = 1
        vectors[token, 4] = 0.8 if name in ("여왕", "여자", "언니") else 0
    counts = np.arange(len(tokenizer), 0, -1)
    return whole_words(vectors, counts, tokenizer), vectors


def test_analogies_are_answered_and_those_not_covered_are_counted(monkeypatch):
    words, _ = planted_words()
    asked = [
        ("가족", ("왕", "여왕", "남자", "여자")),
        ("가족", ("왕", "여왕", "오빠", "언니")),
        ("가족", ("남자", "여자", "오빠", "멀리")),
        ("나라", ("서울", "한국", "왕", "여왕")),
    ]
    monkeypatch.setattr("finetune.evaluation.analogies.questions_of", lambda language: asked)
    found = score_analogies(words, "ko", 0.95)
    assert (found["count"], found["covered"], found["correct"]) == (4, 3, 2)
    assert found["sections"]["나라"] == {"questions": 1, "covered": 0, "correct": 0}
    assert found["not_covered"] == ["서울", "한국"]
    assert [answer["correct"] for answer in found["answers"]] == [True, True, False]
    assert found["answers"][2]["answers"][0]["word"] == "언니"
    # 3CosAdd by its formula.
    unit = dict(zip(words.texts, words.vectors.astype(np.float64), strict=True))
    cosine = {name: float(unit["여자"] @ vector) for name, vector in unit.items()}
    expected = cosine["여왕"] - cosine["왕"] + cosine["남자"]
    assert found["answers"][0]["answers"][0]["sum"] == pytest.approx(expected, abs=1e-4)
    # Wilson's interval by its formula.
    n, p, z = 3, 2 / 3, 1.959963985
    middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert found["accuracy"]["low"] == pytest.approx((middle - half) / (1 + z * z / n))
    assert found["accuracy"]["high"] == pytest.approx((middle + half) / (1 + z * z / n))


def test_neighbours_are_those_of_frequent_words_by_cosine():
    words, _ = planted_words()
    found = nearest_words(words, shown=2, neighbours=2)
    assert [entry["word"] for entry in found] == [text for text in words.texts if len(text) > 1][:2]
    assert words.counts.tolist() == sorted(words.counts.tolist(), reverse=True)
    (queen,) = [entry for entry in nearest_words(words) if entry["word"] == "여왕"]
    unit = dict(zip(words.texts, words.vectors, strict=True))
    cosines = sorted(((float(unit["여왕"] @ unit[name]), name) for name in unit if name != "여왕"), reverse=True)
    assert queen["neighbours"][0]["word"] == cosines[0][1] == "왕"
    assert queen["neighbours"][0]["cosine"] == pytest.approx(cosines[0][0], abs=1e-4)


def test_pieces_of_words_are_no_words():
    texts = ["재미있는 영화", "영화관에서 재미있다", "영화 영화 영화"]
    tokenizer = word_tokenizer(texts, unit="subword", size=40)
    vectors = np.ones((len(tokenizer), 2), dtype=np.float32)
    words = whole_words(vectors, np.ones(len(tokenizer), dtype=np.int64), tokenizer)
    assert "영화" in words.texts
    tokens = tokenizer.convert_ids_to_tokens(words.token_ids.tolist())
    assert all(token.startswith("▁") for token in tokens)
    assert words.places(["영화", "자전거"]) == [words.texts.index("영화"), None]


@pytest.mark.parametrize(("language", "least", "letters"), [("ko", 60, "[가-힣]+"), ("en", 40, "[A-Za-z]+")])
def test_the_questions_are_well_formed_and_in_the_package(language, least, letters):
    questions = questions_of(language)
    assert len(questions) >= least
    assert len(set(questions)) == len(questions)
    for section, words in questions:
        assert section
        assert len(set(words)) == 4, words
        assert all(re.fullmatch(letters, word) for word in words), words


def test_the_script_of_the_texts_chooses_the_questions():
    assert language_of({"Hangul": 0.8, "Latin": 0.2}) == "ko"
    assert language_of({"Latin": 0.9}) == "en"
    assert language_of({"Hangul": 0.5, "Latin": 0.5}) is None
    assert language_of({}) is None
