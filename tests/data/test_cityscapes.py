"""The Cityscapes builder on a made-up tree of the official layout, whole and broken."""

import numpy as np
import pytest
from PIL import Image

from data import prepare
from data.cityscapes import builder
from semiseg_jax.input import prepared, sources
from semiseg_jax.labels import IGNORE
from tests import golden
from tests.data import builder_checks

FRAMES = {
  "train": ["ulm/ulm_000002_000019", "aachen/aachen_000010_000019", "aachen/aachen_000009_000019"],
  "val": ["lindau/lindau_000000_000019"],
}
SIZE = (32, 64)


def write_tree(root, size=SIZE):
  for split, frames in FRAMES.items():
    for number, frame in enumerate(frames):
      rng = np.random.default_rng(number)
      for path, array in (
        (image_path(root, split, frame), rng.integers(0, 256, (*size, 3), np.uint8)),
        (mask_path(root, split, frame), rng.integers(0, 40, size, np.uint8)),
      ):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path)
  return root


def image_path(root, split, frame):
  return root / "leftImg8bit" / split / f"{frame}_leftImg8bit.png"


def mask_path(root, split, frame):
  return root / "gtFine" / split / f"{frame}_gtFine_labelIds.png"


@pytest.fixture
def raw(tmp_path):
  return write_tree(tmp_path / "raw")


@golden.cases("reco/label_maps")
def test_ids(case):
  # ids beyond 33 would be road in the original; none occurs in the official files
  listed = case["id"] <= 33
  np.testing.assert_array_equal(builder.train_ids()[listed], case["cityscapes"][listed])
  assert (builder.train_ids()[~listed] == IGNORE).all()


@golden.cases("reco/colormaps")
def test_colours(case):
  np.testing.assert_array_equal(builder.PALETTE, case["cityscapes"][:19])


def test_full(raw, tmp_path):
  path = prepare.prepare("cityscapes", raw, tmp_path / "out", "full")
  dataset = builder_checks.check_prepared(path, "cityscapes", tmp_path / "out")
  assert dataset.info.num_classes == 19 and dataset.info.size == SIZE
  names = ["aachen_000009_000019", "aachen_000010_000019", "ulm_000002_000019"]
  assert list(dataset.train.ids) == names
  for row, frame in enumerate(sorted(FRAMES["train"])):
    record = dataset.train[row]
    image = np.asarray(Image.open(image_path(raw, "train", frame)))
    ids = np.asarray(Image.open(mask_path(raw, "train", frame)))
    np.testing.assert_array_equal(record["image"], image)
    np.testing.assert_array_equal(record["label"], builder.train_ids()[ids])
    stored = dataset.train._records[row]["image"]
    assert stored == image_path(raw, "train", frame).read_bytes()


def test_half_and_the_choice_of_variant(raw, tmp_path, monkeypatch):
  monkeypatch.setattr(builder, "_HALF", (32, 16))
  path = prepare.prepare("cityscapes", raw, tmp_path / "out")
  assert path.parent.name == "half"  # the default
  dataset = builder_checks.check_prepared(path, "cityscapes", tmp_path / "out")
  frame = FRAMES["val"][0]
  image = Image.open(image_path(raw, "val", frame)).resize((32, 16), Image.Resampling.BICUBIC)
  mask = Image.open(mask_path(raw, "val", frame)).resize((32, 16), Image.Resampling.NEAREST)
  np.testing.assert_array_equal(dataset.val[0]["image"], image)
  np.testing.assert_array_equal(dataset.val[0]["label"], builder.train_ids()[np.asarray(mask)])
  open_it = lambda **kw: sources.open_dataset("cityscapes", data_dir=tmp_path / "out", **kw)
  assert open_it().info.size == (16, 32)
  prepare.prepare("cityscapes", raw, tmp_path / "out", "full")
  with pytest.raises(ValueError, match=r"name one of \['full', 'half'\]"):
    open_it()
  assert open_it(variant="full").info.size == SIZE


def cut(path):
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


FRAME = FRAMES["train"][1]


@pytest.mark.parametrize(
  ("break_it", "message"),
  [
    (lambda r: mask_path(r, "train", FRAME).unlink(), r"aachen_000010.*labelIds\.png is missing"),
    (lambda r: cut(image_path(r, "train", FRAME)), r"aachen_000010.*leftImg8bit\.png: damaged"),
    (lambda r: cut(mask_path(r, "train", FRAME)), r"aachen_000010.*labelIds\.png: damaged"),
    (
      lambda r: Image.new("L", (60, 32)).save(mask_path(r, "train", FRAME)),
      r"\(64, 32\) in .*aachen_000010.*leftImg8bit.png, \(60, 32\) in .*labelIds.png",
    ),
    (
      lambda r: Image.new("RGB", (64, 32)).save(mask_path(r, "train", FRAME)),
      r"labelIds\.png: a mask of mode RGB",
    ),
    (
      lambda r: image_path(r, "val", FRAMES["val"][0]).unlink(),
      r"no image matches .*leftImg8bit/val/CITY",
    ),
  ],
)
def test_broken_trees_leave_nothing(raw, tmp_path, break_it, message):
  break_it(raw)
  with pytest.raises((ValueError, FileNotFoundError), match=message):
    prepare.prepare("cityscapes", raw, tmp_path / "out", "full")
  with pytest.raises(FileNotFoundError, match="no prepared dataset cityscapes"):
    sources.open_dataset("cityscapes", data_dir=tmp_path / "out")


def test_without_the_files_it_says_what_to_do(tmp_path):
  for raw in (None, tmp_path / "nowhere"):
    with pytest.raises(FileNotFoundError) as error:
      prepare.prepare("cityscapes", raw, tmp_path, "half")
    for part in (
      "https://www.cityscapes-dataset.com",
      "leftImg8bit_trainvaltest.zip",
      "gtFine_trainvaltest.zip",
      "RAW/gtFine/{train,val}/CITY/*_gtFine_labelIds.png",
      f"python -m data.prepare cityscapes --raw=RAW --data_dir={tmp_path} --variant=half",
    ):
      assert part in str(error.value)
  with pytest.raises(FileNotFoundError, match=r"cityscapes \(half\) .*python -m data.prepare"):
    prepared.find_prepared("cityscapes", tmp_path, "half")


def test_a_damaged_record_is_named(raw, tmp_path, monkeypatch):
  path = prepare.prepare("cityscapes", raw, tmp_path / "out", "full")
  source = prepared.PreparedSource(path, "train")
  record = dict(source._records[1])
  monkeypatch.setitem(source.__dict__, "_records", {1: {**record, "image": record["image"][:50]}})
  with pytest.raises(ValueError, match=r"record 'aachen_000010_000019' of train in .* not decode"):
    source[1]
