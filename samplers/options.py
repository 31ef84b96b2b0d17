"""How samples are drawn: one object that a command makes once and that everything below it takes whole."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class SamplingOptions:
    """The reverse process, and the guidance of its denoiser. None: the default of the sampler, or of the kind of data.

    sampler: a key of registry.sampler_rows.SAMPLERS. sampling_steps: network evaluations, at most. spacing: of the
    steps, a key of SPACINGS. eta: fresh noise of ddim, 0 .. 1. variance: of the noise in ddpm, a key of VARIANCES.
    guidance: the weight w of classifier-free guidance, eps = (1 + w) eps_cond - w eps_uncond. guidance_interval:
    [low, high] of sigma / alpha within which to guide. autoguidance: the weight w of guidance away from an early
    snapshot of the network.
    """

    sampler: str | None = None
    sampling_steps: int | None = None
    spacing: str | None = None
    eta: float = 0.0
    variance: str | None = None
    guidance: float | None = None
    guidance_interval: Sequence[float] | None = None
    autoguidance: float = 0.0

    @property
    def guidance_text(self) -> str:
        """'guidance 1', 'autoguidance 2 at sigma/alpha 0.2 .. 2'; '' without guidance."""
        parts = []
        if self.guidance:
            parts.append(f"guidance {self.guidance:g}")
        if self.autoguidance:
            parts.append(f"autoguidance {self.autoguidance:g}")
        if parts and self.guidance_interval:
            low, high = self.guidance_interval
            parts.append(f"at sigma/alpha {low:g} .. {high:g}")
        return " ".join(parts)

    def as_facts(self) -> dict[str, Any]:
        """The options for metrics.json; spacing and variance only where they were chosen."""
        facts = asdict(self)
        for name in ("spacing", "variance"):
            if facts[name] is None:
                del facts[name]
        return facts
