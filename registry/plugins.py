"""Rows that users add from their own files: `register_sampler("mine", fn)` and the functions beside it.

`include=my_ideas.py` runs such a file before the options are made (conf/include.py). What it adds is then known to
`--help`, to every command and to every message. A notebook calls the same functions. Each of them can also be a
decorator: `@register_sampler("mine")` above the function. The code that a row holds is the object itself.
"""

import os
import re
import sys
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any, NamedTuple

from registry.data_rows import POINT_SETS, SETS_OF_FILES, PointsRow
from registry.network_rows import ADOPTED, NETWORKS, NetworkRow
from registry.own_options import own_options
from registry.posterior_rows import METHODS, MethodRow
from registry.process_rows import LOSS_WEIGHTS, SCHEDULE_ALIASES, SCHEDULES, TARGETS, ScheduleRow, TargetRow, WeightRow
from registry.sampler_rows import SAMPLER_ALIASES, SAMPLERS, SPACINGS, SamplerRow, SpacingRow


class MetricRow(NamedTuple):
    """A distance between two sets of points. code: the function; most: points that it uses at most."""

    code: Any
    help: str
    most: int


class CallbackRow(NamedTuple):
    """A callback of a training. code: what makes it."""

    code: Any
    help: str


METRICS: dict[str, MetricRow] = {}  # beside those of metrics/distances.py
CALLBACKS: dict[str, CallbackRow] = {}  # beside those of training/callbacks.py
# The names of all other figures of an evaluation or a comparison.
FIGURES = (
    *("sliced Wasserstein-1", "Wasserstein-2", "classifier accuracy", "energy distance", "energy by label"),
    *("neighbours", "memorised", "masses", "cells", "negative log-density", "strays", "log-density gap"),
    *("error of epsilon", "KL(exact || model)", "Frechet distance", "precision", "recall", "label accuracy"),
)

# The registry of each kind of row, and other names that no row of it may have.
TABLES: dict[str, MutableMapping[str, Any]] = {
    "sampler": SAMPLERS,
    "spacing": SPACINGS,
    "schedule": SCHEDULES,
    "target": TARGETS,
    "loss weight": LOSS_WEIGHTS,
    "network": NETWORKS,
    "point set": POINT_SETS,
    "metric": METRICS,
    "posterior sampler": METHODS,
    "callback": CALLBACKS,
}
OTHER_NAMES: dict[str, tuple[str, ...]] = {
    "sampler": tuple(SAMPLER_ALIASES),
    "schedule": tuple(SCHEDULE_ALIASES),
    "network": tuple(ADOPTED),
    "point set": SETS_OF_FILES,
    "metric": FIGURES,
}
NAME = re.compile(r"[^\W\d]\w*")  # of an option's value: letters, digits and _


class Place(NamedTuple):
    """Where a row was added: the file, as Python knows it, the line, and the name of the module."""

    file: str
    line: int
    module: str


ADDED: dict[tuple[str, str], Place] = {}  # by the kind and the name of the row


class RegistrationError(ValueError):
    """A row cannot be added. The text says in which file and line, and why."""


# ---------------------------------------------------------------- one function for each kind of row


def register_sampler(
    name: str,
    fn: Callable[..., Any] | None = None,
    *,
    help: str = "",
    evaluations: int | None = 50,
    spacing: str = "even",
    evaluations_per_step: int = 1,
    noisy: bool = False,
) -> Any:
    """Add a sampler: `sampler=NAME`, and a row in the table of `compare.py`.

    Args:
        name: its name.
        fn: `fn(denoise, scheduler, x_T, *, timesteps, generator)`, a generator. x_T is noise of shape (B, *dims).
            `denoise(x_t, t)` gives (eps, x_0), both of that shape, at a step t, which may be an int. timesteps: the
            falling steps. generator: of fresh noise. It yields `State(t, x_t, x_0)` for each of the timesteps, and
            then the samples at t = schedule.CLEAN. It runs without gradients.
        help: one line; default: the first line of fn's docstring.
        evaluations: of the denoiser by default; None: one for each step of the process.
        spacing: of the steps by default, a key of registry.sampler_rows.SPACINGS.
        evaluations_per_step: at most, except for the last step, which takes one.
        noisy: whether it adds fresh noise.

    Raises:
        RegistrationError: the name is taken or no name, there is no such spacing, a number of evaluations is none, or
            fn takes other arguments.
    """
    if spacing not in SPACINGS:
        raise _refused(f"the sampler {name} wants an unknown spacing {spacing}: choose one of {', '.join(SPACINGS)}")
    _check_counts("sampler", name, evaluations=evaluations, evaluations_per_step=evaluations_per_step)

    def row(fn: Callable[..., Any], help: str) -> SamplerRow:
        _check_takes("sampler", name, fn, "denoise, scheduler, x_T, *, timesteps, generator")
        return SamplerRow(fn, help, evaluations, spacing, evaluations_per_step=evaluations_per_step, noisy=noisy)

    return _added("sampler", name, fn, help, row)


def register_spacing(
    name: str,
    fn: Callable[..., Any] | None = None,
    *,
    help: str = "",
    counts_clean: bool = False,
    unbounded: bool = False,
) -> Any:
    """Add a spacing of sampling steps: `spacing=NAME`.

    Args:
        name: its name.
        fn: `fn(alpha, sigma)`, both arrays of shape (T,), gives the quantity (T,) in which steps are evenly spaced.
            It must rise or fall from step to step.
        help: one line; default: the first line of fn's docstring.
        counts_clean: the transition to clean data, at 0, is one of the equal ones.
        unbounded: the quantity has no end, so it is cut where nothing changes.

    Raises:
        RegistrationError: the name is taken or no name.
    """
    row = partial(SpacingRow, counts_clean=counts_clean, unbounded=unbounded)
    return _added("spacing", name, fn, help, row)


def register_schedule(
    name: str, fn: Callable[..., Any] | None = None, *, help: str = "", has_betas: bool = False
) -> Any:
    """Add a noise schedule: `schedule=NAME`.

    Args:
        name: its name.
        fn: `fn(num_timesteps)` gives a schedule.NoiseScheduler of so many steps, such as
            `NoiseScheduler(alpha, sigma)` of tensors (T,). With has_betas: `fn(num_timesteps, beta_start, beta_end)`,
            where both betas may be None.
        help: one line; default: the first line of fn's docstring.
        has_betas: it takes beta_start and beta_end.

    Raises:
        RegistrationError: the name is taken or no name.
    """
    return _added("schedule", name, fn, help, partial(ScheduleRow, has_betas=has_betas))


def register_target(name: str, fn: Any = None, *, help: str = "") -> Any:
    """Add a prediction target: `model.prediction=NAME`.

    Args:
        name: its name.
        fn: a diffusion.Target of three functions of tensors that broadcast to (B, *dims):
            value(x_0, eps, alpha, sigma), prediction(output, x_t, alpha, sigma) and error_factor(alpha, sigma).
        help: one line.

    Raises:
        RegistrationError: the name is taken or no name.
    """
    return _added("target", name, fn, help, TargetRow)


def register_loss_weight(
    name: str, fn: Callable[..., Any] | None = None, *, help: str = "", quantity: str | None = None
) -> Any:
    """Add a weight of the loss over the steps: `loss_weight=NAME`.

    Args:
        name: its name.
        fn: `fn(scheduler)` gives the factor of the squared error at each step, a tensor (T,) above 0.
        help: one line; default: the first line of fn's docstring.
        quantity: the target whose squared error is weighted, a key of TARGETS; None: the network's own.

    Raises:
        RegistrationError: the name is taken or no name, or there is no such target.
    """
    if quantity is not None and quantity not in TARGETS:
        raise _refused(f"the loss weight {name} is of an unknown target {quantity}: choose one of {', '.join(TARGETS)}")
    return _added("loss weight", name, fn, help, partial(WeightRow, quantity))


def register_network(
    name: str, fn: Callable[..., Any] | None = None, *, help: str = "", for_images: bool = False
) -> Any:
    """Add a network: `model=NAME`, whose other parameters become options `model.PARAMETER`.

    Args:
        name: its name.
        fn: `fn(dims, num_timesteps, num_labels, **options)`, such as the class itself, gives a torch.nn.Module. dims:
            (d,) for points, (C, H, W) for images. Labels are 0 .. num_labels - 1, and num_labels means "no label"; an
            unconditional network has num_labels = 0. Each option has a default. The module is called as
            `net(x_t, t, label)` with x_t (B, *dims), t (B,) or (), label (B,) or None, and gives (B, *dims). It is
            also made on torch's device "meta", so its __init__ must not read numbers out of tensors.
        help: one line; default: the first line of fn's docstring.
        for_images: it takes images, and otherwise points.

    Raises:
        RegistrationError: the name is taken or no name, or a parameter can be no option.
    """

    def row(fn: Callable[..., Any], help: str) -> NetworkRow:
        return NetworkRow(fn, help, for_images, _options_of("network", name, fn, given=3))

    return _added("network", name, fn, help, row)


def register_points(name: str, fn: Callable[..., Any] | None = None, *, help: str = "", is_exact: bool = True) -> Any:
    """Add a point set: `dataset=NAME`, whose parameters become options `dataset.PARAMETER`.

    Args:
        name: its name.
        fn: with is_exact, `fn(**options)` gives the exact distribution: a points.mixture.GaussianMixture in d
            dimensions, or a list of them, which are the labels and have equal mass. Otherwise
            `fn(num_samples, seed, **options)` gives points (num_samples, d), or these and their labels (num_samples,),
            whole numbers from 0. Each option has a default.
        help: one line; default: the first line of fn's docstring.
        is_exact: the exact distribution is known.

    Raises:
        RegistrationError: the name is taken or no name, or a parameter can be no option.
    """

    def row(fn: Callable[..., Any], help: str) -> PointsRow:
        return PointsRow(fn, help, is_exact, _options_of("point set", name, fn, given=0 if is_exact else 2))

    return _added("point set", name, fn, help, row)


def register_metric(name: str, fn: Callable[..., Any] | None = None, *, help: str = "", most: int = 10_000) -> Any:
    """Add a distance between two sets of points, which evaluations and `compare.py` show beside its floor.

    Args:
        name: its name, which may hold spaces.
        fn: `fn(a, b)` gives a number for two arrays of points, both (n, d).
        help: one line; default: the first line of fn's docstring.
        most: points of each set that it uses at most.

    Raises:
        RegistrationError: the name is taken.
    """
    _check_counts("metric", name, most=most)
    return _added("metric", name, fn, help, partial(MetricRow, most=most))


def register_posterior(
    name: str,
    fn: Callable[..., Any] | None = None,
    *,
    help: str = "",
    steps: int | None = 100,
    spacing: str = "even",
    evaluations: int = 1,
    sampler: str | None = None,
    eta: float = 0.0,
    weighted: bool = False,
    for_images: bool = True,
) -> Any:
    """Add a posterior sampler, for samples given an observation: `observe_method=NAME`.

    Args:
        name: its name.
        fn: `fn(denoise, scheduler, x_T, observation, *, timesteps, generator)`, a generator of States as in
            register_sampler; observation: a samplers.observation.Observation. With `sampler`, fn is instead the
            covariance of x_0 given x_t, `fn(v, transposed, alpha, sigma)`: it multiplies v (B, *dims). See
            samplers/posterior.py.
        help: one line; default: the first line of fn's docstring.
        steps: of the process that it takes; None: all.
        spacing: of these steps, a key of SPACINGS.
        evaluations: of the denoiser at each step.
        sampler: a key of SAMPLERS, which draws the samples with the conditioned denoiser; None: fn draws them.
        eta: of sampler="ddim".
        weighted: rows are resampled by weights, so that all rows must share one observation.
        for_images: it also works for images.

    Raises:
        RegistrationError: the name is taken or no name, or there is no such spacing or sampler.
    """
    for kind, chosen in (("spacing", spacing), ("sampler", sampler)):
        if chosen is not None and chosen not in TABLES[kind]:
            known = ", ".join(TABLES[kind])
            raise _refused(f"the posterior sampler {name} wants an unknown {kind} {chosen}: choose one of {known}")
    _check_counts("posterior sampler", name, steps=steps, evaluations=evaluations)

    def row(fn: Callable[..., Any], help: str) -> MethodRow:
        if sampler is None:
            _check_takes("posterior sampler", name, fn, "denoise, scheduler, x_T, observation, *, timesteps, generator")
        return MethodRow(
            fn,
            help,
            steps=steps,
            sampler=sampler,
            spacing=spacing,
            evaluations=evaluations,
            eta=eta,
            weighted=weighted,
            for_images=for_images,
        )

    return _added("posterior sampler", name, fn, help, row)


def register_callback(name: str, fn: Callable[..., Any] | None = None, *, help: str = "") -> Any:
    """Add a callback, which every training with this file calls after each optimizer step.

    Args:
        name: its name.
        fn: `fn(state, folder)`, such as a class, gives an object with the methods of loss.moments.Callback:
            `after(moment)` after each step, and `close()` at the end. state: a training.state.TrainingState. folder:
            the run folder, a Path. Only the first of several processes makes it.
        help: one line; default: the first line of fn's docstring.

    Raises:
        RegistrationError: the name is taken or no name.
    """
    return _added("callback", name, fn, help, CallbackRow)


# ---------------------------------------------------------------- adding a row


def _added(kind: str, name: str, fn: Any, help: str, row: Callable[..., Any]) -> Any:
    """Add the row `row(code=fn, help=help)`, and return fn; without fn, return a decorator that does so."""
    if not isinstance(name, str):  # a decorator without parentheses gets the function in place of the name
        raise _refused(f'a {kind} needs its name in parentheses, such as ("mine"), and not a {type(name).__name__}')
    if fn is None:
        return lambda fn: _added(kind, name, fn, help, row)
    place = _place()
    is_name = kind == "metric" or NAME.fullmatch(name)
    if not name or not is_name or not name.isprintable():
        raise _refused(f"{name!r} is no name for a {kind}: use letters, digits and _")
    is_cell = place.module == "__main__" and (kind, name) in ADDED and ADDED[kind, name].module == "__main__"
    if is_cell:  # a notebook runs a cell again, in which the function may have changed
        del TABLES[kind][name]
    if name in TABLES[kind] or name in OTHER_NAMES.get(kind, ()):
        raise _refused(f"there is already a {kind} {name}: choose another name")
    TABLES[kind][name] = row(fn, help=help or _first_line(fn, place))
    ADDED[kind, name] = place
    return fn


def _check_counts(kind: str, name: str, **counts: int | None) -> None:
    for option, count in counts.items():
        is_count = isinstance(count, int) and not isinstance(count, bool) and count > 0
        if count is not None and not is_count:
            raise _refused(f"the {kind} {name} has {option}={count!r}: it must be a whole number above 0")


def _check_takes(kind: str, name: str, fn: Callable[..., Any], arguments: str) -> None:
    """Refuse a function that cannot be called with these arguments, such as "x, *, t"."""
    positional, _, keywords = arguments.partition(", *, ")
    try:
        signature(fn).bind(*positional.split(", "), **dict.fromkeys(keywords.split(", ")))
    except TypeError as error:
        reason = f"its function must take ({arguments})"
        raise _refused(f"the {kind} {name} cannot be added: {reason}; {error}") from None
    except ValueError:  # a function of C whose arguments are unknown
        return


def _options_of(kind: str, name: str, fn: Callable[..., Any], given: int) -> Any:
    try:
        return own_options(fn, given)
    except (ValueError, TypeError) as error:
        raise _refused(f"the {kind} {name} cannot be added: {error}") from None


def _first_line(fn: Any, place: Place) -> str:
    """The first line of fn's own docstring, without its full stop; otherwise its file."""
    text = "" if isinstance(fn, partial) else vars(fn).get("__doc__") if isinstance(fn, type) else fn.__doc__
    lines = (text or "").strip().splitlines()
    return lines[0].rstrip(".") if lines and hasattr(fn, "__name__") else f"of {shown(place.file)}"


def _refused(reason: str) -> RegistrationError:
    place = _place()
    return RegistrationError(f"{shown(place.file)}, line {place.line}: {reason}")


def _place() -> Place:
    """Where the user's file calls a function of this module."""
    frame = sys._getframe()
    while frame.f_back and frame.f_code.co_filename == __file__:
        frame = frame.f_back
    return Place(frame.f_code.co_filename, frame.f_lineno, frame.f_globals.get("__name__", ""))


# ---------------------------------------------------------------- what was added


def is_added(kind: str, name: str) -> bool:
    """Whether a user has added the row of that name."""
    return (kind, name) in ADDED


def called(kind: str, name: str) -> str:
    """'sampler mine of my_ideas.py', or 'sampler ddim' for a row of moonwalk itself."""
    place = ADDED.get((kind, name))
    return f"{kind} {name} of {shown(place.file)}" if place else f"{kind} {name}"


def shown(file: str) -> str:
    """A file as its user knows it: from the working directory where it lies below, else in full."""
    path = Path(os.path.abspath(file)) if os.path.exists(file) else Path(file)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else file


def missing_row(config: Mapping[str, Any]) -> str | None:
    """What the training with these options took from files that are not included now, and how to include them.

    Returns:
        A clause such as "the network 'mine' of my_ideas.py: add include=my_ideas.py"; None where nothing is missing.
    """
    files = config.get("include")
    if not isinstance(files, list) or not files or not all(isinstance(file, str) for file in files):
        return None
    used = {"schedule": config.get("schedule"), "loss weight": config.get("loss_weight")}
    for kind, group, part in (
        ("network", "model", "name"),
        ("target", "model", "prediction"),
        ("point set", "dataset", "name"),
    ):
        options = config.get(group)
        used[kind] = options.get(part) if isinstance(options, Mapping) else None
    for kind, name in used.items():
        if isinstance(name, str) and name not in TABLES[kind] and name not in OTHER_NAMES.get(kind, ()):
            names = [_printable(file) for file in files]
            return f"the {kind} {name!r} of {' or '.join(names)}: add {include_word(files)}"
    return None


def include_word(files: Sequence[str]) -> str:
    """What a user types to include these files, such as include=my_ideas.py; "" for none."""
    names = [_printable(file) for file in files]
    if len(names) == 1:
        return f"include={names[0]}"
    return f"include=[{','.join(names)}]" if names else ""


def _printable(file: str) -> str:
    return file if file.isprintable() else repr(file)


# ---------------------------------------------------------------- errors of the user's files


def is_of_plugin(error: BaseException) -> bool:
    """Whether an error was raised in a user's file, or in what that file has called."""
    return _own_traceback(error) is not None


def plugin_traceback(error: BaseException) -> str | None:
    """The traceback of an error that was raised in a user's file, from the first line there; None for other errors."""
    own = _own_traceback(error)
    if own is None:
        return None
    import traceback  # only here, because `--help` would take a tenth longer

    return "".join(traceback.format_exception(type(error), error, own)).rstrip()


def _own_traceback(error: BaseException) -> Any:
    files = {place.file for place in ADDED.values()}
    entry = error.__traceback__
    while entry and entry.tb_frame.f_code.co_filename not in files:
        entry = entry.tb_next
    return entry
