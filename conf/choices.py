"""Defaults that depend on the data, and what can be chosen by name, in the words of `--help`.

The rows that can be chosen stand in registry/.
"""

from collections.abc import Mapping

from registry import Row
from registry.sampler_rows import SAMPLERS, SAMPLING, Kind

MASKS = ("left", "right", "top", "bottom", "centre")

# ---------------------------------------------------------------- training

# Points that are learnt from in all, each counted every time; moons are the easiest set, and few files are large.
LEARNT, LEARNT_OF = 3_600_000, {"moons": 800_000, "file": 1_200_000}
MAX_EPOCHS, MAX_EPOCHS_OF = 100, {"file": 400}  # of few points; real tables were underfitted by 100


def default_epochs(num_rows: int, dataset: str) -> int:
    """Passes over so many points of the data set of that name."""
    at_most = MAX_EPOCHS_OF.get(dataset, MAX_EPOCHS)
    return max(1, min(at_most, LEARNT_OF.get(dataset, LEARNT) // num_rows))


# ---------------------------------------------------------------- sampling

NUM_SAMPLES: dict[str, dict[Kind, int]] = {
    "inference": {"points": 2000, "images": 100},
    "evaluate": {"points": 10_000, "images": 2000},
    "compare": {"points": 2000, "images": 200},  # by each sampler
}

# ---------------------------------------------------------------- the same in words


def meanings(table: Mapping[str, Row | str]) -> str:
    """'eps: the noise; v: the velocity; ...'"""
    parts = []
    for name, row in table.items():
        parts.append(f"{name}: {row if isinstance(row, str) else row.help}")
    return "; ".join(parts)


def default_length() -> str:
    """'default: so many that 6.4 million points are learnt from in all, ..., but at most 100 passes, ...'"""
    of = ", ".join(f"{count / 1e6:g} million of {name}" for name, count in LEARNT_OF.items())
    points = f"{LEARNT / 1e6:g} million points are learnt from in all, {of}"
    most_of = ", ".join(f"{count} of a {name}" for name, count in MAX_EPOCHS_OF.items())
    return f"default: so many that {points}, but at most {MAX_EPOCHS} passes, {most_of}"


def by_kind(values: Mapping[Kind, object]) -> str:
    """'default: 2000 for points, 100 for images', or 'default: ddpm' for both"""
    each = {*values.values()}
    return "default: " + (f"{each.pop()}" if len(each) == 1 else ", ".join(f"{v} for {k}" for k, v in values.items()))


def default_sampling(which: str) -> str:
    """'default: 0.0 for points, 0.3 for images'"""
    return by_kind({kind: getattr(row, which) for kind, row in SAMPLING.items()})


def default_steps() -> str:
    """'default: T for ddpm, ... 50 for dpmpp_2m_sde ...; for images 25'"""
    own = ", ".join(f"{row.evaluations or 'T'} for {name}" for name, row in SAMPLERS.items())
    kinds = [f"for {kind} {row.sampling_steps}" for kind, row in SAMPLING.items() if row.sampling_steps]
    return "; ".join([f"default: {own}", *kinds])
