"""What can be chosen about RankDice."""

import dataclasses
from typing import Annotated, Literal

from semiseg_jax.values import CountFrom0, NotNegative, Range, Share, check_fields

SOLVERS = ("ba", "trna", "ba+trna", "exact", "rma")
FORMS = ("ours", "root", "fork", "successor")


@dataclasses.dataclass(frozen=True)
class RankDice:
  """How RankDice decides; the defaults are those of a library, not of the published tables.

  solver: "ba", blind approximation; "trna", truncated refined normal approximation; "ba+trna", the
  former for a class whose count deviates by more than 5; "exact"; "rma", reciprocal moments, the
  only one for metric "iou". smooth: added to numerator and denominator of the metric. pruning: a
  class whose highest probability does not exceed it stays empty; with None none does.
  truncate_mean: takes the number of p >= 0.5 for the mean count. tail: the share of counts that is
  left out at either end. whole: a mask may have as many pixels as the search's bound says, and all
  of the image; the originals stop one earlier. trna_offset: added to T-RNA's denominators, 1 in the
  originals, 0 by definition.

  form: whose code decides where versions differ. "root" and "fork" are the two copies in the
  original's repository, "successor" is the package `rankseg`; "ours" is "root" but for nearly
  certain classes, where that divides 0 by 0 and ours takes p >= 0.5. Zero variance and images of
  few pixels, at which both copies crash, are decided in every form.
    pruned: root p1 <= pruning; fork (number of p >= 0.5) <= gap; successor p1 < pruning
    mean count up to 50: T-RNA among 5 mean + 1 pixels whatever the solver; successor as any other
    fewest pixels in doubt above the bound: root takes the bound; fork none; successor goes on

  The published tables: RankDice(form="fork", truncate_mean=True).
  """

  solver: Literal[*SOLVERS] = "ba"
  metric: Literal["dice", "iou"] = "dice"
  smooth: NotNegative = 0.0
  pruning: Share | None = 0.5
  truncate_mean: bool = False
  form: Literal[*FORMS] = "ours"
  gap: CountFrom0 = 0
  tail: Annotated[float, Range(1e-7, 0.5, open_most=True)] = 1e-4  # of the counts
  whole: bool = False
  trna_offset: CountFrom0 = 1

  def __post_init__(self):
    check_fields(self)
    if self.metric == "iou" and self.solver != "rma":
      raise ValueError(f"solver {self.solver!r} is for Dice alone; metric 'iou' needs 'rma'")
    if self.solver in ("exact", "rma") and (self.truncate_mean or self.whole):
      raise ValueError(f"truncate_mean and whole are for BA and T-RNA, not for {self.solver!r}")
