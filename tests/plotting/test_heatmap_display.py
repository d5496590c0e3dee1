import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest

from skdiscovery.plotting import HeatmapDisplay

TEXT = "So good – café".encode()
VALUES = np.linspace(-1, 1, len(TEXT), dtype=np.float32)


def test_init_stores_and_draws_nothing():
    display = HeatmapDisplay(TEXT, VALUES, description="mood", width=5, vmin=-2, vmax=2)
    assert display.text_bytes is TEXT
    assert display.values is VALUES
    assert (display.description, display.width) == ("mood", 5)
    assert (display.vmin, display.vmax) == (-2, 2)
    assert not hasattr(display, "ax_")
    assert plt.get_fignums() == []


def test_plot_returns_itself_and_sets_the_axes():
    display = HeatmapDisplay(TEXT, VALUES, width=5)
    assert display.plot() is display
    assert display.figure_ is display.ax_.figure
    assert display.mesh_.axes is display.ax_
    assert display.mesh_.get_array().shape == (3, 5)
    assert display.mesh_.get_clim() == (-1, 1)


def test_plot_again_on_given_axes():
    display = HeatmapDisplay.from_activations(TEXT, VALUES)
    _, ax = plt.subplots()
    assert display.plot(ax=ax).ax_ is ax


def test_from_activations_passes_everything_on():
    _, ax = plt.subplots()
    display = HeatmapDisplay.from_activations(
        TEXT, VALUES, description="mood", width=5, vmin=-0.5, vmax=2, ax=ax
    )
    assert display.ax_ is ax
    assert display.mesh_.get_clim() == (-0.5, 2)
    assert ax.get_xlim() == (0, 5)
    assert ax.get_xlabel().replace("\n", " ") == "mood, colour scale -0.5 to 2"


def test_a_subclass_stays_a_subclass():
    class Display(HeatmapDisplay):
        pass

    assert type(Display.from_activations(TEXT, VALUES)) is Display


def test_html_shows_the_same_cells_and_caption():
    display = HeatmapDisplay(TEXT, VALUES, description="<mood>", width=5)
    page = display.to_html()
    assert page.count("<span") == len(TEXT.decode())
    assert "repeat(5," in page
    assert "&lt;mood&gt;, colour scale -1 to 1" in page
    assert plt.get_fignums() == []


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"text_bytes": "text"}, TypeError, "'text_bytes' parameter"),
        ({"values": 3}, TypeError, "'values' parameter"),
        ({"values": VALUES[1:]}, ValueError, "one value per byte"),
        ({"description": 3}, TypeError, "'description' parameter"),
        ({"width": 0}, ValueError, "'width' parameter"),
        ({"width": 7.4}, TypeError, "'width' parameter"),
        ({"vmin": -np.inf}, ValueError, "'vmin' parameter"),
        ({"vmin": 0, "vmax": 0}, ValueError, "vmin must be below vmax. Got vmin=0 and vmax=0"),
    ],
)
def test_errors_come_before_any_figure(parameters, error, message):
    with pytest.raises(error, match=message):
        HeatmapDisplay.from_activations(**{"text_bytes": TEXT, "values": VALUES} | parameters)
    assert plt.get_fignums() == []


def test_matplotlib_is_imported_only_when_plotting():
    program = "import sys, skdiscovery.plotting; sys.exit('matplotlib' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
