"""UniMatch's colours, boxes and dropped channels against the original's, draws given."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from semiseg_jax.augment import channels, mix
from semiseg_jax.augment.photometric import Blur, ColorJitter, color_jitter, gaussian_blur, gray
from tests import golden
from tests.augment.test_photometric import operation
from tests.devices import DEVICES

MAX_SIGMA = 2.0
_jitter, _blur = jax.jit(color_jitter), jax.jit(gaussian_blur, static_argnames="max_sigma")


@golden.cases("unimatch_v2/data_color*")
def test_colours(case):
  count = len(case["order"])
  images = np.repeat(np.float32(case["image"])[None], count, 0)
  draws = ColorJitter(jnp.ones(count, bool), *jnp.float32(case["factors_f64"].T), case["order"])
  np.testing.assert_array_equal(_jitter(images, draws), case["jittered"])
  np.testing.assert_array_equal(gray(images, jnp.arange(count) == 0)[0], case["gray"])
  np.testing.assert_array_equal(gray(images, jnp.arange(count) == 0)[1:], images[1:])
  for name in ("brightness", "contrast", "saturation", "hue"):
    factors = jnp.float32(case[f"single.{name}_factor_f64"])
    images = np.repeat(case["image"][None].astype(np.float32), len(factors), 0)
    found = jax.jit(operation, static_argnums=0)(name, images, factors)
    np.testing.assert_array_equal(found, case[f"single.{name}"], err_msg=name)


@golden.cases("unimatch_v2/data_flip_blur*")
def test_blur(case):
  sigma = jnp.float32(case["blur_sigma_f64"])
  images = np.repeat(case["image"][None], len(sigma), 0)
  blurred = _blur(images, Blur(jnp.ones(len(sigma), bool), sigma), MAX_SIGMA)
  np.testing.assert_array_equal(blurred, case["blurred"])


@golden.cases("unimatch_v2/data_cutmix_box*")
def test_boxes_fit_at_the_recorded_try(case):
  for name in (name for name in case if name.endswith(".draw_tries_ratio_x_y_f64")):
    start = name.partition(".")[0]
    side = int(case[f"{start}.size"])
    area = jnp.float32(case[f"{start}.draw_area_fraction_f64"]) * side**2
    ratio, x, y = case[name].T
    h, w = (np.asarray(s) for s in mix.sides(area, jnp.float32(ratio)))
    fits = (x + w <= side) & (y + h <= side)
    assert fits.tolist() == [False] * (len(fits) - 1) + [True]
    assert (x[-1], y[-1], w[-1], h[-1]) == tuple(case[f"{start}.box_x_y_w_h"])


@golden.cases("unimatch_v2/data_cutmix_box*")
def test_drawn_boxes_are_as_frequent_and_as_large(case):
  side, count = int(case["stat.size"]), int(case["stat.n"])
  boxes = mix.draw_fitting_boxes(jax.random.split(jax.random.key(0), count), (side, side))
  y0, y1, x0, x1 = map(np.asarray, boxes)
  assert min(y0.min(), x0.min()) >= 0 and max(y1.max(), x1.max()) <= side
  is_box = y1 > y0
  assert abs(is_box.mean() - 0.5) < 0.05 > abs(case["stat.none"] / count - 0.5)
  heights, widths = (y1 - y0)[is_box], (x1 - x0)[is_box]
  area = (heights * widths / side**2).mean()
  np.testing.assert_allclose(area, case["stat.mean_area_fraction_of_boxes"], rtol=0, atol=0.01)
  aspect = (heights / widths).mean()
  np.testing.assert_allclose(aspect, case["stat.mean_accepted_ratio"], rtol=0, atol=0.1)


@golden.cases("unimatch_v2/dropout_b*")
def test_complementary_dropout(case):
  count, kept = int(case["b"]), int(case["num_kept"])
  untouched = jnp.isin(jnp.arange(count), case["draw_permutation"][:kept])
  first, second = channels.complementary(case["draw_coin"] > 0, untouched)
  np.testing.assert_array_equal(jnp.concatenate([first, second]), case["dropout_mask"])
  drawn = channels.draw_untouched(jax.random.key(0), count)
  assert drawn.sum() == kept


def test_levels_of_equal_width_share_their_coins():
  features = tuple(jnp.ones((2, 3, 3, width)) for width in (8, 8, 5))
  coins = channels.draw_coins(jax.random.split(jax.random.key(0), 2), features)
  assert {width: x.shape for width, x in coins.items()} == {8: (2, 8), 5: (2, 5)}
  factors = {w: channels.complementary(x, jnp.array([True, False]))[0] for w, x in coins.items()}
  first, second, third = channels.scaled(features, factors)
  np.testing.assert_array_equal(first, second)
  assert (first[0] == 1).all() and set(np.unique(first[1])) == {0, 2}
  assert third.shape == (2, 3, 3, 5)


@pytest.mark.parametrize("devices", DEVICES)
def test_partners_and_untouched_images_are_those_of_the_whole_batch(devices):
  count = 8
  images = jnp.arange(count)
  mesh = jax.make_mesh((devices,), ("data",), (jax.sharding.AxisType.Auto,))

  def both(x):
    partner = mix.reversed_partner({"x": x}, "data")["x"]
    return partner, channels.draw_untouched(jax.random.key(1), len(x), "data")

  partner, untouched = jax.jit(
    jax.shard_map(both, mesh=mesh, in_specs=P("data"), out_specs=P("data"))
  )(images)
  np.testing.assert_array_equal(partner, images[::-1])
  np.testing.assert_array_equal(untouched, channels.draw_untouched(jax.random.key(1), count))
  np.testing.assert_array_equal(mix.reversed_partner(images), images[::-1])


def test_a_mask_keeps_an_images_own_pixels():
  view = {"image": jnp.arange(2.0)[:, None, None, None] * jnp.ones((2, 2, 2, 3))}
  mask = jnp.array([[[True, False], [True, True]]] * 2)
  mixed = mix.mix_reversed(view, mask)["image"][..., 0]
  np.testing.assert_array_equal(mixed[0], [[0, 1], [0, 0]])
  np.testing.assert_array_equal(mixed[1], [[1, 0], [1, 1]])
