"""The SegNet of pytorch-segmentation's RankDice fork, whose files have shared layers twice."""

import dataclasses

from semiseg_jax.convert.families import zoo_segnet

FAMILY = dataclasses.replace(
  zoo_segnet.FAMILY,
  name="zoo_segnet_tied",
  title="the SegNet of pytorch-segmentation's RankDice fork",
  tells=zoo_segnet.is_tied,
  describe=lambda shapes, extra: zoo_segnet.describe(shapes, extra) | {"tied": True},
  copies=zoo_segnet.COPIES,
)
