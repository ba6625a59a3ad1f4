"""Masks and mixing against recorded results, their statistics, and on several devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from semiseg_jax.augment import mix
from semiseg_jax.augment.mix import Boxes
from semiseg_jax.labels import IGNORE
from tests import golden
from tests.devices import DEVICES

DEVIATIONS = 5  # standard ones, by which a statistic of random draws may be off
draw_boxes = jax.jit(mix.draw_boxes, static_argnames="shape")


@golden.cases("reco/mix_*")
def test_recorded_mixing(case):
  images, labels = golden.nhwc(case["data"]), golden.known(case["target"])
  mask = case["mask"] == 1
  if "draws" not in case:
    kept = np.zeros((len(labels), 256), bool)
    for image, selected in zip(kept, case["selected"], strict=True):
      image[golden.known(selected[selected != -2])] = True
    np.testing.assert_array_equal(mix.class_mask(labels, kept), mask)
  is_cutout = (case["target_after"] != case["target"]).any()  # the original overwrites its input
  view = images, labels, case["logits"]
  result = mix.cutout(view, mask, fill=np.zeros(3)) if is_cutout else mix.mix(view, mask)
  np.testing.assert_array_equal(result[0], golden.nhwc(case["new_data"]))
  np.testing.assert_array_equal(result[1], golden.known(case["new_target"]))
  np.testing.assert_array_equal(result[2], case["new_logits"])


@golden.cases("reco/cutout_mask*")
def test_recorded_boxes(case):
  for name in case:
    if name.startswith("mask"):
      row = int(name.removeprefix("mask"))
      boxes = Boxes(*(jnp.array([side]) for side in case["box"][row]))
      got = mix.box_mask(boxes, tuple(case["shape"][row].tolist()))
      np.testing.assert_array_equal(got[0], case[name])


@golden.cases("reco/cutout_mask*")
def test_boxes_obey_the_recorded_rules(case):
  """Same height for the same width, and exactly the recorded range of every draw."""
  rows = zip(case["shape"].tolist(), case["draws"], case["randint_bounds"], case["box"])  # noqa: B905
  height_of = {}
  bounds_of = {}
  for shape, (w, _, _), bounds, (y0, y1, _, _) in rows:
    height_of[tuple(shape), int(w)] = int(y1 - y0)
    bounds_of[tuple(shape)] = np.trunc(bounds[:2]).astype(int)
  keys = jax.random.split(jax.random.key(0), 3000)
  for shape, (low, high) in bounds_of.items():
    y0, y1, x0, x1 = (np.asarray(side) for side in draw_boxes(keys, shape))
    width, height = x1 - x0, y1 - y0
    check_reach(y0.min(), y1.max(), 0, shape[0])
    check_reach(x0.min(), x1.max(), 0, shape[1])
    check_reach(width.min(), width.max(), low, high - 1)
    for (other, w), h in height_of.items():
      assert other != shape or (height[width == w] == h).all()


def check_reach(lowest, highest, low, high):
  """Draws keep to their range and reach its ends, of large ranges to within a hundredth."""
  slack = (high - low) / 100
  assert low <= lowest <= low + slack and high - slack <= highest <= high


@golden.cases("reco/cutout_mask*")
def test_statistics_of_boxes(case):
  shape, theirs = tuple(case["stat_shape"].tolist()), case["stat_width_hist"]
  count = 2 * int(theirs.sum())
  boxes = draw_boxes(jax.random.split(jax.random.key(1), count), shape)
  ours = np.bincount(np.asarray(boxes.x1 - boxes.x0), minlength=shape[1] + 1)
  assert (abs(ours - 2 * theirs) <= DEVIATIONS * np.sqrt(2 * theirs + 4 * theirs)).all()
  sides = np.asarray(boxes)
  spread = sides.std(1) * np.sqrt(3 / count)  # of the difference of two means
  assert (abs(sides.mean(1) - case["stat_box_mean"]) <= DEVIATIONS * spread).all()


@golden.cases("c3_semiseg/cutmix*")
@pytest.mark.parametrize("options", ["default", "range"])
def test_recorded_aspect_boxes(case, options):
  mask, *draws = (case[f"{options}__{name}"][:, 0] for name in ("mask", "draw0", "draw1", "draw2"))
  boxes = mix.aspect_boxes(*draws, mask.shape[1:])
  np.testing.assert_array_equal(mix.box_mask(boxes, mask.shape[1:]), mask == 1)


def test_drawn_aspect_boxes_have_half_the_area_and_reach_the_edges():
  shape = (64, 128)
  keys = jax.random.split(jax.random.key(0), 3000)
  y0, y1, x0, x1 = (np.asarray(side) for side in mix.draw_aspect_boxes(keys, shape))
  height, width = y1 - y0, x1 - x0
  np.testing.assert_allclose(height * width / (64 * 128), 0.5, atol=0.012)
  np.testing.assert_allclose(np.log2(height / 64).mean(), -0.5, atol=DEVIATIONS * 0.29 / 3000**0.5)
  check_reach(height.min(), height.max(), 32, 64)
  for first, last, side in ((y0, y1, 64), (x0, x1, 128)):
    check_reach(first.min(), last.max(), 0, side)


@pytest.mark.parametrize("shape", [(1, 1), (5, 2), (1, 3), (2, 9)])
def test_boxes_of_tiny_images_stay_inside(shape):
  boxes = draw_boxes(jax.random.split(jax.random.key(0), 50), shape)
  for first, last, side in ((boxes.y0, boxes.y1, shape[0]), (boxes.x0, boxes.x1, shape[1])):
    assert (first >= 0).all() and (first <= last).all() and (last <= side).all()


def test_half_of_the_labels_is_kept_and_each_equally_often():
  labels = np.full((3, 6, 5), 7)
  labels[1, :3] = [0, 200, IGNORE, 31, 32]
  labels[2, 0, 0] = IGNORE
  keys = jax.random.split(jax.random.key(0), (600, 3))
  kept = np.asarray(jax.jit(jax.vmap(mix.draw_classes, (0, None)))(keys, labels))
  assert not kept[:, 0].any()  # a single label: the image becomes its partner
  assert (kept[:, 1].sum(1) == 3).all() and (kept[:, 2].sum(1) == 1).all()
  present = [0, 7, 31, 32, 200, IGNORE]
  np.testing.assert_allclose(kept[:, 1, present].mean(0), 0.5, atol=0.08)
  assert kept[:, 1].sum() == kept[:, 1, present].sum()


def kept_labels(case, index):
  kept = np.zeros(256, bool)
  kept[golden.known(case[f"picked.{index}"], case["ignore_label"])] = True
  return kept


def background_of(case):
  return 0 if case["is_pascal"] else None


@golden.cases("memory_bank/classmix_*")
def test_recorded_pasting(case):
  labels = golden.known(case["labels"], case["ignore_label"])
  mask = mix.class_mask(labels, np.stack([kept_labels(case, i) for i in range(len(labels))]))
  np.testing.assert_array_equal(mask, case["mask"] == 1)
  images, labels, confidence = mix.paste((golden.nhwc(case["image"]), labels, case["probs"]), mask)
  np.testing.assert_array_equal(images, golden.nhwc(case["mixed_image"]))
  np.testing.assert_array_equal(confidence, case["mixed_probs"])
  np.testing.assert_array_equal(labels, golden.known(case["mixed_labels"], case["ignore_label"]))


@golden.cases("memory_bank/classmix_*")
def test_drawn_classes_to_paste_obey_the_recorded_rules(case):
  labels = golden.known(case["labels"], case["ignore_label"])
  keys = jax.random.split(jax.random.key(0), (400, len(labels)))
  draw = lambda keys: mix.draw_pasted_classes(keys, labels, background_of(case))
  drawn = np.asarray(jax.jit(jax.vmap(draw))(keys))
  np.testing.assert_array_equal(drawn.sum(2), np.tile(case["num_picked"], (400, 1)))
  for i, (count, picked) in enumerate(zip(case["num_candidates"], case["num_picked"], strict=True)):
    candidates = drawn[:, i].any(0)
    assert candidates.sum() == count and candidates[kept_labels(case, i)].all()
    np.testing.assert_allclose(drawn[:, i, candidates].mean(0), picked / count, atol=0.1)


def test_background_and_ignored_pixels_are_pasted_only_where_there_is_nothing_else():
  labels = np.array([[[0, IGNORE]], [[IGNORE, IGNORE]], [[0, 7]], [[IGNORE, 7]]])
  keys = jax.random.split(jax.random.key(0), 4)
  for background, wanted in ((0, [[0], [IGNORE], [7], [7]]), (None, [[0], [IGNORE], [0, 7], [7]])):
    kept = jax.jit(mix.draw_pasted_classes, static_argnums=2)(keys, labels, background)
    assert [np.flatnonzero(image).tolist() for image in kept] == wanted


def test_present_labels():
  labels = np.random.default_rng(0).integers(0, 256, (4, 9, 11))
  wanted = np.zeros((4, 256), bool)
  for i in range(4):
    wanted[i, labels[i]] = True
  np.testing.assert_array_equal(jax.jit(mix.present_labels)(labels), wanted)


def test_cutout_blacks_out_levels():
  images, labels = jnp.full((1, 2, 2, 3), 9.0), jnp.full((1, 2, 2), 4)
  mask = jnp.array([[[True, False], [True, True]]])
  images, labels, confidence = mix.cutout((images, labels, jnp.ones((1, 2, 2))), mask)
  np.testing.assert_array_equal(images[0, 0], [[9, 9, 9], [123, 116, 103]])
  np.testing.assert_array_equal(labels, [[[4, IGNORE], [4, 4]]])
  np.testing.assert_array_equal(confidence, [[[1, 0], [1, 1]]])


def mixed(keys, images, labels, confidence, axis_name, mixing):
  if mixing == "classmix":
    mask = mix.class_mask(labels, mix.draw_classes(keys, labels))
  else:
    mask = mix.box_mask(mix.draw_boxes(keys, labels.shape[1:]), labels.shape[1:])
  return mix.mix((images, labels, confidence), mask, axis_name)


def eight_images():
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (8, 9, 12, 3)).astype(np.float32)
  labels = rng.integers(0, 6, (8, 9, 12)).astype(np.int32)
  keys = jax.random.split(jax.random.key(0), 8)
  return keys, images, labels, rng.random((8, 9, 12)).astype(np.float32)


def on_devices(count, function, *arrays):
  mesh = jax.make_mesh(
    (count,),
    ("data",),
    axis_types=(jax.sharding.AxisType.Auto,),
    devices=jax.devices()[:count],
  )
  mapped = jax.shard_map(function, mesh=mesh, in_specs=P("data"), out_specs=P("data"))
  return jax.jit(mapped)(*arrays)


@pytest.mark.parametrize("count", DEVICES)
@pytest.mark.parametrize("mixing", ["cutmix", "classmix"])
def test_global_partner_on_devices(count, mixing):
  arrays = eight_images()
  wanted = jax.jit(functools.partial(mixed, axis_name=None, mixing=mixing))(*arrays)
  got = on_devices(count, lambda *x: mixed(*x, "data", mixing), *arrays)
  jax.tree.map(np.testing.assert_array_equal, got, wanted)


@pytest.mark.parametrize("count", DEVICES)
def test_pasting_across_devices(count):
  def pasted(keys, images, labels, confidence):
    mask = mix.class_mask(labels, mix.draw_pasted_classes(keys, labels, 0))
    return mix.paste((images, labels, confidence), mask, "data")

  keys, *arrays = eight_images()
  mask = np.asarray(mix.class_mask(arrays[1], mix.draw_pasted_classes(keys, arrays[1], 0)))
  mask = np.roll(mask, -1, axis=0)
  for got, own in zip(on_devices(count, pasted, keys, *arrays), arrays, strict=True):
    at = mask[..., None] if own.ndim == 4 else mask
    np.testing.assert_array_equal(got, np.where(at, np.roll(own, -1, axis=0), own))


@pytest.mark.parametrize("count", DEVICES)
def test_partner_of_the_device(count):
  images = np.arange(8.0)
  got = on_devices(count, mix.roll_partner, images)
  wanted = np.roll(images.reshape(count, -1), -1, axis=1).ravel()
  np.testing.assert_array_equal(got, wanted)


def test_partner_under_pmap():
  got = jax.pmap(lambda x: mix.roll_partner(x, "data"), axis_name="data")(np.arange(8.0)[:, None])
  np.testing.assert_array_equal(np.ravel(got), np.roll(np.arange(8.0), -1))
