"""Write the quickstart's own comparison into the README, so that its numbers are those of a run.

python scripts/update_readme.py reports/quickstart/comparison.md
"""

import sys
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- quickstart output: written by scripts/update_readme.py -->\n", "<!-- end -->"


def main(comparison: Path) -> None:
    """Replace what stands between the two marks by the table and the words of `comparison`."""
    text = comparison.read_text(encoding="utf-8")
    shown = text[text.index("| Run |") : text.index("\n## Data")]
    before, _, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    README.write_text(f"{before}{BEGIN}\n{shown.strip()}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
