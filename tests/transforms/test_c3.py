"""C3-SemiSeg's operators and whole items against the original's, draws given."""

from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from semiseg_jax.labels import IGNORE
from semiseg_jax.transforms import c3, geometry, photometric
from tests import golden

ROTATED = 2  # levels: another OpenCV's fixed-point weights


class Vector(NamedTuple):
  """Arrays and, by their names, draws and options."""

  case: golden.Vector
  draws: dict[str, Any]

  @property
  def train_ids(self) -> np.ndarray:
    """uint8 [256] by raw id, of the data set whose map is in use."""
    (name,) = (key for key in self.case if key.startswith("label_map_") and "unused" not in key)
    ids = np.full(256, IGNORE, np.uint8)
    raw, train = self.case[name][(self.case[name][:, 0] >= 0)].T
    ids[raw] = train
    return ids

  def record(self, image="image", label="label_raw"):
    return {"image": self.case[image], "label": self.train_ids[self.case[label]]}

  def train_source(self):
    return self.record("train_source_image", "train_source_label")


VECTORS = {
  name: Vector(case, golden.load_json(f"c3_semiseg/{name}.draws.json"))
  for name, case in golden.vectors("c3_semiseg/augment*").items()
}
VECTOR = next(iter(VECTORS.values()))  # for tests that only need some image


def items(start, end=""):
  """Parametrises a test over what every vector has of this kind."""
  found = [
    pytest.param(vector, key.removesuffix(end), id=f"{name}-{key.removesuffix(end)}")
    for name, vector in VECTORS.items()
    for key in vector.case
    if key.startswith(start) and key.endswith(end)
  ]
  assert found, start
  return pytest.mark.parametrize(("vector", "key"), found)


def operator_name(name):
  return name.lower().replace("_", "").removesuffix("tpu")


@items("op_")
def test_rand_augment_operators(vector, key):
  _, name, index = key.split("_")
  magnitude = float(str(vector.case["magnitudes"][int(index)]))  # not the float32 beside it
  image = Image.fromarray(vector.case["image"])
  ours = photometric.rand_augment(image, ((operator_name(name), magnitude),))
  np.testing.assert_array_equal(np.asarray(ours), vector.case[key])


def test_every_operator_is_recorded():
  keys = [key for vector in VECTORS.values() for key in vector.case if key.startswith("op_")]
  assert {operator_name(key.split("_")[1]) for key in keys} == set(photometric.OPERATORS)


@items("jitter_")
def test_jitter(vector, key):
  _, kind, index = key.split("_")
  factor = vector.draws["jitter_factors"][kind][int(index)]
  ours = photometric.jitter(Image.fromarray(vector.case["image"]), ((kind, factor),))
  np.testing.assert_array_equal(np.asarray(ours), vector.case[key])


@items("gray3")
def test_gray(vector, key):
  ours = np.asarray(photometric.gray(Image.fromarray(vector.case["image"])))
  np.testing.assert_array_equal(ours, vector.case[key])


@items("resize_height", "_image")
def test_resize(vector, key):
  height = int(key.removeprefix("resize_height"))
  assert_equal_pillow(vector, key, c3.resized_size(vector.case["image"].shape, height, 1.0))


@items("scale", "_image")
def test_scale(vector, key):
  scale = vector.draws["scales"][int(key.removeprefix("scale"))]
  assert_equal_pillow(vector, key, geometry.scaled_size(vector.case["image"].shape, scale))


def assert_equal_pillow(vector, key, size):
  record = vector.record()
  image = geometry.pillow_bilinear(record["image"], size)
  np.testing.assert_array_equal(image, vector.case[f"{key}_image"])
  assert_label(vector, key, geometry.pillow_nearest(record["label"], size))


def assert_label(vector, key, label):
  """The original's labels of single steps are raw ids; a map of ids commutes with them all."""
  expected = vector.case[f"{key}_label"]
  if not np.array_equal(label, expected):
    np.testing.assert_array_equal(label, vector.train_ids[expected])


@items("crop", "_image")
def test_crop(vector, key):
  recorded, record = vector.draws[key], vector.record()
  draws = c3.Draws(0, 1.0, *([value for _, value in recorded["draws"]] or [0, 0]), False)
  ours = c3.resize_crop_flip(record, len(record["image"]), draws, tuple(recorded["size"]))
  np.testing.assert_array_equal(ours["image"], vector.case[f"{key}_image"])
  assert_label(vector, key, ours["label"])


@items("rotate", "_label")
def test_rotate(vector, key):
  ((_, angle),) = vector.draws[key]
  for kind, dtype in (("f32", np.float32), ("u8", np.uint8)):
    record = {**vector.record(), "image": vector.case["image"].astype(dtype)}
    ours = c3.rotate(record, angle)
    assert ours["image"].dtype == dtype
    expected = vector.case[f"{key}_image_{kind}"].astype(np.float32)
    assert abs(ours["image"] - expected).max() <= ROTATED
  assert_label(vector, key, ours["label"])


@items("blur", "_image")
def test_blur(vector, key):
  gate, *sigma = (value for _, value in vector.draws[key])
  ours = vector.case["image"]
  if gate < 0.5:
    ours = geometry.blur(ours, int(key.removeprefix("blur")) | 1, 0.1 + 1.9 * sigma[0])
  np.testing.assert_array_equal(ours, vector.case[f"{key}_image"])


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


@items("labeled", "_image")
def test_labeled_items(vector, key):
  pipeline = vector.draws["pipeline"]
  draws = geometry_draws(vector.draws[key], last_angle=True)
  ours = c3.labeled_item(
    vector.train_source(), pipeline["high"], draws, c3.Colors(), tuple(pipeline["crop"])
  )
  assert_close(ours["image"], vector.case[f"{key}_image"])
  np.testing.assert_array_equal(ours["label"], vector.case[f"{key}_label"])
  if f"{key}_normalised" in vector.case:
    expected = np.moveaxis(vector.case[f"{key}_normalised"], 0, -1)
    levels = golden.denormalised(expected, np.moveaxis(vector.case[f"{key}_image"], 0, -1))
    assert abs(ours["image"] - levels).max() <= ROTATED


@items("weakstrong", "_strong")
def test_unlabeled_items(vector, key):
  check_views(vector, key, "weak_strong")


@items("autoaug", "_strong")
def test_unlabeled_items_with_rand_augment(vector, key):
  check_views(vector, key, "weak_strong")


@items("siam_strong", "_strong")
def test_unlabeled_items_of_two_strong_views(vector, key):
  check_views(vector, key, "strong_strong")


def check_views(vector, name, views):
  pipeline, draws = vector.draws["pipeline"], vector.draws[name]
  start = next(i for i, (kind, _) in enumerate(draws) if kind == "random") + 1
  given, crop = geometry_draws(draws[:start], last_angle=False), tuple(pipeline["crop"])
  record = c3.unlabeled_geometry(vector.train_source(), pipeline["high"], given, crop)
  colors = iter(read_colors(draws[start:]))
  for key, colored in zip(("weak", "strong"), c3.VIEWS[views], strict=True):
    image = c3.color(record["image"], next(colors)) if colored else record["image"]
    assert_close(image, vector.case[f"{name}_{key}"])
  assert next(colors, None) is None
  np.testing.assert_array_equal(record["label"], vector.case[f"{name}_label"])


def assert_close(image, expected):
  assert image.dtype == np.uint8
  difference = abs(image.astype(int) - np.moveaxis(expected, 0, -1))
  assert difference.max() <= ROTATED


@items("val_image")
def test_evaluation(vector, key):
  record = vector.record("val_source_image", "val_source_label")
  transform = c3.C3Eval(vector.draws["pipeline"]["base_size"])
  ours = transform(record)
  np.testing.assert_array_equal(ours["image"], np.moveaxis(vector.case[key], 0, -1))
  np.testing.assert_array_equal(ours["label"], vector.case["val_label"])
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
  image = VECTOR.case["image"]
  np.testing.assert_array_equal(c3.color(image, none._replace(gray=False)), image)


def test_views():
  record = VECTOR.train_source()
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


def test_labeled_colors():
  record = VECTOR.train_source()
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
