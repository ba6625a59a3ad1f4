"""How a batch of evaluation is shared out among hosts."""

import math

from semiseg_jax.input.sources import Source


def share_of(source: Source, batch: int, host: tuple[int, int], devices: int) -> tuple[int, slice]:
  """(rows of a batch over all hosts, those of this host).

  batch is raised to a multiple of `devices`, those of all hosts. host: (index, count). Raises
  ValueError without an image or a row.
  """
  if not len(source):
    raise ValueError("the evaluation stream has no image")
  index, hosts = host
  if batch < 1:
    raise ValueError(f"evaluation batch of {batch} rows cannot be shared out among {hosts} hosts")
  parts = math.lcm(devices, hosts)
  batch = -(-batch // parts) * parts
  share = batch // hosts
  return batch, slice(index * share, (index + 1) * share)
