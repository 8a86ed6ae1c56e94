"""Fits the factors of `opencode_gate/catalog/token_families.py` to texts of one's own.

    uv run --with splintr-rs --with numpy --with scipy \
        python scripts/fit_token_ratios.py FOLDER...

Every readable file below the folders is a text; take code, documents and translations alike, and
none of `bench/data/token_vectors.json`, which is there to be measured with. Prints the table.
"""

import argparse
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from opencode_gate.catalog.token_counter import tokens_by_class
from opencode_gate.catalog.vocabulary import Vocabulary

FAMILIES = {
    "cl100k": "cl100k_base",
    "llama3": "llama3",
    "deepseek": "deepseek_v3",
    "mistral": "mistral_v3",
    "qwen": "qwen3",
    "gemma": "gemma3",
    "glm": "glm4",
    "kimi": "kimi_k2",
}
"""By what splintr-rs calls their vocabularies."""
TEXT_CHARS = 4000
_ROUNDS = 12
_PULL = 0.05
"""Towards the middle of all classes, for one that hardly occurs."""


def texts(folders: list[Path]) -> Iterator[str]:
    """The beginning of each file that is text and long enough to say something."""
    for folder in folders:
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            try:
                text = file.read_text(encoding="utf-8")[:TEXT_CHARS]
            except (UnicodeDecodeError, OSError):
                continue
            if len(text) >= 200:
                yield text


def fitted(counts: Any, truth: Any) -> Any:
    """The factors with the least relative error, less moved by the few texts far off."""
    numpy, optimize = import_module("numpy"), import_module("scipy.optimize")
    weights = numpy.ones(len(truth))
    pull = _PULL * numpy.eye(counts.shape[1])
    middle = _PULL * numpy.median(truth / counts.sum(axis=1)) * numpy.ones(counts.shape[1])
    factors = middle
    for _ in range(_ROUNDS):
        scale = weights / truth
        factors, _ = optimize.nnls(
            numpy.vstack([counts * scale[:, None], pull]),
            numpy.concatenate([truth * scale, middle]),
        )
        errors = numpy.abs(counts @ factors / truth - 1)
        weights = 1 / numpy.sqrt(numpy.maximum(errors, 0.05))
    return factors


def _counter(name: str) -> Callable[[str], int]:
    tokenizer = import_module("splintr").Tokenizer.from_pretrained(name)
    return lambda text: len(tokenizer.encode(text))


def main() -> None:
    """Counts every text in every vocabulary and prints a line for each family."""
    numpy = import_module("numpy")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+")
    found = list(texts(parser.parse_args().folders))
    vocabulary = Vocabulary()
    counts = numpy.array(
        [list(tokens_by_class(vocabulary.counts(text)).values()) for text in found], dtype=float
    )
    for family, name in FAMILIES.items():
        count = _counter(name)
        truth = numpy.array([count(text) for text in found], dtype=float)
        print(family, " ".join(f"{factor:.2f}" for factor in fitted(counts, truth)))


if __name__ == "__main__":
    main()
