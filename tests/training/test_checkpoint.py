import json
import logging
import os
import shutil
import signal

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from skdiscovery import ByteMLSTMLanguageModel
from skdiscovery.nn import ByteLanguageModel
from skdiscovery.training.checkpoint import CheckpointFolder
from skdiscovery.training.loop import _Run

TEXTS = [f"Film {k}: {'what a delight' if k % 2 else 'a waste of time'}!" for k in range(90)]


def small(folder=None, **params):
    settings = {
        "hidden_size": 12,
        "embedding_size": 8,
        "batch_size": 4,
        "seq_length": 16,
        "max_epochs": 2,
        "learning_rate": 0.01,
        "dropout": 0.1,
        "validation_fraction": 0.1,
        "checkpoint_dir": folder,
        "checkpoint_every": 7,
        "resume": folder is not None,
        "random_state": 0,
    }
    return ByteMLSTMLanguageModel(**settings | params)


class KilledError(Exception):
    pass


def fit_until(step, model, monkeypatch):
    """Fit, but stop dead before the update after ``step``."""
    update = _Run._step

    def stop(run, batch):
        if run.trainer.n_steps == step:
            raise KilledError
        return update(run, batch)

    with monkeypatch.context() as patch:
        patch.setattr(_Run, "_step", stop)
        with pytest.raises(KilledError):
            model.fit(TEXTS)


@pytest.fixture
def fit_until_ctrl_c(monkeypatch, ctrl_c):
    """Fit a model, press Ctrl-C in a step, and return it."""
    update = _Run._step

    def fit(step, model):
        def interrupted(run, batch):
            if run.position.step == step - 1:
                ctrl_c()
            return update(run, batch)

        with monkeypatch.context() as patch:
            patch.setattr(_Run, "_step", interrupted)
            model.fit(TEXTS)
        assert model.n_steps_ == step
        return model

    return fit


def assert_same_weights(model, other):
    assert model.weights_.keys() == other.weights_.keys()
    for name, array in other.weights_.items():
        np.testing.assert_array_equal(model.weights_[name], array, err_msg=name)


def assert_same_training(model, other):
    assert_same_weights(model, other)
    timing = ["bytes_per_second"]
    assert model.history_.drop(columns=timing).equals(other.history_.drop(columns=timing))
    assert model.validation_history_.equals(other.validation_history_)


def damage(path):
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"n_layers": 2, "weight_norm": False, "optimizer": "rmsprop"},
        {"cell": "lstm", "optimizer": "sgd", "schedule": "exponential", "persist_state": "always"},
    ],
    ids=str,
)
def test_a_killed_run_ends_with_the_weights_of_one_that_was_not(params, tmp_path, monkeypatch):
    unbroken = small(**params).fit(TEXTS)
    for step in (3, 20, 50, unbroken.n_steps_ - 1):
        fit_until(step, small(tmp_path, **params), monkeypatch)
    assert_same_training(small(tmp_path, **params).fit(TEXTS), unbroken)


def test_writing_checkpoints_does_not_change_the_training(tmp_path):
    assert_same_training(small(tmp_path).fit(TEXTS), small().fit(TEXTS))


def test_a_run_without_a_seed_resumes_with_its_own(tmp_path, monkeypatch):
    np.random.seed(3)  # noqa: NPY002  # what None draws its seed from
    fit_until(40, small(tmp_path, random_state=None), monkeypatch)
    resumed = small(tmp_path, random_state=None).fit(TEXTS)
    assert_same_training(resumed, small(random_state=3).fit(TEXTS))


@pytest.mark.parametrize("max_epochs", [2, 1])
def test_a_finished_run_is_not_trained_on_and_that_is_said(max_epochs, tmp_path, caplog):
    finished = small(tmp_path).fit(TEXTS)
    assert not caplog.text
    assert_same_training(small(tmp_path, max_epochs=max_epochs).fit(TEXTS), finished)
    done, end = finished.n_steps_, finished.n_steps_ * max_epochs // 2
    assert f"nothing is left to do: step {done} of {end} is done" in caplog.text


def test_a_resumed_run_may_be_saved_more_often(tmp_path, monkeypatch, caplog):
    fit_until(20, small(tmp_path), monkeypatch)
    resumed = small(tmp_path, checkpoint_every=3).fit(TEXTS)
    assert_same_weights(resumed, small().fit(TEXTS))
    assert resumed.validation_history_.step[:4].tolist() == [7, 14, 15, 18]
    assert "checkpoint_every was 7 and is 3" in caplog.text


@pytest.mark.parametrize("end", [{"max_epochs": 1}, {"max_steps": 31}, {"max_epochs": 3}], ids=str)
def test_a_finished_run_that_is_made_longer_is_one_that_was_so_from_the_start(
    end, tmp_path, caplog
):
    settings = {"schedule": "constant", "validation_fraction": 0.0}
    finished = small(tmp_path, **settings, **end).fit(TEXTS)
    assert not caplog.text
    longer = small(tmp_path, **settings, max_epochs=4).fit(TEXTS)
    whole = small(**settings, max_epochs=4).fit(TEXTS)

    assert finished.n_steps_ < longer.n_steps_ == whole.n_steps_
    assert_same_weights(longer, whole)
    for name, value in end.items():
        assert f"{name} was {value} and is {longer.get_params()[name]}" in caplog.text


def test_a_resumed_run_takes_the_new_learning_rate_and_its_slope(tmp_path, caplog):
    finished = small(tmp_path, max_steps=20).fit(TEXTS)
    longer = small(tmp_path, max_steps=50, learning_rate=0.05).fit(TEXTS)
    rates = longer.history_.set_index("step")["learning_rate"]
    steps = np.array([30, 40, 50])
    np.testing.assert_allclose(rates[steps], 0.05 * (1 - (steps - 1) / 50))
    pd.testing.assert_frame_equal(longer.history_[: len(finished.history_)], finished.history_)
    assert "learning_rate was 0.01 and is 0.05; max_steps was 20 and is 50" in caplog.text


def test_a_resumed_run_takes_the_new_dropout(tmp_path, caplog):
    small(tmp_path / "0", max_steps=20).fit(TEXTS)
    shutil.copytree(tmp_path / "0", tmp_path / "1")
    little = small(tmp_path / "0", max_steps=50, dropout=0.0).fit(TEXTS).history_
    much = small(tmp_path / "1", max_steps=50, dropout=0.9).fit(TEXTS).history_
    pd.testing.assert_frame_equal(little[little.step <= 20], much[much.step <= 20])
    assert (little.loss < much.loss)[little.step > 20].all()
    assert "dropout was 0.1 and is 0.9; max_steps was 20 and is 50" in caplog.text


def test_what_others_draw_at_random_changes_no_mask_of_dropout(monkeypatch):
    alone, run_layers = small().fit(TEXTS), ByteLanguageModel.run_layers

    def beside_others(*args):
        torch.rand(7)  # as another thread may at any moment
        return run_layers(*args)

    monkeypatch.setattr(ByteLanguageModel, "run_layers", beside_others)
    assert_same_training(small().fit(TEXTS), alone)


def test_the_last_three_and_the_best_are_kept(tmp_path):
    model = small(tmp_path).fit(TEXTS)
    files = sorted(path.name for path in tmp_path.iterdir())
    steps = model.validation_history_.step.astype(int)
    assert files == ["best.safetensors", *(f"step-{step:012d}.safetensors" for step in steps[-3:])]


def test_where_the_best_is_kept_is_said_if_it_is_not_the_last(tmp_path, caplog):
    model = small(tmp_path, learning_rate=0.1, schedule="constant").fit(TEXTS, X_val=["Unlike. "])
    bits = model.validation_history_.bits_per_byte
    assert bits.idxmin() < len(bits) - 1
    assert f"{tmp_path / 'best.safetensors'} has that model" in caplog.text
    best = ByteMLSTMLanguageModel.from_pretrained(tmp_path / "best.safetensors")
    assert best.config_["bits_per_byte"] == bits.min()


def test_a_best_one_that_was_lost_in_writing_is_found_again(tmp_path, monkeypatch):
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    small(unbroken, max_steps=14).fit(TEXTS)
    copy, calls = shutil.copyfile, []

    def fail_the_second_time(source, target):
        calls.append(target)
        if len(calls) == 2:
            raise KilledError
        copy(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", fail_the_second_time)
        with pytest.raises(KilledError):
            small(broken, max_steps=14).fit(TEXTS)
    small(broken, max_steps=14).fit(TEXTS)

    first, second = (
        ByteMLSTMLanguageModel.from_pretrained(folder / "best.safetensors")
        for folder in (unbroken, broken)
    )
    assert first.n_steps_ == 14
    assert_same_weights(second, first)


def test_a_run_from_a_fitted_model_has_a_best_one_of_its_own(tmp_path):
    model = small(warm_start=True).fit(TEXTS)
    model.set_params(checkpoint_dir=tmp_path, learning_rate=1e-6, max_steps=7)
    model.fit(TEXTS, X_val=["Quite unlike what was there before: 12345!"])
    validations = model.validation_history_.bits_per_byte
    assert validations.iloc[-1] > validations.iloc[:-1].min()
    best = ByteMLSTMLanguageModel.from_pretrained(tmp_path / "best.safetensors")
    assert best.config_["bits_per_byte"] == validations.iloc[-1]


@pytest.mark.parametrize("optimizer", ["adam", "nadam", "asgd"])
def test_optimizers_go_on_in_double_precision(tmp_path, optimizer):
    params = {"optimizer": optimizer, "precision": "float64", "schedule": "constant"}
    small(tmp_path / "unbroken", **params, max_steps=20).fit(TEXTS)
    for n_steps in (7, 20):
        small(tmp_path / "resumed", **params, max_steps=n_steps).fit(TEXTS)
    expected, tensors = (
        load_file(tmp_path / run / "step-000000000020.safetensors")
        for run in ("unbroken", "resumed")
    )
    for name, tensor in expected.items():  # more digits than the model's, which are float32's
        assert tensors[name].dtype == tensor.dtype, name
        torch.testing.assert_close(tensors[name], tensor, rtol=0, atol=0)


def test_a_damaged_checkpoint_is_reported_and_the_one_before_is_used(tmp_path, monkeypatch, caplog):
    fit_until(50, small(tmp_path), monkeypatch)
    newest, before = sorted(tmp_path.glob("step-*"))[:-3:-1]
    damage(newest)
    before.write_bytes(before.read_bytes()[:-100])
    with caplog.at_level(logging.WARNING, "skdiscovery"):
        resumed = small(tmp_path).fit(TEXTS)
    assert newest.name in caplog.text
    assert before.name in caplog.text
    assert_same_training(resumed, small().fit(TEXTS))


def test_a_damaged_header_is_noticed_wherever_it_is(tmp_path, monkeypatch, caplog):
    fit_until(30, small(tmp_path), monkeypatch)
    newest = sorted(tmp_path.glob("step-*"))[-1]
    whole = newest.read_bytes()
    header_end = 8 + int.from_bytes(whole[:8], "little")
    places = np.random.default_rng(0).integers(8, header_end, size=60)
    checkpoints = CheckpointFolder(tmp_path, {}, 0)
    checkpoints.run = json.loads(json.loads(whole[8:header_end])["__metadata__"]["run"])
    expected = checkpoints.latest().values
    n_noticed = 0
    for place in [*places.tolist(), whole.index(b'"seed":"') + 8]:
        newest.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with caplog.at_level(logging.WARNING, "skdiscovery"):
            values = checkpoints.latest().values
        n_noticed += values != expected
        assert checkpoints.seed == int(np.random.RandomState(0).randint(2**31))
    assert n_noticed >= 60


def test_checkpoints_that_are_all_damaged_do_not_pass_for_none(tmp_path, monkeypatch):
    fit_until(30, small(tmp_path), monkeypatch)
    for path in tmp_path.glob("step-*"):
        damage(path)
    with pytest.raises(ValueError, match=r"All checkpoints in .* are damaged: .*remove step-0"):
        small(tmp_path).fit(TEXTS)


def test_a_disk_that_fills_up_ends_the_run_and_keeps_what_was_saved(small_disk, tmp_path):
    folder = small_disk(180_224)  # room for two, and no third
    model = small(folder)
    with pytest.raises(OSError, match=r"(?i)no space left"):
        model.fit(TEXTS)
    assert model.n_steps_ > 0
    assert {path.suffix for path in folder.iterdir()} == {".safetensors"}
    shutil.copytree(folder, tmp_path / "larger disk")
    assert_same_training(small(tmp_path / "larger disk").fit(TEXTS), small().fit(TEXTS))


def test_a_permission_that_is_lost_ends_the_run_and_keeps_what_was_saved(
    open_folder, monkeypatch, withdraw
):
    save, saved = CheckpointFolder.save, []

    def save_until_it_is_forbidden(self, step, *args, **kwargs):
        if len(saved) == 2:
            withdraw()
        save(self, step, *args, **kwargs)
        saved.append({path: path.read_bytes() for path in open_folder.glob("step-*")})

    monkeypatch.setattr(CheckpointFolder, "save", save_until_it_is_forbidden)
    model = small(open_folder)
    with pytest.raises(PermissionError, match="step-0"):
        model.fit(TEXTS)
    assert model.n_steps_ > 0
    assert {path: path.read_bytes() for path in open_folder.glob("step-*")} == saved[-1]


def test_a_clock_that_goes_backwards_does_not_change_which_is_the_latest(tmp_path, monkeypatch):
    unbroken = small().fit(TEXTS)
    fit_until(30, small(tmp_path), monkeypatch)
    for age, path in enumerate(sorted(tmp_path.glob("step-*"))):
        os.utime(path, (1e9 - 1000 * age, 1e9 - 1000 * age))
    monkeypatch.setattr("time.time", iter(range(10**9, 0, -1)).__next__)
    assert_same_training(small(tmp_path).fit(TEXTS), unbroken)


def test_an_interrupted_write_leaves_the_checkpoints_before(tmp_path, monkeypatch):
    def write_half(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError("No space left on device")

    fit_until(30, small(tmp_path), monkeypatch)
    files = sorted(tmp_path.iterdir())
    with monkeypatch.context() as patch:
        patch.setattr("skdiscovery.training.checkpoint.save_file", write_half)
        with pytest.raises(OSError, match="No space"):
            small(tmp_path).fit(TEXTS)
    assert sorted(tmp_path.iterdir()) == files
    assert_same_training(small(tmp_path).fit(TEXTS), small().fit(TEXTS))


@pytest.mark.parametrize(
    ("change", "texts", "message"),
    [
        ({"grad_clip": None, "max_epochs": 3}, TEXTS, r"run: grad_clip was 1\.0 and is None\. Set"),
        (
            {"hidden_size": 13, "embedding_size": 9},
            TEXTS,
            "embedding_size was 8 and is 9; hidden_size was 12 and is 13",
        ),
        ({}, TEXTS[1:], "corpus_hash was .* and is .*n_documents was 90 and is 89"),
    ],
)
def test_another_run_is_refused_with_the_differences(change, texts, message, tmp_path, monkeypatch):
    fit_until(10, small(tmp_path), monkeypatch)
    with pytest.raises(ValueError, match=message):
        small(tmp_path, **change).fit(texts)


def test_a_run_from_other_weights_is_another_run(tmp_path, monkeypatch):
    starts = [small(random_state=seed, max_steps=2).fit(TEXTS) for seed in (0, 1)]
    for start in starts:
        start.set_params(warm_start=True, checkpoint_dir=tmp_path, resume=True, max_steps=30)
    unbroken = small(max_steps=2).fit(TEXTS)
    unbroken.set_params(warm_start=True, max_steps=30).fit(TEXTS)
    fit_until(12, starts[0], monkeypatch)

    with pytest.raises(ValueError, match=r"initial_weights was '\w+, by .*' and is '\w+, by"):
        starts[1].fit(TEXTS)
    with pytest.raises(ValueError, match=r"initial_weights was '\w+, by .*' and is 'new'"):
        small(tmp_path, warm_start=True, max_steps=30).fit(TEXTS)
    again = small(max_steps=2).fit(TEXTS)
    again.set_params(warm_start=True, checkpoint_dir=tmp_path, resume=True, max_steps=30)
    assert_same_training(again.fit(TEXTS), unbroken)


def test_an_interrupted_model_would_begin_another_run_by_warm_start(tmp_path, fit_until_ctrl_c):
    model = fit_until_ctrl_c(9, small(tmp_path, warm_start=True))
    with pytest.raises(ValueError, match=r"was 'new' and is '[0-9a-f]{16}, by warm_start=True'"):
        model.fit(TEXTS)
    model.set_params(warm_start=False)
    assert_same_weights(model.fit(TEXTS), small().fit(TEXTS))


def test_a_run_is_not_overwritten_by_another(tmp_path, monkeypatch):
    fit_until(10, small(tmp_path), monkeypatch)
    with pytest.raises(ValueError, match="resume=True, or give another folder"):
        small(tmp_path, resume=False).fit(TEXTS)


@pytest.mark.parametrize("folder", ["/proc", "/dev/null/runs"])
@pytest.mark.skipif(not os.path.isdir("/proc"), reason="needs folders that no one can write to")
def test_a_folder_that_cannot_be_written_to_is_refused_before_the_training(folder):
    model = small(folder, resume=False)
    with pytest.raises(OSError, match=f"checkpoint_dir='{folder}' cannot be written to"):
        model.fit(TEXTS)
    assert not hasattr(model, "weights_")


def test_resuming_needs_a_folder():
    with pytest.raises(ValueError, match="checkpoint_dir"):
        small(resume=True).fit(TEXTS)


# Tries to fit, and is killed; in forks, that torch be imported once.
KILLED = """
import os
import sys
sys.path.insert(0, sys.argv[1])
from test_checkpoint import TEXTS, small
from skdiscovery.training import checkpoint, loop

save_file, clip = checkpoint.save_file, loop.nn.utils.clip_grad_norm_

def save_or_die(tensors, path, metadata):
    global n_saves
    n_saves -= 1
    if n_saves == 0:
        path.with_name("of a library").write_bytes(b"half a checkpoint")
        os.kill(os.getpid(), number)
    save_file(tensors, path, metadata)

def clip_or_die(*arguments):
    global n_steps
    n_steps -= 1
    if n_steps == 0:
        os.kill(os.getpid(), number)
    return clip(*arguments)

checkpoint.save_file = save_or_die
loop.nn.utils.clip_grad_norm_ = clip_or_die
for n_saves, n_steps, number in eval(sys.argv[3]):
    if os.fork() == 0:
        small(sys.argv[2], device="cpu").fit(TEXTS)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.wait()[1]))
"""


def test_a_process_killed_at_any_moment_resumes_exactly(tmp_path, run_script):
    """In the middle of writing a checkpoint, and in the middle of a step."""
    kill, terminate = int(signal.SIGKILL), int(signal.SIGTERM)
    moments = [(1, 0, kill), (0, 4, kill), (3, 0, terminate), (0, 10, kill)]
    done = run_script(KILLED, os.path.dirname(__file__), tmp_path, moments)
    assert done.stdout.split() == [str(-number) for *_, number in moments], done.stderr
    resumed, unbroken = small(tmp_path, device="cpu"), small(device="cpu")
    assert_same_training(resumed.fit(TEXTS), unbroken.fit(TEXTS))
    assert all(path.suffix == ".safetensors" for path in tmp_path.iterdir())


@pytest.mark.parametrize("step", [12, 14], ids=["between_validations", "at_a_validation"])
def test_ctrl_c_leaves_a_checkpoint_of_the_step_under_way(step, tmp_path, fit_until_ctrl_c):
    fit_until_ctrl_c(step, small(tmp_path))

    assert sorted(tmp_path.glob("step-*"))[-1].name == f"step-{step:012}.safetensors"
    resumed, unbroken = small(tmp_path).fit(TEXTS), small().fit(TEXTS)
    assert_same_weights(resumed, unbroken)
    assert resumed.validation_history_.equals(unbroken.validation_history_)
