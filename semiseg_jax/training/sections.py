"""The sections of a config that no choice fills: every key with its type, its default and what it
means. `configs/common.py` makes a config of them, `training/check.py` checks one.
"""

import dataclasses
from typing import Annotated, Literal

from semiseg_jax.evaluation.predictor import Inference
from semiseg_jax.input.partial import PERCENT
from semiseg_jax.input.pipeline import SHARDINGS
from semiseg_jax.models.trunk import REMAT
from semiseg_jax.training.labelling import Labelling
from semiseg_jax.training.selection import MONITORS
from semiseg_jax.values import (
  Batch,
  Count,
  CountFrom0,
  Names,
  NotNegative,
  Positive,
  Range,
  Share,
  Side,
  Size,
  Steps,
  StepsFrom0,
)


@dataclasses.dataclass(frozen=True)
class Whole:
  seed: CountFrom0 = 0  # of the parameters, the data order and every random draw


@dataclasses.dataclass(frozen=True)
class Data:
  """Beside these `labeled_transform` and `unlabeled_transform` (semiseg_jax/transforms)."""

  name: str = ""  # a prepared dataset, or "folder"; has to be given
  data_dir: str | None = None  # of prepared sets; None: $SEMISEG_DATA, or ~/semiseg_data
  variant: str | None = None  # of the prepared set; None: its default
  root: str | None = None  # of the folder dataset
  class_names: Names | None = None  # folder: "sky,road"; None: dataset.toml
  ignore_index: Annotated[int, Range(0, 65535)] | None = None  # folder: None: dataset.toml, or 255
  labeled: str = "all"  # "reco/20_0" (count_seed), "1/8_0" (fraction_seed), a published split such
  # as "dst_cbc/30_0" (docs/splits.md), or a file of ids
  rule: Literal["balanced", "sun"] = "balanced"  # how "reco/..." chooses
  min_classes: CountFrom0 = 1  # classes that an image must show to be chosen by "balanced"
  unlabeled: str = "rest"  # rest | all | a published split | a file of ids
  pseudo_labels: str | None = None  # a folder of them, for unlabelled images
  # (training/labelling.py): rounds set it themselves
  extra_unlabeled: bool = False  # add the set's images without labels (cityscapes)
  palette: str | None = None  # folder: "4682b4,804080", as dataset.toml
  resize: Side | None = None  # shorter side of all images; None: native
  partial: Literal[*PERCENT] | None = None  # sparse labels
  crop: Size = (321, 321)  # training crop, height and width
  labeled_batch: Batch = 10  # images of all devices together
  unlabeled_batch: Batch = 10
  replacement: bool = False  # each place of a batch takes any image, and not each image once an
  # epoch
  sharding: Literal[*SHARDINGS] = "batch"  # of several hosts each reads: its share of every batch,
  # of all images | records: its own images alone, in an order of its own (docs/scaling.md)
  threads: Annotated[int, Range(1, 1024)] = 2  # that read and decode, per host or worker process
  workers: Annotated[int, Range(0, 1024)] = 0  # worker processes per host; 0: threads alone
  buffer: Count = 4  # batches read ahead


@dataclasses.dataclass(frozen=True)
class Domain:
  """A stream of labelled images from another domain; beside these its `transform`."""

  name: str | None = None  # a prepared dataset; None: no such stream
  variant: str | None = None
  batch: Batch = 2


@dataclasses.dataclass(frozen=True)
class Model:
  """Beside these the network's own keys and its `trunk` (semiseg_jax/networks)."""

  init_from: str | None = None  # .pth or .safetensors file, working directory or
  # "hf://ORG/REPO/FILE" (docs/weights.md); None: from scratch
  which: str | None = None  # of several networks in that file, such as teacher
  reinit_classifier: bool = False  # where those weights are of another number of classes
  normalization: str = "auto"  # of the inputs: as init_from's weights want it, else imagenet | coco
  # | cityscapes_bgr | ...
  dtype: Literal["auto", "float32", "bfloat16"] = "auto"  # compute; auto: bfloat16 on accelerators
  sync_batch_norm: bool = True  # batch statistics of all devices together
  remat: Literal[*REMAT] = "none"  # what of the trunk the backward pass recomputes, for memory
  # (docs/performance.md)


@dataclasses.dataclass(frozen=True)
class Training:
  steps: Steps = 40_000
  accumulate: Count = 1  # batches per update
  reload_best_after: Steps | None = None  # steps without a better score after which it goes on from
  # the best network; None: never
  stop_after: Steps | None = None  # the same, after which the run ends
  refresh_batch_stats: StepsFrom0 = 0  # passes that re-estimate the best one's statistics
  log_every: Count = 50
  checkpoint_every: Steps = 1_000
  keep: Count = 2  # newest checkpoints that are kept, beside the best
  compile_cache: str = "auto"  # the folder for compiled programs, from which the next start takes
  # them; auto: the user's cache folder on accelerators, none on the CPU; "none": nowhere


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """Beside these its `transform`, what is done before padding."""

  every: Steps = 200
  ahead: CountFrom0 = 0  # steps before each multiple of `every`, and before the end, at which it
  # takes place (DST-CBC: 1)
  network: str | None = None  # which of them; None: as the method has
  batch: Batch = 4
  size: Size | None = (513, 513)  # images are padded to it at the right and bottom
  own_size: bool = False  # or each keeps its own, and every size has its own program
  window: Size | None = None  # seen through windows of that size (evaluation/windows.py); None:
  # whole
  every_network: bool = False  # log the others' scores, too
  subset: str | None = None  # "dst_cbc/valtiny"; None: every image
  monitor: Literal[*MONITORS] = "miou_present"  # the score that chooses the best network
  # (docs/fidelity.md)
  ties_replace: bool = True  # the best network, by one with the same score
  panels: CountFrom0 = 4  # validation images drawn at each evaluation
  # The rest is for --mode=evaluate alone.
  decide: str = "max"  # how logits become masks: max | threshold | rankdice, or that with fields,
  # "rankdice(solver='rma',metric='iou')": semiseg_jax/rankdice/settings.py
  temperature: Positive = 1.0  # divides the logits beforehand
  threshold: Share = 0.5  # from which probability on decide="threshold" takes a pixel
  classes: str | None = None  # those that means are taken over, by name or id: "road,sky" or
  # "1-20"; None: all
  protocol: Literal["paper", "standard"] = "paper"  # of means over images, pixels without a label:
  # paper (wrong where a mask is on them) | standard (left out)
  iou_of_sums: bool = False  # IoU of images with the areas' sum for their union, as the RankDice
  # fork has it under its binary losses: half of Dice
  boundary: Share = 0.02  # how near an outline is, as a share of the diagonal; 0: leave boundary
  # IoU out


@dataclasses.dataclass(frozen=True)
class Rounds:
  """Self-training in rounds (training/rounds.py).

  Beside these `first`, sections of the config as the supervised round has them; `second`, the same
  of a second network, which the first teaches and learns from; empty: one network.
  """

  count: Annotated[int, Range(0, 1000)] = 0  # behind the supervised one; 0: an ordinary run
  start: str | None = None  # a working directory whose network stands for the supervised round
  # ("A,B" of two networks)
  ratio: Annotated[float, Range(0, 1, open_least=True)] = 0.2  # share of each class's pixels that
  # is labelled in the first round
  increment: NotNegative = 0.2  # of that share from round to round
  online: bool = False  # no labels are written: the method makes its own at every step


SECTIONS = {
  "data": Data,
  "data.domain": Domain,
  "model": Model,
  "training": Training,
  "evaluation": Evaluation,
  "inference": Inference,
  "rounds": Rounds,
  "rounds.labels": Labelling,
}
