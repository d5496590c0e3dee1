"""Files that pictures of texts go to, and their names."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from unidecode import unidecode

MAX_LENGTH = 50


def safe_stem(text_bytes: bytes) -> str:
    r"""Make a file name, without extension, of how a text begins.

    Only ASCII letters, digits, ``-`` and ``_`` occur in it. It begins with ``heatmap``, so it is
    never empty, hidden, an option of a command, or the name of a device.

    Examples
    --------
    >>> safe_stem("../Ça va?\n<b>".encode())
    'heatmap_Ca-va-b'
    >>> safe_stem(b"")
    'heatmap'
    """
    text = unidecode(text_bytes[: 8 * MAX_LENGTH].decode("utf-8", "ignore"))
    words = re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-")[:MAX_LENGTH].rstrip("-")
    return f"heatmap_{words}" if words else "heatmap"


def page_paths(path: Path, n_pages: int) -> list[Path]:
    """Return a path per page: ``name.png`` itself, or ``name-01.png`` and so on."""
    if n_pages == 1:
        return [path]
    n_digits = len(str(n_pages))
    return [
        path.with_name(f"{path.stem}-{page:0{n_digits}}{path.suffix}")
        for page in range(1, n_pages + 1)
    ]


def save_pages(
    path: Path, n_pages: int, draw: Callable[[int, Callable[..., Any]], Any], dpi: float
) -> list[Path]:
    """Write pages, one after the other, to a PDF, or to a file each; return the files.

    ``draw`` takes the number of a page, from 1 on, and what makes figures, and returns one.
    """
    from matplotlib.backends.backend_pdf import PdfPages
    from matplotlib.figure import Figure  # not pyplot's, which would stay open

    pages = range(1, n_pages + 1)
    if path.suffix.lower() == ".pdf":
        with PdfPages(path) as pdf:
            for page in pages:
                draw(page, Figure).savefig(pdf, format="pdf", dpi=dpi)
        return [path]
    paths = page_paths(path, n_pages)
    for page, of_page in zip(pages, paths, strict=True):
        draw(page, Figure).savefig(of_page, dpi=dpi)
    return paths
