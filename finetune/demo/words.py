"""What the page says, in Korean and in English."""

import re
from dataclasses import dataclass
from typing import Literal

Language = Literal["en", "ko"]
_PREFERENCE = re.compile(r"\s*([A-Za-z]+)[A-Za-z0-9-]*\s*(?:;\s*q=([0-9.]+)\s*)?")

PAGE: dict[Language, dict[str, str]] = {
    "en": {
        "heading": "## Try the models\nWhat is typed here is neither kept nor logged by this program.",
        "sentiment": "Sentiment",
        "compare": "Side by side",
        "generate": "Generation",
        "model": "Model",
        "text": "Text",
        "text_hint": "A review, say",
        "examples": "Examples",
        "predict": "Predict",
        "prediction": "Prediction",
        "predict_all": "Predict with all models",
        "predictions": "Predictions",
        "prompt": "Beginning",
        "prompt_hint": "What the text begins with, or what is asked; a model that is no chat goes without, too",
        "kind": "Label",
        "settings": "Settings",
        "temperature": "Temperature",
        "temperature_hint": "Low: what is most likely. High: surprises.",
        "top_p": "Top-p",
        "top_p_hint": "Only the likeliest words that together have this probability are drawn from.",
        "max_new_tokens": "Most tokens to write",
        "seed": "Seed",
        "seed_hint": "A whole number repeats a text; without one every text is another.",
        "write": "Write",
        "stop": "Stop",
        "written": "Written",
    },
    "ko": {
        "heading": "## 모델 써 보기\n여기에 입력한 내용은 이 프로그램이 저장하지도, 기록하지도 않습니다.",
        "sentiment": "감성",
        "compare": "나란히",
        "generate": "글쓰기",
        "model": "모델",
        "text": "글",
        "text_hint": "예를 들면 후기 한 줄",
        "examples": "예문",
        "predict": "예측하기",
        "prediction": "예측",
        "predict_all": "모든 모델로 예측하기",
        "predictions": "예측 결과",
        "prompt": "첫머리",
        "prompt_hint": "글의 첫머리나 물어볼 말. 대화 모델이 아니면 비워 두어도 됩니다",
        "kind": "레이블",
        "settings": "설정",
        "temperature": "온도",
        "temperature_hint": "낮으면 가장 그럴듯한 말을, 높으면 뜻밖의 말을 씁니다.",
        "top_p": "Top-p",
        "top_p_hint": "확률이 높은 것부터 더해 이 값이 될 때까지의 낱말 가운데에서만 뽑습니다.",
        "max_new_tokens": "최대 토큰 수",
        "seed": "시드",
        "seed_hint": "정수를 넣으면 같은 글이 다시 나오고, 비우면 매번 다른 글이 나옵니다.",
        "write": "쓰기",
        "stop": "멈추기",
        "written": "쓴 글",
    },
}
"""What stands in the page from the start: the browser chooses the language."""


@dataclass(frozen=True)
class Sentences:
    """What is said of a request; the names in braces are filled in."""

    no_text: str
    empty: str
    too_long: str
    no_model: str
    no_number: str
    no_whole_number: str
    no_seed: str
    no_label: str
    cannot_load: str
    failed: str
    unknown: str
    nothing_read: str
    cut: str
    agree: str
    disagree: str
    other_labels: str
    columns: tuple[str, str, str, str]
    """The heads of the table: the model, its label or rating, the label's probability, the time it took."""


SENTENCES: dict[Language, Sentences] = {
    "en": Sentences(
        no_text="The text must be text.",
        empty="There is no text yet; write something first.",
        too_long="The text has {count:,} characters; at most {limit:,} are taken.",
        no_model="There is no such model here; choose one of: {names}.",
        no_number="{name} must be a number from {low:g} to {high:g}.",
        no_whole_number="{name} must be a whole number from {low:d} to {high:d}.",
        no_seed="The seed must be a whole number from 0 to {high:d}, or left empty.",
        no_label="This model writes by label; choose one of: {names}.",
        cannot_load="The model {model} cannot be loaded; the terminal that the page was started from says why.",
        failed="The model {model} failed at this; the terminal that the page was started from says where.",
        unknown="The model's vocabulary lacks {share:.0%} of this text, so its prediction says little.",
        nothing_read="The model can read nothing of this text, so its prediction says nothing.",
        cut="Only the first {tokens:,} tokens of the text were read; the model takes no more.",
        agree="The models agree.",
        disagree="The models disagree.",
        other_labels="The models do not have the same labels, so they can neither agree nor disagree.",
        columns=("Model", "Prediction", "Probability", "Milliseconds"),
    ),
    "ko": Sentences(
        no_text="글은 문자열이어야 합니다.",
        empty="아직 글이 없습니다. 먼저 글을 써 주세요.",
        too_long="글이 {count:,}자입니다. {limit:,}자까지만 받습니다.",
        no_model="그런 모델은 없습니다. 다음 가운데에서 골라 주세요: {names}.",
        no_number="{name}: {low:g}에서 {high:g}까지의 수여야 합니다.",
        no_whole_number="{name}: {low:d}에서 {high:d}까지의 정수여야 합니다.",
        no_seed="시드는 0에서 {high:d}까지의 정수이거나 비어 있어야 합니다.",
        no_label="이 모델은 레이블에 따라 씁니다. 다음 가운데에서 골라 주세요: {names}.",
        cannot_load="모델 {model}: 불러올 수 없습니다. 까닭은 이 페이지를 연 터미널에 나와 있습니다.",
        failed="모델 {model}: 처리하지 못했습니다. 어디에서 멈추었는지는 이 페이지를 연 터미널에 나와 있습니다.",
        unknown="이 글의 {share:.0%}가 모델의 어휘에 없으므로 예측을 믿기 어렵습니다.",
        nothing_read="모델이 이 글에서 읽을 수 있는 것이 없으므로 예측에 뜻이 없습니다.",
        cut="글의 처음 {tokens:,}토큰까지만 읽었습니다. 모델이 그보다 긴 글을 받지 않습니다.",
        agree="모델들의 예측이 같습니다.",
        disagree="모델들의 예측이 서로 다릅니다.",
        other_labels="모델들의 레이블이 서로 달라서 예측이 같은지 다른지 말할 수 없습니다.",
        columns=("모델", "예측", "확률", "밀리초"),
    ),
}
"""What the server says of a request, by language."""

EXAMPLES = [
    "배우들 호흡이 좋아서 두 시간이 금방 지나갔어요.",
    "포장은 꼼꼼했는데 막상 써 보니 하루 만에 고장 났습니다.",
    "기대를 안 하고 갔다가 국물 맛에 반해서 한 그릇 더 시켰다.",
    "결말이 너무 뻔해서 중간부터 시계만 봤네요.",
    "The room was spotless and the breakfast kept us happy until dinner.",
    "Half the songs sound the same, and the other half should have stayed in the studio.",
    "It does what the box says, no more and no less.",
]


def preferred_language(accept_language: str | None) -> Language:
    """The one of our languages that a browser's Accept-Language (RFC 9110, 12.5.4) ranks first; English by default."""
    ranked: list[tuple[float, Language]] = []
    for part in (accept_language or "").split(","):
        match = _PREFERENCE.fullmatch(part)
        if match is None:
            continue
        try:
            weight = float(match[2] or 1)
        except ValueError:
            continue
        ranked += [(weight, language) for language in PAGE if language == match[1].lower()]
    best = max(ranked, key=lambda preference: preference[0], default=(0.0, "en"))
    return best[1] if best[0] > 0 else "en"
