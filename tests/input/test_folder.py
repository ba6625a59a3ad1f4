"""A folder of images as its owner may leave it: complete, sparse, or broken."""

import os
import pathlib
import pickle

import numpy as np
import pytest
from PIL import Image

from semiseg_jax.commands import check
from semiseg_jax.input import counts, datasets, sources
from semiseg_jax.input.palettes import make_palette
from semiseg_jax.labels import IGNORE
from tests.input.files import with_orientation

CLASSES = ("sky", "road", "car")


def write_image(path: pathlib.Path, seed=0, size=(12, 16)):
  path.parent.mkdir(parents=True, exist_ok=True)
  pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
  Image.fromarray(pixels).save(path)
  return pixels


def write_mask(path: pathlib.Path, ids, palette=False):
  path.parent.mkdir(parents=True, exist_ok=True)
  mask = Image.fromarray(np.asarray(ids, np.uint8))
  if palette:
    mask = mask.convert("P")
    mask.putpalette([7, 9, 11] * 256)
    mask.putdata(np.asarray(ids).ravel().tolist())
  mask.save(path)


def mask_of(seed, size=(12, 16), ids=(0, 1, 2, 255)):
  return np.random.default_rng(seed).choice(ids, size).astype(np.uint8)


@pytest.fixture
def root(tmp_path, monkeypatch):
  """Twelve images, masks for all but the first two."""
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  root = tmp_path / "pictures"
  for i in range(12):
    write_image(root / "images" / f"scene{i}.png", i)
    if i > 1:
      write_mask(root / "masks" / f"scene{i}.png", mask_of(i))
  return root


def open_folder(root, **kwargs):
  return datasets.open_dataset("folder", root=root, **{"class_names": CLASSES, **kwargs})


def test_images_and_masks(root):
  dataset = open_folder(root)
  assert dataset.info.class_names == CLASSES and dataset.info.num_classes == 3
  assert dataset.info.size == (12, 16) and dataset.info.palette.shape == (3, 3)
  train, val = dataset.train, dataset.val
  assert set(train.ids).isdisjoint(val.ids) and len(train) + len(val) == 12
  assert list(train.ids[:3]) == ["scene0", "scene1", "scene2"]  # 2 before 10
  assert train.labeled.tolist() == [False, False] + [True] * 8 and val.labeled.all()
  assert open_folder(root).val.ids == val.ids  # held out alike every time
  for source in (train, pickle.loads(pickle.dumps(val))):
    for i, name in enumerate(source.ids):
      number = int(name.removeprefix("scene"))
      record = source[i]
      expected = mask_of(number) if number > 1 else np.full((12, 16), IGNORE)
      np.testing.assert_array_equal(record["label"], expected)
      pixels = np.random.default_rng(number).integers(0, 256, (12, 16, 3), np.uint8)
      np.testing.assert_array_equal(record["image"], pixels)


def test_settings_and_their_overrides(root):
  (root / "dataset.toml").write_text(
    'class_names = ["a", "b", "c", "d"]\nignore_index = 2\ntrain_images = "images"\n'
    'val_images = "images"\nval_masks = "masks"\npalette = [[1,2,3],[4,5,6],[7,8,9],[0,0,0]]\n'
  )
  for i in range(2, 12):
    write_mask(root / "masks" / f"scene{i}.png", mask_of(i, ids=(0, 1, 2, 3)), palette=True)
  dataset = open_folder(root, class_names=None)
  assert dataset.info.class_names == ("a", "b", "c", "d") and len(dataset.val) == 12
  assert dataset.info.palette.tolist()[1] == [4, 5, 6]
  raw = mask_of(5, ids=(0, 1, 2, 3))
  np.testing.assert_array_equal(dataset.train[5]["label"], np.where(raw == 2, IGNORE, raw))
  other = open_folder(root, class_names=("w", "x", "y", "z"), ignore_index=3, palette=[[0] * 3] * 4)
  assert other.info.class_names[0] == "w" and not other.info.palette.any()
  np.testing.assert_array_equal(other.train[5]["label"], np.where(raw == 3, IGNORE, raw))


def test_the_other_layout_and_resizing(tmp_path, monkeypatch):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  for split in ("train", "val"):
    for i, size in enumerate([(12, 16), (20, 10)]):
      write_image(tmp_path / split / f"{i}.jpg", i, size)
      write_mask(tmp_path / f"{split}annot" / f"{i}.png", mask_of(i, size))
  dataset = open_folder(tmp_path)
  assert dataset.info.size == (20, 16) and dataset.train.labeled.all()
  small = open_folder(tmp_path, resize=6)
  assert small.info.size == (12, 8)
  assert [small.val[i]["label"].shape for i in (0, 1)] == [(6, 8), (12, 6)]
  assert small.val[0]["image"].shape == (6, 8, 3)
  labels = [small.train[i]["label"].ravel() for i in (0, 1)]
  expected = [np.bincount(label, minlength=256)[:3] for label in labels]
  for _ in range(2):  # counted, then from the cache
    np.testing.assert_array_equal(counts.class_counts(small.train, 3), expected)


def test_counts_are_kept_until_a_mask_changes(root, tmp_path):
  train = open_folder(root).train
  expected = [np.bincount(train[i]["label"].ravel(), minlength=256)[:3] for i in range(len(train))]
  np.testing.assert_array_equal(counts.class_counts(train, 3), expected)
  assert len(list((tmp_path / "cache" / "semiseg_jax").iterdir())) == 1
  np.testing.assert_array_equal(counts.class_counts(open_folder(root).train, 3), expected)
  write_mask(root / "masks" / "scene2.png", np.zeros((12, 16)))
  fresh = open_folder(root).train
  assert counts.class_counts(fresh, 3)[2].tolist() == [192, 0, 0]
  before = fresh.fingerprint()
  os.utime(root / "masks" / "scene3.png", ns=(0, 0))  # rewritten at the same length
  assert fresh.fingerprint() != before
  rows = sources.Subset(fresh, [4, 2])
  assert counts.class_counts(rows, 3)[1].tolist() == [192, 0, 0]


def test_generated_colours_differ():
  assert len({tuple(color) for color in make_palette(255).tolist()}) == 255


@pytest.mark.parametrize(
  ("name", "kwargs", "error", "message"),
  [
    ("nowhere", {}, FileNotFoundError, "nowhere is not a directory"),
    ("", {"class_names": None}, ValueError, "the classes of .* are not known"),
    ("", {"palette": [[0, 0, 0]]}, ValueError, r"palette has shape \(1, 3\), not \(3, 3\)"),
    ("", {"class_names": [str(i) for i in range(300)]}, ValueError, "300 classes"),
  ],
)
def test_folders_that_cannot_be_opened(root, name, kwargs, error, message):
  with pytest.raises(error, match=message):
    open_folder(root / name, **kwargs)


def test_root_is_needed():
  with pytest.raises(ValueError, match="needs root"):
    open_folder(None)


def test_empty_and_unlabelled_folders(tmp_path):
  with pytest.raises(FileNotFoundError, match="images does not exist"):
    open_folder(tmp_path)
  (tmp_path / "images").mkdir()
  with pytest.raises(FileNotFoundError, match="images has no image"):
    open_folder(tmp_path)
  write_image(tmp_path / "images" / "a.png")
  with pytest.raises(ValueError, match=r"none of the 1 images in .* has a mask in .*not exist"):
    open_folder(tmp_path)
  write_mask(tmp_path / "masks" / "a.png", mask_of(0))
  with pytest.raises(ValueError, match="nothing to validate on"):
    open_folder(tmp_path)
  write_image(tmp_path / "images" / "a.jpg")
  with pytest.raises(ValueError, match="have one stem"):
    open_folder(tmp_path)


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("class_name = 3", r"unknown keys \['class_name'\]"),
    ("class_names = [", "dataset.toml: "),
    ('val_images = "nowhere"', "nowhere .val_images"),
  ],
)
def test_settings_that_make_no_sense(root, text, message):
  (root / "dataset.toml").write_text(text)
  with pytest.raises((ValueError, FileNotFoundError), match=message):
    open_folder(root)


def breakages(root):
  """{file stem: (break it, the error's message)}"""
  image, mask = (lambda n: root / "images" / f"{n}.png"), (lambda n: root / "masks" / f"{n}.png")
  cut = lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
  return {
    "scene2": (lambda: cut(image("scene2")), r"scene2\.png: the image does not decode"),
    "scene3": (lambda: image("scene3").write_bytes(b""), r"scene3\.png: the image does not decode"),
    "scene4": (lambda: cut(mask("scene4")), r"masks/scene4\.png: the mask does not decode"),
    "scene5": (
      lambda: write_mask(mask("scene5"), mask_of(0, (10, 16))),
      r"12x16 in .*images/scene5\.png, 10x16 in .*masks/scene5\.png",
    ),
    "scene7": (
      lambda: write_mask(mask("scene7"), mask_of(0, ids=(0, 7))),
      r"masks/scene7\.png: label ids \[7\] are neither in 0\.\.2 nor the ignored id 255",
    ),
    "scene8": (
      lambda: write_image(mask("scene8")),
      r"scene8\.png: the mask has shape \(12, 16, 3\)",
    ),
  }


@pytest.mark.parametrize("name", ["scene2", "scene3", "scene4", "scene5", "scene7", "scene8"])
def test_bad_files_are_named_when_read(root, name):
  train = open_folder(root).train
  break_it, message = breakages(root)[name]
  break_it()
  with pytest.raises(ValueError, match=message):
    train[train.ids.index(name)]


def test_check_finds_everything(root, capsys):
  assert check.main([str(root), "--class_names=sky,road,car"]) == 0
  text = capsys.readouterr().out
  assert "10 images, 2 without a mask" in text and "no problems" in text and "1 road" in text
  for break_it, _ in breakages(root).values():
    break_it()
  write_mask(root / "masks" / "stray.png", mask_of(0))
  assert check.main([str(root), "--class_names=sky,road,car", "--ignore_index=255"]) == 1
  text = capsys.readouterr().out
  for part in (
    "3 x undecodable", "1 x size mismatch", "1 x label range", "1 x mask format",
    "1 masks without an image", "stray.png", "6 problems",
  ):  # fmt: skip
    assert part in text, part


def test_pictures_and_masks_lie_as_viewers_show_them(root):
  for i in range(12):
    pixels = Image.fromarray(np.random.default_rng(i).integers(0, 256, (12, 16, 3), np.uint8))
    (root / "images" / f"scene{i}.png").write_bytes(
      with_orientation(pixels, "PNG", 3 + 3 * (i % 2))
    )
  for i in range(2, 12):
    write_mask(root / "masks" / f"scene{i}.png", np.rot90(mask_of(i), -1 if i % 2 else 2))
  train = open_folder(root).train
  assert train.sizes == [(12, 16), (16, 12)]
  for i, name in enumerate(train.ids):
    number = int(name.removeprefix("scene"))
    pixels = np.random.default_rng(number).integers(0, 256, (12, 16, 3), np.uint8)
    np.testing.assert_array_equal(train[i]["image"], np.rot90(pixels, -1 if number % 2 else 2))
  write_mask(root / "masks" / "scene3.png", mask_of(3))  # as the pixels are stored
  with pytest.raises(ValueError, match=r"16x12 in .*scene3\.png, 12x16 in .*the sides are swapped"):
    train[train.ids.index("scene3")]


def test_what_systems_leave_behind_is_not_seen(root):
  for part in ("images", "masks"):
    for path in list((root / part).iterdir()):
      path.with_name(f"._{path.name}").write_bytes(b"\0")
      path.with_name(f".{path.name}").write_bytes(b"\0")
  assert len(open_folder(root).train) == 10


def test_check_without_class_names_shows_the_ids(root, capsys):
  assert check.main([str(root)]) == 0
  text = capsys.readouterr().out
  assert "id 2" in text and "id 3" not in text
  with pytest.raises(OSError, match="is not a directory"):
    check.main([str(root / "nowhere")])
