"""Options of the machine that computes, and of the seed."""

from dataclasses import dataclass

from conf.option import option


@dataclass
class Seeded:
    """machine"""

    seed: int = option(
        0, "seed of all random numbers; the same seed on the same machine gives the same result to the last bit", low=0
    )


@dataclass
class Machine(Seeded):
    """machine"""

    device: str = option("auto", "device of the network, such as cpu, cuda, cuda:1, mps; auto: a GPU if there is one")
    threads: int | None = option(
        None, "CPU threads; default: 1 for points, where more threads rarely help, and all cores for images", low=1
    )
    precision: str = option(
        "auto",
        "number format inside the network; auto: bf16 for images on a GPU, or on a CPU with units for it, else fp32",
        choices=("auto", "fp32", "bf16"),
    )
