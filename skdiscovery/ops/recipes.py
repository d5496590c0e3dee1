"""How the compiled kernels are built: for the CPU by a C++ compiler, for GPUs by nvcc."""

import os
import platform
import shlex
import shutil
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

CompiledBackend = Literal["cpp", "cuda"]

SOURCES = Path(__file__).parent / "csrc"
ARCHITECTURES_VARIABLE = "TORCH_CUDA_ARCH_LIST"

_FOR_ALL = (
    "-O3",
    "-shared",
    # The oldest torch whose stable interface the sources keep to.
    "-DTORCH_TARGET_VERSION=0x020a000000000000",
)
FLAGS_FOR_CPP = (
    *_FOR_ALL,
    "-march=native",
    "-std=gnu++17",
    "-fPIC",
    # What keeps a compiler from vectorising the gates, and no result needs.
    "-fno-math-errno",
    "-fno-trapping-math",
)
FLAGS_FOR_CUDA = (*_FOR_ALL, "-std=c++17", "-Xcompiler=-fPIC", "-DUSE_CUDA")


class MissingError(RuntimeError):
    """There are no compiled kernels; the message says why."""


@dataclass(frozen=True)
class Recipe:
    """How to build a library.

    Attributes
    ----------
    name : str
        What it is for, as in its file's name.
    sources : tuple of Path
        What is compiled.
    flags : tuple of str
        The compiler's options, but for torch's folders.
    facts : tuple of str
        What else the library depends on: it is for these alone.
    find_compiler : callable
        Returns the compiler's command; raises a MissingError if there is none.
    libraries : tuple of str
        Those of torch's that are linked.
    """

    name: str
    sources: tuple[Path, ...]
    flags: tuple[str, ...]
    facts: tuple[str, ...]
    find_compiler: Callable[[], list[str]]
    libraries: tuple[str, ...] = ("torch_cpu",)

    def command(self, library: Path) -> list[str]:
        """Return the command that builds the library."""
        torch_folder = Path(torch.__file__).parent
        # A torch for the CPU alone lacks that for CUDA: what was linked there compiles, but cannot
        # be loaded.
        libraries = [
            name for name in self.libraries if any((torch_folder / "lib").glob(f"*{name}.*"))
        ]
        return [
            *self.find_compiler(),
            *self.flags,
            "-isystem",
            str(torch_folder / "include"),
            *map(str, self.sources),
            f"-L{torch_folder / 'lib'}",
            *(f"-l{name}" for name in libraries),
            "-o",
            str(library),
        ]


def recipe_for(backend: CompiledBackend) -> Recipe:
    """Return the recipe of a backend.

    Raises
    ------
    MissingError
        If the backend is "cuda" and it is not known for which GPUs.
    """
    if backend == "cpp":
        sources = tuple(sorted(SOURCES.glob("*.cpp")))
        return Recipe("cpu", sources, FLAGS_FOR_CPP, (processor(),), find_cpp_compiler)
    targets = map(_target, architectures())
    sources = tuple(sorted(SOURCES.glob("*.cu")))
    flags = (*FLAGS_FOR_CUDA, *targets)
    return Recipe("cuda", sources, flags, (), find_nvcc, ("torch_cpu", "torch_cuda"))


def architectures() -> list[str]:
    """Return which GPUs to compile for, as "80": those listed, or else those that are there.

    The list is torch's, ``TORCH_CUDA_ARCH_LIST``, as "8.0;9.0a+PTX", which gives "80" and
    "90a+PTX".

    Raises
    ------
    MissingError
        If none is listed, and none is there.
    """
    listed = os.environ.get(ARCHITECTURES_VARIABLE, "").replace(";", " ").split()
    if listed:
        return [architecture.replace(".", "") for architecture in listed]
    if not torch.cuda.is_available():
        raise MissingError(
            "there is no CUDA device that this torch can use. To build without one, list the "
            f"architectures in the environment variable {ARCHITECTURES_VARIABLE}, as '8.0;9.0'"
        )
    found = {torch.cuda.get_device_capability(k) for k in range(torch.cuda.device_count())}
    return [f"{major}{minor}" for major, minor in sorted(found)]


def _target(architecture: str) -> str:
    """Return nvcc's option; "80+PTX" has code from which drivers compile for later GPUs, too."""
    number = architecture.removesuffix("+PTX")
    code = f"sm_{number}" if architecture == number else f"[sm_{number},compute_{number}]"
    return f"-gencode=arch=compute_{number},code={code}"


def find_cpp_compiler() -> list[str]:
    """Return the command of a C++ compiler, which may be named in the variable CXX."""
    compiler = shlex.split(os.environ.get("CXX") or "c++")
    if shutil.which(compiler[0]) is None:
        raise MissingError(
            f"there is no C++ compiler {compiler[0]!r} to build them with. Install one, such as "
            "g++, or name one in the environment variable CXX"
        )
    return compiler


def find_nvcc() -> list[str]:
    """Return the command of nvcc: that of CUDA_HOME, on the path, or installed by pip."""
    home = os.environ.get("CUDA_HOME")
    by_pip = sorted(Path(sysconfig.get_path("purelib")).glob("nvidia/*/bin/nvcc"))
    candidates = [f"{home}/bin/nvcc"] if home else ["nvcc", *map(str, by_pip)]
    for candidate in candidates:
        nvcc = shutil.which(candidate)
        if nvcc is not None:  # pip's does not look for its own libraries
            return [nvcc, f"-L{Path(nvcc).parents[1] / 'lib'}"]
    raise MissingError(
        f"there is no nvcc to build them with, of {candidates}. Install one, with pip install "
        "'skdiscovery[cuda]' or otherwise, or name its toolkit in the environment variable "
        "CUDA_HOME"
    )


def processor() -> str:
    """Return what -march=native depends on."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        first = cpuinfo.read_text().partition("\n\n")[0].splitlines()
        facts = ("vendor_id", "cpu family", "model", "flags", "CPU part", "Features")
        return "\n".join(line for line in first if line.partition(":")[0].strip() in facts)
    return f"{platform.machine()} {platform.processor()}"
