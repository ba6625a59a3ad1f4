"""How lines are drawn and named."""

import warnings

import matplotlib
import numpy as np
import pytest

from semiseg_jax.runtime import plots
from semiseg_jax.runtime.plots import Line


def drawn(lines, **options):
  """The axes with these lines."""
  figure = plots.new_figure(6, 4, "title")
  axes = plots.add_panel(figure, (0.6, 0.5, 3.0, 3.0), "panel")
  plots.draw_lines(axes, lines, "empty", **options)
  return axes


def line(name, values, **options):
  return Line(name, np.arange(1, len(values) + 1) * 10, np.asarray(values, float), "red", **options)


def names(axes):
  return [text.get_text() for text in axes.texts]


def test_lines_are_named_with_their_last_number_from_the_top():
  axes = drawn([line("low", [3, 2, 1]), line("high", [4, 5, np.nan])])
  assert names(axes) == ["high  5", "low  1"]
  assert [curve.get_label() for curve in axes.lines] == ["low", "high"]
  gap = axes.lines[1].get_ydata()
  assert np.array_equal(gap, [4, 5, np.nan], equal_nan=True)


def test_shares_are_percents_from_0():
  axes = drawn([line("road", [0.25, 0.5])], share=True)
  assert names(axes) == ["road  50.0"] and axes.get_ylim()[0] == 0
  assert axes.lines[0].get_ydata().tolist() == [25, 50]


def test_without_a_number_it_says_so():
  assert names(drawn([line("a", [np.nan]), line("b", [])])) == ["empty"]


def test_no_two_names_overlap_and_all_are_within_the_axes():
  values = np.concatenate([np.full(8, 0.5), np.linspace(0.97, 1.0, 6), [0.0, 0.01]])
  axes = drawn([line(f"class {i}", [0.4, value]) for i, value in enumerate(values)], share=True)
  places = np.asarray([text.xyann[1] for text in axes.texts])
  gap = plots._LETTERS / plots.points_high(axes)  # the letters' own height
  assert len(places) == 16 and (-np.diff(places) > gap).all()
  assert places.max() <= 1 and places.min() >= 0


def test_of_many_lines_those_at_either_end_are_named_and_drawn_over_the_others():
  axes = drawn([line(f"class {i}", [0.1, i / 150]) for i in range(150)], share=True)
  named = [text.partition("  ")[0] for text in names(axes)]
  assert named == [f"class {i}" for i in (149, 148, 147, 146, 145, 144, 5, 4, 3, 2, 1, 0)]
  strong = [curve.get_label() for curve in axes.lines if curve.get_alpha() == 1]
  assert sorted(strong) == sorted(named) and len(axes.lines) == 150
  assert [curve.get_label() for curve in axes.lines[-12:]] == strong
  assert axes.get_title("left") == "panel; 12 of 150 named"


@pytest.mark.parametrize("count", [10, 400, 1000, 100_000])
def test_many_points_are_means_in_a_band(count):
  values = np.sin(np.arange(count))
  values[: count // 2] = np.nan
  axes = drawn([line("loss", values)])
  (curve,) = axes.lines
  assert len(curve.get_xdata()) == min(count, plots.MOST_POINTS)
  assert len(axes.collections) == int(count > plots.MOST_POINTS)
  shown = np.isfinite(curve.get_ydata())
  assert shown.mean() == pytest.approx(0.5, abs=0.1) and shown[-1]


@pytest.mark.parametrize(
  ("values", "scale"),
  [
    (np.geomspace(100, 0.01, 50), "log"),
    ([0.3] * 20 + [1e6], "log"),
    (np.linspace(1, 2, 50), "linear"),
    ((1 - np.arange(50) / 50) ** 0.9 * 0.01, "linear"),
    ([0.0, *np.geomspace(100, 0.01, 50)], "linear"),  # 0 has no place on the other
    ([2.0], "linear"),
    ([1.0, 1.0, 1.0], "linear"),
    ([-1e300, 1e300, 0], "linear"),
  ],
)
def test_an_axis_is_logarithmic_where_a_linear_one_shows_nothing(values, scale):
  axes = drawn([line("loss", values)])
  assert axes.get_yscale() == scale
  axes.figure.canvas.draw()


def test_a_color_that_can_be_seen_stays():
  assert plots.visible((128, 64, 128)) == pytest.approx((128 / 255, 64 / 255, 128 / 255))
  assert max(plots.visible((255, 255, 255))) < 0.8 and plots.visible((0, 0, 0)) == (0, 0, 0)


def test_long_names_keep_both_ends():
  short = plots.shortened("toy_reco_with_a_long_name_seed_0")
  assert len(short) <= 26 and short.startswith("toy_reco") and short.endswith("seed_0")
  assert plots.shortened("toy") == "toy"


def test_any_name_is_drawn_without_a_word(tmp_path, capfd):
  lines = [line(name, [1, i]) for i, name in enumerate(("$x_", "$\\frac$", "_b", "空", "", "a\nb"))]
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    with plots.style():
      plots.save(drawn(lines).figure, tmp_path / "a.png")
  assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
  assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
  assert capfd.readouterr() == ("", "")


def test_the_users_own_looks_and_backend_are_left_alone(tmp_path):
  with matplotlib.rc_context({"font.size": 31, "text.usetex": True}):
    before = dict(matplotlib.rcParams)
    with plots.style():
      plots.save(drawn([line("a", [1, 2])]).figure, tmp_path / "a.png")
      assert matplotlib.rcParams["font.size"] != 31
    assert dict(matplotlib.rcParams) == before
