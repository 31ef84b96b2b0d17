"""Train an epsilon-network: `python train.py`, `python train.py --model linear --num-epochs 50`."""

from conf.entry import command, typed_options  # answers --help before what follows takes its seconds

# isort: split
import math
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from conf.choices import default_epochs
from conf.config import Train
from conf.messages import in_one_line
from conf.resumed import resumed_options
from dataset import DataSet, make_sets
from images.sets import ImageSet
from loss.log import final_loss, read_excess
from metrics.evaluation import (
    Evaluation,
    distinct_rows,
    evaluate_model,
    real_rows_with_labels,
    too_few_for_evaluation,
)
from metrics.results import read_report, score_fields, write_report
from pipeline import check_network
from registry.plugins import include_word
from runtime import checkpoint_file, distributed
from runtime import device as devices
from samplers.options import SamplingOptions
from training import signals, startup_check
from training.callbacks import running_callbacks
from training.resume import restore
from training.run_folder import checkpoint_to_resume, locked_run_folder
from training.state import TrainingState
from viz import style
from viz.column_pictures import save_columns
from viz.evaluation_pictures import save_losses, save_pictures, save_sweep


@command("train", after_sweep=save_sweep)
def main(options: Train, run_folder: Path) -> float:
    """Run one training in its own folder. Returns the last mean loss, for sweepers."""
    style.use(options.style)
    with distributed.process_group(options.device):
        run_folder = distributed.agreed_run_folder(run_folder)
        metrics = begin_or_resume(options, run_folder, typed_options())
    return metrics["loss"]


def begin_or_resume(options: Train, run_folder: Path, typed: set[str]) -> dict[str, Any]:
    """Begin a training in `run_folder`; or continue one, in its own folder and with its options."""
    path = distributed.from_first(lambda: checkpoint_to_resume(options.resume, run_folder))
    if path:
        run_folder = checkpoint_file.run_folder_path(path)
    is_new = not path and distributed.restart_count() == 0

    with locked_run_folder(run_folder, is_new), ExitStack() as stack:
        checkpoint = distributed.from_first(lambda: checkpoint_file.load(path) if path else None)
        if checkpoint and "config" in checkpoint and "optimizers" not in checkpoint:
            raise ValueError(
                f"the checkpoint of {path} cannot be resumed: it lacks 'optimizers', as only a model is kept"
            )
        if checkpoint:
            options = resumed_options(options, typed, checkpoint.get("config"), run_folder)
            check_network(checkpoint, run_folder)
        if options.shards is None:
            options = replace(options, shards=distributed.world_size())
        return train(options, run_folder, stack, checkpoint)


def train(
    options: Train, run_folder: Path, stack: ExitStack, checkpoint: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Train as the options say, save all in `run_folder`, and return the content of metrics.json.

    Args:
        stack: keeps a recording open until it is closed; for a web page that lasts until Ctrl-C.
        checkpoint: of the training that goes on; None for a new one.
    """
    state = set_up(options, run_folder, checkpoint)
    if state.moment.done == state.total:
        earlier = earlier_report(run_folder, state)
        if earlier:
            return earlier
    startup_check.run_check(state)

    with running_callbacks(state, run_folder, stack) as callbacks, signals.caught() as received:
        stop = 0
        state.start_clocks()
        for step, batch in state.remaining_batches():
            lr = learning_rate(step, state.total, options.warmup_steps, options.lr)
            state.learner.learn(state.loss_of, batch, lr)
            stop = signals.agreed(received)
            moment = state.finish_step(lr, interrupted=stop > 0)
            for callback in callbacks:
                callback.after(moment)
            if moment.last:
                break

    if stop or received:
        signals.end(stop or received[0], run_folder, options.viewer, stack)
    return report(options, run_folder, state)


def set_up(options: Train, run_folder: Path, checkpoint: Mapping[str, Any] | None) -> TrainingState:
    """Check the options, read the data, and make everything that the training needs."""
    startup_check.check_options(asdict(options))
    device = devices.choose(options.device)
    dataset = asdict(options.dataset)
    data, unseen = make_sets(n_samples=options.num_samples, seed=options.seed, **dataset)
    if options.num_epochs is None:
        options = replace(options, num_epochs=default_epochs(len(data), options.dataset.name))
    options = with_possible_evaluation(options, unseen)

    config = asdict(options)
    classes = startup_check.classes_to_learn(data, config)
    state = TrainingState.create(config, data, unseen, classes, device)
    if checkpoint:
        state.moment = restore(state.learner, checkpoint, data, state.total, config, run_folder)
    return state


def with_possible_evaluation(options: Train, unseen: DataSet) -> Train:
    """The options, without an evaluation where too few data are held out for one; a line says so."""
    reason = too_few_for_evaluation(unseen)
    if not options.eval_samples or reason is None:
        return options
    print(f"there will be no evaluation: {reason}")
    return replace(options, eval_samples=0)


def learning_rate(step: int, total: int, warmup: int, peak: float) -> float:
    """A linear rise to `peak` over `warmup` steps, then half a cosine down to 0 at `total`."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


# ---------------------------------------------------------------- after the training


def report(options: Train, run_folder: Path, state: TrainingState) -> dict[str, Any]:
    """Evaluate a finished training, and save pictures and metrics.json, whose content is returned.

    The first process does so. The others have done their part, and end.
    """
    distributed.end_other_processes()
    loss = final_loss(run_folder)
    print_summary(options, run_folder, state, loss)
    evaluation = evaluate(options, state) if state.config["eval_samples"] else None

    end = state.moment
    figures = write_report(
        run_folder,
        evaluation,
        state.unseen,
        steps=end.done,
        seconds=end.seconds,
        cpu_seconds=end.cpu_seconds,
        loss=loss,
    )
    draw_pictures(options, run_folder, state, evaluation)
    print(f"next: python inference.py checkpoint={run_folder} {include_word(options.include)}".rstrip())
    return figures


def earlier_report(run_folder: Path, state: TrainingState) -> dict[str, Any] | None:
    """The figures of a training that is resumed after its last step; None if it was not evaluated as asked."""
    earlier = read_report(run_folder)
    is_evaluated = "figures" in earlier or not state.config["eval_samples"]
    if earlier.get("steps") != state.total or not is_evaluated:
        return None

    distributed.end_other_processes()
    print(f"{run_folder} is finished: its {state.total:,} steps are done, and metrics.json holds its figures")
    included = include_word(state.config["include"])
    print(f"to train for longer:   python train.py resume={run_folder} num_epochs=N {included}".rstrip())
    print(f"to evaluate it again:  python evaluate.py checkpoint={run_folder} {included}".rstrip())
    return earlier


def print_summary(options: Train, run_folder: Path, state: TrainingState, loss: float) -> None:
    end = state.moment
    print("training summary")
    print(f"  network   {options.model.name}, {state.pipeline.num_parameters:,} parameters")
    print(f"  training  {end.done:,} steps in {end.seconds:.1f} s ({end.cpu_seconds:.1f} s of CPU)")
    print(f"  loss      {loss:.4f} (mean over the last 5 % of the steps, at random noise levels)")
    excess = read_excess(run_folder)
    if excess:
        above = excess["excess"][-1]
        floor = excess["floor"][-1]
        print(f"  excess    {above:.4f} above the Bayes floor {floor:.4f} (both at fixed noise levels)")
    print(f"  run       {run_folder}")


def evaluate(options: Train, state: TrainingState) -> Evaluation:
    """Sample from the model, and compare the samples with real data."""
    print(f"  evaluation of {evaluated_text(options.eval_samples, state.unseen)}", flush=True)
    begin = time.perf_counter()
    pipeline = state.pipeline.ready(state.pipeline.device)
    evaluation = evaluate_model(
        pipeline,
        state.data,
        state.unseen,
        num_samples=options.eval_samples,
        seed=options.seed,
        options=SamplingOptions(),
    )

    print(f"  evaluated in {time.perf_counter() - begin:.1f} s; metrics.json and pictures follow in the run folder")
    return evaluation


def draw_pictures(options: Train, run_folder: Path, state: TrainingState, evaluation: Evaluation | None) -> None:
    """Save loss.png and the pictures of the evaluation. If one cannot be drawn, a line says so, and the run goes on."""
    with reported("loss.png could not be drawn"):
        save_losses(run_folder / "loss.png", {run_folder.name: run_folder}, options.figures)
    if evaluation is None:
        return
    with reported("not all pictures of the evaluation could be drawn"):
        pipeline = state.pipeline
        real, real_labels = real_rows_with_labels(state.unseen, options.eval_samples, options.seed)
        fields = score_fields(pipeline, state.unseen)
        excess = read_excess(run_folder)
        save_pictures(
            run_folder,
            evaluation,
            real,
            fields,
            excess,
            options.figures,
            pipeline.classes,
            real_labels,
            pipeline.columns,
        )
        save_columns(run_folder, evaluation, state.unseen, options.figures)


@contextmanager
def reported(fault: str) -> Iterator[None]:
    """Print an error of the body in a line instead of raising it."""
    try:
        yield
    except Exception as error:  # whatever it is: metrics.json is written, and no picture is worth more
        print(f"{fault}: {in_one_line(error)}", file=sys.stderr)


def evaluated_text(count: int, unseen: DataSet) -> str:
    """'10,000 samples', or '30 samples, which are compared with the 30 held-out points' of a file."""
    if isinstance(unseen, ImageSet):
        return f"{count:,} samples, which are compared with {len(unseen):,} held-out images"
    if unseen.mixture is not None:
        return f"{count:,} samples"
    held_out = len(distinct_rows(unseen))
    return f"{min(count, held_out):,} samples, which are compared with the {held_out:,} held-out points"


if __name__ == "__main__":
    main()
