"""Asking the old version: what is found out after suspicion, and what it proves.

Where both versions may serve at once, an ask *mixes*: the new one gets a quarter of the traffic, and the
comparison decides on errors from then on alone. Where they may not, it goes by *blocks* of some seconds, each
served by one version that a coin chooses when the block starts. If the versions are alike, errors in a block
do not depend on the coin, so `1 / (1/4 + 3/4 / L)` for a block of the new version and `1 / (L/4 + 3/4)` for
one of the old have the mean one whatever happened in it (L: how much likelier its errors are at the suspected
odds than at the old version's usual rate). Their product is a test martingale. Looking at what a switch back
changes would not do: a burst that ends at the switch would convict the new version.
"""

import math
from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec.structs import replace

from gateway.core.judge.comparison import Comparison
from gateway.core.judge.statistics import ODDS, wilson_interval
from gateway.core.judge.suspicion import ALARM, LEAST_RATE, Suspicion
from gateway.core.judge.tallies import Fall, Tally
from gateway.core.judge.users import Users

MIXED_PERCENT: Final = 25
"""The new version's share in an ask that mixes."""
FROM_PERCENT: Final = 50
"""From this share on suspicion leads to an ask; below, the comparison is quick and less is at stake."""
MAX_ASKS: Final = 3
"""Asks in one rollout; then a person is asked."""
MIX_S: Final = 180.0
"""An ask that mixes lasts no longer, and no ask waits longer for the end of what both suffer from."""
BLOCKS_S: Final = 900.0
"""Blocks go on no longer."""
NEW_CHANCE: Final = 0.25
"""The coin's chance of the new version."""
BLOCK_S: Final = 10.0
LONG_BLOCK_S: Final = 30.0
BLOCK_ANSWERS: Final = 50
"""A block is longer than `BLOCK_S`, up to `LONG_BLOCK_S`, until so many were answered."""
DROPPED_S: Final = 1.0
"""A block's first second still has requests of the one before in it."""
DUE: Final = 5.0
"""So many errors must have been due on the new version, at the suspected rate, before it can be cleared."""
LAST_DUE: Final = 1.0
"""Or so many when its time is over."""
NOT_REPRODUCED: Final = 3
"""Or so many times as many, of which less than one in so many came."""
DEATH_ANSWERS: Final = 20
DEATH_RATE: Final = 0.9


class Block(msgspec.Struct, frozen=True, array_like=True):
    """One stretch of an ask in which one version serves."""

    is_new: bool
    generation: int | None = None
    """The weights it serves by; None until every worker does."""
    seconds: float = 0.0
    """Since then."""
    tally: Tally = Tally()
    """The chosen version's, the first second left out."""
    suspicion: Suspicion = Suspicion()
    is_cut: bool = False
    """Whether errors were so many that no more are counted: the next block may begin."""
    is_drawn: bool = True
    """Whether a coin chose it; what else chose proves nothing by the coin."""


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """One ask: what it has seen so far."""

    number: int
    """1 for the rollout's first."""
    mixes: bool
    rate: float
    """The old version's usual error rate as it began, as a fraction."""
    suspected: float
    """The new version's, as it is suspected."""
    seconds: float = 0.0
    """Observed, since the weights are in force."""
    new: Tally = Tally()
    old: Tally = Tally()
    is_old_failing: bool = False
    """Whether the old version fails far more than usual at the moment."""
    comparison: Comparison = Comparison()
    users: Users = Users()
    is_dead: bool = False
    """Whether the new version failed nearly everything: then the first block is the old one's, without a
    coin. If the old one works the next is the new one's, to see whether it is dead still: two seconds in
    which everything failed, whatever served, would else convict it."""
    blocks: tuple[Block, ...] = ()

    @property
    def block(self) -> Block:
        """The block under way."""
        return self.blocks[-1]

    @property
    def most_s(self) -> float:
        """How long it may last, in observed seconds."""
        return MIX_S if self.mixes else BLOCKS_S

    @property
    def due(self) -> float:
        """How many errors the suspected rate would have brought on the new version."""
        if self.mixes:
            return self.new.answers * self.suspected
        return sum([block.tally.answers for block in self._counted() if block.is_new]) * self.suspected

    @property
    def statistic(self) -> float:
        """How many times likelier it all is if the new version is worse: a test martingale from one on."""
        return self.comparison.value if self.mixes else _blocks_value(self._counted(), self.rate)

    def _counted(self) -> tuple[Block, ...]:
        return tuple([block for block in self.blocks if block.is_drawn])

    @property
    def rate_seen(self) -> float:
        """The highest rate that both together may have had while it was asked, as a fraction (95 %)."""
        both = self.new.plus(self.old.answers, self.old.errors)
        if not both.answers:
            return 0.0
        return min(wilson_interval(both.errors, both.answers)[1], 0.95)

    @property
    def is_cleared(self) -> bool:
        """Whether enough errors were due, and came to both alike, or did not come."""
        enough = DUE if self.seconds < self.most_s else LAST_DUE
        if self.due >= enough and self.statistic <= 1 + 1e-9:
            # What both suffer from is waited out here, where the old version has most of it.
            return not self.is_old_failing or self.seconds >= MIX_S
        return self.due >= NOT_REPRODUCED * DUE and self.errors * NOT_REPRODUCED <= self.due

    @property
    def errors(self) -> int:
        """Errors that came on the new version where they were due."""
        if self.mixes:
            return self.new.errors
        return sum([block.tally.errors for block in self._counted() if block.is_new])


def mixed(ask: Ask, new: list[Fall], old: list[Fall], seconds: float) -> Ask:
    """Return an ask that mixes after a window: the errors that fell on either version."""
    return replace(ask, comparison=ask.comparison.times(new, old, seconds))


def drawn(ask: Ask, *, is_new: bool) -> Ask:
    """Return the ask with its next block begun. is_new: what the coin said."""
    if ask.is_dead and not ask.blocks:
        return replace(ask, blocks=(Block(is_new=False, is_drawn=False),))
    if tries_again(ask):
        return replace(ask, blocks=(*ask.blocks, Block(is_new=True, is_drawn=False)))
    return replace(ask, blocks=(*ask.blocks, Block(is_new)))


def tries_again(ask: Ask) -> bool:
    """Whether the next block is the new version's whatever the coin says: it died, and the old one works."""
    return ask.is_dead and len(ask.blocks) == 1 and old_works(ask) is True


def is_dead_still(ask: Ask) -> bool:
    """Whether the new version died again when it was tried once more."""
    if not ask.is_dead or len(ask.blocks) != 2 or ask.block.is_drawn:
        return False
    tally = ask.block.tally
    is_enough = ask.block.is_cut or tally.answers >= DEATH_ANSWERS
    return is_enough and tally.errors >= DEATH_RATE * tally.answers


def in_force(ask: Ask, generation: int) -> Ask:
    """Return the ask once the weights of its block are."""
    if not ask.blocks:
        return ask
    return replace(ask, blocks=(*ask.blocks[:-1], replace(ask.block, generation=generation)))


def counted(ask: Ask, seconds: float, new: Mapping[int, Tally], old: Mapping[int, Tally]) -> Ask:
    """Return the ask after a window of the block under way.

    new, old: by generation, what either version did; what ends late counts for the block it was chosen in.
    """
    block = ask.block
    now = block.seconds + seconds
    earlier = [_late(each, new if each.is_new else old) for each in ask.blocks[:-1]]
    tally = (new if block.is_new else old).get(block.generation or -1, Tally())
    if block.seconds >= DROPPED_S and not block.is_cut:
        suspicion = block.suspicion.times(ask.rate, 1.0, tally.errors, tally.answers, seconds)
        counts = block.tally.plus(tally.answers, tally.errors)
        block = replace(block, tally=counts, suspicion=suspicion, is_cut=suspicion.value >= ALARM)
    return replace(ask, blocks=(*earlier, replace(block, seconds=now)))


def _late(block: Block, by_generation: Mapping[int, Tally]) -> Block:
    late = by_generation.get(block.generation or -1)
    if late is None or block.is_cut:
        return block
    return replace(block, tally=block.tally.plus(late.answers, late.errors))


def is_over(block: Block) -> bool:
    """Whether the next block may be drawn."""
    if block.generation is None or block.seconds < BLOCK_S:
        return block.is_cut
    return block.is_cut or block.tally.answers >= BLOCK_ANSWERS or block.seconds >= LONG_BLOCK_S


def old_works(ask: Ask) -> bool | None:
    """Whether the old version works, after the new one died; None: it has served too little to tell."""
    tally = ask.blocks[0].tally
    if tally.answers < DEATH_ANSWERS and not ask.blocks[0].is_cut:
        return None
    return tally.rate < 0.5


def _blocks_value(blocks: tuple[Block, ...], rate: float) -> float:
    rate = max(rate, LEAST_RATE)
    total = 0.0
    for odds in ODDS:
        log = 0.0
        for block in blocks:
            log += _coin_factor(block, rate, odds)
        total += math.exp(min(log, 600.0))
    return total / len(ODDS)


def _coin_factor(block: Block, rate: float, odds: float) -> float:
    """Return the log of what a block multiplies the statistic by."""
    tally = block.tally
    log = tally.errors * math.log(odds) - tally.answers * rate * (odds - 1)
    ratio = math.exp(max(min(log, 300.0), -300.0))
    if block.is_new:
        return -math.log(NEW_CHANCE + (1 - NEW_CHANCE) / ratio)
    return -math.log(NEW_CHANCE * ratio + 1 - NEW_CHANCE)
