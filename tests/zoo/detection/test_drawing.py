"""Boxes and their text on pictures of all sizes, with names in any script."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from zoonet.zoo.detection.drawing import class_color, draw_boxes


def drawn(text: str, size: tuple[int, int] = (200, 100)) -> np.ndarray:
    box = np.array([[0.1 * size[0], 0.3 * size[1], 0.9 * size[0], 0.9 * size[1]]])
    return np.asarray(draw_boxes(Image.new("RGB", size), box, [text], [class_color(0)]))


def test_names_in_other_scripts_are_not_drawn_as_empty_boxes() -> None:
    pytest.importorskip("matplotlib")  # comes with a font that has Cyrillic
    assert (drawn("кошка") != drawn("собак")).any()
    assert (drawn("Straße") != drawn("Stra\U0010fffee")).any()
    nothing_has_it = "\U0010fffd\U0010fffd cat"
    np.testing.assert_array_equal(drawn(nothing_has_it)[:, 100:], drawn("?? cat")[:, 100:])


def test_text_is_cut_to_the_picture_and_kept_on_one_line() -> None:
    whole = drawn("a very long name " * 30)
    assert (whole == class_color(0)).all(-1)[:, -1].any()  # its ground reaches the edge
    np.testing.assert_array_equal(drawn("a\n\tcat"), drawn("a cat"))


def test_a_tiny_picture_has_its_box_without_text() -> None:
    small = drawn("cat", (20, 12))
    edge = (small == class_color(0)).all(-1)
    assert edge.any()
    assert not small[5:9, 5:15].any()


def test_a_box_can_be_seen_on_noise_of_any_lightness() -> None:
    """Beside the coloured line lies one of the opposite lightness."""
    for level in (0, 128, 255):
        picture = Image.new("RGB", (300, 200), (level,) * 3)
        pixels = np.asarray(draw_boxes(picture, np.array([[20, 50, 250, 180]]), ["x"], [class_color(5)]))
        row = pixels[120, 15:40].astype(int).sum(-1)
        assert np.ptp(row) > 200
