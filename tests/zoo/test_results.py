"""What a model says: order, plain data, text for a terminal, HTML for a notebook."""

from __future__ import annotations

import html.parser
import json

import numpy as np
import pytest

from zoonet.zoo import Classification, Prediction, Results

LABELS = ("ant", "bee", "cat", "dog")


@pytest.fixture
def result() -> Classification:
    return Classification("a.png", np.array([0.25, 0.5, 0.0, 0.25]), LABELS)


def test_top(result: Classification) -> None:
    assert result.top(2) == [Prediction("bee", 0.5, 1), Prediction("ant", 0.25, 0)]
    assert [p.label for p in result.top()] == ["bee", "ant", "dog", "cat"]  # the first of equals first; all there are
    assert [p.label for p in result.top(np.int64(3))] == ["bee", "ant", "dog"]
    assert (result.label, result.score, result.index) == ("bee", 0.5, 1)
    assert str(result.top(1)[0]) == "bee 50.0%"


def test_plain_data(result: Classification) -> None:
    expected = {
        "source": "a.png",
        "top": [{"label": "bee", "score": 0.5, "index": 1}, {"label": "ant", "score": 0.25, "index": 0}],
    }
    assert result.to_dict(2) == expected
    assert json.loads(result.to_json(2)) == expected
    assert json.loads(Results([result, result]).to_json())[1]["top"][0] == expected["top"][0]  # type: ignore[index]


def test_text(result: Classification) -> None:
    assert repr(result).splitlines() == [
        "a.png",
        " 50.00%  ██████████            bee",
        " 25.00%  █████                 ant",
        " 25.00%  █████                 dog",
        "  0.00%                        cat",
    ]
    assert result.text(1).splitlines() == ["a.png", " 50.00%  ██████████            bee"]
    assert repr(Results([result, result])) == f"{result!r}\n\n{result!r}"


@pytest.mark.parametrize(("score", "bar"), [(1.0, "█" * 20), (0.025, "▌"), (0.05, "█"), (0.0561, "█▏"), (0.0, "")])
def test_bars_have_steps_of_an_eighth(score: float, bar: str) -> None:
    line = Classification("", np.array([score]), ("x",)).text().splitlines()[1]
    assert line == f"{score:7.2%}  {bar:<20}  x"


def test_control_characters_do_not_reach_the_terminal() -> None:
    text = Classification("a\x1b[2J.png", np.array([1.0]), ("\x07bell\nline",)).text()
    assert text.splitlines() == ["a\\x1b[2J.png", "100.00%  ████████████████████  \\x07bell\\nline"]


def test_html_is_escaped_and_closed() -> None:
    result = Classification("<b>.png", np.array([0.9, 0.1]), ("<script>", "a & b"))
    text = Results([result])._repr_html_()
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
    assert "a &amp; b" in text
    opened: list[str] = []

    class Checker(html.parser.HTMLParser):
        def handle_starttag(self, tag: str, attrs: object) -> None:
            opened.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert opened.pop() == tag

    Checker().feed(text)
    assert opened == []
    assert text.count("<tr>") == 2


def test_results_are_a_list(result: Classification) -> None:
    results = Results([result])
    results += [result]
    assert len(results) == 2
    assert [r.label for r in results] == ["bee", "bee"]
    assert results[0] is result
