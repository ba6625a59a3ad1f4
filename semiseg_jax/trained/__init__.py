"""Trained networks in Python: `semiseg_jax.load(path).predict(picture)`."""
