"""Invents one street: what stands where, of which colour, in which light."""

import cv2
import numpy as np

from data.toy_scenes.canvas import Canvas, Points, floor, wall

# in the order of classes.tsv
ROAD, SIDEWALK, BUILDING, FENCE, POLE, SIGN, VEGETATION, SKY, PERSON, CAR = range(10)
HEIGHT, WIDTH = 96, 128
_FINE = 2  # drawn larger, then averaged
_NEAR, _FAR = 2.0, 90.0


def make_scene(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
  """Image uint8 [96,128,3] and label uint8 [96,128]."""
  height, width = HEIGHT * _FINE, WIDTH * _FINE
  canvas = Canvas(
    height,
    width,
    focal=width * rng.uniform(0.62, 0.95),
    eye=rng.uniform(1.4, 2.3),
    horizon=height * rng.uniform(0.36, 0.55),
    vanish=width * rng.uniform(0.32, 0.68),
  )
  weather = rng.choice(["sun", "overcast", "dusk", "fog"], p=[0.4, 0.25, 0.2, 0.15])
  night = weather == "dusk"
  left, right = -rng.uniform(2.5, 7.0), rng.uniform(2.5, 5.0)  # the kerbs
  _sky(canvas, rng, weather)
  _ground(canvas, rng, left, right)
  things = []  # (depth, draw)
  for side, kerb in ((-1, left), (1, right)):
    _roadside(things, rng, side, kerb, night)
  _traffic(things, rng, left, right, night)
  for _, draw in sorted(things, key=lambda thing: -thing[0]):
    draw(canvas)
  return _finish(canvas, rng, weather)


def _sky(canvas: Canvas, rng, weather: str) -> None:
  tops = {"sun": (70, 130, 215), "overcast": (165, 170, 178), "dusk": (50, 55, 95)}
  bottoms = {"sun": (190, 212, 235), "overcast": (205, 206, 208), "dusk": (225, 150, 105)}
  top, bottom = (np.asarray(c.get(weather, (195, 198, 200)), np.float32) for c in (tops, bottoms))
  height, width = canvas.label.shape
  ramp = np.clip(np.arange(height) / canvas.horizon, 0, 1)[:, None, None]
  color = top + (bottom - top) * ramp + rng.normal(0, 6, 3)
  clouds = np.clip(_noise(rng, (height, width), (5, 4)) * rng.uniform(0, 1.4), 0, 1)[..., None]
  white = np.asarray((238, 238, 240) if weather != "dusk" else (150, 110, 120), np.float32)
  canvas.image[:] = np.clip(color * (1 - clouds) + white * clouds, 0, 255)
  canvas.label[:] = SKY


def _ground(canvas: Canvas, rng, left: float, right: float) -> None:
  height = canvas.label.shape[0]
  first = int(canvas.horizon) + 1
  rows = np.arange(first, height)
  grass = rng.random() < 0.5
  base = (rng.uniform(70, 120), rng.uniform(95, 135), 60) if grass else _grey(rng, 90, 150)
  canvas.image[first:] = base
  canvas.label[first:] = VEGETATION if grass else SIDEWALK
  canvas.depth[first:] = (canvas.eye * canvas.focal / (rows - canvas.horizon))[:, None]
  tone = rng.uniform(60, 125)
  widths = rng.uniform(1.5, 4.0, 2)
  depth = canvas.depth.copy()
  walk = np.asarray(_grey(rng, tone + 5, tone + 70)) + rng.choice([(0, 0, 0), (14, 4, -8)])
  canvas.polygon(_strip(left - widths[0], left), walk, SIDEWALK)
  canvas.polygon(_strip(right, right + widths[1]), walk, SIDEWALK)
  joints = [
    floor(a, b, z, z + 0.08)
    for a, b in ((left - widths[0], left), (right, right + widths[1]))
    for z in np.arange(2, 16, rng.uniform(0.8, 2.0))
  ]
  canvas.polygons(joints, walk * 0.85)
  canvas.polygon(_strip(left, right), (tone, tone, tone + 4), ROAD)
  kerb = walk * 1.12
  canvas.polygons([_strip(left - 0.15, left), _strip(right, right + 0.15)], np.clip(kerb, 0, 255))
  _road_marks(canvas, rng, left, right)
  canvas.depth[:] = depth


def _strip(left: float, right: float) -> Points:
  return floor(left, right, 0.5, 400)


def _road_marks(canvas: Canvas, rng, left: float, right: float) -> None:
  patches = []  # repaired asphalt and shadows: dark, still road
  for _ in range(rng.integers(0, 5)):
    x, z = rng.uniform(left, right), rng.uniform(3, 30)
    w, l = rng.uniform(0.5, 2.5), rng.uniform(1, 8)
    patches.append(floor(max(x - w, left), min(x + w, right), z, z + l))
  canvas.polygons(patches, _grey(rng, 45, 85))
  paint = (215, 215, 205) if rng.random() < 0.8 else (205, 170, 70)
  middle = (left + right) / 2 + rng.uniform(-0.5, 0.5)
  dashes = [
    floor(middle - 0.09, middle + 0.09, z, z + 3) for z in np.arange(rng.uniform(2, 6), 60, 7)
  ]
  if rng.random() < 0.8:
    canvas.polygons(dashes, paint)
  if rng.random() < 0.5:
    canvas.polygons([_strip(left + 0.3, left + 0.45), _strip(right - 0.45, right - 0.3)], paint)
  if rng.random() < 0.25:  # a zebra crossing
    z = rng.uniform(5, 14)
    bars = np.arange(left + 0.4, right - 0.6, 1.0)
    canvas.polygons([floor(x, x + 0.5, z, z + 3) for x in bars], paint)


def _roadside(things: list, rng, side: int, kerb: float, night: bool) -> None:
  """Buildings, gardens, trees, poles and people along one side, from near to far."""
  walk = rng.uniform(1.5, 4.0)
  line = kerb + side * (walk + (rng.uniform(0, 5) if rng.random() < 0.4 else 0))
  town = rng.uniform(0.35, 1.0)  # how much of the side is built up
  z = _NEAR + rng.uniform(-4, 4)
  while z < _FAR:
    length = rng.uniform(5, 16)
    near, far = max(z, 0.6), z + length
    if far > 0.8:
      if rng.random() < town:
        things.append((far + 0.1, _building(rng, side, line, near, far, night)))
      else:
        for _ in range(rng.integers(1, 4)):
          spot = rng.uniform(near + 0.5, far)
          things.append((spot, _tree(rng, line + side * rng.uniform(0.5, 6), spot)))
        if rng.random() < 0.6:
          things.append((far, _fence(rng, line, near, far)))
        else:
          things.append((far + 0.05, _hedge(rng, line, near, far)))
    z = far + (rng.uniform(0.5, 6) if rng.random() < 0.3 else 0)
  for z in np.arange(rng.uniform(4, 16), 60, rng.uniform(9, 20)):  # lamps and signs by the kerb
    x = kerb + side * rng.uniform(0.3, 0.8)
    things.append((z, _post(rng, x, z, side, night)))
    if rng.random() < 0.35:
      things.append((z + 3, _tree(rng, x + side * 0.2, z + 3, small=True)))
  for _ in range(rng.poisson(1.3)):
    z = rng.uniform(5, 28)
    for _ in range(rng.integers(1, 3)):
      x = kerb + side * rng.uniform(0.2, walk)
      spot = z + rng.uniform(-0.5, 0.5)
      things.append((spot, _person(rng, x, spot)))


def _traffic(things: list, rng, left: float, right: float, night: bool) -> None:
  if rng.random() < 0.7:  # parked along the kerbs
    for side, kerb in ((1, left), (-1, right)):
      if rng.random() < 0.55:
        for z in np.arange(rng.uniform(4, 20), 45, rng.uniform(5.5, 9)):
          if rng.random() < 0.7:
            things.append((z, _car(rng, kerb + side * 1.1, z, night)))
  for _ in range(rng.poisson(0.8)):
    z = rng.uniform(6, 45)
    things.append((z, _car(rng, rng.uniform(left + 1.2, right - 1.2), z, night)))
  if rng.random() < 0.25:  # somebody crosses
    z = rng.uniform(5, 18)
    things.append((z, _person(rng, rng.uniform(left, right), z)))


def _building(rng, side: int, line: float, near: float, far: float, night: bool):
  height, storey = rng.uniform(4, 18), rng.uniform(2.7, 3.6)
  tint = rng.choice(
    [
      (170, 150, 125),
      (150, 90, 75),
      (185, 180, 170),
      (120, 125, 130),
      (150, 165, 180),
      (130, 140, 105),
    ]
  )
  plaster = np.clip(tint + rng.normal(0, 14, 3), 30, 240)
  glass = np.asarray((70, 80, 95) if rng.random() < 0.7 else (150, 175, 195)) + rng.normal(0, 10, 3)
  lit = np.asarray((245, 205, 120))
  pitch, share = rng.uniform(1.6, 3.4), rng.uniform(0.35, 0.7)
  roof = rng.random() < 0.35
  windows, bright = [], []
  for base in np.arange(rng.uniform(0.8, 1.4), height - 1.8, storey):
    for start in np.arange(near + 0.5, far - pitch * share, pitch):
      pane = wall(line, start, start + pitch * share, base, base + storey * 0.55)
      (bright if night and rng.random() < 0.35 else windows).append(pane)
  board = rng.random() < 0.2  # a shop's board looks like a sign and is none
  board_color = rng.uniform(40, 250, 3)

  def draw(canvas: Canvas) -> None:
    deep = line + side * 12
    end_wall = [(line, 0, near), (deep, 0, near), (deep, height, near), (line, height, near)]
    if roof:
      eaves, ridge = [(line, height, near), (line, height, far)], line + side * 5
      slope = [*eaves, (ridge, height + 3, far), (ridge, height + 3, near)]
      canvas.polygon(slope, plaster * (0.55, 0.4, 0.38), BUILDING)
    canvas.polygon(end_wall, plaster * 0.75, BUILDING)
    canvas.polygon(wall(line, near, far, 0, height), plaster, BUILDING)
    canvas.polygons([wall(line, near, far, 0, 0.6)], plaster * 0.8)
    canvas.polygons(windows, glass)
    canvas.polygons(bright, lit)
    if board:
      canvas.polygons([wall(line, near, (near + far) / 2, 2.6, 3.3)], board_color)

  return draw


def _tree(rng, x: float, z: float, small: bool = False):
  height = rng.uniform(2.5, 4.5) if small else rng.uniform(3.5, 9)
  width = height * rng.uniform(0.45, 0.8)
  autumn = rng.random() < 0.15
  leaf = np.asarray((150, 105, 45) if autumn else (62, 92, 45)) + rng.normal(0, 12, 3)
  blobs = [
    (
      rng.normal(0, width / 4),
      rng.uniform(0.5, 0.95) * height,
      rng.uniform(0.4, 0.75) * width,
      shade,
    )
    for shade in np.linspace(0.6, 1.2, 9)
  ]

  def draw(canvas: Canvas) -> None:
    canvas.box(x, 0, z, 0.06 * height, height * 0.6, (78, 62, 48), VEGETATION)
    for dx, y, size, shade in blobs:
      canvas.ellipse(x + dx, y, z, size, size * 0.85, np.clip(leaf * shade, 0, 255), VEGETATION)

  return draw


def _hedge(rng, line: float, near: float, far: float):
  height, leaf = rng.uniform(0.7, 2.2), np.asarray((58, 86, 42)) + rng.normal(0, 10, 3)
  wobble = rng.uniform(0.8, 1.1, 9)

  def draw(canvas: Canvas) -> None:
    top = [(line, height * k, z) for k, z in zip(wobble, np.linspace(far, near, 9), strict=True)]
    canvas.polygon([(line, 0, near), (line, 0, far), *top], np.clip(leaf, 0, 255), VEGETATION)

  return draw


def _fence(rng, line: float, near: float, far: float):
  height = rng.uniform(0.9, 2.0)
  solid = rng.random() < 0.4
  color = np.asarray([(150, 120, 90), (200, 200, 195), (95, 100, 100)][rng.integers(3)], float)
  color = color + rng.normal(0, 8, 3)

  def draw(canvas: Canvas) -> None:
    face = wall(line, near, far, 0, height)
    canvas.polygon(face, np.clip(color * (1.0 if solid else 0.55), 0, 255), FENCE)
    starts = np.arange(near, min(far, near + 20), 0.5)
    slats = [wall(line, z, z + 0.22, 0, height) for z in starts]
    canvas.polygons(slats, np.clip(color * (0.85 if solid else 1.0), 0, 255))

  return draw


def _post(rng, x: float, z: float, side: int, night: bool):
  metal, kind = _grey(rng, 70, 150), rng.choice(["lamp", "sign", "both", "bare"])
  tall = rng.uniform(4.5, 7) if kind != "sign" else rng.uniform(2.3, 3)
  style = rng.integers(4)
  colors = [(200, 30, 35), (30, 80, 180), (235, 200, 40), (225, 225, 225)]

  def draw(canvas: Canvas) -> None:
    canvas.box(x, 0, z, 0.2, tall, metal, POLE)
    if kind in ("lamp", "both"):
      canvas.box(x - side * 0.7, tall - 0.12, z, 1.4, 0.16, metal, POLE)
      canvas.box(
        x - side * 1.3, tall - 0.25, z, 0.5, 0.2, (255, 240, 190) if night else metal, POLE
      )
    if kind in ("sign", "both"):
      y = 2.2
      if style == 0:
        canvas.ellipse(x, y, z, 0.95, 0.95, colors[0], SIGN)
        canvas.ellipse(x, y, z, 0.6, 0.6, (230, 230, 230))
      elif style == 2:
        canvas.polygon(
          [(x - 0.5, y - 0.4, z), (x + 0.5, y - 0.4, z), (x, y + 0.5, z)], colors[2], SIGN
        )
      else:
        canvas.box(x, y - 0.45, z, 0.85, 0.95, colors[style], SIGN)
        canvas.box(x, y - 0.2, z, 0.4, 0.4, (235, 235, 235) if style == 1 else (40, 40, 40))

  return draw


def _person(rng, x: float, z: float):
  tall = rng.uniform(1.5, 1.9)
  coat, trousers = rng.uniform(20, 220, 3), np.asarray(_grey(rng, 25, 110)) + rng.normal(0, 12, 3)
  skin = np.asarray((205, 160, 130)) * rng.uniform(0.45, 1.1)
  hair, stride = _grey(rng, 20, 90), rng.uniform(0.02, 0.2)

  def draw(canvas: Canvas) -> None:
    canvas.polygons([floor(x - 0.3, x + 0.5, z - 0.1, z + 0.3)], (45, 45, 48))
    for foot in (-stride, stride):
      hip = [(x - 0.13, tall * 0.5, z), (x + 0.13, tall * 0.5, z)]
      canvas.polygon(
        [(x + foot + 0.1, 0, z), (x + foot - 0.1, 0, z), *hip], np.clip(trousers, 0, 255), PERSON
      )
    canvas.box(x, tall * 0.45, z, 0.46, tall * 0.4, coat, PERSON)
    canvas.box(x - 0.2, tall * 0.47, z, 0.1, tall * 0.34, coat * 0.8)
    canvas.ellipse(x, tall * 0.92, z, 0.27, 0.32, np.clip(skin, 0, 255), PERSON)
    canvas.ellipse(x, tall * 0.97, z, 0.26, 0.18, hair, PERSON)

  return draw


def _car(rng, x: float, z: float, night: bool):
  paints = [
    (35, 35, 40),
    (200, 200, 205),
    (120, 125, 130),
    (150, 30, 35),
    (35, 60, 120),
    (75, 95, 70),
  ]
  paint = np.clip(np.asarray(paints[rng.integers(6)]) + rng.normal(0, 10, 3), 5, 240)
  wide, tall, long = rng.uniform(1.7, 1.95), rng.uniform(1.35, 1.9), rng.uniform(3.6, 4.8)
  front = rng.random() < 0.5

  def draw(canvas: Canvas) -> None:
    a, b, waist = x - wide / 2, x + wide / 2, tall * 0.55
    shade = floor(a - 0.1, b + 0.1, z - 0.2, z + long)
    canvas.polygons([shade], (28, 28, 30))  # on the road, so of its class
    flank = a if x > 0 else b  # the side that can be seen
    canvas.polygon(wall(flank, z, z + long, 0.25, waist), paint * 0.7, CAR)
    for axle in (0.8, long - 0.8):
      wheel = [
        (flank, y, z + axle + dz) for y, dz in ((0, -0.25), (0, 0.25), (0.6, 0.3), (0.6, -0.3))
      ]
      canvas.polygon(wheel, (22, 22, 24), CAR)
    inner = 0.12 * wide
    cabin_far, cabin_near = z + long * 0.8, z + long * (0.3 if front else 0.08)
    edge = [(a + inner, tall, cabin_near), (b - inner, tall, cabin_near)]
    roof = [*edge, (b - inner, tall, cabin_far), (a + inner, tall, cabin_far)]
    glass = np.asarray((55, 65, 78), float)
    cheek = flank + (inner if flank == a else -inner)
    sill = [(flank, waist, z), (flank, waist, z + long * 0.9)]
    pane = [*sill, (cheek, tall, cabin_far), (cheek, tall, cabin_near)]
    canvas.polygon(pane, glass * 0.8, CAR)
    canvas.polygon(roof, np.clip(paint * 1.15, 0, 255), CAR)
    screen = [(a + 0.04, waist, z), (b - 0.04, waist, z), *edge[::-1]]
    canvas.polygon(screen, paint, CAR)
    canvas.polygons([[(px * 0.88 + x * 0.12, py, pz) for px, py, pz in screen]], glass)
    canvas.box(x, 0.22, z, wide, waist - 0.2, paint, CAR)
    for wheel_x in (a + 0.14, b - 0.14):
      canvas.box(wheel_x, 0, z, 0.24, 0.32, (22, 22, 24), CAR)
    lamp = (250, 245, 215) if front else ((240, 40, 30) if night else (150, 25, 25))
    for lamp_x in (a + 0.2, b - 0.2):
      canvas.box(lamp_x, waist - 0.35, z, 0.28, 0.17, lamp)
    canvas.box(x, 0.4, z, 0.5, 0.13, (225, 225, 215))

  return draw


def _finish(canvas: Canvas, rng, weather: str) -> tuple[np.ndarray, np.ndarray]:
  """Texture, light, haze and the sensor; then down to the final size."""
  image, label = canvas.image.astype(np.float32), canvas.label
  shape = label.shape
  strength = np.asarray([0.05, 0.05, 0.04, 0.06, 0.02, 0.02, 0.28, 0.0, 0.05, 0.03], np.float32)
  coarse = cv2.resize(rng.standard_normal((shape[0] // 2, shape[1] // 2), np.float32), shape[::-1])
  image *= 1 + (strength[label] * coarse)[..., None]
  image *= 1 + 0.12 * _noise(rng, shape, (6, 8))[..., None] * (label != SKY)[..., None]
  if weather == "sun":  # one side of the street lies in the shade
    edge = canvas.vanish + (np.arange(shape[0]) - canvas.horizon) * rng.uniform(-1.5, 1.5)
    side = np.sign(rng.normal()) * (np.arange(shape[1]) - edge[:, None])
    shade = (side > 0) & (np.arange(shape[0])[:, None] > canvas.horizon) & (label != SKY)
    image *= np.where(shade, rng.uniform(0.5, 0.85), 1.08)[..., None]
  sight = {"sun": 250, "overcast": 150, "dusk": 120, "fog": rng.uniform(14, 45)}[weather]
  haze = np.asarray({"dusk": (120, 95, 95), "sun": (190, 205, 225)}.get(weather, (196, 199, 202)))
  clear = np.exp(-np.minimum(canvas.depth, 1e3) / sight)[..., None]
  clear = np.where((label == SKY)[..., None], 0.25 if weather == "fog" else 1, clear)
  image = image * clear + haze * (1 - clear)
  gain = rng.uniform(0.55, 0.85) if weather == "dusk" else rng.uniform(0.75, 1.15)
  image *= gain * rng.normal(1, 0.05, 3)
  image = cv2.resize(np.clip(image, 0, 255), (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
  image = 255 * (image / 255) ** rng.uniform(0.85, 1.15)
  image += rng.normal(0, rng.uniform(1.5, 6), image.shape)
  return np.clip(np.round(image), 0, 255).astype(np.uint8), label[1::_FINE, 1::_FINE].copy()


def _noise(rng, shape: tuple[int, int], cells: tuple[int, int]) -> np.ndarray:
  """Smooth noise, about standard normal, float32 of the shape."""
  coarse = rng.standard_normal(cells, np.float32)
  return cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC)


def _grey(rng, low: float, high: float) -> np.ndarray:
  return np.full(3, rng.uniform(low, high))
