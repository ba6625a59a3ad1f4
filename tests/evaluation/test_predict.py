"""Prediction of pictures on disk: of odd sizes and kinds, and what can't be used."""

import itertools
import threading

import cv2
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from semiseg_jax.contract import Variables
from semiseg_jax.evaluation import predict as predict_module
from semiseg_jax.evaluation.predict import Files, ahead, grouped, predict_pictures
from semiseg_jax.evaluation.predictor import Inference, read_inference
from tests.input.files import claiming, tiff
from tests.tiny import Given

NAMES = ["red", "green", "blue"]
PALETTE = np.array([(255, 0, 0), (0, 255, 0), (0, 0, 255)], np.uint8)


def brightest(params, batch_stats, images):
  """Says which colour channel a pixel is strongest in; at full resolution."""
  assert images.shape[1] % 32 == 0 and images.shape[2] % 32 == 0
  return images * params


VARIABLES, WHOLE = Variables(jnp.ones(3), None), Inference()


def picture(height, width, seed=0):
  """Blocks of nearly pure red, green and blue, and their classes."""
  rng = np.random.default_rng(seed)
  coarse = rng.integers(0, 3, (-(-height // 4), -(-width // 4)))
  label = coarse.repeat(4, 0).repeat(4, 1)[:height, :width]
  return np.where(label[..., None] == np.arange(3), 250, 5).astype(np.uint8), label


def predict(folder, out, compiled=None, skip_bad=False, settings=WHOLE, **files):
  """compiled: a list that gets every size that the network is compiled for."""

  def traced(params, batch_stats, images):
    if compiled is not None:
      compiled.append(images.shape[1:3])
    return brightest(params, batch_stats, images)

  options = {"files": Files(**files), "settings": settings, "skip_bad": skip_bad}
  return predict_pictures(Given(traced), VARIABLES, folder, out, PALETTE, NAMES, **options)


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


def test_whatever_can_be_trained_on(folder, tmp_path):
  image, label = picture(40, 36)
  exif = Image.Exif()
  exif[0x0112] = 6
  Image.fromarray(image).save(folder / "eight.TIF")
  (folder / "sixteen.tiff").write_bytes(tiff(image.astype(np.uint16) * 16))
  Image.fromarray(image).save(folder / "turned.png", exif=exif)
  for name in ("._eight.TIF", "@eaDir/eight.tif", ".hidden/b.png", "__MACOSX/c.png", "Thumbs.db"):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"\0\5\x16\7")
  for images in (folder, str(folder / "**" / "*.*")):
    found = predict(images, tmp_path / "out", overlays=True)
    assert [path.stem for path in found.written] == ["eight", "sixteen", "turned"]
  written = {path.stem: np.asarray(Image.open(path)) for path in found.written}
  np.testing.assert_array_equal(written["eight"], label)
  np.testing.assert_array_equal(written["sixteen"], label)
  np.testing.assert_array_equal(written["turned"], np.rot90(label, -1))  # as viewers show it
  overlay = np.asarray(Image.open(tmp_path / "out" / "turned_overlay.png"))
  expected = np.rint(0.7 * PALETTE[written["turned"]] + 0.3 * np.rot90(image, -1))
  np.testing.assert_array_equal(overlay, expected)
  (folder / ".hidden" / "b.png").write_bytes((folder / "turned.png").read_bytes())
  for named in (folder / ".hidden", folder / ".hidden" / "b.png"):  # what is asked for is meant
    assert len(predict(named, tmp_path / "other").written) == 1


def test_pictures_that_are_too_large_are_named_or_skipped(folder, tmp_path):
  Image.fromarray(picture(32, 32)[0]).save(folder / "good.png")
  (folder / "huge.png").write_bytes(claiming((folder / "good.png").read_bytes(), 40_000, 40_000))
  with pytest.raises(ValueError, match=r"huge\.png: 40000x40000 pixels are more than"):
    predict(folder, tmp_path / "out")
  found = predict(folder, tmp_path / "out", skip_bad=True)
  assert [path.name for path in found.skipped] == ["huge.png"]


def test_a_damaged_picture_is_named_or_skipped(folder, tmp_path):
  Image.fromarray(picture(32, 32)[0]).save(folder / "good.png")
  (folder / "bad.png").write_bytes(b"not a picture")
  with pytest.raises(ValueError, match=r"bad\.png: the image does not decode"):
    predict(folder, tmp_path / "out")
  found = predict(folder, tmp_path / "out", skip_bad=True)
  assert [path.name for path in found.written] == ["good.png"]
  assert [path.name for path in found.skipped] == ["bad.png"]


def test_a_damaged_picture_is_named_before_others_are_predicted(folder, tmp_path):
  Image.fromarray(picture(32, 32)[0]).save(folder / "good.png")
  (folder / "later.png").write_bytes(b"not a picture")
  with pytest.raises(ValueError, match=r"later\.png: the image does not decode"):
    predict(folder, tmp_path / "out")
  assert not (tmp_path / "out").exists()


def test_folders_that_cannot_be_used(folder, tmp_path):
  with pytest.raises(FileNotFoundError, match=r"there is no folder .*elsewhere"):
    predict(tmp_path / "elsewhere", tmp_path / "out")
  with pytest.raises(ValueError, match="holds no picture"):
    predict(folder, tmp_path / "out")
  Image.fromarray(picture(32, 32)[0]).save(folder / "one.png")
  with pytest.raises(ValueError, match=r"matches no picture \(\.jpg"):
    predict(folder / "*.webp", tmp_path / "out")
  (folder / "notes.txt").write_text("no picture")
  with pytest.raises(ValueError, match=r"notes\.txt is no picture"):
    predict(folder / "notes.txt", tmp_path / "out")
  with pytest.raises(ValueError, match="among the pictures"):
    predict(folder, folder)
  Image.fromarray(picture(32, 32)[0]).save(folder / "one.jpg")
  with pytest.raises(
    ValueError, match=r"one\.jpg and .*one\.png would both be written to one\.png"
  ):
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
    predict_pictures(Given(brightest), VARIABLES, folder, tmp_path / "out", PALETTE[:2], NAMES[:2])


@pytest.fixture
def nested(folder):
  """Pictures by name; of one size but the last."""
  found = {}
  for seed, name in enumerate(("a/x.png", "a/b/x.png", "c/y.png", "z.png")):
    image, found[name] = picture(40, 36 + 30 * (name == "z.png"), seed)
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(folder / name)
  return found


def check_written(out, labels):
  assert sorted(str(path.relative_to(out)) for path in out.rglob("*.png")) == sorted(labels)
  for name, label in labels.items():
    np.testing.assert_array_equal(np.asarray(Image.open(out / name)), label)


def test_nested_folders_keep_their_structure(folder, nested, tmp_path):
  predict(folder, tmp_path / "out")
  check_written(tmp_path / "out", nested)
  for _ in range(2):  # what lies in out is no picture
    predict(folder, folder / "a" / "out")
    check_written(folder / "a" / "out", nested)


def test_a_file_and_patterns(folder, nested, tmp_path):
  predict(folder / "c" / "y.png", tmp_path / "one")
  check_written(tmp_path / "one", {"y.png": nested["c/y.png"]})
  predict(str(folder / "**" / "x.png"), tmp_path / "xs")
  check_written(tmp_path / "xs", {name: nested[name] for name in ("a/x.png", "a/b/x.png")})
  predict(str(folder / "[ac]" / "*.png"), tmp_path / "flat")
  check_written(tmp_path / "flat", {name: nested[name] for name in ("a/x.png", "c/y.png")})


def test_no_output_takes_the_place_of_a_picture(folder, nested, tmp_path):
  with pytest.raises(ValueError, match="among the pictures"):
    predict(folder / "c" / "y.png", folder / "c")
  (folder / "out").mkdir()
  (folder / "out" / "a").symlink_to(folder / "a")
  with pytest.raises(ValueError, match="would be written over a picture"):
    predict(folder, folder / "out")
  Image.fromarray(picture(32, 32)[0]).save(folder / "_legend.png")
  with pytest.raises(ValueError, match=r"the legend and .* would both be written to _legend\.png"):
    predict(folder, tmp_path / "out", overlays=True)


def test_pictures_of_one_size_are_seen_together(folder, nested, tmp_path):
  compiled = []
  predict(folder, tmp_path / "out", compiled, settings=Inference(batch=2))
  check_written(tmp_path / "out", nested)
  assert sorted(compiled) == [(64, 64), (64, 96)]


SMALL_WINDOWS = Inference(mode="sliding", window=(24, 32), batch=3)
MODES = {
  "mirrored": Inference(flip=True),
  "windows": Inference(mode="sliding", multiple=1),
  "small windows": SMALL_WINDOWS,
  "scales": Inference(mode="multiscale", scales=(1.0, 2.0), flip=True, batch=2),
  "as coded": Inference(mode="multiscale", scales=(1.0,), as_coded=True),
}


@pytest.mark.parametrize("settings", MODES.values(), ids=MODES)
def test_every_mode_predicts_every_size(folder, nested, tmp_path, settings):
  see = lambda params, batch_stats, images: images * params
  options = {"settings": settings, "files": Files(probabilities=True, confidence=True)}
  predict_pictures(Given(see), VARIABLES, folder, tmp_path, PALETTE, NAMES, **options)
  for name, label in nested.items():
    written = np.asarray(Image.open(tmp_path / name))
    probabilities = np.load((tmp_path / name).with_suffix(".npz"))["probabilities"]
    assert probabilities.shape == (*label.shape, 3) and probabilities.dtype == np.float16
    np.testing.assert_array_equal(probabilities.argmax(-1), written)
    wrong = written != label  # between two blocks a scaled picture has mixed colours
    assert wrong.mean() < (0.2 if settings.mode == "multiscale" else 1e-9)
    sure = cv2.imread(str(tmp_path / name.replace(".png", "_confidence.png")))
    assert sure.shape == (*label.shape, 3)


BAD = [
  ({"mode": "slide"}, "config.inference.mode='slide': choose from 'whole'"),
  ({"batch": 0}, r"config\.inference\.batch=0 must be at least 1"),
  ({"multiple": 0}, r"config\.inference\.multiple=0 must be at least 1"),
  ({"window": (0, 5)}, r"config\.inference\.window=\(0, 5\) must be a height and a width"),
  ({"window": (5,)}, "must be a height and a width"),
  ({"window": 512}, r"window=512 must be a height and a width"),
  ({"flip": "yes"}, "flip='yes' must be True or False, or None"),
  ({"window": (8, 8), "stride": (4, 9)}, "leaves gaps between windows"),
  ({"stride": (4, 4)}, r"wants config\.inference\.window"),
  ({"scales": ()}, "one or more numbers above 0"),
  ({"scales": (1.0, 0.0)}, "one or more numbers above 0"),
  ({"scales": ("1",)}, "one or more numbers above 0"),
]


@pytest.mark.parametrize(("values", "message"), BAD)
def test_settings_that_cannot_be(values, message):
  with pytest.raises(ValueError, match=message):
    read_inference("", values)


def test_pictures_that_wait_for_others_of_their_size_are_few(folder, tmp_path):
  sizes = [(32 * (1 + i % 7), 32 * (1 + i // 7)) for i in range(40)]
  waiting, most = [], 2
  decoded = [(i, np.zeros((*size, 3))) for i, size in enumerate(sizes)]

  def read():
    for item in decoded:
      waiting.append(item)
      yield item

  seen, longest = [], 0
  for group in grouped(read(), lambda size: size, most):
    longest = max(longest, len(waiting) - len(seen))
    seen += [number for number, _ in group]
  assert sorted(seen) == list(range(40)) and longest <= 4 * most + 1


def test_some_are_started_ahead_and_no_more():
  started = []
  start = lambda number: started.append(number) or number
  given = []
  for number in ahead(map(start, range(6)), 2):
    given.append(number)
    assert len(started) == min(len(given) + 2, 6)
  assert given == list(range(6))


@pytest.mark.parametrize("part", ["_decode", "write_files"])
def test_pictures_are_decoded_and_written_while_others_are(folder, tmp_path, monkeypatch, part):
  for name in "abc":
    Image.fromarray(picture(32, 32)[0]).save(folder / f"{name}.png")
  both = threading.Barrier(2, timeout=20)  # which two threads pass that are there at once
  first_two, real = itertools.count(), getattr(predict_module, part)

  def met(*args):
    if next(first_two) < 2:
      both.wait()
    return real(*args)

  monkeypatch.setattr(predict_module, part, met)
  assert len(predict(folder, tmp_path / "out").written) == 3


def test_what_cannot_be_written_is_an_error(folder, tmp_path, monkeypatch):
  def full(path, *_):
    raise OSError(28, "No space left on device", str(path))

  Image.fromarray(picture(32, 32)[0]).save(folder / "a.png")
  monkeypatch.setattr(predict_module, "write_files", full)
  with pytest.raises(OSError, match="No space left"):
    predict(folder, tmp_path / "out")
