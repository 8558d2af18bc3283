"""What a checkpoint must have beside its body for a stage to go on with what it was pretrained by."""

from graftwork.errors import Problem, RecipeError
from graftwork.models.beside import Beside
from graftwork.sections.stages import StageSection

PARTS = 2  # of a text, that follow each other


def check_beside(section: StageSection, beside: Beside, where: str) -> None:
    """Raises RecipeError where the stage's objective needs what the checkpoint lacks."""
    place = f"{where}.objective"
    if section.objective == "next-sentence-prediction" and beside.segments < PARTS:
        problem = "this checkpoint does not tell the parts of a text apart: config.json has type_vocab_size: 1"
        raise RecipeError(Problem(problem, place, "masked-language-modelling needs no parts"))
