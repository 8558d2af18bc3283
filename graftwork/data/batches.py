"""Which rows are trained on together, and in which order: a pure function of a seed and the rows' lengths."""

from collections.abc import Sequence

import numpy as np

WINDOW_BATCHES = 50


def epoch_batches(
    lengths: Sequence[int],
    batch_tokens: int,
    seed: Sequence[int],
    least: int = 1,
    rows: Sequence[int] | np.ndarray | None = None,
) -> list[list[int]]:
    """Row indices of each batch of one epoch: every row once, rows of like length together, batches in random order.

    lengths: tokens of each row. A batch, padded to its longest row, holds at most `batch_tokens` (a single longer row
    is a batch of its own). seed: the numbers that name the epoch, such as (seed, stage, epoch). least: rows that each
    batch has, whatever it then holds, as far as there are so many: what is left over joins the batch before it.
    rows: those that the epoch has, where that is not each once.
    Rows are shuffled, sorted by length within windows of about fifty batches, and cut; so batches differ each epoch.
    """
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence(seed)))
    size = np.asarray(lengths)
    order = generator.permutation(len(size) if rows is None else np.asarray(rows))
    window = max(1, int(WINDOW_BATCHES * batch_tokens / max(1.0, size.mean()))) if len(size) else 1
    batches: list[list[int]] = []
    for start in range(0, len(order), window):
        near = order[start : start + window]
        batches += _cut(near[np.argsort(size[near], kind="stable")], size, batch_tokens, least)
    batches = _join(batches, least)
    return [batches[index] for index in generator.permutation(len(batches))]


def sampled_rows(sizes: Sequence[int], power: float) -> list[int]:
    """How many rows an epoch has of each of several sets: in proportion to size ** power, of the first each one.

    With a power of 1 that is all rows of all sets, with 0 as many of each.
    Method: size ** alpha sampling (Arivazhagan et al. 2019, Massively multilingual translation in the wild).
    """
    return [round(sizes[0] * (size / sizes[0]) ** power) for size in sizes]


def copies_of(sizes: Sequence[int], power: float) -> list[int]:
    """How often each set has to be there for an epoch to have as many of its rows as `sampled_rows` says, each once."""
    return [max(1, -(-rows // size)) for size, rows in zip(sizes, sampled_rows(sizes, power), strict=True)]


def sample_sets(sizes: Sequence[int], power: float, seed: Sequence[int]) -> np.ndarray:
    """Indices of the rows that one epoch has of several sets, as many as `sampled_rows` says, each once.

    The sets lie one after the other, and of each as many copies as `copies_of` says, so that a row that comes again is
    another one, which is augmented in its own way. What is left over of a whole set is drawn anew in each epoch.
    """
    chosen, start = [], 0
    sets = zip(sizes, sampled_rows(sizes, power), copies_of(sizes, power), strict=True)
    for place, (size, rows, copies) in enumerate(sets):
        whole = rows // size * size
        generator = np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=(place,))))
        chosen += [start + np.arange(whole), start + whole + generator.permutation(size)[: rows - whole]]
        start += size * copies
    return np.concatenate(chosen)


def deal(rows: Sequence[int], lengths: Sequence[int], processes: int) -> list[list[int]]:
    """Each process's share of the rows: every row once, in the order they came in, about as many tokens for each.

    lengths: tokens of each of these rows. Shares differ by at most the longest row; some are empty where rows are few.
    Method: longest first, each to whoever has least (Graham 1969).
    """
    owners, held = [0] * len(rows), [0] * processes
    for place in sorted(range(len(rows)), key=lambda place: -lengths[place]):
        owners[place] = held.index(min(held))
        held[owners[place]] += lengths[place]
    return [[row for row, owner in zip(rows, owners, strict=True) if owner == rank] for rank in range(processes)]


def _cut(rows: np.ndarray, size: np.ndarray, batch_tokens: int, least: int) -> list[list[int]]:
    """Rows, short ones first, cut into batches under the token budget."""
    batches: list[list[int]] = []
    batch: list[int] = []
    for row in rows.tolist():
        if len(batch) >= least and (len(batch) + 1) * int(size[row]) > batch_tokens:
            batches.append(batch)
            batch = []
        batch.append(row)
    return [*batches, batch] if batch else batches


def _join(batches: list[list[int]], least: int) -> list[list[int]]:
    """The batches, those with fewer rows joined to a neighbour."""
    joined: list[list[int]] = []
    for batch in batches:
        if joined and min(len(batch), len(joined[-1])) < least:
            joined[-1] = joined[-1] + batch
        else:
            joined.append(batch)
    return joined
