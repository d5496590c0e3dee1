import argparse
import collections
import hashlib
import os
import pickle
import zipfile

import numpy as np
import pytest
import torch

from skdiscovery.pretrained.torch_files import read_tensors

STATE = collections.OrderedDict(
    {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([1.5, -2.0])}
)
OPTIONS = argparse.Namespace(rnn_size=4096, load_model="", lr=5e-4, cuda=True)


def save(content, path, is_zip=True):
    torch.save(content, path, _use_new_zipfile_serialization=is_zip)
    return path


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "before torch 1.6"])
@pytest.mark.parametrize(
    "content",
    [
        STATE,
        dict(STATE),
        {"state_dict": STATE},
        {"state_dict": STATE, "opt": OPTIONS, "epoch": 3, "histories": [[5.5, 5.4], []]},
        {"a": {"weight": STATE["a.weight"]}, "b": torch.nn.Parameter(STATE["b"])},
        {name: tensor.half() for name, tensor in STATE.items()},
        {name: tensor.bfloat16() for name, tensor in STATE.items()},
        {name: tensor.double() for name, tensor in STATE.items()},
    ],
    ids=["bare", "dict", "wrapped", "checkpoint", "nested", "half", "bfloat16", "double"],
)
def test_tensors_come_by_name_in_float32(tmp_path, content, is_zip):
    tensors = read_tensors(save(content, tmp_path / "model.pt", is_zip))
    assert tensors.keys() == STATE.keys()
    for name, array in tensors.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, STATE[name].numpy())


def test_tensors_of_2017_are_read(tmp_path, monkeypatch):
    def reduce(self, protocol):
        storage = torch.storage.TypedStorage(
            wrap_storage=self.untyped_storage(), dtype=self.dtype, _internal=True
        )
        return torch._utils._rebuild_tensor, (storage, 0, tuple(self.size()), self.stride())

    monkeypatch.setattr(torch.Tensor, "__reduce_ex__", reduce)
    path = save({"state_dict": STATE, "opt": OPTIONS}, tmp_path / "e0.pt", is_zip=False)
    monkeypatch.undo()
    assert b"_rebuild_tensor\n" in path.read_bytes()
    np.testing.assert_array_equal(read_tensors(path)["a.weight"], STATE["a.weight"].numpy())


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("place", ["value", "options"])
def test_a_file_that_asks_for_code_is_refused_and_nothing_runs(tmp_path, hostile, place, is_zip):
    bomb, ran = hostile
    content = {"state_dict": STATE, "opt": bomb if place == "value" else OPTIONS}
    if place == "options":
        content["opt"] = argparse.Namespace(bomb=bomb)
    path = save(content, tmp_path / "model.pt", is_zip)
    with pytest.raises(ValueError, match=r"asks for .*, which is code.*save its tensors") as caught:
        read_tensors(path)
    assert os.fspath(path) in str(caught.value)
    assert "weights_only=False" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    assert not ran.exists()
    torch.load(path, weights_only=False)  # which shows that the file is as hostile as it looks
    assert ran.exists()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("protocol", [2, 4])
def test_a_plain_pickle_is_refused_and_nothing_runs(tmp_path, hostile, protocol):
    bomb, ran = hostile
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps(bomb, protocol))
    with pytest.raises(ValueError, match="code"):
        read_tensors(path)
    assert not ran.exists()


def test_a_pickled_module_is_refused_with_how_to_save_its_tensors(tmp_path):
    path = save({"rnn": torch.nn.Linear(2, 2), "embed": torch.nn.Embedding(2, 2)}, tmp_path / "m")
    with pytest.raises(ValueError, match=r"asks for torch\.nn.*checkpoint\['rnn'\]\.state_dict"):
        read_tensors(path)


@pytest.mark.parametrize("is_zip", [True, False])
def test_a_file_of_a_gpu_is_read_without_one(tmp_path, is_zip):
    path = save(STATE, tmp_path / "model.pt", is_zip)
    of_cpu, of_gpu = (len(name).to_bytes(4, "little") + name for name in (b"cpu", b"cuda:0"))
    if is_zip:
        with zipfile.ZipFile(path) as archive:
            contents = {name: archive.read(name) for name in archive.namelist()}
        assert any(of_cpu in content for content in contents.values())
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in contents.items():
                archive.writestr(name, content.replace(of_cpu, of_gpu))
    else:
        assert of_cpu in path.read_bytes()
        path.write_bytes(path.read_bytes().replace(of_cpu, of_gpu))
    for name, array in read_tensors(path).items():
        np.testing.assert_array_equal(array, STATE[name])


def test_only_this_call_takes_command_line_options(tmp_path):
    path = save({"state_dict": STATE, "opt": OPTIONS}, tmp_path / "model.pt")
    read_tensors(path)
    assert argparse.Namespace not in torch.serialization.get_safe_globals()


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.6, 0.9, 0.999])
def test_a_file_that_is_cut_short_is_refused(tmp_path, share, is_zip):
    path = save({"state_dict": STATE}, tmp_path / "model.pt", is_zip)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=r"model\.pt' is cut short, damaged, or not a file"):
        read_tensors(path)


def test_a_changed_weight_is_noticed(tmp_path):
    path = save({"state_dict": STATE}, tmp_path / "model.pt")
    content = bytearray(path.read_bytes())
    content[content.find(STATE["a.weight"].numpy().tobytes()) + 5] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"checksum of 'model/data/0' does not match"):
        read_tensors(path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("is_zip", [True, False])
def test_a_damaged_file_gives_tensors_or_a_value_error(tmp_path, is_zip):
    path = save({"state_dict": STATE, "opt": OPTIONS}, tmp_path / "model.pt", is_zip)
    whole, random = path.read_bytes(), np.random.default_rng(0)
    messages = []
    for _ in range(150):
        content = bytearray(whole)
        content[random.integers(len(whole))] = random.integers(256)
        path.write_bytes(content)
        try:
            read_tensors(path)
        except ValueError as error:
            messages.append(str(error))
    assert len(messages) > 30
    assert all(os.fspath(path) in message for message in messages)


def test_an_archive_of_something_else_is_refused(tmp_path):
    path = tmp_path / "model.pt"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("readme.txt", "no model")
    with pytest.raises(ValueError, match=r"not a file of torch\.save"):
        read_tensors(path)


@pytest.mark.parametrize("content", [[1, 2], "text", torch.zeros(2).tolist()])
def test_what_has_no_tensors_gives_none(tmp_path, content):
    assert read_tensors(save(content, tmp_path / "model.pt")) == {}


def test_a_file_that_is_cut_short_is_refused_with_its_size_and_hash(tmp_path):
    path = save(STATE, tmp_path / "model.pt")
    cut = path.read_bytes()[:-100]
    path.write_bytes(cut)
    digest = hashlib.sha256(cut).hexdigest()
    with pytest.raises(ValueError, match=f"is cut short.*{len(cut):,} bytes and SHA-256 {digest}"):
        read_tensors(path)


def test_an_archive_of_arrays_is_refused_with_what_to_do(tmp_path):
    path = tmp_path / "model.npz"
    np.savez(path, wx=np.zeros(3), wh=np.zeros(3))
    with pytest.raises(ValueError, match=r"it is an \.npz archive: unpack it"):
        read_tensors(path)


def as_one_piece(path, replacements):
    """Change numbers in a pickle of torch's old format."""
    content = path.read_bytes()
    for old, new in replacements.items():
        assert old in content
        content = content.replace(old, new)
    path.write_bytes(content)


def test_a_file_that_claims_gigabytes_is_refused_before_they_are_taken(tmp_path, memory_growth):
    path = save({"a": torch.zeros(70_000)}, tmp_path / "model.pt", is_zip=False)
    as_one_piece(path, {(70_000).to_bytes(4, "little"): (2_000_000_000).to_bytes(4, "little")})

    def refuse():
        with pytest.raises(ValueError, match=r"model\.pt'"):
            read_tensors(path)

    assert memory_growth(refuse) < 50e6


@pytest.mark.parametrize("is_zip", [True, False])
def test_a_tensor_that_repeats_a_few_numbers_is_refused(tmp_path, is_zip):
    tensor = torch.zeros(1).expand(100_000, 100_000)
    path = save({"a.weight": tensor}, tmp_path / "model.pt", is_zip)
    with pytest.raises(ValueError, match="claim to be larger than the file"):
        read_tensors(path)


def test_an_archive_that_unpacks_to_more_than_it_is_is_refused(tmp_path):
    path = save({"a.weight": torch.zeros(1_000_000)}, tmp_path / "model.pt")
    bomb = tmp_path / "bomb.pt"
    with (
        zipfile.ZipFile(path) as plain,
        zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    assert bomb.stat().st_size < 20_000
    with pytest.raises(ValueError, match="archive claims to hold more than it can"):
        read_tensors(bomb)


def test_a_dict_of_dicts_without_end_is_refused(tmp_path):
    level = {"a.weight": torch.zeros(1)}
    for _ in range(40):  # a billion of billions of names
        level = {"left": level, "right": level}
    path = save(level, tmp_path / "model.pt")
    with pytest.raises(ValueError, match="is in it more than once"):
        read_tensors(path)
    itself = {}
    itself["again"] = itself
    with pytest.raises(ValueError, match="is in it more than once"):
        read_tensors(save(itself, tmp_path / "model.pt"))


def test_two_names_of_one_tensor_are_read(tmp_path):
    tensor = torch.ones(3)
    tensors = read_tensors(save({"a": tensor, "b": tensor}, tmp_path / "model.pt"))
    assert [array.tolist() for array in tensors.values()] == [[1.0] * 3] * 2
