"""Maps as one HTML file that needs no network: Bokeh draws the points (WebGL), `page.js` says what happens to them.

Axes: N points, K neighbours.
"""

from __future__ import annotations

from importlib import resources
from typing import Any

import numpy as np

from elmokit.errors import require
from elmokit.layers import called
from elmokit.plot.map import Map, View
from elmokit.plot.nearest import nearest
from elmokit.plot.style import LEGEND_LETTERS, TITLE_LETTERS, looks, shortened

# Pixels: of a marker with few points, and with many.
_LARGEST, _SMALLEST = 11, 4
_PANEL_WIDTH = 380
# More points than these have no shapes: fewer renderers draw faster, and small shapes look alike.
_SHAPED = 5_000
_TOOLTIP = """<div style="max-width: 34em; white-space: normal; font: 14px/1.4 sans-serif">
@sentence{before}<mark>@sentence{word}</mark>@sentence{after}<br><small>@sentence{group}</small></div>"""
_TEMPLATE = "{% block postamble %}<script>{{ script }}</script>{% endblock %}"
_HELP = """<p><b>Point</b> at a dot to read its sentence, <b>click</b> it for its nearest uses (by cosine of the
vectors, not by place on the map), <b>search</b>, or draw a <b>lasso</b> (the loop in the bar above the map) to copy the
sentences in it. A name in the legend hides its dots.</p>"""


def page(map: Map, *, neighbours: int = 10) -> str:
    """Return the page as HTML.

    `neighbours`: K of each point in each view; approximate beyond 20,000 points. Raises `MissingExtra` without the
    extra `plot`.
    """
    embed: Any = require("bokeh.embed", extra="plot")
    bokeh_resources: Any = require("bokeh.resources", extra="plot")
    layouts: Any = require("bokeh.layouts", extra="plot")
    models: Any = require("bokeh.models", extra="plot")
    points = models.ColumnDataSource(_columns(map, neighbours), name="points")
    texts = models.ColumnDataSource({"text": [_line(sentence) for sentence in map.points.sentences]}, name="texts")
    names = map.colouring.names
    groups = models.ColumnDataSource({"name": names, "label": _labels(names), "shape": _shapes(map)}, name="groups")
    chart = _chart(models, map, points)
    panel = models.Div(
        name="panel",
        text=_HELP,
        disable_math=True,
        width=_PANEL_WIDTH,
        sizing_mode="stretch_height",
        styles={"overflow": "auto", "font": "14px/1.4 sans-serif"},
        tags=[texts, groups],  # so that they are part of the document
    )
    left = layouts.column(_controls(models, layouts, map), chart, sizing_mode="stretch_both")
    return embed.file_html(
        layouts.row(left, panel, sizing_mode="stretch_both", styles={"padding": "8px", "box-sizing": "border-box"}),
        bokeh_resources.INLINE,
        shortened(map.title, TITLE_LETTERS),
        template=_TEMPLATE,
        template_variables={"script": (resources.files(__package__) / "page.js").read_text("utf-8")},
    )


def _columns(map: Map, neighbours: int) -> dict[str, Any]:
    """Return what the page knows of each point; x and y are those of the view that is shown."""
    columns: dict[str, Any] = {
        "sentence": map.points.sentence_N.astype(np.int32),
        "place": map.points.place_N.astype(np.int32),
        "group": map.colouring.group_N.astype(np.int32),
    }
    for number, view in enumerate(map.views.values()):
        columns |= {f"{key}{number}": value for key, value in _placed(view, neighbours).items()}
    return {"x": columns["x0"], "y": columns["y0"], **columns}


def _placed(view: View, neighbours: int) -> dict[str, Any]:
    """Return places and neighbours in one view; cosines as hundredths."""
    found = nearest(view.vectors_ND, neighbours)
    x, y = np.ascontiguousarray(view.plane.xy_N2.T, np.float32)
    hundredths = np.round(100 * found.cosines_NK).astype(np.int8)
    return {"x": x, "y": y, "near": found.points_NK, "like": hundredths}


def _line(sentence: list[str]) -> str:
    """Return a sentence with one space between tokens; a space within a token becomes one that does not part."""
    return " ".join("\u00a0".join(token.split()) or "\u00a0" for token in sentence)


# ---------------------------------------------------------------- parts of the page


def _chart(models: Any, map: Map, points: Any) -> Any:
    plotting: Any = require("bokeh.plotting", extra="plot")
    chart = plotting.figure(
        name="chart",
        title=f"{shortened(map.title, TITLE_LETTERS)}, coloured by {map.colouring.by}",
        output_backend="webgl",
        tools="pan,wheel_zoom,box_zoom,reset,save",
        active_scroll="wheel_zoom",
        toolbar_location="above",
        sizing_mode="stretch_both",
        min_height=300,
    )
    chart.axis.visible = False
    chart.grid.visible = False
    dots = _draw_dots(models, chart, map, points)
    _draw_rings(models, chart)
    hover = models.CustomJSHover(code="return elmokit.part(special_vars.index, format)")
    chart.add_tools(
        models.HoverTool(
            renderers=dots, tooltips=_TOOLTIP, formatters={"@sentence": hover}, point_policy="follow_mouse"
        ),
        models.TapTool(renderers=dots, mode="replace"),
        models.LassoSelectTool(renderers=dots, continuous=False),
    )
    selected = models.CustomJS(code="if (cb_obj.final) elmokit.selected(cb_obj.geometry.type)")
    chart.js_on_event("selectiongeometry", selected)
    return chart


def _shapes(map: Map) -> list[str]:
    """Return the shape of each group; of many points all are circles, which are drawn at once."""
    many = len(map.points) > _SHAPED
    return ["circle" if many else look.shape for look in looks(map.colouring)]


def _draw_dots(models: Any, chart: Any, map: Map, points: Any) -> list[Any]:
    """Draw the groups of a shape at once: with WebGL each renderer costs a copy of the whole picture.

    (One renderer for all shapes loses them when some points are selected, in Bokeh 3.9.)
    """
    shapes = _shapes(map)
    look = looks(map.colouring)
    colour = models.LinearColorMapper([one.colour for one in look], low=-0.5, high=len(look) - 0.5)

    def scatter(shape: str, source: Any, view: Any) -> Any:
        return chart.scatter(
            "x",
            "y",
            source=source,
            view=view,
            size=max(_SMALLEST, min(_LARGEST, 30 - 5.5 * np.log10(len(map.points)))),
            marker=shape,
            fill_color={"field": "group", "transform": colour},
            line_color="#222222",
            line_width=0.4,
            alpha=0.85,
            nonselection_alpha=0.08,
        )

    def filtered(shape: str) -> Any:
        return models.CDSView(filter=models.CustomJSFilter(code=f"return elmokit.shown({shape!r})"))

    drawn = [scatter(shape, points, filtered(shape)) for shape in dict.fromkeys(shapes)]
    # What the legend shows is on no place of the map, so that it stays there when the dots are hidden.
    nowhere = np.full(len(look), np.nan)
    samples = models.ColumnDataSource({"x": nowhere, "y": nowhere, "group": np.arange(len(look), dtype=np.int32)})
    sample = {shape: scatter(shape, samples, models.CDSView()) for shape in dict.fromkeys(shapes)}
    _draw_legend(models, chart, map.colouring.names, [sample[shape] for shape in shapes])
    return drawn


def _labels(names: list[str]) -> list[str]:
    return [shortened(name, LEGEND_LETTERS) for name in names]


def _draw_legend(models: Any, chart: Any, names: list[str], renderers: list[Any]) -> None:
    """Draw the names of the groups; `renderers`: what draws a sample of each."""
    items = [
        models.LegendItem(label={"value": label}, renderers=[renderer], index=number)
        for number, (label, renderer) in enumerate(zip(_labels(names), renderers, strict=True))
    ]
    legend = models.Legend(name="legend", items=items, label_text_font_size="12px", border_line_color=None)
    legend.js_on_click(models.CustomJS(code="elmokit.hidden(cb_obj.item)"))
    chart.add_layout(legend, "right")


def _draw_rings(models: Any, chart: Any) -> None:
    """Draw rings around the point that was clicked, and its neighbours: none as yet."""
    source = models.ColumnDataSource({"x": [], "y": [], "radius": [], "width": []}, name="rings")
    chart.arc(
        "x", "y", radius="radius", radius_units="screen", start_angle=0, end_angle=7, line_width="width", source=source
    ).glyph.line_color = "#000000"


def _controls(models: Any, layouts: Any, map: Map) -> Any:
    search = models.TextInput(name="search", placeholder="search", width=220)
    where = models.Select(name="where", options=["in words", "in sentences"], width=130, value=_searched(map))
    for model, event in ((search, "value_input"), (where, "value")):
        model.js_on_change(event, models.CustomJS(code="elmokit.searched()"))
    controls = [search, where]
    if len(map.views) > 1:
        labels = [called(name) for name in map.views]
        layer = models.RadioButtonGroup(name="layer", labels=labels, active=0)
        layer.js_on_change("active", models.CustomJS(code="elmokit.switched()"))
        controls.append(layer)
    found = models.Div(name="found", text="", disable_math=True, width=200, styles={"line-height": "31px"})
    return layouts.row(*controls, found)


def _searched(map: Map) -> str:
    """Return where to search first: in words, where there are several."""
    return "in words" if not map.points.whole and map.points.n_words > 1 else "in sentences"
