"""Attention maps as SVG: whole, escaped, and each cell where it belongs."""

import re
import xml.etree.ElementTree as ET

from finetune.reporting.attention_plot import attention_plot


def test_cells_and_words_are_where_they_belong():
    drawing = attention_plot(["<b>", "7월"], ["a", "&"], [[0.9, 0.1], [0.005, 0.995]], "map", "Where it looked")
    svg = ET.fromstring(drawing)
    words = [element.text for element in svg.iter() if element.tag.endswith("text")]
    assert words == ["<b>", "7월", "a", "&"]
    shades = re.findall(r'fill-opacity="([0-9.]+)"', drawing)
    assert shades == ["0.90", "0.10", "0.99"]  # what is next to nothing is not drawn
    described = next(element.text for element in svg.iter() if element.tag.endswith("desc"))
    assert described == "Looked most: a at <b>, & at 7월"
    left, top, width, height = map(float, svg.attrib["viewBox"].split())
    for cell in svg.iter():
        if cell.tag.endswith("rect"):
            assert left <= float(cell.attrib["x"]) < width
            assert top <= float(cell.attrib["y"]) < height


def test_long_words_stand_upright():
    assert "rotate(-90" in attention_plot(["september", "2"], ["09"], [[1.0, 0.0]], "map", "t")
    assert "rotate(-90" not in attention_plot(["9", "2"], ["september"], [[1.0, 0.0]], "map", "t")
