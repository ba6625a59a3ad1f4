"""Two strong views and complementary dropout (UniMatch V2: Yang, Zhao and Zhao, TPAMI 2025)."""

import dataclasses

import jax
import jax.numpy as jnp

from semiseg_jax.augment import channels
from semiseg_jax.augment.views import image_keys
from semiseg_jax.contract import Tree
from semiseg_jax.methods import fixmatch
from semiseg_jax.models.network import Features

_COINS, _UNTOUCHED = 50, 51  # in the keys of what is dropped


@dataclasses.dataclass(frozen=True)
class Method(fixmatch.Method):
  """FixMatch with two strong views, of which each keeps the channels that the other lacks.

  complementary_dropout: for half of the images, rounded up, each channel of the features goes to
  one view alone, doubled, whatever the place and the level; without it both have all.
  """

  complementary_dropout: bool = True

  VIEWS = 2

  def perturb(self, features: Features, views: Tree, key: jax.Array) -> Features:
    if not self.complementary_dropout:
      return features
    position, count = views["position"], len(views["labeled"]["image"])
    coins = channels.draw_coins(image_keys(key, position, _COINS), features)
    untouched = channels.draw_untouched(
      jax.random.fold_in(key, _UNTOUCHED), len(position), self._partners
    )
    factors = {
      width: jnp.concatenate([jnp.ones((count, width)), *channels.complementary(each, untouched)])
      for width, each in coins.items()
    }
    return channels.scaled(features, factors)
