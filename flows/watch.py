"""Looks at what has landed for recipes, and starts their trainings."""

from pathlib import Path

from prefect import flow

from graftwork.monitoring.landing import Watched
from graftwork.recipe import find_root
from graftwork.settings import use_home
from tasks.watch import look_around


@flow(name="watch", persist_result=False, validate_parameters=True)
def watch(recipes: list[str], looks: int = 1, every_s: float = 15.0, is_whole: bool = False) -> dict[str, Watched]:
    """Look at the sources of each recipe, so many times; what the last looks found, by the recipe's name.

    recipes: paths of recipe files of one project. every_s: seconds from one round of looks to the next. is_whole:
    whoever handed files in knows that they are whole, so that no quiet time has to pass.
    """
    use_home(find_root(Path(recipes[0])))
    return look_around(recipes, looks, every_s, is_whole)
