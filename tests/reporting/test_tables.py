"""Numbers and tables as text: cells, Markdown, the terminal."""

import io
from pathlib import Path

import pytest
from reporting.fake_runs import COST, MODELS, OF_EARLIER_VERSIONS, MakeRun, interval
from rich.console import Console

from finetune.recipe import parse_recipe
from finetune.reporting.comparison import Comparison, Metric, describe_model, printable, read_comparison
from finetune.reporting.tables import (
    Table,
    byte_size,
    comparison_markdown,
    comparison_table,
    cost_notes,
    cost_table,
    duration,
    escape_markdown,
    interval_text,
    milliseconds,
    rate,
    rich_table,
    short_count,
    shortened,
)


def compared(*runs: object) -> Comparison:
    return read_comparison([Path(run.path) for run in runs])  # type: ignore[attr-defined]


def printed(table: Table, width: int) -> str:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(rich_table(table, width))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_numbers_as_text() -> None:
    assert interval_text(Metric(0.869, 0.866, 0.872)) == "86.9 % [86.6, 87.2]"
    assert interval_text(Metric(0.869, None, None)) == "86.9 %"
    assert interval_text(Metric(None, None, None)) == "–"
    counts = [2, 999, 1000, 12345, 999_949, 999_960, 1_234_567, 110_617_344, 1_300_000_000]
    assert [short_count(count) for count in counts] == [
        "2", "999", "1.0 k", "12.3 k", "1.0 M", "1.0 M", "1.2 M", "111 M", "1.3 B",
    ]  # fmt: skip
    times = [0.0, 0.4, 9.96, 59.4, 59.6, 192, 3599.7, 7500]
    assert [duration(time) for time in times] == [
        "< 0.1 s", "0.4 s", "10 s", "59 s", "1 min 00 s", "3 min 12 s", "1 h 00 min", "2 h 05 min",
    ]  # fmt: skip
    assert [rate(value) for value in (None, 3.14, 9.96, 2109.4)] == ["–", "3.1", "10", "2,109"]
    assert [byte_size(count) for count in (None, 950, 12345, 999_960, 21_750_987, 1_430_000_000)] == [
        "–", "950 B", "12.3 kB", "1.0 MB", "21.8 MB", "1.4 GB",
    ]  # fmt: skip
    assert [milliseconds(time) for time in (None, 0.002, 2.34, 9.96, 1234.5)] == [
        "–", "< 0.1 ms", "2.3 ms", "10 ms", "1,234 ms",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("model", "line"),
    [
        (MODELS["bilstm"], "BiLSTM, 1 x 256, max pooling"),
        (MODELS["gru"], "GRU, 1 x 128, last state"),
        (MODELS["tfidf"], "TF-IDF char_wb 1-4 + logistic regression"),
        ({"family": "tfidf", "analyzer": "word", "max_ngram": 1}, "TF-IDF word 1 + logistic regression"),
        (MODELS["majority"], "majority label"),
        (MODELS["scratch"], "BERT-type encoder from scratch, 2 x 128"),
        (MODELS["bert"], "klue/bert-base fine-tuned"),
        ({"family": "encoder", "model_name_or_path": "/home/me/models/mine"}, "mine fine-tuned"),
    ],
)
def test_models_as_a_line(model: dict[str, object], line: str) -> None:
    recipe = parse_recipe({"name": "x", "data": {"train_file": "x.csv"}, "model": model})
    assert describe_model(recipe.model) == line


def test_table_cells(make_run: MakeRun) -> None:
    table = comparison_table(compared(make_run("bilstm", 0.869), make_run("tfidf", 0.85, test={"times_scored": 2})))
    assert [str(column) for column in table.columns] == [
        "Run", "Model", "Test accuracy [95 % interval]", "Macro F1 [95 % interval]", "Parameters", "Training time",
        "Training rows/s", "Scoring rows/s", "Test split scored",
    ]  # fmt: skip
    assert [str(cell) for cell in table.rows[0]] == [
        "bilstm", "BiLSTM, 1 x 256, max pooling", "86.9 % [86.6, 87.2]", "86.9 % [86.6, 87.2]", "1.2 M", "3 min 12 s",
        "2,109", "5,210", "once",
    ]  # fmt: skip
    assert str(table.rows[1][1]) == "TF-IDF char_wb 1-4 + logistic regression (a floor)"
    assert str(table.rows[1][-1]) == "2 times (more than once)"


def test_accuracy_without_leaked_rows_appears_when_a_run_has_it(make_run: MakeRun) -> None:
    leaks = {"without_leaked_rows": {"count": 9, "left_out": 1, "metrics": {"accuracy": interval(0.8)}}}
    leaked = {"leaked_test_rows": {"exact": 1, "normalized": 1}}
    table = comparison_table(compared(
        make_run("bilstm", 0.9, test=leaks, data=leaked), make_run("gru", 0.8), make_run("tfidf", 0.7, data=leaked),
    ))  # fmt: skip
    assert str(table.columns[4]) == "Accuracy without leaked rows [95 % interval]"
    assert [str(row[4]) for row in table.rows] == ["80.0 % [79.7, 80.3]", "none leaked", "–"]


def test_undefined_and_missing_numbers_are_a_dash(make_run: MakeRun) -> None:
    bare = {"metrics": {"accuracy": interval(0.8), "macro_f1": interval(None)}}
    run = make_run("bilstm", test=bare)
    scores = run.scores()
    run.write_json(run.scores_file, {**scores, "cost": {"training_seconds": 3.0, "training_rows_per_second": None}})
    row = comparison_table(compared(run, make_run("gru", 0.7))).rows[0]
    assert [str(cell) for cell in row[3:8]] == ["–", "–", "3.0 s", "–", "–"]


def test_what_each_costs_is_a_table_of_its_own(make_run: MakeRun) -> None:
    floor = {**COST, "disk_bytes": None, "latency_ms": {**COST["latency_ms"], "threads": 1, "count": 38},
             "peak_memory_bytes": 1_430_000_000, "peak_memory_before_bytes": 1_430_000_000}  # fmt: skip
    old = {name: COST[name] for name in OF_EARLIER_VERSIONS}
    runs = compared(make_run("bilstm", 0.9), make_run("tfidf", 0.8, cost=floor), make_run("gru", 0.7, cost=old)).runs
    table = cost_table(runs)
    assert [str(column) for column in table.columns] == [
        "Run", "Parameters", "On disk", "Training time", "Training rows/s", "Scoring rows/s", "Latency median",
        "Latency 95th percentile", "Peak memory",
    ]  # fmt: skip
    training = ["3 min 12 s", "2,109", "5,210"]
    assert [[str(cell) for cell in row] for row in table.rows] == [
        ["bilstm", "1.2 M", "5.2 MB", *training, "2.3 ms (cpu, 2 threads)", "13 ms", "1.4 GB"],
        ["tfidf", "1.2 M", "–", *training, "2.3 ms (cpu, 1 thread)", "13 ms", "≤ 1.4 GB"],
        ["gru", "1.2 M", "–", *training, "–", "–", "–"],
    ]
    notes = " ".join(cost_notes(runs))
    assert "38 to 100 texts, after warm-up" in notes
    assert "≤: its process had held that much before" in notes


def test_columns_that_no_run_fills_are_left_out(make_run: MakeRun) -> None:
    old = {name: COST[name] for name in OF_EARLIER_VERSIONS}
    runs = compared(make_run("bilstm", cost=old), make_run("gru", 0.7, cost={})).runs
    assert [column.title for column in cost_table(runs).columns] == [
        "Run", "Parameters", "Training time", "Training", "Scoring",
    ]  # fmt: skip
    assert cost_notes(runs) == []
    on_gpu = {**COST, "peak_gpu_memory_bytes": 8_000_000_000}
    table = cost_table(compared(make_run("bert", cost=on_gpu), make_run("lstm", 0.7, model="gru")).runs)
    assert [str(row[-1]) for row in table.rows] == ["8.0 GB", "–"]


def test_readers_that_stop_at_the_first_heading_get_the_scores_alone(make_run: MakeRun) -> None:
    text = comparison_markdown(compared(make_run("bilstm"), make_run("gru", 0.7)), ["bilstm wins."])
    assert [line for line in text.splitlines() if line.startswith("## ")] == ["## Cost", "## Data"]
    shown = text[text.index("| ") :].partition("\n## ")[0]  # as scripts/update_readme.py does
    assert shown.count("| :--- |") == 1
    assert "Peak memory" not in shown


def test_trained_parameters_are_named_when_they_are_fewer(make_run: MakeRun) -> None:
    run = make_run("bert")
    scores = run.scores()
    run.write_json(run.scores_file, {**scores, "cost": {"parameters": 110_000_000, "trainable_parameters": 300_000}})
    assert str(comparison_table(compared(run, make_run("gru", 0.7))).rows[0][4]) == "110 M (300 k trained)"


def test_markdown_escapes_names(make_run: MakeRun) -> None:
    assert escape_markdown("a|b <i>*c*</i> _d_ e_f `g` [h](i) [86.6, 87.2]") == (
        r"a\|b &lt;i&gt;\*c\*&lt;/i&gt; \_d\_ e_f \`g\` \[h\](i) [86.6, 87.2]"
    )
    hostile = ("<script>|", "긍정")
    comparison = compared(make_run("bilstm", labels=hostile), make_run("gru", 0.8, labels=hostile))
    text = comparison_markdown(comparison, ["bilstm *wins*."])
    assert "| bilstm | BiLSTM, 1 x 256, max pooling | 87.0 % [86.7, 87.3] |" in text
    assert r"- bilstm \*wins\*." in text
    assert "<script>" not in text
    assert r"&lt;script&gt;\| | 긍정 |" in text
    table = [line for line in text.splitlines() if line.startswith("| ")]
    assert len({line.replace(r"\|", "").count("|") for line in table[:4]}) == 1


def test_the_terminal_shows_whole_numbers_at_any_width(make_run: MakeRun) -> None:
    table = comparison_table(compared(make_run("bilstm", test={"times_scored": 2}), make_run("tfidf", 0.7)))
    wide, narrow = printed(table, 140), printed(table, 80)
    assert "left off" not in wide
    assert "TF-IDF char_wb 1-4 + logistic regression (a floor)" in wide
    for text in (wide, narrow):
        assert "[86.7, 87.3]" in text
        assert "3 min 12 s" in text
    assert max(len(line.rstrip()) for line in narrow.splitlines()) <= 80
    assert "left off, for the width of the terminal:" in narrow


def test_the_terminal_reads_no_markup_or_control_characters(make_run: MakeRun, tmp_path: Path) -> None:
    odd = make_run("bilstm", at=tmp_path / "runs" / "[red]x\x1b[31m")
    text = printed(comparison_table(compared(odd, make_run("gru", 0.7))), 140)
    assert "[red]x\N{REPLACEMENT CHARACTER}[31m" in text


def test_printable_and_shortened() -> None:
    assert printable("a\nb\x1bc\u202ed") == "a b\ufffdc\ufffdd"
    assert shortened("긍정부정", 8) == "긍정부정"
    assert shortened("긍정부정", 7) == "긍정…"
    assert shortened("abcdef", 4) == "abc…"


def test_data_are_shown_once_whatever_the_tokenizers(make_run: MakeRun) -> None:
    runs = [make_run(name, data={"tokenizer_sha256": name, "doctor": [name]}) for name in ("bilstm", "gru")]
    (data,) = read_comparison([run.path for run in runs]).data
    assert data.runs == ("bilstm", "gru")
    other = make_run("scratch", data={"repeated_train_rows": 7})
    assert len(read_comparison([*(run.path for run in runs), other.path]).data) == 2
