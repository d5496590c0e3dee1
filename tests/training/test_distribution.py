"""Several ranks: processes that this one starts, and processes of torchrun."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from skdiscovery import ByteMLSTMLanguageModel
from skdiscovery.training import distribution
from skdiscovery.training.distribution import (
    Group,
    complete,
    count_devices,
    join_launched,
    open_store,
    spawned_ranks,
)
from skdiscovery.training.loop import _Run

TEXTS = [f"Film {k}: {'what a delight' if k % 2 else 'a waste of time'}!" for k in range(190)]
CPU = torch.device("cpu")
PARAMS = {
    "hidden_size": 32,
    "batch_size": 8,
    "seq_length": 16,
    "max_epochs": 10,
    "max_steps": 50,
    "learning_rate": 0.005,
    "random_state": 0,
    "device": "cpu",
}
# A script without an ``if __name__ == "__main__"``: ranks must not need one.
SCRIPT = textwrap.dedent(
    f"""
    import sys
    from skdiscovery import ByteMLSTMLanguageModel
    params = {PARAMS} | eval(sys.argv[2])
    texts = {TEXTS}
    print("ready", flush=True)
    model = ByteMLSTMLanguageModel(**params).fit(texts)
    import os, torch
    from skdiscovery.training.distribution import join_launched, n_launched
    model.save_pretrained(sys.argv[1] + os.environ.get("RANK", ""))
    if n_launched():
        print(f"ranks here: {{join_launched(torch.device('cpu'))[0].local_size}}")
    """
)


@pytest.fixture(scope="module")
def one_rank():
    return ByteMLSTMLanguageModel(**PARAMS, validation_fraction=0.1).fit(TEXTS)


def assert_close(model, expected, rtol=1e-5):
    """Check that weights are the same, relative to the size of each array."""
    for name, array in expected.weights_.items():
        difference = np.linalg.norm(model.weights_[name] - array)
        assert difference <= rtol * np.linalg.norm(array), name


def start_script(folder, arguments, *launcher, **params):
    script = folder / "script.py"
    script.write_text(SCRIPT)
    return subprocess.Popen(
        [sys.executable, *launcher, script, folder / "model", repr(params), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
        start_new_session=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def saved(folder, rank=""):
    return ByteMLSTMLanguageModel.from_pretrained(f"{folder / 'model'}{rank}")


def test_two_ranks_learn_what_one_does(one_rank):
    two_ranks = ByteMLSTMLanguageModel(**PARAMS, validation_fraction=0.1, n_devices=2).fit(TEXTS)

    assert_close(two_ranks, one_rank)
    for history in ("history_", "validation_history_"):
        one, two = getattr(one_rank, history), getattr(two_ranks, history)
        assert list(one["step"]) == list(two["step"])
        assert list(one["bytes"]) == list(two["bytes"])
        np.testing.assert_allclose(two["loss"], one["loss"], rtol=1e-5)
    assert two_ranks.n_bytes_seen_ == one_rank.n_bytes_seen_


@pytest.mark.parametrize(
    "params",
    [
        {"batch_size": 3, "n_layers": 2, "weight_norm": "all"},  # lanes that two do not divide
        {"cell": "lstm", "persist_state": "always", "optimizer": "sgd", "grad_clip": None},
    ],
    ids=str,
)
def test_other_models_too(params):
    params = PARAMS | {"max_steps": 12} | params
    one, two = (ByteMLSTMLanguageModel(**params, n_devices=n).fit(TEXTS) for n in (1, 2))
    assert_close(two, one)


def test_training_goes_on_with_another_number_of_ranks(tmp_path, one_rank):
    params = PARAMS | {"checkpoint_dir": tmp_path, "checkpoint_every": 20, "max_steps": 50}
    params |= {"validation_fraction": 0.1}
    ByteMLSTMLanguageModel(**params, n_devices=1).fit(TEXTS)
    for path in sorted(tmp_path.glob("step-*"))[1:]:
        path.unlink()

    resumed = ByteMLSTMLanguageModel(**params, n_devices=2, resume=True).fit(TEXTS)

    assert_close(resumed, one_rank)
    assert list(resumed.history_["step"]) == list(one_rank.history_["step"])


def test_partial_fit_on_two_ranks_carries_the_optimizer_on():
    params = PARAMS | {"max_steps": None}
    one, two = (ByteMLSTMLanguageModel(**params, n_devices=n) for n in (1, 2))
    for model in (one, two):
        for texts in (TEXTS[:40], TEXTS[40:80]):
            model.partial_fit(texts)
    assert_close(two, one)


@pytest.fixture
def workers(monkeypatch):
    """The processes that were started."""
    processes = []
    start = distribution._Worker.__init__

    def note(worker, *arguments):
        start(worker, *arguments)
        processes.append(worker.process)

    monkeypatch.setattr(distribution._Worker, "__init__", note)
    return processes


@pytest.fixture
def before_third_step(monkeypatch):
    """Take a function to call in the first rank before its third step."""
    make_step = _Run._step

    def arrange(action):
        def step(run, batch):
            if run.position.step == 2:
                action()
            return make_step(run, batch)

        monkeypatch.setattr(_Run, "_step", step)

    return arrange


def test_an_interrupt_stops_all_ranks_after_the_step(
    workers, before_third_step, tmp_path, one_rank, ctrl_c
):
    before_third_step(ctrl_c)
    params = PARAMS | {"validation_fraction": 0.1, "checkpoint_dir": tmp_path, "resume": True}

    model = ByteMLSTMLanguageModel(**params, n_devices=2).fit(TEXTS)

    assert model.n_steps_ == 3
    assert np.isfinite(model.score(TEXTS[:5]))
    assert [worker.poll() is not None for worker in workers] == [True]
    assert not torch.distributed.is_initialized()
    before_third_step(lambda: None)
    assert_close(model.set_params(n_devices=1).fit(TEXTS), one_rank)


def test_a_rank_that_fails_ends_the_training_with_its_error(workers, before_third_step):
    before_third_step(lambda: workers[0].kill())

    model = ByteMLSTMLanguageModel(**PARAMS, n_devices=2)
    with pytest.raises(RuntimeError, match=r"Rank 1 failed \(exit status -9\)"):
        model.fit(TEXTS)
    assert distribution._of_failed_trainings[-1].size() == 2  # else this hung, now and then
    assert model.n_steps_ == 2
    assert np.isfinite(model.score(TEXTS[:5]))


def test_an_error_of_the_first_rank_is_raised_as_it_is(workers, before_third_step):
    def fail():
        raise OSError("no space left")

    before_third_step(fail)
    with pytest.raises(OSError, match="no space left"):
        ByteMLSTMLanguageModel(**PARAMS, n_devices=2).fit(TEXTS)
    assert [worker.poll() is not None for worker in workers] == [True]


def test_a_rank_that_cannot_start_ends_the_training_with_its_error(monkeypatch):
    monkeypatch.setattr(distribution, "WORKER", "skdiscovery.training.no_such_module")
    with pytest.raises(RuntimeError, match=r"Rank 1 failed .*(?s:.)*no_such_module"):
        ByteMLSTMLanguageModel(**PARAMS, n_devices=2).fit(TEXTS)


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_ranks_that_cannot_all_be_started_leave_nothing_behind(error, workers, monkeypatch):
    start = distribution._Worker.__init__

    def start_one(worker, rank, *arguments):
        if rank == 2:
            raise error
        start(worker, rank, *arguments)

    monkeypatch.setattr(distribution._Worker, "__init__", start_one)
    n_threads = torch.get_num_threads()
    torch.set_num_threads(6)
    try:
        with pytest.raises(error), spawned_ranks(3, CPU, job=None):
            pass
        assert torch.get_num_threads() == 6
    finally:
        torch.set_num_threads(n_threads)
    assert [worker.poll() is not None for worker in workers] == [True]


def test_what_waits_for_a_rank_that_failed_is_aborted():
    is_over, aborted = threading.Event(), threading.Event()
    worker = SimpleNamespace(failed=False)
    distribution._start_watch([worker], aborted.set, is_over)
    assert not aborted.wait(0.5)
    worker.failed = True
    assert aborted.wait(30)


def test_a_script_needs_no_guard(tmp_path, one_rank):
    process = start_script(tmp_path, [], validation_fraction=0.1, n_devices=2)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert output == "ready\n"
    assert_close(saved(tmp_path), one_rank)


@pytest.mark.parametrize("seconds", [0, 8], ids=["before_they_meet", "in_training"])
def test_no_rank_outlives_the_first(tmp_path, seconds):
    process = start_script(tmp_path, [], n_devices=2, max_epochs=10**6, max_steps=None)
    pids = []
    deadline = time.monotonic() + 120
    while not pids and time.monotonic() < deadline:
        time.sleep(0.2)
        found = subprocess.run(
            ["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=False
        )
        pids = [int(pid) for pid in found.stdout.split()]
    time.sleep(seconds)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 60
    while any(_runs(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert pids
    assert not any(_runs(pid) for pid in pids)


def _runs(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().split()[2] != "Z"
    except FileNotFoundError:
        return False


def test_the_ranks_of_torchrun_are_joined_and_all_end_fitted(tmp_path, one_rank):
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    process = start_script(tmp_path, [], *launcher, validation_fraction=0.1)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert output.count("ranks here: 2") == 2
    for rank in (0, 1):
        assert_close(saved(tmp_path, rank), one_rank)


def test_two_machines_of_torchrun_are_joined(tmp_path, one_rank):
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    port = store.port
    del store  # a port that was free just now
    launcher = ("-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1")
    launcher += ("--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}")
    machines = [start_script(tmp_path, [], *launcher, validation_fraction=0.1) for _ in range(2)]
    outputs = [machine.communicate(timeout=300)[0] for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], outputs
    assert all("ranks here: 1" in output for output in outputs)
    for rank in (0, 1):
        assert_close(saved(tmp_path, rank), one_rank)


@pytest.fixture
def initialise():
    """Return a function that makes a process group of this process alone."""
    store = torch.distributed.HashStore
    yield lambda: torch.distributed.init_process_group("gloo", store=store(), rank=0, world_size=1)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def test_ranks_find_each_other_without_libuv():
    first = open_store(2)
    second = open_store(2, first.port)
    second.set("word", "given")
    assert first.get("word") == b"given"
    assert not first.libuvBackend
    assert not second.libuvBackend


def test_ranks_that_are_joined_again_talk_through_the_same_channel(initialise):
    initialise()
    group, _ = join_launched(CPU)
    assert join_launched(CPU)[0] is group
    torch.distributed.destroy_process_group()
    initialise()
    assert join_launched(CPU)[0] is not group


def test_of_ranks_that_were_launched_no_machine_needs_as_many_devices(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    launched = Group(rank=5, size=8)
    with complete(launched, 8, torch.device("cuda"), n_lanes=8, job=None) as group:
        assert group is launched


def test_more_devices_than_lanes_are_refused_before_the_training():
    model = ByteMLSTMLanguageModel(**PARAMS | {"batch_size": 2}, n_devices=3)
    with pytest.raises(ValueError, match="batch_size=2 is less than one lane for each of 3"):
        model.fit(TEXTS)


def test_the_gpus_may_be_named_by_the_first(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    for name in ("cuda", "cuda:0"):
        assert count_devices("all", torch.device(name), 8) == 4


def test_all_devices_of_a_cpu_are_one():
    assert count_devices("all", CPU, 1) == 1


@pytest.mark.parametrize("device", ["meta", "cuda:1"])
def test_devices_other_than_all_gpus_or_cpus_do_not_come_in_numbers(device):
    with pytest.raises(
        ValueError, match=f"n_devices=2 needs device 'cuda' or 'cpu', got '{device}'"
    ):
        count_devices(2, torch.device(device), 8)


@pytest.mark.parametrize(("n", "size"), [(8, 1), (8, 2), (7, 3), (3, 3)])
def test_shares_are_disjoint_and_nearly_equal(n, size):
    shares = [range(n)[Group(rank, size).share_of(n)] for rank in range(size)]
    assert [k for share in shares for k in share] == list(range(n))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
