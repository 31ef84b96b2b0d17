"""The device that computes, its CPU threads, and the numerical precision of a network."""

import os
from collections.abc import Callable

import torch
from torch import Tensor, nn

MAX_THREADS = 64  # on a machine with fewer cores; elsewhere the number of cores is the limit
MMAP_THRESHOLD_BYTES = 2**25 - 2**16  # just below 32 MiB, the largest threshold of glibc


# ---------------------------------------------------------------- device


def choose(device: str) -> torch.device:
    """Return the torch device of that name; "auto" is a GPU if there is one, else the CPU.

    Raises:
        ValueError: this machine or this build of torch has no such device.
    """
    if device == "auto":
        accelerator = torch.accelerator.current_accelerator()
        if accelerator is None or not torch.accelerator.is_available():
            return torch.device("cpu")
        return accelerator
    try:
        chosen = torch.device(device)
        torch.zeros(1, device=chosen).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        message = f"device={device} cannot be used here; try device=cpu"
        raise ValueError(message) from error
    return chosen


def place(net: nn.Module, device: torch.device, channels_last: bool) -> nn.Module:
    """Move a network to a device and choose the memory format of its convolutions.

    `channels_last` makes convolutions faster on GPUs, and without gradients in fp32 on some CPUs.
    In bf16 on CPUs it makes them 1.4 times slower.
    """
    layout = torch.channels_last if channels_last else torch.preserve_format
    # torch documents memory_format, but its type stubs lack it.
    return net.to(device, memory_format=layout)  # pyright: ignore


def room_for_data(device: torch.device) -> int:
    """Bytes of a GPU's memory that the data set may occupy: a quarter; 0 for other devices.

    On a CPU the data set is in main memory already, so nothing is copied.
    """
    if device.type != "cuda":
        return 0
    return torch.cuda.get_device_properties(device).total_memory // 4


# ---------------------------------------------------------------- threads and memory


def use_threads(threads: int | None, images: bool) -> None:
    """Set the number of CPU threads; None means all cores for images and one for points.

    Networks for points are small. A second thread waits for them in spinning barriers, and on a
    busy machine two threads are far slower than one.

    Raises:
        ValueError: fewer than one thread, or more than the machine could start.
    """
    limit = max(MAX_THREADS, os.cpu_count() or 1)
    if threads is not None and not 1 <= threads <= limit:
        machine = f"this machine, which has {os.cpu_count()} cores"
        raise ValueError(f"threads must lie in 1..{limit} on {machine}; got {threads}")
    if threads is not None:
        torch.set_num_threads(threads)
    elif not images:
        torch.set_num_threads(1)
    keep_freed_memory()


def keep_freed_memory() -> None:
    """Make glibc keep up to 64 MiB of freed memory for the next allocations.

    By default glibc returns freed tensors of some 100 kB to Linux at once. Linux then fills the
    pages of the next ones with zeros, which took a tenth of a training step of points.

    glibc raises its limit when a block of almost 32 MiB is freed (mallopt(3), M_MMAP_THRESHOLD).
    The block is allocated and freed here without being written, so it occupies no memory.
    """
    torch.empty(MMAP_THRESHOLD_BYTES, dtype=torch.uint8)


# ---------------------------------------------------------------- precision


def mixed_precision(precision: str, device: torch.device, images: bool) -> bool:
    """Decide whether the network runs in bf16.

    Args:
        precision: "fp32", "bf16", or "auto": bf16 for images on a device with bf16 units.
        device: where the network runs.
        images: whether the data is images.

    Raises:
        ValueError: bf16 on a device without units for it. On a CPU it would be ten times slower.
    """
    supported = has_bf16(device)
    if precision == "bf16" and not supported:
        reason = f"this {device.type} has no units for it and would be slower"
        raise ValueError(f"precision=bf16: {reason}; use fp32")
    if precision == "auto":
        return supported and images
    return precision == "bf16"


def has_bf16(device: torch.device) -> bool:
    """Tell whether a device computes bf16 in hardware."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def in_bf16(net: nn.Module) -> Callable[..., Tensor]:
    """Wrap a network so that its convolutions and matrix products run in bf16.

    The weights keep their type, and the output has the type of x_t.

    Returns:
        A function with the network's signature: x_t (B, *dims), t (B,) or (), label (B,) or None.
    """

    def run(x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        with torch.autocast(x_t.device.type, torch.bfloat16):
            return net(x_t, t, label).to(x_t.dtype)

    return run
