import logging
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import torch

from skdiscovery.ops import build, extension, recipes

SUCCEEDS = """
for word in "$@"; do library=$word; done
echo built >> "$0.log"
sleep 0.2
echo not a library > "$library"
"""
FAILS = """
for line in $(seq 30); do echo "line $line" >&2; done
exit 1
"""


@pytest.fixture
def compiler(tmp_path, monkeypatch):
    """A compiler that does as it is told; its log has a line per call."""
    script = tmp_path / "compiler"

    def tell(commands):
        script.write_text(commands)
        monkeypatch.setenv("CXX", f"sh {script}")
        return tmp_path / "compiler.log"

    return tell


@pytest.fixture
def load(tmp_path, monkeypatch):
    """``extension.load`` in a process that has not called it, on a machine without a library."""
    monkeypatch.setattr(extension, "PREBUILT", tmp_path / "prebuilt")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    extension.load.cache_clear()
    yield extension.load
    extension.load.cache_clear()


@pytest.fixture
def loaded(monkeypatch):
    """The paths of the libraries that torch was told to load, instead of loading them."""
    paths = []
    monkeypatch.setattr(torch.ops, "load_library", paths.append)
    return paths


def test_import_builds_and_loads_nothing():
    code = (
        "import skdiscovery; from skdiscovery.ops import extension; "
        "assert extension.load.cache_info().currsize == 0"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_processes_that_meet_build_once(compiler, tmp_path):
    log = compiler(SUCCEEDS)
    with ThreadPoolExecutor(4) as pool:
        libraries = set(
            pool.map(partial(extension.build, recipes.recipe_for("cpp")), [tmp_path] * 4)
        )
    assert libraries == {tmp_path / extension.library_name(recipes.recipe_for("cpp"))}
    assert log.read_text().splitlines() == ["built"]


HOLDS_THE_LOCK = """
import sys
from filelock import FileLock
with FileLock(sys.argv[1]):
    print("holding", flush=True)
    sys.stdin.read()
"""


def test_the_lock_of_a_killed_build_is_not_waited_on(compiler, tmp_path):
    compiler(SUCCEEDS)
    lock = (tmp_path / extension.library_name(recipes.recipe_for("cpp"))).with_suffix(".lock")
    command = [sys.executable, "-c", HOLDS_THE_LOCK, str(lock)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"holding\n"
        holder.kill()
    assert lock.exists()
    assert extension.build(recipes.recipe_for("cpp"), tmp_path).exists()


def test_a_failed_build_shows_the_last_lines_and_leaves_nothing(compiler, tmp_path):
    compiler(FAILS)
    folder = tmp_path / "libraries"
    with pytest.raises(extension.BuildError, match="failed; its last lines:\nline 21\n") as raised:
        extension.build(recipes.recipe_for("cpp"), folder)
    assert str(raised.value).endswith("line 30")
    assert [path.suffix for path in folder.iterdir()] == [".lock"]


def test_without_a_compiler_one_is_asked_for(monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", "no-such-compiler -O1")
    with pytest.raises(extension.MissingError, match="no C\\+\\+ compiler 'no-such-compiler'"):
        extension.build(recipes.recipe_for("cpp"), tmp_path)


@pytest.mark.parametrize("fact", ["processor", "torch", "flags", "mlstm_cpu.cpp", "gates.h"])
def test_a_library_is_for_one_processor_torch_and_source(monkeypatch, tmp_path, fact):
    sources = shutil.copytree(recipes.SOURCES, tmp_path / "sources")
    monkeypatch.setattr(recipes, "SOURCES", sources)
    before = extension.library_name(recipes.recipe_for("cpp"))
    if fact == "processor":
        monkeypatch.setattr(recipes, "processor", lambda: "another")
    elif fact == "torch":
        monkeypatch.setattr(torch, "__version__", "2.10.0")
    elif fact == "flags":
        monkeypatch.setattr(recipes, "FLAGS_FOR_CPP", (*recipes.FLAGS_FOR_CPP, "-g"))
    else:
        with open(sources / fact, "a") as source:
            source.write("// changed")
    assert extension.library_name(recipes.recipe_for("cpp")) != before


def test_first_use_builds_and_later_ones_find(load, loaded, compiler, tmp_path):
    log = compiler(SUCCEEDS)
    library = (
        tmp_path / "caches" / "skdiscovery" / extension.library_name(recipes.recipe_for("cpp"))
    )
    assert load("cpp") == extension.Outcome(library, "built now")
    load.cache_clear()
    assert load("cpp") == extension.Outcome(library, "built before")
    assert log.read_text().splitlines() == ["built"]
    assert loaded == [library, library]


def test_what_was_built_ahead_of_time_is_taken(load, loaded, compiler, monkeypatch, capsys):
    compiler(SUCCEEDS)
    monkeypatch.setattr(sys, "argv", ["build", "--folder", str(extension.PREBUILT)])
    build.main()
    library = extension.PREBUILT / extension.library_name(recipes.recipe_for("cpp"))
    assert capsys.readouterr().out == f"{library}\n"
    compiler(FAILS)
    assert load("cpp") == extension.Outcome(library, "built ahead of time")


def test_building_ahead_of_time_fails_aloud(compiler, monkeypatch, capsys, tmp_path):
    compiler(FAILS)
    monkeypatch.setattr(sys, "argv", ["build", "--folder", str(tmp_path)])
    with pytest.raises(SystemExit) as raised:
        build.main()
    assert raised.value.code == 1
    assert "line 30" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("commands", "reason"), [(FAILS, "line 30"), (SUCCEEDS, "file too short|invalid ELF header")]
)
def test_a_failure_is_remembered_and_warned_of_once(load, compiler, caplog, commands, reason):
    compiler(commands)
    with caplog.at_level(logging.INFO, "skdiscovery"):
        outcomes = {load("cpp"), load("cpp")}
    (outcome,) = outcomes
    assert outcome.library is None
    (warning,) = (record for record in caplog.records if record.levelno == logging.WARNING)
    assert warning.message.startswith("backend 'torch' instead of 'cpp': ")
    assert re.search(reason, outcome.reason)
    assert outcome.reason in warning.message


def test_without_a_home_plain_torch_does_it(load, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")

    def no_home(path):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", no_home)
    assert load("cpp") == extension.Outcome(None, "Could not determine home directory.")


@pytest.mark.parametrize("backend", ["cpp", "cuda"], ids="for_{}".format)
def test_what_is_not_there_is_said_once_and_quietly(load, caplog, monkeypatch, backend):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with caplog.at_level(logging.INFO, "skdiscovery"):
        load(backend)
        load(backend)
    *_, record = caplog.records
    assert record.levelno == logging.INFO
    assert record.message.startswith(f"backend 'torch' instead of '{backend}': ")
    assert sum("instead of" in record.message for record in caplog.records) == 1
