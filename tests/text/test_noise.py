"""Noise: exact on the keyboard and in the rules of pronunciation, and nothing changes but what its name says."""

import dataclasses
import itertools
import random
import re
import time
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from reviews import review_rows

from finetune.text.noise import NOISES, compose, key_strokes, noisy, pronounced

KOREAN = ["spaces_removed", "spaces_inserted", "jamo_typos", "laughter", "as_pronounced"]
ENGLISH = ["case", "typos", "contractions"]
SYLLABLES = [chr(code) for code in range(ord("가"), ord("힣") + 1)]
KEYS = "ㅂㅃㅈㅉㄷㄸㄱㄲㅅㅆㅛㅕㅑㅐㅒㅔㅖㅁㄴㅇㄹㅎㅗㅓㅏㅣㅋㅌㅊㅍㅠㅜㅡ"
REVIEW = "배우들 연기가 정말 좋았습니다. 결말은 조금 아쉽네요 ㅋㅋ 그래도 다시 보고 싶지 않은 건 아니에요! I'd Watch it"

texts = st.one_of(
    st.text(st.characters(exclude_categories=()), max_size=40),  # lone surrogates too
    st.text("가각값없좋았다이의ㅋㅠㅘ .!?…\n\t\u3000'aZßÿ9😀\u1100\u1161\u0301\ud800שل", max_size=30),
    st.text(st.sampled_from(SYLLABLES), max_size=30),
)
english = st.lists(st.sampled_from(["good", "isn’t", "is", "not", "CAN'T", "cannot", "bad,"])).map(" ".join)
seeds = st.integers(0, 2**32)


def outcomes(text, name, count=1000):
    return {noisy(text, name, seed) for seed in range(count)}


def test_the_names_are_those_asked_for():
    assert [*NOISES] == [*KOREAN, *ENGLISH]


# Keyboard


COMPOUNDS = {
    **{"ㅗㅏ": "ㅘ", "ㅗㅐ": "ㅙ", "ㅗㅣ": "ㅚ", "ㅜㅓ": "ㅝ", "ㅜㅔ": "ㅞ", "ㅜㅣ": "ㅟ", "ㅡㅣ": "ㅢ"},
    **{"ㄱㅅ": "ㄳ", "ㄴㅈ": "ㄵ", "ㄴㅎ": "ㄶ", "ㄹㄱ": "ㄺ", "ㄹㅁ": "ㄻ", "ㄹㅂ": "ㄼ"},
    **{"ㄹㅅ": "ㄽ", "ㄹㅌ": "ㄾ", "ㄹㅍ": "ㄿ", "ㄹㅎ": "ㅀ", "ㅂㅅ": "ㅄ"},
}


def joined(initial, vowel, final):
    """Strokes of one syllable or of less -> text, by Unicode's names and its composition."""
    letters = [COMPOUNDS.get(keys, keys) for keys in (initial, vowel, final)]
    if not (initial and vowel):
        return "".join(letters)
    kinds = ("CHOSEONG", "JUNGSEONG", "JONGSEONG")
    names = [
        unicodedata.name(letter).replace("LETTER", kind) for letter, kind in zip(letters, kinds, strict=True) if letter
    ]
    return unicodedata.normalize("NFC", "".join(map(unicodedata.lookup, names)))


def reference_input_method(strokes):
    """Two-set composition as an automaton, key by key: `done` can no longer change, the rest is the open syllable."""
    done, initial, vowel, final = "", "", "", ""
    for key in strokes:
        if key in "ㅏㅑㅓㅕㅗㅛㅜㅠㅡㅣㅐㅒㅔㅖ":
            if final:
                done, initial, vowel, final = done + joined(initial, vowel, final[:-1]), final[-1], key, ""
            elif not vowel or vowel + key in COMPOUNDS:
                vowel += key
            else:
                done, initial, vowel = done + joined(initial, vowel, ""), "", key
        elif initial and vowel and ((not final and key not in "ㄸㅃㅉ") or final + key in COMPOUNDS):
            final += key
        else:
            done, initial, vowel, final = done + joined(initial, vowel, final), key, "", ""
    return done + joined(initial, vowel, final)


@settings(max_examples=500, deadline=None)
@given(st.text(KEYS, max_size=20))
@example("ㄱㅏㄱㅅㅏㄱㅅㅅㅗㅏㅏㄸㅡㅣㄹㄱㅣㅆㅆㅏㅂㅅ")
def test_strokes_compose_as_in_an_input_method(strokes):
    assert compose(strokes) == reference_input_method(strokes)


@pytest.mark.parametrize(
    ("strokes", "text"),
    [
        ("ㄱㅏㄱㅏ", "가가"),
        ("ㄱㅏㄱㅇㅏ", "각아"),
        ("ㅇㅏㄴㅈㅏ", "안자"),
        ("ㅇㅏㄴㅈㅇㅏ", "앉아"),
        ("ㄱㅏㄲㅏ", "가까"),
        ("ㄱㅏㄱㄱㅏ", "각가"),
        ("ㅇㅏㄸㅏ", "아따"),
        ("ㅇㅏㄸ", "아ㄸ"),
        ("ㄷㅗㅣㅇㅓㅆㄷㅏ", "되었다"),
        ("ㅇㅡㅣㅅㅏ", "의사"),
        ("ㄲㅜㅔㅁㅐ", "꿰매"),
        ("ㅗㅏ", "ㅘ"),
        ("ㄱㅅ", "ㄱㅅ"),
        ("ㅏㅇ", "ㅏㅇ"),
    ],
)
def test_examples_of_strokes(strokes, text):
    assert compose(strokes) == text
    if not re.search("[ㄱ-ㅣ]", text):
        assert key_strokes(text) == strokes


def test_every_syllable_is_typed_by_its_strokes():
    assert len(SYLLABLES) == 11_172
    strokes = [key_strokes(syllable) for syllable in SYLLABLES]
    assert set("".join(strokes)) == set(KEYS)
    assert [compose(keys) for keys in strokes] == SYLLABLES
    assert len(set(strokes)) == len(SYLLABLES)
    # One after the other, in two orders, so that finals meet initials of other syllables.
    for order in (SYLLABLES, [SYLLABLES[i * 5003 % 11_172] for i in range(11_172)]):
        assert compose(key_strokes("".join(order))) == "".join(order)


@given(st.text(st.sampled_from(SYLLABLES)))
def test_any_syllables_are_typed_by_their_strokes(syllables):
    assert compose(key_strokes(syllables)) == syllables


def test_all_slips_of_one_syllable():
    doubled, dropped, swapped = {"ㄱ가", "가ㅏ"}, {"ㄱ", "ㅏ"}, {"ㅏㄱ"}
    neighbours = {"다", "사", "아", "라", "거", "기", "갸", "개", "그"}
    assert outcomes("가", "jamo_typos") == doubled | dropped | swapped | neighbours | {"까"}  # with shift


def test_slips_go_on_into_the_next_syllable():
    assert {"잇어", "이써", "잉써", "이썽", "있ㅆ어"} <= outcomes("있어", "jamo_typos")
    assert {"고", "가", "가ㅗ", "고ㅘ", "과ㅏ"} <= outcomes("과", "jamo_typos")


def test_no_two_sequences_of_strokes_give_the_same_text():
    """All of up to four strokes over keys that combine in every way: so a slip never gives the same text again."""
    sequences = ["".join(keys) for n in range(5) for keys in itertools.product("ㄱㄲㅅㄸㅗㅏㅣ", repeat=n)]
    assert len({compose(strokes) for strokes in sequences}) == len(sequences) == 2801


def test_a_typo_is_one_slip_and_leaves_what_stands_around():
    for seed in range(200):
        found = noisy("(좋은영화ㅋ)", "jamo_typos", seed)
        assert re.fullmatch(r"\([가-힣ㄱ-ㅣ]+ㅋ\)", found)
    assert outcomes("me", "typos") == {"mme", "mee", "e", "m", "em", "ne", "je", "ke", "mw", "mr", "ms", "md"}
    assert outcomes("I", "typos") == {"II", "U", "O", "J", "K"}
    assert outcomes("éé", "typos") == {"ééé", "é"}


# Pronunciation


@pytest.mark.parametrize(
    ("rule", "pairs"),
    [
        ("ㅎ before a vowel", "좋아 조아, 많이 마니, 싫어 시러, 괜찮은 괜차는"),
        (
            "liaison",
            "먹어 머거, 재미있어 재미이써, 앉아 안자, 없어 업써, 읽어 일거, 밖에 바께, 낱낱이 난나치, 문의 무늬",
        ),
        ("no liaison", "강아지 강아지, 영어 영어, 나이 나이"),
        ("before 없", "맛없다 마덥따, 끝없이 끄덥씨, 값없이 가법씨, 어이없다 어이업따"),
        ("palatalisation", "같이 가치, 굳이 구지, 붙여 부쳐, 닫혀 다쳐, 벼훑이 벼훌치, 맏형 마텽, 밭에 바테"),
        ("aspiration", "축하 추카, 못하다 모타다, 밝히다 발키다, 넓히다 널피다, 앉히다 안치다, 꽂히다 꼬치다"),
        (
            "ㅎ before a consonant",
            "좋다 조타, 많고 만코, 싫지 실치, 어떻게 어떠케, 많습니다 만씀니다, 놓는 논는, 뚫네 뚤레",
        ),
        ("nasals", "합니다 함니다, 있는 인는, 먹는 멍는, 없는 엄는, 읽는 잉는, 밟는 밤는, 앉는 안는, 젊네 점네"),
        ("ㄹ", "독립 동닙, 협력 혐녁, 대통령 대통녕, 심리 심니, 연락 열락, 설날 설랄, 달리 달리"),
        ("tense initials", "했다 했따, 같다 같따, 국밥 국빱, 없다 업따, 읽다 익따, 앉고 안꼬, 넓게 널께, 밟다 밥따"),
        ("stems and nouns", "읽고 일꼬, 닭과 닥꽈, 젊다 점따, 삶과 삼과, 여덟도 여덜도, 신고 신고, 갈등 갈등"),
        ("희", "희망 히망, 띄어 띠어, 의사 의사"),
        ("unchanged", "영화 영화, 좋하 좋하, 꽃 꽃, 값 값, 전화 전화, 안녕하세요 안녕하세요"),
    ],
)
def test_words_as_they_sound(rule, pairs):
    for word, sound in (pair.split() for pair in pairs.split(", ")):
        assert pronounced(word) == sound, rule
        assert noisy(f"{word} ㅋ", "as_pronounced", 1) == f"{sound} ㅋ"


def test_any_two_syllables_have_a_sound():
    """All finals before all initials, with the vowels and finals that the rules look at."""
    followers = [s for s in SYLLABLES if unicodedata.normalize("NFD", s)[1] in "\u1161\u1175\u1167\u1174"]
    rights = [s for s in followers if len(unicodedata.normalize("NFD", s)) == 2] + ["없", "형", "였"]
    lefts = [*SYLLABLES[: SYLLABLES.index("개")], *"밟닭흙칡삶앎덟"]
    assert (len(lefts), len(rights)) == (28 + 7, 19 * 4 + 3)
    for left in lefts:
        for right in rights:
            assert re.fullmatch("[가-힣]{2}", pronounced(left + right))


# The others


def test_spaces_go_only_beside_hangul():
    assert outcomes("이 영화", "spaces_removed") == {"이영화"}
    assert outcomes(" 좋다.  왜\u3000so good\n네 ", "spaces_removed") == {
        " 좋다.왜\u3000so good\n네 ",
        " 좋다.  왜so good\n네 ",
        " 좋다.왜so good\n네 ",
    }
    assert noisy("so good", "spaces_removed", 1) == "so good"


def test_spaces_come_only_between_syllables():
    assert outcomes("영화ㅋ ok좋다", "spaces_inserted") == {
        "영 화ㅋ ok좋다",
        "영화ㅋ ok좋 다",
        "영 화ㅋ ok좋 다",
    }


def test_laughter_is_added_to_sentences_and_made_longer():
    counts = range(2, 6)
    assert outcomes("웃겨", "laughter") == {"웃겨" + n * letter for n in counts for letter in "ㅋㅠ"}
    assert outcomes("웃겨!! ", "laughter") == {f"웃겨!! {n * letter} " for n in counts for letter in "ㅋㅠ"}
    assert outcomes("최고👍", "laughter") == {f"최고👍 {n * letter}" for n in counts for letter in "ㅋㅠ"}
    assert outcomes("슬퍼ㅠㅜ", "laughter") == {"슬퍼ㅠㅜ" + n * "ㅜ" for n in counts}
    assert noisy("Funny!", "laughter", 1) == "Funny!"
    assert any(re.search("다[.] [ㅋㅠ]+ 3[.]5점", found) for found in outcomes("웃기다. 3.5점", "laughter"))


def test_words_in_another_case():
    assert outcomes("don't", "case") == {"DON'T", "Don't"}
    assert outcomes("iPhone", "case") == {"iphone", "IPHONE", "Iphone", "IpHONE"}
    assert outcomes("영화 A급", "case") == {"영화 a급"}


def test_negations_are_spelled_out_and_contracted():
    pairs = {
        "It isn't bad": "It is not bad",
        "I can't say": "I cannot say",
        "WON'T buy": "WILL NOT buy",
        "Don't go; we didn't like it": "Do not go; we did not like it",
        "I do not and they are not": "I don't and they aren't",
    }
    for one, other in pairs.items():
        assert outcomes(one, "contractions", 3) == {other}
        assert outcomes(other, "contractions", 3) == {one}
    assert outcomes("I’m sure it won’t, i've and I'M", "contractions", 3) == {"I am sure it will not, i have and I AM"}


@settings(max_examples=50, deadline=None)
@given(text=english, seed=seeds)
def test_contractions_and_nothing_else_are_changed_whatever_the_seed(text, seed):
    forms = r"\b(isn’t|is not|CAN'T|cannot)(?!\w)"
    found = noisy(text, "contractions", seed)
    assert (found != text) == bool(re.search(forms, text))
    assert re.split(r"\b(?:isn't|is not|CANNOT|can't)(?!\w)", found) == re.split(forms.replace("(is", "(?:is"), text)


@pytest.mark.parametrize(
    "text",
    [
        "Isn't it good?",
        "Don't you dare",
        "could not only sing",
        "do NOT go",
        "I have a dog, that's what they are, she'd know",
        "ain't, cant, wont, isn'tish, non-can't",
        "is  not, is\nnot, this note, can not",
        "재미없다",
    ],
)
def test_what_would_change_its_meaning_is_not_contracted(text):
    assert noisy(text, "contractions", 1) == text


# All of them


def kept(name, text):
    """What this noise must not touch."""
    match name:
        case "spaces_removed" | "spaces_inserted":
            return re.sub("[ \u00a0\u3000]", "", text)
        case "jamo_typos" | "as_pronounced":
            return re.sub("[가-힣ㄱ-ㅣ]+", "", text)
        case "laughter":
            return re.sub("[ ㅋㅎㅠㅜ]", "", text)
        case "case":
            return text.casefold()
        case _:
            return re.sub("[A-Za-zÀ-ÖØ-öø-ÿ]+", "", text)


def can_change(name, text):
    match name:
        case "spaces_removed":
            return bool(re.search(r"[가-힣][ \u00a0\u3000]+\S|\S[ \u00a0\u3000]+[가-힣]", text))
        case "spaces_inserted":
            return bool(re.search("[가-힣]{2}", text))
        case "jamo_typos":
            return any("가" <= a <= "힣" for a in text)
        case "laughter":
            return any("가" <= a <= "힣" or "ㄱ" <= a <= "ㅣ" for a in text)
        case "as_pronounced":
            return any(pronounced(word) != word for word in re.findall("[가-힣]+", text))
        case _:
            return any(a < "\u0100" and a.isalpha() and a not in "ªµº" for a in text)


@pytest.mark.parametrize("name", [name for name in NOISES if name != "contractions"])
@settings(max_examples=150, deadline=None)
@given(text=texts, seed=seeds)
@example(text="", seed=0)
@example(text="각각가가가", seed=0)
@example(text="\ud800가 \udfffa", seed=0)
def test_only_what_can_be_changed_is_changed_and_then_always(name, text, seed):
    found = noisy(text, name, seed)
    assert noisy(text, name, seed) == found
    assert (found != text) == can_change(name, text)
    assert kept(name, found) == kept(name, text)


def test_draws_are_the_same_in_every_process_and_version():
    """Each process has its own hash seed, so that equal values here are equal values everywhere."""
    assert {name: noisy(REVIEW, name, 7) for name in NOISES} == {
        "spaces_removed": "배우들연기가정말 좋았습니다.결말은 조금아쉽네요ㅋㅋ 그래도다시보고"
        "싶지않은건 아니에요! I'd Watch it",
        "spaces_inserted": "배우들 연기 가 정말 좋았 습니 다. 결말 은 조 금 아쉽네요 ㅋㅋ 그래도 다시 보고 "
        "싶지 않은 건 아 니에요! I'd Watch it",
        "jamo_typos": "배우들 ㅕㅇㄴ기가 정말 좋았습닏. 결말은 조금 아쉽넹ㅅ ㅋㅋ 그래도 다ㅏ시 보고 시ㅣㅍ지 안흔 건 "
        "아니에요! I'd Watch it",
        "laughter": "배우들 연기가 정말 좋았습니다. ㅋㅋㅋㅋ 결말은 조금 아쉽네요 ㅋㅋㅋㅋ 그래도 다시 보고 "
        "싶지 않은 건 아니에요! I'd Watch it ㅋㅋㅋㅋ",
        "as_pronounced": "배우들 연기가 정말 조았씀니다. 결마른 조금 아쉽네요 ㅋㅋ 그래도 다시 보고 싶찌 않은 건 "
        "아니에요! I'd Watch it",
        "case": REVIEW.replace("Watch", "watch"),
        "typos": REVIEW.replace("I'd Watch it", "I'dd Watch i"),
        "contractions": REVIEW,
    }
    assert noisy("영화", "jamo_typos", "7 epoch 2 row 31") == "옇와"


@pytest.mark.parametrize("name", NOISES)
def test_seeds_differ_and_the_rate_is_kept(name):
    if NOISES[name].rate == 1:
        pytest.skip("nothing is drawn: every place is changed")
    assert len(outcomes(REVIEW, name, 100)) > 10
    text = "\n".join([*(f"{review}." for review, _ in review_rows(400)), *["So GOOD it hurts"] * 100])
    changed = []
    noise = dataclasses.replace(NOISES[name], change=lambda found, _: changed.append(found) or found)
    assert noise(text, random.Random(1)) == text
    count = len(noise.find(text))
    assert count >= 400
    assert abs(len(changed) / count - noise.rate) < 5 * (noise.rate * (1 - noise.rate) / count) ** 0.5


@pytest.mark.parametrize("name", NOISES)
@pytest.mark.parametrize(
    "text",
    [
        "가" * 100_000,
        "값없이 좋다! " * 12_500,
        "가" + " " * 99_998 + "!",
        "!" * 99_998 + "a가",
        "a'" * 50_000,
        "가.\n" * 33_000,
        "isn't " * 16_000,
    ],
)
def test_time_is_linear(name, text):
    start = time.perf_counter()
    noisy(text, name, 1)
    assert time.perf_counter() - start < 10  # quadratic time would be minutes
