import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.utils import Bunch

from skdiscovery import ByteMLSTMLanguageModel, TextCorpus
from skdiscovery.training.checkpoint import CheckpointFolder

SCRIPT = Path(__file__).parents[2] / "examples" / "pretrain.py"
PNG = b"\x89PNG\r\n\x1a\n"
FLAGS = """
-start_epoch -start_iter -epochs -max_iters -lr --optimizer_type -lr_scheduler -lr_factor -clip
-no_loss -save_epochs -save_iters -save_optim -load_optim
"""
WORDS = "a the film plot was is lovely dull great awful and never so story actors"


@pytest.fixture(scope="module")
def script(load_script):
    return load_script("pretrain")


@pytest.fixture(scope="module")
def reviews():
    """200 texts of 12 words."""
    drawn = np.random.RandomState(0).choice(WORDS.split(), (200, 12))
    return [" ".join(text) for text in drawn]


@pytest.fixture
def files(tmp_path, reviews):
    """A file of each part, each of another format."""
    pd.DataFrame({"text": reviews[:160]}).to_json(
        tmp_path / "train.jsonl.gz", orient="records", lines=True
    )
    pd.DataFrame({"stars": 1, "text": reviews[160:180]}).to_csv(
        tmp_path / "valid.csv", index=False, sep=";"
    )
    (tmp_path / "test.txt").write_text("\n".join(reviews[180:]))
    return {
        part: f"--{part}={tmp_path / name}"
        for part, name in (
            ("train", "train.jsonl.gz"),
            ("valid", "valid.csv"),
            ("test", "test.txt"),
        )
    }


@pytest.fixture
def arguments(tmp_path, files):
    """Return the arguments of a short run."""

    def arguments(*more, name="mlstm"):
        return [
            files["train"],
            "--text-key=text",
            f"--cache-dir={tmp_path / 'cache'}",
            "--hidden-size=16",
            "--embedding-size=8",
            "--batch-size=8",
            "--seq-length=20",
            "--max-steps=40",
            "--checkpoint-every=20",
            "--learning-rate=0.01",
            "--split=8,1,1",
            "--device=cpu",
            f"--experiment-dir={tmp_path / 'experiments'}",
            f"--experiment-name={name}",
            *map(str, more),
        ]

    return arguments


@pytest.fixture
def run(script, arguments, tmp_path, capsys, monkeypatch):
    """Run the script on the arguments of a short run and more; return its folder.

    Drawing takes the most time by far, and is left out where it is not the point.
    """

    def run(*more, name="mlstm", draw=False):
        if not draw:
            monkeypatch.setattr(script.Figure, "savefig", lambda *_, **__: None)
        script.main(arguments(*more, name=name))
        return tmp_path / "experiments" / name

    return run


def results(folder):
    return json.loads((folder / "results.json").read_text())


def weights(folder):
    return ByteMLSTMLanguageModel.from_pretrained(folder / "model.safetensors").weights_


def assert_same_weights(one, other):
    for name, weight in weights(one).items():
        np.testing.assert_array_equal(weight, weights(other)[name], err_msg=name)


def when_saved(monkeypatch, step, error):
    """Raise the error right after the checkpoint of a step."""
    save = CheckpointFolder.save

    def save_and_raise(self, at, *args, **kwargs):
        save(self, at, *args, **kwargs)
        if at == step:
            raise error

    monkeypatch.setattr(CheckpointFolder, "save", save_and_raise)


class Killed(BaseException):
    """What no code catches."""


def test_files(run, capsys):
    folder = run(draw=True)
    assert sorted(path.name for path in folder.iterdir()) == [
        "checkpoints",
        "history.csv",
        "loss.png",
        "model.safetensors",
        "results.json",
        "validation_history.csv",
    ]
    assert (folder / "checkpoints" / "best.safetensors").exists()
    assert (folder / "loss.png").read_bytes().startswith(PNG)
    history = pd.read_csv(folder / "history.csv")
    assert history["step"].tolist() == [10, 20, 30, 40]
    assert pd.read_csv(folder / "validation_history.csv")["step"].tolist() == [20, 40]

    found = results(folder)
    lm = ByteMLSTMLanguageModel.from_pretrained(folder / "model.safetensors", device="cpu")
    assert lm.config_["hidden_size"] == 16
    assert found["n_steps"] == lm.n_steps_ == 40
    assert found["n_bytes_seen"] == lm.n_bytes_seen_
    assert found["bytes_per_second"] == history["bytes_per_second"].median()
    assert found["options"]["split"] == "8,1,1"
    bits = found["bits_per_byte"]
    last = pd.read_csv(folder / "validation_history.csv")["bits_per_byte"].iloc[-1]
    assert bits["valid"] == pytest.approx(last, abs=1e-6)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith(f"valid: {bits['valid']:.4f} bits per byte, 16 documents, ")
    assert printed[1].startswith(f"test: {bits['test']:.4f} bits per byte, 16 documents, ")
    assert printed[2].startswith(f"train: 40 steps, {lm.n_bytes_seen_} bytes read, ")


def test_default_recipe(script):
    options = script.make_parser().parse_args([])
    lm = script.make_language_model(options)
    script.set_limits(lm, options, 10**6)
    parameters = lm.get_params()
    assert parameters.items() >= {
        "batch_size": 128,
        "seq_length": 256,
        "max_epochs": 1,
        "max_steps": None,
        "optimizer": "adam",
        "learning_rate": 5e-4,
        "schedule": "linear",
        "grad_clip": 1.0,
        "persist_state": "shard",
        "weight_norm": True,
        "random_state": 0,
        "resume": True,
        "warm_start": False,
    }.items()  # fmt: skip
    assert options.split == "1000,1,1"


def test_every_option_reaches_the_model(script):
    options = """
        --cell=lstm --layers=2 --hidden-size=7 --embedding-size=5 --dropout=0.1 --weight-norm=none
        --preprocessor=nvidia --seq-length=-9 --persist-state=always --epochs=3 --max-steps=2
        --optimizer=sgd --learning-rate=1 --schedule=exponential --lr-decay=0.5 --clip=0
        --batch-size=4 --checkpoint-every=6 --seed=8 --device=cpu --n-devices=all
        --precision=float64 --backend=torch
    """
    options = script.make_parser().parse_args(options.split())
    lm = script.make_language_model(options)
    assert (
        lm.get_params().items()
        >= {
            "cell": "lstm",
            "n_layers": 2,
            "hidden_size": 7,
            "embedding_size": 5,
            "dropout": 0.1,
            "weight_norm": False,
            "preprocessor": "nvidia",
            "seq_length": -9,
            "persist_state": "always",
            "max_epochs": 3,
            "max_steps": 2,
            "optimizer": "sgd",
            "learning_rate": 1.0,
            "schedule": "exponential",
            "lr_decay": 0.5,
            "grad_clip": None,
            "batch_size": 4,
            "checkpoint_every": 6,
            "random_state": 8,
            "device": "cpu",
            "n_devices": "all",
            "precision": "float64",
            "backend": "torch",
        }.items()
    )


@pytest.mark.parametrize(
    ("options", "max_steps", "max_epochs"),
    [
        ([], None, 1),
        (["--epochs=3"], None, 3),
        (["--max-steps=70"], 70, 70),
        (["--max-steps=70", "--epochs=3"], 70, 3),
        (["--n-megabytes=0.4"], 200, 200),  # of 20 * 100 bytes
        (["--n-megabytes=0.4", "--seq-length=-500"], 104, 104),  # 4 times, in 26 batches each
        (["--n-megabytes=0.4", "--seq-length=-2"], 4, 4),  # lanes are shorter than half of it
        (["--n-megabytes=0.4", "--seq-length=3000"], 8, 8),  # of 20 * 2500 bytes
    ],
)
def test_how_long_to_train(script, options, max_steps, max_epochs):
    options = ["--batch-size=20", "--seq-length=100", *options]
    options = script.make_parser().parse_args(options)
    lm = script.make_language_model(options)
    script.set_limits(lm, options, TextCorpus.from_documents([b"x" * 100_000], preprocessor=None))
    assert (lm.max_steps, lm.max_epochs) == (max_steps, max_epochs)


@pytest.mark.parametrize(
    ("split", "given", "shares"),
    [
        ("1.", "", [1, 0, 0]),
        (".8", "", [0.8, 0.2, 0]),
        (".8,.1", "", [0.8, 0.1, 0.1]),
        ("8/1/1", "", [0.8, 0.1, 0.1]),
        ("2,1", "", [2 / 3, 1 / 3, 0]),
        ("1000,1,1", "valid", [1000 / 1001, 0, 1 / 1001]),
        ("1000,1,1", "valid test", [1, 0, 0]),
        (".8,.1", "valid", [8 / 9, 0, 1 / 9]),
    ],
)
def test_split_shares(script, split, given, shares):
    wanted = [part not in given for part in ("train", "valid", "test")]
    assert script.split_shares(split, wanted) == pytest.approx(shares)


def test_files_replace_their_share_of_the_split(script, arguments, files):
    def parts(*more):
        options = script.make_parser().parse_args(arguments("--delimiter=;", *more))
        return script.read_parts(options, "review")

    lengths = {part: len(corpus) for part, corpus in parts().items()}
    assert lengths == {"train": 128, "valid": 16, "test": 16}
    found = parts(files["valid"])
    assert {part: len(corpus) for part, corpus in found.items()} == {
        "train": 142, "valid": 20, "test": 18
    }  # fmt: skip
    found = parts(files["valid"], files["test"])
    assert {part: len(corpus) for part, corpus in found.items()} == {
        "train": 160, "valid": 20, "test": 20
    }  # fmt: skip
    found = parts("--split=1")
    assert {part: len(corpus) for part, corpus in found.items()} == {"train": 160}
    found = parts(files["train"], *files["train"].split("="), files["test"].split("=")[1])
    assert sum(len(corpus) for corpus in found.values()) == 180  # of two files together


def test_the_same_seed_holds_out_the_same_documents(script, arguments):
    def tests(*more):
        options = script.make_parser().parse_args(arguments(*more))
        return list(script.read_parts(options, "review")["test"])

    assert tests() == tests()
    assert tests() != tests("--seed=1")


def test_imdb_is_the_default(script, monkeypatch, reviews):
    parts = {"train": reviews[:100], "unsupervised": reviews[100:]}
    monkeypatch.setattr(script, "fetch_imdb", lambda subset: Bunch(data=parts[subset]))
    options = script.make_parser().parse_args(["--split=1"])
    corpus = script.read_parts(options, None)["train"]
    assert list(corpus) == [review.encode() for review in reviews]


def test_without_held_out_documents(run, capsys):
    folder = run("--split=1")
    assert results(folder)["bits_per_byte"] == {}
    assert pd.read_csv(folder / "validation_history.csv").empty
    assert capsys.readouterr().out.startswith("train: ")


def test_again_it_trains_no_more(run):
    folder = run()
    history, before = (folder / "history.csv").read_text(), weights(folder)
    run()
    assert (folder / "history.csv").read_text() == history  # seconds and all
    for name, weight in weights(folder).items():
        np.testing.assert_array_equal(weight, before[name])


def test_a_killed_run_goes_on(run, monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        when_saved(patch, 20, Killed())
        with pytest.raises(Killed):
            run()
    assert not (tmp_path / "experiments" / "mlstm" / "model.safetensors").exists()
    assert_same_weights(run(), run(name="uninterrupted"))


def test_a_run_that_has_ended_is_made_longer(run):
    constant = "--schedule=constant"
    folder = run(constant)
    run(constant, "--max-steps=60")
    assert results(folder)["n_steps"] == 60
    assert_same_weights(folder, run(constant, "--max-steps=60", name="so from the start"))


def test_ctrl_c_leaves_a_model_and_the_run_goes_on(run, monkeypatch):
    with monkeypatch.context() as patch:
        when_saved(patch, 20, KeyboardInterrupt())
        folder = run()
    assert results(folder)["n_steps"] == 20
    assert set(results(folder)["bits_per_byte"]) == {"valid", "test"}
    run()
    assert results(folder)["n_steps"] == 40
    assert_same_weights(folder, run(name="uninterrupted"))


def test_ctrl_c_before_there_is_a_history(run, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(torch.optim.Adam, "step", interrupt)
    folder = run()
    assert results(folder)["n_steps"] == 0
    assert not (folder / "loss.png").exists()


def test_a_loss_that_becomes_infinite_leaves_the_last_good_weights(
    run, script, monkeypatch, capsys, tmp_path
):
    fit = ByteMLSTMLanguageModel.fit

    def diverge(self, *args, **kwargs):
        fit(self, *args, **kwargs)
        raise ValueError("The loss became nan at step 41")

    monkeypatch.setattr(ByteMLSTMLanguageModel, "fit", diverge)
    with pytest.raises(SystemExit, match="2"):
        run()
    assert "error: The loss became nan at step 41\n" in capsys.readouterr().err
    folder = tmp_path / "experiments" / "mlstm"
    assert ByteMLSTMLanguageModel.from_pretrained(folder / "model.safetensors").n_steps_ == 40
    assert not (folder / "results.json").exists()


def test_another_command_with_the_same_name_is_refused(run, capsys):
    folder = run()
    before = (folder / "model.safetensors").read_bytes()
    with pytest.raises(SystemExit, match="2"):
        run("--clip=0.2")
    error = capsys.readouterr().err
    assert "is of another run: grad_clip was 1.0 and is 0.2" in error
    assert "Traceback" not in error
    assert (folder / "model.safetensors").read_bytes() == before


def test_half_precision(run):
    sizes = [
        (run(f"--dtype={dtype}", name=dtype) / "model.safetensors").stat().st_size
        for dtype in ("float32", "float16")
    ]
    assert sizes[1] < 0.6 * sizes[0]


def test_load_starts_from_a_model(run, script, arguments, tmp_path):
    path = run("--preprocessor=openai", name="first") / "model.safetensors"
    more = [
        argument
        for argument in arguments(f"--load={path}", name="second")
        if "-size=" not in argument or "batch" in argument
    ]
    script.main(more)
    folder = tmp_path / "experiments" / "second"
    second = ByteMLSTMLanguageModel.from_pretrained(folder / "model.safetensors")
    assert second.n_steps_ == 80
    assert second.config_["preprocessor"] == "openai"
    assert second.config_["hidden_size"] == 16
    start = results(tmp_path / "experiments" / "first")["bits_per_byte"]["valid"]
    assert results(folder)["bits_per_byte"]["valid"] < start
    script.main(more)  # once more: nothing is left to do
    assert ByteMLSTMLanguageModel.from_pretrained(folder / "model.safetensors").n_steps_ == 80


def test_a_model_is_widened_before_it_trains_on(run, script, arguments, tmp_path):
    path = run(name="narrow") / "model.safetensors"
    more = arguments(f"--load={path}", "--hidden-size=40", name="wide")
    more = [argument for argument in more if not argument.startswith("--embedding-size")]
    lm = script.make_language_model(script.make_parser().parse_args(more))
    narrow = ByteMLSTMLanguageModel.from_pretrained(path)
    assert lm.hidden_size == 40
    text = ["The wide model begins where the narrow one ended."]
    assert lm.score(text) == pytest.approx(narrow.score(text), rel=1e-5)
    script.main(more)
    folder = tmp_path / "experiments" / "wide"
    wide = ByteMLSTMLanguageModel.from_pretrained(folder / "model.safetensors")
    assert wide.weights_["layers.0.wh"].shape == (160, 40)
    assert wide.n_steps_ == 80


def test_no_model_is_narrowed(run, script, arguments, capsys):
    path = run(name="wide") / "model.safetensors"
    more = arguments(f"--load={path}", "--hidden-size=4", name="narrow")
    with pytest.raises(SystemExit):
        script.main([argument for argument in more if not argument.startswith("--embedding-size")])
    assert "widened, not narrowed: it has 16 neurons" in capsys.readouterr().err


def test_evaluate_only(run, script, arguments, files, capsys, tmp_path):
    path = run(files["test"]) / "model.safetensors"
    printed = capsys.readouterr().out.splitlines()
    options = [f"--load={path}", "--evaluate-only", "--device=cpu", f"--experiment-dir={tmp_path}"]

    script.main([*options, files["test"]])  # --train is not needed
    assert capsys.readouterr().out.splitlines() == printed[1:2]
    script.main([*options, files["train"], "--text-key=text", "--split=8,1,1"])
    parts = [line.split(":")[0] for line in capsys.readouterr().out.splitlines()]
    assert parts == ["valid", "test"]
    assert not (tmp_path / "mlstm").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--train=nowhere.csv"], "nowhere.csv"),
        (["--text-key=review"], "review"),
        (["--test=empty.txt"], "There is no document in"),
        (["--split=0,1,1"], "--split: expected up to three shares, the first above 0, got '0,1,1'"),
        (["--split=1,1,1,1"], "--split: expected up to three shares"),
        (["--split=most"], "expected non-negative numbers"),
        (["--load=nowhere"], "No language model 'nowhere'"),
        (["--load=default"], "the model's file decides about --embedding-size: leave that out"),
        (["--evaluate-only"], "--evaluate-only needs a model: name it with --load"),
        (["--n-megabytes=1"], "not allowed with argument --max-steps"),
        (["--n-devices=some"], "invalid number_or_all value: 'some'"),
        (["--weight-norm=some"], "invalid choice: 'some'"),
        (["--optimizer=magic"], "Unknown optimizer 'magic'"),
        (["--epochs=0"], "'max_epochs' parameter"),
        (["--batch-size=0"], "'batch_size' parameter"),
        (["--seq-length=0"], "'seq_length' parameter"),
        (["--batch-size=100000"], "batch_size=100000"),
        (["--device=nonsense"], "nonsense"),
        (["--pooling", "mean", "men"], "invalid choice: 'men'"),
    ],
)
def test_errors(run, tmp_path, capsys, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    Path("empty.txt").touch()
    with pytest.raises(SystemExit, match="2"):
        run(*options)
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("usage: ")
    assert not (tmp_path / "experiments" / "mlstm" / "model.safetensors").exists()


@pytest.mark.parametrize("n_megabytes", ["-1", "0", "nan", "inf"])
def test_there_is_text_to_read_for(script, capsys, files, n_megabytes):
    with pytest.raises(SystemExit, match="2"):
        script.main([files["train"], "--text-key=text", f"--n-megabytes={n_megabytes}"])
    assert "--n-megabytes: expected a number above 0, got" in capsys.readouterr().err


def test_encoding(script, arguments, tmp_path):
    path = tmp_path / "latin.csv"
    path.write_text("text\nTrès bon.\n", encoding="latin-1")

    def read(*more):
        given = arguments(f"--train={path}", "--split=1", *more)
        return list(script.read_parts(script.make_parser().parse_args(given), None)["train"])

    assert read("--encoding=latin-1") == ["Très bon.".encode()]
    assert read("--decode-error=ignore") == [b"Trs bon."]
    with pytest.raises(ValueError, match=r"latin\.csv is not utf-8"):
        read()


def test_nothing_to_evaluate(script, files, capsys):
    with pytest.raises(SystemExit, match="2"):
        script.main(
            ["--evaluate-only", "--load=default", files["train"], "--text-key=text", "--split=1"]
        )
    assert "--evaluate-only needs documents" in capsys.readouterr().err


def test_weight_norm_of_all_matrices(run):
    assert results(run("--weight-norm=all"))["parameters"]["weight_norm"] == "all"


@pytest.mark.parametrize(
    ("launcher", "option"),
    [
        ([], "--n-devices=2"),
        (["-m", "torch.distributed.run", "--nproc-per-node=2"], "--n-devices=1"),
    ],
    ids=["spawn", "torchrun"],
)
def test_two_processes_train_the_same_model(run, arguments, launcher, option):
    done = subprocess.run(
        [sys.executable, *launcher, str(SCRIPT), *arguments(option, name="two")],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SCRIPT.parents[1])},
    )
    assert done.stdout.count("test: ") == 1  # one process speaks for both
    assert re.search(
        r"bytes/s on 2 x cpu, \d+ each \(float32, batches of \d+ x \d+\);", done.stdout
    )
    alone = run(name="one")
    assert results(alone)["trained_on"]["n_devices"] == 1
    assert results(alone.parent / "two")["trained_on"]["n_devices"] == 2
    for name, weight in weights(alone).items():
        np.testing.assert_allclose(weights(alone.parent / "two")[name], weight, atol=1e-4)


def test_help(monkeypatch, capsys, script, common_flags):
    monkeypatch.setattr("sys.argv", ["pretrain.py", "--help"])
    with pytest.raises(SystemExit, match="0"):
        runpy.run_path(str(SCRIPT), run_name="__main__")
    text = capsys.readouterr().out
    assert "python examples/pretrain.py" in text
    assert "(default: 0.0005)" in text
    assert "None" not in text

    table = [line for line in text.split("what they are here:")[1].splitlines() if "  -" in line]
    theirs = {flag for line in table for flag in re.findall(r"-+[a-z]\w*", line[:32])}
    assert theirs == common_flags | set(FLAGS.split())
    ours = {flag for line in table for flag in re.findall(r"--[a-z][-a-z]+", line[32:])}
    assert ours <= set(script.make_parser()._option_string_actions)


def test_the_file_recommends_a_pooling_where_one_is_given(run):
    folders = run(name="without"), run("--pooling", "last", "mean", "last", name="with")
    recommended = [
        ByteMLSTMLanguageModel.from_pretrained(folder / "model.safetensors").config_.get("pooling")
        for folder in folders
    ]
    assert recommended == [None, ["last", "mean"]]
