"""What can be chosen by name, and defaults that depend on the data: tables without torch, from which `--help` is made.

tests/test_conf.py holds each of them equal to the registry that does the work (schedule.SCHEDULES and so on).
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

Kind = Literal["points", "images"]

SCHEDULES = {
    "linear": "beta grows linearly",
    "scaled_linear": "the square root of beta does, so that beta is quadratic",
    "cosine": "alpha-bar is a squared cosine",
    "sigmoid": "alpha-bar is a sigmoid",
    "flow": "flow matching, a straight line from data to noise",
}
SCHEDULE_ALIASES = {"quadratic": "scaled_linear"}
TARGETS = {
    "eps": "the noise",
    "v": "alpha eps - sigma x_0",
    "x0": "the clean data",
    "velocity": "that of the flow, eps - x_0",
}
LOSS_WEIGHTS = {
    "target": "the error of what the network predicts counts evenly over the steps",
    "eps": "that of the noise does",
    "v": "that of v does",
    "min_snr": "steps with little noise count less",
    "logit_normal": "that of the flow's velocity counts, most in the middle, as if t were drawn logit-normally",
}
OPTIMIZERS = {"muon": "Muon for the weights between hidden layers, AdamW for the rest", "adamw": "AdamW for all"}

MASKS = ("left", "right", "top", "bottom", "centre")
METHODS = {
    "dps": "the guess of x_0 counts as certain",
    "pigdm": "as certain as of standard normal data",
    "mmps": "as certain as the denoiser's Jacobian says",
    "repaint": "overwrites what is known, ten times a step",
    "tds": "weighted particles, exact for many samples",
    "sir": "the model's own samples, drawn again by how well they fit; not for images",
}

# ---------------------------------------------------------------- training

# Points that are learnt from in all, each counted every time; moons are the easiest set, and few files are large.
LEARNT, LEARNT_OF = 6_400_000, {"moons": 2_000_000, "file": 2_000_000}
MOST_EPOCHS = 100  # of few points


def default_epochs(num_rows: int, dataset: str) -> int:
    """Passes over so many points of the data set of that name."""
    return max(1, min(MOST_EPOCHS, LEARNT_OF.get(dataset, LEARNT) // num_rows))


# ---------------------------------------------------------------- sampling


class SamplerChoice(NamedTuple):
    meaning: str
    steps: int | None  # network evaluations where nobody says how many; None: all T


SAMPLERS = {
    "ddpm": SamplerChoice("ancestral sampling through all T steps", None),
    "ddim": SamplerChoice("deterministic, skips steps; for a flow it is Euler's method (euler)", 50),
    "dpmpp_2m": SamplerChoice("DPM-Solver++(2M), second order", 50),
    "dpmpp_3m": SamplerChoice("its 3M, in fact of second order with a smaller error", 50),
    "dpmpp_2m_sde": SamplerChoice(
        "its 2M with fresh noise, which heals what a network gets wrong on the way; of points it ends on a draw of x_0,"
        " not on its mean, for a few evaluations more",
        50,
    ),
    "unipc": SamplerChoice("UniPC of third order", 25),
    "heun": SamplerChoice("Heun's method of second order, two evaluations a step, for 50 and more of them", 50),
    "heun_sde": SamplerChoice("the same with fresh noise", 50),
    "adams": SamplerChoice("Adams-Moulton of third order in arctan(sigma / alpha), for the fewest evaluations", 25),
}
SAMPLER_ALIASES = {"dpm": "dpmpp_2m", "euler": "ddim"}
VARIANCES = {
    "fixed_small": "that of data in one point",
    "fixed_large": "that of normally distributed data",
    "optimal": "the best single number for each step (Analytic-DPM)",
    "exact": "the full covariance at each point, from the derivative of the denoiser; not for images",
}
SPACINGS = {
    "even": "in t",
    "trailing": "in t, as is the step to clean data",
    "log_snr": "in log-SNR, where sigma / alpha lies in 0.01 .. 20",
    "karras": "in (sigma / alpha)^(1/7), also there",
    "angle": "in arctan(sigma / alpha)^0.4",
}


class SamplingDefaults(NamedTuple):
    """How a kind of data is sampled where the user does not say.

    sampling_steps: None is the sampler's own number; another is for samplers that can skip steps. guidance: of a
    conditional model, at noise sigma / alpha within guidance_interval; there is none for an unconditional one.
    """

    sampler: str
    sampling_steps: int | None
    guidance: float
    guidance_interval: tuple[float, float] | None = None


SAMPLING: dict[Kind, SamplingDefaults] = {
    "points": SamplingDefaults("dpmpp_2m_sde", None, 0.0),
    # guided at the noise at which it is decided what an image shows: docs/tried.md
    "images": SamplingDefaults("dpmpp_2m_sde", 25, 0.3, (0.5, 5.0)),
}
NUM_SAMPLES: dict[str, dict[Kind, int]] = {
    "inference": {"points": 2000, "images": 100},
    "evaluate": {"points": 10_000, "images": 2000},
    "compare": {"points": 4000, "images": 200},  # by each sampler
}

# ---------------------------------------------------------------- the same in words


def meanings(table: dict[str, str]) -> str:
    """'eps: the noise; v: the velocity; ...'"""
    return "; ".join(f"{name}: {meaning}" for name, meaning in table.items())


def default_length() -> str:
    """'default: so many that 6.4 million points are learnt from in all, 2 million of moons, ...; but at most 100'"""
    of = ", ".join(f"{count / 1e6:g} million of {name}" for name, count in LEARNT_OF.items())
    points = f"{LEARNT / 1e6:g} million points are learnt from in all, {of}"
    return f"default: so many that {points}; but at most {MOST_EPOCHS}"


def by_kind(values: Mapping[Kind, object]) -> str:
    """'default: 2000 for points, 100 for images', or 'default: ddpm' for both"""
    each = {*values.values()}
    return "default: " + (f"{each.pop()}" if len(each) == 1 else ", ".join(f"{v} for {k}" for k, v in values.items()))


def default_sampling(which: str) -> str:
    """'default: 0.0 for points, 0.3 for images'"""
    return by_kind({kind: getattr(row, which) for kind, row in SAMPLING.items()})


def default_steps() -> str:
    """'default: T for ddpm, ... 50 for dpmpp_2m_sde ...; for images 25'"""
    own = ", ".join(f"{row.steps or 'T'} for {name}" for name, row in SAMPLERS.items())
    kinds = [f"for {kind} {row.sampling_steps}" for kind, row in SAMPLING.items() if row.sampling_steps]
    return "; ".join([f"default: {own}", *kinds])
