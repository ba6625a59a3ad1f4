"""Pixel contrast as its definition has it: groups found in loops, and a matrix of all pairs."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from semiseg_jax.labels import IGNORE


def find_groups(
  labels: np.ndarray, predictions: np.ndarray, priorities: np.ndarray, num_pixels: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Image [A], class [A] and pixels [A,V] of each group; the arguments are [B,P]."""
  image_of, class_of, pixels_of = [], [], []
  for image, label in enumerate(labels):
    for c in np.setdiff1d(label, (0, IGNORE)):
      pixels = np.flatnonzero(label == c)
      if len(pixels) <= num_pixels:
        continue
      pixels = pixels[np.argsort(priorities[image, pixels])]
      is_hard = predictions[image, pixels] != c
      hard, easy = pixels[is_hard], pixels[~is_hard]
      if min(len(hard), len(easy)) >= num_pixels / 2:
        taken = num_pixels // 2
      elif len(hard) >= num_pixels / 2:
        taken = num_pixels - len(easy)
      else:
        taken = len(hard)
      image_of.append(image)
      class_of.append(c)
      pixels_of.append(np.concatenate([hard[:taken], easy[: num_pixels - taken]]))
  return np.array(image_of), np.array(class_of), np.array(pixels_of)


def contrast_of_pairs(
  anchors: jax.Array, others: jax.Array, classes: jax.Array, temperature: float
) -> jax.Array:
  """The loss of unit vectors [M,D] and [M,D] of the same pixels, of classes [M]."""
  logits = jnp.matmul(anchors, others.T, precision=lax.Precision.HIGHEST) / temperature
  logits -= lax.stop_gradient(logits.max(axis=1, keepdims=True))
  is_class = (classes[:, None] == classes).astype(jnp.float32)
  is_pair = is_class * (1 - jnp.eye(len(classes)))
  exponents = jnp.exp(logits)
  negatives = (exponents * (1 - is_class)).sum(axis=1, keepdims=True)
  log_probs = logits - jnp.log(exponents + negatives)
  return -temperature / 0.1 * ((is_pair * log_probs).sum(axis=1) / is_pair.sum(axis=1)).mean()


def plain_contrast(
  embedding: jax.Array,
  contrast: jax.Array | None,
  groups: tuple[jax.Array, jax.Array, jax.Array],
  temperature: float,
) -> jax.Array:
  """The loss of maps [B,P,D]; contrast: of the other network, or None."""
  image, classes, pixels = groups

  def vectors(maps):
    maps = maps / jnp.maximum(jnp.linalg.norm(maps, axis=-1, keepdims=True), 1e-12)
    return maps[image[:, None], pixels].swapaxes(0, 1).reshape(-1, maps.shape[-1])

  anchors = vectors(embedding)
  others = anchors if contrast is None else lax.stop_gradient(vectors(contrast))
  return contrast_of_pairs(anchors, others, jnp.tile(classes, pixels.shape[1]), temperature)
