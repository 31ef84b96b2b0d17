"""What inference.py does instead of sampling: conditioning on an observation, the guidance sheet, flow lines.

Each mode declares its own options, and which of the other options it uses. The rest is refused: none is ignored.
"""

from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from conf.choices import MASKS
from conf.include import Included
from conf.machine import Machine
from conf.option import option
from conf.pictures import Pictures
from registry.posterior_rows import METHODS


def _method_help() -> str:
    parts = [f"{name}: {row.help}" for name, row in METHODS.items()]
    return f"posterior sampler; {'; '.join(parts)}; default: sir for points, pigdm for images"


@dataclass
class Observed:
    """conditioning on an observation"""

    observe: str | None = option(
        None,
        "sample given an observation; for points a coordinate or a line in data units, y=0.2 or 2x-y=0.3 (every method"
        " is then compared with the exact posterior, where that is known); for a file its columns by name, carat=1 or"
        f" 2*carat-price=0.3; for images {', '.join(f'mask:{name}' for name in MASKS)}",
    )
    observe_noise: float | None = option(
        None,
        "standard deviation of the noise in the observation, in data units; default: 0.05; for points of a file 0.05"
        " standard deviations of what is observed",
        above=0,
        high=1e100,
    )
    observe_method: str | None = option(None, _method_help(), choices=METHODS)
    observe_image: int = option(0, "which of the held-out images is observed; the next seven follow", low=0)


@dataclass
class GuidanceSheet:
    """guidance sheet"""

    guidance_sheet: bool = option(
        False,
        "instead of sampling: the distribution that guidance claims beside the one that it samples, for w from 0 to 8"
        " and conditional points",
    )


@dataclass
class FlowLines:
    """flow lines"""

    flow: bool = option(
        False,
        "instead of sampling: flow lines of points, the paths of a sampler without noise (default here: 1,400 by adams"
        " with 200 evaluations), coloured by where they end, in flow.png and flow_square.png and as films;"
        " flow_exact.png: beside those of the exact denoiser",
    )


class Mode(NamedTuple):
    """What inference.py does instead of sampling.

    switch: the option that asks for it. options: the dataclass that declares its options. uses: the names of the other
    options that it uses. refusal: the beginning of the sentence that refuses an option that it does not use.
    """

    switch: str
    options: type
    uses: set[str]
    refusal: str


def option_names(*declared: type) -> set[str]:
    """The names of the options of these dataclasses."""
    return {f.name for each in declared for f in fields(each)}


NO_RECORDING = {"rerun", "viewer", "port"}  # of a recording, which no mode makes
OWN_SAMPLING = (
    "observe and guidance_sheet choose sampler, labels and guidance themselves, and make no recording: leave out"
)
SAMPLING_OPTIONS = {
    "checkpoint", "dataset", "num_samples", "labels", "sampler", "sampling_steps", "spacing", "variance", "eta",
    "guidance", "guidance_interval", "autoguidance",
}  # fmt: skip
MODES = (
    Mode(
        "observe",
        Observed,
        option_names(Included, Machine, Pictures) | NO_RECORDING | {"checkpoint", "dataset", "num_samples"},
        OWN_SAMPLING,
    ),
    Mode(
        "guidance_sheet",
        GuidanceSheet,
        option_names(Included, Machine, Pictures)
        | NO_RECORDING
        | {"checkpoint", "dataset", "num_samples", "guidance_interval"},
        OWN_SAMPLING,
    ),
    Mode(
        "flow",
        FlowLines,
        option_names(Included, Machine) | NO_RECORDING | SAMPLING_OPTIONS | {"animation", "figures"},
        "flow=true draws flow lines on a dark ground and nothing else: leave out",
    ),
)


def chosen_mode(options: Any) -> str | None:
    """The switch of the mode that the options of inference.py ask for; None: plain sampling.

    Raises:
        ValueError: two modes, an option of a mode that is not asked for, or one that the mode would ignore.
    """
    defaults = type(options)()
    given = sorted(f.name for f in fields(options) if getattr(options, f.name) != getattr(defaults, f.name))
    chosen = [mode for mode in MODES if mode.switch in given]
    if len(chosen) > 1:
        raise ValueError(f"{chosen[0].switch} and {chosen[1].switch} are two things: ask for one of them")

    for mode in MODES:
        if mode in chosen:
            continue
        stray = [name for name in given if name in option_names(mode.options)]
        if stray:
            raise ValueError(f"{stray[0]} belongs to {mode.switch}: give {mode.switch}=y=0.2, say, as well")
    if not chosen:
        return None

    mode = chosen[0]
    ignored = [name for name in given if name not in mode.uses | option_names(mode.options)]
    if ignored:
        raise ValueError(f"{mode.refusal} {' and '.join(ignored)}")
    return mode.switch
