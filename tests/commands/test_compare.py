"""`python -m semiseg_jax compare`: made-up working directories, set side by side."""

import io
import json
import math
import os

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from semiseg_jax import __main__ as program
from semiseg_jax.commands.compare import read_runs
from semiseg_jax.runtime import comparison, comparison_picture
from semiseg_jax.runtime.comparison import grouped
from semiseg_jax.runtime.past_run import find_runs, read_run, short_names

CLASSES = ("sky", "road", "car")


def make_run(folder, scores=(0.25, 0.5), status="finished", every=100, iou=None, **values):
  """A run with a loss at every 10 steps and these scores. values: of its config, a.b as a__b."""
  folder.mkdir(parents=True)
  steps = every * len(scores)
  config = {"seed": 0, "training": {"steps": steps}, "method": {"name": "reco"}, "data": {}}
  for key, value in values.items():
    section, _, name = key.rpartition("__")
    (config[section] if section else config)[name] = value
  (folder / "config.json").write_text(json.dumps(config))
  rows = [{"step": step, "kind": "train", "loss": 1 / step, "images_per_second": 50.0}
          for step in range(10, steps + 1, 10)]  # fmt: skip
  for i, score in enumerate(scores, 1):
    of_classes = iou or dict.fromkeys(CLASSES, score)
    rows.append({"step": every * i, "kind": "eval", "miou_present": score, "iou": of_classes})
  (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
  if status:
    known = [score for score in scores if score is not None]
    best = {"step": every * (1 + scores.index(max(known))), "score": max(known)} if known else {}
    result = {"status": status, "step": steps, "best": best, "monitor": "miou_present"}
    (folder / "result.json").write_text(json.dumps(result))
  return folder


def compare(tmp_path, *texts):
  """(exit code, lines printed for these arguments); the picture is tmp_path/out.png."""
  return program.main(["compare", *map(str, texts), f"--out={tmp_path / 'out.png'}"])


def cells(text, name):
  """Of the first line of a table that begins with this name."""
  rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
  return next(row for row in rows if row and row[0] == name)


def test_a_table_and_a_picture(tmp_path, capsys):
  make_run(tmp_path / "runs/a", (0.25, 0.5, 0.375))
  make_run(tmp_path / "runs/b", (0.125,), status="interrupted", method__name="supervised")
  assert compare(tmp_path, tmp_path / "runs/a", tmp_path / "runs/b") == 0
  printed = capsys.readouterr()
  assert printed.err == ""
  expected = ["a", "finished", "300/300", "37.50", "50.00", "200", "50.0"]
  assert cells(printed.out, "a") == expected
  assert cells(printed.out, "b")[:4] == ["b", "interrupted", "100/100", "12.50"]
  assert cells(printed.out, "method.name") == ["method.name", "reco", "a"]
  assert "supervised" in printed.out and "| road " in printed.out and "-37.50" in printed.out
  with Image.open(tmp_path / "out.png") as picture:
    assert picture.width > 1000 and len(np.unique(np.asarray(picture))) > 50


def test_seeds_are_a_group_with_mean_and_spread(tmp_path, capsys):
  for seed, score in enumerate((0.4, 0.5, 0.9)):
    make_run(tmp_path / f"runs/reco_{seed}", (score,), seed=seed, data__labeled=f"reco/8_{seed}")
  make_run(tmp_path / "runs/warm", (0.1,), method__temperature=0.3, data__labeled="reco/8_0")
  assert compare(tmp_path, tmp_path / "runs/*") == 0
  out = capsys.readouterr().out
  row = cells(out, "reco_*: mean of 3, over seeds")
  spread = 100 * np.std([0.4, 0.5, 0.9], ddof=1)
  assert row[3] == row[4] == f"60.00 ± {spread:.2f}"
  assert [line.count("over seeds") for line in out.splitlines()].count(1) == 1


@pytest.mark.parametrize(
  ("first", "second", "together"),
  [
    ({"seed": 0}, {"seed": 7}, True),
    ({"data__labeled": "1/8_0"}, {"data__labeled": "1/8_3"}, True),
    ({"data__labeled": "c3/100_seed12345"}, {"data__labeled": "c3/100_seed23456"}, True),
    ({"data__labeled": "dmt/8_0_left"}, {"data__labeled": "dmt/8_1_left"}, True),
    ({"data__unlabeled": "rest of dst_cbc/8_0"}, {"data__unlabeled": "rest of dst_cbc/8_1"}, True),
    ({"data__labeled": "reco/8_0"}, {"data__labeled": "reco/20_0"}, False),
    ({"data__labeled": "unimatch/1_8"}, {"data__labeled": "unimatch/1_4"}, False),
    ({"data__labeled": "1/8_0"}, {"data__labeled": "all"}, False),
    ({"training__steps": 5}, {"training__steps": 6}, False),
    ({"method__alpha": None}, {}, False),
  ],
)
def test_what_is_a_seed(first, second, together, tmp_path):
  folders = [make_run(tmp_path / name, **values) for name, values in (("a", first), ("b", second))]
  runs = [read_run(folder, folder.name) for folder in folders]
  assert len(grouped(runs)) == (1 if together else 2)


def test_the_keys_of_another_choice_are_not_listed(tmp_path):
  make_run(tmp_path / "a", method__name="reco", method__temperature=0.5)
  make_run(tmp_path / "b", method__name="reco", method__temperature=0.3, method__only_here=1)
  make_run(tmp_path / "c", method__name="supervised", method__augment=True)
  runs = [read_run(tmp_path / name, name) for name in "abc"]
  of = lambda runs: [
    cell
    for cell in comparison.config_table(grouped(runs), Console(file=io.StringIO())).columns[0].cells
    if cell
  ]
  assert list(of(runs)) == ["method.name", "method.temperature"]
  assert list(of(runs[:2])) == ["method.only_here", "method.temperature"]
  assert list(of(runs[:1])) == []


@pytest.mark.parametrize(
  ("names", "expected"),
  [
    (("reco_0", "reco_1", "reco_10"), "reco_*"),
    (("s0/reco", "s1/reco"), "s*/reco"),
    (("a", "b"), "a and 1 more"),
  ],
)
def test_a_group_is_named_by_what_its_runs_share(names, expected, tmp_path):
  runs = [read_run(make_run(tmp_path / name, seed=i), name) for i, name in enumerate(names)]
  assert [group.name for group in grouped(runs)] == [expected]


def test_arguments_mean_each_run_once(tmp_path, monkeypatch):
  for name in ("x/run_10", "x/run_9", "x/[a]", "y"):
    make_run(tmp_path / name)
  (tmp_path / "x/notes").mkdir()
  (tmp_path / "x/link").symlink_to(tmp_path / "y")
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv("HOME", str(tmp_path))
  folders, wrong = find_runs(["x/run_*", "x", "y", "y/", "~/y", "x/[a]"])
  assert short_names(folders) == ["x/run_9", "x/run_10", "x/[a]", "y"] and wrong == []


def test_what_is_no_run_is_named(tmp_path, capsys):
  make_run(tmp_path / "a")
  (tmp_path / "empty").mkdir()
  (tmp_path / "file").touch()
  assert compare(tmp_path, tmp_path / "a", *(tmp_path / x for x in ("empty", "file", "no*"))) == 0
  lines = capsys.readouterr().err.splitlines()
  assert find_runs([str(tmp_path / "[ef]*")])[1] == [
    line.removeprefix("compare: left out: ") for line in lines[:2]
  ]
  assert len(lines) == 3
  for line, name in zip(lines, ("empty", "file", "no*"), strict=True):
    assert line.startswith("compare: left out: ") and str(tmp_path / name) in line


def damage(folder, kind):
  config, metrics = folder / "config.json", folder / "metrics.jsonl"
  if kind == "config":
    config.write_bytes(b"\xff garbage")
  elif kind == "list":
    config.write_text("[1, 2]")
  elif kind == "no config":
    config.unlink()
  elif kind == "no metrics":
    metrics.unlink()
  elif kind == "metrics":
    metrics.write_bytes(b"\xff\x00\n[1]\n")
  elif kind == "folder":
    metrics.unlink()
    metrics.mkdir()


@pytest.mark.parametrize("kind", ["config", "list", "no config", "no metrics", "metrics", "folder"])
def test_damaged_runs_are_left_out_by_name(kind, tmp_path, capsys):
  for name in "ab":
    make_run(tmp_path / name)
  damage(tmp_path / "b", kind)
  assert compare(tmp_path, tmp_path / "a", tmp_path / "b") == 0
  printed = capsys.readouterr()
  (line,) = printed.err.splitlines()
  assert line.startswith(f"compare: left out: {tmp_path / 'b'}") and "| b " not in printed.out
  assert compare(tmp_path, tmp_path / "b") == 1
  assert capsys.readouterr().err.splitlines()[-1] == "compare: there is no run to show"


@pytest.mark.parametrize(
  "result",
  ["garbage", "[]", '{"status": ["x"], "best": 3}', '{"best": {"score": "a", "step": null}}',
   '{"status": "finished", "step": null, "monitor": "miou_present", "best": {"score": 1}}'],
)  # fmt: skip
def test_a_damaged_result_counts_as_none(result, tmp_path, capsys):
  folder = make_run(tmp_path / "[a]")
  (folder / "result.json").write_text(result)
  assert compare(tmp_path, folder) == 0
  assert cells(capsys.readouterr().out, "[a]")[3:6] == ["50.00", "50.00", "200"]


def test_a_config_of_odd_values_is_compared(tmp_path, capsys):
  make_run(tmp_path / "a", method__name=["x"], method__y={"name": {}}, training="all")
  make_run(tmp_path / "b", method__name=3, method__z=1)
  assert compare(tmp_path, tmp_path) == 0
  printed = capsys.readouterr()
  assert printed.err == "" and cells(printed.out, "method.name")[1:] == ["['x']", "a"]


def test_foreign_lines_are_told_and_skipped(tmp_path, capsys):
  folder = make_run(tmp_path / "a")
  path = folder / "metrics.jsonl"
  path.write_text("garbage\n" + path.read_text() + '{"step": 7, "ki')
  assert compare(tmp_path, folder) == 0
  printed = capsys.readouterr()
  assert "1 lines" in printed.err and "first [1]" in printed.err
  assert cells(printed.out, "a")[2] == "200/200"


def test_a_run_that_goes_on_is_unfinished(tmp_path):
  folder = make_run(tmp_path / "a", (0.5, 0.25), status=None, training__steps=1000)
  os.utime(folder / "metrics.jsonl", (0, 0))
  run = read_run(folder, "a")
  assert run.status.startswith("unfinished, logged ") and run.progress == "200/1,000"
  assert run.best == (0.5, 100) and run.last_score == 0.25
  # stopped once, and since resumed
  (folder / "result.json").write_text('{"status": "interrupted", "step": 100}')
  assert read_run(folder, "a").status.startswith("unfinished")
  (folder / "result.json").write_text('{"status": "interrupted", "step": 200}')
  assert read_run(folder, "a").status == "interrupted"


def test_statistics_re_estimated_at_the_end_count(tmp_path):
  folder = make_run(tmp_path / "a", (0.5,))
  path = folder / "result.json"
  result = json.loads(path.read_text())
  result["best"] = {"step": 100, "score": 0.625}
  path.write_text(json.dumps(result))
  assert read_run(folder, "a").best == (0.625, 100)
  path.write_text(json.dumps({**result, "monitor": "accuracy"}))  # another score
  assert read_run(folder, "a").best == (0.5, 100)


def test_a_run_in_rounds_is_one_run(tmp_path, capsys):
  folder = tmp_path / "rounds"
  for i, scores in ((0, (0.25,)), (1, (0.375, 0.5)), (10, (0.125,)), (2, (0.75,))):
    make_run(folder / f"round_{i}", scores)
  (folder / "round_1_labels").mkdir()
  (folder / "config.json").write_text((folder / "round_0/config.json").read_text())
  run = read_run(folder, "rounds")
  assert [row["step"] for row in run.history.evaluations] == [100, 200, 300, 400, 500]
  assert run.best == (0.75, 400) and run.last_score == 0.125 and run.progress == "500, 4 stages"
  assert run.status.startswith("unfinished")
  (folder / "result.json").write_text('{"status": "finished", "step": 100, "stage": "round_2"}')
  assert read_run(folder, "rounds").status == "finished"
  make_run(tmp_path / "plain")
  assert compare(tmp_path, tmp_path) == 0
  assert cells(capsys.readouterr().out, "rounds")[4] == "75.00"


def labels(axes):
  return [line.get_label() for line in axes.lines]


def figure_of(folder):
  return comparison_picture.comparison_figure(grouped(read_runs([str(folder)])))


def test_a_run_has_one_color_in_every_panel(tmp_path):
  for i in range(12):
    make_run(tmp_path / f"run_{i}", (0.25, 0.5 + i / 100), method__temperature=i)
  figure = figure_of(tmp_path)
  scores, losses = figure.axes
  colors = [{line.get_label(): tuple(np.ravel(line.get_color())) for line in axes.lines}
            for axes in (scores, losses)]  # fmt: skip
  assert colors[0] == colors[1] and len(set(colors[0].values())) == len(colors[0]) == 12


def test_of_a_short_run_its_name_is_where_its_line_is_not(tmp_path):
  make_run(tmp_path / "long", (0.5,) * 9)
  make_run(tmp_path / "short", (0.25,), method__x=1)
  axes = figure_of(tmp_path).axes[0]
  ends = {text.get_text(): text.xy for text in axes.texts}
  assert ends == {"long  50.0": (900, 50), "short  25.0": (100, 25)}
  assert all(text.arrow_patch.get_linestyle() == ":" for text in axes.texts)


def test_a_group_is_its_mean_in_a_band_over_its_runs(tmp_path):
  for seed, scores in enumerate(((0.2, 0.4), (0.4, 0.8))):
    make_run(tmp_path / f"reco_{seed}", scores, seed=seed)
  axes, _ = figure_of(tmp_path).axes
  assert labels(axes) == ["reco_0", "reco_1", "reco_*"]
  assert axes.lines[-1].get_ydata() == pytest.approx([30, 60])
  assert [text.get_text() for text in axes.texts] == ["reco_*  60.0"]
  (band,) = axes.collections
  low, high = band.get_paths()[0].get_extents().get_points()[:, 1]
  assert low == pytest.approx(30 - 100 * np.std([0.2, 0.4], ddof=1))
  assert high == pytest.approx(60 + 100 * np.std([0.4, 0.8], ddof=1))
  assert "standard deviation" in axes.get_title("left")


def test_runs_of_a_group_that_were_scored_at_other_steps(tmp_path):
  make_run(tmp_path / "s_0", (0.2, 0.4, 0.6), seed=0, training__steps=9)
  make_run(tmp_path / "s_1", (0.2, 0.6), seed=1, every=200, training__steps=9)
  axes = figure_of(tmp_path).axes[0]
  mean = {line.get_label(): line for line in axes.lines}["s_*"]
  assert mean.get_xydata().ravel() == pytest.approx([200, 30, 300, 50])


def test_runs_of_a_group_that_share_no_stretch_are_named_themselves(tmp_path):
  make_run(tmp_path / "s_0", (0.2,), seed=0, every=100, training__steps=9)
  make_run(tmp_path / "s_1", (0.4,), seed=1, every=200, training__steps=9)
  axes = figure_of(tmp_path).axes[0]
  assert labels(axes) == ["s_0", "s_1"] and len(axes.texts) == 2


def test_a_name_may_be_any_bytes(tmp_path, capsys):
  make_run(tmp_path / os.fsdecode(b"caf\xe9$_{"))
  assert compare(tmp_path, tmp_path) == 0
  assert cells(capsys.readouterr().out, "caf\ufffd$_{")[1] == "finished"


def test_runs_without_an_evaluation_are_drawn(tmp_path, capsys):
  make_run(tmp_path / "a", (None,), status=None)
  assert compare(tmp_path, tmp_path / "a") == 0
  assert cells(capsys.readouterr().out, "a")[3:6] == ["-", "-", "-"]


def test_of_two_runs_the_classes_are_compared(tmp_path):
  make_run(tmp_path / "a", (0.5,), iou={"sky": 0.5, "road": 0.25, "car": None, "old": 0.1})
  make_run(tmp_path / "b", (0.5,), method__x=1, iou={"road": 0.75, "sky": 0.25, "car": 0.5})
  groups = grouped(read_runs([str(tmp_path)]))
  rows = comparison.class_differences(groups)
  assert rows == [("road", 0.25, 0.75), ("sky", 0.5, 0.25)]  # what both know of
  bars = comparison_picture.comparison_figure(groups).axes[2]
  assert [bar.get_width() for bar in bars.patches] == [50, -25]
  assert [text.get_text() for text in bars.get_yticklabels()] == ["road", "sky"]
  assert len(comparison.ends_of(range(150))) == 20 and len(comparison.ends_of(range(24))) == 24


def test_the_mean_of_what_is_known():
  assert comparison.mean_and_spread([0.5, math.nan, 1.5])[::2] == (1.0, 2)
  assert math.isnan(comparison.mean_and_spread([0.5])[1])
  assert comparison.mean_and_spread([])[2] == 0


@pytest.mark.parametrize("out", ["a.pdf", "nowhere/a.png"])
def test_where_the_picture_can_not_be_is_told_first(out, tmp_path, capsys):
  with pytest.raises(SystemExit):
    program.main(["compare", str(tmp_path), f"--out={tmp_path / out}"])
  assert "should end in .png" in capsys.readouterr().err
