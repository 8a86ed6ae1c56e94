"""Search over thousands of lines at the speed of typing.

The idea: every line's text is lowercased once; a keystroke only asks `in`. The invariant: when
the words only got longer, only what matched before is looked at again, so a keystroke never
costs more than one pass over the list.
"""

from collections.abc import Sequence

_SQUEEZED = str.maketrans("", "", "-_. /:")


def haystack(*texts: str) -> str:
    """The text a line is found by; `gpt5` finds `gpt-5` too."""
    plain = " ".join(texts).lower()
    return f"{plain} {' '.join(text.lower().translate(_SQUEEZED) for text in texts)}"


class Matcher:
    """The lines that contain every word typed, those that begin with the first one on top."""

    def __init__(self, haystacks: Sequence[str]) -> None:
        self._haystacks = haystacks
        self._words: tuple[str, ...] = ()
        self._found: Sequence[int] = range(len(haystacks))

    def search(self, typed: str) -> Sequence[int]:
        """Indexes of the matching lines in the order to show them."""
        words = tuple(typed.lower().split())
        if not self._narrows(words):
            self._found = range(len(self._haystacks))
        if words != self._words:
            lines = self._haystacks
            found = [i for i in self._found if all(word in lines[i] for word in words)]
            self._words, self._found = words, found
        return self._ranked(words[0]) if words else self._found

    def _ranked(self, word: str) -> Sequence[int]:
        """What is called just that, then what begins with it, then the rest, each in order."""
        lines, whole, inside = self._haystacks, f"{word} ", f" {word}"
        tiers: tuple[list[int], list[int], list[int]] = ([], [], [])
        for i in self._found:
            line = lines[i]
            if line.startswith(whole):
                tiers[0].append(i)
            elif line.startswith(word) or inside in line:
                tiers[1].append(i)
            else:
                tiers[2].append(i)
        return tiers[0] + tiers[1] + tiers[2]

    def _narrows(self, words: tuple[str, ...]) -> bool:
        """True when whatever matches `words` has matched the words before."""
        if len(words) < len(self._words):
            return False
        return all(old in new for old, new in zip(self._words, words, strict=False))
