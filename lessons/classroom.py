"""Functions that all lessons share.

The lessons import it before any module of moonwalk, because it also puts the root of the repository
on sys.path.
"""

import ast
import builtins
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from textwrap import fill

# Python started as `python lessons/1_noise.py` finds only the modules in lessons/.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor
from torch.nn.functional import pad

from runtime.progress import progress_bar
from viz import stills, style

QUICK = os.environ.get("LESSON_QUICK") == "1"  # the tests run the same lessons with fewer samples
SHOW = "--show"  # the flag of a script that shows the answer without a prediction
IN_NOTEBOOK = hasattr(builtins, "get_ipython")
style.use("light")


def question(lesson: Path) -> str:
    """Return what a lesson asks its reader to predict, without Markdown.

    Args:
        lesson: the file of the lesson.
    """
    text = lesson.read_text(encoding="utf-8")
    _, after = text.split("# ## Predict\n", 1)
    asked = after[: after.index("\n# %%")]
    words = re.sub(r"[*$`\\]", "", asked.replace("#", "")).split()
    return fill(" ".join(words), 90)


def written_prediction(lesson: Path) -> tuple[str | None, str]:
    """Return the expression that the reader has written as a prediction, and the place where it belongs.

    Args:
        lesson: the file of the lesson, with a line `prediction = ...`; None stands for no prediction.
    """
    tree = ast.parse(lesson.read_text(encoding="utf-8"))
    assignments = [node for node in tree.body if isinstance(node, ast.Assign)]
    line = next(node for node in assignments if ast.unparse(node.targets[0]) == "prediction")
    expression = ast.unparse(line.value)
    place = f"{lesson.parent.name}/{lesson.name}, line {line.lineno}"
    return (None if expression == "None" else expression), place


def _ask() -> None:
    """Ask the question of the lesson that has been started as a script, and end it where no prediction is written.

    With --show the lesson goes on without a prediction. A notebook shows the question anyway.
    """
    started = getattr(sys.modules["__main__"], "__file__", None)
    if IN_NOTEBOOK or started is None:
        return
    lesson = Path(started).resolve()
    if lesson.parent != Path(__file__).resolve().parent:
        return
    expression, place = written_prediction(lesson)
    if expression is not None:
        print(f"Your prediction: {expression} ({place}).\n", flush=True)
        return
    print(question(lesson))
    print(f"Your prediction: write it into {place}, as `prediction = ...`, and start the lesson again.")
    if SHOW not in sys.argv[1:]:
        print(f"To go on without a prediction: python {lesson.parent.name}/{lesson.name} {SHOW}")
        sys.exit()
    print(flush=True)


_ask()


def effort(full: int, quick: int) -> int:
    """Return a number of steps or samples: `full`, or `quick` if LESSON_QUICK=1 is set."""
    return quick if QUICK else full


def training_steps(count: int, of: str) -> Iterator[int]:
    """Say that a training on the data set `of` begins, and yield its steps, with a bar on a terminal."""
    print(f"training on {of}: {count:,} steps", flush=True)
    return progress_bar(range(count), of, count)


def compare(prediction: object, **answers: float) -> None:
    """Print the student's prediction beside the answers. Underscores in names become spaces.

    A prediction that is not a number is printed as it is, with a note.
    """
    rows = {"your prediction": _shown(prediction)}
    for name, answer in answers.items():
        rows[name.replace("_", " ")] = f"{answer:.4g}"
    for name, text in rows.items():
        print(f"  {name:<44}{text:>10}")


def _shown(prediction: object) -> str:
    """Return a prediction as text."""
    if prediction is None:
        return "none yet"
    if isinstance(prediction, int | float):
        return f"{prediction:.4g}"
    return f"{prediction} (not a number, which the question asks for)"


def image_grid(rows: Sequence[Tensor]) -> Tensor:
    """Return one picture (H', W') of rows of grey images, each row of shape (B, 1, H, W)."""
    strips = []
    for row in rows:
        framed = pad(row[:, 0], (1, 1, 1, 1))
        strips.append(framed.permute(1, 0, 2).flatten(1))
    return torch.cat(strips)


def show(figure: Figure, name: str) -> Image.Image:
    """Return the figure as a picture, which a notebook displays as the last line of a cell.

    A script saves it in outputs/lessons/ as well.
    """
    buffer = BytesIO()
    figure.savefig(buffer, dpi=stills.SCREEN_DPI)
    if not IN_NOTEBOOK:
        print(f"picture: {stills.save(figure, f'outputs/lessons/{name}.png')}")
    return Image.open(buffer)


def attempt(number: int, check: Callable[[Callable], None], function: Callable) -> None:
    """Print whether `function` passes the check of exercise `number`.

    Any exception in the function is printed too, so that the lesson continues.
    """
    try:
        check(function)
    except NotImplementedError:
        outcome = f"not solved yet: nothing is written in {function.__name__} so far"
    except AssertionError as failed:
        outcome = f"not solved yet: {failed}"
    except Exception as error:  # a student's code can raise anything
        outcome = f"not solved yet: {function.__name__} ends in {type(error).__name__}: {error}"
    else:
        outcome = "solved"
    print(f"exercise {number}: {outcome}")
