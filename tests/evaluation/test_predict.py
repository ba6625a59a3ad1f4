"""Prediction of whole folders: pictures of odd sizes and kinds, and folders that can't be used."""

import cv2
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from semiseg_jax.contract import Variables
from semiseg_jax.evaluation.predict import predict_folder
from tests.tiny import Given

NAMES = ["red", "green", "blue"]
PALETTE = np.array([(255, 0, 0), (0, 255, 0), (0, 0, 255)], np.uint8)


def brightest(params, batch_stats, images):
  """Says which colour channel a pixel is strongest in; at full resolution."""
  assert images.shape[1] % 32 == 0 and images.shape[2] % 32 == 0
  return images * params


VARIABLES = Variables(jnp.ones(3), None)


def picture(height, width, seed=0):
  """Blocks of nearly pure red, green and blue, and their classes."""
  rng = np.random.default_rng(seed)
  coarse = rng.integers(0, 3, (-(-height // 4), -(-width // 4)))
  label = coarse.repeat(4, 0).repeat(4, 1)[:height, :width]
  return np.where(label[..., None] == np.arange(3), 250, 5).astype(np.uint8), label


def predict(folder, out, compiled=None, **options):
  """compiled: a list that gets every size that the network is compiled for."""

  def traced(params, batch_stats, images):
    if compiled is not None:
      compiled.append(images.shape[1:3])
    return brightest(params, batch_stats, images)

  return predict_folder(Given(traced), VARIABLES, folder, out, PALETTE, NAMES, **options)


@pytest.fixture
def folder(tmp_path):
  directory = tmp_path / "pictures"
  directory.mkdir()
  return directory


def test_pictures_of_odd_sizes_come_back_whole(folder, tmp_path):
  sizes = {"a": (33, 47), "b": (64, 40), "c": (1, 1), "d": (50, 61), "e": (7, 130)}
  labels, compiled = {}, []
  for seed, (name, size) in enumerate(sizes.items()):
    image, labels[name] = picture(*size, seed)
    Image.fromarray(image).save(folder / f"{name}.png")
  found = predict(folder, tmp_path / "out", compiled)
  assert [path.name for path in found.written] == [f"{name}.png" for name in sizes]
  for path in found.written:
    with Image.open(path) as written:
      np.testing.assert_array_equal(np.asarray(written), labels[path.stem])
      assert written.getpalette()[:9] == PALETTE.reshape(-1).tolist()
  assert compiled == [(64, 64), (32, 32), (32, 160)] and not found.skipped


def test_every_format_and_overlays(folder, tmp_path):
  image, label = picture(40, 36)
  for suffix in ("png", "JPG", "jpeg", "bmp", "webp"):
    Image.fromarray(image).save(folder / f"{suffix}_file.{suffix}", quality=100)
  Image.fromarray(image).convert("L").save(folder / "grey.png")
  Image.fromarray(image).convert("RGBA").save(folder / "with_alpha.png")
  (folder / "notes.txt").write_text("no picture")
  compiled = []
  found = predict(folder, tmp_path / "out", compiled, overlays=True)
  assert len(found.written) == 7 and len(compiled) == 1
  for name in ("png_file", "JPG_file", "jpeg_file", "bmp_file", "webp_file", "with_alpha"):
    written = np.asarray(Image.open(tmp_path / "out" / f"{name}.png"))
    assert (written == label).mean() > 0.95, name
  blended = cv2.imread(str(tmp_path / "out" / "bmp_file_overlay.png"))[..., ::-1]
  expected = np.rint(0.7 * PALETTE[label] + 0.3 * image)
  np.testing.assert_array_equal(blended, expected)
  assert (tmp_path / "out" / "_legend.png").exists()


def test_a_damaged_picture_is_named_or_skipped(folder, tmp_path):
  Image.fromarray(picture(32, 32)[0]).save(folder / "good.png")
  (folder / "bad.png").write_bytes(b"not a picture")
  with pytest.raises(ValueError, match=r"bad\.png: the image does not decode"):
    predict(folder, tmp_path / "out")
  found = predict(folder, tmp_path / "out", skip_bad=True)
  assert [path.name for path in found.written] == ["good.png"]
  assert [path.name for path in found.skipped] == ["bad.png"]


def test_folders_that_cannot_be_used(folder, tmp_path):
  with pytest.raises(FileNotFoundError, match=r"there is no folder .*elsewhere"):
    predict(tmp_path / "elsewhere", tmp_path / "out")
  with pytest.raises(ValueError, match="holds no picture"):
    predict(folder, tmp_path / "out")
  Image.fromarray(picture(32, 32)[0]).save(folder / "one.png")
  with pytest.raises(ValueError, match="is a file"):
    predict(folder / "one.png", tmp_path / "out")
  with pytest.raises(ValueError, match="among the pictures"):
    predict(folder, folder)
  Image.fromarray(picture(32, 32)[0]).save(folder / "one.jpg")
  with pytest.raises(ValueError, match=r"one\.jpg and one\.png .* both be written to one\.png"):
    predict(folder, tmp_path / "out")
  assert not (tmp_path / "out").exists()


def test_an_overlay_must_not_take_another_pictures_name(folder, tmp_path):
  for name in ("street.png", "street_overlay.png"):
    Image.fromarray(picture(32, 32)[0]).save(folder / name)
  assert len(predict(folder, tmp_path / "out").written) == 2
  with pytest.raises(ValueError, match="rename one"):
    predict(folder, tmp_path / "out", overlays=True)


def test_a_network_of_other_classes(folder, tmp_path):
  Image.fromarray(picture(32, 32)[0]).save(folder / "one.png")
  with pytest.raises(ValueError, match="the network has 3 classes, 2 have a name"):
    predict_folder(Given(brightest), VARIABLES, folder, tmp_path / "out", PALETTE[:2], NAMES[:2])
