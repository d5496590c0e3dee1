import pytest

from skdiscovery.data_folder import DATA_VARIABLE, locate

NAME = "set/part.csv"


def write(folder):
    path = folder / NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def refuse(folder):
    pytest.fail("the cache was to be left alone")


@pytest.fixture
def own_folder(tmp_path, monkeypatch):
    folder = tmp_path / "own"
    monkeypatch.setenv(DATA_VARIABLE, str(folder))
    return folder


def test_own_folder_first(own_folder, tmp_path):
    path = write(own_folder)
    write(tmp_path / "home" / "skdiscovery")
    home = tmp_path / "home"
    found = locate(NAME, fill_cache=refuse, data_home=home, download_if_missing=True)
    assert found == path


def test_own_folder_needs_no_cache(own_folder, tmp_path):
    write(own_folder)
    home = tmp_path / "home"
    locate(NAME, fill_cache=refuse, data_home=home, download_if_missing=True)
    assert not home.exists()


def test_own_folder_may_be_written_with_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(DATA_VARIABLE, "~/own")
    path = write(tmp_path / "own")
    assert locate(NAME, fill_cache=refuse, data_home=None, download_if_missing=True) == path


def test_cache_where_own_folder_lacks_the_file(own_folder, tmp_path):
    path = write(tmp_path / "home" / "skdiscovery")
    found = locate(NAME, fill_cache=refuse, data_home=tmp_path / "home", download_if_missing=True)
    assert found == path


def test_fills_the_cache(no_own_folder, tmp_path):
    found = locate(NAME, fill_cache=write, data_home=tmp_path, download_if_missing=True)
    assert found == tmp_path / "skdiscovery" / NAME
    assert found.is_file()


def test_data_home_defaults_to_scikit_learns(no_own_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(tmp_path))
    path = write(tmp_path / "skdiscovery")
    assert locate(NAME, fill_cache=refuse, data_home=None, download_if_missing=True) == path


def test_a_missing_file_says_where_it_was_sought(own_folder, tmp_path):
    with pytest.raises(OSError, match="`download_if_missing` is False") as raised:
        locate(NAME, fill_cache=refuse, data_home=tmp_path, download_if_missing=False)
    assert str(own_folder / NAME) in str(raised.value)
    assert str(tmp_path / "skdiscovery" / NAME) in str(raised.value)
    assert DATA_VARIABLE in str(raised.value)
