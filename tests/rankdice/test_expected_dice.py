"""The exact expected Dice and the exact decision, against enumeration."""

import re

import jax
import jax.numpy as jnp
import numpy as np

from semiseg_jax.rankdice.expected_dice import expected_dice
from semiseg_jax.rankdice.solve import rank_dice
from tests import golden

_expected_dice = jax.jit(expected_dice, static_argnums=1)


def _smooth(name: str) -> float:
  return float(re.search(r"smooth(\w+?)(?=_|$)", name)[1].replace("p", "."))


@golden.cases("rankdice/exact_tiny*")
def test_tiny_images_equal_the_enumeration_of_all_labels(case):
  for name in (name for name in case if re.fullmatch(r"t\d+_smooth[^_]*_score", name)):
    probs, run = case[f"{name.partition('_')[0]}_p"], name.removesuffix("_score")
    ours = _expected_dice(-np.sort(-probs), _smooth(name))
    np.testing.assert_allclose(ours, case[name], rtol=1e-6, atol=5e-7, err_msg=name)
    decided = rank_dice(probs[None, :, None], "exact", smooth=_smooth(name), pruning=None)
    assert decided.tau[0, 0] == case[f"{run}_tau"], name
    if f"{run}_best_subset" in case:
      np.testing.assert_array_equal(decided.masks[0, :, 0], case[f"{run}_best_subset"])


@golden.cases("rankdice/rank_dice_small*", holding="exact__*")
def test_maps_equal_the_enumeration_of_counts(case):
  for name in (name for name in case if name.startswith("exact__")):
    image, k = (int(x) for x in re.search(r"_b(\d+)_k(\d+)", name).groups())
    probs = -np.sort(-case["probs"][image, k].ravel())
    ours = _expected_dice(probs, _smooth(name))
    np.testing.assert_allclose(ours, case[name], rtol=2e-6, atol=1e-6, err_msg=name)
    assert ours.argmax() == case[name].argmax()


def test_certain_pixels_and_none():
  np.testing.assert_allclose(expected_dice(jnp.float32([1, 1, 0])), [0, 2 / 3, 1, 0.8], rtol=1e-6)
  np.testing.assert_allclose(expected_dice(jnp.zeros(2), 0.5), [1, 1 / 3, 0.2], rtol=1e-6)
