"""Write what a run left into the README: a comparison's table and words, a curve, reviews, or perplexities.

python scripts/update_readme.py quickstart reports/quickstart/comparison.md
python scripts/update_readme.py writers reports/quickstart-writers/comparison.md
python scripts/update_readme.py reviews reports/quickstart-writers/reviews.md
python scripts/update_readme.py nsmc reports/nsmc/comparison.md
python scripts/update_readme.py curve finetune/models/embedded/mini-bert-ko/pretraining/curve-nsmc.json
python scripts/update_readme.py transfer-nsmc finetune/models/embedded/mini-bert-ko/pretraining/transfer-nsmc.json
python scripts/update_readme.py transfer-nsmc3 finetune/models/embedded/mini-bert-ko/pretraining/transfer-nsmc3.json
python scripts/update_readme.py curve-writers finetune/models/embedded/mini-gpt-ko/pretraining/curve-nsmc.json
python scripts/update_readme.py word-vectors finetune/models/embedded/mini-bert-ko/pretraining/ablation-vectors.json
python scripts/update_readme.py noise finetune/models/embedded/mini-bert-ko/pretraining/ablation-noise-nsmc.json
python scripts/update_readme.py under-noise reports/noise-inspect/inspection.md "Under noise"
python scripts/update_readme.py ways finetune/models/embedded/mini-bert-ko/pretraining/ablation-nsmc.json
python scripts/update_readme.py ways-encoder-reviews \
    finetune/models/embedded/mini-bert-ko/pretraining/ablation-encoder-reviews-ko.json
python scripts/update_readme.py ways-from-scratch-reviews \
    finetune/models/embedded/mini-bert-ko/pretraining/ablation-from-scratch-reviews-ko.json
python scripts/update_readme.py control reports/control/control.md
python scripts/update_readme.py control-nsmc reports/control-nsmc/control.md
python scripts/update_readme.py dates reports/dates/comparison.md "What they wrote"
python scripts/update_readme.py sums reports/sums/comparison.md "What they wrote"
python scripts/update_readme.py chatbot reports/chatbot/comparison.md "What they wrote"
python scripts/update_readme.py novelty reports/novelty/novelty.md
python scripts/update_readme.py wikitext runs/wikitext2-lstm
"""

import json
import math
import sys
from datetime import datetime
from pathlib import Path

from finetune.reporting.ablation import ablation_markdown
from finetune.reporting.learning_curve import curve_markdown
from finetune.run import RunDirectory, open_run

README = Path(__file__).parent.parent / "README.md"


def main(block: str, source: Path, heading: str | None = None) -> None:
    """Replace what stands between the marks of `block` by the table and the words of `source`, below a `heading`."""
    if source.is_dir():
        shown = perplexities(open_run(source))
    elif source.suffix == ".json":
        summary = json.loads(source.read_text(encoding="utf-8"))
        shown = (ablation_markdown if "variants" in summary else curve_markdown)(summary).strip()
    else:
        text = source.read_text(encoding="utf-8")
        if heading is not None:
            # A table alone: what stands below it are rows, which the page has.
            _, _, text = text.partition(f"\n## {heading}\n")
            text = text[text.index("| ") :].partition("\n\n")[0]
        shown = text[text.index("| ") :].partition("\n## ")[0].strip()
    begin, end = f"<!-- {block}: written by scripts/update_readme.py -->\n", f"<!-- end of {block} -->"
    before, _, rest = README.read_text(encoding="utf-8").partition(begin)
    _, mark, after = rest.partition(end)
    if not mark:
        sys.exit(f"README.md has no block {block}: {begin.strip()} ... {end}")
    README.write_text(f"{before}{begin}\n{shown}\n\n{end}{after}", encoding="utf-8")


def perplexities(run: RunDirectory) -> str:
    """A language model's perplexity on the test split, what it took, and its way there by epoch."""
    scores, environment = run.scores(), run.environment()
    if environment.get("resumed"):
        sys.exit(f"{run.path} was stopped and resumed: how long it took is not known")
    start, end = (datetime.fromisoformat(environment[name]) for name in ("start", "end"))
    minutes = (end - start).total_seconds() / 60
    test, cost = scores["splits"]["test"], scores["cost"]
    perplexity = {name: f"{value:.1f}" for name, value in test["metrics"]["perplexity"].items()}
    validations = [(line["epoch"], line["validation"]["loss"]) for line in run.log() if "validation" in line]
    return "\n".join(
        [
            f"| Epoch | {' | '.join(f'{epoch:g}' for epoch, _ in validations)} |",
            f"| :--- |{' ---: |' * len(validations)}",
            f"| Validation perplexity | {' | '.join(f'{math.exp(loss):.1f}' for _, loss in validations)} |",
            "",
            f"Test perplexity {perplexity['value']} [{perplexity['low']}, {perplexity['high']}] on {test['tokens']:,} "
            f"tokens by {cost['parameters'] / 1e6:.1f} M parameters; the whole run, scoring included, took "
            f"{minutes:.0f} minutes on {environment['threads']} threads ({environment['device']}).",
        ]
    )


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
