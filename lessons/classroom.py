"""Functions that all lessons share.

The lessons import it before any module of moonwalk, because it also puts the root of the repository
on sys.path.
"""

import builtins
import os
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

# Python started as `python lessons/1_noise.py` finds only the modules in lessons/.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from matplotlib.figure import Figure
from PIL import Image

from viz import stills, style

QUICK = os.environ.get("LESSON_QUICK") == "1"  # as the tests run it: the same lesson, rougher figures
IN_NOTEBOOK = hasattr(builtins, "get_ipython")
style.use("light")


def effort(full: int, quick: int) -> int:
    """How many steps or samples: `full`, or `quick` where LESSON_QUICK=1 is set."""
    return quick if QUICK else full


def compare(prediction: float | None, **answers: float) -> None:
    """Print a prediction beside the answers; their names may have underscores for spaces."""
    rows = {"your prediction": "none yet" if prediction is None else f"{prediction:.4g}"}
    rows |= {name.replace("_", " "): f"{answer:.4g}" for name, answer in answers.items()}
    for name, text in rows.items():
        print(f"  {name:<44}{text:>10}")


def show(figure: Figure, name: str) -> Image.Image:
    """The picture, which a notebook shows as the last line of a cell; a script saves it in outputs/lessons/."""
    buffer = BytesIO()
    figure.savefig(buffer, dpi=stills.SCREEN_DPI)
    if not IN_NOTEBOOK:
        print(f"picture: {stills.save(figure, f'outputs/lessons/{name}.png')}")
    return Image.open(buffer)


def attempt(number: int, check: Callable[[Callable], None], function: Callable) -> None:
    """Say whether `function` passes the check of exercise `number`; whatever goes wrong in it, the lesson goes on."""
    try:
        check(function)
    except NotImplementedError:
        print(f"exercise {number}: not solved yet: nothing is written in {function.__name__} so far")
    except AssertionError as failed:
        print(f"exercise {number}: not solved yet: {failed}")
    except Exception as error:  # of a student's code, so of any kind
        print(f"exercise {number}: not solved yet: {function.__name__} ends in {type(error).__name__}: {error}")
    else:
        print(f"exercise {number}: solved")
