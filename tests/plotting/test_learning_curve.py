import subprocess
import sys
import warnings

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import NotFittedError

from skdiscovery import ByteMLSTMLanguageModel, LearningCurveDisplay

TEXTS = ["What a lovely film!", "What a dull film."] * 20


@pytest.fixture(scope="module")
def lm():
    return ByteMLSTMLanguageModel(
        hidden_size=8,
        batch_size=4,
        seq_length=16,
        max_epochs=10,
        max_steps=60,
        checkpoint_every=20,
        validation_fraction=0.1,
        device="cpu",
        random_state=0,
    ).fit(TEXTS)


@pytest.fixture
def history():
    """A long run: 8 bits per byte at first, 2 at the end, 1000 bytes a step."""
    step = np.arange(10, 10_010, 10)
    bits = 2 + 6 * np.exp(-step / 50) + 0.1 * (-1.0) ** (step // 10)
    return pd.DataFrame({"step": step, "bytes": 1000 * step, "bits_per_byte": bits})


@pytest.fixture
def validation_history():
    step = np.array([5000, 10_000])
    return pd.DataFrame({"step": step, "bytes": 1000 * step, "bits_per_byte": [2.25, 2.3]})


def legend(display):
    return [text.get_text() for text in display.ax_.get_legend().get_texts()]


def test_init_stores_and_draws_nothing(history, validation_history):
    display = LearningCurveDisplay(history, validation_history, window=7)
    assert display.history is history
    assert display.validation_history is validation_history
    assert display.window == 7
    assert not hasattr(display, "ax_")
    assert plt.get_fignums() == []


def test_from_estimator_draws_what_was_logged(lm):
    display = LearningCurveDisplay.from_estimator(lm, window=1)
    assert display.window == 1
    assert display.figure_ is display.ax_.figure
    for line in (display.raw_line_, display.line_):
        np.testing.assert_array_equal(line.get_xdata(), lm.history_["bytes"] / 1e6)
        np.testing.assert_array_equal(line.get_ydata(), lm.history_["bits_per_byte"])
    validated = lm.validation_history_
    np.testing.assert_array_equal(display.validation_line_.get_xdata(), validated["bytes"] / 1e6)
    np.testing.assert_array_equal(display.validation_line_.get_ydata(), validated["bits_per_byte"])
    assert display.ax_.get_xlabel() == "text read (MB)"
    assert display.ax_.get_ylabel() == "bits per byte"


def test_a_model_without_validations(lm):
    fitted = ByteMLSTMLanguageModel(
        hidden_size=8, batch_size=4, seq_length=16, max_steps=1, device="cpu"
    ).fit(TEXTS)
    display = LearningCurveDisplay.from_estimator(fitted)
    assert display.validation_line_ is None
    assert legend(display) == [f"training, initially {fitted.history_['bits_per_byte'][0]:.3f}"]
    low, high = display.ax_.get_ylim()
    assert low < fitted.history_["bits_per_byte"][0] < high


def test_smoothing_is_a_running_mean_and_the_legend_says_so(history):
    display = LearningCurveDisplay(history).plot()
    assert display.line_.get_ydata()[500] == pytest.approx(2, abs=1e-9)
    assert abs(display.raw_line_.get_ydata()[500] - 2) == pytest.approx(0.1, abs=1e-9)
    assert "training, running mean (window 20)" in legend(display)
    display = LearningCurveDisplay(history, window=3).plot()
    assert "training, running mean (window 3)" in legend(display)
    expected = history["bits_per_byte"][499:502].mean()
    assert display.line_.get_ydata()[500] == pytest.approx(expected)


def test_the_first_fall_leaves_the_picture_and_the_legend_says_from_where(history):
    history.loc[1, "bits_per_byte"] = 9
    display = LearningCurveDisplay(history).plot()
    low, high = display.ax_.get_ylim()
    assert low < history["bits_per_byte"].min()
    assert history["bits_per_byte"][20:].max() < high < 4
    assert f"training, initially {history['bits_per_byte'][0]:.3f}" in legend(display)


def test_every_validation_is_in_the_picture(history, validation_history):
    validation_history.loc[1, "bits_per_byte"] = 7
    display = LearningCurveDisplay(history, validation_history).plot()
    assert display.ax_.get_ylim()[1] > 7
    assert "validation, best 2.250" in legend(display)


def test_curves_differ_by_more_than_colour(history, validation_history):
    display = LearningCurveDisplay(history, validation_history).plot()
    assert display.line_.get_marker() == "None"
    assert display.validation_line_.get_marker() == "o"
    assert display.line_.get_linestyle() != display.validation_line_.get_linestyle()
    assert display.raw_line_.get_linewidth() < display.line_.get_linewidth()


def test_the_upper_axis_counts_steps(history):
    display = LearningCurveDisplay(history).plot()
    display.figure_.canvas.draw()
    lower, upper = display.ax_.get_xlim(), display.steps_ax_.get_xlim()
    assert upper == pytest.approx(np.array(lower) * 1000)
    assert display.steps_ax_.get_xlabel() == "steps"


@pytest.mark.parametrize(
    ("steps", "megabytes", "shown", "expected"),
    [
        ([100, 200, 300], [1, 2, 6], (1, 4), (100, 250)),
        ([9100, 9200, 9300], [11, 12, 13], (10, 14), (9000, 9400)),
    ],
    ids=["follows_a_change_of_pace", "knows_only_the_pace_of_its_run"],
)
def test_the_upper_axis(steps, megabytes, shown, expected):
    history = pd.DataFrame(
        {"step": steps, "bytes": np.array(megabytes) * 1e6, "bits_per_byte": [3.0, 2.5, 2.4]}
    )
    display = LearningCurveDisplay(history).plot()
    display.ax_.set_xlim(*shown)
    display.figure_.canvas.draw()
    assert display.steps_ax_.get_xlim() == pytest.approx(expected)


def test_plot_on_given_axes(lm):
    _, ax = plt.subplots()
    display = LearningCurveDisplay.from_estimator(lm, ax=ax)
    assert display.ax_ is ax
    assert display.figure_ is ax.figure
    assert display.plot(ax=ax) is display


def test_a_history_that_was_written_and_read_again(lm, tmp_path):
    for name in ("history_", "validation_history_"):
        getattr(lm, name).to_csv(tmp_path / name, index=False)
    read = [pd.read_csv(tmp_path / name) for name in ("history_", "validation_history_")]
    drawn = LearningCurveDisplay(*read).plot(), LearningCurveDisplay.from_estimator(lm)
    ours, theirs = ([line.get_ydata() for line in display.ax_.get_lines()] for display in drawn)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other)


def test_a_subclass_stays_a_subclass(lm):
    class Display(LearningCurveDisplay):
        pass

    assert type(Display.from_estimator(lm)) is Display


def test_errors_come_before_any_figure(lm, tmp_path):
    with pytest.raises(NotFittedError):
        LearningCurveDisplay.from_estimator(ByteMLSTMLanguageModel())
    lm.save_pretrained(tmp_path / "model")
    read = ByteMLSTMLanguageModel.from_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match="no history to draw: a model that is read from a file"):
        LearningCurveDisplay.from_estimator(read)
    with pytest.raises(ValueError, match="'window' parameter"):
        LearningCurveDisplay.from_estimator(lm, window=0)
    assert plt.get_fignums() == []


def test_matplotlib_is_imported_only_when_plotting():
    program = "import sys, skdiscovery; sys.exit('matplotlib' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_single_row_has_a_range():
    one = pd.DataFrame({"step": [10], "bytes": [1000], "bits_per_byte": [2.0]})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert LearningCurveDisplay(one).plot().ax_.get_ylim() == pytest.approx((1.9, 2.1))
