"""`compare_runs`: which runs it refuses, and the files that it writes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from reporting.fake_runs import DATA, MakeRun

from finetune.errors import UserError
from finetune.reporting.compare import compare_runs


def refusal(paths: list[Path], output: Path) -> str:
    with pytest.raises(UserError) as caught:
        compare_runs(paths, output)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_writes_three_files_with_the_best_run_first(make_run: MakeRun, tmp_path: Path) -> None:
    runs = [make_run("tfidf", 0.85), make_run("bilstm", 0.869), make_run("majority", 0.5)]
    comparison = compare_runs([run.path for run in runs], tmp_path / "out" / "here")
    assert [run.name for run in comparison.runs] == ["bilstm", "tfidf", "majority"]
    assert sorted(p.name for p in (tmp_path / "out" / "here").iterdir()) == [
        "comparison.json",
        "comparison.md",
        "index.html",
    ]
    content = json.loads((tmp_path / "out/here/comparison.json").read_text(encoding="utf-8"))
    assert content["runs"][0]["metrics"]["accuracy"] == {"value": 0.869, "low": 0.866, "high": 0.872}
    assert content["runs"][0]["environment"]["packages"]["torch"] == "2.9.0"
    assert content["findings"]["verdict"] == ["bilstm has the highest test accuracy: 86.9 % [86.6, 87.2]."]
    assert content["format"] == 2


def test_equal_inputs_give_equal_bytes_whatever_their_order(make_run: MakeRun, tmp_path: Path) -> None:
    paths = [make_run(name, 0.87).path for name in ("bilstm", "gru", "tfidf")]
    compare_runs(paths, tmp_path / "one")
    compare_runs(paths[::-1], tmp_path / "two")
    for name in ("comparison.json", "comparison.md", "index.html"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_refuses_fewer_than_two_runs(make_run: MakeRun, tmp_path: Path) -> None:
    path = make_run("bilstm").path
    assert refusal([], tmp_path / "out") == ("a comparison needs two runs or more, got none; add another run directory")
    assert refusal([path], tmp_path / "out") == (
        f"a comparison needs two runs or more, got {path} alone; add another run directory"
    )
    assert not (tmp_path / "out").exists()


def test_refuses_the_same_directory_twice(make_run: MakeRun, tmp_path: Path) -> None:
    path = make_run("bilstm").path
    again = path / ".." / path.name
    assert refusal([path, again], tmp_path / "out") == (
        f"{path} and {again} are the same run directory; give each run once"
    )


def test_refuses_other_test_rows(make_run: MakeRun, tmp_path: Path) -> None:
    first = make_run("bilstm").path
    second = make_run("gru", test={"rows_fingerprint": "other", "count": 100}).path
    assert refusal([first, second], tmp_path / "out") == (
        f"{first} and {second} were scored on different test rows (49997 and 100); "
        "train both on one data set with the same data.split_seed and data.max_test_rows"
    )


def test_refuses_other_labels(make_run: MakeRun, tmp_path: Path) -> None:
    first = make_run("bilstm").path
    second = make_run("gru", labels=("positive", "negative")).path
    assert refusal([first, second], tmp_path / "out") == (
        f"{first} has the labels negative, positive, {second} has positive, negative; "
        "train both with the same data.labels"
    )


def test_refuses_a_run_without_test_scores(make_run: MakeRun, tmp_path: Path) -> None:
    first, second = make_run("bilstm"), make_run("gru")
    second.scores_file.unlink()
    assert refusal([first.path, second.path], tmp_path / "out") == (
        f"{second.path}: no test scores; run `finetune evaluate {second.path} --split test` first"
    )


def test_refuses_scores_without_accuracy_and_a_damaged_log(make_run: MakeRun, tmp_path: Path) -> None:
    first, second = make_run("bilstm"), make_run("gru", test={"metrics": {}})
    assert refusal([first.path, second.path], tmp_path / "out") == (
        f"{second.scores_file}: no accuracy of the test split; score the run again"
    )
    third = make_run("scratch")
    third.log_file.write_text('{"step": 1', encoding="utf-8")
    assert refusal([first.path, third.path], tmp_path / "out") == f"{third.log_file}: damaged; train the run again"


def test_writes_over_an_earlier_comparison_and_over_nothing_else(make_run: MakeRun, tmp_path: Path) -> None:
    paths = [make_run("bilstm").path, make_run("gru").path]
    output = tmp_path / "out"
    output.mkdir()
    compare_runs(paths, output)
    (output / "index.html").write_text("old", encoding="utf-8")
    compare_runs(paths, output)
    assert (output / "index.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine", encoding="utf-8")
    assert refusal(paths, tmp_path / "full") == (
        f"{tmp_path / 'full'} holds other files and no earlier comparison; choose another --output"
    )
    assert refusal(paths, tmp_path / "full" / "thesis.txt") == (
        f"{tmp_path / 'full' / 'thesis.txt'} is a file; choose another --output"
    )
    assert refusal(paths, paths[0]).endswith("choose another --output")


def test_runs_of_one_name_are_shown_with_their_parents(make_run: MakeRun, tmp_path: Path) -> None:
    paths = [tmp_path / where for where in ("monday/x", "tuesday/x", "a/monday/x")]
    for path in paths[:2]:
        make_run("bilstm", at=path)
    comparison = compare_runs(paths[:2], tmp_path / "out")
    assert [run.name for run in comparison.runs] == ["monday/x", "tuesday/x"]
    make_run("bilstm", at=paths[2])
    comparison = compare_runs([paths[0], paths[2]], tmp_path / "out")
    assert [run.name for run in comparison.runs] == ["a/monday/x", f"{tmp_path.name}/monday/x"]


def test_runs_on_unlike_data_keep_an_account_each(make_run: MakeRun, tmp_path: Path) -> None:
    splits = {**DATA["splits"], "train": {**DATA["splits"]["train"], "count": 100, "rows_fingerprint": "few"}}
    runs = [make_run("bilstm", 0.8, data={"splits": splits}), make_run("gru", 0.9), make_run("tfidf", 0.85)]
    comparison = compare_runs([run.path for run in runs], tmp_path / "out")
    assert [data.runs for data in comparison.data] == [("bilstm",), ("gru", "tfidf")]
    assert comparison.data[0].splits["train"].count == 100


def test_losses_that_are_not_finite_are_counted_and_left_out(make_run: MakeRun, tmp_path: Path) -> None:
    log = [{"step": step, "epoch": step / 10, "loss": loss} for step, loss in ((1, 0.5), (2, float("nan")), (3, 0.4))]
    runs = [make_run("bilstm", log=log), make_run("gru", log=[])]
    comparison = compare_runs([run.path for run in runs], tmp_path / "out")
    curve = comparison.runs[0].curve
    assert [point.loss for point in curve.training] == [0.5, 0.4]
    assert curve.losses_not_finite == 1


def test_a_long_log_is_averaged_down(make_run: MakeRun, tmp_path: Path) -> None:
    log = [{"step": step, "epoch": step / 1000, "loss": float(step % 2)} for step in range(4000)]
    runs = [make_run("bilstm", log=log), make_run("gru")]
    training = compare_runs([run.path for run in runs], tmp_path / "out").runs[0].curve.training
    assert len(training) == 400
    assert training[0].step == 4.5
    assert {point.loss for point in training} == {0.5}


def test_importing_reporting_loads_no_heavy_library() -> None:
    code = (
        "import sys, finetune.reporting.compare; "
        "print([m for m in ('torch', 'transformers', 'datasets', 'evaluate', 'matplotlib') if m in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
                            capture_output=True, text=True, check=True)  # fmt: skip
    assert output.stdout.strip() == "[]"
