"""A pinhole camera over a street, and what it has seen: colour, class and depth of every pixel.

World coordinates are metres: X to the right, Y up from the ground, Z away from the camera.
"""

from collections.abc import Sequence

import cv2
import numpy as np

Color = Sequence[float]
Points = list[tuple[float, float, float]]
_SUBPIXEL = 4  # bits


def floor(left: float, right: float, near: float, far: float) -> Points:
  """A rectangle on the ground."""
  return [(left, 0, near), (right, 0, near), (right, 0, far), (left, 0, far)]


def wall(x: float, near: float, far: float, low: float, high: float) -> Points:
  """An upright rectangle along the street."""
  return [(x, low, near), (x, low, far), (x, high, far), (x, high, near)]


class Canvas:
  """Draw from far to near; later drawings hide earlier ones."""

  def __init__(self, height: int, width: int, *, focal: float, eye: float, horizon: float, vanish):
    self.focal, self.eye, self.horizon, self.vanish = focal, eye, horizon, vanish
    self.image = np.zeros((height, width, 3), np.uint8)
    self.label = np.zeros((height, width), np.uint8)
    self.depth = np.full((height, width), 1e4, np.float32)

  def project(self, points) -> np.ndarray:
    """[n,3] metres -> [n,2] pixels; needs Z > 0."""
    x, y, z = np.asarray(points, np.float64).T
    scale = self.focal / z
    return np.stack([self.vanish + x * scale, self.horizon + (self.eye - y) * scale], -1)

  def polygon(self, points, color: Color, class_id: int | None = None) -> None:
    """A filled polygon of [n,3] points; class None paints colour alone (windows, lane marks)."""
    self._fill([self.project(points)], color, class_id, float(np.mean(np.asarray(points)[:, 2])))

  def polygons(self, groups, color: Color) -> None:
    """Many polygons of one colour, without a class of their own."""
    if groups:
      self._fill([self.project(points) for points in groups], color, None, None)

  def box(self, x: float, y: float, z: float, width: float, height: float, color, class_id=None):
    """An upright rectangle facing the camera, centred at x, standing on y."""
    left, right = x - width / 2, x + width / 2
    corners = [(left, y, z), (right, y, z), (right, y + height, z), (left, y + height, z)]
    self.polygon(corners, color, class_id)

  def ellipse(
    self, x: float, y: float, z: float, width: float, height: float, color, class_id=None
  ):
    """An upright ellipse centred at (x, y)."""
    angle = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    points = np.stack(
      [x + width / 2 * np.cos(angle), y + height / 2 * np.sin(angle), np.full(16, z)], -1
    )
    self.polygon(points, color, class_id)

  def _fill(self, outlines, color, class_id, depth) -> None:
    fixed = [np.round(outline * (1 << _SUBPIXEL)).astype(np.int32) for outline in outlines]
    cv2.fillPoly(self.image, fixed, tuple(float(v) for v in color), cv2.LINE_8, _SUBPIXEL)
    if class_id is not None:
      cv2.fillPoly(self.label, fixed, class_id, cv2.LINE_8, _SUBPIXEL)
    if depth is not None:
      cv2.fillPoly(self.depth, fixed, depth, cv2.LINE_8, _SUBPIXEL)
