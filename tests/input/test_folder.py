"""A folder of images as its owner may leave it: complete, sparse, or broken."""

import os
import pickle

import numpy as np
import pytest
from PIL import Image

from semiseg_jax.input import counts, datasets, sources, splits
from semiseg_jax.input.palettes import make_palette
from semiseg_jax.labels import IGNORE
from tests.input.files import with_orientation
from tests.input.folders import breakages, mask_of, write_folder, write_image, write_mask

CLASSES = ("sky", "road", "car")


@pytest.fixture
def root(tmp_path, monkeypatch):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  write_folder(tmp_path / "pictures")
  return tmp_path / "pictures"


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
    write_mask(root / "masks" / f"scene{i}.png", mask_of(i, ids=(0, 1, 2, 3)), [(7, 9, 11)])
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


def test_folders_below(root, tmp_path):
  for part in ("images", "masks"):
    for path in sorted((root / part).iterdir()):
      folder = root / part / ("day/a.1" if "1" in path.name else "night")
      folder.mkdir(parents=True, exist_ok=True)
      path.rename(folder / path.name)
  (root / "images" / "old.png").mkdir()  # a folder, whatever it is called
  dataset = open_folder(root)
  train, val = dataset.train, dataset.val
  ids = [*train.ids, *val.ids]
  assert sorted(ids)[:3] == ["day/a.1/scene1", "day/a.1/scene10", "day/a.1/scene11"]
  assert train.ids[:2] == ("day/a.1/scene1", "day/a.1/scene10") and "night/scene0" in ids
  row = train.ids.index("night/scene2")
  np.testing.assert_array_equal(train[row]["label"], mask_of(2))
  (tmp_path / "few.txt").write_bytes("night/scene3\r\nnight/scene2\r\n".encode("utf-16"))
  rows = splits.labeled_indices(str(tmp_path / "few.txt"), train, dataset.info)
  assert [train.ids[row] for row in rows] == ["night/scene3", "night/scene2"]
  (root / "masks" / "night" / "scene2.png").write_bytes(b"")
  with pytest.raises(ValueError, match=r"masks/night/scene2\.png: the mask does not decode"):
    train[row]


def test_a_folder_of_masks_below_that_of_images(root):
  (root / "dataset.toml").write_text('train_images = "."\ntrain_masks = "masks"\n')
  for path in (root / "images").iterdir():
    path.rename(root / path.name)
  dataset = open_folder(root)
  assert len(dataset.train) + len(dataset.val) == 12 and dataset.train.ids[0] == "scene0"


def test_a_jpeg_beside_a_mask_is_none(root):
  write_image(root / "masks" / "scene2.jpg")
  train = open_folder(root).train
  np.testing.assert_array_equal(train[2]["label"], mask_of(2))
  (root / "masks" / "scene3.png").rename(root / "masks" / "scene3.jpg")  # whatever it is called
  write_image(root / "masks" / "scene4.jpg")
  (root / "masks" / "scene4.png").unlink()
  train = open_folder(root).train
  np.testing.assert_array_equal(train[3]["label"], mask_of(3))
  with pytest.raises(ValueError, match=r"scene4\.jpg: the mask is a JPEG"):
    train[4]


def test_values_of_dataset_toml(root):
  text = 'values = {0 = "background", 255 = "lesion", 7 = "lesion"}\n'
  (root / "dataset.toml").write_bytes(text.encode("utf-8-sig"))
  for i in range(2, 12):
    write_mask(root / "masks" / f"scene{i}.png", mask_of(i, ids=(0, 255)))
  dataset = open_folder(root, class_names=None)
  assert dataset.info.class_names == ("background", "lesion")
  np.testing.assert_array_equal(dataset.train[2]["label"], mask_of(2, ids=(0, 255)) // 255)
  before = dataset.train.fingerprint()
  (root / "dataset.toml").write_text(f'class_names = ["lesion", "background"]\n{text}')
  dataset = open_folder(root, class_names=None)
  np.testing.assert_array_equal(dataset.train[2]["label"], 1 - mask_of(2, ids=(0, 255)) // 255)
  assert dataset.train.fingerprint() != before  # counts that are kept would be of other classes
  with pytest.raises(ValueError, match="values names background, lesion, no class of sky"):
    open_folder(root)
  with pytest.raises(ValueError, match="ignored id 7 is a class, too"):
    open_folder(root, class_names=None, ignore_index=7)


def test_colours_of_dataset_toml(root):
  colours = np.array([(0, 0, 0), (128, 0, 0), (0, 128, 0)], np.uint8)
  for i in range(2, 12):
    Image.fromarray(colours[mask_of(i, ids=(0, 1, 2))]).save(root / "masks" / f"scene{i}.png")
  with pytest.raises(ValueError, match=r"scene2\.png: the mask has shape \(12, 16, 3\).*palette"):
    open_folder(root).train[2]
  (root / "dataset.toml").write_text(f"palette = {colours.tolist()}\n")
  train = pickle.loads(pickle.dumps(open_folder(root).train))
  np.testing.assert_array_equal(train[2]["label"], mask_of(2, ids=(0, 1, 2)))


@pytest.mark.parametrize("masks", [{}, {"a_mask.png": 3}, {"A.PNG": 3}])
def test_validation_images_without_masks(root, masks):
  write_image(root / "val_images" / "a.png")
  for name, seed in masks.items():
    write_mask(root / "val_masks" / name, mask_of(seed))
  found = "masks there have other names, such as" if masks else "val_masks does not exist"
  with pytest.raises(ValueError, match=rf"none of the 1 images in .*val_images has .*{found}"):
    open_folder(root)


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ('class_names = ["a", "b", "a"]', r"dataset\.toml: class_names=.* must be different names"),
    ('class_names = "a"', "must be different names"),
    ("ignore_index = 0.5", "ignore_index=0.5 must be a whole number"),
    ("palette = [[0, 0, 256]]", "palette=.* must be at most 255"),
    ("ignore_color = [0, 0]", "ignore_color=.* must have 3 values"),
    ("values = {}", "values={} must be like"),
    ('values = {a = "x"}', "values has 'a' where an id from 0 to 255"),
    ('values = {256 = "x"}', "values has '256' where"),
    ("values = {1 = 2}", r"values\.1=2 must be a text"),
    ("train_masks = 3", "train_masks=3 must be a text"),
    ("class_name = 3", r"unknown keys \['class_name'\]"),
    ("class_names = [", "dataset.toml: "),
    ('val_images = "nowhere"', "nowhere .val_images"),
  ],
)
def test_settings_that_make_no_sense(root, text, message):
  (root / "dataset.toml").write_text(text)
  with pytest.raises((ValueError, FileNotFoundError), match=message):
    open_folder(root)


def test_settings_in_another_encoding(root):
  (root / "dataset.toml").write_bytes("# Straße\n".encode("latin-1"))
  with pytest.raises(ValueError, match=r"dataset\.toml is no text in UTF-8"):
    open_folder(root)


@pytest.mark.parametrize("name", ["scene2", "scene3", "scene4", "scene5", "scene7", "scene8"])
def test_bad_files_are_named_when_read(root, name):
  train = open_folder(root).train
  break_it, message = breakages(root)[name]
  break_it()
  with pytest.raises(ValueError, match=message):
    train[train.ids.index(name)]


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
