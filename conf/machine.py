"""Options of what computes, and from which seed."""

from dataclasses import dataclass

from conf.option import free, option


@dataclass
class Seeded:
    """machine"""

    seed: int = option(0, "the same seed on the same machine gives the same result to the last bit", low=0)


@dataclass
class Machine(Seeded):
    """machine"""

    device: str = free("auto", "auto: a GPU if there is one; or cpu, cuda, cuda:1, mps ...")
    threads: int | None = free(
        None, "CPU threads; default: 1 for points, where more rarely help, all cores for images", low=1
    )
    precision: str = free(
        "auto",
        "number format inside the network; auto: bf16 for images on a GPU or a CPU that has units for it, else fp32",
        choices=("auto", "fp32", "bf16"),
    )
