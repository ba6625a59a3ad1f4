"""From networks' outputs to labels and scores; `rank_dice(probs)` can be used on its own."""

from semiseg_jax.rankdice.solve import rank_dice as rank_dice
from semiseg_jax.rankdice.solve import rank_labels as rank_labels
