"""Samplers, the spacings of their steps, the variances of DDPM, and the defaults of each kind of data."""

from typing import Any, Literal, NamedTuple

Kind = Literal["points", "images"]


class SamplerRow(NamedTuple):
    """A reverse process.

    code: the generator function, as "module:name". evaluations: network evaluations by default; None: one for each of
    the T steps. spacing: how its steps are spaced by default, a key of SPACINGS. options: the sampling options that
    only it reads. evaluations_per_step: at most, except for the last step, which takes one. noisy: it adds fresh noise.
    """

    code: Any
    help: str
    evaluations: int | None
    spacing: str
    options: tuple[str, ...] = ()
    evaluations_per_step: int = 1
    noisy: bool = False


SAMPLERS = {
    "ddpm": SamplerRow(
        "samplers.ancestral:ddpm",
        "ancestral sampling through all T steps",
        evaluations=None,
        spacing="even",
        options=("variance",),
        noisy=True,
    ),
    "ddim": SamplerRow(
        "samplers.ancestral:ddim",
        "deterministic, may skip steps; for schedule=flow it is Euler's method (euler)",
        evaluations=50,
        spacing="even",
        options=("eta",),
    ),
    "dpmpp_2m": SamplerRow(
        "samplers.multistep:dpmpp_2m", "DPM-Solver++(2M), second order", evaluations=50, spacing="log_snr"
    ),
    "dpmpp_3m": SamplerRow(
        "samplers.multistep:dpmpp_3m",
        "DPM-Solver++(3M), second order with a smaller error",
        evaluations=50,
        spacing="log_snr",
    ),
    "dpmpp_2m_sde": SamplerRow(
        "samplers.multistep:dpmpp_2m_sde",
        "DPM-Solver++(2M) with fresh noise, which corrects errors of the network on the way; for points it ends on a"
        " draw of x_0 instead of its mean, for a few more evaluations",
        evaluations=50,
        spacing="log_snr",
        noisy=True,
    ),
    "unipc": SamplerRow("samplers.multistep:unipc", "UniPC of third order", evaluations=25, spacing="angle"),
    "heun": SamplerRow(
        "samplers.heun:heun",
        "Heun's method of second order, two evaluations a step, for 50 or more evaluations",
        evaluations=50,
        spacing="karras",
        evaluations_per_step=2,
    ),
    "heun_sde": SamplerRow(
        "samplers.heun:heun_sde",
        "Heun's method with fresh noise",
        evaluations=50,
        spacing="karras",
        evaluations_per_step=2,
        noisy=True,
    ),
    "adams": SamplerRow(
        "samplers.multistep:adams",
        "Adams-Moulton of third order in arctan(sigma / alpha), for the fewest evaluations",
        evaluations=25,
        spacing="angle",
    ),
}
SAMPLER_ALIASES = {"dpm": "dpmpp_2m", "euler": "ddim"}

VARIANCES = {
    "fixed_small": "posterior variance beta-tilde, exact if x_0 is a point mass",
    "fixed_large": "beta, exact if the data are standard normal",
    "optimal": "the best single number for each step (Analytic-DPM)",
    "exact": "the full covariance at each point, from the derivative of the denoiser; not for images",
}


class SpacingRow(NamedTuple):
    """A quantity in which the sampled steps are evenly spaced.

    code: the function (alpha, sigma) -> quantity, all (T,), as "module:name". counts_clean: the transition to clean
    data, at 0, is one of the equal ones. unbounded: the quantity has no end, so it is cut where nothing changes.
    """

    code: Any
    help: str
    counts_clean: bool = False
    unbounded: bool = False


SPACINGS = {
    "even": SpacingRow("samplers.spacing:step_number", "in t"),
    "trailing": SpacingRow(
        "samplers.spacing:steps_to_clean", "in t, including the step to clean data", counts_clean=True
    ),
    "log_snr": SpacingRow(
        "samplers.spacing:log_snr", "in log-SNR, where sigma / alpha lies in 0.01 .. 20", unbounded=True
    ),
    "karras": SpacingRow("samplers.spacing:karras", "in (sigma / alpha)^(1/7), in the same range", unbounded=True),
    "angle": SpacingRow("samplers.spacing:angle", "in arctan(sigma / alpha)^0.4", counts_clean=True),
}


class SamplingDefaults(NamedTuple):
    """How a kind of data is sampled where the user does not say.

    sampling_steps: None is the sampler's own number. guidance: of a conditional model, at noise levels sigma / alpha
    within guidance_interval; an unconditional model has none.
    """

    sampler: str
    sampling_steps: int | None
    guidance: float
    guidance_interval: tuple[float, float] | None = None


SAMPLING: dict[Kind, SamplingDefaults] = {
    "points": SamplingDefaults("dpmpp_2m_sde", None, 0.0),
    # guided at the noise levels at which the content of an image is decided: docs/tried.md
    "images": SamplingDefaults("dpmpp_2m_sde", 25, 0.3, (0.5, 5.0)),
}
