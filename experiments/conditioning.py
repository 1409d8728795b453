"""Noise conditioning x decay: does equilibrium matching beat flow matching, and does it do without the
noise level?

Four fields: told the noise level or not, with a constant decay (flow matching) or the truncated one of
equilibrium matching, at the multiplier of the paper and at 1. What is not told descends by the best of
the harness's samplers; what is told takes as many steps, even in gamma: x -= d gamma / c(gamma) * f(x, gamma).
"""

from harness import CONSTANT, EQM, FLOW, ONE, Bench, distances, run
from verdict import Verdict, compare, margins

PAPER = {
    "conditioned, constant (flow matching)": 36.68,
    "conditioned, truncated": 41.89,
    "unconditioned, constant": 40.81,
    "unconditioned, truncated (EqM)": 32.85,
    "the same at multiplier 1": 38.3,
}
VARIANTS = dict(
    zip(PAPER, (FLOW, {"model.noise_conditioning": True}, CONSTANT, EQM, ONE), strict=True)
)


def conditioning(bench: Bench) -> str:
    found = distances(bench, VARIANTS)
    flow, told, constant, ours, one = found[0].values()
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
        Verdict("Noise conditioning hurts EqM.", "41.89 against 32.85", margins(told, ours)),
        Verdict(
            "Noise conditioning helps flow matching.",
            "36.68 against 40.81",
            margins(constant, flow),
        ),
        Verdict(
            "With multiplier 1 EqM beats noise-conditioned flow matching.",
            "38.3 against 36.68: it does not",
            margins(flow, one),
        ),
    )
    return compare(bench, "conditioning", "Noise conditioning x decay", found, PAPER, verdicts)


if __name__ == "__main__":
    run(conditioning, VARIANTS)
