"""What is looked at of a run's labels before it starts."""

import itertools
import logging

import jax
import numpy as np

from semiseg_jax.input.findings import Pixels, added, count_pixels, findings
from semiseg_jax.input.sources import Source, Subset, Wrapped
from semiseg_jax.training.setup import Run

LOOKED_AT = 32  # masks of a set, evenly spread over it: so many are read, however many there are


def check_labels(run: Run) -> None:
  """Warns of labels that are seldom meant, see `findings`; ValueError for a set without any label.

  Prepared data knows its pixels by class; of other sets LOOKED_AT masks are read. Only where none
  of these has a label the others are, until one has.
  """
  sets = {name: run.streams[name].source for name in ("labeled", "domain") if name in run.streams}
  for name, source in {**sets, "validation": run.dataset.val}.items():
    pixels, looked_at = look_at(as_stored(source), run.dataset.info.num_classes)
    masks = f"{looked_at} of the {name} set"
    if not pixels.of_class.any():
      raise ValueError(
        f"no pixel of {masks} has a label: its masks hold the ignored id alone, or there is none; "
        "python -m semiseg_jax check shows what there is"
      )
    if jax.process_index() == 0:
      for line in findings(pixels, masks, run.dataset.info):
        logging.getLogger(__name__).warning(line)


def as_stored(source: Source) -> Source:
  """The same records with their labels as they were before any change."""
  if isinstance(source, Subset):
    return Subset(as_stored(source.source), source.indices)
  return as_stored(source.source) if isinstance(source, Wrapped) else source


def look_at(source: Source, num_classes: int) -> tuple[Pixels, str]:
  """The pixels of the masks that were looked at, and what to call those."""
  if source.counts is not None:
    return Pixels(source.counts.sum(0)), f"the {int(source.labeled.sum())} masks"
  rows = np.flatnonzero(source.labeled)
  spread = rows[np.linspace(0, len(rows) - 1, min(LOOKED_AT, len(rows))).astype(int)]
  read = lambda row: count_pixels(source.read_label(int(row)), num_classes)
  pixels = added(map(read, spread), num_classes)
  if len(spread) < len(rows) and pixels.of_class.any():
    return pixels, f"{len(spread)} of the {len(rows)} masks"
  others = map(read, np.setdiff1d(rows, spread))
  labeled = (found for found in others if found.of_class.any())
  return added([pixels, *itertools.islice(labeled, 1)], num_classes), f"the {len(rows)} masks"
