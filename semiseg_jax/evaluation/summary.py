"""From a survey's counts to the numbers that people compare."""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from semiseg_jax.evaluation.class_scores import ClassScores, class_scores
from semiseg_jax.evaluation.image_scores import (
  ImageMeans,
  ImageScores,
  image_means,
  image_scores,
  mean_of_known,
  with_labels,
)
from semiseg_jax.evaluation.survey import Survey


class Summary(NamedTuple):
  """Of the images with a label, and of all pixels with one.

  classes: ids of those of interest. per_image: of every image of the survey. means: over images.
  of_pixels: each class's scores over the set; their means over the classes of interest are `mean`,
  by name.
  """

  classes: list[int]
  per_image: ImageScores
  means: ImageMeans
  of_pixels: ClassScores
  mean: dict[str, float]


def summarize(survey: Survey, classes: Sequence[int], protocol: str, iou_of_sums: bool) -> Summary:
  """protocol, iou_of_sums: see `image_scores`; they say nothing of the scores over pixels."""
  options = {"protocol": protocol, "iou_of_sums": iou_of_sums}
  of_pixels = class_scores(survey.counts, survey.boundaries)
  means = mean_of_known(np.stack(of_pixels)[:, list(classes)], 1).tolist()
  return Summary(
    classes=list(classes),
    per_image=image_scores(survey.counts, **options),
    means=image_means(image_scores(with_labels(survey.counts), **options), classes),
    of_pixels=of_pixels,
    mean=dict(zip(ClassScores._fields, means, strict=True)),
  )


def classes_of_interest(text: str | None, class_names: Sequence[str]) -> list[int]:
  """Ids of "1-20", "1,3" or "road,sky"; every class for None or "all".

  Raises ValueError for what is no class.
  """
  if text in (None, "", "all"):
    return list(range(len(class_names)))
  found: list[int] = []
  for part in (part.strip() for part in str(text).split(",")):
    if part in class_names:
      found.append(list(class_names).index(part))
    elif match := re.fullmatch(r"(\d+)(?:-(\d+))?", part):
      first, last = int(match[1]), int(match[2] or match[1])
      found += range(first, last + 1)
    else:
      found.append(-1)
    if not found or not 0 <= found[-1] < len(class_names):
      raise ValueError(
        f"config.evaluation.classes={text!r}: {part!r} is no class; give names or ids from 0 to "
        f"{len(class_names) - 1}"
      )
  return sorted(set(found))
