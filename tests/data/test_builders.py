"""Every builder of image files on its miniature tree: whole, and broken in each way."""

import numpy as np
import pytest

from data import prepare
from semiseg_jax.input import decode, prepared
from tests.data import builder_checks, trees
from tests.input.files import claiming

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
def test_a_tree_that_was_unpacked_deeper(name, tmp_path, monkeypatch):
  tree = trees.TREES[name](tmp_path / "raw" / "Official Set", monkeypatch)
  path = prepare.prepare(name.split()[0], tmp_path / "raw", tmp_path / "out", tree.variant)
  for split, pairs in tree.pairs.items():
    assert list(prepared.PreparedSource(path, split).ids) == list(pairs)


def leave_behind(root):
  """What macOS, Windows, a Synology disk and Jupyter put beside a user's files."""
  for path in [path for path in root.rglob("*") if path.is_file()]:
    path.with_name(f"._{path.name}").write_bytes(b"\0\5\x16\7")
    for name in (".DS_Store", "Thumbs.db"):
      path.with_name(name).write_bytes(b"\0")
    for folder in ("__MACOSX", "@eaDir", ".ipynb_checkpoints"):
      copy = path.parent / folder / path.name
      copy.parent.mkdir(exist_ok=True)
      copy.write_bytes(b"\0")


@each_tree
def test_what_systems_leave_behind_is_not_seen(name, tmp_path, monkeypatch):
  tree, dataset = trees.TREES[name](tmp_path / "raw", monkeypatch), name.split()[0]
  leave_behind(tmp_path / "raw")
  path = prepare.prepare(dataset, tmp_path / "raw", tmp_path / "out", tree.variant)
  for split, pairs in tree.pairs.items():
    assert list(prepared.PreparedSource(path, split).ids) == list(pairs)


def test_a_tree_of_hidden_files_alone_is_empty(tmp_path):
  (tmp_path / ".DS_Store").write_bytes(b"\0")
  (tmp_path / "__MACOSX").mkdir()
  with pytest.raises(FileNotFoundError, match="is missing or empty"):
    prepare.prepare("kvasir", tmp_path, tmp_path / "out")


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


def test_pictures_beyond_eight_bits_are_stored_as_levels(tmp_path, monkeypatch):
  tree = trees.TREES["cityscapes"](tmp_path / "raw", monkeypatch)
  pair = next(iter(tree.pairs["train"].values()))
  pixels = np.random.default_rng(0).integers(0, 256, trees.SIZE).astype(np.uint16)
  pixels[0, 0] = 255
  trees.save(pair.image, pixels * 16)  # twelve bits
  path = prepare.prepare("cityscapes", tmp_path / "raw", tmp_path / "out", "full")
  image = prepared.PreparedSource(path, "train")[0]["image"]
  np.testing.assert_allclose(image, pixels[..., None].repeat(3, -1), atol=1)


def test_pictures_that_are_too_large_are_named_or_skipped(tmp_path, monkeypatch):
  tree = trees.TREES["cityscapes"](tmp_path / "raw", monkeypatch)
  pair = next(iter(tree.pairs["train"].values()))
  for side, message in ((40_000, "pixels are more than"), (13_400, "damaged or truncated")):
    pair.image.write_bytes(claiming(pair.image.read_bytes(), side, side))
    with pytest.raises(decode.DataError, match=f"{pair.image.name}: .*{message}"):
      prepare.prepare("cityscapes", tmp_path / "raw", tmp_path / "out", "full")
  path = prepare.prepare("cityscapes", tmp_path / "raw", tmp_path / "out", "full", skip_bad=True)
  assert len(prepared.read_metadata(path)["splits"]["train"]["skipped"]) == 1


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
