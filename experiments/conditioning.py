"""Noise conditioning x decay: does EqM beat flow matching, and without noise conditioning?

Four fields, with and without noise conditioning: the constant decay (flow matching) or the truncated
decay of EqM, with the paper's multiplier, and EqM with multiplier 1. A field without noise conditioning
is sampled by the best sampler of the harness. A noise-conditioned field takes as many steps, even in
gamma: x -= d gamma / c(gamma) * f(x, gamma).
"""

from harness import CONSTANT, EQM, FLOW, ONE, Bench, distances, run
from verdict import Verdict, compare, margins

PAPER = {
    "conditioned, constant (flow matching)": 36.68,
    "conditioned, truncated": 41.89,
    "unconditioned, constant": 40.81,
    "unconditioned, truncated (EqM)": 32.85,
    "unconditioned, truncated, multiplier 1": 38.3,
}
VARIANTS = dict(
    zip(PAPER, (FLOW, {"model.noise_conditioning": True}, CONSTANT, EQM, ONE), strict=True)
)


def conditioning(bench: Bench) -> str:
    found = distances(bench, VARIANTS)
    flow, conditioned, constant, ours, one = found[0].values()
    verdicts = (
        Verdict(
            "EqM beats flow matching without noise conditioning.",
            "32.85 against 40.81",
            margins(constant, ours),
        ),
        Verdict(
            "EqM beats noise-conditioned flow matching.",
            "32.85 against 36.68",
            margins(flow, ours),
        ),
        Verdict("Noise conditioning hurts EqM.", "41.89 against 32.85", margins(conditioned, ours)),
        Verdict(
            "Noise conditioning helps flow matching.",
            "36.68 against 40.81",
            margins(constant, flow),
        ),
        Verdict(
            "With multiplier 1 EqM beats noise-conditioned flow matching.",
            "38.3 against 36.68 (it does not)",
            margins(flow, one),
        ),
    )
    return compare(bench, "conditioning", "Noise conditioning x decay", found, PAPER, verdicts)


if __name__ == "__main__":
    run(conditioning, VARIANTS)
