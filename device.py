"""Which device computes, and with how many CPU threads."""

import torch


def choose(device: str, threads: int | None) -> torch.device:
    """Set the CPU threads and return the device; "auto" takes a GPU where there is one.

    Raises:
        ValueError: this machine or this build of torch has no such device.
    """
    # Points, small networks: a second thread waits in spinning barriers and is far slower on a busy machine.
    torch.set_num_threads(threads or 1)
    if device == "auto":
        found = torch.accelerator.current_accelerator()
        return found if found is not None and torch.accelerator.is_available() else torch.device("cpu")
    try:
        chosen = torch.device(device)
        torch.zeros(1, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"device={device} cannot be used here; try device=cpu") from error
    return chosen
