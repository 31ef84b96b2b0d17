"""The colours of noise, as people with and without colour blindness see them."""

import numpy as np
import pytest

from viz.colours import CLASSES, DATA, GENERATED, NOISE_STOPS, TRACKED, noise_colours

# Machado, Oliveira and Fernandes 2009, "A Physiologically-based Model for Simulation of Color Vision Deficiency",
# severity 1.0: what linear RGB becomes
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
    """CIELAB (..., 3) of sRGB colours 0 .. 255, as these eyes see them: a distance of 2 can just be seen."""
    rgb = np.asarray(rgb) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = np.clip(linear @ np.transpose(SEEN_WITH[eyes]), 0, 1) @ XYZ.T / WHITE
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    x, y, z = np.moveaxis(f, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)


def distance(one, other, eyes):
    return np.linalg.norm(lab(one, eyes) - lab(other, eyes), axis=-1)


def test_the_matrices_keep_grey_and_confuse_what_the_eyes_confuse():
    for eyes in SEEN_WITH:
        assert np.abs(lab([128, 128, 128], eyes)[1:]).max() < 0.1
    assert distance([46, 160, 67], [214, 48, 49], "full colour vision") > 110  # the colours that we had before,
    assert distance([46, 160, 67], [214, 48, 49], "deuteranopia") < 15  # which were one brown


@pytest.mark.parametrize("eyes", SEEN_WITH)
def test_every_eye_sees_how_much_noise_there_is(eyes):
    ramp = noise_colours(np.linspace(0, 1, 21))
    assert (np.diff(lab(ramp, eyes)[:, 0]) < -0.5).all()  # always darker
    assert distance(ramp[0], ramp[-1], eyes) > 30
    assert distance(ramp[:-5], ramp[5:], eyes).min() > 7  # a quarter of the way is seen everywhere


@pytest.mark.parametrize("eyes", SEEN_WITH)
def test_what_is_generated_tracked_or_data_is_not_taken_for_noise(eyes):
    ramp = noise_colours(np.linspace(0, 1, 21))
    assert distance(ramp, GENERATED, eyes).min() > 60
    assert distance(ramp, TRACKED, eyes).min() > 30
    assert distance(ramp[0], DATA, eyes) > 25 and distance(ramp[-1], DATA, eyes) > 25


@pytest.mark.parametrize("eyes", SEEN_WITH)
def test_the_first_labels_are_distinct(eyes):
    labels = np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in CLASSES[:5]])
    far = [distance(labels[i], labels[j], eyes) for i in range(5) for j in range(i)]
    assert min(far) > 14
    assert distance(labels, NOISE_STOPS[-1], eyes).min() > 20


def test_clean_is_green_and_noise_red_for_everyone_else():
    (_, clean, _), (_, noise, _) = lab(NOISE_STOPS[[0, -1]], "full colour vision")
    assert clean < -40 and noise > 40  # CIELAB's a*: green below 0, red above
