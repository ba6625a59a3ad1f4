"""Label maps for pictures on disk: one, a folder, or those of a pattern."""

import collections
import dataclasses
import functools
import itertools
import logging
import pathlib
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from PIL import Image
from rich.progress import track

from semiseg_jax.evaluation.exports import Writer, label_writer
from semiseg_jax.evaluation.listing import Picture, check_outputs, check_readable, find_pictures
from semiseg_jax.evaluation.pictures import heat, legend, overlay
from semiseg_jax.evaluation.predictor import Inference, Maps, Predictor, maps, of_picture
from semiseg_jax.input.decode import DataError, decode_image
from semiseg_jax.models.network import Network, Size, Variables

_LEGEND, _LEGEND_WIDTH = "_legend.png", 480
_STRIP = 512  # rows of a picture that are drawn at a time
_WAITING = 4  # batches' worth of pictures that may wait for others of their size
_THREADS = 4  # that decode and write, while the device computes
_AHEAD = 2  # pictures, or one batch of them, that are decoded, and as many that are written, at
# once: they may be huge

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Files:
  """What is written for a picture NAME, beside NAME.png, its label map in a format of `exports`.

  overlays: NAME_overlay.png, the colours over the picture, and one _legend.png. confidence:
  NAME_confidence.png, dark to yellow. probabilities: NAME.npz, `probabilities` float16 [H,W,K].
  """

  format: str = "palette"
  overlays: bool = False
  confidence: bool = False
  probabilities: bool = False

  def __post_init__(self):
    if self.format == "cityscapes" and (self.overlays or self.confidence):
      raise ValueError(
        "--format=cityscapes: the official tools want one PNG a picture; "
        "leave out --overlays and --confidence, or write them to another --out"
      )

  @property
  def endings(self) -> list[str]:
    wanted = {
      "_overlay.png": self.overlays,
      "_confidence.png": self.confidence,
      ".npz": self.probabilities,
    }
    return [".png", *(ending for ending, is_wanted in wanted.items() if is_wanted)]


_WHOLE, _LABELS = Inference(), Files()


class Predictions(NamedTuple):
  """Paths of the written label maps, and of the pictures skipped."""

  written: list[pathlib.Path]
  skipped: list[pathlib.Path]


def predict_pictures(
  network: Network,
  variables: Variables,
  images: str | pathlib.Path,
  out: str | pathlib.Path,
  palette: np.ndarray,
  class_names: Sequence[str],
  *,
  settings: Inference = _WHOLE,
  files: Files = _LABELS,
  skip_bad: bool = False,
) -> Predictions:
  """Writes out/NAME.png, class ids in the dataset's colours, and the other `files` of a picture.

  images: a file, a folder or a pattern, see `find_pictures`. settings: how the pictures, each in
  its own size, are seen. palette: uint8 [K,3]. Raises FileNotFoundError where there is nothing, and
  ValueError without a picture, for two of one name, one that would be overwritten, a file that
  isn't one, classes that are not the format's or the network's, all that before anything is
  computed, and for one whose pixels don't decode; with skip_bad such files are left out.
  """
  out = pathlib.Path(out)
  pictures = find_pictures(images, out)
  check_outputs(pictures, out, files.endings, [_LEGEND] if files.overlays else [])
  write_label = label_writer(files.format, class_names, palette)
  skipped = []
  bad = skipped if skip_bad else None
  checked = ((picture, functools.partial(check_readable, picture.path)) for picture in pictures)
  pictures = [picture for picture, _ in _good(checked, bad)]
  every = jnp.float16 if files.probabilities else None
  decide = functools.partial(_checked_maps, len(class_names), files.confidence, every)
  predictor = Predictor(network, settings, decide)
  write = lambda picture, image, found: write_files(
    out / picture.name, image, found, files, write_label, palette
  )
  shown = track(pictures, description="predicting")
  written = predict_each(predictor, jax.device_put(variables), shown, write, bad)
  if files.overlays:
    out.mkdir(parents=True, exist_ok=True)
    Image.fromarray(legend(palette, class_names, _LEGEND_WIDTH)).save(out / _LEGEND)
  return Predictions(sorted(written), skipped)


def predict_each(
  predictor: Predictor,
  variables: Variables,
  pictures: Iterable[Picture],
  write: Callable[[Picture, np.ndarray, Any], T],
  skipped: list[pathlib.Path] | None = None,
) -> list[T]:
  """What write(picture, uint8 [H,W,3], its arrays) returns for every picture that decodes.

  Threads decode and write, so that the device waits for the host as little as it can. skipped: gets
  those that don't decode, which without it raise DataError.
  """
  most = max(_AHEAD, predictor.at_once)
  with ThreadPoolExecutor(_THREADS) as pool:
    decode = lambda picture: (picture, pool.submit(_decode, picture.path))
    decoded = ((picture, future.result) for picture, future in ahead(map(decode, pictures), most))
    groups = grouped(_good(decoded, skipped), predictor.group, predictor.at_once)
    found = ((group, predictor(variables, [image for _, image in group])) for group in groups)
    # each when the next has been given to the device
    own = (
      (picture, image, of_picture(every, row, image.shape[:2]))
      for (group, every), _ in itertools.pairwise(itertools.chain(found, [None]))
      for row, (picture, image) in enumerate(group)
    )
    writing = (pool.submit(write, *of) for of in own)
    return [future.result() for future in ahead(writing, most)]


def _checked_maps(
  num_classes: int, confidence: bool, probabilities: DTypeLike | None, logits: jax.Array
) -> Maps:
  """`maps`; ValueError for a network of other classes."""
  if logits.shape[-1] != num_classes:
    raise ValueError(f"the network has {logits.shape[-1]} classes, {num_classes} have a name")
  return maps(logits, confidence=confidence, probabilities=probabilities)


def ahead(started: Iterable[T], count: int) -> Iterator[T]:
  """The same things, each once so many that come after it have been started, too."""
  waiting: collections.deque[T] = collections.deque()
  for thing in started:
    waiting.append(thing)
    if len(waiting) > count:
      yield waiting.popleft()
  yield from waiting


def _good(
  pictures: Iterable[tuple[Picture, Callable[[], T]]], skipped: list[pathlib.Path] | None
) -> Iterator[tuple[Picture, T]]:
  """Pictures and what a call of what reads them returns; those that can't be read go into skipped
  or, without it, raise DataError."""
  for picture, read in pictures:
    try:
      found = read()
    except DataError as error:
      if skipped is None:
        raise
      logging.warning("skipped: %s", error)
      skipped.append(picture.path)
    else:
      yield picture, found


def _decode(path: pathlib.Path) -> np.ndarray:
  return decode_image(path.read_bytes(), str(path))


def grouped(
  decoded: Iterable[tuple[T, np.ndarray]], group_of: Callable[[Size], Hashable], most: int
) -> Iterator[list[tuple[T, np.ndarray]]]:
  """Lists of at most so many pictures [H,W,3], with what names them, of one group, full ones as
  soon as they are."""
  waiting: dict[Hashable, list[tuple[T, np.ndarray]]] = {}
  for item in decoded:
    key = group_of(item[1].shape[:2])
    waiting.setdefault(key, []).append(item)
    if len(waiting[key]) == most:
      yield waiting.pop(key)
    elif sum(map(len, waiting.values())) >= _WAITING * most:
      yield waiting.pop(next(iter(waiting)))
  yield from waiting.values()


def write_files(
  path: pathlib.Path,
  image: np.ndarray,
  found: Maps,
  files: Files,
  write_label: Writer,
  palette: np.ndarray,
) -> pathlib.Path:
  """All files of a picture uint8 [H,W,3]; path: theirs without ending. Returns the label map's."""
  named = lambda ending: path.with_name(path.name + ending)
  path.parent.mkdir(parents=True, exist_ok=True)
  write_label(named(".png"), found.label)
  if files.overlays:
    blend = lambda rows: overlay(image[rows], found.label[rows], palette)
    Image.fromarray(_in_strips(blend, image.shape)).save(named("_overlay.png"))
  if files.confidence:
    draw = lambda rows: heat(found.confidence[rows])
    Image.fromarray(_in_strips(draw, image.shape)).save(named("_confidence.png"))
  if files.probabilities:
    np.savez_compressed(named(".npz"), probabilities=found.probabilities)
  return named(".png")


def _in_strips(draw: Callable[[slice], np.ndarray], shape: Sequence[int]) -> np.ndarray:
  """uint8 of that shape, drawn so many rows at a time: what is drawn takes several times the
  memory of the result."""
  drawn = np.empty(shape, np.uint8)
  for top in range(0, shape[0], _STRIP):
    rows = slice(top, top + _STRIP)
    drawn[rows] = draw(rows)
  return drawn
