"""The card of a network on a model hub: what it is, how to use it, its classes and its scores."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

_FRONT = """---
library_name: semiseg_jax
pipeline_tag: image-segmentation
tags:
- semantic-segmentation
- semi-supervised
- jax
# license: yours to choose, such as mit
---
"""
_USE = """```bash
pip install "semiseg_jax[hub]"
```

```python
import semiseg_jax

model = semiseg_jax.load("hf://{repo}")  # or this folder
result = model.predict("picture.jpg")  # .labels, .probabilities, .class_names
result.show()
```
"""
_SCORES = {  # of `of_pixels` in evaluation.json
  "iou": "IoU",
  "precision": "precision",
  "recall": "recall",
  "f1": "F1",
  "boundary_iou": "boundary IoU",
}


def make_card(config: dict[str, Any], run: dict[str, Any], repo: str | None = None) -> str:
  """README.md, in Markdown, with what a hub reads in front.

  config: what `published.write` has for config.json. run: of `published.run_of`; scores of another
  step than the network's are left out. repo: ORG/REPO, where it will be.
  """
  names = config["class_names"]
  colors = ["#" + bytes(color).hex() for color in config["palette"]]
  classes = zip(range(len(names)), map(_cell, names), colors, strict=True)
  parts = [
    f"{_FRONT}\n# {_title(config)}\n\n{_summary(config)}\n",
    f"## How to use it\n\n{_USE.format(repo=repo or 'ORG/REPO')}",
    f"## Classes\n\n{_table(('id', 'class', 'colour'), classes)}",
  ]
  if scores := _scores(config, run):
    parts.append(f"## Scores\n\n{scores}")
  return "\n".join(parts)


def _title(config: dict[str, Any]) -> str:
  model = config["model"]
  trunk = model.get("trunk", {}).get("name")
  return f"{model['name']}{f' on {trunk}' if trunk else ''}, {model['num_classes']} classes"


def _summary(config: dict[str, Any]) -> str:
  model, method = config["model"], config.get("method", {}).get("name")
  data = config.get("data", {}).get("name")
  trained = [f" with the method `{method}`"] if method else []
  trained += [f" on `{data}`"] if data and data != "folder" else []
  text = "A network of semiseg_jax that names the class of every pixel"
  text += f", trained{''.join(trained)}" if trained else ""
  if method and config.get("network"):
    text += f": its {config['network']} at step {config.get('step')}"
  return (
    f"{text}. It takes RGB pictures of any size and normalises them itself "
    f"(`{model['normalization']}`); `config.json` has every setting."
  )


def _scores(config: dict[str, Any], run: dict[str, Any]) -> str:
  """What evaluation.json has or else result.json, if that is of this network."""
  found, best = run.get("evaluation", {}), run.get("result", {}).get("best", {})
  of_pixels, step = found.get("of_pixels"), config.get("step")
  if of_pixels and found.get("step") == step:
    columns = [key for key in _SCORES if key in of_pixels]
    rows = [
      [_cell(name), *(_percent(of_pixels[key].get(name)) for key in columns)]
      for name in config["class_names"]
    ]
    rows.append(["**mean**", *(_percent(of_pixels["mean"].get(key)) for key in columns)])
    rule = found.get("decided", {}).get("name", "max")
    heading = f"In percent, over the pixels of {found.get('images')} images (`{found.get('split')}`"
    return f"{heading}, decided by `{rule}`).\n\n" + _table(
      ("class", *(_SCORES[key] for key in columns)), rows
    )
  if best.get("score") is not None and best.get("step") == step:
    monitor = run["result"].get("monitor", "score")
    return f"`{monitor}` on the validation images: {_percent(best['score'])} percent.\n"
  return ""


def _table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
  lines = [header, ["---"] * len(header), *rows]
  return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def _cell(text: str) -> str:
  """A name as it is to be read, whatever is in it."""
  return re.sub(r"([|<`*\\])", r"\\\1", " ".join(str(text).split()))


def _percent(value: float | None) -> str:
  return "-" if value is None else f"{100 * value:.1f}"
