"""Metrics of written texts against numbers counted by hand, and against sacreBLEU's own."""

import pytest
import sacrebleu

from finetune.evaluation import metrics, writing


def compute(metric, **inputs):
    return metric(keep_in_memory=True).compute(**inputs)


def test_units_see_korean_and_words():
    assert writing.units("정말 Good-Movie!! ㅋㅋ 10점") == ["정", "말", "good", "movie", "ㅋ", "ㅋ", "10", "점"]
    assert writing.units("...") == []


def test_variety_is_what_one_counts():
    texts = ["a b a b", "a b c"]
    values = compute(metrics.Variety, predictions=texts)
    assert values["distinct_1"] == pytest.approx(3 / 7)
    assert values["distinct_2"] == pytest.approx(3 / 5)  # ab, ba, ab; ab, bc
    assert values["distinct_3"] == pytest.approx(3 / 3)
    assert values["repetition_1"] == pytest.approx((1 / 2 + 0) / 2)
    assert values["repetition_2"] == pytest.approx((1 / 3 + 0) / 2)
    assert values["repetition_3"] == 0
    short = compute(metrics.Variety, predictions=["a"])
    assert short["distinct_1"] == 1.0
    assert short["distinct_2"] is short["repetition_2"] is short["self_bleu"] is None


def test_self_bleu_tells_like_texts_from_unlike():
    alike = compute(metrics.Variety, predictions=["이 영화 정말 좋다"] * 3)
    unlike = compute(metrics.Variety, predictions=["이 영화 정말 좋다", "너무 지루해서 잤음", "배우 연기 최고"])
    assert alike["self_bleu"] == pytest.approx(100)
    assert unlike["self_bleu"] < 5


def test_rouge_is_what_one_counts():
    values = compute(metrics.Rouge, predictions=["가 나 다 라"], references=["나 다 마 라"])
    assert values["rouge1"] == pytest.approx(2 * 3 / 8)
    assert values["rouge2"] == pytest.approx(2 * 1 / 6)
    assert values["rougeL"] == pytest.approx(2 * 3 / 8)
    assert compute(metrics.Rouge, predictions=["", "x"], references=["x", "x"])["rougeL"] == 0.5


def test_references_alike_score_full_and_others_less():
    texts, others = ["이 영화 정말 좋다", "the movie was good"], ["이 영화 별로다", "a bad movie it was"]
    for metric, name in ((metrics.Bleu, "bleu"), (metrics.Chrf, "chrf")):
        assert compute(metric, predictions=texts, references=texts)[name] == pytest.approx(100)
        assert compute(metric, predictions=texts, references=others)[name] < 50
    english, wanted = ["the movie was really good"], ["the movie was very good indeed"]
    expected = sacrebleu.corpus_bleu(english, [wanted], tokenize="none").score
    assert compute(metrics.Bleu, predictions=english, references=wanted)["bleu"] == pytest.approx(expected)
    assert compute(metrics.Chrf, predictions=english, references=wanted)["chrf"] == pytest.approx(
        sacrebleu.corpus_chrf(english, [wanted]).score
    )


def test_copies_are_found_whatever_their_spacing():
    values = compute(metrics.Copies, predictions=["정말좋다!", "새로운 글"], training_texts=["정말 좋다", "나쁘다"])
    assert values == {"copies": 0.5}


def test_bleu_is_nothing_where_references_are_too_short_for_it():
    assert writing.bleu(["1994-09-27"], ["1994-09-27"]) is None
    assert writing.bleu_interval(["1994-09-27"], ["1994-09-27"]) is None


def test_intervals_hold_the_score_and_narrow_with_the_rows():
    texts, wanted = ["the old cat sat on a mat", "so it was said"], ["the cat sat on the mat", "so it was done there"]
    for formula, interval in ((writing.bleu, writing.bleu_interval), (writing.chrf, writing.chrf_interval)):
        widths = []
        for times in (5, 50):
            low, high = interval(texts * times, wanted * times)
            assert low < formula(texts * times, wanted * times) < high
            widths.append(high - low)
        assert widths[1] < 0.6 * widths[0]


def test_exact_matches_leave_white_space_at_the_ends_aside():
    assert writing.exact_matches([" a b", "a  b", "A b"], ["a b\n", "a b", "a b"]).tolist() == [True, False, False]
