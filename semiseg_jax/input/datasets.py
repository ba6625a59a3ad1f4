"""Opens a dataset: a folder where it lies, or one that was prepared."""

import os
from collections.abc import Sequence
from dataclasses import replace

from semiseg_jax.input import folder, prepared
from semiseg_jax.input.local_copy import local_copy
from semiseg_jax.input.sources import Dataset, Transformed, largest_size
from semiseg_jax.paths import user_path
from semiseg_jax.transforms.evaluation import ShorterSide


def open_dataset(
  name: str,
  *,
  data_dir: str | os.PathLike | None = None,
  root: str | os.PathLike | None = None,
  variant: str | None = None,
  class_names: Sequence[str] | None = None,
  ignore_index: int | None = None,
  palette: Sequence[Sequence[int]] | None = None,
  resize: int | None = None,
) -> Dataset:
  """Opens "folder" (images and masks under root), or the prepared dataset `name` under data_dir.

  class_names, ignore_index and palette override what a folder says about itself; a prepared
  dataset needs none of them. resize: length in pixels that the shorter side of every image is
  brought to, None = native. Data in a bucket are copied to this machine, see `local_copy`.

  Raises FileNotFoundError if there is nothing to open and ValueError if what is there is unusable.
  """
  if name == "folder":
    if not root:
      raise ValueError('dataset "folder" needs root: the directory that holds images and masks')
    root = local_copy(user_path(root))
    dataset = folder.open_folder(
      root, class_names=class_names, ignore_index=ignore_index, palette=palette
    )
  else:
    dataset = prepared.open_prepared(name, data_dir or prepared.default_data_dir(), variant)
  return dataset if resize is None else resized_dataset(dataset, resize)


def resized_dataset(dataset: Dataset, shorter_side: int) -> Dataset:
  """Every split with `shorter_side` pixels along its images' shorter sides."""
  resized = lambda source: Transformed(source, ShorterSide(shorter_side))
  train, val = resized(dataset.train), resized(dataset.val)
  extra, test = (None if x is None else resized(x) for x in (dataset.extra, dataset.test))
  return Dataset(replace(dataset.info, size=largest_size(val.sizes)), train, val, extra, test)
