"""Kinds of values that several documents hold: counts, amounts, names, lengths of time, places elsewhere."""

import re
from datetime import timedelta
from pathlib import PurePosixPath
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer

from graftwork.errors import Problem, RecipeError

DURATION = re.compile(r"(\d+) ?([smhd])")
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
# Protocols of fsspec for buckets, and what has to be installed for each. Of others, listings leave out what fails.
PROTOCOLS = {"s3": "graftwork[s3]", "gs": "gcsfs", "az": "adlfs", "abfs": "adlfs"}


def duration_of(text: str, where: str) -> timedelta:
    """A length of time as people write it: 10m, 30d. Raises RecipeError, which names where it was written."""
    try:
        found: timedelta = _duration(text)
    except ValueError as error:
        raise RecipeError(Problem(f"{error}, found {text!r}", where)) from error
    return found


def _duration(value: Any) -> Any:
    match = DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("expected a whole number and s, m, h or d, as in 10m")
    return timedelta(seconds=int(match[1]) * SECONDS[match[2]])


def _as_seconds(length: timedelta) -> str:
    return f"{int(length.total_seconds())}s"


def _check_url(url: str) -> str:
    """The URL without a slash at its end. Raises ValueError if it is none that data can land at."""
    scheme, _, place = url.partition("://")
    if scheme not in PROTOCOLS:
        raise ValueError(f"expected a URL that begins with one of {', '.join(f'{name}://' for name in PROTOCOLS)}")
    if re.search(r":.*@|[?#]|::", place):
        raise ValueError("a URL holds no password and no parameters: credentials are taken from the environment")
    if not re.match(r"[^/]", place) or ".." in PurePosixPath(place).parts:
        raise ValueError("expected a bucket, and a folder there")
    return url.rstrip("/")


# Strict numbers: "3" and true are not numbers, and 2.5 is no count.
Whole = Annotated[int, Field(strict=True, ge=0)]
Count = Annotated[int, Field(strict=True, ge=1)]
Amount = Annotated[float, Field(strict=True, ge=0)]
Rate = Annotated[float, Field(strict=True, gt=0)]
Share = Annotated[float, Field(strict=True, ge=0, lt=1)]
Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
Duration = Annotated[
    timedelta,
    BeforeValidator(_duration, json_schema_input_type=str),
    PlainSerializer(_as_seconds, return_type=str, when_used="json-unless-none"),
]
LandingUrl = Annotated[str, AfterValidator(_check_url)]
