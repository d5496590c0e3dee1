import inspect
import time
import warnings

import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn.pipeline import Pipeline

from skdiscovery.plotting import HeatmapDisplay, plot_heatmap


def test_a_pipeline_shows_its_sentiment_neuron(fakes, language_model):
    pipeline = Pipeline(
        [("f", fakes.Featurizer(language_model)), ("c", fakes.Classifier(column=1, sign=-1))]
    ).fit(["good", "bad"], [1, 0])
    display = plot_heatmap(pipeline, "café", width=3)
    assert isinstance(display, HeatmapDisplay)
    values = display.mesh_.get_array()
    assert values.shape == (2, 3)
    # c, a, f, then é after its second byte and the space that preprocessing adds
    expected = [-0.32, -0.3201, -0.3202, -0.3204, -0.3205]
    np.testing.assert_allclose(values.compressed(), expected, rtol=1e-5)
    assert [text.get_text() for text in display.ax_.texts] == ["c", "a", "f", "é"]
    assert display.ax_.get_xlabel().replace("\n", " ") == (
        "neuron 3 (sign flipped), cell state of the last layer, fixed colour scale -1 to 1"
    )


def test_everything_is_passed_on(language_model):
    _, ax = plt.subplots()
    display = plot_heatmap(
        language_model,
        "ab",
        neuron=2,
        layer=0,
        negate=True,
        width=9,
        vmin=-3,
        vmax=2,
        ax=ax,
        state="hidden",
        colorbar=True,
        rows_per_page=7,
    )
    assert display.colorbar is True
    assert display.rows_per_page == 7
    assert display.ax_ is ax
    assert display.width == 9
    assert display.mesh_.get_clim() == (-3, 2)
    assert display.values[0] == pytest.approx(-0.201)
    assert display.description == "neuron 2 (sign flipped), hidden state of layer 0"
    assert plot_heatmap(language_model, "ab", neuron=2, scale="data").scale == "data"


def test_several_texts_in_one_figure(fakes, language_model):
    pipeline = Pipeline(
        [("f", fakes.Featurizer(language_model)), ("c", fakes.Classifier(column=1, sign=-1))]
    ).fit(["good", "bad"], [1, 0])
    texts = ["one text", "", b"two"]
    together = plot_heatmap(pipeline, texts, width=5)
    assert len(plt.get_fignums()) == 1
    assert together.text_bytes == [b"one text ", b" ", b"two "]
    for text, values in zip(texts, together.values, strict=True):
        np.testing.assert_array_equal(values, plot_heatmap(pipeline, text).values)
    letters = [text.get_text() for text in together.ax_.texts]
    assert letters == list("onetexttwo")
    assert together.mesh_.get_array().shape == (2 + 1 + 1 + 1 + 1, 5)


def test_no_texts(language_model):
    assert plot_heatmap(language_model, [], neuron=0).mesh_.get_array().mask.all()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\x00a\x00",
        "\u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627",  # right to left
        "e\u0301\u0300 \u0301",  # combining
        "\u65e5\u672c\u8a9e \uff21",  # wide
        "\U0001f600\u200d\u2764\ufe0f",
        b"\xff\xfe\xe2\x82",
        "<script>alert(1)</script>\n$\\frac{1}{2}$",
    ],
    ids=ascii,
)
def test_any_text_is_drawn_saved_and_written_as_html(language_model, tmp_path, text):
    with warnings.catch_warnings(action="error"):
        display = plot_heatmap(language_model, text, neuron=0)
        display.figure_.canvas.draw()
        (path,) = display.save(tmp_path)
    height, width, _ = plt.imread(path).shape
    assert width > height > 0
    page = display.to_html()
    page.encode()
    assert "<script" not in page


def test_100_kb_of_text(language_model, tmp_path):
    display = plot_heatmap(language_model, "Not bad at all. " * 6250, neuron=0)
    assert display.n_pages == 23
    assert display.mesh_.get_array().shape == (60, 74)
    assert display.ax_.get_xlabel().endswith("page 1 of 23")
    assert display.to_html().count("<span") == 100_001


def test_signature_is_that_of_from_estimator():
    function = inspect.signature(plot_heatmap).parameters
    assert function == inspect.signature(HeatmapDisplay.from_estimator).parameters


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"text": 3}, TypeError, "'text' parameter"),
        ({"state": "gate"}, ValueError, "'state' parameter"),
        ({"scale": "log"}, ValueError, "'scale' parameter"),
        ({"colorbar": 3}, TypeError, "'colorbar' parameter"),
        ({"neuron": "best"}, TypeError, "'neuron' parameter"),
        ({"layer": None}, TypeError, "'layer' parameter"),
        ({"negate": "yes"}, TypeError, "'negate' parameter"),
        ({"width": 0}, ValueError, r"'width' .* range \[1, 1000\]"),
        ({"width": 1001}, ValueError, r"'width' .* range \[1, 1000\]"),
        ({"rows_per_page": 0}, ValueError, "'rows_per_page' parameter"),
        ({"vmin": 2}, ValueError, "vmin must be below vmax"),
    ],
)
def test_errors_come_before_the_model_runs(parameters, error, message):
    with pytest.raises(error, match=message):
        plot_heatmap(**{"estimator": None, "text": "a"} | parameters)


def test_a_long_text_is_drawn_in_seconds(language_model):
    start = time.process_time()
    plot_heatmap(language_model, "It was good. " * 154, neuron=0).figure_.canvas.draw()
    assert time.process_time() - start < 10  # about one, on an idle machine
