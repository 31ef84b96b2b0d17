"""The colours of noise, as people with and without colour blindness see them."""

import numpy as np
import pytest

from viz.colours import CLASSES, DATA, GENERATED, NOISE_STOPS, TRACKED, noise_colours

# The matrices that linear RGB is multiplied by, for severity 1.0: Machado, Oliveira and Fernandes 2009,
# "A Physiologically-based Model for Simulation of Color Vision Deficiency".
SEEN_WITH = {
    "full colour vision": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}
XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
WHITE = XYZ.sum(1)


def lab(rgb, eyes):
    """CIELAB (..., 3) of sRGB colours 0 .. 255 as these eyes see them. A distance of 2 is just visible."""
    rgb = np.asarray(rgb) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = np.clip(linear @ np.transpose(SEEN_WITH[eyes]), 0, 1) @ XYZ.T / WHITE
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    x, y, z = np.moveaxis(f, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)


def distance(one, other, eyes):
    return np.linalg.norm(lab(one, eyes) - lab(other, eyes), axis=-1)


every_eye = pytest.mark.parametrize("eyes", SEEN_WITH)


@every_eye
def test_the_matrices_keep_grey(eyes):
    assert np.abs(lab([128, 128, 128], eyes)[1:]).max() < 0.1


FORMER_COLOURS = [46, 160, 67], [214, 48, 49]  # of clean data and noise, in earlier versions


def test_full_colour_vision_distinguishes_the_former_colours():
    assert distance(*FORMER_COLOURS, "full colour vision") > 110


def test_deuteranopia_confuses_the_former_colours():
    assert distance(*FORMER_COLOURS, "deuteranopia") < 15


RAMP = noise_colours(np.linspace(0, 1, 21))


@every_eye
def test_more_noise_is_darker_for_every_eye(eyes):
    assert (np.diff(lab(RAMP, eyes)[:, 0]) < -0.5).all()


@every_eye
def test_every_eye_distinguishes_clean_data_from_noise(eyes):
    assert distance(RAMP[0], RAMP[-1], eyes) > 30


@every_eye
def test_every_eye_sees_a_quarter_of_the_way_anywhere(eyes):
    assert distance(RAMP[:-5], RAMP[5:], eyes).min() > 7


@every_eye
def test_generated_points_do_not_look_like_noise(eyes):
    assert distance(RAMP, GENERATED, eyes).min() > 60


@every_eye
def test_tracked_points_do_not_look_like_noise(eyes):
    assert distance(RAMP, TRACKED, eyes).min() > 30


@every_eye
def test_data_do_not_look_like_clean_points_or_pure_noise(eyes):
    assert distance(RAMP[0], DATA, eyes) > 25
    assert distance(RAMP[-1], DATA, eyes) > 25


# The colours (5, 3), 0 .. 255, of the first labels.
LABELS = np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in CLASSES[:5]])


@every_eye
def test_the_first_labels_are_distinct(eyes):
    assert min(distance(LABELS[i], LABELS[j], eyes) for i in range(5) for j in range(i)) > 14


@every_eye
def test_the_first_labels_do_not_look_like_noise(eyes):
    assert distance(LABELS, NOISE_STOPS[-1], eyes).min() > 20


def test_with_full_colour_vision_clean_data_are_green_and_noise_is_red():
    # In CIELAB, a* is below 0 for green and above 0 for red.
    (_, clean, _), (_, noise, _) = lab(NOISE_STOPS[[0, -1]], "full colour vision")
    assert clean < -40
    assert noise > 40
