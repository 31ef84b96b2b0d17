"""Image metrics: known values, faults that they find, real images that they pass, and the saved feature classifier.

No result depends on the bits of a training. Faults are measured with a fixed network, whose filters are random and
whose last layer solves a linear system. For a trained network, only the accuracy is tested, with a wide margin.
"""

import contextlib
import io

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from scipy.ndimage import gaussian_filter
from sklearn.datasets import load_digits

from images.sets import ImageSet
from metrics import image_features
from metrics.image_features import FeatureClassifier, extract_features, feature_classifier, train_classifier
from metrics.image_metrics import (
    _accuracies,
    compare_features,
    evaluate_images,
    frechet_distance,
    nearest_two,
    share_inside,
    worst_label,
)
from runtime import checkpoint_file
from runtime.randomness import generator


def image_set(pixels, labels, num_labels=10):
    return ImageSet(pixels, labels, [str(i) for i in range(num_labels)])


def digits():
    """The digits of scikit-learn in a random order."""
    data = load_digits()
    pixels = torch.from_numpy((data.images * 255 / 16).round().astype(np.uint8))[:, None]
    order = torch.randperm(1797, generator=generator(0, "split"))
    return image_set(pixels, torch.from_numpy(data.target)).subset(order)


TRAIN = digits().subset(torch.arange(360, 1797))
UNSEEN = digits().subset(torch.arange(360))
FEW = digits().subset(torch.arange(200))  # for classifiers that need not be good


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a saved feature classifier for the digits, whose features are fixed."""
    folder = tmp_path_factory.mktemp("classifiers")
    checkpoint_file.save(
        folder / f"{image_features._checksum(TRAIN, 0)}.classifier", {"classifier": fixed_classifier().state_dict()}
    )
    return folder


@torch.no_grad()
def fixed_classifier():
    """Random filters, features with mean 0 and variance 1 on TRAIN, and a ridge regression of the labels on them."""
    net = image_features._untrained(TRAIN, seed=0)
    images, labels = TRAIN[torch.arange(len(TRAIN))]
    for layer in net.modules():
        if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm):
            layer.momentum = None  # The statistics become those of this one batch.
    net.train()(images)
    hidden = net.eval()(images)[0].relu().double()
    hidden = torch.cat([hidden, torch.ones(len(hidden), 1)], 1)
    targets = torch.eye(10, dtype=torch.double)[labels]
    weights = torch.linalg.solve(hidden.T @ hidden + 10 * torch.eye(65), hidden.T @ targets)  # (65, 10)
    net.head.weight.copy_(weights[:-1].T)
    net.head.bias.copy_(weights[-1])
    return net


@pytest.fixture
def short_training(monkeypatch):
    """Let a classifier train for a few steps only."""
    monkeypatch.setattr(image_features, "MIN_IMAGES_SEEN", 600)


# ---------------------------------------------------------------- known values


def gaussian_cloud(n, mean, factor, seed):
    return torch.randn(n, len(mean), generator=generator(seed, "test"), dtype=torch.float64) @ factor.T + mean


def test_frechet_distance_of_two_gaussians_is_the_closed_form():
    # The covariance of `a` is the identity, so the root of the product is the root of the covariance of `b`. The result
    # is not the sum of the traces.
    mean = torch.tensor([0.5, 0.0, -1.0]).double()
    stretch = torch.diag(torch.tensor([0.5, 1.0, 3.0]).double())
    a = gaussian_cloud(200_000, 0 * mean, torch.eye(3).double(), 0)
    b = gaussian_cloud(200_000, mean, stretch, 1)
    assert frechet_distance(a, b) == pytest.approx(1.25 + 0.5**2 + 0 + 2**2, rel=0.01)


@pytest.mark.parametrize(("first", "second"), [(0, 1), (1, 0)])
def test_frechet_distance_is_that_by_the_matrix_root_of_scipy_in_both_orders(first, second):
    mixing = torch.randn(2, 8, 8, generator=generator(1, "test"), dtype=torch.float64)
    a, b = (gaussian_cloud(500, torch.full((8,), float(i)).double(), mixing[i], 2 + i) for i in range(2))
    ca, cb = np.cov(a.numpy().T), np.cov(b.numpy().T)
    expected = float((a.mean(0) - b.mean(0)).square().sum()) + np.trace(ca + cb - 2 * sqrtm(ca @ cb).real)
    assert frechet_distance((a, b)[first], (a, b)[second]) == pytest.approx(expected, rel=1e-9)


# Five points in eight dimensions have singular covariances.
@pytest.mark.parametrize("rows", [500, 5])
@pytest.mark.parametrize(("shift", "expected"), [(0.0, 0), (0.5, 8 * 0.25)])
def test_frechet_distance_of_shifted_features_is_the_square_of_the_shift(rows, shift, expected):
    a = gaussian_cloud(rows, torch.zeros(8).double(), torch.eye(8).double(), 5)
    assert frechet_distance(a, a + shift) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("options", "share"),
    [
        ({}, 4 / 6),  # The radii of the balls, to the third neighbour, are 3, 2, 2, 3 and 9.
        ({"k": 1}, 2 / 6),  # The radii are 1, 1, 1, 1 and 7. Only 2.5 and 6.5 lie inside.
    ],
)
def test_the_share_inside_balls_is_that_of_a_drawing(options, share):
    cloud = torch.tensor([[0.0], [1.0], [2.0], [3.0], [10.0]]).double()
    points = torch.tensor([[-3.5], [-2.9], [2.5], [6.5], [18.9], [19.1]]).double()
    assert share_inside(points, cloud, **options) == pytest.approx(share)


def two_clusters():
    """600 points in the plane, the first half around (0, 0) and the second around (50, 50)."""
    return torch.cat([gaussian_cloud(300, torch.full((2,), m).double(), torch.eye(2).double(), 7) for m in (0.0, 50.0)])


def test_precision_and_recall_of_the_real_points_are_1():
    assert share_inside(two_clusters(), two_clusters()) == 1


def test_with_one_of_two_clusters_precision_is_1_and_recall_one_half():
    real = two_clusters()
    one = real[:300] + 1e-3
    assert share_inside(one, real) == 1
    assert 0.45 < share_inside(real, one) < 0.55


def test_far_from_the_real_points_precision_and_recall_are_0():
    real = two_clusters()
    far = real + 500
    assert share_inside(far, real) == 0
    assert share_inside(real, far) == 0


def test_the_recall_of_a_few_repeated_points_is_nearly_0():
    repeated = gaussian_cloud(20, torch.zeros(2).double(), torch.eye(2).double(), 8).repeat(15, 1)
    assert share_inside(two_clusters()[:300], repeated) < 0.01


MANY = np.repeat([True, False], [9500, 500])
FEW_ANSWERS = np.repeat([True, False], [95, 5])
BINOMIAL = (0.95 * 0.05 / 400) ** 0.5  # the standard deviation of the accuracy on 400 images


def test_the_floor_of_the_accuracy_has_the_mean_of_the_answers():
    assert _accuracies(MANY, 400, 0).mean() == pytest.approx(0.95, abs=0.002)


def test_the_floor_of_the_accuracy_has_the_spread_of_a_binomial_distribution():
    assert _accuracies(MANY, 400, 0).std() == pytest.approx(BINOMIAL, rel=0.06)


def test_the_floor_of_the_accuracy_is_wider_if_it_is_estimated_from_few_answers():
    # The variance is proportional to 1 / 400 + 1 / 100 instead of 1 / 400.
    assert _accuracies(FEW_ANSWERS, 400, 0).std() == pytest.approx(BINOMIAL * 5**0.5, rel=0.1)


def test_the_floor_of_the_accuracy_of_right_answers_only_has_a_spread():
    assert 0 < _accuracies(np.ones(100, bool), 100, 0).std() < 0.02


# ---------------------------------------------------------------- faults


N = 120


def results(samples, asked, folder, unseen=None):
    rows = evaluate_images(samples, asked, TRAIN, unseen or UNSEEN.subset(torch.arange(N, len(UNSEEN))), folder=folder)
    return {row.name: row for row in rows}


def failed(rows):
    return {name for name, row in rows.items() if not row.passed}


@pytest.fixture(scope="module")
def trained_classifier(tmp_path_factory):
    """The rows of an evaluation of real images with a classifier trained for it, and what it prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        rows = results(*UNSEEN[torch.arange(N)], tmp_path_factory.mktemp("trained"))
    return rows, printed.getvalue()


@pytest.mark.slow  # a whole training of the classifier
def test_the_trained_classifier_knows_unseen_digits(trained_classifier):
    rows, _ = trained_classifier
    assert rows["label accuracy"].floor > 0.9  # Trainings on several machines gave 0.97 to 0.99.


@pytest.mark.slow  # a whole training of the classifier
def test_the_number_of_images_for_the_accuracy_is_printed(trained_classifier):
    _, printed = trained_classifier
    assert "of 240 unseen images classified correctly" in printed


@pytest.mark.parametrize("seed", range(10))
def test_real_unseen_images_pass_every_metric(seed, folder):
    order = torch.randperm(len(UNSEEN), generator=generator(seed, "fresh"))
    rows = results(*UNSEEN[order[:N]], folder, UNSEEN.subset(order[N:]))
    assert failed(rows) == set()
    assert [row.n for row in rows.values()] == [N] * 5


def with_noise(x, y, g):
    return x + 0.8 * torch.randn(x.shape, generator=g), y


def class_missing(x, y, g):
    rows = (y != 4).nonzero()[:, 0]
    rows = rows[torch.randint(len(rows), (len(x),), generator=g)]
    return x[rows], y[rows]


def blurred(x, y, g):
    return torch.from_numpy(gaussian_filter(x.numpy(), (0, 0, 0.7, 0.7))), y


def repeated(x, y, g):
    rows = torch.randint(20, (len(x),), generator=g)
    return x[rows], y[rows]


def swapped_labels(x, y, g):
    half = len(y) // 2
    return x, torch.cat([y[:half][torch.randperm(half, generator=g)], y[half:]])


# Each fault, and the metrics that must find it. All of them lie 5 standard deviations or more beyond their floor, where
# 4.5 are enough, so that no rounding decides. The features are fixed; only the faults are drawn, three times.
FAULTS = [
    (with_noise, {"Frechet distance", "precision", "label accuracy"}),
    (class_missing, {"Frechet distance"}),
    (blurred, {"Frechet distance", "recall", "label accuracy"}),
    (repeated, {"Frechet distance", "recall"}),
    (swapped_labels, {"label accuracy"}),
]


def rows_of_fault(fault, seed, folder):
    return results(*fault(*UNSEEN[torch.arange(N)], generator(seed, "fault")), folder)


@pytest.mark.parametrize(("fault", "found_by"), FAULTS)
@pytest.mark.parametrize("seed", range(3))
def test_faults_fail_the_metrics_that_must_find_them(fault, found_by, seed, folder):
    rows = rows_of_fault(fault, seed, folder)
    assert found_by <= failed(rows)
    assert not any("indistinguishable" in rows[name].verdict for name in failed(rows))


@pytest.mark.parametrize("seed", range(3))
def test_real_images_with_swapped_labels_fail_the_label_accuracy_only(seed, folder):
    assert failed(rows_of_fault(swapped_labels, seed, folder)) == {"label accuracy"}


def test_the_label_whose_samples_are_not_recognised_is_named():
    asked = torch.tensor([0, 0, 1, 1, 2, 2])
    predicted = torch.tensor([0, 0, 1, 2, 2, 2])
    right = np.array([True, True, True, False])
    real_labels = torch.tensor([0, 1, 2, 0])
    said = worst_label(predicted, asked, right, real_labels, ["a", "b", "c"])
    assert said == "worst label b: 50.0%, real images 100.0%"


@pytest.fixture(scope="module")
def gaussian_features():
    """The rows, by name, for Gaussian features: from the real distribution, and shifted by 0.6 in 64 dimensions."""
    real = torch.randn(400, 64, generator=generator(0, "test"), dtype=torch.double)
    made = torch.randn(150, 64, generator=generator(1, "test"), dtype=torch.double)
    return [{row.name: row for row in compare_features(x, real, seed=0)} for x in (made, made + 0.6)]


def test_gaussian_features_of_the_real_distribution_pass(gaussian_features):
    same, _ = gaussian_features
    assert failed(same) == set()


def test_a_shift_of_gaussian_features_fails_the_frechet_distance(gaussian_features):
    _, shifted = gaussian_features
    assert "Frechet distance" in failed(shifted)


def test_a_shift_of_gaussian_features_adds_its_square_to_the_frechet_distance(gaussian_features):
    # |shift|^2 = 64 * 0.6^2 = 23. The error is 1.2 times the sum of 64 differences of means, whose standard deviation
    # is sqrt(64 (1 / 150 + 1 / 250)) = 0.83.
    same, shifted = gaussian_features
    added = shifted["Frechet distance"].value - same["Frechet distance"].value
    assert added == pytest.approx(64 * 0.6**2, abs=5 * 1.2 * 0.83)


@pytest.fixture(scope="module")
def rows_of_sorted_samples(folder):
    """The rows, by name, for all training images in the order of their labels."""
    order = TRAIN.labels.argsort()
    return {row.name: row for row in evaluate_images(*TRAIN[order], TRAIN, UNSEEN, folder=folder)}


def test_each_metric_takes_as_many_samples_as_it_can_compare(rows_of_sorted_samples):
    # For the first three this is half of the unseen images.
    assert [row.n for row in rows_of_sorted_samples.values()] == [180, 180, 180, 360, len(TRAIN)]


def test_a_metric_does_not_take_the_first_of_sorted_samples(rows_of_sorted_samples):
    # The first ones would all be zeros and ones. The samples are training images, so they fail as memorised.
    assert failed(rows_of_sorted_samples) == {"memorised"}


@pytest.mark.parametrize("share", [1.0, 0.25])
@pytest.mark.parametrize("blur", [0, 0.05])
def test_copies_of_training_images_are_caught(share, blur, folder):
    images, labels = UNSEEN[torch.arange(N)]
    count = int(share * N)
    g = generator(0, "copies")
    images[:count], labels[:count] = TRAIN[torch.randperm(len(TRAIN), generator=g)[:count]]
    images = images + blur * torch.randn(images.shape, generator=g)
    assert "memorised" in failed(results(images, labels, folder))


def test_the_two_nearest_training_images_are_those_of_brute_force():
    images = UNSEEN[torch.arange(7)][0]
    every = (images[:, None] - TRAIN[torch.arange(len(TRAIN))][0][None]).flatten(2).norm(dim=2)
    torch.testing.assert_close(nearest_two(images, TRAIN), every.sort(1).values[:, :2], rtol=1e-4, atol=1e-4)


def test_samples_without_labels_have_no_label_accuracy(folder):
    assert "label accuracy" not in results(UNSEEN[torch.arange(N)][0], None, folder)


def test_values_beyond_the_range_are_clamped(folder):
    images, _ = UNSEEN[torch.arange(N)]
    beyond = torch.where(images == -1, -1.7, images)
    assert results(beyond, None, folder) == results(images, None, folder)


@pytest.mark.parametrize(
    ("samples", "asked", "words"),
    [
        (torch.full((N, 1, 8, 8), torch.nan), None, "NaN"),
        (torch.zeros(N, 1, 9, 8), None, r"shape \(N, 1, 8, 8\)"),
        (torch.zeros(N, 1, 8, 8, dtype=torch.uint8), None, "floats"),
        (torch.zeros(49, 1, 8, 8), None, "at least 50 samples"),
        (torch.zeros(N, 1, 8, 8), torch.zeros(3), "one label for each of 120"),
    ],
)
def test_bad_samples_are_refused(samples, asked, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        evaluate_images(samples, asked, TRAIN, UNSEEN, folder=tmp_path)


@pytest.mark.parametrize("labels", [None, torch.zeros(200, dtype=torch.long)])
def test_images_without_classes_have_no_classifier(labels, tmp_path):
    with pytest.raises(ValueError, match="needs labels"):
        feature_classifier(image_set(FEW.pixels, labels, num_labels=1), folder=tmp_path)


# ---------------------------------------------------------------- the saved classifier


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values()))


def test_the_training_of_a_classifier_leaves_the_global_generator_alone(short_training):
    state = torch.random.get_rng_state()
    train_classifier(FEW, seed=1)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_training_of_a_classifier_is_a_function_of_data_and_seed(short_training):
    first = train_classifier(FEW, seed=1)
    torch.rand(3)
    assert same(first, train_classifier(FEW, seed=1))
    assert not same(first, train_classifier(FEW, seed=2))


def test_the_training_of_a_classifier_is_announced(short_training, tmp_path, capsys):
    feature_classifier(FEW, folder=tmp_path / "new" / "folder")
    assert "training a feature classifier" in capsys.readouterr().out


def test_a_saved_classifier_is_loaded_without_a_word_and_without_a_training(
    short_training, tmp_path, monkeypatch, capsys
):
    first = feature_classifier(FEW, folder=tmp_path / "new" / "folder")
    capsys.readouterr()
    monkeypatch.setattr(image_features, "train_classifier", None)
    second = feature_classifier(FEW, folder=tmp_path / "new" / "folder")
    assert same(first, second)
    assert not second.training
    assert capsys.readouterr().out == ""


def test_other_pixels_labels_or_seeds_have_another_classifier(short_training, tmp_path):
    pixels, labels = FEW.pixels.clone(), FEW.labels.clone()
    pixels[3, 0, 4, 4] += 1
    labels[3] = (labels[3] + 1) % 10
    for data, seed in [(FEW, 0), (FEW, 1), (image_set(pixels, FEW.labels), 0), (image_set(FEW.pixels, labels), 0)]:
        feature_classifier(data, seed=seed, folder=tmp_path)
    assert len(list(tmp_path.iterdir())) == 4


@pytest.fixture
def damaged(short_training, tmp_path, capsys):
    """A function that saves a classifier, damages its file at a place, and returns the classifier."""

    def damage(place):
        classifier = feature_classifier(FEW, folder=tmp_path)
        (path,) = tmp_path.iterdir()
        content = bytearray(path.read_bytes())
        if place == "cut":
            del content[1000:]
        else:
            content[int(place * len(content)) if isinstance(place, float) else place] ^= 0xFF
        path.write_bytes(content)
        capsys.readouterr()
        return classifier

    return damage


every_damage = pytest.mark.parametrize("place", [0, 30, 0.3, 0.5, 0.9, -22, "cut"])


@every_damage
def test_a_classifier_whose_file_is_damaged_is_trained_again(place, damaged, tmp_path, capsys):
    first = damaged(place)
    assert same(first, feature_classifier(FEW, folder=tmp_path))
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert "again" in said


@every_damage
def test_a_damaged_file_is_replaced_by_a_sound_one(place, damaged, tmp_path, capsys):
    damaged(place)
    feature_classifier(FEW, folder=tmp_path)
    capsys.readouterr()
    feature_classifier(FEW, folder=tmp_path)
    assert capsys.readouterr().out == ""


def test_without_a_folder_to_write_to_the_classifier_is_trained_and_not_saved(short_training, tmp_path, capsys):
    (tmp_path / "classifiers").write_text("a file")
    assert not feature_classifier(FEW, folder=tmp_path / "classifiers").training
    assert "could not be saved" in capsys.readouterr().out


every_size = pytest.mark.parametrize("dims", [(1, 8, 8), (3, 28, 28), (3, 64, 48), (4, 9, 33)])


@every_size
def test_features_of_images_of_any_size_have_the_variance_1(dims):
    net = FeatureClassifier(dims, 7).train()
    images = torch.rand(50, *dims, generator=generator(0, "test")) * 2 - 1
    torch.testing.assert_close(net(images)[0].var(0, correction=0), torch.ones(64), atol=0.05, rtol=0)


@every_size
def test_images_of_any_size_have_64_features_and_a_predicted_label(dims):
    net = FeatureClassifier(dims, 7).train()
    images = torch.rand(50, *dims, generator=generator(0, "test")) * 2 - 1
    net(images)
    features, predicted = extract_features(net.eval(), images.split(20))
    assert features.shape == (50, 64)
    assert features.dtype == torch.float64
    assert predicted.shape == (50,)
