"""RankDice: masks of the highest expected Dice; `semiseg_jax.evaluation.rank_dice(probs)`."""
