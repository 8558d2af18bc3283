"""What a checkpoint must have beside its body for a stage to go on with what it was pretrained by."""

from graftwork.errors import Problem, RecipeError
from graftwork.models.beside import PARTS, Beside, sentinel
from graftwork.sections.stages import StageSection


def check_beside(section: StageSection, beside: Beside, max_tokens: int, where: str) -> None:
    """Raises RecipeError where the stage's objective needs what the checkpoint lacks, for texts of so many tokens."""
    place = f"{where}.objective"
    if section.objective == "next-sentence-prediction" and beside.segments < PARTS:
        problem = "this checkpoint does not tell the parts of a text apart: config.json has type_vocab_size: 1"
        raise RecipeError(Problem(problem, place, "masked-language-modelling needs no parts"))
    if section.objective != "span-corruption":
        return
    if not beside.decoder:
        hint = "name the whole checkpoint that it was taken from"
        raise RecipeError(Problem("this checkpoint is an encoder alone: no decoder could tell spans", place, hint))
    needed = most_sentinels(max_tokens, section.hidden_share, section.span)
    if beside.sentinels < needed:
        problem = (
            f"its tokenizer has {beside.sentinels} tokens that stand for spans ({sentinel(0)}, {sentinel(1)} …), and "
            f"{max_tokens} tokens may take {needed}"
        )
        raise RecipeError(Problem(problem, place, "lower hidden_share or input.max_tokens, or raise span"))


def count_spans(tokens: int, share: float, span: float) -> tuple[int, int]:
    """How many of so many tokens are hidden, at least one if there is any; in how many spans, so long on average."""
    hidden = min(tokens, max(1, round(share * tokens)))
    return hidden, min(hidden, max(1, round(hidden / span)), tokens - hidden + 1)


def most_sentinels(tokens: int, share: float, span: float) -> int:
    """How many a text of so many tokens takes at most: one a span, one more where a span lies in two texts, an end."""
    return count_spans(tokens, share, span)[1] + 2
