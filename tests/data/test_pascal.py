"""What only the Pascal builder does: three kinds of masks, published listings, VOC's own list."""

import numpy as np
import pytest
import scipy.io
from PIL import Image

from data import prepare
from data.pascal import builder
from semiseg_jax.input import prepared
from semiseg_jax.labels import IGNORE
from tests import golden
from tests.data import builder_checks, trees


@golden.cases("reco/colormaps*", holding="pascal")
def test_colours(case):
  np.testing.assert_array_equal(builder.PALETTE, case["pascal"][:21])


@golden.cases("segmentation_zoo/constants*", holding="voc21")
def test_colours_of_the_zoo(case):
  np.testing.assert_array_equal(builder.PALETTE, case["voc21"])


def test_names_and_ids():
  assert list(builder.CLASS_NAMES) == builder_checks.label_names("voc")
  assert builder.CLASS_OF_ID.tolist() == [*range(21), *[-1] * 234, IGNORE]


def test_listings_are_the_published_ones():
  for split, number in builder.Builder.NUM_IMAGES.items():
    names = builder.listing(split)
    assert len(set(names)) == number and names == sorted(names)
  assert not set(builder.listing("train")) & set(builder.listing("val"))


def write_sbd(path, label):
  path.parent.mkdir(parents=True, exist_ok=True)
  scipy.io.savemat(path, {"GTcls": {"Boundaries": 0, "Segmentation": label}}, do_compression=True)


@pytest.fixture
def original(tmp_path, monkeypatch):
  """The releases of VOC and SBD: palette masks for two images of four, .mat for two others."""
  raw = tmp_path / "raw"
  tree = trees.write_pascal(raw, monkeypatch)
  root = raw / "VOCdevkit" / "VOC2012"
  own = root / "SegmentationClass"
  (root / "SegmentationClassAug").rename(own)
  for name in tree.labels:
    mask = Image.fromarray(tree.labels[name], "P")
    mask.putpalette(builder.PALETTE.tobytes())
    mask.save(own / f"{name}.png")
  sbd = raw / "benchmark_RELEASE" / "dataset" / "cls"
  for name in ("2007_000039", "2008_000001"):
    (own / f"{name}.png").unlink()
    tree.labels[name][:2] = 0  # SBD leaves nothing out
    write_sbd(sbd / f"{name}.mat", tree.labels[name])
  write_sbd(sbd / "2007_000032.mat", np.zeros(trees.SIZE, np.uint8))  # VOC's own is preferred
  lists = root / "ImageSets" / "Segmentation"
  lists.mkdir(parents=True)
  (lists / "train.txt").write_text("2007_000032\n2011_000001\n")
  return raw, tree


def test_original_releases(original, tmp_path):
  raw, tree = original
  path = prepare.prepare("pascal", raw, tmp_path / "out")
  dataset = builder_checks.check_prepared(path, "pascal", tmp_path / "out")
  for source in (dataset.train, dataset.val):
    for row, name in enumerate(source.ids):
      np.testing.assert_array_equal(source[row]["label"], tree.labels[name])
  assert (path / "lists" / "train" / "voc" / "train.txt").read_text() == "2007_000032\n"
  assert not (path / "lists" / "val").exists()


@pytest.mark.parametrize("where", [".", "VOC2012"])
def test_other_folders(tmp_path, monkeypatch, where):
  tree = trees.write_pascal(tmp_path, monkeypatch)
  (tmp_path / "VOCdevkit" / "VOC2012").rename(tmp_path / "unpacked")
  raw = tmp_path / "unpacked"
  if where != ".":  # the conversion beside VOC2012, not in it
    (tmp_path / "raw").mkdir()
    raw = raw.rename(tmp_path / "raw" / where).parent
    (raw / where / "SegmentationClassAug").rename(raw / "SegmentationClassAug")
  path = prepare.prepare("pascal", raw, tmp_path / "out")
  assert prepared.PreparedSource(path, "train").ids == tuple(tree.pairs["train"])


def test_broken_releases(original, tmp_path):
  raw, tree = original
  sbd = raw / "benchmark_RELEASE" / "dataset" / "cls"
  prepare_it = lambda **kw: prepare.prepare("pascal", raw, tmp_path / "out", **kw)
  whole = (sbd / "2008_000001.mat").read_bytes()
  (sbd / "2008_000001.mat").write_bytes(whole[: len(whole) // 2])
  with pytest.raises(ValueError, match=r"cls/2008_000001\.mat: damaged or not of SBD"):
    prepare_it()
  scipy.io.savemat(sbd / "2008_000001.mat", {"GTinst": 1})
  with pytest.raises(ValueError, match=r"cls/2008_000001\.mat: damaged or not of SBD"):
    prepare_it()
  (sbd / "2008_000001.mat").unlink()
  with pytest.raises(ValueError, match=r"cls/2008_000001\.mat is missing; .*2008_000001\.jpg"):
    prepare_it()
  tree.pairs["train"]["2007_000039"].image.unlink()
  with pytest.raises(ValueError, match=r"JPEGImages/2007_000039\.jpg is missing"):
    prepare_it()
  skipped = prepared.read_metadata(prepare_it(skip_bad=True))["splits"]["train"]["skipped"]
  assert [kind for kind, _ in skipped] == ["missing image", "missing mask"]


def test_sbd_never_stands_in_for_validation_masks(original, tmp_path):
  raw, tree = original
  own = raw / "VOCdevkit" / "VOC2012" / "SegmentationClass" / "2007_000033.png"
  own.unlink()
  write_sbd(
    raw / "benchmark_RELEASE" / "dataset" / "cls" / "2007_000033.mat", tree.labels[own.stem]
  )
  with pytest.raises(ValueError, match=r"SegmentationClass/2007_000033\.png is missing"):
    prepare.prepare("pascal", raw, tmp_path / "out")


def test_folders_that_are_not_there(original, tmp_path):
  raw, _ = original
  (raw / "benchmark_RELEASE").rename(tmp_path / "elsewhere")
  with pytest.raises(FileNotFoundError, match=r"annotations of SBD are missing"):
    prepare.prepare("pascal", raw, tmp_path / "out")
  with pytest.raises(FileNotFoundError, match=r"none of JPEGImages, .*VOC2012/JPEGImages is in"):
    prepare.prepare("pascal", tmp_path / "elsewhere", tmp_path / "out")
