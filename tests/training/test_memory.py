import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from skdiscovery import ByteMLSTMLanguageModel
from skdiscovery.nn import Architecture, ByteLanguageModel
from skdiscovery.training import memory
from skdiscovery.training.memory import (
    USABLE_SHARE,
    bytes_of_training,
    bytes_per_lane,
    free_memory,
    lanes_at_once,
)

TEXTS = [f"Film {k}: {'what a delight' if k % 2 else 'a waste of time'}!" for k in range(40)]
PARAMS = {
    "hidden_size": 12,
    "batch_size": 7,
    "seq_length": 16,
    "max_epochs": 2,
    "learning_rate": 0.01,
    "device": "cpu",
    "random_state": 0,
}


def make_model(**sizes):
    return ByteLanguageModel(Architecture(**{"hidden_size": 16} | sizes))


@pytest.fixture
def leave_room_for(monkeypatch):
    """Take a number of lanes; leave as much memory as they need."""

    def leave(n_lanes, model, seq_length, dtype=torch.float32):
        needed = bytes_of_training(model) + n_lanes * bytes_per_lane(model, dtype, seq_length)
        monkeypatch.setattr(memory, "free_memory", lambda device: needed / USABLE_SHARE + 1)

    return leave


@pytest.mark.parametrize(
    ("n_fitting", "expected"),
    [(100, 8), (8, 8), (7, 4), (4, 4), (3.9, 3), (3, 3), (2, 2), (1.9, 1), (1, 1)],
)
def test_a_batch_goes_through_in_as_few_equal_parts_as_fit(n_fitting, expected, leave_room_for):
    model = make_model()
    leave_room_for(n_fitting, model, 32)
    assert lanes_at_once(model, torch.float32, 8, 32) == expected


@pytest.mark.parametrize("n_layers", [1, 2])
def test_what_dropout_takes_is_counted(n_layers):
    sizes = Architecture(hidden_size=16, n_layers=n_layers)
    without, with_dropout = (
        bytes_per_lane(ByteLanguageModel(sizes, p), torch.float32, 10) for p in (0.0, 0.1)
    )
    assert with_dropout - without >= n_layers * 10 * 16 * torch.float32.itemsize


def test_parts_are_said_with_the_figures(leave_room_for, caplog):
    model = make_model()
    leave_room_for(3, model, 32)
    lanes_at_once(model, torch.float32, 8, 32)
    assert "a batch of 8 lanes needs about" in caplog.text
    assert "goes through the model in 3 parts" in caplog.text


def test_a_lane_that_does_not_fit_is_refused_with_what_to_lower(leave_room_for):
    model = make_model(n_layers=2)
    leave_room_for(0, model, 32)
    with pytest.raises(MemoryError, match=r"lower hidden_size \(now 16\), n_layers \(now 2\) or"):
        lanes_at_once(model, torch.float32, 8, 32)


def test_ranks_on_a_cpu_share_its_memory(leave_room_for):
    model = make_model()
    leave_room_for(8, model, 2**14)
    assert lanes_at_once(model, torch.float32, 8, 2**14, n_ranks=1) == 8
    assert lanes_at_once(model, torch.float32, 8, 2**14, n_ranks=2) < 8


def test_the_gradient_in_parts_is_the_gradient(leave_room_for):
    whole = ByteMLSTMLanguageModel(**PARAMS).fit(TEXTS)
    leave_room_for(3, make_model(hidden_size=12), 16)

    in_parts = ByteMLSTMLanguageModel(**PARAMS).fit(TEXTS)

    for name, array in whole.weights_.items():
        np.testing.assert_allclose(in_parts.weights_[name], array, rtol=1e-4, atol=1e-6)
    assert not all(
        np.array_equal(in_parts.weights_[name], array) for name, array in whole.weights_.items()
    )


def test_a_resumed_run_goes_on_in_the_parts_it_began_with(leave_room_for, tmp_path):
    params = PARAMS | {"dropout": 0.3, "schedule": "constant"}
    leave_room_for(3, make_model(hidden_size=12), 16)
    unbroken = ByteMLSTMLanguageModel(**params).fit(TEXTS)
    ByteMLSTMLanguageModel(**params, checkpoint_dir=tmp_path, max_steps=5).fit(TEXTS)
    leave_room_for(100, make_model(hidden_size=12), 16)
    resumed = ByteMLSTMLanguageModel(**params, checkpoint_dir=tmp_path, resume=True).fit(TEXTS)
    assert resumed.n_steps_ > 5
    for name, array in unbroken.weights_.items():
        np.testing.assert_array_equal(resumed.weights_[name], array)


def test_fit_refuses_before_the_first_step(leave_room_for):
    leave_room_for(0, make_model(hidden_size=12), 16)
    model = ByteMLSTMLanguageModel(**PARAMS)
    with pytest.raises(MemoryError, match="lower hidden_size"):
        model.fit(TEXTS)
    assert not hasattr(model, "weights_")


def test_free_memory_of_the_cpu_is_plausible():
    assert 2**20 < free_memory(torch.device("cpu")) < 2**50


@pytest.fixture
def container(monkeypatch, tmp_path):
    """Return a function that sets what a container may have, has, and could give back."""

    def limit(maximum, current, inactive_file):
        (tmp_path / "memory.max").write_text(f"{maximum}\n")
        (tmp_path / "memory.current").write_text(f"{current}\n")
        (tmp_path / "memory.stat").write_text(f"anon 17\ninactive_file {inactive_file}\nslab 4\n")
        monkeypatch.setattr(memory, "CONTROL_GROUP", tmp_path)

    return limit


def test_a_container_has_what_its_limit_leaves(container):
    container(2**20, 1000, 200)
    assert free_memory(torch.device("cpu")) == 2**20 - 800


def test_a_container_without_a_limit_has_what_the_machine_has(container):
    container("max", 1000, 200)
    assert 2**20 < free_memory(torch.device("cpu")) < 2**50


def test_a_limit_beyond_the_machine_is_none(container):
    container(2**60, 1000, 200)
    assert 2**20 < free_memory(torch.device("cpu")) < 2**50


def test_where_free_memory_cannot_be_known_there_is_enough(monkeypatch):
    monkeypatch.setattr(memory, "CONTROL_GROUP", Path("/there/is/none"))
    monkeypatch.setattr(Path, "exists", lambda path: False)
    monkeypatch.delattr(os, "sysconf")  # as on Windows
    assert lanes_at_once(make_model(), torch.float32, 1024, 4096, n_ranks=8) == 1024


# Prints what each model's step takes: in forks, that torch be imported once.
MEASURE = """
import os
import sys
from pathlib import Path
from skdiscovery import ByteMLSTMLanguageModel

def peak():  # in kB; unlike that of getrusage, not inherited from the process that started this
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])

text = [bytes(range(256)) * 2000]
for params in eval(sys.argv[1]):
    if os.fork() == 0:
        model = ByteMLSTMLanguageModel(preprocessor=None, max_steps=1, random_state=0, **params)
        model.set_params(batch_size=1, seq_length=1).fit(text)
        before = peak()
        model.set_params(**params).fit(text)
        print(1024 * (peak() - before), flush=True)
        os._exit(0)
    os.wait()
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="measures memory as Linux does")
def test_the_estimate_is_near_what_a_step_takes(run_script):
    batch_size, seq_length = 64, 256
    models = [
        {"hidden_size": 256},
        {"hidden_size": 128, "n_layers": 3},
        {"hidden_size": 256, "cell": "lstm"},
    ]
    batch = {"batch_size": batch_size, "seq_length": seq_length, "device": "cpu"}
    done = run_script(MEASURE, [batch | model for model in models])
    measured = [int(line) for line in done.stdout.splitlines()]
    estimates = [
        batch_size * bytes_per_lane(make_model(**model), torch.float32, seq_length)
        for model in models
    ]
    print("measured", measured, "estimated", estimates, done.stderr)
    ratios = np.divide(estimates, measured)
    assert len(measured) == len(models)
    assert (ratios > 0.6).all()
    assert (ratios < 1.7).all()
