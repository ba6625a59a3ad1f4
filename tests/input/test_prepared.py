"""What is known of a prepared directory before any record is read."""

import json

import pytest

from semiseg_jax.input import prepared


@pytest.fixture
def directory(tmp_path):
  """DATA_DIR/tiny/1.0.0 as preparation leaves it, without the records."""
  index = lambda names, labeled: {
    "ids": names,
    "labeled": [labeled] * len(names),
    "sizes": [[4, 6]],
    "counts": [[24 * labeled, 0]] * len(names),
  }
  path = tmp_path / "tiny" / "1.0.0"
  for name, text in (
    ("train/dst_cbc/30_0", "b\na a\n"),
    ("train/c3/100_seed1", "b\n"),
    ("val/dst_cbc/valtiny", "d\n"),
  ):
    file = path / "lists" / f"{name}.txt"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
  splits = {"train": index(["a a", "b"], True), "val": index(["d"], True)}
  splits["extra"] = index(["e", "f"], False)
  metadata = {"class_names": ["x", "y"], "palette": [[0, 0, 0], [1, 1, 1]], "splits": splits}
  (path / prepared.METADATA).write_text(json.dumps(metadata))
  return path


def test_lists(directory):
  dataset = prepared.open_prepared("tiny", directory.parents[1])
  assert dataset.train.lists() == ["c3/100_seed1", "dst_cbc/30_0"]
  assert dataset.train.ids_of("dst_cbc/30_0") == ["b", "a a"]
  assert dataset.val.lists() == ["dst_cbc/valtiny"]
  assert dataset.extra.lists() == []


def test_extra_images(directory):
  extra = prepared.open_prepared("tiny", directory.parents[1]).extra
  assert extra.ids == ("e", "f") and not extra.labeled.any() and extra.counts.sum() == 0
  metadata = prepared.read_metadata(directory)
  del metadata["splits"]["extra"]
  (directory / prepared.METADATA).write_text(json.dumps(metadata))
  assert prepared.open_prepared("tiny", directory.parents[1]).extra is None


def test_a_third_set_with_masks(directory):
  assert prepared.open_prepared("tiny", directory.parents[1]).test is None
  metadata = prepared.read_metadata(directory)
  metadata["splits"]["test"] = metadata["splits"]["val"] | {"ids": ["g"]}
  (directory / prepared.METADATA).write_text(json.dumps(metadata))
  assert prepared.open_prepared("tiny", directory.parents[1]).test.ids == ("g",)


def test_the_index_is_parsed_once(directory, monkeypatch):
  parsed, loads = [], json.loads
  monkeypatch.setattr(json, "loads", lambda text: parsed.append(text) or loads(text))
  prepared.open_prepared("tiny", directory.parents[1])
  assert len(parsed) == 1
  assert prepared.PreparedSource(directory, "val").ids == ("d",) and len(parsed) == 2


def test_damaged_metadata(directory):
  path = directory / prepared.METADATA
  path.write_text(path.read_text()[:-1])
  with pytest.raises(ValueError, match=r"metadata\.json is missing or damaged; delete its folder"):
    prepared.open_prepared("tiny", directory.parents[1])
