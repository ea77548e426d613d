"""How AWS decides on a request, as its documentation tells it: statements, wildcards, conditions. Pure.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html. Only what the policies here
use; anything else raises, so that a policy cannot pass because a part of it was not understood.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

Policy = Mapping[str, Any]


def is_allowed(
    action: str,
    resource: str,
    context: Mapping[str, str],
    *,
    identity: Iterable[Policy],
    on_resource: Iterable[Policy] = (),
) -> bool:
    """Whether a caller with the `identity` policies may do it: no statement denies it, and one allows it."""
    identity, on_resource = list(identity), list(on_resource)
    effects = [
        statement["Effect"]
        for policy in [*identity, *on_resource]
        for statement in _listed(policy["Statement"])
        if _applies(statement, action, resource, context)
    ]
    return "Deny" not in effects and "Allow" in effects


def _applies(statement: Mapping[str, Any], action: str, resource: str, context: Mapping[str, str]) -> bool:
    unknown = set(statement) - {"Sid", "Effect", "Principal", "Action", "Resource", "Condition"}
    if unknown or statement.get("Principal", "*") != "*":
        raise NotImplementedError(f"{unknown or statement['Principal']} in {statement}")
    return (
        any(_like(pattern, action, ignore_case=True) for pattern in _listed(statement["Action"]))
        and any(_like(pattern, resource) for pattern in _listed(statement["Resource"]))
        and all(
            _holds(operator, _listed(expected), context.get(key))
            for operator, tests in statement.get("Condition", {}).items()
            for key, expected in tests.items()
        )
    )


def _holds(operator: str, expected: list[Any], actual: str | None) -> bool:
    """Whether a condition holds. One on a key that the request does not carry does not, but for `Null`."""
    match operator:
        case "Null":
            return str(actual is None).lower() in [str(value).lower() for value in expected]
        case "StringEquals":
            return actual in expected
        case "StringLike":
            return actual is not None and any(_like(pattern, actual) for pattern in expected)
        case "Bool":
            return actual is not None and actual.lower() in [str(value).lower() for value in expected]
    raise NotImplementedError(operator)


def _like(pattern: str, text: str, *, ignore_case: bool = False) -> bool:
    """IAM's wildcards: `*` any characters, `?` one; `${*}`, `${?}` and `${$}` are those characters themselves."""
    parts = re.split(r"(\$\{[*?$]\}|\*|\?)", pattern)
    translated = {"*": ".*", "?": "."}
    regex = "".join(
        re.escape(part[2]) if re.fullmatch(r"\$\{[*?$]\}", part) else translated.get(part, re.escape(part))
        for part in parts
    )
    return re.fullmatch(regex, text, re.DOTALL | (re.IGNORECASE if ignore_case else 0)) is not None


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]
