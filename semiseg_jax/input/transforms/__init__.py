"""Geometry and colour of one record on the CPU, as each original has them: one file for each."""

from collections.abc import Mapping
from typing import Any

import grain

from semiseg_jax import fields
from semiseg_jax.input.transforms.evaluation import (
  EvalTransform,
  ShorterSide,
  Transformed,
  Whole,
  resized_dataset,
)
from semiseg_jax.input.transforms.scale_crop import ScaleCrop, pad

__all__ = ["Transformed", "make_eval_transform", "make_transform", "pad", "resized_dataset"]

_TRAINING = {"scale_crop": ScaleCrop}
_EVALUATION = {"whole": Whole, "shorter_side": ShorterSide}


def make_transform(
  config: Mapping[str, Any], crop: tuple[int, int] | None = None
) -> grain.transforms.RandomMap:
  """The training transform called config["name"], with the other keys as its fields.

  crop: (height, width) of what it makes; None where it leaves the size alone.
  Raises ValueError for an unknown name or key, naming the nearest, and for a value of another type
  than its default's.
  """
  name, values = _choose(config, _TRAINING)
  return fields.make(_TRAINING[name], "config.data.*_transform", name, {**values, "crop": crop})


def make_eval_transform(config: Mapping[str, Any]) -> EvalTransform:
  """The evaluation transform called config["name"], with the other keys as its fields.

  Raises ValueError as make_transform does.
  """
  name, values = _choose(config, _EVALUATION)
  return fields.make(_EVALUATION[name], "config.evaluation.transform", name, values)


def _choose(config: Mapping[str, Any], known: Mapping[str, type]) -> tuple[str, dict[str, Any]]:
  values = dict(config)
  name = values.pop("name", "")
  if name not in known:
    raise ValueError(f"there is no transform {name!r}: {fields.nearest(name, known)}")
  return name, values
