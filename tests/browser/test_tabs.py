"""Every tab of the page in Chromium, in both languages, on a desktop and on a phone, in light and in dark."""

import csv
import io
import json
import re
import threading
from itertools import islice

import pytest

pytest.importorskip("gradio", reason="needs gradio: pip install 'finetune-transfer[demo]'")
pytest.importorskip("playwright", reason="needs playwright: pip install playwright")

import openpyxl
from browser.pages import Look, told_by_axe
from playwright.sync_api import expect
from reviews import review_rows

from finetune.generate import Generator, load_generator
from finetune.predict import Classifier, load_classifier

# One worker for all: each would train the models and open the page anew.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("browser")]
LOOKS = [Look("ko", "desktop", "light"), Look("en", "phone", "dark")]
TEXT = "어제 봤는데 정말 재미있다, a really good film"
ALL = {"temperature": 1.0, "top_p": 0.95, "max_new_tokens": 100}

both = pytest.mark.parametrize("visit", LOOKS, indirect=True, ids=str)


@pytest.fixture
def held(monkeypatch):
    """Writing that goes on after its first pieces when this is set; its `ended` is set when it ends."""
    go_on, ended = threading.Event(), threading.Event()
    pieces = Generator.pieces

    def slow(self, *arguments):
        written = pieces(self, *arguments)
        try:
            yield from islice(written, 5)
            while not go_on.wait(0.05):
                yield ""
            yield from written
        finally:
            written.close()
            ended.set()

    monkeypatch.setattr(Generator, "pieces", slow)
    go_on.ended = ended
    yield go_on
    go_on.set()


@both
def test_sentiment(visit, models, flags):
    visit.open_tab("sentiment")
    visit.choose("model", "rnn")
    visit.box("text").fill(TEXT)
    visit.ask("predict")
    classifier = load_classifier(models["rnn"])
    said = dict(zip(classifier.labels, classifier.classify([TEXT])[0], strict=True))
    label = max(said, key=said.get)
    expect(visit.label).to_have_text(label)
    expect(visit.panel.get_by_test_id(f"{label}-confidence-set")).to_contain_text(f"{said[label]:.0%}")

    expect(visit.evidence.locator(".text")).to_have_text(TEXT)
    marked = visit.evidence.locator(".text").locator(".for, .against")
    expect(marked.first).to_have_css("background-color", re.compile("rgba"))
    numbers = visit.evidence.locator("table")
    expect(numbers).to_be_hidden()
    visit.press(visit.evidence.locator("summary"))
    expect(numbers).to_be_visible()
    pieces = numbers.locator("tbody tr").all_inner_texts()
    assert len(pieces) >= marked.count() > 1
    assert all(re.fullmatch(r".+\t[+-]\d\.\d{3}", piece) for piece in pieces)

    for key, is_right in (("right", True), ("wrong", False)):
        visit.ask(key)
        expect(visit.panel.get_by_text(visit.sentences.kept)).to_be_visible()
        line = json.loads(flags.read_text(encoding="utf-8").splitlines()[-1])
        kept = {"model": "rnn", "text": TEXT, "label": label, "is_right": is_right}
        assert {key: line[key] for key in kept} == kept

    visit.choose("model", "rater")
    visit.ask("predict")
    rating = load_classifier(models["rater"]).classify([TEXT])[0, 0]
    expect(visit.label).to_have_text(f"{rating:.2f}")
    expect(visit.evidence).to_contain_text(visit.sentences.speaks_rating.split("{")[0])
    visit.press(visit.panel.locator(".gallery-item").nth(1))
    expect(visit.box("text")).not_to_have_value(TEXT)
    visit.check()


@both
def test_side_by_side(visit):
    visit.compare(TEXT)
    rows = visit.rows()
    assert [row[0] for row in rows] == ["lstm", "rnn", "rater"]
    assert all(re.fullmatch(r"(positive|negative) 0\.\d{3}", row[1]) for row in rows[:2])
    assert re.fullmatch(r"\d+\.\d\d", rows[2][1])
    agree = len({row[1].split()[0] for row in rows[:2]}) == 1
    expect(visit.panel.get_by_text(visit.sentences.agree if agree else visit.sentences.disagree)).to_be_visible()
    columns = visit.table.locator("th")
    expect(columns).to_have_text(list(visit.sentences.columns))
    texts = {TEXT}
    for noise in ("spaces_removed", "jamo_typos", "laughter", "typos"):
        visit.ask(noise)
        expect(visit.box("text")).not_to_have_value(TEXT)
        expect(columns).to_have_text(list(visit.sentences.columns_changed))
        texts.add(visit.box("text").input_value())
        changed = [row for row in visit.rows()[:2] if row[1].split()[0] != row[2].split()[0]]
        said = visit.panel.get_by_test_id("markdown").last.inner_text()
        assert (said == visit.sentences.unchanged) == (not changed)
        expect(visit.table.locator("td.other")).to_have_count(len(changed))
        visit.press("undo")
        expect(visit.box("text")).to_have_value(TEXT)
    assert len(texts) == 5
    visit.check()


@both
def test_generation(visit, models):
    # Neither while the page loads a model nor while it writes: one thread at a time may do so.
    generator, by_label = load_generator(models["writer"]), load_generator(models["by-label"])
    visit.open_tab("generate")
    visit.choose("model", "writer")
    visit.box("prompt").fill("0 어제")
    visit.open_settings()
    for seed in (8, 7):
        visit.box("seed").fill(str(seed))
        expected = generator.generate(["0 어제"], ALL, seed=seed)[0][0].text
        visit.ask("write")
        expect(visit.box("written")).to_have_value("0 어제" + expected)
    visit.choose("model", "by-label")
    expect(visit.box("prompt")).to_be_hidden()
    visit.press(visit.panel.get_by_role("radio", name="지루하다"))
    expected = by_label.generate(["지루하다"], ALL, seed=7)[0][0].text
    visit.ask("write")
    expect(visit.box("written")).to_have_value(expected.lstrip())
    visit.check()
    visit.choose("model", "writer")
    expect(visit.box("prompt")).to_be_visible()


@both
def test_words_to_go_on_with_come_up_as_one_types(visit, models):
    generator = load_generator(models["writer"])
    visit.open_tab("generate")
    prompt, buttons = visit.box("prompt"), visit.panel.get_by_role("button", name=re.compile(r"\d%$"))
    prompt.fill("")
    prompt.press_sequentially("0 어제 ")
    first = next(word for word in generator.suggest("0 어제 ") if word.text.strip())
    expect(buttons.first).to_have_text(f"{first.text.strip()} {first.probability:.0%}")
    visit.press(buttons.first)
    expect(prompt).to_have_value(f"0 어제{first.text} ")
    second = next(word for word in generator.suggest(f"0 어제{first.text} ") if word.text.strip())
    expect(buttons.first).to_have_text(f"{second.text.strip()} {second.probability:.0%}")
    visit.check()
    visit.choose("model", "by-label")
    expect(buttons).to_have_count(0)


def test_writing_is_seen_as_it_grows_and_can_be_stopped(enter, held):
    visit = enter(LOOKS[1])
    visit.open_tab("generate")
    visit.choose("model", "writer")
    visit.box("prompt").fill("1 친구와")
    visit.open_settings()
    visit.box("seed").fill("7")
    written = visit.box("written")
    visit.press("write")
    expect(written).to_have_value(re.compile(r"^1 친구와.*\S", re.DOTALL))
    visit.page.wait_for_timeout(300)
    first = written.input_value()
    held.set()
    expect(written).not_to_have_value(first)
    visit.wait_until_idle()
    whole = written.input_value()
    assert whole.startswith(first)
    held.clear()
    held.ended.clear()
    visit.press("write")
    expect(written).to_have_value(first)
    visit.press("stop")
    assert held.ended.wait(20)
    visit.wait_until_idle()
    held.set()
    expect(written).to_have_value(first)


@both
def test_chat(visit):
    visit.open_tab("chat")
    visit.open_settings()
    visit.box("seed").fill("3")
    asked, answered = visit.panel.get_by_test_id("user"), visit.panel.get_by_test_id("bot")
    answers = []
    for _ in range(2):
        visit.box("message").fill("어제")
        visit.ask("send")
        expect(answered).to_have_text(re.compile(r"\S"))
        expect(asked).to_have_text("어제")
        expect(visit.box("message")).to_have_value("")
        answers.append(answered.inner_text())
        if len(answers) == 1:
            visit.box("message").fill("영화")
            visit.box("message").press("Enter")
            expect(asked).to_have_text(["어제", "영화"])
            expect(answered).to_have_count(2)
            visit.wait_until_idle()
            visit.press("clear")
            expect(asked).to_have_count(0)
            expect(answered).to_have_count(0)
    assert answers[0] == answers[1]
    visit.check()


def write_file(path, rows):
    """A table as Korean Excel writes it: a workbook, or CSV in its own encoding."""
    if path.suffix == ".xlsx":
        book = openpyxl.Workbook()
        for row in rows:
            book.active.append(row)
        book.save(path)
    else:
        lines = io.StringIO(newline="")
        csv.writer(lines).writerows(rows)
        path.write_bytes(lines.getvalue().encode("cp949"))
    return path


def read_file(path):
    if path.suffix == ".xlsx":
        return [[str(cell) for cell in row] for row in openpyxl.load_workbook(path).active.values]
    content = path.read_bytes()
    assert content.startswith(b"\xef\xbb\xbf")  # or Excel would not see that it is UTF-8
    return list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline="")))


def download(visit, to):
    """The labelled file, under the name that it comes with."""
    with visit.page.expect_download() as coming:
        visit.press(visit.downloads.last)
    coming.value.save_as(to / coming.value.suggested_filename)
    return to / coming.value.suggested_filename


@pytest.mark.parametrize(
    ("visit", "name"), [(LOOKS[0], "후기.csv"), (LOOKS[1], "reviews.xlsx")], indirect=["visit"], ids=str
)
def test_file(visit, models, tmp_path, name):
    texts = [text for text, _ in review_rows(30)]
    rows = [["number", "리뷰"], *([str(number), text] for number, text in enumerate(texts))]
    visit.label_file(write_file(tmp_path / name, rows))
    expect(visit.panel.get_by_role("combobox", name=visit.words["column"])).to_have_value("리뷰")
    note = f"{visit.sentences.labelled.format(count=30)} {visit.sentences.first_rows.format(count=20)}"
    expect(visit.panel.get_by_text(note)).to_be_visible()
    assert [row[:2] for row in visit.rows()] == rows[1:21]

    classifier = load_classifier(models["lstm"])
    said = classifier.classify(texts)
    came = tmp_path / "came"
    came.mkdir()
    file = download(visit, came)
    assert file.name == f"{name.split('.')[0]}-labelled.{name.split('.')[1]}"
    head, *labelled = read_file(file)
    assert head == [*rows[0], "predicted", *(f"probability_{label}" for label in classifier.labels)]
    assert [row[:2] for row in labelled] == rows[1:]
    assert [row[2] for row in labelled] == [classifier.labels[number] for number in said.argmax(axis=1)]
    assert [float(row[3]) for row in labelled] == pytest.approx(said[:, 0].tolist())
    visit.check()


def test_a_bad_file_is_a_sentence(enter, tmp_path):
    visit = enter(LOOKS[0])
    visit.open_tab("batch")
    visit.drop_file()
    visit.press("label_file")
    assert visit.refusal() == visit.sentences.no_file
    broken = tmp_path / "broken.xlsx"
    broken.write_bytes(b"PK\x03\x04 no workbook")
    visit.send_file(broken)
    sentence = visit.refusal()
    assert sentence.startswith(visit.sentences.bad_file.format(reason="broken.xlsx"))
    assert "\n" not in sentence
    assert "/" not in sentence
    visit.wait_until_idle()


def test_a_column_is_shown_by_its_own_name(enter, tmp_path):
    """Gradio translates a choice that is called like one of the page's words."""
    visit = enter(LOOKS[0])
    visit.open_tab("batch")
    visit.send_file(write_file(tmp_path / "stop.csv", [["stop", "text"], ["1", "정말 재미있다"]]))
    column = visit.panel.get_by_role("combobox", name=visit.words["column"], exact=True)
    column.wait_for()
    assert column.input_value() == "text"


def test_visitors_who_send_files_of_one_name_get_their_own(enter, tmp_path):
    sent = []
    for number, look in enumerate(LOOKS):
        (tmp_path / str(number)).mkdir()
        rows = [["text"], *([text] for text, _ in review_rows(5, seed=number))]
        enter(look).label_file(write_file(tmp_path / str(number) / "reviews.csv", rows))
        sent.append(rows)
    for rows, look in zip(sent, LOOKS, strict=True):
        came = tmp_path / str(look)
        came.mkdir()
        assert [row[:1] for row in read_file(download(enter(look), came))] == rows


def test_labelling_can_be_stopped(enter, tmp_path, monkeypatch):
    started, ended = threading.Event(), threading.Event()
    classify = Classifier.classify

    def slow(self, texts):
        started.set()
        ended.wait(0.3)
        return classify(self, texts)

    monkeypatch.setattr(Classifier, "classify", slow)
    visit = enter(LOOKS[0])
    visit.open_tab("batch")
    visit.send_file(write_file(tmp_path / "many.csv", [["text"], *([text] for text, _ in review_rows(3_000))]))
    visit.press("label_file")
    assert started.wait(20)
    visit.press("stop")
    visit.wait_until_idle()
    started.clear()
    assert not started.wait(2)
    expect(visit.table).to_have_count(0)


@both
def test_report(visit, models):
    visit.read_report()
    inside = visit.panel.frame_locator("iframe.report")
    expect(visit.frame).to_have_attribute("title", "lstm, rnn")
    for name in ("lstm", "rnn"):
        expect(inside.get_by_role("rowheader", name=re.compile(f"^{name} ")).first).to_be_visible()
    visit.check()
    # Nothing runs in the frame, axe neither: it looks at the same page outside of it.
    outside = visit.context.new_page()
    outside.set_content(visit.frame.get_attribute("srcdoc"))
    told = told_by_axe(outside)
    outside.close()
    assert not [one for one in told if one.startswith(("serious", "critical"))]
    visit.press(visit.panel.get_by_role("radio", name="writer"))
    expect(visit.frame).to_have_attribute("title", re.compile("writer"))
    expect(inside.get_by_role("rowheader", name=re.compile("^writer")).first).to_be_visible()
