"""Numbers and names as a person says them, for the log, the terminal and the report."""

from collections.abc import Iterable, Mapping

BLOCK = "block."


def duration(seconds: float) -> str:
    """42 s, 3 min 20 s, 1 h 5 min."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def memory(size: float) -> str:
    """Bytes as 812 MiB, 1.21 GiB."""
    mib = size / (1 << 20)
    return f"{mib:.0f} MiB" if mib < 1000 else f"{mib / 1024:.2f} GiB"


def peak_rates(rates: Mapping[str, float]) -> str:
    """Peak learning rates of a stage, lowest and highest; a stage that is solved to its optimum has none."""
    low, high = min(rates.values()), max(rates.values())
    if high == 0:
        return "solved"
    return f"{low:.1e}" if low == high else f"{low:.1e} to {high:.1e}"


def trained_groups(groups: Iterable[str]) -> str:
    """Depth groups, blocks without a gap between them together: embeddings, blocks 0 to 5, head."""
    names = list(groups)
    blocks = [int(name.removeprefix(BLOCK)) for name in names if name.startswith(BLOCK)]
    if len(blocks) < 2 or blocks != list(range(blocks[0], blocks[-1] + 1)):
        return ", ".join(names)
    together = f"blocks {blocks[0]} to {blocks[-1]}"
    return ", ".join(dict.fromkeys(together if name.startswith(BLOCK) else name for name in names))
