"""Write what a run left into the README: the table and words of a comparison, a curve, or reviews that were written.

python scripts/update_readme.py quickstart reports/quickstart/comparison.md
python scripts/update_readme.py writers reports/quickstart-writers/comparison.md
python scripts/update_readme.py reviews reports/quickstart-writers/reviews.md
python scripts/update_readme.py nsmc reports/nsmc/comparison.md
python scripts/update_readme.py curve finetune/models/embedded/mini-bert-ko/pretraining/curve-nsmc.json
"""

import json
import sys
from pathlib import Path

from finetune.reporting.learning_curve import curve_markdown

README = Path(__file__).parent.parent / "README.md"


def main(block: str, source: Path) -> None:
    """Replace what stands between the marks of `block` by the table and the words of `source`."""
    text = source.read_text(encoding="utf-8")
    if source.suffix == ".json":
        shown = curve_markdown(json.loads(text)).strip()
    else:
        table = text[text.index("| ") :]
        shown = table.partition("\n## ")[0].strip()
    begin, end = f"<!-- {block}: written by scripts/update_readme.py -->\n", f"<!-- end of {block} -->"
    before, _, rest = README.read_text(encoding="utf-8").partition(begin)
    _, _, after = rest.partition(end)
    README.write_text(f"{before}{begin}\n{shown}\n\n{end}{after}", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
