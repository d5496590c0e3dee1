import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from skdiscovery import TextCorpus
from skdiscovery.nn import Architecture
from skdiscovery.training import (
    Lanes,
    OptimizationOptions,
    Trainer,
    TrainingPlan,
    history,
    loop,
    train,
)

HIDDEN_SIZE = 5
# All alike, so that their order makes no difference: the stream is known.
DOCUMENT = b"\n ab c "
N_DOCUMENTS = 7


def make_trainer(*, n_layers=1, cell="mlstm", dtype=torch.float64, seed=0, **options):
    defaults = {
        "optimizer": "sgd",
        "learning_rate": 0.5,
        "schedule": "constant",
        "lr_decay": 1.0,
        "grad_clip": None,
    }
    plan = TrainingPlan(
        Architecture(HIDDEN_SIZE, 4, n_layers, cell),
        OptimizationOptions(**defaults | options),
        seed,
        weight_norm=False,
        dtype=dtype,
    )
    return Trainer(plan, plan.prepare(plan.new_model(), torch.device("cpu")))


def make_lanes(persist_state="document", *, batch_size=2, seq_length=7):
    corpus = TextCorpus.from_documents([DOCUMENT] * N_DOCUMENTS, preprocessor=None)
    return Lanes(corpus, batch_size, seq_length, persist_state)


def n_bytes_of(n_steps):
    """Return the number of targets of as many steps: four make an epoch, of 49."""
    return 12 * n_steps + n_steps // 4


def run(trainer, lanes, n_steps, **arguments):
    limits = {"max_epochs": 1000, "max_steps": n_steps, "checkpoint_every": 1000}
    for name in limits.keys() & arguments.keys():
        limits[name] = arguments.pop(name)
    trainer.plan = replace(trainer.plan, **limits)
    train(trainer, lanes, **arguments)
    return trainer


def parameters_of(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def at_update(trainer, step, action, *, before):
    """Do something before or after the update of one step."""
    calls = []

    def hook(*_):
        calls.append(1)
        if len(calls) == step:
            action()

    optimizer = trainer.optimizer
    (optimizer.register_step_pre_hook if before else optimizer.register_step_post_hook)(hook)


def spoil(trainer, step, value=math.nan):
    """Let the update of one step spoil the weights, after a loss that is still finite."""
    at_update(trainer, step, lambda: trainer.model.head.bias.data.fill_(value), before=False)


def interrupt():
    raise KeyboardInterrupt


def unrolled_loss(weights, n_layers, states, inputs, targets, is_target, keep):
    """Return the loss of a batch in plain torch, and the states after it.

    A recurrent layer is written out as in Krause et al. 2016; all arguments are of shape (T, B).
    """
    loss = 0.0
    for x_t, target_t, is_target_t, keep_t in zip(inputs, targets, is_target, keep, strict=True):
        x, total = weights["embedding"][x_t], None
        for k in range(n_layers):
            wx, wh, wmx, wmh, bias = (
                weights[f"layers.{k}.{name}"] for name in ("wx", "wh", "wmx", "wmh", "bias")
            )
            h, c = (state * keep_t[:, None] for state in states[k])
            m = (x @ wmx.T) * (h @ wmh.T)
            i, f, o, u = (x @ wx.T + m @ wh.T + bias).chunk(4, dim=1)
            c = f.sigmoid() * c + i.sigmoid() * u.tanh()
            h = o.sigmoid() * c.tanh()
            states[k] = h, c
            x = total = h if total is None else total + h
        log_p = (x @ weights["head.weight"].T + weights["head.bias"]).log_softmax(dim=1)
        loss = loss - (is_target_t * log_p[torch.arange(len(target_t)), target_t]).sum()
    return loss / is_target.sum(), states


def plain_sgd(weights, n_layers, n_steps, learning_rate, persist_state):
    """Train as the trainer should, on lanes cut by hand; return the losses of the steps."""
    n_lanes, n_batches = 2, 4
    stream = torch.tensor(list(DOCUMENT * N_DOCUMENTS))
    starts = [0, len(stream) // 2]  # 49 bytes: the second lane has one more than the first
    lane_length = len(stream) - starts[1]
    targets = torch.tensor([[start + t for start in starts] for t in range(lane_length)])
    places = targets - 1  # the first byte is predicted from the last: a circle
    resets = torch.zeros_like(places, dtype=torch.bool)
    if persist_state == "document":
        resets |= places % len(DOCUMENT) == 0
    if persist_state != "always":
        resets[0] = True
    if persist_state == "shard":
        resets |= places == 0
    keep = (~resets).double()
    zeros = torch.zeros(n_lanes, HIDDEN_SIZE, dtype=torch.float64)
    states, losses = [(zeros, zeros)] * n_layers, []
    is_target = torch.ones_like(keep)
    is_target[-1, 0] = 0
    chunks = [t.split([6, 6, 6, 7]) for t in (places, is_target, keep)]
    for step in range(n_steps):
        rows, is_target, keep = (chunk[step % n_batches] for chunk in chunks)
        loss, states = unrolled_loss(
            weights, n_layers, list(states), stream[rows], stream[rows + 1], is_target, keep
        )
        gradients = torch.autograd.grad(loss, list(weights.values()))
        weights = {
            name: (w - learning_rate * g).detach().requires_grad_()
            for (name, w), g in zip(weights.items(), gradients, strict=True)
        }
        states = [(h.detach(), c.detach()) for h, c in states]
        losses.append(loss.item())
    return weights, losses


@pytest.mark.parametrize("persist_state", ["document", "shard", "always"])
@pytest.mark.parametrize("n_layers", [1, 2])
def test_steps_equal_those_of_a_plain_unrolled_loop(n_layers, persist_state):
    trainer = make_trainer(n_layers=n_layers)
    start = {name: w.requires_grad_() for name, w in parameters_of(trainer.model).items()}
    # Lanes of 24 and 25 bytes: four batches, and two of a second epoch with the state carried on.
    expected, losses = plain_sgd(start, n_layers, 6, 0.5, persist_state)

    run(trainer, make_lanes(persist_state), 6)

    for name, parameter in trainer.model.named_parameters():
        torch.testing.assert_close(parameter, expected[name], rtol=1e-9, atol=1e-12)
    assert trainer.history[-1]["loss"] == pytest.approx(np.mean(losses), rel=1e-9)


@pytest.mark.parametrize("grad_clip", [1e-3, 0.1])
def test_clipping_limits_the_norm_of_the_whole_gradient(grad_clip):
    trainer = make_trainer(learning_rate=1.0, grad_clip=grad_clip)
    before = parameters_of(trainer.model)
    run(trainer, make_lanes(), 1)

    update = torch.cat([
        (p.detach() - before[name]).flatten() for name, p in trainer.model.named_parameters()
    ])  # fmt: skip
    assert trainer.history[-1]["grad_norm"] > 0.1
    assert update.norm().item() == pytest.approx(grad_clip, rel=1e-4)


def test_without_a_clip_nothing_is_clipped():
    trainer = make_trainer(learning_rate=1.0, grad_clip=None)
    trainer.model.head.weight.data *= 1000
    before = parameters_of(trainer.model)
    run(trainer, make_lanes(), 1)
    update = [(p.detach() - before[name]).norm() for name, p in trainer.model.named_parameters()]
    norm = trainer.history[-1]["grad_norm"]
    assert math.hypot(*update) == pytest.approx(norm, rel=1e-4)
    assert norm > 2


def test_each_step_has_masks_of_its_own():
    trainer, seeds = make_trainer(), []
    trainer.plan = replace(trainer.plan, dropout=0.5)
    dropout = trainer.model.dropout
    dropout.register_forward_pre_hook(lambda *_: seeds.append(dropout.generator.initial_seed()))
    run(trainer, make_lanes(), 4)
    assert len(set(seeds)) == 4


def test_the_time_that_validation_takes_does_not_count(monkeypatch):
    trainer, now = make_trainer(), [0.0]
    monkeypatch.setattr(history, "time", SimpleNamespace(perf_counter=lambda: now[0]))

    def let_pass(seconds):
        now[0] += seconds

    trainer.optimizer.register_step_post_hook(lambda *_: let_pass(1))
    run(trainer, make_lanes(), 4, checkpoint_every=1, validate=lambda: let_pass(1000) or 1.0)
    assert [row["bytes_per_second"] for row in trainer.history] == [12, 12, 12, 13]


def test_a_clip_above_the_norm_changes_nothing():
    clipped, free = (run(make_trainer(grad_clip=clip), make_lanes(), 3) for clip in (1e6, None))
    for name, parameter in clipped.model.named_parameters():
        assert torch.equal(parameter, free.model.get_parameter(name))


def test_the_history_has_a_row_per_ten_steps_and_one_for_the_rest():
    trainer = run(make_trainer(learning_rate=0.1, schedule="linear"), make_lanes(), 23)

    rows = trainer.history
    assert [row["step"] for row in rows] == [10, 20, 23]
    assert [row["epoch"] for row in rows] == [3, 5, 6]
    assert [row["bytes"] for row in rows] == [n_bytes_of(n) for n in (10, 20, 23)]
    assert trainer.n_steps == 23
    assert trainer.n_bytes == n_bytes_of(23)
    rates = [0.1 * (1 - step / 23) for step in (9, 19, 22)]
    assert [row["learning_rate"] for row in rows] == pytest.approx(rates)
    for row in rows:
        assert row["bits_per_byte"] == pytest.approx(row["loss"] / math.log(2))
        assert row["bytes_per_second"] > 0
        assert row["grad_norm"] > 0


@pytest.mark.parametrize(
    ("max_epochs", "max_steps", "expected"), [(2, None, 8), (2, 3, 3), (1, 99, 4)]
)
def test_epochs_or_steps_end_a_run_whichever_come_first(max_epochs, max_steps, expected):
    trainer = run(make_trainer(), make_lanes(), max_steps, max_epochs=max_epochs)
    assert trainer.n_steps == expected


def test_a_second_run_goes_on():
    trainer = run(make_trainer(), make_lanes(), 4)
    run(trainer, make_lanes(), 3)
    assert trainer.n_steps == 7
    assert [row["step"] for row in trainer.history] == [4, 7]


def test_validation_is_measured_when_due_and_at_the_end():
    losses = iter([3.0, 2.0, 1.0])
    trainer = run(
        make_trainer(), make_lanes(), 5, validate=lambda: next(losses), checkpoint_every=2
    )
    rows = trainer.validation_history
    assert [(row["step"], row["epoch"], row["loss"]) for row in rows] == [
        (2, 1, 3.0),
        (4, 1, 2.0),
        (5, 2, 1.0),
    ]
    assert [row["bits_per_byte"] for row in rows] == pytest.approx(
        [x / math.log(2) for x in (3, 2, 1)]
    )
    assert [row["bytes"] for row in rows] == [n_bytes_of(n) for n in (2, 4, 5)]


@pytest.mark.parametrize("losses", [(3.0, 1.0, 2.0), (2.0, 1.0, 1.0), (3.0, 2.0, 1.0)], ids=str)
def test_a_run_that_was_better_before_its_end_says_so(losses, caplog):
    left = iter(losses)
    run(make_trainer(), make_lanes(), 5, validate=lambda: next(left), checkpoint_every=2)
    best, last = (f"{loss / math.log(2):.3f}" for loss in (min(losses), losses[-1]))
    said = f"ends with {last} bits per byte, and was at {best} after step 4: checkpoint_dir would"
    assert (said in caplog.text) == (losses[-1] > losses[1])


def test_a_run_is_not_compared_with_those_before_it(caplog):
    trainer = run(make_trainer(), make_lanes(), 2, validate=lambda: 1.0)
    run(trainer, make_lanes(), 2, validate=lambda: 2.0)
    run(trainer, make_lanes(), 2)
    assert "validation ends with" not in caplog.text


def test_states_that_are_carried_on_keep_no_others_in_memory():
    trainer, lanes = make_trainer(), make_lanes()
    batch = next(iter(lanes.epoch((0, 1), 0, slice(0, lanes.batch_size))))
    before = trainer.model.zero_state(lanes.batch_size, trainer.plan.dtype)
    _, after = loop._StreamLoss(trainer.model)(batch.to(trainer.device, trainer.plan.dtype), before)
    for layer in after:
        for state in layer:
            assert state.untyped_storage().nbytes() == state.nbytes


@pytest.mark.parametrize("step", [1, 2, 15])
def test_an_interrupt_ends_the_run_after_the_last_whole_step(step, caplog):
    trainer = make_trainer()
    at_update(trainer, step, interrupt, before=True)
    run(trainer, make_lanes(), 30)

    assert trainer.n_steps == step - 1
    assert trainer.n_bytes == n_bytes_of(step - 1)
    assert f"interrupted after step {step - 1}" in caplog.text
    expected = run(make_trainer(), make_lanes(), step - 1) if step > 1 else make_trainer()
    for name, parameter in trainer.model.named_parameters():
        assert torch.equal(parameter, expected.model.get_parameter(name))


# A loss shows what the update before it did: spoiled weights are seen one step later, which may
# be after the row of the history is written, or never.
@pytest.mark.parametrize("step", [1, 4, 9, 10, 11, 20, 22, 23])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_spoiled_weights_end_the_run_with_the_last_good_ones(step, value):
    trainer = make_trainer()
    spoil(trainer, step, value)
    with pytest.raises(ValueError, match=rf"step ({step}|{step + 1})\b"):
        run(trainer, make_lanes(), 23)

    kept = step // 10 * 10 if step % 10 else step - 10
    assert trainer.n_steps == kept
    assert trainer.n_bytes == n_bytes_of(kept)
    expected = run(make_trainer(), make_lanes(), kept) if kept else make_trainer()
    for name, parameter in trainer.model.named_parameters():
        assert torch.equal(parameter, expected.model.get_parameter(name))
    assert all(math.isfinite(row["loss"]) for row in trainer.history)


def test_the_error_of_a_lost_run_names_the_loss_the_step_and_what_to_do():
    trainer = make_trainer(learning_rate=0.25, grad_clip=3.0)
    spoil(trainer, 14)
    message = r"loss became nan at step 15: .* weights of step 10.*learning_rate.*0\.25 and 3\.0"
    with pytest.raises(ValueError, match=message):
        run(trainer, make_lanes(), 30)


@pytest.mark.parametrize("interrupted", [False, True])
def test_global_generators_are_left_alone(interrupted):
    trainer = make_trainer()
    if interrupted:
        at_update(trainer, 2, interrupt, before=True)
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002

    run(trainer, make_lanes(), 3)

    assert torch.equal(torch.get_rng_state(), torch_state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002


def test_bfloat16_learns_nearly_what_float32_does_and_keeps_its_weights_there(monkeypatch):
    def losses(dtype, has_products):
        monkeypatch.setattr(loop, "has_narrow_products", lambda: has_products)
        trainer = run(make_trainer(dtype=dtype, learning_rate=0.05), make_lanes(), 30)
        assert {p.dtype for p in trainer.model.parameters()} == {torch.float32}
        return [row["loss"] for row in trainer.history]

    exact = losses(torch.float32, has_products=True)
    # Where the CPU has no fast products of bfloat16, the hidden state alone is.
    without, with_products = (losses(torch.bfloat16, has) for has in (False, True))
    assert without == pytest.approx(exact, rel=1e-3)
    assert with_products == pytest.approx(exact, rel=1e-3)
    assert exact != without != with_products != exact
