"""What the page says, in Korean and in English."""

import re
from dataclasses import dataclass
from typing import Literal

Language = Literal["en", "ko"]
_PREFERENCE = re.compile(r"\s*([A-Za-z]+)[A-Za-z0-9-]*\s*(?:;\s*q=([0-9.]+)\s*)?")

PAGE: dict[Language, dict[str, str]] = {
    "en": {
        "heading": "# Try the models\nWhat is typed here is neither kept nor logged by this program.",
        "heading_flagging": "# Try the models\nWhat is typed here is neither kept nor logged by this program, unless "
        "you press “Right” or “Wrong” below a prediction: that keeps the text for the people who run this page.",
        "sentiment": "Sentiment",
        "compare": "Side by side",
        "generate": "Generation",
        "chat": "Chat",
        "batch": "File",
        "report": "Report",
        "model": "Model",
        "text": "Text",
        "text_hint": "A review, say",
        "examples": "Examples",
        "predict": "Predict",
        "prediction": "Prediction",
        "evidence": "What speaks for it",
        "right": "Right",
        "wrong": "Wrong",
        "noise": "Does it hold? Disturb the text:",
        "spaces_removed": "Remove the spaces",
        "jamo_typos": "Mistype some syllables",
        "laughter": "Add ㅋㅋ or ㅠㅠ",
        "typos": "Mistype some letters",
        "undo": "Undo",
        "predict_all": "Predict with all models",
        "prompt": "Beginning",
        "prompt_hint": "What the text begins with; it may be empty. Words to go on with come up as you type",
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
        "message": "Message",
        "message_hint": "What do you want to ask?",
        "send": "Send",
        "clear": "Begin anew",
        "file_hint": "A table whose first row names the columns, or one text a line (.txt): at most 10 MB and 10,000 "
        "rows. Files are deleted from the server after ten minutes.",
        "column": "Column of the texts",
        "label_file": "Predict every row",
        "labelled_file": "File with the predictions",
        "counts": "Rows by prediction",
        "report_choice": "Runs",
        "report_hint": "How the runs of this page compare on their common test rows.",
    },
    "ko": {
        "heading": "# 모델 써 보기\n여기에 입력한 내용은 이 프로그램이 저장하지도, 기록하지도 않습니다.",
        "heading_flagging": "# 모델 써 보기\n여기에 입력한 내용은 이 프로그램이 저장하지도, 기록하지도 않습니다. "
        "다만 예측 아래의 ‘맞아요’나 ‘틀려요’를 누르면 그 글이 이 페이지를 운영하는 사람에게 남습니다.",
        "sentiment": "감성",
        "compare": "나란히",
        "generate": "글쓰기",
        "chat": "대화",
        "batch": "파일",
        "report": "보고서",
        "model": "모델",
        "text": "글",
        "text_hint": "예를 들면 후기 한 줄",
        "examples": "예문",
        "predict": "예측하기",
        "prediction": "예측",
        "evidence": "예측의 근거",
        "right": "맞아요",
        "wrong": "틀려요",
        "noise": "예측이 버틸까요? 글을 흩뜨려 보세요:",
        "spaces_removed": "띄어쓰기 제거",
        "jamo_typos": "자모 오타",
        "laughter": "ㅋㅋ 추가",
        "typos": "영문 오타",
        "undo": "되돌리기",
        "predict_all": "모든 모델로 예측하기",
        "prompt": "첫머리",
        "prompt_hint": "글의 첫머리. 비워 두어도 됩니다. 입력하는 동안 이어질 낱말이 나옵니다",
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
        "message": "메시지",
        "message_hint": "무엇을 물어볼까요?",
        "send": "보내기",
        "clear": "새로 시작하기",
        "file_hint": "첫 행에 열 이름이 있는 표, 또는 한 줄에 글 하나(.txt): 10MB, 10,000행까지 받습니다. "
        "파일은 10분 뒤에 서버에서 지워집니다.",
        "column": "글이 있는 열",
        "label_file": "모든 행 예측하기",
        "labelled_file": "예측을 더한 파일",
        "counts": "예측별 행 수",
        "report_choice": "실행",
        "report_hint": "이 페이지의 실행들을 같은 시험 데이터에서 비교합니다.",
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
    no_suggestions: str
    cannot_load: str
    failed: str
    unknown: str
    record: str
    novel: str
    nothing_read: str
    cut: str
    agree: str
    disagree: str
    other_labels: str
    columns: tuple[str, str, str]
    """The heads of the table: the model, its label with the probability or its rating, the time it took."""
    columns_changed: tuple[str, str, str, str]
    """As `columns`, of a text that was disturbed: what was said before it was stands last but one."""
    changed: str
    unchanged: str
    same_text: str
    speaks: str
    speaks_rating: str
    numbers: str
    piece: str
    weight: str
    no_evidence: str
    too_slow: str
    not_explained: str
    no_texts: str
    no_chat: str
    long_chat: str
    no_file: str
    no_kind: str
    file_gone: str
    large_file: str
    bad_file: str
    too_many_rows: str
    no_column: str
    labelled: str
    first_rows: str
    empty_rows: str
    label_axis: str
    rows_axis: str
    no_report: str
    kept: str


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
        no_suggestions="{model} goes on with no text: it writes for a prompt.",
        cannot_load="The model {model} cannot be loaded; the terminal that the page was started from says why.",
        failed="The model {model} failed at this; the terminal that the page was started from says where.",
        unknown="The model's vocabulary lacks {share:.0%} of this text, so its prediction says little.",
        record="Where it was about as sure ({low:.0%} to {high:.0%}), it was right on {right:.0%} of {rows:,} test "
        "rows.",
        novel="This text is unlike those that the model was trained on, more so than {share:.1%} of ordinary ones: "
        "trust the prediction less.",
        nothing_read="The model can read nothing of this text, so its prediction says nothing.",
        cut="Only the first {tokens:,} tokens of the text were read; the model takes no more.",
        agree="The models agree.",
        disagree="The models disagree.",
        other_labels="The models do not have the same labels, so they can neither agree nor disagree.",
        columns=("Model", "Prediction", "Time (ms)"),
        columns_changed=("Model", "Prediction", "Before", "Time (ms)"),
        changed="{model} changed its mind: {before} before, {after} now.",
        unchanged="No model changed its mind.",
        same_text="This text has nothing that this could change.",
        speaks="Blue speaks for {label}, orange against it: together the words move its probability from "
        "{baseline:.2f}, without any, to {value:.2f}.",
        speaks_rating="Blue raises the rating, orange lowers it: together the words move it from {baseline:.2f}, "
        "without any, to {value:.2f}.",
        numbers="Numbers",
        piece="Part of the text",
        weight="Weight",
        no_evidence="What speaks for it cannot be told: {reason}",
        not_explained="{model} is built in a way that does not let one see.",
        too_slow="this text is too long for a model of this size; try a shorter one.",
        no_texts="The texts must be a list of one to {limit:d} texts.",
        no_chat="The chat must be a list of at most {limit:d} messages with role and content.",
        long_chat="The chat has more than {limit:,} characters; begin a new one.",
        no_file="There is no file yet; choose one first.",
        no_kind="Such files cannot be read here; send one of these: {kinds}.",
        file_gone="The file is no longer on the server; send it again.",
        large_file="The file is too large; at most {limit:d} MB are taken. `finetune predict` takes any.",
        bad_file="The file cannot be used: {reason}",
        too_many_rows="The file has {count:,} rows; at most {limit:,} are taken here. `finetune predict` takes any "
        "number.",
        no_column="The file has no such column; choose one of: {names}.",
        labelled="{count:,} rows are done.",
        first_rows="The first {count:d} are shown.",
        empty_rows="{count:,} have no text: what is said of them means nothing.",
        label_axis="Prediction",
        rows_axis="Rows",
        no_report="The report cannot be made; the terminal that the page was started from says why.",
        kept="Thank you, it is kept.",
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
        no_suggestions="모델 {model}: 글을 이어 쓰지 않고 프롬프트에 따라 새로 씁니다.",
        cannot_load="모델 {model}: 불러올 수 없습니다. 까닭은 이 페이지를 연 터미널에 나와 있습니다.",
        failed="모델 {model}: 처리하지 못했습니다. 어디에서 멈추었는지는 이 페이지를 연 터미널에 나와 있습니다.",
        unknown="이 글의 {share:.0%}가 모델의 어휘에 없으므로 예측을 믿기 어렵습니다.",
        record="이만큼 확신한({low:.0%}~{high:.0%}) 시험 데이터 {rows:,}행에서는 {right:.0%}를 맞혔습니다.",
        novel="이 글은 모델이 학습한 글과 많이 다릅니다(보통 글의 {share:.1%}보다 더). 예측을 덜 믿는 것이 좋습니다.",
        nothing_read="모델이 이 글에서 읽을 수 있는 것이 없으므로 예측에 뜻이 없습니다.",
        cut="글의 처음 {tokens:,}토큰까지만 읽었습니다. 모델이 그보다 긴 글을 받지 않습니다.",
        agree="모델들의 예측이 같습니다.",
        disagree="모델들의 예측이 서로 다릅니다.",
        other_labels="모델들의 레이블이 서로 달라서 예측이 같은지 다른지 말할 수 없습니다.",
        columns=("모델", "예측", "시간(ms)"),
        columns_changed=("모델", "예측", "이전", "시간(ms)"),
        changed="{model}: 예측이 {before}에서 {after}(으)로 바뀌었습니다.",
        unchanged="예측을 바꾼 모델이 없습니다.",
        same_text="이 글에는 그렇게 바꿀 곳이 없습니다.",
        speaks="파란색은 {label}의 근거이고 주황색은 반대 근거입니다. "
        "낱말이 하나도 없을 때 {baseline:.2f}이던 확률이 이 글에서 {value:.2f}이 됩니다.",
        speaks_rating="파란색은 평점을 올리고 주황색은 내립니다. "
        "낱말이 하나도 없을 때 {baseline:.2f}이던 평점이 이 글에서 {value:.2f}이 됩니다.",
        numbers="숫자로 보기",
        piece="글의 부분",
        weight="기여",
        no_evidence="근거를 보일 수 없습니다: {reason}",
        not_explained="{model}의 구조로는 알 수 없습니다.",
        too_slow="모델의 크기에 비해 글이 깁니다. 더 짧은 글로 해 보세요.",
        no_texts="글의 목록이어야 합니다. 한 번에 {limit:d}개까지 받습니다.",
        no_chat="대화는 role과 content가 있는 메시지의 목록이어야 합니다. {limit:d}개까지 받습니다.",
        long_chat="대화가 {limit:,}자를 넘었습니다. 새로 시작해 주세요.",
        no_file="아직 파일이 없습니다. 먼저 파일을 골라 주세요.",
        no_kind="여기서는 읽을 수 없는 파일입니다. 다음 가운데 하나로 보내 주세요: {kinds}.",
        file_gone="파일이 서버에 남아 있지 않습니다. 다시 보내 주세요.",
        large_file="파일이 너무 큽니다. {limit:d}MB까지 받습니다. 더 큰 파일은 `finetune predict`로 할 수 있습니다.",
        bad_file="파일을 쓸 수 없습니다: {reason}",
        too_many_rows="파일이 {count:,}행입니다. 여기서는 {limit:,}행까지 받습니다. "
        "더 큰 파일은 `finetune predict`로 할 수 있습니다.",
        no_column="파일에 그런 열이 없습니다. 다음 가운데에서 골라 주세요: {names}.",
        labelled="{count:,}행을 예측했습니다.",
        first_rows="처음 {count:d}행을 보입니다.",
        empty_rows="{count:,}행은 글이 비어 있어 예측에 뜻이 없습니다.",
        label_axis="예측",
        rows_axis="행 수",
        no_report="보고서를 만들 수 없습니다. 까닭은 이 페이지를 연 터미널에 나와 있습니다.",
        kept="고맙습니다. 남겨 두었습니다.",
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
