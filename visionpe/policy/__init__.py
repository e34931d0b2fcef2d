"""Resolution policies: what a model does at sizes that it was not trained at.

``grammar`` reads names such as ``"yarn(0.25, 1)+temperature"``, ``functions`` are what the names stand for (pure, the
identity at the trained size), ``holder`` is the part of a model that has a policy, ``apply`` sets one on a whole model,
``choose`` finds the best without labels by the rule in ``selection``, ``table`` keeps one for each image size.
"""

from visionpe.policy.apply import build_policy, policies, set_policy
from visionpe.policy.choose import choose_policy
from visionpe.policy.grammar import parse_policy
from visionpe.policy.selection import PolicyChoice
from visionpe.policy.table import PolicyTable

__all__ = [
    "PolicyChoice",
    "PolicyTable",
    "build_policy",
    "choose_policy",
    "parse_policy",
    "policies",
    "set_policy",
]
