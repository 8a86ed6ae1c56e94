"""How far estimates of output are off where the truth is known.

The truth are counts of tiktoken and of others' tokenizers over the texts in
`bench/data/token_vectors.json`, none of which the factors were fitted on. Anthropic and xAI
publish no vocabulary, so there is nothing to compare with for theirs.

    python -m bench.estimates [--each]
"""

import argparse
import json
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.figures import table
from opencode_gate.catalog.token_counter import TokenCounter

VECTORS = Path(__file__).parent / "data" / "token_vectors.json"
MODELS = {
    "o200k": "gpt-5.4",
    "cl100k": "gpt-4-turbo",
    "gemma": "gemini-3.8-flash",
    "llama3": "llama-3.3-70b",
    "deepseek": "deepseek-v3",
    "qwen": "qwen3-coder",
    "mistral": "mistral-large",
    "glm": "glm-4.5",
    "kimi": "kimi-k2",
}
"""A model of each family whose vocabulary is known."""


@dataclass(frozen=True, slots=True)
class Vector:
    """A text and its true number of tokens, by family."""

    name: str
    text: str
    tokens: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Errors:
    """Relative errors of one family's estimates, by the name of the text."""

    by_name: Mapping[str, float]

    @property
    def median(self) -> float:
        """The middle of their sizes."""
        return statistics.median(abs(error) for error in self.by_name.values())

    @property
    def worst(self) -> tuple[str, float]:
        """The largest, and where."""
        return max(self.by_name.items(), key=lambda item: abs(item[1]))


def vectors() -> list[Vector]:
    """The texts, with their truth."""
    document = json.loads(VECTORS.read_text(encoding="utf-8"))
    return [Vector(**vector) for vector in document["vectors"]]


def errors(family: str, found: list[Vector]) -> Errors:
    """What the product's counter makes of the texts."""
    counter = TokenCounter()
    return Errors(
        {
            vector.name: counter.count(vector.text, MODELS[family]) / vector.tokens[family] - 1
            for vector in found
        }
    )


def errors_by_length(family: str, found: list[Vector]) -> Errors:
    """What four characters a token would make of them."""
    return Errors(
        {vector.name: len(vector.text) / 4 / vector.tokens[family] - 1 for vector in found}
    )


def _percent(error: float) -> str:
    return f"{error:+.1%}" if error else "0 %"


def main() -> None:
    """Prints the table, with `--each` also a line for each text."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--each", action="store_true", help="also each text")
    arguments = parser.parse_args()
    found = vectors()
    rows = []
    for family in MODELS:
        counted, by_length = errors(family, found), errors_by_length(family, found)
        name, worst = counted.worst
        rows.append(
            [
                family,
                f"{counted.median:.1%}",
                f"{_percent(worst)} ({name})" if worst else "0 %",
                f"{by_length.median:.1%}",
                _percent(by_length.worst[1]),
            ]
        )
    print(table(["family", "median", "worst", "median by length", "worst by length"], rows))
    if arguments.each:
        each = {family: errors(family, found).by_name for family in MODELS}
        lines = [[v.name, *(_percent(each[family][v.name]) for family in MODELS)] for v in found]
        print()
        print(table(["text", *MODELS], lines))


if __name__ == "__main__":
    main()
