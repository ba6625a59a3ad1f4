"""C3-SemiSeg's operators and whole items against the original's, draws given."""

import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from semiseg_jax.labels import IGNORE
from semiseg_jax.transforms import c3, geometry, photometric
from tests import golden

ROTATED = 2  # levels: another OpenCV's fixed-point weights
CASE = golden.load("c3_semiseg/augment")
DRAWS = json.loads(
  (pathlib.Path(golden.__file__).parent / "c3_semiseg" / "augment.draws.json").read_text()
)
TRAIN_IDS = np.full(256, IGNORE, np.uint8)
for raw, train in CASE["label_map_cityscapes"]:
  if 0 <= raw < 256:
    TRAIN_IDS[raw] = train


def source():
  return {"image": CASE["image"], "label": TRAIN_IDS[CASE["label_raw"]]}


def keys(pattern, end=""):
  found = sorted(
    key.removesuffix(end) for key in CASE if key.startswith(pattern) and key.endswith(end)
  )
  assert found, pattern
  return found


def operator_name(name):
  return name.lower().replace("_", "").removesuffix("tpu")


@pytest.mark.parametrize("key", keys("op_"))
def test_rand_augment_operators(key):
  _, name, index = key.split("_")
  magnitude = float(str(CASE["magnitudes"][int(index)]))  # not the float32 beside it
  ours = photometric.rand_augment(
    Image.fromarray(CASE["image"]), ((operator_name(name), magnitude),)
  )
  np.testing.assert_array_equal(np.asarray(ours), CASE[key])


def test_every_operator_is_recorded():
  assert {operator_name(key.split("_")[1]) for key in keys("op_")} == set(photometric.OPERATORS)


@pytest.mark.parametrize("key", keys("jitter_"))
def test_jitter(key):
  _, kind, index = key.split("_")
  factor = DRAWS["jitter_factors"][kind][int(index)]
  ours = photometric.jitter(Image.fromarray(CASE["image"]), ((kind, factor),))
  np.testing.assert_array_equal(np.asarray(ours), CASE[key])


def test_gray():
  ours = np.asarray(photometric.gray(Image.fromarray(CASE["image"])))
  np.testing.assert_array_equal(ours, CASE["gray3"])


@pytest.mark.parametrize("name", keys("resize_height", "_image"))
def test_resize(name):
  height = int(name.removeprefix("resize_height"))
  size = c3.resized_size(CASE["image"].shape, height, 1.0)
  assert_equal_pillow(name, size)


@pytest.mark.parametrize("name", keys("scale", "_image"))
def test_scale(name):
  scale = DRAWS["scales"][int(name.removeprefix("scale"))]
  assert_equal_pillow(name, geometry.scaled_size(CASE["image"].shape, scale))


def assert_equal_pillow(name, size):
  record = source()
  image = geometry.pillow_bilinear(record["image"], size)
  np.testing.assert_array_equal(image, CASE[f"{name}_image"])
  label = geometry.pillow_nearest(record["label"], size)
  assert_label(label, CASE[f"{name}_label"])


def assert_label(label, expected):
  """The original's labels of single steps are raw ids; a map of ids commutes with them all."""
  if not np.array_equal(label, expected):
    np.testing.assert_array_equal(label, TRAIN_IDS[expected])


@pytest.mark.parametrize("name", keys("crop", "_image"))
def test_crop(name):
  draws = [value for _, value in DRAWS[name]["draws"]] or [0, 0]
  height = CASE["image"].shape[0]
  ours = c3.resize_crop_flip(
    source(), height, c3.Draws(0, 1.0, *draws, False), tuple(DRAWS[name]["size"])
  )
  np.testing.assert_array_equal(ours["image"], CASE[f"{name}_image"])
  assert_label(ours["label"], CASE[f"{name}_label"])


@pytest.mark.parametrize("name", keys("rotate", "_label"))
def test_rotate(name):
  ((_, angle),) = DRAWS[name]
  for kind, dtype in (("f32", np.float32), ("u8", np.uint8)):
    record = {**source(), "image": CASE["image"].astype(dtype)}
    ours = c3.rotate(record, angle)
    assert ours["image"].dtype == dtype
    expected = CASE[f"{name}_image_{kind}"].astype(np.float32)
    assert abs(ours["image"] - expected).max() <= ROTATED
  assert_label(ours["label"], CASE[f"{name}_label"])


@pytest.mark.parametrize("name", keys("blur", "_image"))
def test_blur(name):
  gate, sigma = (value for _, value in DRAWS[name])
  assert gate < 0.5
  taps = int(name.removeprefix("blur")) | 1
  ours = geometry.blur(CASE["image"], taps, 0.1 + 1.9 * sigma)
  np.testing.assert_array_equal(ours, CASE[f"{name}_image"])


def train_source():
  return {"image": CASE["train_source_image"], "label": TRAIN_IDS[CASE["train_source_label"]]}


def geometry_draws(draws, last_angle):
  """The first recorded draws: a crop that fits exactly is not drawn."""
  whole = [value for kind, value in draws if kind == "randint"]
  angle = whole.pop(-1 if last_angle else 0)
  row, column = whole or (0, 0)
  flip = next(value for kind, value in draws if kind == "random") < 0.5
  return c3.Draws(angle, 1.0, row, column, flip)


def read_colors(draws):
  """The views' colours, from what is left after the geometry, in the order of drawing."""
  views, draws = [], list(draws)
  while draws:
    jitter, operators, gray = [], [], False
    while draws and draws[0][0].startswith("adjust_"):
      kind, factor = draws.pop(0)
      jitter.append((kind.removeprefix("adjust_"), factor))
    if draws and draws[0][0] == "rand_augment_ops":
      for name in draws.pop(0)[1]:
        if draws.pop(0)[1] < 0.5:
          magnitude = float(np.clip(draws.pop(0)[1], 0, 10))
          operators.append((operator_name(name), magnitude))
    if draws and draws[0][0] == "grayscale":
      gray = bool(draws.pop(0)[1])
    views.append(c3.Colors(tuple(jitter), tuple(operators), gray))
  return views


@pytest.mark.parametrize("name", keys("labeled", "_image"))
def test_labeled_items(name):
  pipeline = DRAWS["pipeline"]
  draws = geometry_draws(DRAWS[name], last_angle=True)
  ours = c3.labeled_item(
    train_source(), pipeline["high"], draws, c3.Colors(), tuple(pipeline["crop"])
  )
  assert_close(ours["image"], CASE[f"{name}_image"])
  np.testing.assert_array_equal(ours["label"], CASE[f"{name}_label"])
  if f"{name}_normalised" in CASE:
    expected = np.moveaxis(CASE[f"{name}_normalised"], 0, -1)
    levels = (expected * [0.229, 0.224, 0.225] + [0.485, 0.456, 0.406]) * 255
    assert abs(ours["image"] - levels).max() <= ROTATED


@pytest.mark.parametrize("name", [*keys("weakstrong", "_strong"), *keys("autoaug", "_strong")])
def test_unlabeled_items(name):
  check_views(name, "weak_strong")


@pytest.mark.parametrize("name", keys("siam_strong", "_strong"))
def test_unlabeled_items_of_two_strong_views(name):
  check_views(name, "strong_strong")


def check_views(name, views):
  pipeline, draws = DRAWS["pipeline"], DRAWS[name]
  start = next(i for i, (kind, _) in enumerate(draws) if kind == "random") + 1
  given = geometry_draws(draws[:start], last_angle=False)
  record = c3.unlabeled_geometry(train_source(), pipeline["high"], given, tuple(pipeline["crop"]))
  colors = iter(read_colors(draws[start:]))
  for key, colored in zip(("weak", "strong"), c3.VIEWS[views], strict=True):
    image = c3.color(record["image"], next(colors)) if colored else record["image"]
    assert_close(image, CASE[f"{name}_{key}"])
  assert next(colors, None) is None
  np.testing.assert_array_equal(record["label"], CASE[f"{name}_label"])


def assert_close(image, expected):
  assert image.dtype == np.uint8
  difference = abs(image.astype(int) - np.moveaxis(expected, 0, -1))
  assert difference.max() <= ROTATED


def test_evaluation():
  record = {"image": CASE["val_source_image"], "label": TRAIN_IDS[CASE["val_source_label"]]}
  transform = c3.C3Eval(DRAWS["pipeline"]["base_size"])
  ours = transform(record)
  np.testing.assert_array_equal(ours["image"], np.moveaxis(CASE["val_image"], 0, -1))
  np.testing.assert_array_equal(ours["label"], CASE["val_label"])
  assert transform.output_size(record["label"].shape) == ours["label"].shape


def test_colors_are_drawn_where_the_original_draws_them():
  rng = np.random.default_rng(0)
  transform = c3.C3Unlabeled(jitter=1.0, gray=0.3)
  drawn = [transform.draw_colors(rng) for _ in range(400)]
  assert 60 < sum(colors.gray for colors in drawn) < 180
  assert len({tuple(kind for kind, _ in colors.jitter) for colors in drawn}) == 24  # orders
  for colors in drawn:
    assert all(abs(factor) <= 0.25 for kind, factor in colors.jitter if kind == "hue")
    assert all(0.5 <= factor <= 1.5 for kind, factor in colors.jitter if kind != "hue")
  counts = np.bincount([len(colors.operators) for colors in drawn], minlength=3)
  assert len(counts) == 3 and abs(counts / 400 - [0.25, 0.5, 0.25]).max() < 0.08
  operators = [operator for colors in drawn for operator in colors.operators]
  assert {name for name, _ in operators} == set(photometric.OPERATORS)
  magnitudes = np.array([magnitude for _, magnitude in operators])
  assert magnitudes.max() == 10 and 7.5 < magnitudes.min() < 9
  none = c3.C3Unlabeled(jitter=0.0, rand_augment=False).draw_colors(rng)
  image = CASE["image"]
  np.testing.assert_array_equal(c3.color(image, none._replace(gray=False)), image)


def test_views():
  record = train_source()
  views = {
    name: c3.C3Unlabeled(24, views=name, crop=(16, 32)).random_map(record, np.random.default_rng(3))
    for name in c3.VIEWS
  }
  plain = views["weak_weak"]["image"]
  np.testing.assert_array_equal(views["weak_weak"]["strong"], plain)
  np.testing.assert_array_equal(views["weak_strong"]["image"], plain)
  assert (views["weak_strong"]["strong"] != plain).any()
  both = views["strong_strong"]
  assert (both["image"] != plain).any() and (both["image"] != both["strong"]).any()
  with pytest.raises(ValueError, match="views='strong'"):
    c3.C3Unlabeled(views="strong")


def test_labeled_colors():
  record = train_source()
  plain = c3.C3(24, rotation=0, flip=False, crop=(24, 48))
  first = plain.random_map(record, np.random.default_rng(0))["image"]
  gray = c3.C3(24, rotation=0, flip=False, gray=1.0, crop=(24, 48))
  ours = gray.random_map(record, np.random.default_rng(0))["image"]
  np.testing.assert_array_equal(ours, c3.color(first, c3.Colors(gray=True)))
  jitter = c3.C3(24, rotation=0, flip=False, jitter=1.0, crop=(24, 48))
  changed = [
    (jitter.random_map(record, np.random.default_rng(seed))["image"] != first).any()
    for seed in range(60)
  ]
  assert 0.6 < np.mean(changed) < 0.95  # a probability of 0.8
  blur = c3.C3(24, rotation=0, flip=False, blur=10, crop=(24, 48))
  rough = [
    np.abs(np.diff(blur.random_map(record, np.random.default_rng(s))["image"].astype(int))).mean()
    for s in range(30)
  ]
  sharp = np.abs(np.diff(first.astype(int))).mean()
  assert 0.25 < np.mean(np.array(rough) < sharp) < 0.75


def test_margins_lie_on_both_sides():
  record = {"image": np.full((10, 20, 3), 9, np.uint8), "label": np.ones((10, 20), np.uint8)}
  draws = c3.Draws(0, 0.5, 5, 2, False)
  out = c3.resize_crop_flip(record, 10, draws, (10, 12))
  assert (out["label"][:5, :10] == 1).all() and (out["label"] == IGNORE).sum() == 120 - 50
  assert (out["image"][:5, :10] == 9).all() and out["image"].sum() == 9 * 150
