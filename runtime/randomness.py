"""Randomness as a function of (seed, purpose, index): nothing to save, nothing that depends on what ran before."""

import zlib

import numpy as np
import torch


def integer_seed(seed: int, purpose: str, index: int = 0) -> int:
    """A 63-bit seed of its own for each (seed, purpose, index), through numpy.random.SeedSequence."""
    sequence = np.random.SeedSequence([seed, zlib.crc32(purpose.encode()), index])
    return int(sequence.generate_state(1, np.uint64)[0] >> 1)


def generator(seed: int, purpose: str, index: int = 0, device: str | torch.device = "cpu") -> torch.Generator:
    """A torch.Generator for one purpose ("order", "noise", "sampling" ...) and one step of it."""
    return torch.Generator(device).manual_seed(integer_seed(seed, purpose, index))
