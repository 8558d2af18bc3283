"""What a recipe says of a head that is made of texts: of what a tower of texts makes of each class's name."""

from collections.abc import Mapping, Sequence
from typing import Final

PLACE = "{}"  # where the name of a class goes
ZERO_SHOT: Final = "zero-shot"  # the baseline that such a head is before it learns anything


def check_templates(templates: tuple[str, ...]) -> tuple[str, ...]:
    """The templates, if each has one place for a class. Raises ValueError."""
    odd = [each for each in templates if each.count(PLACE) != 1]
    if odd:
        raise ValueError(f'expected a text with {PLACE} where the class goes, such as "a photo of a {PLACE}"')
    return templates


def write_prompts(
    templates: Sequence[str], names: Mapping[str, str], classes: Sequence[str]
) -> tuple[tuple[str, ...], ...]:
    """The prompts of each class. names: of classes that are called otherwise in them."""
    return tuple(tuple(each.replace(PLACE, names.get(name, name)) for each in templates) for name in classes)
