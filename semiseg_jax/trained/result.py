"""What a network says of one picture."""

import dataclasses
import os
import pathlib

import numpy as np
from PIL import Image

from semiseg_jax.evaluation.exports import label_writer
from semiseg_jax.evaluation.pictures import overlay
from semiseg_jax.evaluation.predict import Files, write_files
from semiseg_jax.evaluation.predictor import Maps


@dataclasses.dataclass(frozen=True, eq=False)
class Result:
  """labels: uint8 [H,W], class ids. probabilities: float32 [H,W,K], of every class. confidence:
  float32 [H,W], the label's probability. class_names: K of them. palette: uint8 [K,3], their
  colours. image: uint8 [H,W,3], the picture itself."""

  image: np.ndarray = dataclasses.field(repr=False)
  labels: np.ndarray = dataclasses.field(repr=False)
  confidence: np.ndarray = dataclasses.field(repr=False)
  probabilities: np.ndarray = dataclasses.field(repr=False)
  class_names: tuple[str, ...]
  palette: np.ndarray = dataclasses.field(repr=False)

  def overlay(self) -> Image.Image:
    """The labels' colours over the picture."""
    return Image.fromarray(overlay(self.image, self.labels, self.palette))

  def show(self) -> None:
    """Opens the overlay in this machine's viewer of pictures."""
    self.overlay().show()

  def save(
    self,
    path: str | os.PathLike,
    *,
    overlay: bool = False,
    confidence: bool = False,
    probabilities: bool = False,
    format: str = "palette",
  ) -> pathlib.Path:
    """Writes the labels as a PNG of class ids that viewers show in colours; its path.

    path: NAME.png. overlay, confidence, probabilities: NAME_overlay.png, NAME_confidence.png,
    NAME.npz beside it, and format the PNG's, as `Files` has them. Raises ValueError for a path of
    another kind and for a format that doesn't know these classes.
    """
    path = pathlib.Path(path).expanduser()
    wanted = Files(format, overlay, confidence, probabilities)
    if path.suffix.lower() != ".png" or path.is_dir():
      raise ValueError(f"{path} should be a file that ends in .png, which keeps class ids")
    writer = label_writer(wanted.format, self.class_names, self.palette)
    every = self.probabilities.astype(np.float16) if wanted.probabilities else None
    found = Maps(self.labels, self.confidence, every)
    return write_files(path.with_suffix(""), self.image, found, wanted, writer, self.palette)
