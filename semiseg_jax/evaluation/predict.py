"""Label maps for a folder of pictures."""

import logging
import pathlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
from rich.progress import track

from semiseg_jax.contract import Tree
from semiseg_jax.evaluation.pictures import legend, overlay, write_palette_png
from semiseg_jax.input.decode import DataError, decode_image
from semiseg_jax.models.resize import resize_bilinear

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
_LEGEND_WIDTH = 480


class Predictions(NamedTuple):
  """Paths of the written label maps, of the pictures skipped, and how many sizes were compiled."""

  written: list[pathlib.Path]
  skipped: list[pathlib.Path]
  compiled_sizes: int


def predict_folder(
  forward: Callable,
  params: Tree,
  batch_stats: Tree,
  images: str | pathlib.Path,
  out: str | pathlib.Path,
  palette: np.ndarray,
  class_names: Sequence[str],
  *,
  overlays: bool = False,
  skip_bad: bool = False,
  multiple: int = 32,
) -> Predictions:
  """Writes out/STEM.png, class ids in the dataset's colours, for every picture in `images`.

  Each picture is seen whole, in its own size; it is reflected at right and bottom up to `multiple`
  pixels, so that pictures of similar sizes share a compiled program. forward: see
  evaluate.make_evaluate_step. palette: uint8 [K,3]. overlays: also out/STEM_overlay.png, the
  colours over the picture, and out/_legend.png. Raises FileNotFoundError without such a folder, and
  ValueError for a folder without pictures, two of one name, a picture that would be overwritten, a
  network of other classes, or a file that doesn't decode; with skip_bad such files are left out.
  """
  images, out = pathlib.Path(images), pathlib.Path(out)
  paths = list_pictures(images)
  _check_outputs(images, out, paths, overlays)
  out.mkdir(parents=True, exist_ok=True)
  predict = make_predict(forward, len(class_names))
  variables = jax.device_put((params, batch_stats))
  written, skipped, sizes = [], [], set()

  def write(path: pathlib.Path, image: np.ndarray, label: jax.Array) -> None:
    label = np.asarray(label)[: image.shape[0], : image.shape[1]]
    written.append(out / f"{path.stem}.png")
    write_palette_png(written[-1], label, palette)
    if overlays:
      picture = Image.fromarray(overlay(image, label, palette))
      picture.save(out / f"{path.stem}_overlay.png")

  pending = None  # its label map is being computed while the next picture is read
  for path in track(paths, description="predicting"):
    try:
      image = decode_image(path.read_bytes(), str(path))
    except DataError as error:
      if not skip_bad:
        raise
      logging.warning("skipped: %s", error)
      skipped.append(path)
      continue
    padded = pad_to_multiple(image, multiple)
    sizes.add(padded.shape)
    label = predict(*variables, padded)
    if pending:
      write(*pending)
    pending = (path, image, label)
  if pending:
    write(*pending)
  if overlays:
    Image.fromarray(legend(palette, class_names, _LEGEND_WIDTH)).save(out / "_legend.png")
  logging.info(
    "predicted %d pictures, compiled for %d sizes, skipped %d",
    *(len(written), len(sizes), len(skipped)),
  )
  return Predictions(written, skipped, len(sizes))


def make_predict(forward: Callable, num_classes: int) -> Callable[..., jax.Array]:
  """The jitted predict(params, batch_stats, image uint8 [H,W,3]) -> label uint8 [H,W]."""

  def predict(params: Tree, batch_stats: Tree, image: jax.Array) -> jax.Array:
    logits = forward(params, batch_stats, image[None].astype(jnp.float32), train=False)[0].logits
    if logits.shape[-1] != num_classes:
      raise ValueError(f"the network has {logits.shape[-1]} classes, {num_classes} have a name")
    logits = resize_bilinear(logits, image.shape[:2], align_corners=True)
    return logits[0].argmax(-1).astype(jnp.uint8)

  return jax.jit(predict)


def list_pictures(folder: pathlib.Path) -> list[pathlib.Path]:
  """The folder's files with a suffix of SUFFIXES, sorted by name."""
  if not folder.exists():
    raise FileNotFoundError(f"there is no folder {folder}")
  if not folder.is_dir():
    raise ValueError(f"{folder} is a file; give the folder that holds the pictures")
  paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
  if not paths:
    raise ValueError(f"{folder} holds no picture ({', '.join(SUFFIXES)})")
  return paths


def pad_to_multiple(image: np.ndarray, multiple: int) -> np.ndarray:
  """[H,W,3] reflected at right and bottom until both sides are multiples."""
  bottom, right = (-side % multiple for side in image.shape[:2])
  return np.pad(image, ((0, bottom), (0, right), (0, 0)), "reflect")


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
