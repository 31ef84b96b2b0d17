"""Which device computes, with how many CPU threads, and in which numbers."""

import os
from collections.abc import Callable

import torch
from torch import Tensor, nn

MOST_THREADS = 64  # where there are fewer cores


def choose(device: str) -> torch.device:
    """The device of that name; "auto" takes a GPU where there is one.

    Raises:
        ValueError: this machine or this build of torch has no such device.
    """
    if device == "auto":
        found = torch.accelerator.current_accelerator()
        return found if found is not None and torch.accelerator.is_available() else torch.device("cpu")
    try:
        chosen = torch.device(device)
        torch.zeros(1, device=chosen).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"device={device} cannot be used here; try device=cpu") from error
    return chosen


def place(net: nn.Module, device: torch.device, channels_last: bool) -> nn.Module:
    """The network on the device. With the channels last convolutions run faster on GPUs, and in fp32 on some CPUs where
    they do not train; in bf16 on CPUs they take 1.4 times as long."""
    layout = torch.channels_last if channels_last else torch.preserve_format
    return net.to(device, memory_format=layout)  # pyright: ignore (the option is documented, but not in torch's types)


def room(device: torch.device) -> int:
    """Bytes of a GPU's memory that the data may take: a quarter. Of other devices none: they lie there anyway."""
    return torch.cuda.get_device_properties(device).total_memory // 4 if device.type == "cuda" else 0


def use_threads(threads: int | None, images: bool) -> None:
    """Set the CPU threads: those asked for; else all cores for images and one for points.

    Raises:
        ValueError: so many that the machine could not start them.
    """
    most = max(MOST_THREADS, os.cpu_count() or 1)
    if threads is not None and not 1 <= threads <= most:
        raise ValueError(
            f"threads must lie in 1..{most} on this machine, which has {os.cpu_count()} cores; got {threads}"
        )
    # Points, small networks: a second thread waits in spinning barriers and is far slower on a busy machine.
    if threads or not images:
        torch.set_num_threads(threads or 1)
    keep_freed_memory()


def keep_freed_memory() -> None:
    """Keep up to 64 MiB that are freed, for what comes next: else Linux is given tensors of some 100 kB back at once,
    and writes zeros into the pages of the next ones, which took a tenth of a training step of points.

    glibc does so once a block of almost 32 MiB has been freed (mallopt(3), M_MMAP_THRESHOLD), which is never touched.
    """
    torch.empty(2**25 - 2**16, dtype=torch.uint8)


def mixed_precision(precision: str, device: torch.device, images: bool) -> bool:
    """Whether the network runs in bf16: "auto" says so for images on a GPU or a CPU that has units for it.

    Raises:
        ValueError: bf16 on a CPU without units for it, where it is ten times slower, or on a GPU without.
    """
    able = has_bf16(device)
    if precision == "bf16" and not able:
        raise ValueError(f"precision=bf16: this {device.type} has no units for it and would be slower; use fp32")
    return precision == "bf16" or (precision == "auto" and able and images)


def has_bf16(device: torch.device) -> bool:
    """Whether it has units for bf16."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def in_bf16(net: nn.Module) -> Callable[..., Tensor]:
    """The same network, whose convolutions and products run in bf16; its weights and its output keep their type."""

    def run(x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        with torch.autocast(x_t.device.type, torch.bfloat16):
            return net(x_t, t, label).to(x_t.dtype)

    return run
