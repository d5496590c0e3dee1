import matplotlib.pyplot as plt
import numpy as np
import pytest

from skdiscovery import MLSTMFeaturizer
from skdiscovery.datasets import load_reviews


@pytest.fixture(scope="module")
def script(load_script):
    return load_script("extremes")


@pytest.fixture
def run(script, tiny_model, tmp_path, capsys):
    """Run the script; return what it printed, and the picture."""

    def run(*options):
        path = tmp_path / "tails.png"
        script.main(
            [f"--language-model={tiny_model}", f"--output={path}", "--device=cpu", *options]
        )
        *lines, last = capsys.readouterr().out.splitlines()
        assert last == str(path)
        return lines, plt.imread(path)

    return run


def test_texts_of_both_tails_are_listed_and_drawn(run, tiny_model):
    lines, picture = run("--neuron=3", "--n-texts=2")
    texts, is_positive = load_reviews(return_X_y=True)
    values = MLSTMFeaturizer(tiny_model, neurons=[3], device="cpu").fit_transform(texts)[:, 0]
    order = np.argsort(-values, kind="stable")

    def line(i):
        return f"  {values[i]:+.3f} {'positive' if is_positive[i] else 'negative'}: {texts[i]}"

    assert lines == [
        "neuron 3, high values", *map(line, order[:2]),
        "neuron 3, low values", *map(line, order[-2:]),
    ]  # fmt: skip
    assert picture.shape[0] == round(150 * (4 + 0.6 * 4))
    _, larger = run("--neuron=3", "--n-texts=3")
    assert larger.shape[0] > picture.shape[0]


def test_all_texts_of_a_tail_are_drawn(run, script, monkeypatch):
    displays = []

    def keep(*args, **kwargs):
        displays.append(draw(*args, **kwargs))
        return displays[-1]

    draw = script.plot_heatmap
    monkeypatch.setattr(script, "plot_heatmap", keep)
    run("--neuron=3", "--n-texts=20")
    assert [display.n_pages for display in displays] == [1]


def test_by_default_a_classifier_picks_the_neuron(run):
    lines, _ = run("--n-texts=1")
    assert len(lines) == 4
    assert lines[0].startswith("neuron ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--neuron=16"], "Neuron 16 is out of range: the featurizer has 16 neurons from 0 to 15"),
        (["--n-texts=0"], "'n_texts' parameter"),
        (["--output=tails.xyz"], "--output: expected a name that ends in one of ['eps', "),
        (["--output=tails"], "got tails"),
        (["--language-model=nowhere"], "No language model 'nowhere'"),
    ],
)
def test_errors(run, capsys, options, message):
    with pytest.raises(SystemExit, match="2"):
        run(*options)
    assert message in capsys.readouterr().err


def test_a_picture_that_cannot_be_written_is_refused_before_any_work(script, said_of_a_folder):
    assert "Expected a file to write, got a folder" in said_of_a_folder(script)
