"""Parts of a training that have closed forms: the average of the weights, and the warning about the loss's weights."""

import pytest
import torch

from loss.objective import loss_weights
from registry.process_rows import SCHEDULES, TARGETS
from schedule import CosineNoiseScheduler, make_scheduler
from training.learner import Learner
from training.startup_check import label_warning, weight_warning

# ---------------------------------------------------------------- the average of the weights


def averaged(sequence, decay):
    """What the average holds after each of the weights in the sequence (N,), each a number: (N,)."""
    net = torch.nn.Linear(1, 1, bias=False).double()
    learner = Learner(net, [], decay)
    held = []
    for weight in sequence:
        torch.nn.init.constant_(net.weight, float(weight))
        learner.advance_ema()
        held.append(learner.average.module.weight.item())
    return torch.tensor(held, dtype=torch.float64)


def weights_of_a_training(count):
    """A random walk that settles."""
    g = torch.Generator().manual_seed(0)
    return (torch.randn(count, generator=g, dtype=torch.float64) / torch.arange(1, count + 1)).cumsum(0)


def test_without_a_decay_the_newest_weights_count_nine_by_ten_plus_n():
    # n updates came before; the rest, (1 + n) / (10 + n), is TensorFlow's decay of its ExponentialMovingAverage
    sequence = weights_of_a_training(300)
    expected = [float(sequence[0])]
    for n, weight in enumerate(sequence[1:].tolist(), 1):
        expected.append((1 + n) / (10 + n) * expected[-1] + 9 / (10 + n) * weight)
    torch.testing.assert_close(averaged(sequence, None), torch.tensor(expected).double(), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.998, 0.9999])
def test_a_given_decay_is_the_average_without_bias(decay):
    # sum_i d^(k - i) w_i / sum_i d^(k - i), all at once
    sequence, k = weights_of_a_training(300), torch.arange(300, dtype=torch.float64)
    powers = torch.tensor(decay, dtype=torch.float64).pow((k[:, None] - k).clamp(min=0)).tril()
    expected = powers @ sequence / powers.sum(1)
    torch.testing.assert_close(averaged(sequence, decay), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("decay", [None, 0.9, 0.9999])
def test_constant_weights_stay_as_they_are(decay):
    torch.testing.assert_close(averaged([0.7] * 50, decay), torch.full((50,), 0.7).double())


def average_of_rising_weights(decay):
    """The average after 300 updates, at each of which the weight rises by 1."""
    return float(averaged(range(1, 301), decay)[-1])


@pytest.mark.parametrize(("decay", "error"), [(0.9999, 0.1), (0.998, 1)])
def test_a_decay_near_1_looks_back_over_almost_all_of_a_short_training(decay, error):
    # The mean of 1 .. 300 is 150.5, to which d adds about (1 - d) 300^2 / 12.
    assert average_of_rising_weights(decay) == pytest.approx(150.5 + (1 - decay) * 7500, abs=error)


def test_decays_differ_in_a_short_training():
    assert average_of_rising_weights(0.998) - average_of_rising_weights(0.9999) > 10


def test_without_a_decay_the_average_looks_back_over_a_tenth_of_the_training():
    assert average_of_rising_weights(None) > 265


# ---------------------------------------------------------------- warnings before a training


def test_a_weight_that_looks_at_one_step_only_is_warned_about_and_another_one_named():
    # 1 / alpha-bar of the cosine's last step, 4e8, outweighs all others; in closed form from the schedule
    scheduler = CosineNoiseScheduler(1000)
    share = float((1 / scheduler.alphas_cumprod[-1]) / (1 / scheduler.alphas_cumprod).sum())
    warning = weight_warning(loss_weights(scheduler, "eps", "v"))
    assert warning is not None and warning.startswith(f"{share:.1%} of the loss's weight lies on t = 999")
    assert "loss_weight=target" in warning


def test_the_weight_of_v_for_a_network_that_predicts_eps_lies_on_the_last_step_of_cosine():
    weights = loss_weights(CosineNoiseScheduler(1000), "eps", "v")
    assert float(weights[-1] / weights.sum()) == pytest.approx(0.998, abs=0.001)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("T", [1, 2, 50, 1000])
def test_uniform_weights_are_not_warned_about(schedule, target, T):
    assert weight_warning(loss_weights(make_scheduler(schedule, T), target, "target")) is None


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("weight", ["eps", "v", "min_snr"])
def test_usual_weights_of_a_network_that_predicts_v_are_not_warned_about(schedule, weight):
    assert weight_warning(loss_weights(make_scheduler(schedule, 1000), "v", weight)) is None


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ([20, 90, 25], None),
        ([30, 3, 19], "label b has 3 rows"),
        ([30, 1, 2], "label b has 1 row to learn from"),
        ([30, 5], "label c has no row to learn from: give it 20 or more, or leave it out"),
    ],
)
def test_a_label_with_few_rows_is_named(counts, words):
    found = label_warning(torch.arange(len(counts)).repeat_interleave(torch.tensor(counts)), ["a", "b", "c"])
    assert found is None if words is None else found.startswith(words)
