"""Every builder of image files on its miniature tree: whole, and broken in each way."""

import numpy as np
import pytest

from data import prepare
from semiseg_jax.input import decode, prepared
from tests.data import builder_checks, trees

each_tree = pytest.mark.parametrize("name", sorted(trees.TREES))


@each_tree
def test_stored_as_it_lies_on_disk(name, tmp_path, monkeypatch):
  tree, dataset_name = trees.TREES[name](tmp_path / "raw", monkeypatch), name.split()[0]
  path = prepare.prepare(dataset_name, tmp_path / "raw", tmp_path / "out", tree.variant)
  dataset = builder_checks.check_prepared(path, dataset_name, tmp_path / "out")
  assert dataset.info.num_classes == len(set(dataset.info.class_names))
  assert dataset.info.size == trees.SIZE
  for split, pairs in tree.pairs.items():
    source = prepared.PreparedSource(path, split)
    assert list(source.ids) == list(pairs)
    for row, (item, (image, _)) in enumerate(pairs.items()):
      record, file = source[row], image.read_bytes()
      assert source._records[row]["image"] == file
      np.testing.assert_array_equal(record["image"], decode.decode_image(file, item))
      np.testing.assert_array_equal(record["label"], tree.labels[item])


@each_tree
def test_the_readme_says_where_the_files_belong(name, tmp_path):
  with pytest.raises(FileNotFoundError) as error:
    prepare.prepare(name.split()[0], None, tmp_path)
  assert "://" in str(error.value) and "RAW/" in str(error.value)


def cut(path):
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def copy(pair, to):
  for source, target in zip(pair, to, strict=True):
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(source.read_bytes())


BREAKAGES = (  # what is counted, what is done to the first training pair, the file to be named
  ("missing mask", lambda tree, pair: pair.mask.unlink(), "mask"),
  ("damaged file", lambda tree, pair: cut(pair.image), "image"),
  ("damaged file", lambda tree, pair: cut(pair.mask), "mask"),
  (
    "size mismatch",
    lambda tree, pair: trees.save(pair.image, np.zeros((9, 9, 3), np.uint8)),
    "mask",
  ),
  ("unknown", lambda tree, pair: trees.save(pair.mask, tree.unknown), "mask"),
  ("duplicate id", lambda tree, pair: copy(pair, tree.twin), "image"),
)


@each_tree
def test_broken_trees(name, tmp_path, monkeypatch):
  write, dataset = trees.TREES[name], name.split()[0]
  for number, (kind, break_it, named) in enumerate(BREAKAGES):
    raw, out = tmp_path / f"raw{number}", tmp_path / f"out{number}"
    tree = write(raw, monkeypatch)
    if {"unknown": tree.unknown, "duplicate id": tree.twin}.get(kind, kind) is None:
      continue  # this dataset cannot be wrong in that way
    pair = next(iter(tree.pairs["train"].values()))
    break_it(tree, pair)
    with pytest.raises(decode.DataError) as error:
      prepare.prepare(dataset, raw, out, tree.variant)
    found = error.value.kind
    assert found == kind or (kind == "unknown" and found in ("label range", "unknown colour"))
    assert str(getattr(pair, named)) in str(error.value)
    with pytest.raises(FileNotFoundError, match=f"no prepared dataset {dataset}"):
      prepared.find_prepared(dataset, out)
    path = prepare.prepare(dataset, raw, out, tree.variant, skip_bad=True)
    index = prepared.read_metadata(path)["splits"]
    skipped = [entry for split in index.values() for entry in split["skipped"]]
    assert skipped == [[found, str(error.value)]]
    stored = sum(len(split["ids"]) for split in index.values())
    assert stored == sum(map(len, tree.pairs.values())) - (kind != "duplicate id")
