"""The recipe: a typed, complete description of one run, read from YAML and dotted overrides, written back resolved.

Nothing here imports torch, so that `--help` answers at once. Scalars in YAML are read by the type of the field they
are for, not by YAML's guess: `2e-5` is a float, `012` in a text field stays "012", `no` in a label stays "no".
"""

import difflib
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

from finetune.errors import UserError

EMBEDDED_PREFIX = "embedded:"
TEXT_FORMATS = (".txt", ".txt.gz", ".txt.xz", ".txt.bz2")
"""What text files without labels are called: one text a line, and compressed as they come."""
FILE_FORMATS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".txt": "tsv",
    ".jsonl": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".xlsx": "xlsx",
}
"""The formats of local files by suffix."""
TYPED = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=())


def _parse_integer(value: object) -> object:
    """Accept 1e3 for 1000; refuse booleans, which pydantic would take for 0 and 1."""
    if isinstance(value, bool):
        raise ValueError("a whole number is needed, not true or false")
    if isinstance(value, str) and "e" in value.lower():
        try:
            number = float(value)
        except ValueError:
            return value
        if number.is_integer():
            return int(number)
    return value


def _parse_list(value: object) -> object:
    """Accept one text for a list of one."""
    return (value,) if isinstance(value, str) else value


Integer = Annotated[int, BeforeValidator(_parse_integer)]
PositiveInteger = Annotated[Integer, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


NoiseName = Literal[
    "spaces_removed", "spaces_inserted", "jamo_typos", "laughter", "as_pronounced", "case", "typos", "contractions"
]
Task = Literal["classify", "multi_label", "rate", "masked_lm", "generate", "word_vectors"]
TEXT_TASKS: tuple[Task, ...] = ("masked_lm", "generate", "word_vectors")
"""Tasks that learn from text alone, without labels."""
_READ_PROMPTS = ("encoder_decoder", "seq2seq")
"""Families whose models read a prompt with an encoder."""


class Data(BaseModel):
    """Where the rows come from, which columns matter, and how they are split."""

    model_config = TYPED

    dataset_name: str | None = None
    """A data set of the Hugging Face Hub (`owner/name`) or an embedded one (`embedded:reviews-ko`)."""
    dataset_config_name: str | None = None
    """The configuration (subset) of a Hub data set."""
    dataset_revision: str | None = None
    """The revision (branch, tag or commit) of a Hub data set."""
    train_split: str = "train"
    """The name of the training split of a Hub data set."""
    validation_split: str | None = None
    """The name of the validation split of a Hub data set; without one, rows of the training split are set aside."""
    test_split: str | None = "test"
    """The name of the test split of a Hub data set; without one, rows of the training split are set aside."""
    train_file: str | None = None
    """A local file with training rows; a relative path counts from the recipe's directory."""
    more_train_files: Annotated[tuple[str, ...], BeforeValidator(_parse_list)] = ()
    """Further local files whose rows are added to those of `train_file`: one, or a [list]."""
    validation_file: str | None = None
    """A local file with validation rows; without one, training rows are set aside."""
    test_file: str | None = None
    """A local file with test rows; without one, training rows are set aside."""
    file_format: Literal["auto", "csv", "tsv", "jsonl", "parquet", "xlsx", "text"] = "auto"
    """The format of local files; `auto` goes by the name. `text` is a text a line, no labels; `xlsx` is Excel's."""
    encoding: str = "utf-8"
    """The encoding of CSV, TSV, JSONL and text files, such as `utf-8` or `cp949`."""
    quoting: Literal["auto", "minimal", "none"] = "auto"
    """Whether quote marks in CSV and TSV enclose fields; `auto` is `minimal` for CSV and `none` for TSV."""
    text_column: str = "text"
    """The column with the text."""
    text_pair_column: str | None = None
    """The column with a second text, for sentence pairs."""
    prompt_column: str | None = None
    """The column with a prompt, for `generate`: only what follows it is learnt; `labels` may rename its values."""
    messages_column: str | None = None
    """The column with chats, lists of {role, content}, for `generate`: the assistant's messages are learnt."""
    label_column: str = "label"
    """The column with the label; for `multi_label` with all of a row's labels, a list or one text."""
    label_separator: str = Field(default="|", min_length=1)
    """What parts the labels in one text, for `multi_label`."""
    label_columns: Annotated[tuple[str, ...], BeforeValidator(_parse_list)] = ()
    """For `multi_label`, a column of 0 and 1 for each label in place of `label_column`: [a, b, c]."""
    id_column: str | None = None
    """The column with a unique row id; without one, ids are made of the split's name and the row number."""
    labels: dict[str, str] | None = None
    """Label values of the data and the names they get, in the order of the label ids; without it, the values found."""
    validation_fraction: Fraction = 0.1
    """The share of training rows set aside for validation where the data has none, stratified by label."""
    test_fraction: Fraction = 0.2
    """The share of training rows set aside for the test where the data has none, stratified by label."""
    split_seed: Integer = 42
    """The seed of the rows set aside; apart from `seed`, so that runs with several seeds share their test rows."""
    leaked_test_rows: Literal["keep", "drop"] = "keep"
    """Test rows whose text stands in train or validation too: `keep` scores with and without them, `drop` without."""
    max_train_rows: PositiveInteger | None = None
    """Train on this many rows only, a stratified sample drawn after the splits are made; smaller ones lie in larger."""
    train_part: str | None = Field(default=None, pattern=r"^[1-9]\d*/[1-9]\d*$")
    """Train on one part of several of the rows alone, parted by their texts: those of `1/2` and `2/2` share none."""
    train_sample_seed: Integer | None = None
    """The seed of the sample that max_train_rows keeps; without one, `split_seed`."""
    max_validation_rows: PositiveInteger | None = None
    """Validate on this many rows only."""
    max_test_rows: PositiveInteger | None = None
    """Test on this many rows only."""

    @property
    def holds_chats(self) -> bool:
        """Whether a row is a chat rather than a text."""
        return self.messages_column is not None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.dataset_name is None) == (self.train_file is None):
            raise ValueError("set exactly one of dataset_name and train_file")
        if self.dataset_name is not None and (self.validation_file or self.test_file):
            raise ValueError("validation_file and test_file go with train_file, not with dataset_name")
        if self.dataset_name is not None and self.more_train_files:
            raise ValueError("more_train_files goes with train_file, not with dataset_name")
        if self.holds_chats and (self.prompt_column or self.text_pair_column):
            raise ValueError("messages_column holds whole chats; leave prompt_column and text_pair_column out")
        if self.labels is not None and len(set(self.labels.values())) < 2:
            raise ValueError("labels needs at least two names")
        if self.label_columns:
            if len(set(self.label_columns)) < max(2, len(self.label_columns)):
                raise ValueError("label_columns needs two columns or more, each once")
            if self.labels is not None and (nameless := sorted(set(self.label_columns) - set(self.labels))):
                raise ValueError(f"labels has no name for {', '.join(nameless)} of label_columns; add or leave it out")
        return self


class Text(BaseModel):
    """How text becomes token ids."""

    model_config = TYPED

    tokenizer_name_or_path: str | None = None
    """A tokenizer to load; without one, the pretrained model's own, or a vocabulary trained on the training rows."""
    unit: Literal["word", "whitespace", "character", "subword", "unigram", "byte"] = "subword"
    """Units of a vocabulary trained here; `whitespace` is words as spaces part them, `subword` byte-pair encoding."""
    vocabulary_size: PositiveInteger = 8000
    """The largest size of a vocabulary trained here."""
    min_frequency: PositiveInteger = 2
    """Units seen less often than this in the training rows are unknown, in a vocabulary trained here (no Unigram)."""
    lowercase: bool = False
    """Lower-case the text, for a vocabulary trained here."""
    max_length: PositiveInteger = 128
    """Texts are cut to this many tokens, special tokens included; documents to generate into windows of so many."""
    noise: Annotated[tuple[NoiseName, ...], BeforeValidator(_parse_list)] = ()
    """Kinds of noise to put into training texts, anew each epoch, so as to read through it: [jamo_typos, laughter]."""
    noise_share: float = Field(default=0.3, gt=0, le=1)
    """The share of training rows that get one of these kinds of noise in an epoch."""
    subword_sampling_alpha: float | None = Field(default=None, gt=0, le=1)
    """Segment training texts by chance, anew each epoch, with this alpha (0.2, say); for a Unigram such as KoBERT's."""


class Masking(BaseModel):
    """What `masked_lm` hides of a text, drawn anew in every epoch."""

    model_config = TYPED

    rate: float = Field(default=0.15, gt=0, lt=1)
    """The share of tokens (or words) to be predicted: 80 % of them show [MASK], 10 % another token, 10 % themselves."""
    whole_words: bool = False
    """Choose whole words, all of whose tokens are then predicted, rather than single tokens."""


class TransformerSizes(BaseModel):
    """The sizes of a BERT-type encoder, or a GPT-type decoder, that starts from random weights."""

    model_config = TYPED

    hidden_size: PositiveInteger = 128
    """The width of the hidden states."""
    num_hidden_layers: PositiveInteger = 2
    """The number of transformer layers."""
    num_attention_heads: PositiveInteger = 4
    """The number of attention heads; divides `hidden_size`."""
    intermediate_size: PositiveInteger = 512
    """The width of the feed-forward layers."""
    initial_embeddings: Literal["random", "ppmi"] = "random"
    """Embeddings to begin with; `ppmi` are word vectors counted in the training rows, which spares much pretraining."""

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not divisible by num_attention_heads {self.num_attention_heads}"
            )
        return self


class Lora(BaseModel):
    """Low-rank adapters: what is trained instead of the weights of a model, and merged into them at the end."""

    model_config = TYPED

    rank: PositiveInteger = 8
    """The rank of the adapters."""
    alpha: PositiveInteger = 16
    """What the adapters are scaled by, divided by the rank."""
    dropout: Fraction = 0.0
    """The dropout rate before the adapters."""
    target_modules: Annotated[tuple[str, ...], BeforeValidator(_parse_list)] = ()
    """The names of the layers that get adapters; without any, all linear layers but the output."""


class TransformerModel(BaseModel):
    """What encoders, decoders and both together have in common: what they start from, dropout and attention."""

    model_config = TYPED

    family: str
    """The kind of model."""
    model_name_or_path: str | None = None
    """A model of the Hub, a local directory or an embedded model (`embedded:mini-bert-ko`) to start from."""
    revision: str | None = None
    """The revision (branch, tag or commit) of a Hub model."""
    from_scratch: TransformerSizes | None = None
    """Start from random weights instead, a BERT or for `generate` a GPT-2 of these sizes."""
    tuning: str = "full"
    """What is trained."""
    dropout: Fraction | None = None
    """The dropout rate; without one, the checkpoint's own."""
    attn_implementation: Literal["auto", "eager", "sdpa"] = "auto"
    """The attention code; `auto` is `eager` for bf16 without a GPU, where the backward pass of `sdpa` is slow."""
    lora: Lora = Lora()
    """The adapters of tuning lora."""

    @model_validator(mode="after")
    def _one_start(self) -> Self:
        if (self.model_name_or_path is None) == (self.from_scratch is None):
            raise ValueError("set exactly one of model_name_or_path and from_scratch")
        if self.tuning != "full" and self.from_scratch is not None:
            raise ValueError(f"tuning {self.tuning} needs model_name_or_path: random weights have to be trained")
        if self.tuning != "lora" and self.lora != Lora():
            raise ValueError("lora is for tuning lora; set tuning, or leave lora out")
        return self


class EncoderModel(TransformerModel):
    """A BERT-family encoder with the head of the task."""

    family: Literal["encoder"] = "encoder"
    """The kind of model."""
    tuning: Literal["full", "frozen", "last_layers", "lora"] = "full"
    """What is trained: every weight, the new head alone, it and `trained_layers`, or it and low-rank adapters."""
    trained_layers: PositiveInteger = 2
    """How many layers, counted from the head, tuning last_layers trains."""
    reinitialized_layers: Annotated[Integer, Field(ge=0)] = 0
    """How many layers, counted from the head, begin with random weights, which can help where rows are few."""
    pooling: Literal["cls", "mean", "max", "attention"] = "cls"
    """What the head sees: the first token as the architecture does, or mean, maximum or a learnt mean over all."""

    @model_validator(mode="after")
    def _layers_fit_the_tuning(self) -> Self:
        if self.trained_layers != 2 and self.tuning != "last_layers":
            raise ValueError(f"trained_layers is for tuning last_layers; tuning is {self.tuning}")
        if self.reinitialized_layers and self.tuning in ("frozen", "lora"):
            raise ValueError(f"reinitialized_layers have to be trained; tuning {self.tuning} leaves them as they are")
        if self.reinitialized_layers and self.from_scratch is not None:
            raise ValueError("reinitialized_layers is for a checkpoint; from_scratch begins with random weights")
        if self.tuning == "last_layers" and self.reinitialized_layers > self.trained_layers:
            raise ValueError(
                f"reinitialized_layers {self.reinitialized_layers} is more than trained_layers {self.trained_layers}: "
                "random weights have to be trained"
            )
        return self


class DecoderModel(TransformerModel):
    """A GPT-type decoder that writes text."""

    family: Literal["decoder"] = "decoder"
    """The kind of model."""
    tuning: Literal["full", "lora"] = "full"
    """What is trained: `full` is every weight, `lora` small adapters beside weights that stay as they were."""


class _FromScratchModel(BaseModel):
    """What models without pretraining have in common: their embeddings."""

    model_config = TYPED

    family: str
    """The kind of model."""
    embedding_size: PositiveInteger = 128
    """The width of the token embeddings."""
    token_dropout: Fraction = 0.0
    """The share of tokens whose whole embedding is dropped in training, which guards against single telling words."""
    initial_embeddings: str | None = None
    """Word vectors to begin with: a run of task word_vectors, or a directory with a word_vectors.safetensors."""
    freeze_embeddings: bool = False
    """Leave the embeddings as initial_embeddings made them; without it they are learnt further."""

    @model_validator(mode="after")
    def _embeddings_are_learnt_somewhere(self) -> Self:
        if self.freeze_embeddings and self.initial_embeddings is None:
            raise ValueError("freeze_embeddings needs initial_embeddings: random ones have to be learnt")
        return self


class BagModel(_FromScratchModel):
    """A bag of embeddings with a linear head: what can be told of a text without the order of its words."""

    family: Literal["bag"] = "bag"
    """The kind of model."""
    pooling: Literal["mean", "max", "attention"] = "mean"
    """What the head sees: the mean, the maximum or a learnt mean of the embeddings."""
    dropout: Fraction = 0.3
    """The dropout rate on embeddings and before the head."""


class CnnModel(_FromScratchModel):
    """A text CNN (Kim 2014): filters over a few neighbouring tokens, and of each its maximum over the text."""

    family: Literal["cnn"] = "cnn"
    """The kind of model."""
    filters: PositiveInteger = 100
    """The number of filters of each size."""
    kernel_sizes: Annotated[tuple[PositiveInteger, ...], BeforeValidator(_parse_list), Field(min_length=1)] = (3, 4, 5)
    """The sizes of the filters, in tokens."""
    dropout: Fraction = 0.5
    """The dropout rate on embeddings and before the head."""


class RecurrentModel(_FromScratchModel):
    """A recurrent classifier, or for `generate` a recurrent language model, that starts from random weights."""

    family: Literal["recurrent"] = "recurrent"
    """The kind of model."""
    cell: Literal["rnn", "lstm", "gru"] = "lstm"
    """The recurrent cell."""
    hidden_size: PositiveInteger = 128
    """The width of the hidden state, per direction."""
    num_layers: PositiveInteger = 1
    """The number of stacked layers."""
    bidirectional: bool = False
    """Read the text in both directions."""
    pooling: Literal["last", "mean", "max", "attention"] = "last"
    """What the head sees: the last state of each direction, or the mean, maximum or a learnt mean over all states."""
    skip_connections: bool = False
    """Add what a layer is given to what it says, from the second layer on."""
    layer_norm: bool = False
    """Normalise the states after each layer."""
    head_activation: Literal["none", "sigmoid", "tanh", "relu", "leaky_relu", "gelu"] = "none"
    """Give the head a hidden layer with this activation; `none` is a linear head."""
    initialization: Literal["uniform", "orthogonal", "xavier"] = "uniform"
    """How recurrent weights are drawn."""
    forget_bias: float = 1.0
    """The bias that an LSTM's forget gates begin with; 1 lets them begin open."""
    dropout: Fraction = 0.3
    """The dropout rate on embeddings, between layers and before the head."""
    locked_dropout: bool = False
    """Drop the same dimensions at every step of a text; what generates does so always."""
    weight_dropout: Fraction = 0.0
    """The share of recurrent weights dropped in training."""
    tie_embeddings: bool = True
    """Let the output weights be the embeddings, for `generate`; the last layer is then as wide as they are."""
    adaptive_softmax_cutoffs: Annotated[tuple[PositiveInteger, ...], BeforeValidator(_parse_list)] = ()
    """Token ids at which clusters of ever rarer tokens begin, for `generate` with a large vocabulary: [2000, 10000]."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.skip_connections and self.num_layers == 1:
            raise ValueError("skip_connections lead past the second layer and those above; num_layers is 1")
        if self.forget_bias != 1.0 and self.cell != "lstm":
            raise ValueError(f"forget_bias is for cell lstm; cell is {self.cell}")
        if self.adaptive_softmax_cutoffs and self.tie_embeddings:
            raise ValueError("adaptive_softmax_cutoffs need tie_embeddings false: clusters have widths of their own")
        if list(self.adaptive_softmax_cutoffs) != sorted(set(self.adaptive_softmax_cutoffs)):
            raise ValueError("adaptive_softmax_cutoffs rise from one to the next")
        return self


class EncoderDecoderModel(TransformerModel):
    """A pretrained encoder-decoder (T5, BART) that reads a prompt and writes what follows it."""

    family: Literal["encoder_decoder"] = "encoder_decoder"
    """The kind of model."""
    tuning: Literal["full", "lora"] = "full"
    """What is trained: `full` is every weight, `lora` small adapters beside weights that stay as they were."""

    @model_validator(mode="after")
    def _begins_with_a_checkpoint(self) -> Self:
        if self.from_scratch is not None:
            raise ValueError("from_scratch is for encoders and decoders; family seq2seq learns from random weights")
        return self


class Seq2SeqModel(BaseModel):
    """A recurrent encoder and decoder with attention between them, for `generate`, that starts from random weights."""

    model_config = TYPED

    family: Literal["seq2seq"] = "seq2seq"
    """The kind of model."""
    cell: Literal["rnn", "lstm", "gru"] = "lstm"
    """The recurrent cell."""
    embedding_size: PositiveInteger = 128
    """The width of the token embeddings, which both sides share."""
    hidden_size: PositiveInteger = 256
    """The width of the decoder's state; the encoder has half of it in each direction."""
    num_layers: PositiveInteger = 1
    """The number of stacked layers of either side."""
    attention: Literal["none", "dot", "general", "additive"] = "general"
    """How the decoder scores what it looks back at; `none`: it knows of the prompt what one state holds."""
    input_feeding: bool = True
    """Give the decoder with each token what it told the last one from, so that it knows where it has looked."""
    teacher_forcing: float = Field(default=1.0, ge=0, le=1)
    """The share of target tokens that the decoder is shown in the last epoch (in the first all), else its own."""
    dropout: Fraction = 0.2
    """The dropout rate on embeddings, between layers and before the head."""
    initialization: Literal["uniform", "orthogonal", "xavier"] = "uniform"
    """How recurrent weights are drawn."""
    forget_bias: float = 1.0
    """The bias that an LSTM's forget gates begin with; 1 lets them begin open."""

    @model_validator(mode="after")
    def _halves_are_whole(self) -> Self:
        if self.hidden_size % 2:
            raise ValueError(f"hidden_size {self.hidden_size} is odd; each direction of the encoder has half of it")
        if self.forget_bias != 1.0 and self.cell != "lstm":
            raise ValueError(f"forget_bias is for cell lstm; cell is {self.cell}")
        return self


class WordVectorModel(BaseModel):
    """One vector for each token, learnt from what stands near it: what came before pretrained models."""

    model_config = TYPED

    family: Literal["word_vectors"] = "word_vectors"
    """The kind of model."""
    method: Literal["cbow", "skip_gram", "ppmi"] = "skip_gram"
    """Word2vec (`cbow` guesses a token from its neighbours, `skip_gram` these from it), or factorised `ppmi` counts."""
    dimensions: PositiveInteger = 128
    """The width of the vectors."""
    window: PositiveInteger = 5
    """Tokens on either side that count as near."""
    min_count: PositiveInteger = 5
    """Tokens seen less often than this in the training rows get no vector."""
    negative_samples: PositiveInteger = 5
    """Tokens drawn by chance against each true one, for cbow and skip_gram."""
    subsampling: float = Field(default=1e-3, ge=0, le=1)
    """Tokens with a larger share of the text than this are passed over now and then; 0 never (cbow and skip_gram)."""


class MajorityFloor(BaseModel):
    """The floor of floors: always the most frequent training label."""

    model_config = TYPED

    family: Literal["majority"] = "majority"
    """The kind of model."""


class TfidfFloor(BaseModel):
    """Character n-gram TF-IDF (sublinear) with logistic regression: the floor that a neural model has to beat."""

    model_config = TYPED

    family: Literal["tfidf"] = "tfidf"
    """The kind of model."""
    analyzer: Literal["char_wb", "char", "word"] = "char_wb"
    """The unit of the n-grams, as scikit-learn names it."""
    min_ngram: PositiveInteger = 1
    """The shortest n-gram."""
    max_ngram: PositiveInteger = 4
    """The longest n-gram."""
    min_frequency: PositiveInteger = 2
    """N-grams found in fewer training rows than this are left out."""
    regularization: float = Field(default=3.0, gt=0)
    """The inverse regularisation strength C of the logistic regression; larger fits closer (3 by NSMC's validation)."""
    max_iterations: PositiveInteger = 1000
    """The most iterations of the solver."""


Model = Annotated[
    EncoderModel
    | DecoderModel
    | EncoderDecoderModel
    | RecurrentModel
    | Seq2SeqModel
    | BagModel
    | CnnModel
    | WordVectorModel
    | MajorityFloor
    | TfidfFloor,
    Field(discriminator="family"),
]


class Loss(BaseModel):
    """What training minimises, for classify and multi_label; scores and validation do not change with it."""

    model_config = TYPED

    kind: Literal["cross_entropy", "focal", "binary_cross_entropy", "mse"] = "cross_entropy"
    """`focal` counts what is sure less, `binary_cross_entropy` asks each label by itself, `mse` is of probabilities."""
    label_smoothing: Fraction = 0.0
    """The share of certainty that is taken from the right label and given to all alike."""
    focal_gamma: float = Field(default=2.0, ge=0)
    """How much less sure rows count, for focal; 0 is cross-entropy."""
    class_weights: Literal["none", "balanced"] = "none"
    """`balanced` lets each label count the same in all; for `multi_label` its rows count as much as all others."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.focal_gamma != 2.0 and self.kind != "focal":
            raise ValueError(f"focal_gamma is for focal; kind is {self.kind}")
        return self


class Training(BaseModel):
    """The optimisation: how long, how fast, and what is kept."""

    model_config = TYPED

    num_train_epochs: PositiveInteger = 3
    """Passes over the training rows."""
    max_steps: Annotated[Integer, Field(ge=0)] | None = None
    """Stop after this many optimizer steps, whatever the epochs; 0 scores the model as it is."""
    batch_size: PositiveInteger = 32
    """Rows per optimizer step, over all processes: the global batch size."""
    micro_batch_size: PositiveInteger | Literal["auto"] = "auto"
    """Rows that one process computes at a time; accumulation is derived. `auto`: all of the process's share at once."""
    optimizer: Literal["adamw", "sgd", "adafactor"] = "adamw"
    """The optimizer, PyTorch's own: fused AdamW, SGD with `momentum`, or Adafactor, which keeps hardly any state."""
    momentum: Fraction = 0.9
    """The momentum of sgd."""
    learning_rate: float = Field(default=5e-5, gt=0)
    """The peak learning rate."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Decoupled weight decay, on weight matrices only (not on biases, normalisation or embeddings)."""
    adam_beta1: Fraction = 0.9
    """Adam's decay rate of the first moment."""
    adam_beta2: Fraction = 0.999
    """Adam's decay rate of the second moment."""
    adam_epsilon: float = Field(default=1e-8, gt=0)
    """Adam's epsilon."""
    layerwise_lr_decay: float = Field(default=1.0, gt=0, le=1)
    """Each layer learns at this many times the rate of the one above it, embeddings slowest; 1 is all alike."""
    gradual_unfreezing: bool = False
    """Train the head alone in the first epoch, and one more layer from the top in each that follows."""
    lr_scheduler_type: Literal["linear", "cosine", "constant", "one_cycle", "inverse_sqrt"] = "linear"
    """The shape of the learning rate after warm-up; `one_cycle` rises from a 25th and falls along cosines instead."""
    warmup_ratio: Fraction = 0.1
    """The share of all steps over which the learning rate rises from zero."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """The gradient is scaled down to this norm when it is larger."""
    mixed_precision: Literal["auto", "no", "bf16", "fp16"] = "auto"
    """The arithmetic of the forward pass; `auto` is bf16 where the processor computes in it, else float32."""
    truncated_bptt: PositiveInteger | None = None
    """For a recurrent model that generates: read the rows as one text, this many tokens a step, and carry its state."""
    bucket_batches: PositiveInteger = 50
    """Batches are filled with rows of like length, sorted within shuffled pools of this many batches."""
    eval_steps: PositiveInteger | None = None
    """Validate every so many steps; without it, after each epoch."""
    save_steps: PositiveInteger | None = None
    """Write a checkpoint every so many steps; without it, after each validation."""
    save_total_limit: PositiveInteger = 2
    """Keep this many checkpoints, the newest; older ones are removed."""
    on_nonfinite: Literal["stop", "skip"] = "stop"
    """What to do at a loss or gradient that is not a number or infinite: stop the run, or skip the step and log it."""
    metric_for_best_model: Literal[
        "auto",
        "accuracy",
        "macro_f1",
        "micro_f1",
        "subset_accuracy",
        "loss",
        "rmse",
        "mae",
        "pearson",
        "masked_accuracy",
        "token_accuracy",
        "bits_per_byte",
    ] = "auto"
    """The validation metric that chooses the weights kept; `auto` is accuracy, micro_f1, rmse, or loss for tokens."""
    early_stopping_patience: PositiveInteger | None = None
    """Stop after this many validations without a better one."""
    logging_steps: PositiveInteger = 10
    """Write a record to the training log every so many steps."""
    dataloader_num_workers: Annotated[Integer, Field(ge=0)] = 0
    """Worker processes that assemble batches; 0 assembles them in the training process."""
    threads: PositiveInteger | Literal["auto"] = "auto"
    """Threads of each process; `auto` is the processor's cores, shared among the processes of this machine."""
    report_to: Literal["none", "tensorboard", "trackio"] = "none"
    """Where to send the training curve besides the log."""


VALIDATION_METRICS = {
    "classify": ("accuracy", "macro_f1", "loss"),
    "multi_label": ("micro_f1", "macro_f1", "subset_accuracy", "loss"),
    "rate": ("rmse", "mae", "pearson", "loss"),
    "masked_lm": ("loss", "masked_accuracy", "bits_per_byte"),
    "generate": ("loss", "token_accuracy", "bits_per_byte"),
    "word_vectors": (),
}
"""What validation may choose the weights by; the first is the task's own choice."""
_FOR_WORD_VECTORS = ("num_train_epochs", "threads", "micro_batch_size", "mixed_precision", "metric_for_best_model")
"""Fields of the training section that a recipe of word vectors may hold: the first, and what every run fills in."""


class Evaluation(BaseModel):
    """How scores and their intervals are computed."""

    model_config = TYPED

    batch_size: PositiveInteger = 128
    """Rows per batch when scoring."""
    bootstrap_samples: Annotated[Integer, Field(ge=100)] = 1000
    """Resamples of the rows for each confidence interval."""
    confidence_level: float = Field(default=0.95, gt=0.5, lt=1)
    """The level of the confidence intervals."""
    interval: Literal["percentile", "bca"] = "percentile"
    """What is made of the resamples; `bca` corrects their percentiles for bias and for a spread that varies."""
    calibration: Literal["none", "temperature"] = "none"
    """`temperature` divides a classifier's logits by what fits validation: its labels stay, how sure it is changes."""
    neutral_accuracy: float | None = Field(default=None, gt=0.5, lt=1)
    """Give neither of two labels between thresholds outside of which this share of validation is right: 0.9, say."""
    neutral_label: str = Field(default="neutral", min_length=1)
    """What is given between them."""
    score_test: bool = True
    """Score the test split at the end, and write samples after its prompts; without it the split stays sealed."""


class Generation(BaseModel):
    """How texts are sampled after the training of a model that generates, for its run's samples."""

    model_config = TYPED

    samples: Annotated[Integer, Field(ge=0)] = 100
    """Test rows after whose prompts something is written; without prompts so many texts from their start."""
    max_new_tokens: PositiveInteger = 64
    """The most tokens of a text."""
    temperature: float = Field(default=1.0, gt=0)
    """Below 1 likely tokens become likelier still."""
    top_p: float = Field(default=0.95, gt=0, le=1)
    """Only the likeliest tokens that have this probability together are drawn from."""

    do_sample: bool = True
    """Draw tokens by their probability; false takes the likeliest, as is right where one answer is."""
    num_beams: PositiveInteger = 1
    """Follow this many beginnings at a time and keep the likeliest whole, with do_sample false."""

    @model_validator(mode="after")
    def _draws_or_not(self) -> Self:
        if self.do_sample and self.num_beams > 1:
            raise ValueError("num_beams looks for the likeliest text; set do_sample false")
        if not self.do_sample and (self.temperature, self.top_p) != (1.0, 0.95):
            raise ValueError("temperature and top_p are for do_sample true")
        return self


class Recipe(BaseModel):
    """One run, completely described."""

    model_config = TYPED

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """The run's name: its directory below `output_dir`."""
    output_dir: str = "runs"
    """The directory that holds the run directories; a relative path counts from the working directory."""
    seed: Integer = 42
    """The seed of initial weights, dropout, the order of batches, masks and segmentations."""
    task: Task = "classify"
    """What is learnt: `classify` gives a label, `multi_label` several, `rate` a number; the others read text alone."""
    data: Data
    """Where the rows come from."""
    text: Text = Text()
    """How text becomes token ids."""
    masking: Masking = Masking()
    """What `masked_lm` hides."""
    model: Model
    """The model and its sizes."""
    loss: Loss = Loss()
    """What is minimised."""
    training: Training = Training()
    """The optimisation."""
    evaluation: Evaluation = Evaluation()
    """Scores and intervals."""
    generation: Generation = Generation()
    """The samples of a model that generates."""

    @model_validator(mode="after")
    def _fits_the_task(self) -> Self:
        metric, allowed = self.training.metric_for_best_model, VALIDATION_METRICS[self.task]
        if metric not in ("auto", *allowed):
            raise ValueError(
                f"training.metric_for_best_model {metric} is none of task {self.task}'s: {', '.join(allowed)}"
            )
        labels_texts = self.task in ("classify", "multi_label")
        if self.loss != Loss() and (not labels_texts or self.model.family in ("majority", "tfidf")):
            raise ValueError(f"loss is for neural models that classify; task {self.task}, family {self.model.family}")
        if self.task == "multi_label" and (self.loss.kind == "mse" or self.loss.label_smoothing):
            raise ValueError("task multi_label learns by binary cross-entropy or focal loss, without label_smoothing")
        if self.task != "multi_label" and (self.data.label_columns or self.data.label_separator != "|"):
            raise ValueError(f"data.label_columns and label_separator are for multi_label; the task is {self.task}")
        asks = self.evaluation.calibration != "none" or self.evaluation.neutral_accuracy is not None
        if asks and (self.task != "classify" or self.model.family in ("majority", "tfidf")):
            raise ValueError(
                "evaluation.calibration and neutral_accuracy are for neural models that classify; task "
                f"{self.task}, family {self.model.family}"
            )
        if self.training.momentum != 0.9 and self.training.optimizer != "sgd":
            raise ValueError(f"training.momentum is for sgd; training.optimizer is {self.training.optimizer}")
        by_layer = self.training.layerwise_lr_decay < 1 or self.training.gradual_unfreezing
        if by_layer and getattr(self.model, "tuning", "full") != "full":
            raise ValueError("training.layerwise_lr_decay and gradual_unfreezing are for model.tuning full")
        if self.text.noise and (self.task in TEXT_TASKS or self.model.family in ("majority", "tfidf")):
            raise ValueError(
                f"text.noise is for neural models that label or rate; task {self.task}, family {self.model.family}"
            )
        if self.text.noise_share != 0.3 and not self.text.noise:
            raise ValueError("text.noise_share needs text.noise, which names the kinds")
        if self.task == "rate" and self.data.labels is not None:
            raise ValueError("task rate learns numbers; leave data.labels out")
        if self.task in TEXT_TASKS:
            self._check_text_task()
        elif self.data.file_format == "text":
            raise ValueError(f"data.file_format text has no labels, and task {self.task} needs them")
        elif self.data.prompt_column or self.data.messages_column:
            raise ValueError(f"data.prompt_column and data.messages_column are for generate; the task is {self.task}")
        elif self.model.family in ("decoder", *_READ_PROMPTS):
            raise ValueError(f"model.family {self.model.family} learns to generate; the task is {self.task}")
        elif self.model.family == "word_vectors":
            raise ValueError(f"model.family word_vectors is for task word_vectors; the task is {self.task}")
        if self.training.truncated_bptt is not None:
            if self.task != "generate" or self.model.family != "recurrent":
                raise ValueError("training.truncated_bptt is for a recurrent model that generates")
            if self.data.prompt_column or self.data.messages_column:
                raise ValueError("training.truncated_bptt reads plain text; leave the prompts out, or it")
        return self

    @property
    def reads_prompts(self) -> bool:
        """Whether the model has an encoder for prompts, apart from what writes after them."""
        return self.model.family in _READ_PROMPTS

    @property
    def text_limit(self) -> int:
        """The tokens at which a text is cut; of documents, which are cut into windows, nothing is lost."""
        is_document = self.task == "generate" and not (self.data.prompt_column or self.data.holds_chats)
        return sys.maxsize if is_document else self.text.max_length

    @property
    def window_length(self) -> int | None:
        """The tokens of a window that documents to generate are cut into; None where steps cut the joined text."""
        return None if self.training.truncated_bptt is not None else self.text.max_length

    def _check_text_task(self) -> None:
        by_frequency = ("word", "whitespace", "character")
        is_adaptive = self.model.family == "recurrent" and bool(self.model.adaptive_softmax_cutoffs)
        if is_adaptive and self.text.tokenizer_name_or_path is None and self.text.unit not in by_frequency:
            raise ValueError(
                "model.adaptive_softmax_cutoffs need a vocabulary in the order of frequency: text.unit "
                f"{', '.join(by_frequency)}"
            )
        families: dict[Task, tuple[str, ...]] = {
            "masked_lm": ("encoder",),
            "generate": ("decoder", "recurrent", *_READ_PROMPTS),
            "word_vectors": ("word_vectors",),
        }
        if self.model.family not in families[self.task]:
            raise ValueError(
                f"task {self.task} is for models of family {', '.join(families[self.task])}; model.family "
                f"{self.model.family} cannot learn it"
            )
        if self.model.family == "recurrent":
            self._check_language_model(self.model)
        if self.model.family in _READ_PROMPTS and not self.data.prompt_column:
            raise ValueError(f"model.family {self.model.family} writes after a prompt; name its data.prompt_column")
        if self.model.family == "encoder" and self.model.tuning != "full":
            raise ValueError(f"task masked_lm trains the whole encoder; model.tuning is {self.model.tuning}")
        if self.model.family == "encoder" and self.model.pooling != "cls":
            raise ValueError(f"task masked_lm has a head over all tokens; leave model.pooling {self.model.pooling} out")
        if self.task == "masked_lm" and not self.evaluation.score_test:
            raise ValueError("task masked_lm has one look at its test split, at the end; leave score_test true")
        if self.data.labels is not None and self.data.prompt_column is None:
            raise ValueError(f"task {self.task} needs no labels; leave data.labels out")
        if self.data.text_pair_column is not None:
            raise ValueError(f"task {self.task} reads one text a row; leave data.text_pair_column out")
        if self.task != "generate" and (self.data.prompt_column or self.data.messages_column):
            raise ValueError(f"data.prompt_column and data.messages_column are for generate; the task is {self.task}")
        if self.task != "masked_lm" and self.text.subword_sampling_alpha is not None:
            raise ValueError(
                f"text.subword_sampling_alpha is not for {self.task}, whose targets are the tokens themselves"
            )
        if self.task == "word_vectors":
            given = self.training.model_dump(exclude=set(_FOR_WORD_VECTORS))
            for name, default in Training().model_dump(exclude=set(_FOR_WORD_VECTORS)).items():
                if given[name] != default:
                    raise ValueError(f"training.{name} is not for word_vectors, which have num_train_epochs alone")

    def _check_language_model(self, model: RecurrentModel) -> None:
        if model.bidirectional:
            raise ValueError("task generate reads from left to right; model.bidirectional cannot be true")
        defaults = RecurrentModel()
        for name in ("pooling", "skip_connections", "layer_norm", "head_activation", "locked_dropout"):
            if getattr(model, name) != getattr(defaults, name):
                raise ValueError(f"model.{name} is for recurrent classifiers; the task is generate")


# --- YAML -------------------------------------------------------------------------------------------------------------


class _TextLoader(yaml.SafeLoader):
    """YAML whose plain scalars stay text (null apart), since the field's type decides; duplicate keys are refused."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[object] = set()
        for key_node, _ in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if key is not None and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


_TextLoader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern) for tag, pattern in resolvers if tag in ("tag:yaml.org,2002:null", "tag:yaml.org,2002:merge")
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


class _TextDumper(yaml.SafeDumper):
    """Dumps text so that it reads back: PyYAML alone turns the line separators of Unicode into spaces."""

    def represent_text(self, text: str) -> yaml.Node:
        style = '"' if set(text) & set("\x85\u2028\u2029") else None
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_TextDumper.add_representer(str, _TextDumper.represent_text)


def write_yaml(tree: Mapping[str, Any], width: int = 120) -> str:
    """Plain values as YAML that reads back as they are."""
    return yaml.dump(dict(tree), Dumper=_TextDumper, sort_keys=False, allow_unicode=True, width=width)


def read_yaml_file(file: Path) -> object:
    """A YAML file as plain values, its scalars as text.

    Raises:
        UserError: it is not there, or is not readable as UTF-8 and YAML.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{file}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not UTF-8 at byte {error.start}; save it as UTF-8") from None
    return _read_yaml(text, str(file))


def _read_yaml(text: str, origin: str) -> object:
    try:
        # The loader is a SafeLoader: no tag of it builds anything but plain values.
        return yaml.load(text, Loader=_TextLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{origin}, line {mark.line + 1}" if mark is not None else origin
        problem = getattr(error, "problem", None) or " ".join(str(error).split())
        raise UserError(f"{where}: not readable as YAML: {problem}") from None


def embedded_model(name: str) -> Path:
    """The directory of an embedded model, `embedded:mini-bert-ko`: weights, configuration and tokenizer.

    Raises:
        UserError: there is no such model.
    """
    directory = Path(str(resources.files("finetune"))) / "models" / "embedded"
    names = sorted(path.parent.name for path in directory.glob("[!.]*/config.json"))
    if name.removeprefix(EMBEDDED_PREFIX) not in names:
        raise UserError(f"{name}: no such embedded model; there is {', '.join(names) or 'none'}")
    return directory / name.removeprefix(EMBEDDED_PREFIX)


def local_name(name_or_path: str) -> str:
    """What libraries know a model by: the directory of an embedded one, else the name as it is."""
    return str(embedded_model(name_or_path)) if name_or_path.startswith(EMBEDDED_PREFIX) else name_or_path


def shipped_recipes() -> dict[str, Path]:
    """The recipes in the package, by name."""
    directory = Path(str(resources.files("finetune"))) / "recipes"
    return {path.stem: path for path in sorted(directory.glob("*.yaml"))}


def find_recipe(name_or_path: str) -> Path:
    """The file of a recipe given as a path or as the name of a shipped one."""
    path = Path(name_or_path)
    shipped = shipped_recipes()
    if path.is_file():
        return path
    if name_or_path in shipped:
        return shipped[name_or_path]
    if path.is_dir():
        if (path / "recipe.yaml").is_file():
            return path / "recipe.yaml"
        raise UserError(f"{name_or_path} is a directory; give a recipe file in it, or a run directory")
    # nsmc-kobert or kobert-nsmc: nobody remembers which.
    words = sorted(name_or_path.split("-"))
    same_words = [recipe for name, recipe in shipped.items() if sorted(name.split("-")) == words]
    if len(same_words) == 1:
        return same_words[0]
    near = difflib.get_close_matches(name_or_path, shipped, n=1)
    hint = f"; did you mean {near[0]}?" if near else "; `finetune recipes` lists the shipped ones"
    raise UserError(f"no recipe file and no shipped recipe named {name_or_path!r}{hint}")


# --- paths ------------------------------------------------------------------------------------------------------------

_FILE_FIELDS = tuple(("data", name) for name in ("train_file", "more_train_files", "validation_file", "test_file"))
_NAME_OR_PATH_FIELDS = (
    ("model", "model_name_or_path"),
    ("model", "initial_embeddings"),
    ("text", "tokenizer_name_or_path"),
)


def _absolute_paths(tree: dict[str, Any], base: Path) -> None:
    """Make the paths in `tree` absolute, relative ones counting from `base`; names of the Hub stay as they are."""
    for section, field in (*_FILE_FIELDS, *_NAME_OR_PATH_FIELDS):
        values = tree.get(section)
        if not isinstance(values, dict) or values.get(field) is None:
            continue
        is_file = (section, field) in _FILE_FIELDS
        values[field] = _each(values[field], partial(_absolute, base=base, is_file=is_file))


def _absolute(value: str, base: Path, *, is_file: bool) -> str:
    if value.startswith(EMBEDDED_PREFIX) or "://" in value:
        return value
    is_path = is_file or (base / value).is_dir() or value.startswith(("./", "../", "~"))
    return str((base / Path(value).expanduser()).resolve()) if is_path else value


def _each(value: object, change: Callable[[str], str]) -> object:
    """`change` of a text, or of each text in a list; anything else is a mistake that the recipe's types will name."""
    if isinstance(value, list):
        return [_each(one, change) for one in value]
    return change(value) if isinstance(value, str) else value


def relative_paths(tree: dict[str, Any], base: Path) -> dict[str, Any]:
    """`tree` (a dumped recipe) with absolute paths written relative to `base`, which can then be moved with them."""
    return _with_paths(tree, partial(_relative, base=base))


def _with_paths(tree: Mapping[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    """`tree` with every path in it, and every name that may be one, changed."""
    changed = {key: dict(value) if isinstance(value, dict) else value for key, value in tree.items()}
    for section, field in (*_FILE_FIELDS, *_NAME_OR_PATH_FIELDS):
        values = changed.get(section, {})
        if values.get(field) is not None:
            values[field] = _each(values[field], change)
    return changed


def published_tree(tree: Mapping[str, Any]) -> dict[str, Any]:
    """`tree` (a dumped recipe) without places of this machine: of paths the last part, of a run's model its name."""
    published = _with_paths(tree, last_part)
    if "output_dir" in published:
        published["output_dir"] = Recipe.model_fields["output_dir"].default
    return published


def last_part(value: str) -> str:
    """Of a path its last part, of a run's model the run's name; anything else as it is."""
    path = Path(value)
    if not path.is_absolute() and not value.startswith((".", "~")):
        return value
    return f"./{path.parent.name if path.name == 'model' else path.name}"


def _relative(value: str, base: Path) -> str:
    if not Path(value).is_absolute():
        return value
    path = Path(os.path.relpath(value, base)).as_posix()
    return path if path.startswith("../") else f"./{path}"


# --- loading and dumping ----------------------------------------------------------------------------------------------


def recipe_for_file(file: str, overrides: Sequence[tuple[str, str]] = ()) -> Recipe:
    """A recipe around one data file, for those who have no recipe yet; overrides as in `load_recipe`.

    Raises:
        UserError: unknown or mistyped keys.
    """
    tree: dict[str, Any] = {"name": "file", "data": {"train_file": file}, "model": {"family": "majority"}}
    task = dict(overrides).get("task")
    if task == "word_vectors":
        tree["model"] = {"family": "word_vectors"}
    elif task in TEXT_TASKS:
        tree["model"] = {"family": "decoder" if task == "generate" else "encoder", "from_scratch": {}}
    for key, value in overrides:
        _set_dotted(tree, key, _read_yaml(value, f"--{key}"))
    return parse_recipe(tree, file)


def load_recipe(name_or_path: str, overrides: Sequence[tuple[str, str]] = ()) -> Recipe:
    """Read a recipe and apply dotted overrides such as `("training.learning_rate", "2e-5")`.

    Paths in the file count from the file's directory, paths in overrides from the working directory. Overrides apply in
    their order; a mapping replaces a whole section.

    Raises:
        UserError: no such recipe, unreadable YAML, or unknown and mistyped keys: all of them, each by its dotted path.
    """
    path = find_recipe(name_or_path)
    tree = read_yaml_file(path)
    if not isinstance(tree, dict):
        raise UserError(f"{path}: a recipe is a mapping of keys to values; `finetune recipes show` prints one")
    is_shipped = path in shipped_recipes().values()
    _absolute_paths(tree, Path.cwd() if is_shipped else path.parent.resolve())
    for key, value in overrides:
        _set_dotted(tree, key, _read_yaml(value, f"--{key}"))
    origin = str(path) if not overrides else f"{path} with {' '.join(f'--{key} {value}' for key, value in overrides)}"
    return parse_recipe(tree, origin)


def parse_recipe(tree: Mapping[str, Any], origin: str = "recipe") -> Recipe:
    """Check a tree of plain values against the recipe's types.

    Raises:
        UserError: every unknown or mistyped key, one per line.
    """
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        # A field that may be of several types gives one error for each: the first speaks for all.
        problems: dict[str, str] = {}
        for problem in error.errors():
            dotted = _dotted(problem["loc"])
            problems.setdefault(dotted, f"{dotted}: {_describe(problem, dotted)}")
    if len(problems) == 1:
        raise UserError(f"{origin}: {next(iter(problems.values()))}")
    raise UserError("\n  ".join([f"{origin}: {len(problems)} problems", *problems.values()]))


def dump_recipe(recipe: Recipe, relative_to: Path | None = None) -> str:
    """The complete recipe as YAML; `load_recipe` of it gives an equal recipe."""
    tree = recipe.model_dump(mode="json")
    if relative_to is not None:
        tree = relative_paths(tree, relative_to)
    return write_yaml(tree)


def with_values(recipe: Recipe, **sections: Mapping[str, Any]) -> Recipe:
    """A copy of `recipe` with fields of its sections replaced: `with_values(r, training={"threads": 2})`."""
    tree = recipe.model_dump(mode="json")
    for section, values in sections.items():
        tree[section] = {**tree[section], **values}
    return parse_recipe(tree)


def differences(given: Recipe, recorded: Recipe) -> list[str]:
    """Where `given` asks for something else than `recorded`, as `field is X, was Y`.

    What `given` leaves open ("auto", the labels found in the data) is as recorded; a run's place is no difference.
    """
    before = dict(_leaves(recorded.model_dump(mode="json")))
    changed = []
    for dotted, value in _leaves(given.model_dump(mode="json")):
        is_open = value == "auto" or dotted in ("name", "output_dir") or (dotted == "data.labels" and value is None)
        if not is_open and value != before.get(dotted):
            changed.append(f"{dotted} is {_show(value)}, was {_show(before.get(dotted))}")
    return changed


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict) and f"{prefix}{key}" != "data.labels":
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _set_dotted(tree: dict[str, Any], dotted: str, value: object) -> None:
    """Set one value of the tree; a mapping replaces a whole section, so that `--model {family: tfidf}` does."""
    *parents, last = dotted.split(".")
    change: Any = {last: value}
    for parent in reversed(parents):
        change = {parent: change}
    _absolute_paths(change, Path.cwd())
    for parent in parents:
        change = change[parent]
        below = tree.setdefault(parent, {})
        if not isinstance(below, dict):
            below = tree[parent] = {}
        tree = below
    tree[last] = change[last]


def _dotted(location: Sequence[int | str]) -> str:
    """The dotted path of a pydantic error, without the union tags that pydantic adds to it."""
    parts = [str(part) for part in location]
    if len(parts) > 1 and parts[0] == "model" and parts[1] in _FAMILIES:
        del parts[1]
    fields = {key for key, *_ in recipe_fields()}
    for end in range(1, len(parts)):
        if ".".join(parts[:end]) in fields:
            parts = parts[:end]
            break
    return ".".join(parts) or "recipe"


def _describe(problem: Any, dotted: str) -> str:
    """What is wrong in one pydantic error, with the nearest valid name for an unknown key."""
    fields = {key: type_name for key, type_name, _, _ in recipe_fields()}
    match problem["type"]:
        case "extra_forbidden":
            sections = {key.rpartition(".")[0] for key in fields} - {""}
            near = _nearest(dotted, [*fields, *sections])
            return "unknown key" + (f"; did you mean {near}?" if near else "")
        case "missing":
            return "missing"
        case "union_tag_invalid" | "union_tag_not_found":
            return f"model.family needs to be one of {', '.join(_FAMILIES)}"
        case "value_error":
            return f"{problem['ctx']['error']}"
        case _ if " | " in fields.get(dotted, ""):
            return f"needs {fields[dotted]}, not {problem['input']!r}"
        case _:
            return f"{problem['msg']}, not {problem['input']!r}"


def _nearest(dotted: str, valid: Sequence[str]) -> str | None:
    """The valid dotted path nearest to `dotted`; a near last part counts before a near whole."""
    last = dotted.rpartition(".")[2]
    by_name: dict[str, str] = {}
    parent = dotted.rpartition(".")[0]
    for key in sorted(valid, key=lambda key: key.rpartition(".")[0] == parent):
        by_name[key.rpartition(".")[2]] = key
    near = difflib.get_close_matches(last, by_name, n=1, cutoff=0.7)
    if near:
        return by_name[near[0]]
    return next(iter(difflib.get_close_matches(dotted, valid, n=1, cutoff=0.8)), None)


# --- the fields' own documentation ------------------------------------------------------------------------------------

_FAMILY_CLASSES: dict[str, type[BaseModel]] = {
    "encoder": EncoderModel,
    "decoder": DecoderModel,
    "encoder_decoder": EncoderDecoderModel,
    "recurrent": RecurrentModel,
    "seq2seq": Seq2SeqModel,
    "bag": BagModel,
    "cnn": CnnModel,
    "majority": MajorityFloor,
    "tfidf": TfidfFloor,
    "word_vectors": WordVectorModel,
}
_FAMILIES = tuple(_FAMILY_CLASSES)


def recipe_fields() -> Iterator[tuple[str, str, str, str]]:
    """Every field as (dotted path, type, default, documentation), the fields of all model families among them."""
    yield from _fields(Recipe, "")


def _fields(section: type[BaseModel], prefix: str) -> Iterator[tuple[str, str, str, str]]:
    for name, field in section.model_fields.items():
        dotted = f"{prefix}{name}"
        if dotted == "model":
            for family in _FAMILY_CLASSES.values():
                yield from _fields(family, "model.")
        elif (inner := _section_class(field)) is not None:
            yield from _fields(inner, f"{dotted}.")
        else:
            default = "(required)" if field.is_required() else _show(field.default)
            yield dotted, _type_name(field), default, field.description or ""


def _section_class(field: FieldInfo) -> type[BaseModel] | None:
    candidates = (field.annotation, *get_args(field.annotation))
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)


def _type_name(field: FieldInfo) -> str:
    def spell(annotation: Any) -> list[str]:
        if annotation is type(None):
            return ["null"]
        if getattr(annotation, "__origin__", None) is Literal:
            return [str(value) for value in get_args(annotation)]
        if annotation in (int, float, str, bool):
            return {int: ["integer"], float: ["number"], str: ["text"], bool: ["true", "false"]}[annotation]
        if getattr(annotation, "__origin__", None) is dict:
            return ["mapping"]
        if hasattr(annotation, "__metadata__"):
            return spell(get_args(annotation)[0])
        return [name for part in get_args(annotation) for name in spell(part)]

    return " | ".join(spell(field.annotation))


def _show(value: object) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def render_recipe(recipe: Recipe) -> str:
    """The complete recipe as YAML with each field's documentation above it."""
    others = (entry for entry in recipe_fields() if not entry[0].startswith("model."))
    documentation = {key: text for key, _, _, text in (*others, *_fields(type(recipe.model), "model."))}
    lines: list[str] = []
    _render(recipe.model_dump(mode="json"), documentation, "", lines)
    return "\n".join(lines) + "\n"


def _render(tree: Mapping[str, Any], documentation: Mapping[str, str], prefix: str, lines: list[str]) -> None:
    indent = "  " * prefix.count(".")
    for key, value in tree.items():
        dotted = f"{prefix}{key}"
        if isinstance(value, dict) and value and any(name.startswith(f"{dotted}.") for name in documentation):
            lines.append(f"\n{indent}{key}:")
            _render(value, documentation, f"{dotted}.", lines)
            continue
        if dotted in documentation:
            lines.append(f"{indent}# {documentation[dotted]}")
        lines.extend(f"{indent}{line}" for line in write_yaml({key: value}, width=10_000).rstrip("\n").split("\n"))
