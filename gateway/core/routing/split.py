"""Weights -> which version takes this request: exact, and in an order nobody can fall into step with.

Let version i have the share p_i, and number a worker's requests from 0. Two demands pull apart:

- *Exact.* After n requests version i has had more than n p_i - 1 and fewer than n p_i + 1 of them. So any
  window of n differs from n p_i by less than 2, and after a whole round (all n p_i integers) every count is
  exact.
- *Unpredictable.* A client that repeats a cycle of calls must not find the same call on the same version each
  time; a fixed order of ten turns would do just that to a cycle of ten.

Both hold if every place in the order is drawn by chance *within windows*: version i's k-th request (k = 1, 2,
…) is one of the requests floor((k - 1) / p_i) … ceil(k / p_i) - 1. That is the same as saying that its count
after n requests is n p_i rounded down or up, which is the first demand. Call a version *ahead* when its count
is the one rounded up.

Why a draw exists that is fair at every place: give each request p_i of its place to version i. Every window
then holds mass 1 and every place mass 1: a fractional perfect matching of turns and places, hence a mixture
of whole ones (Birkhoff and von Neumann), each of which keeps the windows. Drawing from the mixture puts
version i at any given place with probability exactly p_i, and rounds are independent: each call of a cycle is
split by the weights.

How it is drawn, one request at a time (f_i = n p_i - floor(n p_i); version i *crosses* if f_i + p_i >= 1):

- A version that crosses and is not ahead must take this request: its window ends.
- Two versions: i is ahead with probability f_i, which leaves one solution, `_two`.
- Three: one version is ahead, or all but one, so the f_i fix the chance of each state, and the chances of the
  moves solve a 3 x 3 transport problem, `_three`. It has a solution because the mixture above is one.
- Up to SEVERAL: the f_i no longer fix the chances of the states. `_several` draws by an estimate, and leans
  at each place of the round towards versions that have had less of that place than their share. The windows
  hold all the same: no draw is made that the rest could not follow.
- More: `_many` shuffles an order that keeps the windows, a few turns for each request, whatever their number.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from heapq import heapify, heappop, heappush
from itertools import accumulate, chain, count
from random import Random
from typing import Final

Draw = Callable[[], float]
"""Chance: the next number in [0, 1)."""
_Turn = tuple[int, int, int]
"""A version, and the first and the last request that may be this turn of it."""
_Move = tuple[float, float, tuple[int, ...]]
"""Of three versions: the draws under which the first takes it, and the first or second; who is ahead then."""

LEAN: Final = 0.2
"""How much more likely, as a power of e, a version becomes at a place that owes it one turn."""
MOST_LEAN: Final = 50.0
KEPT_LEANS: Final = 10_000
"""Places of a round times versions; a longer round goes without, for no cycle of calls is as long."""
KEPT_MOVES: Final = 4_096
"""Moves of three versions worked out once and kept: enough for weights in whole percents."""

SEVERAL: Final = 8
"""Up to so many versions a draw looks at each of them; with more, that would cost more than the request."""
AHEAD: Final = 64
"""Turns of many versions that are shuffled: about how much sooner or later chance makes a turn."""
STEPS: Final = 6
"""Pairs drawn for each request."""
_LEAPS: Final = [int(AHEAD ** (part / 32)) for part in range(32)]
"""How far apart they are: every scale alike, for windows may be short or long."""


def split(weights: Sequence[int], *, seed: str, phase: float = 0.0) -> Iterator[int]:
    """Yield for ever the index of the version that takes the next request.

    weights: positive integers; their ratios matter. seed: of the order. phase: in [0, 1), this worker's slot
    over the number of workers: workers with one seed begin on versions spread by the weights, not all on the
    heaviest.
    """
    if not weights or min(weights) <= 0:
        raise ValueError("a split needs weights, all of them above zero")
    unit = math.gcd(*weights)
    reduced = [weight // unit for weight in weights]
    first = (Random(seed).random() + phase) % 1.0
    draw: Draw = chain((first,), iter(Random(f"{seed}|{phase}").random, None)).__next__
    if len(reduced) == 1:
        return iter(int, 1)
    if len(reduced) == 2:
        return _two(reduced[0], sum(reduced), draw)
    if len(reduced) == 3:
        return _three(reduced, draw)
    if len(reduced) <= SEVERAL:
        return _several(reduced, draw)
    return _many(reduced, draw)


def _two(weight: int, total: int, draw: Draw) -> Iterator[int]:
    """Two versions, the first with `weight` of `total`. part: f of the first, in units of 1/total."""
    part, ahead = 0, False
    while True:
        part += weight
        if part < total:
            if ahead or draw() * (total - part + weight) >= weight:
                yield 1
            else:
                ahead = True
                yield 0
            continue
        part -= total
        if not ahead or draw() * (part + total - weight) < part:
            yield 0
        else:
            ahead = False
            yield 1


def _three(weights: Sequence[int], draw: Draw) -> Iterator[int]:
    """Three versions. ahead: who is, as bits."""
    total = sum(weights)
    known: dict[tuple[int, int], _Move] = {}
    while True:
        ahead = 0
        for now in range(total):
            move = known.get((now, ahead))
            if move is None:
                if len(known) >= KEPT_MOVES:
                    known.clear()
                move = known[now, ahead] = _move_of_three(weights, total, now, ahead)
            first, second, then = move
            at = draw()
            chosen = 0 if at < first else 1 if at < second else 2
            ahead = then[chosen]
            yield chosen


def _move_of_three(weights: Sequence[int], total: int, now: int, ahead: int) -> _Move:
    """Return the move from a state: who takes request number `now`, and who is ahead after it."""
    parts = [now * weight % total for weight in weights]
    crossing = [part + weight >= total for part, weight in zip(parts, weights, strict=True)]
    is_ahead = [bool(ahead >> index & 1) for index in range(3)]
    chances = _chances_of_three(weights, total, parts, crossing, is_ahead)
    whole = sum(chances)
    first = chances[0] / whole if chances[1] or chances[2] else 1.0
    second = (chances[0] + chances[1]) / whole if chances[2] else 1.0
    then = []
    for chosen in range(3):
        mask = 0
        for index in range(3):
            takes = index == chosen
            stays = (is_ahead[index] and takes) if crossing[index] else (is_ahead[index] or takes)
            mask |= stays << index
        then.append(mask)
    return first, second, tuple(then)


def _chances_of_three(
    weights: Sequence[int], total: int, parts: Sequence[int], crossing: Sequence[bool], ahead: Sequence[bool]
) -> list[float]:
    """Return how likely each takes the request (in any unit), so that over all states each has its share.

    parts: the f_i in units of 1/total; they sum to 0, 1 or 2 totals, as many as are ahead.
    """
    if sum(parts) == 0:
        return list(weights)
    for index in range(3):
        if crossing[index] and not ahead[index]:
            return [float(each == index) for each in range(3)]
    if sum(ahead) == 1 and not any(crossing):
        return _exchange(weights, parts, ahead.index(True))
    # Left are the states in which nobody's window ends; `mass` is the chance of this one. Out of it those
    # behind take exactly their shares; those that cross divide the rest, each to stay ahead as it must.
    mass = parts[ahead.index(True)] if sum(ahead) == 1 else total - parts[ahead.index(False)]
    spare = mass - sum(weight for weight, is_ahead in zip(weights, ahead, strict=True) if not is_ahead)
    kept = [parts[index] + weights[index] - total if crossing[index] else 0 for index in range(3)]
    whole = sum(kept) or 1
    return [spare * kept[index] / whole if ahead[index] else weights[index] for index in range(3)]


def _exchange(weights: Sequence[int], parts: Sequence[int], one: int) -> list[float]:
    """Return how likely each moves ahead when only `one` is, and nobody crosses: one of the two others does.

    Who is ahead (with chances `parts`) and who comes next (with chances `weights`) is a 3 x 3 transport
    problem with an empty diagonal. One number settles it: the flow from 0 to 1. We take the middle of what is
    possible.
    """
    others = weights[0] + weights[1] - parts[2]
    low = max(0, weights[1] - parts[2], others - parts[1])
    high = min(parts[0], weights[1], others)
    flow = (low + high) / 2
    return [
        [0.0, flow, parts[0] - flow],
        [others - flow, 0.0, parts[1] - others + flow],
        [parts[2] - weights[1] + flow, weights[1] - flow, 0.0],
    ][one]


def _several(weights: Sequence[int], draw: Draw) -> Iterator[int]:
    """Four versions to SEVERAL.

    slack[d]: requests before the d-th that no window ending by then needs. A turn may be taken only if
    that leaves no slack negative (Hall's condition for windows). The turn whose window ends first always
    may: were the slack of an earlier d nothing, then windows that begin after this request would fill
    every place up to d, this one included; but the windows within a stretch never outnumber its places.
    So a draw is never stuck.
    """
    total = sum(weights)
    unneeded = _slack_of_a_round(weights, total)
    rises = [math.exp(LEAN * weight / total) for weight in weights]
    fall = math.exp(-LEAN)
    leans = [[1.0] * len(weights) for _ in range(total if total * len(weights) <= KEPT_LEANS else 0)]
    while True:
        slack = unneeded[:]
        counts = [0] * len(weights)
        for now in range(total):
            candidates, chances = _estimates(weights, total, now, counts)
            if leans:
                lean = leans[now]
                chances = [chance * lean[index] for index, chance in zip(candidates, chances, strict=True)]
            while True:
                place = _drawn(range(len(candidates)), chances, draw)
                chosen = candidates[place]
                end = -(-(counts[chosen] + 1) * total // weights[chosen])
                if 0 not in slack[now + 1 : end]:
                    break
                del candidates[place], chances[place]
            for before in range(now + 1, end):
                slack[before] -= 1
            counts[chosen] += 1
            if leans:
                leans[now] = [min(each * rise, MOST_LEAN) for each, rise in zip(lean, rises, strict=True)]
                leans[now][chosen] = max(leans[now][chosen] * fall, 1 / MOST_LEAN)
            yield chosen


def _slack_of_a_round(weights: Sequence[int], total: int) -> list[int]:
    """Return, for d from 0 to `total`, d less the windows that end by d."""
    ends = [0] * (total + 1)
    for weight in weights:
        for turn in range(1, weight + 1):
            ends[-(-turn * total // weight)] += 1
    return [d - ended for d, ended in enumerate(accumulate(ends))]


def _estimates(
    weights: Sequence[int], total: int, now: int, counts: Sequence[int]
) -> tuple[list[int], list[float]]:
    """Return who may take request number `now` and about how likely each should, given who is ahead."""
    behind: list[tuple[int, float]] = []
    crossing: list[tuple[int, float]] = []
    ahead = 0
    crossed = 0.0
    for index, weight in enumerate(weights):
        done, part = divmod(now * weight, total)
        is_ahead = counts[index] > done
        ahead += is_ahead
        after = part + weight - total
        if after < 0:
            if not is_ahead:
                behind.append((index, 1 - part / total))
        elif not is_ahead:
            return [index], [1.0]
        elif after > 0:
            crossing.append((index, after / total))
        if after >= 0:
            crossed += 1 - part / total
    others = len(weights) - ahead - 1
    chances = []
    for index, mass in behind:
        # mass: the chance of being behind; free: less the chance that it is while some other window ends.
        free = mass * (1 - others * crossed / (others + 1 - mass)) if others + 1 > mass else mass
        share = weights[index] / total
        chances.append(share / max(free, share))
    spare = max(0.0, 1 - sum(chances))
    whole = sum(after for _, after in crossing) or 1.0
    chances += [max(spare * after / whole, 1e-9) for _, after in crossing]
    return [index for index, _ in behind + crossing], chances


def _many(weights: Sequence[int], draw: Draw) -> Iterator[int]:
    """More than SEVERAL versions, at a price that hardly grows with their number.

    The next AHEAD turns wait in an order that keeps their windows. For each request a few pairs of them are
    drawn, and change places if both may: each change is as likely as its reverse, so no order that keeps the
    windows is preferred to another. And all of them can be reached: a turn that stands where one that ends
    sooner could may always change places with it, which leads from any order to that by deadline, and back.
    """
    coming = _by_deadline(weights, draw)
    turns = _first_turns(coming, first=_drawn(range(len(weights)), weights, draw))
    pairs = AHEAD * len(_LEAPS)
    steps = AHEAD * STEPS
    for now in count():
        end = now + AHEAD
        for _ in range(steps):
            drawn = int(draw() * pairs)
            one = now + drawn % AHEAD
            other = one + _LEAPS[drawn // AHEAD]
            if other < end and turns[one % AHEAD][2] >= other and turns[other % AHEAD][1] <= one:
                turns[one % AHEAD], turns[other % AHEAD] = turns[other % AHEAD], turns[one % AHEAD]
        steps = STEPS
        version = turns[now % AHEAD][0]
        turns[now % AHEAD] = next(coming)
        yield version


def _first_turns(coming: Iterator["_Turn"], *, first: int) -> list["_Turn"]:
    """Return the first AHEAD turns, turn n at n % AHEAD; version `first` in front if the windows allow."""
    turns = [next(coming) for _ in range(AHEAD)]
    versions = [version for version, _, _ in turns]
    if first in versions:
        place = versions.index(first)
        if turns[place][1] == 0 and all(turns[each][2] > each for each in range(place)):
            turns.insert(0, turns.pop(place))
    return turns


def _by_deadline(weights: Sequence[int], draw: Draw) -> Iterator[_Turn]:
    """Yield turns, those whose window ends first first.

    That keeps every window (earliest deadline first does if anything can); windows that end together are
    taken by chance. There is always one to yield: by request n, counted from 0, ceil((n + 1) p_i) windows of
    version i have begun, together more than n.
    """
    total = sum(weights)
    for start in count(0, total):
        open_now = [(-(-total // weight) - 1, draw(), version) for version, weight in enumerate(weights)]
        heapify(open_now)
        opening: dict[int, list[int]] = {}
        counts = [0] * len(weights)
        for now in range(total):
            for version in opening.pop(now, ()):
                end = -(-(counts[version] + 1) * total // weights[version]) - 1
                heappush(open_now, (end, draw(), version))
            end, _, version = heappop(open_now)
            yield version, start + counts[version] * total // weights[version], start + end
            counts[version] += 1
            if counts[version] < weights[version]:
                begin = counts[version] * total // weights[version]
                opening.setdefault(max(begin, now + 1), []).append(version)


def _drawn(items: Sequence[int], chances: Sequence[float], draw: Draw) -> int:
    """Return one of `items`, each as likely as its part of `chances` (not all zero)."""
    at = draw() * sum(chances)
    for item, chance in zip(items, chances, strict=True):
        at -= chance
        if at < 0:
            return item
    return max(zip(chances, items, strict=True))[1]
