"""Which pieces of a text speak for a prediction: exact where that is known, complete, and nobody else notices."""

import threading
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch
from checkpoints import ARCHITECTURES, TEXTS
from reviews import MODELS
from torch import nn
from training_setup import prepare
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertJapaneseTokenizer,
    CanineConfig,
    CanineForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
    T5Config,
    T5ForSequenceClassification,
)
from transformers.modeling_outputs import SequenceClassifierOutput

from finetune.attribution import _TOKENS_AT_ONCE, attribute
from finetune.errors import UserError
from finetune.models.recurrent import RecurrentConfig, RecurrentForSequenceClassification
from finetune.predict import Classifier
from finetune.text.vocabulary import train_tokenizer

TEXT = "어제 봤는데 배우 연기가 훌륭하다 정말 재미있다"
HARD_TEXTS = [
    "정말 재미있다 최고",
    "  두 칸  띄고\n줄바꿈\t",
    "Great movie, isn't it?!",
    "👍👍🏽 최고 👨‍👩‍👧",
    "فيلم رائع جدا",
    "<b>재미</b> &amp; <script>alert(1)</script>",
    "½ ﬁlm ㈜ İstanbul",
    "\u1112\u1161\u11ab\u1100\u1173\u11af 영화 e\u0301",
    "재미\u200b있다\x00\x07 끝",
    "앞 [SEP] 뒤 [PAD]",
]
ALONE = {"begin_token": False, "lowercase": False, "max_length": 32, "min_frequency": 1, "vocabulary_size": 400}


class BagConfig(PreTrainedConfig):
    model_type = "bag"

    def __init__(self, vocab_size=8, **kwargs):
        super().__init__(**kwargs)
        self.vocab_size = vocab_size


class Bag(PreTrainedModel):
    """A linear function of the mean of the embeddings, so that each token's share is known."""

    config_class = BagConfig

    def __init__(self, config):
        super().__init__(config)
        self.embedding = nn.Embedding(config.vocab_size, 4)
        self.head = nn.Linear(4, config.num_labels)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.normal_(generator=torch.Generator().manual_seed(0))

    def get_input_embeddings(self):
        return self.embedding

    def forward(self, input_ids, attention_mask=None, **_):
        return SequenceClassifierOutput(logits=self.head(self.embedding(input_ids).mean(dim=1)))


def word_tokenizer(texts=TEXTS, unit="whitespace", **changes):
    return train_tokenizer(texts, unit=unit, **{**ALONE, **changes})


def bag(tokenizer, **kwargs):
    return Classifier(Bag(BagConfig(len(tokenizer), **kwargs)).eval(), tokenizer, 32)


@pytest.fixture(scope="module")
def setup_of(tmp_path_factory):
    """A family's or architecture's name -> its setup, made once."""

    @cache
    def made(name):
        return prepare(tmp_path_factory.mktemp(name), name, rows=40)

    return made


def with_strong_weights(model):
    """The model with random weights by which texts differ as much as they do for a trained one."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter is model.get_input_embeddings().weight:
                parameter.div_(parameter.std())
            elif parameter.ndim > 1:
                parameter.normal_(std=1.5 * parameter[0].numel() ** -0.5)
    return model.eval()


def assert_tiles(text, tokens):
    """The pieces stand in the text as they say, in order, apart from each other and from white space."""
    assert all(text[piece.start : piece.end] == piece.text for piece in tokens)
    assert all(piece.text and piece.text == piece.text.strip() for piece in tokens)
    assert all(before.end <= after.start for before, after in pairwise(tokens))


def assert_adds_up(found, tolerance=0.005):
    total = sum(piece.score for piece in found.tokens)
    assert found.error == pytest.approx(found.value - found.baseline - total, abs=1e-9)
    assert abs(found.error) <= tolerance


# --- What is known exactly --------------------------------------------------------------------------------------------


def shares(model, tokenizer, text, output):
    """What each token of a text adds to a logit of the bag, beyond what padding does."""
    ids = tokenizer(text)["input_ids"]
    with torch.no_grad():
        states = model.embedding(torch.tensor(ids)) - model.embedding(torch.tensor(tokenizer.pad_token_id))
        return (states @ model.head.weight[output] / len(ids))[:-1].double()


def test_of_a_linear_rater_the_scores_are_each_tokens_own_share():
    classifier = bag(word_tokenizer(), num_labels=1, problem_type="regression")
    found = attribute(classifier, TEXT, steps=1)
    assert [piece.text for piece in found.tokens] == TEXT.split()
    expected = shares(classifier.model, classifier.tokenizer, TEXT, 0)
    assert [piece.score for piece in found.tokens] == pytest.approx(expected.tolist(), abs=1e-6)
    assert found.label is None
    assert found.value == pytest.approx(classifier.classify([TEXT]).item(), abs=1e-6)
    assert_adds_up(found, 1e-6)


def test_of_a_probability_the_scores_are_in_proportion_to_the_shares():
    classifier = bag(word_tokenizer(), num_labels=2, id2label={0: "bad", 1: "good"})
    of_logits = [shares(classifier.model, classifier.tokenizer, TEXT, output) for output in (0, 1)]
    for label, share in (("good", of_logits[1] - of_logits[0]), ("bad", of_logits[0] - of_logits[1])):
        found = attribute(classifier, TEXT, label)
        assert (found.label, found.value) == (
            label,
            pytest.approx(classifier.classify([TEXT])[0, classifier.labels.index(label)]),
        )
        expected = share * (found.value - found.baseline) / share.sum()
        assert [piece.score for piece in found.tokens] == pytest.approx(expected.tolist(), abs=1e-5)
    likeliest = max(classifier.labels, key=lambda label: attribute(classifier, TEXT, label).value)
    assert attribute(classifier, TEXT) == attribute(classifier, TEXT, likeliest)


def test_more_gradients_are_taken_where_the_prediction_turns_sharply():
    tokenizer = word_tokenizer()
    classifier = bag(tokenizer, num_labels=2)
    encoded = tokenizer([TEXT], return_tensors="pt")["input_ids"]
    padding = encoded.masked_fill(encoded != tokenizer.sep_token_id, tokenizer.pad_token_id)
    with torch.no_grad():
        classifier.model.head.weight.mul_(30)
        # Half way from the one to the other.
        middle = (classifier.model(encoded).logits + classifier.model(padding).logits)[0] / 2
        classifier.model.head.bias.sub_(middle)
    assert abs(attribute(classifier, TEXT, steps=32).error) > 0.005
    assert_adds_up(attribute(classifier, TEXT))


def test_a_pass_takes_so_many_tokens_at_most(monkeypatch):
    sizes = []
    forward = Bag.forward
    monkeypatch.setattr(
        Bag, "forward", lambda *args, **given: sizes.append(given["input_ids"]) or forward(*args, **given)
    )
    classifier = bag(word_tokenizer(), num_labels=2)
    attribute(Classifier(classifier.model, classifier.tokenizer, 512), " ".join(TEXTS), steps=5)
    assert max(ids.shape for ids in sizes) == (_TOKENS_AT_ONCE // 512, 512)
    attribute(Classifier(classifier.model, classifier.tokenizer, 3000), " ".join(TEXTS * 3), steps=2)
    assert max(ids.shape[1] for ids in sizes) == 3000
    assert {len(ids) for ids in sizes if ids.shape[1] == 3000} == {1}


# --- Every family -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*MODELS, *ARCHITECTURES])
def test_the_scores_of_every_family_add_up(name, setup_of):
    setup = setup_of(name)
    classifier = Classifier(with_strong_weights(setup.fresh_model()), setup.tokenizer, 32)
    found = attribute(classifier, TEXT)
    expected = classifier.classify([TEXT])[0]
    assert (found.label, found.value) == (
        classifier.labels[expected.argmax()],
        pytest.approx(expected.max(), abs=1e-4),
    )
    assert max(abs(piece.score) for piece in found.tokens) > 0.01
    assert_adds_up(found)
    assert_tiles(TEXT, found.tokens)
    assert "".join(piece.text for piece in found.tokens) == TEXT.replace(" ", "")
    other = attribute(classifier, TEXT, next(label for label in classifier.labels if label != found.label))
    assert other.value == pytest.approx(1 - found.value)
    assert other.tokens[0].score == pytest.approx(-found.tokens[0].score, abs=1e-3)


@pytest.mark.parametrize(
    ("name", "empty"),
    # DeBERTa normalises embeddings as they are: the zeros of padding are the one place where it sees nothing.
    [("encoder", "pad_token_id"), ("bilstm-stacked", "pad_token_id"), ("deberta-v3", "mask_token_id")],
)
def test_the_baseline_is_the_prediction_for_a_text_without_content(name, empty, setup_of):
    setup = setup_of(name)
    classifier = Classifier(with_strong_weights(setup.fresh_model()), setup.tokenizer, 32)
    encoding = setup.tokenizer([TEXT]).encodings[0]
    ids = [
        token if is_added else getattr(setup.tokenizer, empty)
        for token, is_added in zip(encoding.ids, encoding.special_tokens_mask, strict=True)
    ]
    with torch.no_grad():
        logits = classifier.model(torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long)).logits
    found = attribute(classifier, TEXT, "positive")
    assert found.baseline == pytest.approx(logits.softmax(-1)[0, 1].item(), abs=1e-5)


def test_a_decoder_with_a_head_for_labels():
    """It looks for the last token by its id: also on the way from the baseline that is the text's."""
    tokenizer = word_tokenizer()
    sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": len(tokenizer), "pad_token_id": 1}
    model = GPT2ForSequenceClassification(GPT2Config(bos_token_id=3, eos_token_id=3, num_labels=3, **sizes))
    classifier = Classifier(with_strong_weights(model), tokenizer, 32)
    found = attribute(classifier, TEXT)
    assert found.value == pytest.approx(classifier.classify([TEXT]).max(), abs=1e-5)
    assert len(found.tokens) == len(TEXT.split())
    assert_adds_up(found)


@pytest.mark.parametrize("family", ["encoder", "recurrent"])
def test_the_word_that_decides_has_the_largest_score(family):
    chosen = np.random.default_rng(0)
    words = ["어제", "봤는데", "친구와", "극장에서", "주말에", "우연히"]
    deciding = ["싫다", "좋다"]
    rows = [[*chosen.permutation(words)[:2], *([], deciding[:1], deciding[1:])[number % 3]] for number in range(96)]
    texts = [" ".join(chosen.permutation(row)) for row in rows]
    tokenizer = word_tokenizer(texts, begin_token=family == "encoder")
    names = {"pad_token_id": 1, "id2label": dict(enumerate(["none", *deciding])), "vocab_size": len(tokenizer)}
    torch.manual_seed(0)
    if family == "encoder":
        sizes = {"num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 32, "hidden_dropout_prob": 0}
        model = BertForSequenceClassification(BertConfig(hidden_size=32, **sizes, **names))
    else:
        sizes = {"embedding_size": 16, "hidden_size": 16, "bidirectional": True}
        model = RecurrentForSequenceClassification(RecurrentConfig(cell="gru", **sizes, **names))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3 if family == "encoder" else 1e-2)
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(**batch).logits, torch.arange(96) % 3).backward()
        optimizer.step()
    classifier = Classifier(model.eval(), tokenizer, 32)
    explained = 0
    for text in texts[:12]:
        found = attribute(classifier, text)
        assert found.label == next((word for word in deciding if word in text), "none")
        assert_adds_up(found, 0.02)
        # Of one label of the three the model is sure before it has read anything.
        if found.label != "none" and found.value - found.baseline > 0.5:
            explained += 1
            decisive = max(found.tokens, key=lambda piece: piece.score)
            assert decisive.text == found.label
            assert all(abs(piece.score) < decisive.score / 2 for piece in found.tokens if piece is not decisive)
    assert explained >= 4


# --- What nobody else may notice --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["encoder", "bilstm-stacked"])
def test_predictions_of_other_threads_stay_the_same_bit_for_bit(name, setup_of):
    setup = setup_of(name)
    model = with_strong_weights(setup.fresh_model())
    classifier = Classifier(model, setup.tokenizer, 32)
    batch = dict(setup.tokenizer(TEXTS[:4], padding=True, return_tensors="pt"))
    alone = attribute(classifier, TEXT)
    stop = threading.Event()
    wrong: list[object] = []
    counts = [0, 0]

    def predict(number):
        with torch.inference_mode():
            first = model(**batch).logits
            while not stop.is_set():
                counts[number] += 1
                now = model(**batch).logits
                if not torch.equal(now, first) or now.shape != expected.shape or not torch.equal(now, expected):
                    wrong.append(now)

    with torch.inference_mode():
        expected = model(**batch).logits
    threads = [threading.Thread(target=predict, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    try:
        together = [attribute(classifier, TEXT) for _ in range(10)]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not wrong
    assert min(counts) > 5
    assert all(found == alone for found in together)


@pytest.mark.parametrize("name", ["encoder", "lstm"])
def test_the_model_is_left_as_it_was(name, setup_of):
    setup = setup_of(name)
    model = with_strong_weights(setup.fresh_model())
    classifier = Classifier(model, setup.tokenizer, 32)
    next(model.parameters()).requires_grad = False
    expected = attribute(classifier, TEXT)

    def state():
        return (
            [(parameter.requires_grad, parameter.grad, parameter._version) for parameter in model.parameters()],
            [(module.training, len(module._forward_hooks), len(module.__dict__)) for module in model.modules()],
            [module.dropout for module in model.modules() if isinstance(module, nn.RNNBase)],
            (torch.is_grad_enabled(), torch.backends.cudnn.enabled, torch.get_num_threads()),
            torch.get_rng_state().tolist(),
        )

    model.train()
    before = state()
    with torch.inference_mode():
        in_inference_mode = attribute(classifier, TEXT)
    assert attribute(classifier, TEXT) == in_inference_mode == expected
    assert state() == before
    assert all(parameter.grad is None for parameter in model.parameters())


# --- Pieces of the text -----------------------------------------------------------------------------------------------

UNITS = ["word", "whitespace", "character", "subword", "unigram", "byte"]


@pytest.mark.parametrize("name", [*UNITS, *ARCHITECTURES])
def test_pieces_of_hard_texts_stand_in_the_text(name, setup_of):
    if name in UNITS:
        tokenizer = word_tokenizer([*TEXTS, *HARD_TEXTS], name, max_length=128, lowercase=True)
    else:
        tokenizer = setup_of(name).tokenizer
    classifier = Classifier(Bag(BagConfig(len(tokenizer), problem_type="regression", num_labels=1)), tokenizer, 128)
    for text in HARD_TEXTS:
        found = attribute(classifier, text, steps=1)
        assert_tiles(text, found.tokens)
        assert_adds_up(found, 1e-5)
        encoding = tokenizer([text]).encodings[0]
        read = {place for start, end in encoding.offsets for place in range(start, end) if not text[place].isspace()}
        shown = {place for piece in found.tokens for place in range(piece.start, piece.end)}
        assert read == {place for place in shown if not text[place].isspace()}
        # The text again, of other characters: no score is lost with what is cut off.
        cut = attribute(Classifier(classifier.model, tokenizer, 8), text, steps=1)
        assert_tiles(text, cut.tokens)
        assert_adds_up(cut, 1e-5)


@pytest.mark.parametrize(
    ("unit", "text", "expected"),
    [
        ("byte", "👍 최고", ["👍", "최", "고"]),
        ("character", "정말 좋다 ", ["정", "말", "좋", "다"]),
        ("subword", " Zebra  재미있다\n", ["Zebra", "재미있다"]),
        ("word", "좋다!!  ㅋㅋ", ["좋다", "!!", "ㅋㅋ"]),
        ("byte", "  \n", ["  \n"]),
        ("subword", "  \n", []),
        ("byte", "", []),
    ],
)
def test_the_pieces_are_what_the_tokens_let_them_be(unit, text, expected):
    found = attribute(bag(word_tokenizer(unit=unit), num_labels=2), text)
    assert [piece.text for piece in found.tokens] == expected
    assert_adds_up(found)
    if not expected:
        assert (found.value, found.error) == (found.baseline, 0)


def test_a_text_that_is_cut_has_no_pieces_beyond():
    classifier = bag(word_tokenizer(), num_labels=2)
    found = attribute(Classifier(classifier.model, classifier.tokenizer, 4), TEXT)
    assert [piece.text for piece in found.tokens] == TEXT.split()[:3]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("映画は良い", ["映画は良い"]),
        ("the movie was great!", ["the", "movie", "was", "great", "!"]),
        (" The  MOVIE was   played", ["The", "MOVIE", "was", "play", "ed"]),
        # Unknown words are what is left between their neighbours; a known one within is not taken for a word.
        ("a thezz b was", ["a thezz b", "was"]),
        ("unthe the", ["unthe", "the"]),
        ("ﬁlm the, zzz", ["ﬁlm", "the", ", zzz"]),
        ("the\x00 movie\u200b was", ["the", "\x00 movie\u200b", "was"]),
        ("zzz", ["zzz"]),
        (" ", []),
    ],
)
def test_a_tokenizer_in_python_does_not_say_where_its_tokens_stand(text, expected, tmp_path):
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "movie", "was", "great", "!", "play", "##ed"]
    (tmp_path / "vocab.txt").write_text("\n".join(vocabulary), encoding="utf-8")
    tokenizer = BertJapaneseTokenizer(str(tmp_path / "vocab.txt"), do_lower_case=True)
    assert not tokenizer([text]).encodings
    found = attribute(bag(tokenizer, num_labels=1, problem_type="regression"), text)
    assert_tiles(text, found.tokens)
    assert_adds_up(found, 1e-5)
    assert [piece.text for piece in found.tokens] == expected


def test_a_tokenizer_in_python_claims_no_more_than_it_read(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the"]))
    tokenizer = BertJapaneseTokenizer(str(tmp_path / "vocab.txt"))
    classifier = bag(tokenizer, num_labels=2)
    found = attribute(Classifier(classifier.model, tokenizer, 5), "the zzz yyy xxx www")
    assert [piece.text for piece in found.tokens] == ["the", "zzz yyy"]


# --- What cannot be explained -----------------------------------------------------------------------------------------


def test_a_label_that_the_model_has_not_is_refused():
    with pytest.raises(UserError, match="'fine': the model has bad, good"):
        attribute(bag(word_tokenizer(), id2label={0: "bad", 1: "good"}), TEXT, "fine")
    with pytest.raises(UserError, match="rates"):
        attribute(bag(word_tokenizer(), num_labels=1, problem_type="regression"), TEXT, "fine")


def test_a_model_that_does_not_read_one_table_of_embeddings_is_refused():
    sizes = {"vocab_size": 400, "pad_token_id": 1}
    canine = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    t5 = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2, "decoder_start_token_id": 1}
    models = [
        CanineForSequenceClassification(CanineConfig(**canine)),
        T5ForSequenceClassification(T5Config(eos_token_id=3, **t5, **sizes)),
    ]
    for model in models:
        with pytest.raises(UserError, match=rf"{type(model).__name__} does not read"):
            attribute(Classifier(model.eval(), word_tokenizer(), 32), TEXT)


def test_a_text_without_any_token_is_refused():
    tokenizer = word_tokenizer()
    tokenizer.backend_tokenizer.post_processor = type(tokenizer.backend_tokenizer.post_processor)(
        single="$A", pair="$A $B", special_tokens=[]
    )
    with pytest.raises(UserError, match="no tokens"):
        attribute(bag(tokenizer), "")
