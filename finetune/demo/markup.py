"""What the page shows as HTML: texts with the evidence in them, and tables. All that it is given is escaped."""

from collections.abc import Sequence
from dataclasses import dataclass

from finetune.attribution import Attribution
from finetune.demo.words import Sentences
from finetune.reporting.evidence import marked_pieces
from finetune.reporting.page import template_environment

CSS = """
.evidence { line-height: 1.9; overflow-wrap: anywhere; padding-top: .75rem; }
.evidence { --for: 37, 99, 235; --against: 217, 98, 6; }
.evidence .text { white-space: pre-wrap; max-height: 24rem; overflow-y: auto; margin: 0 0 .5rem; }
.evidence .for, .evidence .against { border-radius: 3px; padding: .1em 0; }
.evidence .for { background: rgba(var(--for), calc(.08 + var(--share) * .42)); }
.evidence .against { background: rgba(var(--against), calc(.08 + var(--share) * .42)); }
.evidence summary { cursor: pointer; }
.plain-table { overflow-x: auto; }
.plain-table table, .evidence table { border-collapse: collapse; margin-top: .5rem; }
.plain-table table { width: 100%; }
.plain-table :is(td, th), .evidence :is(td, th) {
  padding: .4rem .75rem .4rem 0; text-align: start; vertical-align: top; word-break: keep-all;
  border-bottom: 1px solid rgba(128, 128, 128, .35);
}
.plain-table :is(td, th).number, .evidence :is(td, th).number {
  text-align: end; font-variant-numeric: tabular-nums; white-space: nowrap;
}
.plain-table td.long { min-width: 12rem; overflow-wrap: anywhere; }
.plain-table td.other { font-weight: 600; text-decoration: underline; text-underline-offset: .25em; }
"""
_LONG = 30
"""Characters of a text that gets some room."""
_ENVIRONMENT = template_environment(autoescape=True)
_EVIDENCE = _ENVIRONMENT.from_string(
    """{% from "evidence.html.j2" import marked_text, weight_table %}
<div class="evidence">
<p class="text" dir="auto" tabindex="0">{{ marked_text(pieces) }}</p>
<p>{{ sentence }}</p>
<details><summary>{{ words.numbers }}</summary>
{{ weight_table(pieces, words.piece, words.weight) }}</details>
</div>"""
)
_TABLE = _ENVIRONMENT.from_string(
    """<div class="plain-table" tabindex="0"><table>
<thead><tr>
{% for name, is_number in columns %}
<th scope="col"{{ ' class="number"' | safe if is_number }}>{{ name }}</th>
{% endfor %}
</tr></thead>
<tbody>
{% for row in rows %}
<tr>
{% for cell in row %}
<td dir="auto" class="{{ cell.kind }}">{{ cell.text }}</td>
{% endfor %}
</tr>
{% endfor %}
</tbody></table></div>"""
)


@dataclass(frozen=True)
class Cell:
    """Of a table."""

    text: str
    is_number: bool = False
    stands_out: bool = False

    @property
    def kind(self) -> str:
        """What CSS knows it by."""
        return "number" if self.is_number else "other" if self.stands_out else "long" if len(self.text) > _LONG else ""


def evidence_html(text: str, attribution: Attribution, words: Sentences) -> str:
    """The text of an attribution with its weights, which a pointer shows and a table lists."""
    pieces = marked_pieces(text, [(token.start, token.end, token.score) for token in attribution.tokens])
    sentence = words.speaks if attribution.label is not None else words.speaks_rating
    said = sentence.format(label=attribution.label, baseline=attribution.baseline, value=attribution.value)
    return _EVIDENCE.render(pieces=pieces, sentence=said, words=words)


def table_html(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """A table; a column is one of numbers if its first cell is."""
    heads = [
        (name, bool(rows) and number < len(rows[0]) and rows[0][number].is_number)
        for number, name in enumerate(columns)
    ]
    return _TABLE.render(columns=heads, rows=rows)
