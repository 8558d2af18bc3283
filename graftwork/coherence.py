"""What of a recipe has to go together: what is read and learnt, its stages, rows beside it, its baselines.

Not here: what a section says by itself, which the section checks.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from graftwork.sections.data import NOUNS, check_label
from graftwork.sections.fields import distinct
from graftwork.sections.prompts import ZERO_SHOT
from graftwork.sections.stages import PAIRS

if TYPE_CHECKING:
    from graftwork.recipe import Recipe

TFIDF = "tfidf"
# What baselines are of that are not of every recipe's model.
OF_BASELINE = {
    TFIDF: "is of whole texts",
    "frozen-head": "tells classes or numbers",
    "word-features": "is of words that have tags",
    ZERO_SHOT: "is the head that head.prompts makes",
}
OF_STAGE = {
    "text": {
        "word_dropout",
        "word_deletion",
        "word_swap",
        "adversary",
        "masked-language-modelling",
        "replaced-token-detection",
        "next-sentence-prediction",
        "span-corruption",
    },
    "image": {"crop", "flip", "colour", "rand", "mixup", "cutmix", "adversary", PAIRS},
    "audio": {"noise", "gain", "shift", "mask"},
}


def check_recipe(recipe: "Recipe") -> None:
    """Raise ValueError for the first thing that does not go with another."""
    read = recipe.input.modality
    if not recipe.problem_type.startswith(f"{read}-"):
        raise ValueError(f"problem_type {recipe.problem_type} does not go with input.{read}")
    _check_modality(recipe, read)
    _check_evaluation(recipe)
    _check_writing(recipe)
    _check_auxiliary(recipe)
    _check_words(recipe)
    _check_prompts(recipe)
    holding = [stage.name for stage in recipe.every_stage if stage.ewc]
    if holding and recipe.start.origin == "checkpoint":
        raise ValueError(f"stage {holding[0]!r}: ewc holds what a champion knows: say `start: {{from: champion}}`")


def _check_auxiliary(recipe: "Recipe") -> None:
    """Raise ValueError for auxiliary rows that can't be read or learnt from as the recipe says."""
    known = {each.name: each for each in recipe.auxiliary}
    distinct(recipe.sources)
    for each in recipe.auxiliary:
        target = recipe.learnt_of(each)
        if target is not None and each.label is not None:
            check_label(each.label, target)
        if len(recipe.columns_of(each)) != len(recipe.input.columns):
            raise ValueError(
                f"auxiliary {each.name!r}: a row is read by {len(recipe.input.columns)} columns, as in `input`"
            )
        if each.caption is not None and recipe.input.modality != "image":
            raise ValueError(f"auxiliary {each.name!r}: a caption is of pictures")
        if each.caption in recipe.columns_of(each):
            raise ValueError(f"auxiliary {each.name!r}: column {each.caption!r} holds the pictures: name another")
    _check_captions(recipe)
    for stage in recipe.every_stage:
        unknown = sorted(set(stage.auxiliary) - known.keys())
        if unknown:
            raise ValueError(f"stage {stage.name!r}: no auxiliary rows are called {unknown[0]!r}")
        unlabelled = [name for name in stage.auxiliary if known[name].label is None]
        if unlabelled and stage.objective == "classification":
            raise ValueError(f"stage {stage.name!r}: auxiliary rows {unlabelled[0]!r} have no label to learn")


def _check_captions(recipe: "Recipe") -> None:
    """Raise ValueError for stages that learn from captions where there are none, or that leave no classifier."""
    captioned = {each.name for each in recipe.auxiliary if each.caption is not None}
    for stage in recipe.every_stage:
        bare = sorted(set(stage.auxiliary) & {each.name for each in recipe.auxiliary} - captioned)
        if stage.objective == PAIRS and bare:
            raise ValueError(f"stage {stage.name!r}: auxiliary rows {bare[0]!r} have no caption to learn from")
    warm = recipe.warm_stages if recipe.start.origin == "champion" else ()
    for stage in warm:
        if stage.objective == PAIRS:
            problem = (
                f"{PAIRS} needs the tower of texts, of which a champion keeps nothing: name others in start.stages"
            )
            raise ValueError(f"start: stage {stage.name!r}: {problem}")
    if recipe.stages[-1].objective == PAIRS and not recipe.head.prompts:
        raise ValueError(f"the last stage has to train a classifier: {PAIRS} makes one of head.prompts alone")


def _check_prompts(recipe: "Recipe") -> None:
    """Raise ValueError for what does not go with a head that is made of texts."""
    if not recipe.head.prompts:
        return
    if recipe.problem_type != "image-classification":
        raise ValueError(f"head.prompts tells one class of several by its text, in pictures: not {recipe.problem_type}")
    strange = sorted(recipe.head.names.keys() - set(recipe.classes))
    if strange:
        raise ValueError(f"head.names: no class is called {strange[0]!r}")
    for stage in recipe.every_stage:
        if stage.head_start != "keep":
            raise ValueError(f"stage {stage.name!r}: head_start is for a head of layers; that of prompts is kept")


def _check_modality(recipe: "Recipe", read: str) -> None:
    """Raise ValueError for what is said of rows of another kind than the recipe's."""
    for stage in recipe.every_stage:
        asked = set(stage.augment.model_dump(exclude_defaults=True))
        if stage.adversary is not None:
            asked.add("adversary")
        asked.add(stage.objective)
        foreign = min(asked & set().union(*OF_STAGE.values()) - OF_STAGE[read], default=None)
        if foreign is not None:
            kinds = " and ".join(NOUNS[kind] for kind, keys in OF_STAGE.items() if foreign in keys)
            raise ValueError(f"stage {stage.name!r}: {foreign} is for {kinds}")
        if read == "image" and stage.adversary is not None and stage.adversary.epsilon >= 1:
            raise ValueError(
                f"stage {stage.name!r}: adversary.epsilon is what each pixel of a picture changes at most, as a share "
                f"of its range; expected one below 1, such as 0.03, not {stage.adversary.epsilon:g}"
            )


def check_baselines(recipe: "Recipe", baselines: Sequence[str]) -> None:
    """Raise ValueError for one that tells something else than the recipe's model does."""
    for name in baselines:
        if name not in recipe.baselines:
            known = ", ".join(recipe.baselines)
            raise ValueError(f"{name} {OF_BASELINE[name]}: this recipe can be compared with {known}")


def _check_evaluation(recipe: "Recipe") -> None:
    """Raise ValueError for a baseline that was asked for and does not fit."""
    if "baselines" in recipe.evaluation.model_fields_set:
        try:
            check_baselines(recipe, recipe.evaluation.baselines)
        except ValueError as error:
            raise ValueError(f"evaluation.baselines: {error}") from error


def _check_writing(recipe: "Recipe") -> None:
    """Raise ValueError for what is said of writers where none learns, and of classifiers where one does."""
    of_classifiers = {"input.pooling": recipe.input.pooling, "head": recipe.head.model_fields_set}
    of_writers = {"input.prompt": recipe.input.prompt, "output": recipe.output.model_fields_set}
    refused = [name for name, said in (of_classifiers if recipe.target.is_text else of_writers).items() if said]
    if refused:
        raise ValueError(f"{refused[0]} is not for {recipe.target.known_as}")
    missing = [
        column for column in recipe.input.columns if f"{{{column}}}" not in (recipe.input.prompt or f"{{{column}}}")
    ]
    if missing:
        raise ValueError(f"input.prompt: it does not name {{{missing[0]}}}, which is read")


def _check_words(recipe: "Recipe") -> None:
    """Raise ValueError for what means nothing where each word has a tag."""
    target = recipe.target
    if not target.is_by_word:
        return
    if len(recipe.input.columns) > 1:
        raise ValueError(f"input.text: {target.known_as} is of one text, not of a pair")
    if recipe.input.pooling is not None:
        raise ValueError(f"input.pooling is not for {target.known_as}: each word is told by a state of its own")
    labelled = [each.name for each in recipe.auxiliary if each.label is not None]
    if labelled:
        raise ValueError(f"auxiliary {labelled[0]!r}: no label is learnt beside {target.known_as}")
