"""What every reader says of columns and of the errors of a library."""

import difflib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from finetune.errors import UserError


def check_columns(path: object, present: Sequence[str], wanted: Sequence[str]) -> None:
    """Raise UserError where a wanted column is missing, with the one that may be meant."""
    for name in wanted:
        if name not in present:
            near = difflib.get_close_matches(name, present, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise UserError(f"{path}: no column {name!r} among {', '.join(map(repr, present))}{hint}")


def check_repeated(path: Path, header: Sequence[str], row: int) -> None:
    """Raise UserError where two columns have one name; `row` is the header's."""
    repeated = [name for name, count in Counter(header).items() if count > 1 and name]
    if repeated:
        raise UserError(f"{path}, row {row}: the column {repeated[0]!r} stands twice; rename one")


def first_line(error: BaseException) -> str:
    """Of its message; its kind where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
