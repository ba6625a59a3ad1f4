import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import PartitionSpec as P

from semiseg_jax.losses import pools
from tests import golden
from tests.losses.replay import split_positions

_CLASSES = 5


def _expected_list(classes: np.ndarray, c: int) -> np.ndarray:
  return np.flatnonzero(classes.reshape(-1) == c)


@jax.jit
def _found(classes):
  """The pixels of every class by their positions, and the lists' lengths."""
  lists = pools.list_pixels(classes, _CLASSES, jnp.arange(len(classes)), None)
  c, position = jnp.arange(_CLASSES)[:, None], jnp.arange(classes.size)[None]
  return lists.total, *pools.locate(lists, *jnp.broadcast_arrays(c, position))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), images=st.sampled_from([1, 3]))
def test_a_position_is_found_in_the_row_major_list(seed, images):
  rng = np.random.default_rng(seed)
  classes = rng.choice(_CLASSES + 1, (images, 12), p=rng.dirichlet([0.3] * (_CLASSES + 1)))
  total, pixel, is_here = map(np.asarray, _found(classes))
  for c in range(_CLASSES):
    expected = _expected_list(classes, c)
    assert total[c] == len(expected)
    np.testing.assert_array_equal(is_here[c], np.arange(12 * images) < len(expected))
    np.testing.assert_array_equal(pixel[c, : len(expected)], expected)


@pytest.mark.parametrize("order", ["device after device", "two streams"])
def test_every_position_is_on_exactly_one_device(order):
  devices, images = 4, 8
  classes = np.random.default_rng(0).integers(0, _CLASSES + 1, (images, 12))
  rank = np.arange(8) if order == "device after device" else np.array([0, 4, 1, 5, 2, 6, 3, 7])
  in_order = classes[np.argsort(rank)]
  mesh = jax.make_mesh(
    (devices,), ("data",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:devices]
  )

  def per_device(classes, rank):
    lists = pools.list_pixels(classes, _CLASSES, rank, "data")
    c, position = jnp.arange(_CLASSES)[:, None], jnp.arange(images * 12)[None]
    pixel, is_here = pools.locate(lists, *jnp.broadcast_arrays(c, position))
    in_pool = rank[pixel // 12] * 12 + pixel % 12
    return jax.lax.psum((jnp.where(is_here, in_pool, 0), is_here.astype(int)), "data")

  mapped = jax.shard_map(per_device, mesh=mesh, in_specs=P("data"), out_specs=P())
  pixel, owners = jax.jit(mapped)(classes, rank)
  for c in range(_CLASSES):
    expected = _expected_list(in_order, c)
    np.testing.assert_array_equal(owners[c], np.arange(images * 12) < len(expected))
    np.testing.assert_array_equal(pixel[c, : len(expected)], expected)


def _relation(weights) -> np.ndarray:
  relation = np.array(weights, np.float32)
  return relation / np.maximum(relation.sum(axis=1, keepdims=True), 1e-30)


_draw = jax.jit(pools.draw_pixels, static_argnums=(4, 5))


@settings(max_examples=30, deadline=None)
@given(
  seed=st.integers(0, 2**31),
  count=st.lists(st.sampled_from([0, 1, 2, 7, 2**24 + 1]), min_size=4, max_size=4),
)
def test_draws_stay_in_range_and_in_other_present_classes(seed, count):
  count = np.array(count)
  rng = np.random.default_rng(seed)
  allowed = (count > 0) & ~np.eye(4, dtype=bool)
  relation = _relation(rng.dirichlet([0.1] * 4, 4).astype(np.float32) * allowed)
  hard = rng.integers(0, count + 1)
  draws = _draw(jax.random.key(seed), jnp.asarray(hard), jnp.asarray(count), relation, 16, 32)
  for c in range(4):
    assert (draws.query_index[c] >= 0).all()
    assert (draws.query_index[c] < max(hard[c], 1)).all()
    assert ((draws.negative_class[c] >= 0) & (draws.negative_class[c] < 4)).all()
    if relation[c].sum() == 0:
      continue
    assert (relation[c][draws.negative_class[c]] > 0).all()
    assert (draws.negative_index[c] < count[draws.negative_class[c]]).all()
    assert (draws.negative_index[c] >= 0).all()


def _chi_square(observed: np.ndarray, probability: np.ndarray) -> float:
  """The statistic in standard deviations above its mean."""
  expected = observed.sum() * probability
  positive = expected > 0
  assert observed[~positive].sum() == 0
  freedom = positive.sum() - 1
  statistic = (np.square(observed - expected)[positive] / expected[positive]).sum()
  return (statistic - freedom) / np.sqrt(2 * max(freedom, 1))


@pytest.mark.parametrize("seed", [0, 1])
def test_draws_follow_the_relation_and_are_uniform_over_pixels(seed):
  relation = _relation([[0, 1, 3, 0], [2, 0, 5, 0], [1, 1e-3, 0, 0], [4, 2, 1, 0]])
  count = np.array([5, 12, 1, 0])
  draws = _draw(jax.random.key(seed), count, count, relation, 100, 400)
  for c in range(3):
    drawn = np.asarray(draws.negative_class[c]).ravel()
    assert _chi_square(np.bincount(drawn, minlength=4), relation[c]) < 5
    queries = np.bincount(draws.query_index[c], minlength=count[c])
    assert _chi_square(queries, np.full(count[c], 1 / count[c])) < 5
    for j in np.unique(drawn):
      pixels = np.bincount(draws.negative_index[c].ravel()[drawn == j], minlength=count[j])
      assert _chi_square(pixels, np.full(count[j], 1 / count[j])) < 5


def test_a_query_does_not_foretell_the_next():
  relation = _relation([[0, 1, 1], [1, 0, 1], [1, 1, 0]])
  count = np.array([2, 2, 2])
  draws = _draw(jax.random.key(0), count, count, relation, 64, 256)
  pair = np.asarray(draws.negative_class * 2 + draws.negative_index)[0] - 2  # 4 equal outcomes
  for left, right in ((pair[:, :-1], pair[:, 1:]), (pair[:-1], pair[1:])):
    joint = np.bincount((left * 4 + right).ravel(), minlength=16)
    assert _chi_square(joint, np.full(16, 1 / 16)) < 5


@golden.cases("reco/negative_index_*")
def test_recorded_negatives_split_into_class_and_position(case):
  sizes = case["seg_num_list"]
  number, position = split_positions(case["negative_index"], sizes)
  for taken, row in zip(case["samp_num"], number, strict=True):
    np.testing.assert_array_equal(np.bincount(row, minlength=len(sizes)), taken)
  assert (position >= 0).all() and (position < sizes[number]).all()
  np.testing.assert_array_equal(case["low"][number] + position, case["negative_index"])
