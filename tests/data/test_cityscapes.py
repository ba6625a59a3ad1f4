"""What only the Cityscapes builder does: variants, unlabelled extra images, what it prints."""

import shutil

import numpy as np
import pytest
from PIL import Image

from data import prepare
from data.cityscapes import builder
from semiseg_jax.input import datasets, prepared
from semiseg_jax.labels import IGNORE
from tests import golden
from tests.data import builder_checks, trees


@pytest.fixture
def raw(tmp_path):
  return tmp_path / "[raw]"  # not to be taken for markup where it is printed


@pytest.fixture
def tree(raw, monkeypatch):
  return trees.write_cityscapes(raw, monkeypatch)


@golden.cases("reco/label_maps*", holding="cityscapes")
def test_ids(case):
  # ids beyond 33 would be road in the original; none occurs in the official files
  listed = case["id"] <= 33
  np.testing.assert_array_equal(builder.CLASS_OF_ID[listed], case["cityscapes"][listed])
  assert (builder.CLASS_OF_ID[~listed] == -1).all()


@golden.cases("segmentation_zoo/constants*", holding="cityscapes_id")
def test_ids_and_colours_of_the_zoo(case):
  known = case["cityscapes_id"] >= 0
  ids = case["cityscapes_id"][known]
  np.testing.assert_array_equal(builder.CLASS_OF_ID[ids], case["cityscapes_train_id"][known])
  np.testing.assert_array_equal(builder.PALETTE, case["cityscapes"][:19])


@golden.cases("reco/colormaps*", holding="cityscapes")
def test_colours(case):
  np.testing.assert_array_equal(builder.PALETTE, case["cityscapes"][:19])


def test_names():
  listed = builder_checks.label_names("cityscapes")
  by_class = {entry["train_id"]: entry["name"] for entry in listed}
  assert tuple(by_class[class_id] for class_id in range(19)) == builder.CLASS_NAMES


def test_ids_without_a_class_are_ignored(tree, raw, tmp_path):
  pair = tree.pairs["train"]["ulm_000002_000019"]
  ids = np.random.default_rng(0).integers(0, 34, trees.SIZE, np.uint8)
  trees.save(pair.mask, ids)
  path = prepare.prepare("cityscapes", raw, tmp_path / "out", "full")
  np.testing.assert_array_equal(
    prepared.PreparedSource(path, "train")[2]["label"], builder.CLASS_OF_ID[ids]
  )


@pytest.mark.parametrize("variant", ["half", "half_bilinear"])
def test_half(tree, raw, tmp_path, monkeypatch, variant):
  monkeypatch.setattr(builder, "_HALF", (15, 10))
  path = prepare.prepare("cityscapes", raw, tmp_path / "out", variant)
  dataset = builder_checks.check_prepared(path, "cityscapes", tmp_path / "out")
  pair = next(iter(tree.pairs["val"].values()))
  filters = {"half": Image.Resampling.BICUBIC, "half_bilinear": Image.Resampling.BILINEAR}
  image = Image.open(pair.image).resize((15, 10), filters[variant])
  ids = Image.open(pair.mask).resize((15, 10), Image.Resampling.NEAREST)
  np.testing.assert_array_equal(dataset.val[0]["image"], image)
  np.testing.assert_array_equal(dataset.val[0]["label"], builder.CLASS_OF_ID[np.asarray(ids)])


def test_the_choice_of_variant(tree, raw, tmp_path, monkeypatch):
  monkeypatch.setattr(builder, "_HALF", (15, 10))
  path = prepare.prepare("cityscapes", raw, tmp_path / "out")
  assert path.parent.name == "half"  # the default
  open_it = lambda **kw: datasets.open_dataset("cityscapes", data_dir=tmp_path / "out", **kw)
  assert open_it().info.size == (10, 15)
  prepare.prepare("cityscapes", raw, tmp_path / "out", "full")
  with pytest.raises(ValueError, match=r"name one of \['full', 'half'\]"):
    open_it()
  assert open_it(variant="full").info.size == trees.SIZE


def test_extra_images_have_no_labels(tree, raw, tmp_path):
  images = [raw / "leftImg8bit" / "train_extra" / "bayreuth" / name for name in ("b", "a")]
  for seed, image in enumerate(images):
    trees.save_image(image.with_name(f"{image.name}_leftImg8bit.png"), seed)
  path = prepare.prepare("cityscapes", raw, tmp_path / "out", "full")
  builder_checks.check_prepared(path, "cityscapes", tmp_path / "out")
  extra = prepared.PreparedSource(path, "extra")
  assert extra.ids == ("a", "b") and not extra.labeled.any() and extra.counts.sum() == 0
  record = extra[1]
  np.testing.assert_array_equal(record["image"], Image.open(f"{images[0]}_leftImg8bit.png"))
  np.testing.assert_array_equal(record["label"], np.full(trees.SIZE, IGNORE))


def test_what_was_skipped_is_printed(tree, raw, tmp_path, capsys):
  first, second, _ = tree.pairs["train"].values()
  first.mask.unlink()
  second.image.write_bytes(b"")
  arguments = [f"--raw={raw}", f"--data_dir={tmp_path / 'out'}", "--variant=full"]
  assert prepare.main(["cityscapes", *arguments]) == 1
  assert f"{first.mask} is missing" in capsys.readouterr().err
  assert prepare.main(["cityscapes", *arguments, "--skip_bad"]) == 0
  printed = capsys.readouterr().out
  assert f"train: 1 skipped, missing mask, the first: {first.mask} is missing" in printed
  assert f"train: 1 skipped, damaged file, the first: {second.image}: damaged" in printed
  assert "1 of 2975" in printed and "train is not the official list of 2975 images" in printed


def test_nothing_usable(tree, raw, tmp_path):
  for pair in tree.pairs["val"].values():
    pair.image.write_bytes(b"")
  with pytest.raises(ValueError, match=r"no image of val can be used.*lindau_000000_000019"):
    prepare.prepare("cityscapes", raw, tmp_path / "out", "full", skip_bad=True)


def test_masks_drawn_in_colours_are_refused(tree, raw, tmp_path):
  trees.save(tree.pairs["val"]["lindau_000000_000019"].mask, np.zeros((*trees.SIZE, 3), np.uint8))
  with pytest.raises(ValueError, match=r"lindau.*labelIds\.png: a mask of mode RGB"):
    prepare.prepare("cityscapes", raw, tmp_path / "out", "full")


def test_without_the_files_it_says_what_to_do(tree, raw, tmp_path):
  next(iter(tree.pairs["val"].values())).image.unlink()
  with pytest.raises(FileNotFoundError, match=r"no file matches .*leftImg8bit/val"):
    prepare.prepare("cityscapes", raw, tmp_path / "out", "half")
  for missing in (None, tmp_path / "nowhere"):
    with pytest.raises(FileNotFoundError) as error:
      prepare.prepare("cityscapes", missing, tmp_path, "half")
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


def test_a_damaged_record_is_named(tree, raw, tmp_path, monkeypatch):
  path = prepare.prepare("cityscapes", raw, tmp_path / "out", "full")
  source = prepared.PreparedSource(path, "train")
  record = dict(source._records[1])
  monkeypatch.setitem(source.__dict__, "_records", {1: {**record, "image": record["image"][:50]}})
  with pytest.raises(ValueError, match=r"record 'aachen_000010_000019' of train in .* not decode"):
    source[1]


def test_every_archive_in_a_folder_of_its_own(raw, tree, tmp_path):
  for part, archive in (("leftImg8bit", "leftImg8bit_trainvaltest"), ("gtFine", "gtFine (1)")):
    (raw / archive).mkdir()
    (raw / part).rename(raw / archive / part)
  path = prepare.prepare("cityscapes", raw, tmp_path / "out", "full")
  assert list(prepared.PreparedSource(path, "val").ids) == list(tree.pairs["val"])
  shutil.copytree(raw / "gtFine (1)", raw / "gtFine")
  with pytest.raises(FileNotFoundError, match=r"gtFine/gtFine/train or .*1\)/gtFine/train\? Put"):
    prepare.prepare("cityscapes", raw, tmp_path / "again", "full")
