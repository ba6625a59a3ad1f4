"""A trained network at work, from Python.

    model = semiseg_jax.load("runs/mine")
    result = model.predict("street.jpg")
    result.show()

Pictures are seen as by `--mode=predict`, sets scored as by `--mode=evaluate`.
"""

import dataclasses
import functools
import os
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from semiseg_jax.buckets import reached
from semiseg_jax.convert.checkpoint import (
  check_classes,
  check_segments,
  is_whole,
  trained_network,
)
from semiseg_jax.convert.weights import convert, named, read_weights
from semiseg_jax.evaluation import rank_labels
from semiseg_jax.evaluation.decide import Rule
from semiseg_jax.evaluation.inference import padded_size
from semiseg_jax.evaluation.predict import grouped
from semiseg_jax.evaluation.predictor import Inference, Predictor, maps, of_picture, read_inference
from semiseg_jax.evaluation.summary import classes_of_interest, summarize
from semiseg_jax.fields import require
from semiseg_jax.input.folder import list_pairs, open_folder
from semiseg_jax.input.local_copy import local_copy
from semiseg_jax.input.pairs import Pairs
from semiseg_jax.input.picture import Picture, read_picture
from semiseg_jax.input.pipeline import EvalBatches
from semiseg_jax.input.settings import read_settings
from semiseg_jax.input.sources import DatasetInfo, Source, largest_size
from semiseg_jax.labels import IGNORE
from semiseg_jax.models.network import Network, Variables
from semiseg_jax.paths import local_path, user_path
from semiseg_jax.runtime.mesh import make_mesh
from semiseg_jax.runtime.report import jsonable
from semiseg_jax.runtime.survey_report import Told, as_dict
from semiseg_jax.trained.result import Result
from semiseg_jax.training.evaluator import survey_batches
from semiseg_jax.training.start import compute_dtype

_LIKELY = 0.5  # what a class has to reach at some pixel, or else RankDice leaves it out


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
  """A network that labels pictures.

  name: where it is from. palette: uint8 [K,3]. about: what its checkpoint says of itself.
  inference: how pictures are seen.
  """

  name: str
  class_names: tuple[str, ...]
  palette: np.ndarray = dataclasses.field(repr=False)
  network: Network = dataclasses.field(repr=False)
  variables: Variables = dataclasses.field(repr=False)
  about: dict[str, Any] = dataclasses.field(repr=False)
  inference: Inference = dataclasses.field(default=Inference(), repr=False)

  def predict(
    self, image: Picture | Sequence[Picture], decide: str = "max"
  ) -> Result | list[Result]:
    """The labels of a picture, or of each in a list.

    image: a path, an array uint8 [H,W,3] or [H,W], or a Pillow image, of any size; see
    `read_picture`, whose errors are raised before anything is computed. The result keeps every
    class's probability, 4 bytes a pixel and class: `--mode=predict` is for huge pictures. decide:
    "max", the most likely class, or "rankdice", one for the highest expected Dice (`rank_labels`).
    """
    require("decide", decide, ("max", "rankdice"))
    every = _listed(image)
    where = lambda i: f"picture {i}" if every is image else "the picture"
    pictures = [read_picture(given, where(i)) for i, given in enumerate(every)]
    found = dict(self._seen(pictures))
    names = self.class_names, self.palette
    results = [Result(picture, *found[i], *names) for i, picture in enumerate(pictures)]
    if decide == "rankdice":
      results = [_ranked(result) for result in results]
    return results if every is image else results[0]

  def evaluate(
    self,
    images: str | os.PathLike | Sequence[Picture],
    masks: str | os.PathLike | Sequence[Picture] | None = None,
    *,
    ignore_index: int | None = None,
    decide: str | Rule = "max",
    classes: str | None = None,
  ) -> dict[str, Any]:
    """The scores over labelled pictures: what `--mode=evaluate` writes to evaluation.json.

    images alone: a folder as `input/folder.py` has it, whose validation images are scored. With
    masks: a folder of pictures and one of masks of the same names, or what `read_picture` and
    `read_mask` take, one or lists of equal length. ignore_index: the masks' id for no label;
    default what dataset.toml says, or else 255. decide: how masks are made, see `Rule`. classes:
    those that means are taken over, see `classes_of_interest`. Raises ValueError for a set of other
    classes.
    """
    rule = decide if isinstance(decide, Rule) else Rule(decide)
    of_interest = classes_of_interest(classes, self.class_names)
    name, source = self._labelled(images, masks, ignore_index)
    size = padded_size(largest_size(source.sizes))
    mesh = make_mesh()
    batches = EvalBatches(source, batch=mesh.size, size=size, devices=mesh.size)
    info = DatasetInfo(name, self.class_names, self.palette, size)
    found = survey_batches(
      self.network, self.variables, info.num_classes, batches, rule=rule, mesh=mesh
    )
    summary = summarize(found, of_interest, "paper", iou_of_sums=False)
    decided = {**dataclasses.asdict(rule), "protocol": "paper"}
    return jsonable(as_dict(Told(found, summary, decided, "val", info, source.ids)))

  def _labelled(self, images, masks, ignore_index: int | None) -> tuple[str, Source]:
    """The set's name and its pictures, all of which have a mask."""
    if masks is None:
      if not isinstance(images, str | os.PathLike):
        raise ValueError("evaluate wants a folder, or pictures and their masks")
      root = local_copy(user_path(images))
      known = read_settings(root).get("class_names", self.class_names)
      check_classes(self.class_names, known, self.name)
      dataset = open_folder(root, class_names=known, ignore_index=ignore_index)
      return root.name, dataset.val
    if _is_folder(images) and isinstance(masks, str | os.PathLike):
      images, masks = _with_masks(images, masks)
    ignored = IGNORE if ignore_index is None else ignore_index
    return "pairs", Pairs(_listed(images), _listed(masks), len(self.class_names), ignored)

  @functools.cached_property
  def _predictor(self) -> Predictor:
    """Kept, with the programs that were compiled for it."""
    decide = functools.partial(maps, confidence=True, probabilities=jnp.float32)
    return Predictor(self.network, self.inference, decide)

  @functools.cached_property
  def _on_device(self) -> Variables:
    return jax.device_put(self.variables)

  def _seen(self, pictures: Sequence[np.ndarray]) -> Iterator[tuple[int, Any]]:
    """Each picture's number and maps, those of one size together."""
    predictor = self._predictor
    for group in grouped(enumerate(pictures), predictor.group, predictor.at_once):
      every = predictor(self._on_device, [picture for _, picture in group])
      for row, (number, picture) in enumerate(group):
        yield number, of_picture(every, row, picture.shape[:2])


def load(
  path: str | os.PathLike,
  *,
  network: str | None = None,
  inference: str | Inference = "",
  dtype: str = "auto",
) -> Model:
  """The network that was trained, converted or published there.

  path: a run's working directory, a folder of `convert --out` or `--hub`, a file of weights whose
  layout tells what it is, each on this machine or as "gs://BUCKET/...", or
  "hf://ORG/REPO[@REVISION]" with such a folder or "hf://ORG/REPO/FILE".
  network: which of the method's it has to be, such as "teacher"; default the one that was scored;
  which of several in a file, see `convert.wrappers.choose`.
  inference: how pictures are seen, as for `--inference`, such as "mode=sliding,window=(512,512)".
  dtype: auto | float32 | bfloat16, in which it computes. Raises FileNotFoundError if there is none,
  ValueError if it is another or damaged, ImportError naming a package that reads it.
  """
  settings = inference if isinstance(inference, Inference) else read_inference(inference)
  reference, computes = os.path.expanduser(os.fspath(path)), compute_dtype(dtype)
  if not reference.startswith("hf://") and not reached(user_path(reference)).exists():
    raise FileNotFoundError(f"there is no file or folder {reference}")
  if is_whole(reference):
    variables, forward, about = trained_network(reference, dtype=computes, name=network)
  else:
    weights = read_weights(reference, which=network)
    variables, forward, model, _ = convert(weights, dtype=computes)
    about = named(weights.about, model["num_classes"]) | {"model": model}
  check_segments(about["model"], reference)
  palette = np.asarray(about["palette"], np.uint8)
  names = tuple(about["class_names"])
  return Model(reference, names, palette, forward, variables, about, settings)


def _listed(given: Any) -> Sequence[Any]:
  return given if isinstance(given, list | tuple) else [given]


def _is_folder(given: Any) -> bool:
  return isinstance(given, str | os.PathLike) and local_path(given).is_dir()


def _with_masks(images: str | os.PathLike, masks: str | os.PathLike) -> tuple[list, list]:
  """The pictures of a folder that have a mask in another, and those."""
  images, masks = (local_path(folder) for folder in (images, masks))
  if not masks.is_dir():
    raise FileNotFoundError(f"there is no folder of masks {masks}")
  listing = list_pairs(images, masks)
  pairs = [pair for pair in zip(listing.images, listing.masks, strict=True) if pair[1]]
  if not pairs:
    raise ValueError(
      f"no picture of {images} has a mask in {masks}: their stems must be equal, as a.jpg and a.png"
    )
  return [image for image, _ in pairs], [mask for _, mask in pairs]


def _ranked(result: Result) -> Result:
  if result.probabilities.max() < _LIKELY:
    return result  # no class is left to be ranked
  labels = np.asarray(rank_labels(result.probabilities[None], pruning=_LIKELY)[0])
  confidence = np.take_along_axis(result.probabilities, labels[..., None], -1)[..., 0]
  return dataclasses.replace(result, labels=labels.astype(np.uint8), confidence=confidence)
