"""An entry of another library: the files of the task `samplers`, by DPM-Solver++(2M) of Hugging Face's diffusers.

Run as `python -m benchmarks.board_with_diffusers outputs/diffusers` in the root of the repository, and then
`python benchmarks/board.py submit=outputs/diffusers name="diffusers DPM-Solver++(2M)"`. requirements/diffusers.txt
installs diffusers. The solver takes the timesteps of our own `dpmpp_2m`, so that both must tie.
"""

import argparse
from pathlib import Path

import torch
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from torch import Tensor

from benchmarks.board_entries import VERSION_FILE
from benchmarks.board_tasks import SCHEDULER, TASKS, VERSION, Start, start
from runtime.atomic_file import save_array
from runtime.progress import progress_bar
from samplers.spacing import spaced_timesteps


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Write samples by DPM-Solver++(2M) of diffusers for the task samplers of the board."
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the folder of the entry")
    args = parser.parse_args()

    torch.set_num_threads(1)
    cells = TASKS["samplers"].cells
    (args.folder / "samplers").mkdir(parents=True, exist_ok=True)
    for cell in progress_bar(cells, "samples", len(cells)):
        assert cell.evaluations is not None
        begin = start(cell)
        x_0 = solved(begin, cell.evaluations)
        save_array(args.folder / f"{cell.label}.npy", begin.normaliser.denormalise(x_0).numpy())
    (args.folder / VERSION_FILE).write_text(f"{VERSION}\n")


def solved(begin: Start, evaluations: int) -> Tensor:
    """Samples (n, d) in normalised units, with that many evaluations of the exact denoiser."""
    theirs = DPMSolverMultistepScheduler(
        num_train_timesteps=SCHEDULER.num_timesteps,
        trained_betas=SCHEDULER.betas.numpy(),
        algorithm_type="dpmsolver++",
        solver_order=2,
        solver_type="midpoint",
        lower_order_final=False,
    )
    theirs.set_timesteps(timesteps=spaced_timesteps(SCHEDULER, evaluations, "log_snr"))
    x = begin.x_T
    for t in theirs.timesteps:
        eps = begin.denoise(x, t).eps
        (x,) = theirs.step(eps, int(t), x, return_dict=False)
    return x


if __name__ == "__main__":
    main()
