"""What a run's word vectors know -> word_vectors.md: neighbours by cosine and analogies, from its scores."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from finetune.reporting.comparison import Metric
from finetune.reporting.tables import Cell, Column, Table, duration, escape_markdown, interval_text, markdown_table
from finetune.run import RunDirectory

_LANGUAGES = {"ko": "Korean", "en": "English"}


def write_report(run: RunDirectory) -> Path:
    """Write the report of a finished run of word vectors beside its scores; returns its path."""
    run.write_text(run.vectors_report_file, report_markdown(run))
    return run.vectors_report_file


def report_markdown(run: RunDirectory) -> str:
    """Neighbours, analogies and coverage in words and tables, the same for the same files."""
    scores, settings = run.scores(), run.vectors_settings()
    cost, analogies = scores["cost"], scores["analogies"]
    return "\n".join(
        [
            f"# Word vectors of {escape_markdown(run.name)}",
            "",
            f"{settings['tokens_with_vector']:,} of {settings['vocabulary_size']:,} tokens have a vector of "
            f"{settings['dimensions']} dimensions, by {settings['method']} with a window of {settings['window']}, from "
            f"{cost['training_tokens']:,} tokens read in {duration(cost['training_seconds'])}.",
            "",
            "A recurrent model begins with them by `model.initial_embeddings`, the path of this run.",
            "",
            "## Neighbours",
            "",
            "The words nearest by cosine to the most frequent ones. Near means used alike: opposites are often near.",
            "",
            markdown_table(_neighbours_table(scores["neighbours"])),
            "",
            "## Analogies",
            "",
            *_analogies(analogies),
            "",
        ]
    )


def _neighbours_table(neighbours: list[Mapping[str, Any]]) -> Table:
    columns = (Column("Word", is_number=False), Column("Seen"), Column("Nearest", "(cosine)", is_number=False))
    rows = [
        (
            Cell(entry["word"]),
            Cell(f"{entry['count']:,}"),
            Cell(", ".join(f"{near['word']} ({near['cosine']:.2f})" for near in entry["neighbours"])),
        )
        for entry in neighbours
    ]
    return Table(columns, tuple(rows))


def _analogies(entry: Mapping[str, Any]) -> list[str]:
    if not entry["count"]:
        return ["There are questions in Korean and in English, and most of these texts are in neither."]
    language = _LANGUAGES[entry["language"]]
    lines = [
        f'Of {entry["count"]} {language} questions of the kind "a is to b as c is to ?", {entry["covered"]} are '
        "covered: all four words are single tokens with a vector."
    ]
    if entry["covered"]:
        accuracy = interval_text(Metric(**entry["accuracy"]))
        lines[0] += (
            f" {entry['correct']} of these come out right (3CosAdd): {accuracy}, Wilson's interval at "
            f"{entry['confidence_level']:.0%}. Questions share words, so it is narrower than it should be."
        )
    lines += ["", markdown_table(_sections_table(entry["sections"]))]
    if entry["answers"]:
        lines += ["", markdown_table(_answers_table(entry["answers"]))]
    if entry["not_covered"]:
        lines += ["", f"No single token with a vector: {escape_markdown(', '.join(entry['not_covered']))}."]
    return lines


def _sections_table(sections: Mapping[str, Mapping[str, int]]) -> Table:
    columns = (Column("Kind", is_number=False), Column("Questions"), Column("Covered"), Column("Right"))
    rows = [
        (Cell(section), *(Cell(str(counts[name])) for name in ("questions", "covered", "correct")))
        for section, counts in sections.items()
    ]
    return Table(columns, tuple(rows))


def _answers_table(answers: list[Mapping[str, Any]]) -> Table:
    columns = tuple(Column(title, is_number=False) for title in ("Question", "Expected", "Right", "Answers"))
    rows = []
    for answer in answers:
        a, b, c = answer["question"]
        found = ", ".join(f"{given['word']} ({given['sum']:.2f})" for given in answer["answers"])
        is_right = Cell("yes" if answer["correct"] else "no")
        rows.append((Cell(f"{a} : {b} = {c} : ?"), Cell(answer["expected"]), is_right, Cell(found)))
    return Table(columns, tuple(rows))
