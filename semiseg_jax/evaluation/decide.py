"""From what a network says of each pixel to labels, or to a mask for each class."""

import dataclasses

import jax
import jax.numpy as jnp

from semiseg_jax import fields
from semiseg_jax.fields import require
from semiseg_jax.models.decision import most_likely
from semiseg_jax.rankdice.settings import RankDice
from semiseg_jax.rankdice.solve import decide_masks

PUBLISHED = RankDice(form="fork", truncate_mean=True)  # what the published tables were made with
_KEY = "config.evaluation.decide"


@dataclasses.dataclass(frozen=True)
class Rule:
  """How logits become masks: logits [B,H,W,K] -> bool [B,H,W,K], on the device.

  name: of RULES. binary: a probability is the sigmoid of its logit; else they are a softmax over
  the classes. temperature: divides the logits beforehand. threshold, rank_dice: of the rules of
  those names. Raises ValueError for another name, and for a temperature that is not above 0.
  """

  name: str = "max"
  binary: bool = False
  temperature: float = 1.0
  threshold: float = 0.5
  rank_dice: RankDice = PUBLISHED

  def __post_init__(self):
    require(_KEY, self.name, RULES)
    if not self.temperature > 0:
      raise ValueError(f"config.evaluation.temperature={self.temperature!r} should be above 0")

  def __call__(self, logits: jax.Array, inside: jax.Array | None = None) -> jax.Array:
    """inside: bool [B,H,W], where the image is; masks elsewhere mean nothing. Default: all."""
    return RULES[self.name](self, logits, inside)

  def probabilities(self, logits: jax.Array) -> jax.Array:
    """float32 [...,K] of logits [...,K]."""
    logits = logits.astype(jnp.float32) / self.temperature
    return jax.nn.sigmoid(logits) if self.binary else jax.nn.softmax(logits)


def read_rule(text: str) -> tuple[str, RankDice]:
  """(name, settings of RankDice) of config.evaluation.decide.

  "rankdice" alone decides as the published tables; with brackets, as in "rankdice(solver='rma',
  metric='iou')", what they leave out is RankDice's default. Raises ValueError for other text, and
  for unknown fields and values that don't go together.
  """
  try:
    name, given = fields.read_call(text)
  except ValueError:
    raise ValueError(f"{_KEY}={text!r}: write a name, or rankdice(solver='trna')") from None
  require(_KEY, name, RULES)
  if "(" not in text:
    return name, PUBLISHED
  if name != "rankdice":
    raise ValueError(f"{_KEY}={text!r}: {name} has no fields")
  return name, fields.make(RankDice, f"{_KEY} {name}", name, given)


def argmax(scores: jax.Array) -> jax.Array:
  """int32 [...], the class of the largest of the logits or probabilities [...,K]."""
  return scores.argmax(-1).astype(jnp.int32)


def argmax_with_confidence(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
  """(label int32 [...], confidence float32 [...], the label's probability) of logits [...,K]."""
  # Not `most_likely`'s label: where two probabilities round to one number, logits still differ.
  return argmax(logits), most_likely(logits)[1]


def above(probs: jax.Array, threshold: float = 0.5, *, inclusive: bool = False) -> jax.Array:
  """bool [...,K], the classes whose probability [...,K] exceeds a threshold, or reaches it.

  RankSEG's rule "T": its training and validation take p > 0.5, its test p >= threshold.
  """
  return probs >= threshold if inclusive else probs > threshold


def _max(rule: Rule, logits: jax.Array, inside: jax.Array | None) -> jax.Array:
  return jax.nn.one_hot(argmax(logits), logits.shape[-1], dtype=jnp.bool_)


def _threshold(rule: Rule, logits: jax.Array, inside: jax.Array | None) -> jax.Array:
  """Masks may overlap; a pixel may be in none."""
  return above(rule.probabilities(logits), rule.threshold, inclusive=True)


def _rank_dice(rule: Rule, logits: jax.Array, inside: jax.Array | None) -> jax.Array:
  """Masks may overlap; a pixel may be in none."""
  probs = rule.probabilities(logits)
  if inside is not None:  # margins move no expectation; only the bound of the search knows of them
    probs = jnp.where(inside[..., None], probs, 0)
  return decide_masks(probs, rule.rank_dice).masks


RULES = {"max": _max, "threshold": _threshold, "rankdice": _rank_dice}
