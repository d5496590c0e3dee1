import re
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pytest

from skdiscovery import ByteMLSTMLanguageModel
from skdiscovery.inference import encoding

FLAGS = "-text -generate -temperature -neuron -overwrite -negate -layer"


@pytest.fixture(scope="module")
def script(load_script):
    return load_script("visualize")


@pytest.fixture
def run(script, tiny_model, tmp_path, capsys, monkeypatch):
    """Run the script; return its displays, the lines it printed, and the folder of the pictures."""
    displays = []
    save = script.HeatmapDisplay.save

    def keep(self, path):
        displays.append(self)
        return save(self, path, dpi=40)

    monkeypatch.setattr(script.HeatmapDisplay, "save", keep)

    def run(*options):
        always = [f"--language-model={tiny_model}", f"--experiment-dir={tmp_path}", "--device=cpu"]
        script.main([*always, *options])
        return displays[-1], capsys.readouterr().out.splitlines(), tmp_path / "mlstm" / "heatmaps"

    return run


@pytest.fixture(scope="module")
def lm(tiny_model):
    return ByteMLSTMLanguageModel.from_pretrained(tiny_model, device="cpu")


def test_a_text_is_drawn_to_a_file(run, lm):
    display, printed, folder = run("--text=Why not?", "--neuron=5")
    name = "heatmap_Why-not_layer-1_cell_neuron-5.png"
    assert printed == [str(folder / name)]
    assert [path.name for path in folder.iterdir()] == [name]
    assert plt.imread(printed[0]).shape[1] > 400
    assert display.text_bytes == [b"\n Why not? "]
    np.testing.assert_array_equal(display.values[0], lm.activations(["Why not?"], neurons=[5])[0])
    assert display.description == "neuron 5, cell state of the last layer"


def test_layer_state_negate_and_looks(run, lm):
    display, printed, _ = run(
        "--neuron=5", "--layer=0", "--state=hidden", "--negate",
        "--scale=data", "--colorbar", "--width=9",
    )  # fmt: skip
    (expected,) = lm.activations(["The meaning of life is "], neurons=[5], state="hidden", layer=0)
    np.testing.assert_array_equal(display.values[0], -expected)
    assert display.description == "neuron 5 (sign flipped), hidden state of layer 0"
    assert (display.scale, display.colorbar, display.width) == ("data", True, 9)
    assert printed[0].endswith("_layer-0_hidden_neuron-5_flipped.png")


@pytest.fixture
def weak_penalty(script, monkeypatch):
    """Let the script's classifier find a neuron of a model that knows nothing."""
    classifier = partial(script.SentimentNeuronClassifier, 1e4)
    monkeypatch.setattr(script, "SentimentNeuronClassifier", classifier)


@pytest.mark.usefixtures("weak_penalty")
def test_without_a_neuron_a_classifier_picks_one(run, lm):
    display, printed, folder = run("--text=x")
    neuron, sign = re.match(r"neuron (\d+), sign ([+-]1) ", printed[0]).groups()
    (expected,) = lm.activations(["x"], neurons=[int(neuron)])
    np.testing.assert_array_equal(display.values[0], int(sign) * expected)
    assert len([*folder.glob(f"heatmap_x_layer-1_cell_neuron-{neuron}*.png")]) == 1


@pytest.mark.usefixtures("weak_penalty")
def test_the_reviews_are_read_once(run, monkeypatch):
    read = []
    features = encoding.features
    monkeypatch.setattr(
        encoding, "features", lambda *args, **kw: (read.append(args[1]), features(*args, **kw))[1]
    )
    _, first, _ = run("--text=x")
    assert len(read) == 1
    assert run("--text=y")[1][0] == first[0]
    assert len(read) == 1


def test_text_is_written_and_drawn(run, lm):
    display, printed, folder = run("--generate", "--neuron=5", "--n-samples=2", "--seq-length=60")
    assert len(printed) == 3
    texts, traces = lm.generate(
        "The meaning of life is ", n_bytes=60 - 24, n_samples=2, temperature=0.4, random_state=0,
        trace_neurons=[5],
    )  # fmt: skip
    shown = [re.sub(r"[^ -~]", " ", text) for text in texts]
    assert [re.sub(r"[^ -~]", " ", line) for line in printed[:2]] == shown
    assert display.text_bytes == [trace.text_bytes for trace in traces]
    assert [len(text_bytes) for text_bytes in display.text_bytes] == [60, 60]
    np.testing.assert_array_equal(display.values, [trace.cell for trace in traces])
    assert printed[2].startswith(str(folder / "heatmap_The-meaning-of-life-is"))


@pytest.mark.parametrize("state", ["cell", "hidden"])
@pytest.mark.parametrize("negate", [False, True])
def test_a_neuron_is_held_and_negated(run, state, negate):
    display, printed, _ = run(
        "--generate", "--neuron=5", "--overwrite=0.75", f"--state={state}",
        f"--overwrite-state={state}", "--seq-length=30", *["--negate"] * negate,
    )  # fmt: skip
    np.testing.assert_array_equal(display.values[0][23:], np.full((7, 1), np.float32(0.75)))
    assert printed[-1].endswith(f"_neuron-5{'_flipped' * negate}_held+0.75.png")
    shown = f"{state} state of the last layer, {state} state held at +0.75 where written"
    assert display.description.endswith(shown)


def test_zero_is_a_value_to_hold(run):
    display, *_ = run(
        "--generate", "--neuron=5", "--overwrite=0", "--state=hidden", "--seq-length=30"
    )
    assert not display.values[0][23:].any()


def test_temperature_seed_and_top_k(run):
    def written(*options):
        display, *_ = run("--generate", "--neuron=5", "--seq-length=60", *options)
        return display.text_bytes[0]

    assert written("--temperature=3") == written("--temperature=3")
    assert written("--temperature=3") != written("--temperature=3", "--seed=1")
    assert written("--temperature=0") == written("--temperature=3", "--top-k=1")
    ended = written("--temperature=9", "--stop-at-end", "--seed=2")
    assert written("--temperature=9", "--seed=2").startswith(ended)
    assert b"\n" not in ended[1:]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--neuron=16"], "Neuron 16 is out of range: the model has neurons 0 to 15"),
        (["--neuron=5", "--layer=2"], "Layer 2 is out of range: the model has 2 layer"),
        (["--neuron=5", "--width=0"], "'width' parameter"),
        (["--neuron=5", "--overwrite=1"], "give --generate"),
        (["--neuron=5", "--generate", "--overwrite=inf"], "finite numbers"),
        (["--neuron=5", "--generate", "--temperature=nan"], "'temperature' parameter"),
        (["--neuron=5", "--generate", "--n-samples=0"], "'n_samples' parameter"),
        (["--neuron=5", "--generate", "--seq-length=24"], "expected more than the 24 bytes"),
        (["--language-model=nowhere"], "No language model 'nowhere'"),
        ([], "no neuron of this model tells the reviews that ship apart: give --neuron"),
        (["--device=nonsense"], "nonsense"),
    ],
)
def test_errors(run, capsys, tmp_path, options, message):
    with pytest.raises(SystemExit, match="2"):
        run(*options)
    assert message in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.png"))


def test_every_flag_of_the_original_is_explained(script, capsys, common_flags):
    with pytest.raises(SystemExit, match="0"):
        script.main(["--help"])
    explained = capsys.readouterr().out.partition("The flags of sentiment-discovery")[2]
    left = [line[:31] for line in explained.splitlines()]
    theirs = {flag for line in left for flag in re.findall(r"(?<!-)-\w+", line)}
    assert theirs == common_flags | set(FLAGS.split())
