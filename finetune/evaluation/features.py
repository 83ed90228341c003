"""What a classifier says of a batch, and beside it what its head saw."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from finetune import tasks
from finetune.models.novelty import HeadInputs


class FeatureReader:
    """A `read` for `predict_outputs`: the outputs, then columns made of what the head saw, (rows, outputs + columns).

    As it stands the columns are the features themselves; `made` may make fewer of them.
    """

    def __init__(self, model: nn.Module, made: Callable[[NDArray[np.float64]], NDArray[np.float64]] | None = None):
        """Listens to the model from now on.

        Raises:
            UserError: the model does not end in a linear layer with an output for each label.
        """
        self._head = HeadInputs(model)
        self._made = made

    @property
    def size(self) -> int:
        """How many features the head sees."""
        return self._head.size

    def __call__(self, model: nn.Module, batch: Mapping[str, Tensor]) -> NDArray[np.float64]:
        outputs = tasks.outputs(model, batch)
        features = self._head.last()
        return np.column_stack([outputs, features if self._made is None else self._made(features)])
