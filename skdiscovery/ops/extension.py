"""The compiled kernels: found ready made, else built on first use, else done without.

Nothing happens at import. :func:`load` looks for a library that was built for this version of the
sources and of torch, and for this processor or these GPUs: first beside this file, where ``python
-m skdiscovery.ops.build`` puts it, then in the user's cache, where it builds one if there is none.
Once the CPU's library is loaded, torch's dispatcher prefers its kernels to the loops of
:mod:`skdiscovery.ops.reference`.
"""

import hashlib
import logging
import os
import shlex
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from filelock import FileLock

from skdiscovery.files import whole_file
from skdiscovery.ops import recipes
from skdiscovery.ops.recipes import CompiledBackend, MissingError, Recipe

logger = logging.getLogger("skdiscovery")

PREBUILT = Path(__file__).parent / "prebuilt"

_SHOWN_LINES = 10


class BuildError(MissingError):
    """The compiler failed; the message has its last lines."""


@dataclass(frozen=True)
class Outcome:
    """What came of loading: the library, or None, and how that came about."""

    library: Path | None
    reason: str


@cache
def load(backend: CompiledBackend) -> Outcome:
    """Load the kernels of a backend, once per process; log and remember how it went."""
    try:
        if backend == "cuda" and not torch.cuda.is_available():
            raise MissingError("there is no CUDA device that this torch can use")
        library, reason = _find_or_build(recipes.recipe_for(backend))
        torch.ops.load_library(library)
    except (RuntimeError, OSError) as error:  # MissingError, no home folder, locks that fail
        reason = str(error.__cause__ or error)  # torch says only that it could not load it
        level = logging.INFO if type(error) is MissingError else logging.WARNING
        logger.log(level, "backend 'torch' instead of %r: %s", backend, reason)
        return Outcome(None, reason)
    logger.info("backend %r: kernels %s, %s", backend, reason, library)
    return Outcome(library, reason)


def build(recipe: Recipe, folder: Path) -> Path:
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
    library = folder / library_name(recipe)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(library.with_suffix(".lock")):
        if not library.exists():
            logger.info("compiling the kernels, once for this machine, into %s", folder)
            with whole_file(library) as unfinished:
                _run(recipe.command(unfinished))
    return library


def library_name(recipe: Recipe) -> str:
    """Return the library's file name, which tells apart all that it was built from and for."""
    digest = hashlib.sha256()
    headers = recipes.SOURCES.glob("*.h")
    for source in sorted((*headers, *recipe.sources)):
        digest.update(source.read_bytes())
    for fact in (torch.__version__, *recipe.flags, *recipe.facts):
        digest.update(fact.encode())
    return f"skdiscovery_{recipe.name}_{digest.hexdigest()[:16]}.so"


def _find_or_build(recipe: Recipe) -> tuple[Path, str]:
    cached = _cache_folder()
    for folder, reason in ((PREBUILT, "built ahead of time"), (cached, "built before")):
        library = folder / library_name(recipe)
        if library.exists():
            return library, reason
    return build(recipe, cached), "built now"


def _cache_folder() -> Path:
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(caches).expanduser() / "skdiscovery"


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        last_lines = "\n".join(done.stderr.splitlines()[-_SHOWN_LINES:])
        raise BuildError(f"{shlex.join(command)} failed; its last lines:\n{last_lines}")
