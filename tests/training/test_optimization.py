import pytest
import torch
from torch import nn

from skdiscovery.training.optimization import (
    OPTIMIZERS,
    OptimizationOptions,
    make_optimizer,
    make_schedule,
)


def options(**changes):
    defaults = {
        "optimizer": "sgd",
        "learning_rate": 0.5,
        "schedule": "linear",
        "lr_decay": 0.5,
        "grad_clip": None,
    }
    return OptimizationOptions(**defaults | changes)


def learning_rates(chosen, n_steps, steps_per_epoch, n_rates):
    """Return the rates of the first ``n_rates`` updates."""
    optimizer = make_optimizer(nn.Linear(2, 1), chosen)
    schedule = make_schedule(optimizer, chosen, n_steps, steps_per_epoch)
    rates = []
    for _ in range(n_rates):
        rates.append(optimizer.param_groups[0]["lr"])
        assert schedule.get_last_lr() == rates[-1:]
        optimizer.step()
        schedule.step()
    return rates


def test_linear_falls_to_zero():
    # sentiment-discovery's rates, but for the last two: it stops at 1e-8.
    expected = [0.5, 0.45, 0.4, 0.35, 0.3, 0.25, 0.2, 0.15, 0.1, 0.05, 0.0, 0.0]
    assert learning_rates(options(), 10, 5, 12) == pytest.approx(expected, abs=1e-12)


def test_exponential_decays_once_an_epoch():
    rates = learning_rates(options(schedule="exponential"), 7, 3, 7)
    assert rates == pytest.approx([0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.125])


def test_constant_stays():
    assert learning_rates(options(schedule="constant"), 4, 2, 6) == [0.5] * 6


def test_a_new_schedule_starts_anew_on_a_used_optimizer():
    optimizer = make_optimizer(nn.Linear(2, 1), options())
    for learning_rate in (0.5, 0.2):
        schedule = make_schedule(optimizer, options(learning_rate=learning_rate), 4, 4)
        assert schedule.get_last_lr() == [learning_rate]
        optimizer.step()
        schedule.step()
        assert schedule.get_last_lr() == [pytest.approx(learning_rate * 3 / 4)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_every_optimizer_makes_a_step_down(name, dtype):
    module = nn.Linear(3, 2).to(dtype)
    inputs = torch.arange(12, dtype=dtype).reshape(4, 3) / 12
    optimizer = make_optimizer(module, options(optimizer=name, learning_rate=1e-2))

    losses = []
    for _ in range(2):
        optimizer.zero_grad()
        loss = (module(inputs) - 5).square().mean()
        loss.backward()
        losses.append(loss.item())
        optimizer.step()

    assert type(optimizer) is OPTIMIZERS[name]
    assert losses[1] < losses[0]


def test_the_usual_optimizers_are_there_and_those_of_another_kind_are_not():
    assert {"adam", "adamw", "sgd", "rmsprop", "adagrad"} <= OPTIMIZERS.keys()
    assert not {"lbfgs", "sparseadam", "muon", "optimizer"} & OPTIMIZERS.keys()


def test_a_name_is_taken_in_any_case():
    assert type(make_optimizer(nn.Linear(2, 1), options(optimizer="AdamW"))) is torch.optim.AdamW
