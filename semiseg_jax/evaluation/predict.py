"""Label maps for a folder of pictures."""

import itertools
import logging
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
from rich.progress import track

from semiseg_jax.evaluation.decide import argmax
from semiseg_jax.evaluation.inference import padded_size, whole
from semiseg_jax.evaluation.pictures import legend, overlay, write_palette_png
from semiseg_jax.input.decode import DataError, decode_image
from semiseg_jax.models.network import Network, Variables
from semiseg_jax.transforms.geometry import reflect_to

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
_LEGEND_WIDTH = 480


class Predictions(NamedTuple):
  """Paths of the written label maps, and of the pictures skipped."""

  written: list[pathlib.Path]
  skipped: list[pathlib.Path]


def predict_folder(
  network: Network,
  variables: Variables,
  images: str | pathlib.Path,
  out: str | pathlib.Path,
  palette: np.ndarray,
  class_names: Sequence[str],
  *,
  overlays: bool = False,
  skip_bad: bool = False,
) -> Predictions:
  """Writes out/STEM.png, class ids in the dataset's colours, for every picture in `images`.

  Each picture is seen whole, in its own size; it is reflected at right and bottom up to
  `padded_size`, so that pictures of similar sizes share a compiled program. palette: uint8 [K,3].
  overlays: also out/STEM_overlay.png, the colours over the picture, and out/_legend.png. Raises
  FileNotFoundError without such a folder, and ValueError for a folder without pictures, two of one
  name, a picture that would be overwritten, a network of other classes, or a file that doesn't
  decode; with skip_bad such files are left out.
  """
  images, out = pathlib.Path(images), pathlib.Path(out)
  paths = _pictures(images)
  _check_outputs(images, out, paths, overlays)
  out.mkdir(parents=True, exist_ok=True)
  predict = _make_predict(network, len(class_names))
  variables = jax.device_put(variables)
  written, skipped = [], []
  pictures = _decoded(track(paths, description="predicting"), skipped if skip_bad else None)
  labelled = (
    (path, image, predict(variables, reflect_to(image, padded_size(image.shape[:2]))))
    for path, image in pictures
  )
  # each when the next is made: the device computes while the next picture is read
  for (path, image, label), _ in itertools.pairwise(itertools.chain(labelled, [None])):
    label = np.asarray(label)[: image.shape[0], : image.shape[1]]
    written.append(out / f"{path.stem}.png")
    write_palette_png(written[-1], label, palette)
    if overlays:
      blended = Image.fromarray(overlay(image, label, palette))
      blended.save(out / f"{path.stem}_overlay.png")
  if overlays:
    Image.fromarray(legend(palette, class_names, _LEGEND_WIDTH)).save(out / "_legend.png")
  return Predictions(written, skipped)


def _make_predict(network: Network, num_classes: int) -> Callable[..., jax.Array]:
  """The jitted predict(variables, image uint8 [H,W,3]) -> label uint8 [H,W]."""

  def predict(variables: Variables, image: jax.Array) -> jax.Array:
    logits = whole(network, variables, image[None])[0]
    if logits.shape[-1] != num_classes:
      raise ValueError(f"the network has {logits.shape[-1]} classes, {num_classes} have a name")
    return argmax(logits).astype(jnp.uint8)

  return jax.jit(predict)


def _decoded(
  paths: Iterable[pathlib.Path], skipped: list[pathlib.Path] | None
) -> Iterator[tuple[pathlib.Path, np.ndarray]]:
  """The pictures that decode; the others go into skipped or, without it, raise DataError."""
  for path in paths:
    try:
      yield path, decode_image(path.read_bytes(), str(path))
    except DataError as error:
      if skipped is None:
        raise
      logging.warning("skipped: %s", error)
      skipped.append(path)


def _pictures(folder: pathlib.Path) -> list[pathlib.Path]:
  if not folder.exists():
    raise FileNotFoundError(f"there is no folder {folder}")
  if not folder.is_dir():
    raise ValueError(f"{folder} is a file; give the folder that holds the pictures")
  paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
  if not paths:
    raise ValueError(f"{folder} holds no picture ({', '.join(SUFFIXES)})")
  return paths


def _check_outputs(
  images: pathlib.Path, out: pathlib.Path, paths: list[pathlib.Path], overlays: bool
) -> None:
  """ValueError if two outputs would have one name, or an output the name of a picture."""
  if images.resolve() == out.resolve():
    raise ValueError(f"the predictions would be written among the pictures in {images}")
  written = {}
  for path in paths:
    for name in [path.stem, f"{path.stem}_overlay"] if overlays else [path.stem]:
      if name in written:
        raise ValueError(
          f"{written[name].name} and {path.name} in {images} would both be written to {name}.png: "
          "rename one"
        )
      written[name] = path
