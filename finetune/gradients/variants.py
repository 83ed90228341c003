"""What is compared: recipes, each as it is, with other numbers of layers, and with scaled recurrent weights."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from accelerate.utils import set_seed
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from finetune.data import Splits
from finetune.errors import UserError
from finetune.models import build_model, start_from_vectors
from finetune.recipe import EncoderModel, Recipe, RecurrentModel, load_recipe, with_values
from finetune.training import environment

LINEUP_GAINS = (0.5, 1.0, 2.0)
"""What the plain RNN of the built-in lineup has its recurrent matrix scaled by, besides its own beginning."""
SHORTEST = 4
"""Tokens; a line through fewer points would fit anything."""


@dataclass(frozen=True)
class Plan:
    """What is measured of each recipe, and when."""

    steps: tuple[int, ...] = (0, 50, 200)
    """Optimizer steps after which it is measured; 0, before training, is always among them."""
    lengths: tuple[int, ...] = (16, 32, 64)
    """Tokens that the measured rows are cut to; where the data has no such rows, to as many as they have."""
    rows: int = 64
    """Rows that are measured, at most half of the training rows."""
    layers: tuple[int, ...] = ()
    """Numbers of layers to build each recipe with, instead of its own."""
    recurrent_gains: tuple[float, ...] = ()
    """Begin plain RNNs with an orthogonal recurrent matrix times each of these, besides the recipe's own beginning."""

    def check(self) -> None:
        """
        Raises:
            UserError: a number that makes no sense.
        """
        if min(self.steps) < 0:
            raise UserError(f"gradients: --steps {min(self.steps)}: from 0 on")
        if min(self.lengths) < SHORTEST:
            raise UserError(f"gradients: --lengths {min(self.lengths)}: a line needs {SHORTEST} tokens or more")
        if self.rows < 2:
            raise UserError(f"gradients: --rows {self.rows}: two rows or more")
        if self.layers and min(self.layers) < 1:
            raise UserError(f"gradients: --layers {min(self.layers)}: from 1 on")
        if any(not 0 < gain < math.inf for gain in self.recurrent_gains):
            raise UserError("gradients: --recurrent_gain takes numbers above 0, such as 0.5,1,2")


@dataclass(frozen=True)
class Variant:
    """A recipe as it is built and measured."""

    name: str
    recipe: Recipe
    """Resolved, with its number of layers, in one direction."""
    recurrent_gain: float | None
    changes: tuple[str, ...]

    @property
    def layers(self) -> int | None:
        model = self.recipe.model
        if isinstance(model, RecurrentModel):
            return model.num_layers
        assert isinstance(model, EncoderModel)
        return model.from_scratch.num_hidden_layers if model.from_scratch is not None else None


def lineup(overrides: Sequence[tuple[str, str]] = ()) -> list[Recipe]:
    """RNN, LSTM, GRU and a transformer of the same width, from scratch on the characters of the embedded reviews.

    By characters, since then many reviews are long enough; on one thread, which is as fast for models of this size, and
    has the same numbers on any processor's number of cores.
    """
    text = "{unit: character, vocabulary_size: 2000, max_length: 160}"
    training = "{batch_size: 32, learning_rate: 2e-3, threads: 1}"
    sizes = "{hidden_size: 64, num_hidden_layers: 2, num_attention_heads: 4, intermediate_size: 256}"
    models = {
        cell: f"{{family: recurrent, cell: {cell}, embedding_size: 64, hidden_size: 64, dropout: 0.1}}"
        for cell in ("rnn", "lstm", "gru")
    }
    models["transformer"] = f"{{family: encoder, dropout: 0.1, from_scratch: {sizes}}}"
    return [
        load_recipe(
            "quickstart-lstm",
            [("name", name), ("text", text), ("training", training), ("model", model), *overrides],
        )
        for name, model in models.items()
    ]


def check_recipes(recipes: Sequence[Recipe], plan: Plan) -> None:
    names = [recipe.name for recipe in recipes]
    if len(set(names)) < len(names):
        raise UserError("gradients: two recipes have one name; give each a name of its own")
    for recipe in recipes:
        if recipe.task != "classify" or not isinstance(recipe.model, RecurrentModel | EncoderModel):
            raise UserError(
                f"gradients: {recipe.name} has task {recipe.task} and model.family {recipe.model.family}; recurrent "
                "models and encoders that classify are measured"
            )
        if recipe.data.text_pair_column is not None:
            raise UserError(f"gradients: {recipe.name} reads pairs of texts; leave data.text_pair_column out")
        if recipe.data != recipes[0].data:
            raise UserError("gradients: the recipes have different data; give one --data for all")
        if plan.layers and isinstance(recipe.model, EncoderModel) and recipe.model.from_scratch is None:
            raise UserError(f"gradients: --layers: {recipe.name} starts from a checkpoint, which has its own layers")
    if plan.recurrent_gains and not any(_is_plain(recipe) for recipe in recipes):
        raise UserError("gradients: --recurrent_gain is for plain RNNs (model.cell rnn), and no recipe has one")


def _is_plain(recipe: Recipe) -> bool:
    return isinstance(recipe.model, RecurrentModel) and recipe.model.cell == "rnn"


def prepare(recipe: Recipe) -> tuple[Recipe, tuple[str, ...]]:
    """The recipe resolved, reading in one direction to a head that sees the last state; and what that changed."""
    # In full precision whatever the processor has: what is compared must not differ in its rounding.
    recipe = with_values(recipe, training={"mixed_precision": "no", "logging_steps": 1, "on_nonfinite": "skip"})
    changes = []
    if isinstance(recipe.model, RecurrentModel):
        changes += ["it reads in one direction"] if recipe.model.bidirectional else []
        changes += ["its head sees the last state alone"] if recipe.model.pooling != "last" else []
        recipe = with_values(recipe, model={"bidirectional": False, "pooling": "last"})
    return environment.resolve(recipe), tuple(changes)


def variants_of(recipe: Recipe, changes: tuple[str, ...], plan: Plan) -> list[Variant]:
    found = []
    for layers in plan.layers or (None,):
        built = recipe if layers is None else _with_layers(recipe, layers)
        for gain in (None, *plan.recurrent_gains) if _is_plain(recipe) else (None,):
            marks = [] if layers is None else [f"{layers} layer{'s' if layers > 1 else ''}"]
            marks += [] if gain is None else [f"gain {gain:g}"]
            name = f"{recipe.name} ({', '.join(marks)})" if marks else recipe.name
            found.append(Variant(name, built, gain, changes))
    return found


def _with_layers(recipe: Recipe, layers: int) -> Recipe:
    if isinstance(recipe.model, RecurrentModel):
        return with_values(recipe, model={"num_layers": layers})
    assert isinstance(recipe.model, EncoderModel)
    assert recipe.model.from_scratch is not None
    sizes = {**recipe.model.from_scratch.model_dump(), "num_hidden_layers": layers}
    return with_values(recipe, model={"from_scratch": sizes})


def build(recipe: Recipe, splits: Splits, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    assert isinstance(recipe.model, RecurrentModel | EncoderModel)
    attention = "eager" if isinstance(recipe.model, RecurrentModel) else recipe.model.attn_implementation
    set_seed(recipe.seed)
    model = build_model(recipe.model, recipe.task, splits.labels, tokenizer, recipe.text.max_length, attention)
    if isinstance(recipe.model, RecurrentModel) and recipe.model.initial_embeddings is not None:
        start_from_vectors(model, recipe.model, tokenizer)
    return model
