"""No text of a user is read as a formula or as markup: pictures show what was written."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from viz import components, learning, search_pictures
from viz.films import point_film
from viz.recording import score_panel
from viz.scene import Process, Scene
from viz.style import literal, literal_markdown

NAMES = ["$$", "b$x_$", "<b>&", "a_b^c", "\\frac", "%s", "{}", "_hidden", "$\\alpha$", "\\$", "*b* [a](b)"]


def texts(figure):
    """What the texts of a figure say once they are drawn; none of them may be a formula."""
    figure.savefig(io.BytesIO(), format="png")
    shown = []
    for text in figure.findobj(Text):
        content, is_formula = text._preprocess_math(text.get_text())
        assert not is_formula or "mathdefault" in content, content
        shown.append(content)
    return "\n".join(shown)


def losses(name):
    run = {"step": np.arange(1, 30), "loss": np.linspace(1, 0.1, 29)}
    return learning.losses({literal(name): run, literal("other"): run}, {}, [])


def histogram(name):
    return components.label_histogram({name: 3, "other": 4}, f"labels of the images in {name}")


def grid(name):
    return components.image_grid(np.zeros((2, 1, 4, 4)), [name, "other"], f"images in {name}")


def search(name):
    return search_pictures.slices({"dataset.text": [name, "other"]}, [1.0, 2.0], "loss", [])


PICTURES = {"losses": losses, "histogram": histogram, "grid": grid, "search": search}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", PICTURES)
def test_a_picture_shows_a_name_as_it_is(kind, name):
    assert name in texts(PICTURES[kind](name))


@pytest.mark.parametrize("name", NAMES)
def test_a_film_shows_its_title_as_it_is(name):
    states = np.random.default_rng(0).standard_normal((3, 20, 2))
    scene = Scene([Process("reverse", states, np.array([2, 1, 0]))])
    figure = Figure()
    figure.suptitle(point_film.reverse_panel(name, scene).title)
    assert name in texts(figure)


@pytest.mark.parametrize("name", NAMES)
def test_a_recording_shows_a_label_as_it_is(name):
    markdown = literal_markdown(name)
    assert markdown.replace("\\\\", "\0").replace("\\", "").replace("\0", "\\") == name
    scene = SimpleNamespace(fields=[SimpleNamespace(label=0, name="network")], classes=[name])
    (line,) = score_panel.words(scene).sees
    assert f"for label {markdown}, to" in line
