"""Noise: small, realistic disturbances of a text (spacing, typos, spelling as pronounced), to see which models break.

Each is a function of the text and a generator alone: the same seed gives the same text in any process, on any machine.
Only `Random.random` is drawn from, because Python keeps the sequence of no other method from version to version.

"Hangul" below means the 11,172 syllables and the letters ㄱ to ㅣ; text whose syllables are spelt in conjoining jamo
(Unicode's NFD) is left as it is.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeVar

_T = TypeVar("_T")
_Span = tuple[int, int]


@dataclass(frozen=True)
class Noise:
    """One kind of noise: what it can change in a text, how much of that it changes, and into what."""

    rate: float
    """The probability of each place to be changed. Where none is drawn, one is changed all the same."""
    find: Callable[[str], list[_Span]]
    """The places that can be changed, in their order, none overlapping another."""
    change: Callable[[str, Random], str]
    """What stands at a place -> something else, never the same."""

    def __call__(self, text: str, rng: Random) -> str:
        """`text` with noise: equal to `text` if there is nothing to change in it, and only then."""
        places = self.find(text)
        drawn = [place for place in places if rng.random() < self.rate]
        if places and not drawn:
            drawn = [_pick(places, rng)]
        parts = []
        last = 0
        for start, end in drawn:
            parts += [text[last:start], self.change(text[start:end], rng)]
            last = end
        return "".join([*parts, text[last:]])


def noisy(text: str, name: str, seed: int | str) -> str:
    """`text` with the noise of that name in `NOISES`.

    Texts that share a seed share their draws: for many texts, give each its own (a str such as "7 epoch 2 row 31" will
    do).
    """
    return NOISES[name](text, Random(seed))


def _below(limit: int, rng: Random) -> int:
    return int(rng.random() * limit)


def _pick(items: Sequence[_T], rng: Random) -> _T:
    return items[_below(len(items), rng)]


def _spans(pattern: re.Pattern[str]) -> Callable[[str], list[_Span]]:
    return lambda text: [match.span() for match in pattern.finditer(text)]


# Syllables and their letters

_INITIALS = "ㄱㄲㄴㄷㄸㄹㅁㅂㅃㅅㅆㅇㅈㅉㅊㅋㅌㅍㅎ"
_VOWELS = "ㅏㅐㅑㅒㅓㅔㅕㅖㅗㅘㅙㅚㅛㅜㅝㅞㅟㅠㅡㅢㅣ"
_FINALS = ("", *"ㄱㄲㄳㄴㄵㄶㄷㄹㄺㄻㄼㄽㄾㄿㅀㅁㅂㅄㅅㅆㅇㅈㅊㅋㅌㅍㅎ")
_COMPOUND_VOWELS = {"ㅘ": "ㅗㅏ", "ㅙ": "ㅗㅐ", "ㅚ": "ㅗㅣ", "ㅝ": "ㅜㅓ", "ㅞ": "ㅜㅔ", "ㅟ": "ㅜㅣ", "ㅢ": "ㅡㅣ"}
_COMPOUND_FINALS = {
    **{"ㄳ": "ㄱㅅ", "ㄵ": "ㄴㅈ", "ㄶ": "ㄴㅎ", "ㄺ": "ㄹㄱ", "ㄻ": "ㄹㅁ", "ㄼ": "ㄹㅂ"},
    **{"ㄽ": "ㄹㅅ", "ㄾ": "ㄹㅌ", "ㄿ": "ㄹㅍ", "ㅀ": "ㄹㅎ", "ㅄ": "ㅂㅅ"},
}


def _letters(syllable: str) -> tuple[str, str, str]:
    """Initial, vowel and final, which may be empty; compounds are one letter."""
    initial, rest = divmod(ord(syllable) - ord("가"), len(_VOWELS) * len(_FINALS))
    vowel, final = divmod(rest, len(_FINALS))
    return _INITIALS[initial], _VOWELS[vowel], _FINALS[final]


def _syllable(initial: str, vowel: str, final: str) -> str:
    number = _INITIALS.index(initial) * len(_VOWELS) + _VOWELS.index(vowel)
    return chr(ord("가") + number * len(_FINALS) + _FINALS.index(final))


# Typing: the two-set keyboard and QWERTY

_STROKES = {**_COMPOUND_VOWELS, **_COMPOUND_FINALS}
_COMPOUNDS = {strokes: letter for letter, strokes in _STROKES.items()}
_VOWEL_KEYS = "".join(vowel for vowel in _VOWELS if vowel not in _STROKES)
# Longest first: a compound wherever the strokes make one.
_VOWEL = "|".join([*_COMPOUND_VOWELS.values(), *_VOWEL_KEYS])
_FINAL = "|".join([*_COMPOUND_FINALS.values(), *(final for final in _FINALS if final and final not in _STROKES)])
_TYPED = re.compile(
    f"([{_INITIALS}])({_VOWEL})((?:{_FINAL})(?![{_VOWEL_KEYS}]))?|{'|'.join(_COMPOUND_VOWELS.values())}"
)


def key_strokes(syllables: str) -> str:
    """Hangul syllables -> the keys of the two-set keyboard that type them; a letter typed with shift is one key."""
    return "".join(_STROKES.get(letter, letter) for syllable in syllables for letter in _letters(syllable))


def compose(strokes: str) -> str:
    """Keys of the two-set keyboard -> the text that the input method makes of them.

    A consonant after a vowel is a final until a vowel follows, which takes the last stroke away as its initial.
    Consonants without a vowel stay apart. No two sequences of strokes give the same text, and the strokes of any
    syllables give those syllables: each of their vowels has just one initial, and that is one stroke. Among letters
    that stand alone this does not hold (ㄱ and ㅏ side by side would become 가), so they are not composed anew.
    """
    return _TYPED.sub(_composed, strokes)


def _composed(match: re.Match[str]) -> str:
    initial, vowel, final = match.groups(default="")
    if not initial:
        return _COMPOUNDS[match[0]]
    return _syllable(initial, _COMPOUNDS.get(vowel, vowel), _COMPOUNDS.get(final, final))


def _neighbours(rows: Sequence[str]) -> dict[str, str]:
    """Each key's neighbours: beside it, above and below, where a row is half a key to the right of the one above."""
    places = {(row, column): key for row, keys in enumerate(rows) for column, key in enumerate(keys)}
    steps = [(0, -1), (0, 1), (-1, 0), (-1, 1), (1, -1), (1, 0)]
    return {
        key: "".join(places.get((row + down, column + right), "") for down, right in steps)
        for (row, column), key in places.items()
    }


def _two_set_neighbours() -> dict[str, str]:
    """Neighbours with shift as it is, and the same key with shift missed or held, where that is another letter."""
    below = ["ㅁㄴㅇㄹㅎㅗㅓㅏㅣ", "ㅋㅌㅊㅍㅠㅜㅡ"]
    plain, shifted = "ㅂㅈㄷㄱㅅㅛㅕㅑㅐㅔ", "ㅃㅉㄸㄲㅆㅛㅕㅑㅒㅖ"
    found = {**_neighbours([shifted, *below]), **_neighbours([plain, *below])}
    for one, other in zip(plain, shifted, strict=True):
        if one != other:
            found[one] += other
            found[other] += one
    return found


_TWO_SET = _two_set_neighbours()
_QWERTY_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_QWERTY = {**_neighbours(_QWERTY_ROWS), **_neighbours([row.upper() for row in _QWERTY_ROWS])}


def _slip(keys: str, neighbours: Mapping[str, str], rng: Random) -> str:
    """`keys` with one of them doubled, dropped, swapped with the next, or a neighbour instead."""
    at = _below(len(keys), rng)
    before, key, after = keys[:at], keys[at], keys[at + 1 :]
    slips = [before + key + key + after]
    if len(keys) > 1:
        slips.append(before + after)
    if after and after[0] != key:
        slips.append(before + after[0] + key + after[1:])
    if neighbours.get(key):
        slips.append(before + _pick(neighbours[key], rng) + after)
    return _pick(slips, rng)


def _jamo_typo(syllables: str, rng: Random) -> str:
    return compose(_slip(key_strokes(syllables), _TWO_SET, rng))


def _typo(word: str, rng: Random) -> str:
    return _slip(word, _QWERTY, rng)


def _other_case(word: str, rng: Random) -> str:
    """In lower case, in upper case, capitalized, or as with caps lock."""
    forms = dict.fromkeys([word.lower(), word.upper(), word.capitalize(), word.swapcase()])
    return _pick([form for form in forms if form != word], rng)


# Contractions: the one kind that is no damage. A "not" put in would ask whether a model sees negation, but the label
# would no longer hold; spelled out or contracted, a negation is the same, and so is its label.

_AUXILIARIES = (
    *("is", "are", "was", "were", "do", "does", "did", "have", "has", "had"),
    *("would", "could", "should", "must", "need"),
)
_SPELLED_OUT = {
    **{f"{verb}n't": f"{verb} not" for verb in _AUXILIARIES},
    **{"can't": "cannot", "won't": "will not", "shan't": "shall not"},
}
_CONTRACTED = {spelled_out: contraction for contraction, spelled_out in _SPELLED_OUT.items()}
# These only one way: "I have a dog" or "what they are" would not be contracted. 's and 'd stand for two words each.
_SPELLED_OUT |= {
    "i'm": "i am",
    **{f"{word}'re": f"{word} are" for word in ("you", "we", "they")},
    **{f"{word}'ve": f"{word} have" for word in ("i", "you", "we", "they", "would", "could", "should")},
    **{f"{word}'ll": f"{word} will" for word in ("i", "you", "he", "she", "it", "we", "they")},
}
_FORMS = "|".join(re.escape(form) for form in [*_SPELLED_OUT, *_CONTRACTED]).replace("'", "['’]")
# "Isn't it?" is "Is it not?", a question turned around, and "could not only" is no negation: both are left as they are.
_CONTRACTION = re.compile(
    rf"(?<![\w'’-])(?:{_FORMS})(?![\w'’-])(?! (?:i|you|he|she|it|we|they|there|only|just|merely|simply)\b)",
    re.ASCII | re.IGNORECASE,
)


def _contraction_places(text: str) -> list[_Span]:
    return [match.span() for match in _CONTRACTION.finditer(text) if _cased(match[0]) is not None]


def _cased(form: str) -> str | None:
    """The other form in the case of this one; None where the case says something of its own, as in "do NOT"."""
    plain = form.replace("’", "'")
    lowered = plain.lower()
    other = (_SPELLED_OUT | _CONTRACTED)[lowered]
    if lowered.startswith(("i'", "i ")) and plain[1:] == lowered[1:]:
        return f"{plain[0]}{other[1:]}"
    if plain == lowered:
        return other
    if plain == lowered.upper():
        return other.upper()
    return other.capitalize() if plain == lowered.capitalize() else None


def _other_form(form: str, _: Random) -> str:
    other = _cased(form)
    assert other is not None, form
    return other


# Laughter and tears

_HANGUL = re.compile("[가-힣ㄱ-ㅣ]")
_EMOTION = re.compile("[ㅋㅎ]+|[ㅠㅜ]+")
# No second try within a run of signs: a long one would take quadratic time.
_EMOTION_OR_END = re.compile(rf"{_EMOTION.pattern}|(?<![.!?~…])[.!?~…]+(?=\s|\Z)|\S(?=\s*\Z)")


def _emotion_places(text: str) -> list[_Span]:
    """ㅋㅋ and ㅠㅠ that are there, the ends of sentences, and that of the text; in a text with Hangul only."""
    return [match.span() for match in _EMOTION_OR_END.finditer(text)] if _HANGUL.search(text) else []


def _laugh(found: str, rng: Random) -> str:
    count = 2 + _below(4, rng)
    if _EMOTION.fullmatch(found):
        return found + count * found[-1]
    space = "" if _HANGUL.fullmatch(found) else " "
    return found + space + count * _pick("ㅋㅠ", rng)


# Spelling as pronounced; articles are those of the Standard Pronunciation (표준 발음법)

_CLOSED = {
    **{final: final for final in "ㄱㄴㄷㄹㅁㅂㅇ"},
    **dict.fromkeys("ㄲㅋㄳㄺ", "ㄱ"),
    **dict.fromkeys("ㅅㅆㅈㅊㅌㅎ", "ㄷ"),
    **dict.fromkeys("ㅍㄿㅄ", "ㅂ"),
    **dict.fromkeys("ㄵㄶ", "ㄴ"),
    **dict.fromkeys("ㄼㄽㄾㅀ", "ㄹ"),
    **{"ㄻ": "ㅁ"},
}
"""Articles 8 to 11: the seven finals that are heard before a consonant."""
_LIAISON = {
    **{final: ("", final) for final in _FINALS if final and final not in _COMPOUND_FINALS and final not in "ㅇㅎ"},
    **{final: (letters[0], letters[1].replace("ㅅ", "ㅆ")) for final, letters in _COMPOUND_FINALS.items()},
    **{"ㅎ": ("", "ㅇ"), "ㄶ": ("", "ㄴ"), "ㅀ": ("", "ㄹ")},
}
"""Articles 12.4, 13 and 14: what stays of a final and what moves to the next syllable, before a vowel."""
_PALATAL = {"ㄷ": ("", "ㅈ"), "ㅌ": ("", "ㅊ"), "ㄾ": ("ㄹ", "ㅊ")}
_ASPIRATED = {"ㄱ": "ㅋ", "ㄷ": "ㅌ", "ㅂ": "ㅍ", "ㅈ": "ㅊ"}
_NASAL = {"ㄱ": "ㅇ", "ㄷ": "ㄴ", "ㅂ": "ㅁ"}
_TENSE = {"ㄱ": "ㄲ", "ㄷ": "ㄸ", "ㅂ": "ㅃ", "ㅅ": "ㅆ", "ㅈ": "ㅉ"}
# Stems and nouns part here: 읽고 is 일꼬 and 닭과 is 닥꽈, 닮고 is 담꼬 and 삶과 is 삼과. The nouns are few.
_NOUNS = "닭흙칡삶앎덟"


def pronounced(syllables: str) -> str:
    """Hangul syllables -> as they sound, spelt as people type it: 재미있어 is 재미이써, 합니다 is 함니다.

    Rules that look at two syllables and need no dictionary, so no inserted ㄴ (꽃잎), no tense initial after a sonorant
    (신고, 갈등). The last final stays, and so does a single one before a tense initial: 했다 is 했따, not 핻따.
    """
    letters = [_letters(syllable) for syllable in syllables]
    initials = [initial for initial, _, _ in letters]
    finals = [final for _, _, final in letters]
    # Article 5.3: 희 sounds as 히.
    vowels = ["ㅣ" if vowel == "ㅢ" and initial != "ㅇ" else vowel for initial, vowel, _ in letters]
    for i in range(len(syllables) - 1):
        if finals[i]:
            finals[i], initials[i + 1] = _contact(syllables[i], syllables[i + 1])
    return "".join(map(_syllable, initials, vowels, finals))


def _contact(left: str, right: str) -> tuple[str, str]:
    """The final of `left`, which has one, and the initial of `right`, as they sound together."""
    final, initial = _letters(left)[2], _letters(right)[0]
    if initial == "ㅇ":
        return _before_vowel(final, right)
    if initial == "ㅎ":
        return _before_aspirate(left, right)
    if final in "ㅎㄶㅀ":
        return _after_aspirate(final, initial)
    closed = "ㅂ" if left == "밟" else _CLOSED[final]
    if initial in "ㄴㅁㄹ":
        return _before_sonorant(final, closed, initial)
    simple = closed if final in _COMPOUND_FINALS else final
    noun = left in _NOUNS
    if final == "ㄺ" and initial == "ㄱ" and not noun:
        return "ㄹ", "ㄲ"  # article 11: 읽고
    # Articles 23 to 25: 국밥, 앉고, 넓게.
    if closed in _NASAL or (final in "ㄵㄻㄼㄽㄾ" and not noun):
        return simple, _TENSE.get(initial, initial)
    return simple, initial


def _before_vowel(final: str, right: str) -> tuple[str, str]:
    if final == "ㅇ":
        return final, "ㅇ"
    if right == "없":
        return "", _CLOSED[final]  # article 15: 맛없다 is 마덥따
    if final in _PALATAL and _palatalizes(right):
        return _PALATAL[final]
    return _LIAISON[final]


def _before_aspirate(left: str, right: str) -> tuple[str, str]:
    """Article 12.1: 축하 is 추카, 못하다 is 모타다. After ㄴ, ㄹ, ㅁ and ㅇ the ㅎ is kept."""
    final = _letters(left)[2]
    if final == "ㄷ" and _palatalizes(right):
        return "", "ㅊ"  # article 17: 닫히다
    if final in "ㅈㄵ" or (final in "ㄺㄼ" and left not in _NOUNS):
        letters = _COMPOUND_FINALS.get(final, final)
        return letters[:-1], _ASPIRATED[letters[-1]]
    if _CLOSED[final] in _NASAL and final != "ㅎ":
        return "", _ASPIRATED[_CLOSED[final]]
    return final, "ㅎ"


def _after_aspirate(final: str, initial: str) -> tuple[str, str]:
    """Articles 12.1 to 12.3: 좋다 is 조타, 많습니다 is 만씀니다, 놓는 is 논는."""
    rest = {"ㅎ": "", "ㄶ": "ㄴ", "ㅀ": "ㄹ"}[final]
    match initial:
        case "ㄱ" | "ㄷ" | "ㅈ":
            return rest, _ASPIRATED[initial]
        case "ㅅ":
            return rest, "ㅆ"
        case "ㄴ":
            return ("ㄹ", "ㄹ") if rest == "ㄹ" else ("ㄴ", "ㄴ")
        case _:
            return final, initial


def _before_sonorant(final: str, closed: str, initial: str) -> tuple[str, str]:
    """Articles 18 to 20: 합니다 is 함니다, 독립 is 동닙, 연락 is 열락."""
    if closed in _NASAL:
        return _NASAL[closed], "ㄴ" if initial == "ㄹ" else initial
    if {closed, initial} == {"ㄴ", "ㄹ"}:
        return "ㄹ", "ㄹ"
    if initial == "ㄹ" and closed in "ㅁㅇ":
        return closed, "ㄴ"
    return closed if final in _COMPOUND_FINALS else final, initial


def _palatalizes(right: str) -> bool:
    """Article 17: 이 and 히, with any final, and the 여 and 혀 that are contracted from them; not the 형 of 맏형."""
    _, vowel, final = _letters(right)
    return vowel == "ㅣ" or (vowel == "ㅕ" and final in ("", "ㅆ"))


_SYLLABLES = re.compile("[가-힣]+")


def _misspelt_places(text: str) -> list[_Span]:
    return [match.span() for match in _SYLLABLES.finditer(text) if pronounced(match[0]) != match[0]]


_LATIN = "A-Za-zÀ-ÖØ-öø-ÿ"
_SPACES = "[ \u00a0\u3000]+"

NOISES: Mapping[str, Noise] = {
    # Half of the spaces beside a syllable.
    "spaces_removed": Noise(
        0.5,
        _spans(re.compile(rf"(?<=[가-힣]){_SPACES}(?=\S)|(?<=\S){_SPACES}(?=[가-힣])")),
        lambda _spaces, _rng: "",
    ),
    # One in ten of the joints of syllables, which is about one word in five.
    "spaces_inserted": Noise(0.1, _spans(re.compile("[가-힣](?=[가-힣])")), lambda syllable, _rng: f"{syllable} "),
    # One slip of the two-set keyboard in one word in five. What is written without spaces counts as words of ten.
    "jamo_typos": Noise(0.2, _spans(re.compile("[가-힣]{1,10}")), _jamo_typo),
    # At half of the sentences, and half of the ㅋㅋ and ㅠㅠ that are there made longer.
    "laughter": Noise(0.5, _emotion_places, _laugh),
    # Half of the words that sound otherwise than they are spelt.
    "as_pronounced": Noise(0.5, _misspelt_places, lambda word, _rng: pronounced(word)),
    # One Latin word in five.
    "case": Noise(0.2, _spans(re.compile(f"[{_LATIN}]+(?:['’][{_LATIN}]+)*")), _other_case),
    # One slip of the QWERTY keyboard in one Latin word in five.
    "typos": Noise(0.2, _spans(re.compile(f"[{_LATIN}]+")), _typo),
    # All of them: nothing is damaged.
    "contractions": Noise(1.0, _contraction_places, _other_form),
}
