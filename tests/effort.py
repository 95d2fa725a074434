"""How much the tests try, by the profile that HYPOTHESIS_PROFILE names.

`quick` (the default) is for whoever changes something; `ci` tries more of the same, `deep` much more. Each
makes every check: they differ in examples, rounds and requests.
"""

import os
from typing import Final

PROFILE: Final = os.environ.get("HYPOTHESIS_PROFILE", "quick")
PROFILES: Final = ("quick", "ci", "deep")


def effort(*amounts: int) -> int:
    """Return which of the amounts (quick, ci, deep) is asked for; the last also stands for those after it."""
    return amounts[min(PROFILES.index(PROFILE), len(amounts) - 1)]
