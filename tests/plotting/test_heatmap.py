import inspect
import time

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
        "neuron 3 (sign flipped), cell state of the last layer, colour scale -1 to 1"
    )


def test_everything_is_passed_on(language_model):
    _, ax = plt.subplots()
    display = plot_heatmap(
        language_model, "ab", neuron=2, layer=0, negate=True, width=9, vmin=-3, vmax=2, ax=ax
    )
    assert display.ax_ is ax
    assert display.width == 9
    assert display.mesh_.get_clim() == (-3, 2)
    assert display.values[0] == pytest.approx(-0.2)
    assert "layer 0" in display.description


def test_signature_is_that_of_from_estimator():
    function = inspect.signature(plot_heatmap).parameters
    assert function == inspect.signature(HeatmapDisplay.from_estimator).parameters


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"text": 3}, TypeError, "'text' parameter"),
        ({"text": ["a", "b"]}, TypeError, "'text' parameter"),
        ({"neuron": "best"}, TypeError, "'neuron' parameter"),
        ({"layer": None}, TypeError, "'layer' parameter"),
        ({"negate": "yes"}, TypeError, "'negate' parameter"),
        ({"width": 0}, ValueError, "'width' parameter"),
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
