"""How many processes were lost while they were at a trial or a finalist, and what that says."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Losses:
    """Processes that ended without a word.

    Attributes:
        lost: One after the other without having come an epoch further: the attempts that count. A
            machine that is restarted every day costs no work that goes on meanwhile.
        reached: How many epochs it had come to when one was last lost.
        in_all: Since the beginning.
    """

    lost: int = 0
    reached: int = 0
    in_all: int = 0

    def one_more(self, reached: int) -> Losses:
        """Return what is known now that one more was lost, after so many epochs.

        >>> Losses(lost=2, reached=3, in_all=2).one_more(4)
        Losses(lost=1, reached=4, in_all=3)
        >>> Losses(lost=1, reached=4, in_all=3).one_more(4)
        Losses(lost=2, reached=4, in_all=4)
        """
        lost = 1 if reached > self.reached else self.lost + 1
        return Losses(lost, max(reached, self.reached), self.in_all + 1)

    @property
    def signs_of_want(self) -> int:
        """How many are taken for a sign that memory is short.

        The system answers want of memory by killing, mostly at the same place. Of those that were
        lost here and there, for any reason, every second one counts.

        >>> [Losses(1, 0, in_all).signs_of_want for in_all in (1, 2, 3, 5)]
        [1, 1, 2, 3]
        """
        return max(self.lost, (self.in_all + 1) // 2)
