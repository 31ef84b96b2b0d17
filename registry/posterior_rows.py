"""Posterior samplers: how samples are drawn given an observation y = A x_0 + noise."""

from typing import Any, NamedTuple


class MethodRow(NamedTuple):
    """A posterior sampler.

    code: either a covariance that Cov[x_0 given x_t] is approximated by (`sampler` then draws the samples with the
    conditioned denoiser), or a sampler of its own (`sampler` None), as "module:name".
    steps: of the process; None: all T. evaluations: of the denoiser at each step. eta: of ddim. weighted: the rows are
    resampled by weights, so that all rows must share one observation. for_images: it also works for images.
    """

    code: Any
    help: str
    steps: int | None
    sampler: str | None = None
    spacing: str = "even"
    evaluations: int = 1
    eta: float = 0.0
    weighted: bool = False
    for_images: bool = True


METHODS = {
    "dps": MethodRow(
        "samplers.posterior:dps", "assumes that the prediction of x_0 is exact", steps=None, sampler="ddpm"
    ),
    "pigdm": MethodRow("samplers.posterior:pigdm", "assumes standard normal data", steps=100, sampler="ddim", eta=1.0),
    "mmps": MethodRow(
        "samplers.posterior:mmps",
        "takes the covariance of x_0 from the denoiser's Jacobian",
        steps=100,
        sampler="ddim",
        eta=1.0,
    ),
    "repaint": MethodRow(
        "samplers.posterior:repaint", "overwrites what is known, ten times a step", steps=100, evaluations=10
    ),
    "tds": MethodRow(
        "samplers.posterior:tds",
        "weighted particles, exact for many samples",
        steps=200,
        spacing="log_snr",
        evaluations=4,
        weighted=True,
    ),
    "sir": MethodRow(
        "samplers.posterior:sir",
        "the model's own samples, resampled by how well they fit; not for images",
        steps=50,
        spacing="log_snr",
        evaluations=50,
        weighted=True,
        for_images=False,
    ),
}
