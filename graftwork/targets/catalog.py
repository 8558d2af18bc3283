"""Every kind of learning problem, by the name that a recipe's `problem_type` ends with."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from graftwork.targets.labels import (
    classes_in,
    read_class,
    read_labels,
    read_number,
    read_tags,
    read_text,
    tags_in,
    tell_class,
    tell_classes,
    tell_number,
    tell_tags,
    tell_text,
)
from graftwork.targets.target import Target

if TYPE_CHECKING:
    from graftwork.targets.learning import Metric

# Rows of a class weigh more, or are brought together, only where a row has one; teachers tell one, too.
OF_ONE_CLASS = frozenset({"class_weights", "label_smoothing", "contrastive", "keep_epoch: accuracy", "distil", "ewc"})
MIXES = frozenset({"mixup", "cutmix"})  # of `augment`: a row becomes partly of one class, and partly of another

CLASSIFICATION = Target(
    name="classification",
    known_as="classification",
    module="classification",
    storage="int64",
    label_keys=frozenset({"classes", "threshold", "map"}),
    refused=frozenset(),
    reader=read_class,
    members=lambda label: [label],
    tell=tell_class,
    score="accuracy",
    headline="accuracy",
    shown=("accuracy", "macro_f1", "log_loss"),
)
MULTI_LABEL = Target(
    name="multi-label",
    known_as="multi-label classification",
    module="multi_label",
    storage="string",
    label_keys=frozenset({"classes", "map", "separator"}),
    refused=OF_ONE_CLASS,
    reader=read_labels,
    members=classes_in,
    tell=tell_classes,
    score="micro_f1",
    headline="micro_f1",
    shown=("micro_f1", "macro_f1", "exact_match", "log_loss"),
)
REGRESSION = Target(
    name="regression",
    known_as="regression",
    module="regression",
    storage="double",
    label_keys=frozenset(),
    refused=OF_ONE_CLASS | MIXES,
    reader=read_number,
    members=lambda _: [0],
    tell=tell_number,
    score="r2",
    headline="mae",
    shown=("mae", "rmse", "r2", "spearman"),
    is_number=True,
)
# What of a stage is of one state for a row, or of labels that are no texts, or is yet to be made for texts.
NOT_OF_TEXTS = frozenset({"solver", "strength", "head_start", "augment", "adversary", "auxiliary"})
GENERATION = Target(
    name="generation",
    known_as="text generation",
    module="generation",
    storage="string",
    label_keys=frozenset(),
    refused=(OF_ONE_CLASS - {"keep_epoch: accuracy"}) | MIXES | NOT_OF_TEXTS,
    reader=read_text,
    members=lambda _: [0],
    tell=tell_text,
    score="token_accuracy",
    headline="rouge_l",
    shown=("rouge_l", "token_f1", "chrf", "exact_match"),
    baselines=("majority", "tfidf"),
    is_text=True,
)
# What a word is told by can't be kept when words go, or come elsewhere, and no pooled state stands for a row.
OF_ROWS = frozenset({"solver", "strength", "word_deletion", "word_swap", "auxiliary"})
TOKENS = Target(
    name="token-classification",
    known_as="token classification",
    module="token_classification",
    storage="string",
    label_keys=frozenset({"classes", "map"}),
    refused=OF_ONE_CLASS - {"label_smoothing"} | MIXES | OF_ROWS,
    reader=read_tags,
    members=tags_in,
    tell=tell_tags,
    score="entity_f1",
    headline="entity_f1",
    shown=("entity_f1", "macro_f1", "word_accuracy", "log_loss"),
    baselines=("majority", "word-features", "frozen-head"),
    is_by_word=True,
)
TARGETS: Mapping[str, Target] = {
    each.name: each for each in (CLASSIFICATION, MULTI_LABEL, REGRESSION, GENERATION, TOKENS)
}
NAMES = {
    "entity_f1": "entity F1",
    "macro_f1": "macro F1",
    "micro_f1": "micro F1",
    "brier": "Brier score",
    "mae": "MAE",
    "rmse": "RMSE",
    "r2": "R²",
    "spearman": "Spearman's ρ",
    "rouge_l": "ROUGE-L",
    "token_f1": "token F1",
    "chrf": "chrF",
}


def target_of(problem_type: str) -> Target:
    """What is learnt, of `text-regression`, `image-classification` and so on."""
    return TARGETS[problem_type.partition("-")[2]]


def metric_of(name: str) -> "Metric":
    """The metric of that name: of one, it is a loss, or a share, whatever is learnt."""
    measured = (target.learning.metrics for target in TARGETS.values())
    return next(metrics[name] for metrics in measured if name in metrics)


def metric_name(name: str) -> str:
    """A metric as a person writes it."""
    return NAMES.get(name, name.replace("_", " "))
