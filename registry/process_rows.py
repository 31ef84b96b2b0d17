"""Noise schedules, prediction targets, loss weights and optimizers."""

from typing import Any, NamedTuple


class ScheduleRow(NamedTuple):
    """A noise schedule. code: its class, as "module:name"; has_betas: it takes beta_start and beta_end."""

    code: Any
    help: str
    has_betas: bool = False


SCHEDULES = {
    "linear": ScheduleRow("schedule:LinearNoiseScheduler", "beta grows linearly", has_betas=True),
    "scaled_linear": ScheduleRow(
        "schedule:ScaledLinearNoiseScheduler",
        "the square root of beta grows linearly, so that beta is quadratic",
        has_betas=True,
    ),
    "cosine": ScheduleRow("schedule:CosineNoiseScheduler", "alpha-bar is a squared cosine"),
    "sigmoid": ScheduleRow("schedule:SigmoidNoiseScheduler", "alpha-bar is a sigmoid"),
    "flow": ScheduleRow("schedule:FlowNoiseScheduler", "flow matching, a straight line from data to noise"),
}
SCHEDULE_ALIASES = {"quadratic": "scaled_linear"}


class TargetRow(NamedTuple):
    """What a network predicts. code: a `diffusion.Target`, as "module:name"."""

    code: Any
    help: str


TARGETS = {
    "eps": TargetRow("diffusion:EPS", "the noise"),
    "v": TargetRow("diffusion:V", "alpha eps - sigma x_0"),
    "x0": TargetRow("diffusion:X_0", "the clean data"),
    "velocity": TargetRow("diffusion:VELOCITY", "the velocity of the flow, eps - x_0"),
}


class WeightRow(NamedTuple):
    """A weight of the loss over the steps.

    quantity: the target whose squared error is weighted; None: the network's own target. code: a function
    scheduler -> factor (T,) by which that error is multiplied, as "module:name".
    """

    quantity: str | None
    code: Any
    help: str


LOSS_WEIGHTS = {
    "target": WeightRow(None, "loss.objective:uniform_factor", "uniform weight on the predicted quantity"),
    "eps": WeightRow("eps", "loss.objective:uniform_factor", "uniform weight on the error of eps"),
    "v": WeightRow("v", "loss.objective:uniform_factor", "uniform weight on the error of v"),
    "min_snr": WeightRow(
        "x0", "loss.objective:min_snr_factor", "min(SNR, 5) on the error of x_0: less weight on steps with little noise"
    ),
    "logit_normal": WeightRow(
        "velocity",
        "loss.objective:logit_normal_factor",
        "on the error of the velocity, most in the middle, as if t were drawn logit-normally",
    ),
}

OPTIMIZERS = {
    "muon": "Muon for the weights between hidden layers, AdamW for the rest",
    "adamw": "AdamW for all weights",
}
