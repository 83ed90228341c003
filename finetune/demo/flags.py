"""What visitors say of predictions, kept where whoever runs the page asked for it."""

import json
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from finetune.demo.models import Prediction
from finetune.errors import UserError


@dataclass(frozen=True)
class Flags:
    """A file of one JSON object a line."""

    file: Path
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def check(self) -> None:
        """Make sure, before anybody relies on it, that the file can be written.

        Raises:
            UserError: it cannot.
        """
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            self.file.open("a", encoding="utf-8").close()
        except OSError as error:
            raise UserError(
                f"--flagging {self.file}: {error.strerror or error}; name a file that can be written"
            ) from None

    def keep(self, text: str, model: str, prediction: Prediction, *, is_right: bool) -> None:
        """Put a line behind the others."""
        record = {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "model": model,
            "text": text,
            "label": None if prediction.gives_several else prediction.label,
            **({"labels": prediction.labels} if prediction.gives_several else {}),
            "rating": prediction.rating,
            "probabilities": prediction.probabilities or None,
            "is_right": is_right,
        }
        with self._lock, self.file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(record, ensure_ascii=False) + "\n")
