"""No path in the package runs what it reads."""

import ast
import io
import tarfile
from pathlib import Path

import pytest

import skdiscovery
from skdiscovery.datasets import _imdb

PACKAGE = Path(skdiscovery.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))

# Calls by what they end in, as written out in full or imported by name.
RUN_WHAT_THEY_READ = {
    "eval", "exec", "compile", "__import__", "import_module", "run_path", "run_module",
    "pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.load", "marshal.loads",
    "shelve.open", "joblib.load", "cloudpickle.load", "cloudpickle.loads", "dill.load",
    "read_pickle", "yaml.load", "unsafe_load", "jit.load", "package_importer", "hub.load",
    "os.system", "os.popen",
}  # fmt: skip
UNPACK_TO_PATHS_THEY_READ = {"extract", "extractall", "unpack_archive"}
# What is allowed only with an argument that makes it safe.
ONLY_WITH = {"torch.load": ("weights_only", True)}
NEVER_WITH = [("allow_pickle", True), ("shell", True), ("weights_only", False)]
# re.compile makes patterns; model.eval() turns dropout off.
HARMLESS = {"re.compile", "model.eval"}


def written_out(function):
    """Return a call's function as it is written: ``torch.load``."""
    if isinstance(function, ast.Attribute):
        return f"{written_out(function.value)}.{function.attr}"
    return function.id if isinstance(function, ast.Name) else ""


def objections(source):
    """Return what a source calls that may run or unpack what it reads, and how many calls it has.

    Aliases do not get by: names are looked up among the imports.
    """
    tree = ast.parse(source)
    imported = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
            for alias in node.names:
                imported[alias.asname or alias.name] = f"{module}{alias.name}"
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    found = []
    for call in calls:
        first, dot, rest = written_out(call.func).partition(".")
        name = f"{imported.get(first, first)}{dot}{rest}"
        arguments = {
            keyword.arg: getattr(keyword.value, "value", None) for keyword in call.keywords
        }
        parts = name.split(".")
        endings = {".".join(parts[k:]) for k in range(len(parts))} | {f".{parts[-1]}"}
        if name not in HARMLESS and endings & (RUN_WHAT_THEY_READ | UNPACK_TO_PATHS_THEY_READ):
            found.append(f"line {call.lineno}: {name}")
        for safe, (argument, value) in ONLY_WITH.items():
            if safe in endings and arguments.get(argument) is not value:
                found.append(f"line {call.lineno}: {name} without {argument}={value}")
        found += [
            f"line {call.lineno}: {name} with {argument}={value}"
            for argument, value in NEVER_WITH
            if arguments.get(argument) is value
        ]
    return found, len(calls)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_source_runs_what_it_reads(path):
    found, _ = objections(path.read_text(encoding="utf-8"))
    assert found == []


def test_the_sources_are_those_of_the_package():
    assert len(SOURCES) > 60
    assert sum(objections(path.read_text(encoding="utf-8"))[1] for path in SOURCES) > 1000


@pytest.mark.parametrize(
    "source",
    [
        "eval(text)",
        "import pickle\npickle.load(file)",
        "import pickle as p\np.loads(data)",
        "from pickle import loads as read\nread(data)",
        "import joblib\njoblib.load(path)",
        "import torch\ntorch.load(path)",
        "import torch\ntorch.load(path, weights_only=False)",
        "from torch import load\nload(path)",
        "import numpy as np\nnp.load(path, allow_pickle=True)",
        "import pandas as pd\npd.read_pickle(path)",
        "archive.extractall(folder)",
        "import subprocess\nsubprocess.run(line, shell=True)",
        "import importlib\nimportlib.import_module(name)",
    ],
)
def test_what_runs_what_it_reads_is_objected_to(source):
    assert objections(source)[0] != []


@pytest.mark.parametrize(
    "source",
    [
        "import torch\ntorch.load(path, weights_only=True)",
        "import re\nre.compile(pattern)",
        "model.eval()",
        "import json\njson.load(file)",
        "import numpy as np\nnp.load(path, allow_pickle=False)",
    ],
)
def test_what_does_not_is_not(source):
    assert objections(source)[0] == []


def hostile_archive(path):
    """An archive whose members would land outside, or stand for files outside."""
    with tarfile.open(path, "w:gz") as archive:

        def add(name, kind=tarfile.REGTYPE, link="", content=b"owned"):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, link
            member.size = len(content) if kind == tarfile.REGTYPE else 0
            archive.addfile(member, io.BytesIO(content))

        add("../../aclImdb/train/pos/1_9.txt")
        add("/aclImdb/train/pos/2_9.txt")
        add("aclImdb/train/pos/../../../../3_9.txt")
        add("aclImdb/train/pos/4_9.txt", tarfile.SYMTYPE, "/etc/passwd")
        add("aclImdb/train/pos/5_9.txt", tarfile.LNKTYPE, "/etc/passwd")
        add("aclImdb/train/pos/6_9.txt", tarfile.FIFOTYPE)
        add("aclImdb/train/pos/7_9.txt", tarfile.CHRTYPE)
        add("aclImdb/train/pos/8_9.txt", content=b"a review")
    return path


def test_an_archive_is_read_where_it_is_and_its_links_are_not_followed(tmp_path):
    archive = hostile_archive(tmp_path / "archive.tar.gz")
    assert list(_imdb._read_archive(archive)) == [("train", "a review", 1, 9)]
    assert list(tmp_path.iterdir()) == [archive]
