"""Wording: what a plan was asked for, for people.

Stage: selection. In: what is wanted. Out: text.
"""

from prunecli.choices import Scope
from prunecli.removal import Choosing, Threshold, UnitsWanted
from prunecli.shares import percent


def in_words(wanted: UnitsWanted, choosing: Choosing) -> str:
    """What was asked for, as a sentence fragment."""
    said = []
    if wanted.target is not None:
        said.append(wanted.target.in_words())
    elif choosing.threshold is not None:
        said.append(_threshold_in_words(choosing.threshold))
    said += [f"remove {percent(rule.share)} of {rule.pattern}" for rule in choosing.rules]
    said += [f"keep {pattern}" for pattern in choosing.keep]
    return ", ".join(said)


def _threshold_in_words(threshold: Threshold) -> str:
    if threshold.dynamic:
        number = f"{threshold.value:g} standard deviations"
        return f"remove what scores at least {number} below the mean of its group"
    return f"remove what scores at most {threshold.value:g}"


def compared_in_words(choosing: Choosing) -> str:
    """Which scores are compared, and with which."""
    if choosing.threshold is not None:
        return "scores on the criterion's own scale, with the threshold"
    within = {
        Scope.GLOBAL: "over the whole network",
        Scope.LOCAL: "within each group",
        Scope.ISOMORPHIC: "within groups of the same topology",
    }
    return f"normalised scores, {within[choosing.scope]}"
