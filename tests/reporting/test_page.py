"""The page: one file, nothing from outside, everything escaped, and readable by those who do not see it."""

import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import pytest
from reporting.fake_runs import COST, OF_EARLIER_VERSIONS, MakeRun

from finetune.reporting.compare import compare_runs
from finetune.reporting.plots import smooth
from finetune.run import RunDirectory

VOID = {"meta", "br", "line", "path", "use", "rect"}


class Outline(HTMLParser):
    """Tags in order, ids, and whether all elements are closed in turn."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID or self.get_starttag_text() is None:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id" and value:
                self.ids.append(value)
            if name in ("aria-labelledby", "xlink:href") and value:
                self.references += value.removeprefix("#").split()

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def page_of(runs: Sequence[RunDirectory], output: Path) -> str:
    compare_runs([run.path for run in runs], output)
    return (output / "index.html").read_text(encoding="utf-8")


@pytest.fixture
def page(make_run: MakeRun, tmp_path: Path) -> str:
    labels = ("부정", "긍정")
    runs = [make_run("bilstm", 0.869, labels=labels), make_run("gru", 0.866, labels=labels),
            make_run("tfidf", 0.85, labels=labels), make_run("majority", 0.5, labels=labels)]  # fmt: skip
    return page_of(runs, tmp_path / "out")


def test_needs_nothing_from_outside(page: str) -> None:
    assert re.findall(r"https?://|<script|<link|<img|@import|url\((?!#)", page) == []
    assert "default-src 'none'" in page


def test_is_well_formed_with_unique_ids_that_references_find(page: str) -> None:
    outline = Outline(page)
    assert len(outline.ids) == len(set(outline.ids))
    assert set(outline.references) <= set(outline.ids)
    assert set(re.findall(r"url\(#([^)]+)\)", page)) <= set(outline.ids)
    assert outline.tags.count("details") == 4


def test_shows_numbers_and_words(page: str) -> None:
    assert '86.9 % <span class="detail">[86.6, 87.2]</span>' in page
    assert "bilstm has the highest test accuracy: 86.9 % [86.6, 87.2]." in page
    assert "gru is 0.3 points below bilstm; the intervals overlap: these rows do not tell them apart." in page
    assert "135,000" in page
    assert '21,724 <span class="detail">86.9 %</span>' in page
    assert "torch 2.9.0, transformers 5.0.0" in page
    assert "finetune train &#39;my recipe.yaml&#39;" in page


def test_plots_hold_text_as_text_and_colours_as_variables(page: str) -> None:
    plots = re.findall(r'<svg class="plot".*?</svg>', page, flags=re.DOTALL)
    assert len(plots) == 4
    assert ">bilstm</text>" in plots[0]
    assert ">86.9 % [86.6, 87.2]</text>" in plots[0]
    for plot in plots:
        assert "font-family" not in plot
        assert set(re.findall(r"#[0-9a-f]{6}\b", plot)) == set()
        assert "var(--series-1)" in plot
        assert 'role="img"' in plot
        assert "<desc" in plot
    assert ">Epoch</text>" in plots[1]


def test_every_table_has_a_caption_and_scoped_heads(page: str) -> None:
    tables = re.findall(r"<table.*?</table>", page, flags=re.DOTALL)
    assert len(tables) == 8
    for table in tables:
        assert "<caption>" in table
        assert re.findall(r"<th(?![a-z])(?![^>]*scope=)[^>]*>", table) == []


def test_hostile_labels_and_names_are_text(make_run: MakeRun, tmp_path: Path) -> None:
    labels = ("<script>alert(1)</script>", '"><img src=x onerror=alert(1)> {{ 7 * 7 }} $x^2$')
    runs = [
        make_run("bilstm", labels=labels, at=tmp_path / "runs" / "<b>&$\\frac$ 한국"),
        make_run("gru", 0.8, labels=labels, environment={"device": "<i>cpu</i>", "processor": None}),
    ]
    page = page_of(runs, tmp_path / "out")
    assert re.findall(r"<script|<img|<b>|<i>", page) == []
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "{{ 7 * 7 }}" in page
    assert "&lt;b&gt;&amp;$\\frac$ 한국</text>" in page
    Outline(page)


def test_runs_without_logs_have_no_curves(make_run: MakeRun, tmp_path: Path) -> None:
    page = page_of([make_run("tfidf", 0.85), make_run("majority", 0.5)], tmp_path / "out")
    assert "No run was trained step by step, so there are no curves." in page
    assert page.count('class="plot"') == 1


def test_logs_without_epochs_or_validation_run_over_steps(make_run: MakeRun, tmp_path: Path) -> None:
    log = [{"step": step, "loss": 1 / step} for step in range(1, 9)]
    page = page_of([make_run("bilstm", log=log), make_run("majority", 0.5)], tmp_path / "out")
    assert ">Step</text>" in page
    assert page.count('class="plot"') == 2


def test_null_metrics_leave_gaps_and_no_error(make_run: MakeRun, tmp_path: Path) -> None:
    page = page_of([make_run("bilstm", None), make_run("gru", None), make_run("tfidf", 0.8)], tmp_path / "out")
    assert "bilstm has no test accuracy." in page
    assert "NaN" not in page
    assert "None" not in page


def test_many_labels_list_the_commonest_confusions(make_run: MakeRun, tmp_path: Path) -> None:
    labels = [f"label-{i}" for i in range(30)]
    runs = [make_run("bilstm", 0.8, labels=labels), make_run("gru", 0.7, labels=labels)]
    page = page_of(runs, tmp_path / "out")
    assert 'class="matrix"' not in page
    assert "Commonest confusions of bilstm" in page
    assert "Scores of 30 labels" in page
    Outline(page)


def test_a_majority_floor_far_away_does_not_squeeze_the_axis(page: str) -> None:
    forest = page[page.index('id="accuracy-title"') : page.index("<figcaption>")]
    assert ">off the axis</text>" in forest
    assert ">50.0</text>" not in forest
    assert ">86.0</text>" in forest


def test_runs_beyond_the_eighth_get_dashes(make_run: MakeRun, tmp_path: Path) -> None:
    runs = [make_run(f"run-{i}", 0.9 - i / 100, model="gru") for i in range(9)]
    page = page_of(runs, tmp_path / "out")
    assert page.count('stroke-dasharray="7 3"') == 3


def test_smoothing_keeps_a_constant_and_follows_a_step() -> None:
    assert smooth([]) == []
    assert smooth([2.0] * 5) == pytest.approx([2.0] * 5)
    # Three values to the average: each keeps half of the last, and the weights add up to one.
    assert smooth([0.0, 1.0, 1.0]) == pytest.approx([0.0, 0.5 / 0.75, 0.75 / 0.875])


def test_how_sure_runs_are_stands_beside_how_right(make_run: MakeRun, tmp_path: Path) -> None:
    bins = [(0.55, 0.5, 40), (0.75, 0.6, 80), (0.97, 0.9, 400), (0.85, 0.1, 3)]
    sure = {
        "reliability": [
            {"low": 0.0, "high": 1.0, "confidence": confidence, "accuracy": accuracy, "count": count}
            for confidence, accuracy, count in bins
        ],
        "coverage": {"coverage": [0.5, 1.0], "accuracy": [0.97, 0.87]},
    }
    known = make_run("bilstm", 0.87, test=sure)
    scores = known.scores()
    scores["splits"]["test"]["metrics"] |= {
        "ece": {"value": 0.083, "low": None, "high": None},
        "brier": {"value": 0.21, "low": 0.2, "high": 0.22},
    }
    known.write_json(known.scores_file, scores)
    page = page_of([known, make_run("gru", 0.86)], tmp_path / "out")
    assert '<h2 id="calibration">Calibration</h2>' in page
    section = page.split('<h2 id="calibration">')[1].split("<h2")[0]
    assert "bilstm has a calibration error of 8.3 points" in section
    assert "bilstm: 97.0 % of its surer half" in section
    assert "gru" not in section  # it was scored before this was recorded
    assert re.search(r">8\.3<.*?>0\.210 ", section, flags=re.DOTALL)
    assert section.count('class="plot"') == 2
    costs = page.split('<h2 id="cost">')[1].split("<h2")[0]
    assert "bilstm 87.0 % [86.7, 87.3] in 3 min 12 s" in costs
    without = page_of([make_run("lstm", 0.87, model="gru"), make_run("tfidf", 0.86)], tmp_path / "none")
    assert "Calibration" not in without


def test_what_each_costs_stands_below_the_plot_and_without_one(make_run: MakeRun, tmp_path: Path) -> None:
    old = {name: COST[name] for name in OF_EARLIER_VERSIONS}
    page = page_of([make_run("bilstm", 0.87), make_run("gru", 0.86, cost=old)], tmp_path / "out")
    section = page.split('<h2 id="cost">')[1].split("<h2")[0]
    assert section.index('class="plot"') < section.index("What each costs")
    assert '2.3 ms <span class="detail">(cpu, 2 threads)</span>' in section
    assert "5.2 MB" in section
    page = page_of([make_run("lstm", 0.87, model="gru", cost={}), make_run("scratch", cost={})], tmp_path / "none")
    section = page.split('<h2 id="cost">')[1].split("<h2")[0]
    assert 'class="plot"' not in section
    assert "What each costs" in section
    Outline(page)
