"""Which vocabulary a model's text is counted with, and how the others differ from it.

The idea: all of them are byte pair encodings over much the same text of the world, so the count
in one, taken apart by script, tells that in another by a factor for each script. Fitted by
`scripts/fit_token_ratios.py` on code, documents and translations; `bench/estimates.py` shows how
far off it is. Anthropic and xAI publish no vocabulary: theirs is one factor, and what the user's
own answers came to corrects it (`ledger/calibration.py`).
"""

import re

import msgspec

SCRIPTS = (
    ("vietnamese", "\u1e00-\u1eff\u01a0-\u01b0"),
    ("latin", "\u00c0-\u024f"),
    ("ukrainian", "\u0400-\u040f\u0450-\u052f"),
    ("cyrillic", "\u0410-\u044f"),
    ("greek", "\u0370-\u03ff\u1f00-\u1fff"),
    ("hebrew", "\u0590-\u05ff"),
    ("arabic", "\u0600-\u06ff\u0750-\u077f"),
    ("devanagari", "\u0900-\u097f"),
    ("indic", "\u0980-\u0dff"),
    ("thai", "\u0e00-\u0e7f"),
    ("southeast", "\u0e80-\u0fff\u1000-\u109f\u1780-\u17ff"),
    ("kana", "\u3040-\u30ff"),
    ("han", "\u3400-\u9fff"),
    ("hangul", "\uac00-\ud7af"),
    ("caucasian", "\u0530-\u058f\u10a0-\u10ff"),
)
"""Names and ranges of what is told apart beyond ASCII. A piece belongs to the first of its letters
that is in one: `latin` are words with accents, `ukrainian` those with letters Russian lacks."""
CLASSES = ("ascii", "foreign", "space", "digits", *(name for name, _ in SCRIPTS), "other")
"""`foreign` are words of plain letters in a text that is not English, `ascii` all others."""

_RATIOS = {
    name: tuple(float(ratio) for ratio in ratios.split())
    for name, ratios in (
        (
            "cl100k",
            "0.99 1.11 1.00 1.00 1.96 1.42 4.31 1.59 2.60 2.59 2.26 2.74 "
            "3.45 2.21 1.39 1.49 1.40 1.59 5.55 1.13",
        ),
        (
            "llama3",
            "0.99 1.16 1.03 0.99 0.84 1.07 0.00 1.19 1.05 2.58 1.12 1.48 "
            "3.44 1.15 1.39 0.94 0.98 1.06 5.17 1.18",
        ),
        (
            "deepseek",
            "1.08 1.15 0.94 0.93 1.74 1.18 3.22 1.11 1.31 1.25 1.20 1.69 "
            "1.19 0.93 0.78 1.01 0.82 1.19 1.77 1.01",
        ),
        (
            "mistral",
            "1.04 1.08 0.98 1.89 1.05 0.98 1.32 1.02 1.07 1.14 0.95 1.29 "
            "1.22 1.29 1.42 0.92 1.25 0.98 1.18 1.01",
        ),
        (
            "qwen",
            "0.99 1.12 0.98 1.90 0.73 1.32 4.76 1.28 2.53 1.01 1.26 2.52 "
            "2.96 1.35 0.94 0.98 0.89 1.16 2.94 1.01",
        ),
        (
            "gemma",
            "1.08 1.05 1.48 1.86 0.96 0.87 1.00 0.95 1.04 1.24 1.05 0.86 "
            "0.70 0.78 0.55 0.60 0.81 0.92 1.37 1.04",
        ),
        (
            "glm",
            "0.99 1.11 0.99 1.29 0.91 1.14 2.46 1.09 1.15 2.59 1.27 2.74 "
            "3.45 2.21 1.38 0.99 0.92 1.40 5.55 1.12",
        ),
        (
            "kimi",
            "1.00 1.20 1.01 0.97 2.59 1.37 0.70 1.34 1.68 1.56 1.54 1.64 "
            "1.75 1.85 0.65 1.03 0.87 1.39 1.82 1.04",
        ),
    )
}
"""Tokens for each token of o200k_base, by class."""


class Family(msgspec.Struct, frozen=True):
    """Models that cut text alike.

    Attributes:
        ratios: tokens for each token of o200k_base, in the order of `CLASSES`.
        is_public: their vocabulary is known; otherwise the factor is the vendor's word for it.
    """

    name: str
    ratios: tuple[float, ...]
    is_public: bool = True

    @property
    def is_exact(self) -> bool:
        """Whether the count needs no factor."""
        return all(ratio == 1.0 for ratio in self.ratios)


def _alike(name: str, ratio: float, *, is_public: bool = False) -> Family:
    return Family(name, (ratio,) * len(CLASSES), is_public)


O200K = _alike("o200k", 1.0, is_public=True)
UNKNOWN = _alike("unknown", 1.05)
"""The middle of the families below."""

FAMILIES: tuple[tuple[re.Pattern[str], Family], ...] = tuple(
    (re.compile(pattern), family)
    for pattern, family in (
        (r"gpt-4(?!o|\.|\d)|gpt-3\.5|gpt-35", Family("cl100k", _RATIOS["cl100k"])),
        (r"gpt|codex|(?:^|/)o[1-9](?:-|$)", O200K),
        # "A token approximately represents 3.5 English characters": o200k_base has 4.5 of them.
        # https://platform.claude.com/docs/en/about-claude/glossary
        (r"claude", _alike("claude", 1.3)),
        # google-genai (PyPI), local_tokenizer: the vendor counts for Gemini by Gemma's.
        (r"gemini|gemma", Family("gemma", _RATIOS["gemma"])),
        (r"deepseek", Family("deepseek", _RATIOS["deepseek"])),
        (r"qwen|qwq", Family("qwen", _RATIOS["qwen"])),
        (r"llama", Family("llama3", _RATIOS["llama3"])),
        (r"mi[ns]tral|codestral|devstral|pixtral", Family("mistral", _RATIOS["mistral"])),
        (r"kimi|moonshot", Family("kimi", _RATIOS["kimi"])),
        (r"(?:^|/)(?:glm|z-?ai)", Family("glm", _RATIOS["glm"])),
    )
)


def family_of(model: str | None) -> Family:
    """The family of a model by its id, whatever provider's prefix it carries."""
    if model is not None:
        lowered = model.lower()
        for pattern, family in FAMILIES:
            if pattern.search(lowered):
                return family
    return UNKNOWN
