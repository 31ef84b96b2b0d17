"""What can be chosen by name, and the defaults of sampling: plain tables without torch, from which `--help` is made.

tests/test_conf.py holds each of them equal to the registry that does the work (schedule.SCHEDULES and so on).
"""

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

# ---------------------------------------------------------------- sampling


class SamplerChoice(NamedTuple):
    meaning: str
    steps: int | None  # network evaluations where nobody says how many; None: all T
    of_flow: int | None = None  # the same with schedule=flow


SAMPLERS = {
    "ddpm": SamplerChoice("ancestral sampling through all T steps", None),
    "ddim": SamplerChoice("deterministic, skips steps; for a flow it is Euler's method (euler)", 50),
    "dpmpp_2m": SamplerChoice("DPM-Solver++(2M), second order", 50),
    "dpmpp_3m": SamplerChoice("its 3M, in fact of second order with a smaller error", 50),
    "dpmpp_2m_sde": SamplerChoice(
        "its 2M with fresh noise, which heals what a network gets wrong on the way; of points it ends on a draw of x_0,"
        " not on its mean, for a few evaluations more",
        50,
        100,
    ),
    "unipc": SamplerChoice("UniPC of third order", 25),
    "heun": SamplerChoice("Heun's method of second order, two evaluations a step, for 50 and more of them", 51),
    "heun_sde": SamplerChoice("the same with fresh noise", 51),
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
    "log_snr": "in log-SNR",
    "karras": "in (sigma / alpha)^(1/7)",
    "angle": "in arctan(sigma / alpha)^0.4",
}


class SamplingDefaults(NamedTuple):
    """How a command samples where the user does not say.

    sampling_steps: None is the sampler's own number; another is for samplers that can skip steps. guidance: of a
    conditional model, at noise sigma / alpha within guidance_interval; there is none for an unconditional one.
    spacing: of this sampler's steps; None is its own, and that of others.
    """

    sampler: str
    sampling_steps: int | None
    guidance: float
    num_samples: int
    guidance_interval: tuple[float, float] | None = None
    spacing: str | None = None


OF_POINTS = SamplingDefaults("dpmpp_2m_sde", None, 0.0, 2000)
# guided at the noise at which it is decided what an image shows: docs/records.md
OF_IMAGES = SamplingDefaults("dpmpp_2m_sde", 25, 0.35, 100, (0.5, 5.0), "even")
SAMPLING_DEFAULTS: dict[str, dict[Kind, SamplingDefaults]] = {
    "inference": {"points": OF_POINTS, "images": OF_IMAGES},
    "evaluate": {"points": OF_POINTS._replace(num_samples=10_000), "images": OF_IMAGES._replace(num_samples=2000)},
}

NUM_COMPARED: dict[Kind, int] = {"points": 4000, "images": 200}  # samples by each sampler that compare.py compares

# ---------------------------------------------------------------- the same in words


def meanings(table: dict[str, str]) -> str:
    """'eps: the noise; v: the velocity; ...'"""
    return "; ".join(f"{name}: {meaning}" for name, meaning in table.items())


def default_by_kind(command: str, which: str) -> str:
    """'default: ddpm for points, ddim for images', or 'default: ddpm' for both"""
    values = {kind: getattr(row, which) for kind, row in SAMPLING_DEFAULTS[command].items()}
    each = {*values.values()}
    return "default: " + (f"{each.pop()}" if len(each) == 1 else ", ".join(f"{v} for {k}" for k, v in values.items()))


def default_steps(command: str) -> str:
    """'default: T for ddpm, ... 50 for dpmpp_2m_sde (100 with schedule=flow) ...; for images 25'"""
    own = ", ".join(
        f"{row.steps or 'T'} for {name}" + f" ({row.of_flow} with schedule=flow)" * bool(row.of_flow)
        for name, row in SAMPLERS.items()
    )
    kinds = [f"for {kind} {row.sampling_steps}" for kind, row in SAMPLING_DEFAULTS[command].items() if row[1]]
    return "; ".join([f"default: {own}", *kinds])
