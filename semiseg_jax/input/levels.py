"""Numbers beyond 8 bits -> the levels 0..255 that networks see."""

import numpy as np

_DEPTHS = (8, 10, 12, 14, 16, 24, 32)  # bits of the sensors and programs that are met
_OVERSHOOT = 0.1  # resampling leaves values slightly outside 0..1


def to_levels(
  values: np.ndarray, white: float | None = None, bits: int | None = None
) -> tuple[np.ndarray, str | None]:
  """Integers or floats -> uint8 of the same shape, and what had to be assumed, if anything.

  white: the value that becomes 255; one that values exceed counts for nothing. bits: how many of an
  integer's bits matter; they may be stored as they are or, as PNG prescribes, shifted up to fill
  all. Without either: the smallest usual depth that holds all integers; 0..1 or 0..255 for floats.
  Raises ValueError where there is a number that is none, or no such range fits.
  """
  least, most = values.min(), values.max()
  if not np.isfinite([least, most]).all():
    raise ValueError("not every pixel is a number (NaN or infinity)")
  assumed, is_float = None, values.dtype.kind == "f"
  if white is not None and most > white:
    white = None
  if white is None and is_float:
    white = 1.0 if most <= 1 + _OVERSHOOT else 255.0
    assumed = f"floats up to {most:.4g}, taken for levels of 0..{white:.0f}"
  elif white is None and bits is not None:
    white = 2**bits - 1 if most < 2**bits else np.iinfo(values.dtype).max
  elif white is None:
    depth = next(depth for depth in _DEPTHS if most < 2**depth)
    white = 2**depth - 1
    if depth < 8 * values.dtype.itemsize:
      assumed = f"integers up to {most}, taken for {depth} bits, so that {white} is white"
  slack = _OVERSHOOT * white if is_float else 0
  if least < -slack or most > white + slack:
    raise ValueError(f"levels from {least:.4g} to {most:.4g} do not fit 0..{white:.6g}")
  scaled = values.astype(np.float32) * np.float32(255 / white)
  return np.clip(np.rint(scaled), 0, 255).astype(np.uint8), assumed
