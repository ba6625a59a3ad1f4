"""Geometry and colour of one record on the CPU, as each original has them: one file for each.

A transform is a frozen dataclass: what a training transform draws and what it does with that are
apart, so that recorded draws can be replayed. `geometry` and `photometric` hold the common steps.
"""

from collections.abc import Mapping
from typing import Any

import grain

from semiseg_jax import fields
from semiseg_jax.transforms.c3 import C3, C3Eval, C3Unlabeled
from semiseg_jax.transforms.dst_cbc import DstCbc, DstCbcEval, DstCbcPublished, DstCbcSquash
from semiseg_jax.transforms.evaluation import (
  EvalTransform,
  Pad,
  ShorterSide,
  Whole,
)
from semiseg_jax.transforms.memory_bank import MemoryBank, MemoryBankEval
from semiseg_jax.transforms.scale_crop import ScaleCrop
from semiseg_jax.transforms.unimatch import UniMatch, UniMatchUnlabeled
from semiseg_jax.transforms.zoo import Zoo, ZooEval

__all__ = [
  "ScaleCrop",
  "make_eval_transform",
  "make_transform",
]

TRAINING = {
  "scale_crop": ScaleCrop,
  "dst_cbc": DstCbc,
  "dst_cbc_published": DstCbcPublished,
  "dst_cbc_squash": DstCbcSquash,
  "memory_bank": MemoryBank,
  "c3": C3,
  "c3_unlabeled": C3Unlabeled,
  "unimatch": UniMatch,
  "unimatch_unlabeled": UniMatchUnlabeled,
  "zoo": Zoo,
}
EVALUATION = {
  "whole": Whole,
  "shorter_side": ShorterSide,
  "pad": Pad,
  "dst_cbc": DstCbcEval,
  "memory_bank": MemoryBankEval,
  "c3": C3Eval,
  "zoo": ZooEval,
}


def make_transform(
  config: Mapping[str, Any],
  crop: tuple[int, int] | None,
  section: str = "config.data.labeled_transform",
) -> grain.transforms.RandomMap:
  """The training transform called config["name"], with the other keys as its fields.

  crop: (height, width) of what it makes; ScaleCrop and Zoo take None and leave the size alone.
  section: what errors call it.
  Raises ValueError for an unknown name or key, naming the nearest, and for a value that is not
  allowed.
  """
  values = dict(config)
  if "crop" in values:
    raise ValueError(
      f"the crop of transform {values.get('name')!r} is config.data.crop: {values['crop']} is lost"
    )
  return fields.make_chosen(TRAINING, section, {**values, "crop": crop})


def make_eval_transform(
  config: Mapping[str, Any], section: str = "config.evaluation.transform"
) -> EvalTransform:
  """The evaluation transform called config["name"], with the other keys as its fields.

  Raises ValueError as make_transform does.
  """
  return fields.make_chosen(EVALUATION, section, config)
