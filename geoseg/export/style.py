"""QGIS styles (QML): how field outlines and class masks look when they are opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from xml.etree import ElementTree as ET

Color = tuple[int, int, int, int]

FILL: Color = (116, 196, 118, 70)
OUTLINE: Color = (0, 90, 50, 255)


def fields_qml(*, fill: Color = FILL, outline: Color = OUTLINE, width_mm: float = 0.3) -> str:
    """One symbol for polygons: translucent fill, darker outline."""
    properties = {
        "color": _rgba(fill),
        "style": "solid",
        "outline_color": _rgba(outline),
        "outline_style": "solid",
        "outline_width": f"{width_mm:g}",
        "outline_width_unit": "MM",
        "joinstyle": "round",
    }
    qgis = ET.Element("qgis", version="3.22", styleCategories="Symbology")
    renderer = ET.SubElement(qgis, "renderer-v2", type="singleSymbol", symbollevels="0", forceraster="0")
    symbol = ET.SubElement(ET.SubElement(renderer, "symbols"), "symbol", type="fill", name="0", alpha="1")
    layer = ET.SubElement(symbol, "layer", {"class": "SimpleFill", "enabled": "1", "locked": "0", "pass": "0"})
    options = ET.SubElement(layer, "Option", type="Map")
    for name, value in properties.items():
        ET.SubElement(options, "Option", name=name, value=value, type="QString")
        ET.SubElement(layer, "prop", k=name, v=value)  # read by QGIS before 3.26
    return _document(qgis)


def classes_qml(names: Sequence[str], colors: Mapping[int, Color]) -> str:
    """A legend for a class mask: each value with its name and colour."""
    qgis = ET.Element("qgis", version="3.22", styleCategories="Symbology")
    renderer = ET.SubElement(
        ET.SubElement(qgis, "pipe"),
        "rasterrenderer",
        type="paletted",
        band="1",
        opacity="1",
        alphaBand="-1",
        nodataColor="",
    )
    palette = ET.SubElement(renderer, "colorPalette")
    for value, name in enumerate(names):
        red, green, blue, alpha = colors.get(value, (128, 128, 128, 255))
        ET.SubElement(
            palette,
            "paletteEntry",
            value=str(value),
            label=name,
            color=f"#{red:02x}{green:02x}{blue:02x}",
            alpha=str(alpha),
        )
    return _document(qgis)


def class_colors(names: Sequence[str], *, field_class: str) -> dict[int, Color]:
    """Colours by class id: fields green, boundaries dark, background nearly clear, others told apart."""
    known: dict[str, Color] = {
        "background": (0, 0, 0, 0),
        "boundary": (0, 60, 30, 255),
        field_class: (116, 196, 118, 255),
    }
    others: Sequence[Color] = (
        (230, 159, 0, 255), (86, 180, 233, 255), (240, 228, 66, 255), (0, 114, 178, 255), (213, 94, 0, 255),
        (204, 121, 167, 255),
    )  # fmt: skip
    return {i: known.get(name, others[i % len(others)]) for i, name in enumerate(names)}


def _rgba(color: Color) -> str:
    return ",".join(str(part) for part in color)


def _document(root: ET.Element) -> str:
    ET.indent(root)
    return "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n" + ET.tostring(root, encoding="unicode") + "\n"
