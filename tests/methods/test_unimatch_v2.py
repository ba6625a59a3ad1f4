"""UniMatch V2's dropout inside its step."""

import jax
import jax.numpy as jnp
import numpy as np

from semiseg_jax.methods import make_method

SMALL = {
  "": {"strong_threshold": 0.3},
  "plain": {"strong_threshold": 0.3, "complementary_dropout": False, "ema_decay": 0.9},
}


def perturbed(rows: int = 4, labeled: int = 3, **values):
  """Two levels of ones, [labelled, first view, second view], as the method hands them on."""
  method = make_method({"name": "unimatch_v2", "scope": "device", **values})
  features = tuple(jnp.ones((labeled + 2 * rows, 2, 2, width)) for width in (16, 6))
  views = {"labeled": {"image": jnp.ones(labeled)}, "position": jnp.arange(rows)}
  levels = method.perturb(features, views, jax.random.key(3))
  return [np.split(np.asarray(level), [labeled, labeled + rows]) for level in levels]


def test_the_two_views_complete_each_other():
  for labeled, first, second in perturbed():
    assert (labeled == 1).all()
    np.testing.assert_array_equal(first + second, np.full_like(first, 2))
    untouched = [(rows == 1).all() for rows in first]
    assert sum(untouched) == 2
    dropped = first[np.flatnonzero(np.logical_not(untouched))]
    assert set(np.unique(dropped)) == {0, 2}
    assert (dropped == dropped[:, :1, :1]).all()  # wherever in the image


def test_without_dropout_all_is_as_it_was():
  for parts in perturbed(complementary_dropout=False):
    assert all((part == 1).all() for part in parts)
