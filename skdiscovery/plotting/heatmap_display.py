"""The display of one neuron over a text: its data, drawn by matplotlib or written as HTML."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from sklearn.utils._param_validation import (
    Interval,
    StrOptions,
    validate_parameter_constraints,
    validate_params,
)

from skdiscovery.plotting.cells import Cell, text_cells, text_rows
from skdiscovery.plotting.colours import Scale, scale_ends
from skdiscovery.plotting.drawing import draw_heatmap
from skdiscovery.plotting.html import heatmap_html, html_page
from skdiscovery.plotting.neuron_values import neuron_values
from skdiscovery.plotting.saving import safe_stem, save_pages

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# A page with more soon is larger than matplotlib can draw.
_N_CELLS = Interval(Integral, 1, 1000, closed="both")

_LAYOUT_CONSTRAINTS = {
    "width": [_N_CELLS],
    "vmin": [Interval(Real, None, None, closed="neither")],
    "vmax": [Interval(Real, None, None, closed="neither")],
    "scale": [StrOptions({"fixed", "symmetric", "data"})],
    "colorbar": ["boolean"],
    "rows_per_page": [_N_CELLS],
}


class HeatmapDisplay:
    """Heat map of one neuron over a text, or over several.

    Use `plot_heatmap`, `HeatmapDisplay.from_estimator` or `HeatmapDisplay.from_activations` to
    create one. All parameters are stored as attributes. In a notebook it shows itself as HTML.

    Parameters
    ----------
    text_bytes : bytes or list of bytes
        The text, as UTF-8, or several. A byte that is not valid UTF-8 gets a cell of its own.
    values : array-like of shape (n_bytes,) or (n_bytes, 1), dtype float, or list of these
        The neuron's value after each byte, of each text.
    description : str, default=""
        What the values are, for the caption.
    width : int, default=74
        Characters per row, from 1 to 1000.
    vmin, vmax : float, default=-1.0 and 1.0
        The ends of the fixed colour scale. Values beyond them get the colour of the end.
    scale : {"fixed", "symmetric", "data"}, default="fixed"
        Whether the colour scale is from ``vmin`` to ``vmax``, as far on both sides of 0 as the
        values of these texts reach, or from their least value to their largest. The caption says.
    colorbar : bool, default=False
        Whether to show the colours of the scale beside the text.
    rows_per_page : int, default=60
        A text with more rows goes on on another page; from 1 to 1000.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes with the heat map.
    figure_ : matplotlib Figure
        Figure that holds it.
    mesh_ : matplotlib QuadMesh
        The coloured cells.

    See Also
    --------
    plot_heatmap : The heat map of a fitted estimator.

    Examples
    --------
    >>> from skdiscovery.plotting import HeatmapDisplay
    >>> display = HeatmapDisplay(b"so good", [0.0, 0.1, 0.1, 0.4, 0.7, 0.9, 1.0], width=4)
    >>> display.plot()
    <...HeatmapDisplay object at ...>
    >>> display.ax_.get_xlabel()
    'fixed colour scale -1 to 1'
    """

    _made_figure = False

    def __init__(
        self,
        text_bytes: bytes | Sequence[bytes],
        values: Any,
        *,
        description: str = "",
        width: int = 74,
        vmin: float = -1.0,
        vmax: float = 1.0,
        scale: Scale = "fixed",
        colorbar: bool = False,
        rows_per_page: int = 60,
    ):
        self.text_bytes = text_bytes
        self.values = values
        self.description = description
        self.width = width
        self.vmin = vmin
        self.vmax = vmax
        self.scale = scale
        self.colorbar = colorbar
        self.rows_per_page = rows_per_page

    @classmethod
    @validate_params(
        {
            "text": [str, bytes, "array-like"],
            "neuron": [Integral, None],
            "layer": [Integral],
            "negate": ["boolean"],
            "state": [StrOptions({"cell", "hidden"}), None],
            **_LAYOUT_CONSTRAINTS,
        },
        prefer_skip_nested_validation=False,
    )
    def from_estimator(
        cls,
        estimator: Any,
        text: str | bytes | Sequence[str | bytes],
        *,
        neuron: int | None = None,
        layer: int = -1,
        negate: bool = False,
        width: int = 74,
        vmin: float = -1.0,
        vmax: float = 1.0,
        ax: Axes | None = None,
        state: Literal["cell", "hidden"] | None = None,
        scale: Scale = "fixed",
        colorbar: bool = False,
        rows_per_page: int = 60,
    ) -> HeatmapDisplay:
        """Run a fitted estimator over a text and plot one neuron; see `plot_heatmap`.

        Parameters
        ----------
        estimator, text, neuron, layer, negate, width, vmin, vmax, ax, state, scale, colorbar, \
rows_per_page
            As in `plot_heatmap`.

        Returns
        -------
        HeatmapDisplay
            The display, plotted.
        """
        _check_scale(vmin, vmax)
        found = neuron_values(
            estimator, text, neuron=neuron, state=state, layer=layer, negate=negate
        )
        return cls.from_activations(
            **found._asdict(),
            width=width,
            vmin=vmin,
            vmax=vmax,
            ax=ax,
            scale=scale,
            colorbar=colorbar,
            rows_per_page=rows_per_page,
        )

    @classmethod
    @validate_params(
        {
            "text_bytes": [bytes, "array-like"],
            "values": ["array-like"],
            "description": [str],
        },
        prefer_skip_nested_validation=False,
    )
    def from_activations(
        cls,
        text_bytes: bytes | Sequence[bytes],
        values: Any,
        *,
        description: str = "",
        width: int = 74,
        vmin: float = -1.0,
        vmax: float = 1.0,
        ax: Axes | None = None,
        scale: Scale = "fixed",
        colorbar: bool = False,
        rows_per_page: int = 60,
    ) -> HeatmapDisplay:
        """Plot values that are already there.

        Parameters
        ----------
        text_bytes, values, description, width, vmin, vmax, scale, colorbar, rows_per_page
            As in `HeatmapDisplay`.
        ax : matplotlib Axes, default=None
            Axes to draw the first page on. If None, a new figure is made.

        Returns
        -------
        HeatmapDisplay
            The display, its first page plotted.

        Raises
        ------
        ValueError
            If there is not one finite value per byte, a parameter is out of its range, or ``vmin``
            is not below ``vmax``.

        Examples
        --------
        >>> import numpy as np
        >>> from skdiscovery.plotting import HeatmapDisplay
        >>> text = "I loved it. Then the café closed.".encode()
        >>> display = HeatmapDisplay.from_activations(text, np.linspace(1, -1, len(text)), width=12)
        >>> display.mesh_.get_array().shape
        (3, 12)

        What a language model has written, with a neuron held:

        >>> from skdiscovery import ByteMLSTMLanguageModel
        >>> lm = ByteMLSTMLanguageModel.from_pretrained("default")
        >>> texts, traces = lm.generate("It was", overwrite={423: 1.0}, trace_neurons=[423])
        >>> display = HeatmapDisplay.from_activations(traces[0].text_bytes, traces[0].cell)
        """
        return cls(
            text_bytes,
            values,
            description=description,
            width=width,
            vmin=vmin,
            vmax=vmax,
            scale=scale,
            colorbar=colorbar,
            rows_per_page=rows_per_page,
        ).plot(ax=ax)

    @property
    def n_pages(self) -> int:
        """How many pages `plot` can draw."""
        return self._count_pages(self._rows(self._texts()))

    def plot(self, *, page: int = 1, ax: Axes | None = None) -> HeatmapDisplay:
        """Draw a page of the heat map.

        Parameters
        ----------
        page : int, default=1
            Which page, from 1 to `n_pages`.
        ax : matplotlib Axes, default=None
            Axes to draw on; the letters take the size of its cells. If None, a new figure is made,
            0.15 inches wide per column and 0.325 high per row, and a margin.

        Returns
        -------
        HeatmapDisplay
            The display itself.

        Raises
        ------
        ValueError
            If there is no such page, or not one finite value per byte.
        """
        self.ax_, self.mesh_ = self._draw(self._texts(), page, ax=ax)
        self.figure_: Any = self.ax_.figure
        self._made_figure = ax is None
        return self

    def save(self, path: str | os.PathLike = ".", *, dpi: float = 150) -> list[Path]:
        """Write the heat map, all of its pages, to a file, or to a file per page.

        Parameters
        ----------
        path : path-like, default="."
            The file, of any format that matplotlib writes, or ``.html``. A PDF and a page of HTML
            hold all; with several pages, other formats get a file for each: ``name-1.png`` and so
            on. A folder that is there gets a PNG file, with a name made from how the text begins.
            A file of the same name is replaced.
        dpi : float, default=150
            Dots per inch.

        Returns
        -------
        list of Path
            The files written.

        Raises
        ------
        ValueError
            If matplotlib knows no format by the file's extension.
        OSError
            If the file cannot be written, as where there is no such folder.

        Examples
        --------
        >>> import tempfile
        >>> from skdiscovery.plotting import HeatmapDisplay
        >>> display = HeatmapDisplay(b"A/B: <good>", [0.1] * 11)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     [path.name for path in display.save(folder)]
        ['heatmap_A-B-good.png']
        """
        path = Path(path)
        if path.is_dir():
            path /= f"{safe_stem(self._first_text())}.png"
        if not path.suffix:
            path = path.with_suffix(".png")
        if path.suffix.lower() == ".html":
            path.write_text(self.to_html(), encoding="utf-8")
            return [path]

        texts = self._texts()

        def draw(page: int, make_figure: Callable[..., Figure]) -> Any:
            ax, _ = self._draw(texts, page, make_figure=make_figure)
            return ax.figure

        return save_pages(path, self._count_pages(self._rows(texts)), draw, dpi)

    def to_html(self) -> str:
        """Write the same grid as a page of HTML, on one page whatever its length.

        Returns
        -------
        str
            A page that loads nothing and runs no script: a coloured ``<span>`` per character, with
            the value as its tooltip, and the caption. All text is escaped.

        Examples
        --------
        >>> from skdiscovery.plotting import HeatmapDisplay
        >>> html = HeatmapDisplay(b"<3", [0.0, 0.9]).to_html()
        >>> "&lt;</span>" in html
        True
        """
        beginning = self._first_text()[:200].decode("utf-8", "ignore")
        return html_page(" ".join(beginning.split())[:60] or "Heat map", self._html())

    def _repr_html_(self) -> str:
        if self._made_figure:
            import matplotlib.pyplot as plt

            # At the end of a cell this backend shows the figures left open: the same grid again.
            if "inline" in plt.get_backend():
                plt.close(self.figure_)
        return self._html()

    def _html(self) -> str:
        texts = self._texts()
        vmin, vmax, caption = self._scale_and_caption(texts)
        return heatmap_html(
            texts,
            width=self.width,
            vmin=vmin,
            vmax=vmax,
            caption=caption,
            colorbar=self.colorbar,
        )

    def _draw(
        self,
        texts: list[list[Cell]],
        page: int,
        *,
        ax: Axes | None = None,
        make_figure: Callable[..., Figure] | None = None,
    ) -> tuple[Axes, Any]:
        rows = self._rows(texts)
        n_pages = self._count_pages(rows)
        if page not in range(1, n_pages + 1):
            raise ValueError(f"page must be from 1 to {n_pages}, the last page. Got {page!r}.")
        vmin, vmax, caption = self._scale_and_caption(texts)
        return draw_heatmap(
            rows[(page - 1) * self.rows_per_page : page * self.rows_per_page],
            width=self.width,
            vmin=vmin,
            vmax=vmax,
            caption=f"{caption}, page {page} of {n_pages}" if n_pages > 1 else caption,
            colorbar=self.colorbar,
            ax=ax,
            make_figure=make_figure,
        )

    def _texts(self) -> list[list[Cell]]:
        """Check the parameters, and return the cells of each text."""
        layout = {name: getattr(self, name) for name in _LAYOUT_CONSTRAINTS}
        validate_parameter_constraints(_LAYOUT_CONSTRAINTS, layout, type(self).__name__)
        _check_scale(self.vmin, self.vmax)
        if isinstance(self.text_bytes, bytes):
            return [text_cells(self.text_bytes, self.values)]
        if len(self.text_bytes) != len(self.values):
            raise ValueError(
                f"Expected the values of each text: got {len(self.values)} arrays of values for "
                f"{len(self.text_bytes)} texts."
            )
        return [text_cells(*pair) for pair in zip(self.text_bytes, self.values, strict=True)]

    def _first_text(self) -> bytes:
        if isinstance(self.text_bytes, bytes):
            return self.text_bytes
        return next(iter(self.text_bytes), b"")

    def _rows(self, texts: list[list[Cell]]) -> list[Sequence[Cell]]:
        return text_rows(texts, self.width)

    def _count_pages(self, rows: list[Sequence[Cell]]) -> int:
        return -(-len(rows) // self.rows_per_page)

    def _scale_and_caption(self, texts: list[list[Cell]]) -> tuple[float, float, str]:
        """Return the ends of the colour scale, and the words below the picture."""
        values = np.array([cell.value for cells in texts for cell in cells])
        vmin, vmax = scale_ends(values, self.scale, self.vmin, self.vmax)
        kind = "colour scale of the data" if self.scale == "data" else f"{self.scale} colour scale"
        digits = "g" if self.scale == "fixed" else ".3g"
        scale = f"{kind} {vmin:{digits}} to {vmax:{digits}}"
        return vmin, vmax, f"{self.description}, {scale}" if self.description else scale


def _check_scale(vmin: float, vmax: float) -> None:
    if vmin >= vmax:
        raise ValueError(f"vmin must be below vmax. Got vmin={vmin!r} and vmax={vmax!r}.")
