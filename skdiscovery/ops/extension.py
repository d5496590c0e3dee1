"""The compiled kernels: found ready made, else built on first use, else done without.

Nothing happens at import. :func:`load` looks for a library that was built for this version of the
sources and of torch, and for this processor: first beside this file, where ``python -m
skdiscovery.ops.build`` puts it, then in the user's cache, where it builds one if there is none.
Once a library is loaded, torch's dispatcher prefers its kernels to the loops of
:mod:`skdiscovery.ops.reference`.
"""

import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import torch
from filelock import FileLock

logger = logging.getLogger("skdiscovery")

SOURCES = Path(__file__).parent / "csrc"
PREBUILT = Path(__file__).parent / "prebuilt"

_FLAGS = (
    "-O3",
    "-march=native",
    "-std=gnu++17",
    "-fPIC",
    "-shared",
    # What keeps a compiler from vectorising the gates, and no result needs.
    "-fno-math-errno",
    "-fno-trapping-math",
    # The oldest torch whose stable interface the sources keep to.
    "-DTORCH_TARGET_VERSION=0x020a000000000000",
)
_SHOWN_LINES = 10


class MissingError(RuntimeError):
    """There are no compiled kernels; the message says why."""


class BuildError(MissingError):
    """The compiler failed; the message has its last lines."""


@dataclass(frozen=True)
class Outcome:
    """What came of loading: the library, or None, and how that came about."""

    library: Path | None
    reason: str


@cache
def load(backend: Literal["cpp", "cuda"]) -> Outcome:
    """Load the kernels of a backend, once per process; log and remember how it went."""
    try:
        if backend == "cuda":
            raise MissingError("this version of skdiscovery has no kernels for CUDA")
        library, reason = _find_or_build()
        torch.ops.load_library(library)
    except (MissingError, OSError) as error:
        reason = str(error.__cause__ or error)  # torch says only that it could not load it
        level = logging.INFO if type(error) is MissingError else logging.WARNING
        logger.log(level, "backend 'torch' instead of %r: %s", backend, reason)
        return Outcome(None, reason)
    logger.info("backend %r: kernels %s, %s", backend, reason, library)
    return Outcome(library, reason)


def build(folder: Path) -> Path:
    """Return the path of the library in ``folder``; build it there unless it is there.

    Of several processes one builds, and the others wait. The system drops the lock of a process
    that is killed.

    Raises
    ------
    MissingError
        If there is no compiler, or it fails.
    OSError
        If the folder cannot be written to.
    """
    library = folder / library_name()
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(library.with_suffix(".lock")):
        if not library.exists():
            logger.info("compiling the kernels, once for this machine, into %s", folder)
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                unfinished = Path(scratch) / library.name
                _compile(unfinished)
                unfinished.rename(library)
    return library


def library_name() -> str:
    """Return the library's file name, which tells apart all that it was built from and for."""
    digest = hashlib.sha256()
    for source in sorted(SOURCES.iterdir()):
        digest.update(source.read_bytes())
    for fact in (torch.__version__, *_FLAGS, _processor()):
        digest.update(fact.encode())
    return f"skdiscovery_cpu_{digest.hexdigest()[:16]}.so"


def _find_or_build() -> tuple[Path, str]:
    cached = _cache_folder()
    for folder, reason in ((PREBUILT, "built ahead of time"), (cached, "built before")):
        library = folder / library_name()
        if library.exists():
            return library, reason
    return build(cached), "built now"


def _cache_folder() -> Path:
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(caches).expanduser() / "skdiscovery"


def _compile(library: Path) -> None:
    compiler = shlex.split(os.environ.get("CXX") or "c++")
    if shutil.which(compiler[0]) is None:
        raise MissingError(
            f"there is no C++ compiler {compiler[0]!r} to build them with. Install one, such as "
            "g++, or name one in the environment variable CXX"
        )
    torch_folder = Path(torch.__file__).parent
    command = [
        *compiler,
        *_FLAGS,
        f"-isystem{torch_folder / 'include'}",
        *(str(source) for source in sorted(SOURCES.glob("*.cpp"))),
        f"-L{torch_folder / 'lib'}",
        "-ltorch_cpu",
        f"-o{library}",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        last_lines = "\n".join(done.stderr.splitlines()[-_SHOWN_LINES:])
        raise BuildError(f"{shlex.join(command)} failed; its last lines:\n{last_lines}")


def _processor() -> str:
    """Return what -march=native depends on."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        first = cpuinfo.read_text().partition("\n\n")[0].splitlines()
        facts = ("vendor_id", "cpu family", "model", "flags", "CPU part", "Features")
        return "\n".join(line for line in first if line.partition(":")[0].strip() in facts)
    return f"{platform.machine()} {platform.processor()}"
