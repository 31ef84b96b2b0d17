"""Random numbers as a function of (seed, purpose, index).

No random state needs to be saved to resume a training, and no draw depends on what ran before.
"""

import zlib

import numpy as np
import torch


def integer_seed(seed: int, purpose: str, index: int = 0) -> int:
    """Return a 63-bit seed for one (seed, purpose, index), by numpy.random.SeedSequence.

    Args:
        seed: the seed of the run, at least 0.
        purpose: what the random numbers are for, such as "order" or "noise".
        index: the step, epoch or dimension within that purpose, at least 0.
    """
    purpose_number = zlib.crc32(purpose.encode())
    sequence = np.random.SeedSequence([seed, purpose_number, index])
    bits = sequence.generate_state(1, np.uint64)[0]
    return int(bits >> 1)


def generator(
    seed: int,
    purpose: str,
    index: int = 0,
    device: str | torch.device = "cpu",
) -> torch.Generator:
    """Return a torch.Generator seeded by `integer_seed(seed, purpose, index)`."""
    return torch.Generator(device).manual_seed(integer_seed(seed, purpose, index))
