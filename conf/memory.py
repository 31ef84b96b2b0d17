"""The memory that the options of a command need at least, against that of this machine."""

import os
from typing import Any

from conf.config import Main, Train

COUNTS = ("num_samples", "eval_samples")  # options that say how many points or images are made
BYTES_PER_SAMPLE = 40  # at least: two coordinates of noise, states and predictions


def check_memory(options: Any) -> None:
    """Raises ValueError where the numbers of samples that are asked for exceed the machine's memory.

    num_samples of a file or of images is not checked, because there are no more than the file or
    the folder holds.
    """
    memory = physical_memory()
    dataset = getattr(options, "dataset", None)
    is_limit = isinstance(options, Train | Main) and dataset is not None and not hasattr(dataset, "embed")
    for name in COUNTS:
        count = getattr(options, name, None)
        if count is None or memory is None or (name == "num_samples" and is_limit):
            continue
        needed = count * BYTES_PER_SAMPLE
        if needed > memory:
            sizes = f"at least {needed / 1e9:,.0f} GB of memory, and this machine has {memory / 1e9:,.0f} GB"
            raise ValueError(f"{name}={count} needs {sizes}")


def physical_memory() -> int | None:
    """The bytes of memory of this machine; None where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return None
