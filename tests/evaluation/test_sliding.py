"""Sliding windows against the original's recorded outputs, and against its procedure in NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from semiseg_jax.contract import Variables
from semiseg_jax.evaluation.sliding import Grid, Sliding, make_grid
from semiseg_jax.models.normalization import NORMALIZATIONS, mean_levels, normalize
from tests import golden
from tests.tiny import Given

CASE = golden.load("segmentation_zoo/inference")
NOTHING = Variables(None, None)
as_coded = functools.partial(make_grid, one_stride=True)


def recorded(params, batch_stats, images):
  """The network of the recordings, at half of the images' size."""
  x = images
  for name, stride in (("c1", 2), ("c2", 1)):
    kernel = CASE[f"weight__{name}.weight"].transpose(2, 3, 1, 0)
    x = jax.nn.relu(x) if name == "c2" else x
    form = ("NHWC", "HWIO", "NHWC")
    x = lax.conv_general_dilated(x, kernel, (stride, stride), ((1, 1), (1, 1)), None, None, form)
    x += CASE[f"weight__{name}.bias"]
  return x


def image(name):
  return golden.nhwc(CASE[f"image_{name}"])[0]


def through_windows(name, **options):
  return Sliding(Given(recorded), lambda logits: logits, **options)(NOTHING, image(name))


RECORDED = sorted(key for key in CASE if key.startswith("sliding") and "flip" in key)


@pytest.mark.parametrize("key", RECORDED)
@pytest.mark.parametrize("batch", [1, 3])
def test_recorded_logits_with_their_gaps(key, batch):
  _, name, flip = key.split("_")
  found = through_windows(name, grid=as_coded, flip=flip == "flip1", batch=batch)
  expected = golden.nhwc(CASE[key])
  np.testing.assert_allclose(found, expected, atol=1e-5)  # NaN is equal to NaN
  assert np.isnan(expected).any() == (name == "tall")


@pytest.mark.parametrize("name", ["a", "b", "tall"])
def test_recorded_labels(name):
  label = through_windows(name, grid=as_coded).argmax(-1)
  np.testing.assert_array_equal(label, CASE[f"sliding_{name}_label"])


def test_only_as_coded_has_gaps():
  found = through_windows("tall", flip=False)
  assert np.isfinite(found).all()
  wide = through_windows("a"), through_windows("a", grid=as_coded)
  np.testing.assert_array_equal(*wide)  # where the width allows the stride they are the same


def plainly(see, picture, window, stride, flip=True):
  """The original's loop in NumPy; see: [H,W,3] -> [H,W,K]."""
  height, width = picture.shape[:2]
  rows, columns = (
    int(np.ceil(max(side - w, 0) / s)) + 1
    for side, w, s in zip(picture.shape, window, stride, strict=False)
  )
  sums, count = 0.0, np.zeros((height, width, 1))
  for top in range(0, rows * stride[0], stride[0]):
    for left in range(0, columns * stride[1], stride[1]):
      cut = slice(top, top + window[0]), slice(left, left + window[1])
      part = np.zeros((*window, 3), np.float32)
      real = picture[cut].shape[:2]
      part[: real[0], : real[1]] = picture[cut]
      logits = see(part)
      if flip:
        logits = 0.5 * (logits + see(part[:, ::-1])[:, ::-1])
      added = np.zeros((height, width, logits.shape[-1]))
      added[cut], count[cut] = logits[: real[0], : real[1]], count[cut] + 1
      sums = sums + added
  return sums / count


def test_a_street_scene_equals_the_originals_loop():
  picture = np.random.default_rng(0).normal(size=(1024, 2048, 3)).astype(np.float32)
  grid = make_grid(picture.shape[:2])
  assert grid == Grid((409, 819), (273, 273), (0, 273, 546, 819), (0, 273, 546, 819, 1092, 1365))

  def coarse(params, batch_stats, images):
    """Every 16th pixel, of what a window shows as a whole."""
    return images[:, ::16, ::16] * (1 + images.mean((1, 2), keepdims=True))

  network = Given(coarse)
  see = jax.jit(lambda x: network.resize(coarse(None, None, x[None]), x.shape[:2])[0])
  found = Sliding(network, lambda logits: logits)(NOTHING, picture)
  expected = plainly(see, picture, grid.window, grid.stride)
  np.testing.assert_allclose(found, expected, atol=2e-5)
  assert found.shape == (1024, 2048, 3)


def test_pictures_of_all_sizes_share_one_program():
  compiled, decided = [], []

  def see(params, batch_stats, images):
    compiled.append(images.shape)
    return recorded(params, batch_stats, images)

  def decide(logits):
    decided.append(logits.shape)
    return logits

  window, stride = (24, 32), (16, 20)
  sliding = Sliding(Given(see), decide, grid=lambda size: make_grid(size, window, stride), batch=4)
  rng = np.random.default_rng(0)
  sizes = [(1, 1), (24, 32), (25, 33), (90, 30), (30, 200), (57, 61), (5, 300), (70, 310)]
  network = Given(recorded)
  whole = jax.jit(lambda x: network.resize(recorded(None, None, x[None]), window)[0])
  for size in sizes:
    picture = rng.normal(size=(*size, 3)).astype(np.float32)
    found = sliding(NOTHING, picture)
    np.testing.assert_allclose(found, plainly(whole, picture, window, stride), atol=1e-5)
  assert set(compiled) == {(4, *window, 3)}
  assert decided == [(16, 256, 3), (16, 512, 3)]  # stride, width in steps of 256


def test_the_device_holds_no_more_of_a_taller_picture(monkeypatch):
  held = []
  see = lambda params, batch_stats, images: images[:, ::4, ::4]
  program = Sliding(Given(see), lambda x: x, grid=lambda size: make_grid(size, (24, 32)))
  take = program._take

  def spied(*args):
    held[-1] = max(held[-1], sum(array.nbytes for array in jax.live_arrays()))
    return take(*args)

  monkeypatch.setattr(program, "_take", spied)
  for height in (30, 300):
    held.append(0)
    assert program(NOTHING, np.ones((height, 200, 3), np.uint8)).shape == (height, 200, 3)
  assert held[1] <= held[0]


def test_margins_of_windows_are_zero_to_the_network():
  """Levels, in the channels' order, that its normalization makes 0."""
  for normalization in NORMALIZATIONS.values():
    found = normalize(mean_levels(normalization), normalization)
    np.testing.assert_allclose(found, 0, atol=1e-5)


def test_a_network_that_divides_by_nothing_elsewhere_stays_in_its_window():
  """Windows behind the last ones of a batch are not added, whatever the network says of them."""
  nan = lambda params, batch_stats, images: jnp.where(images == 0, jnp.nan, images)
  picture = np.ones((8, 12, 3), np.float32)
  grid = lambda size: make_grid(size, (8, 8), (4, 4))
  found = Sliding(Given(nan), lambda logits: logits, grid=grid, batch=5)(NOTHING, picture)
  np.testing.assert_array_equal(found, 1)
