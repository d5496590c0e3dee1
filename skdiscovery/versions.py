"""What a bug report should say of the machine and of what is installed."""

import platform
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

import torch

import skdiscovery
from skdiscovery.ops import extension

_DEPENDENCIES = (
    "torch",
    "scikit-learn",
    "numpy",
    "scipy",
    "pandas",
    "joblib",
    "safetensors",
    "matplotlib",
    "unidecode",
    "filelock",
    "tqdm",
    "pip",
)


def show_versions() -> None:
    """Print the system, the versions of what skdiscovery uses, and how its kernels were loaded.

    Loads the kernels if nothing has yet, as the first use does.

    Examples
    --------
    >>> from skdiscovery import show_versions
    >>> show_versions()  # doctest: +SKIP
    """
    system = {
        "python": sys.version.replace("\n", " "),
        "executable": sys.executable,
        "machine": platform.platform(),
        "threads": torch.get_num_threads(),
        "GPU": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
    _print("System", system)
    installed = {name: _version(name) for name in _DEPENDENCIES}
    _print("Python dependencies", {"skdiscovery": skdiscovery.__version__, **installed})
    _print("Kernels", {backend: _describe(extension.load(backend)) for backend in ("cpp", "cuda")})


def _print(title: str, facts: Mapping[str, object]) -> None:
    print(f"\n{title}:")
    width = max(map(len, facts))
    for name, fact in facts.items():
        print(f"{name:>{width}}: {fact}")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _describe(outcome: extension.Outcome) -> str:
    if outcome.library is None:
        return f"none: {outcome.reason}"
    return f"{outcome.library}, {outcome.reason}"
