"""Templates as CloudFormation sees them: read, translated from SAM, their intrinsic functions resolved.

What reads and translates them takes 1.5 s to import: it is imported when a test calls, not when tests are collected.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

INFRA = Path(__file__).parents[2] / "infra"
REGION, ACCOUNT = "us-east-1", "123456789012"
STACK = "s3-checkpoint"
NO_VALUE = object()

Template = dict[str, Any]


def read(name: str) -> Template:
    """A template of infra/ as plain JSON values; `!Ref X` reads `{"Ref": "X"}`."""
    from cfnlint.decode import cfn_yaml

    plain: Template = json.loads(json.dumps(cfn_yaml.load(str(INFRA / name))))
    return plain


def translated(bucket: str, key: str) -> Template:
    """template.yaml as CloudFormation gets it: packaged (the code is at that object) and translated from SAM."""
    from samtranslator.parser.parser import Parser
    from samtranslator.translator.translator import Translator

    template = read("template.yaml")
    template["Resources"]["WorkerFunction"]["Properties"]["CodeUri"] = {"Bucket": bucket, "Key": key}
    session = SimpleNamespace(region_name=REGION)
    plain: Template = Translator({}, Parser(), boto_session=session).translate(template, parameter_values={})
    return plain


def resolved(template: Template, names: Mapping[str, str], **parameters: str) -> Template:
    """The resources of a template with parameters given or their defaults; `names` are the physical names (`Ref`)."""
    return _Resolver(template, names, parameters).value(template["Resources"])  # type: ignore[no-any-return]


class _Resolver:
    def __init__(self, template: Template, names: Mapping[str, str], parameters: Mapping[str, str]) -> None:
        assert set(parameters) <= set(template["Parameters"])
        self._template = template
        defaults = {name: str(parameter["Default"]) for name, parameter in template["Parameters"].items()}
        pseudo = {"AWS::Region": REGION, "AWS::AccountId": ACCOUNT, "AWS::URLSuffix": "amazonaws.com"}
        pseudo |= {"AWS::Partition": "aws", "AWS::StackName": STACK}
        self._refs: dict[str, Any] = {**pseudo, "AWS::NoValue": NO_VALUE, **defaults, **parameters, **names}

    def value(self, node: Any) -> Any:
        if isinstance(node, list):
            return [value for value in map(self.value, node) if value is not NO_VALUE]
        if not isinstance(node, dict):
            return node
        if len(node) == 1:
            ((function, argument),) = node.items()
            if function in ("Ref", "Condition") and isinstance(argument, str):
                return self._refs.get(argument, f"<{argument}>") if function == "Ref" else self._condition(argument)
            if function.startswith("Fn::"):
                return self._function(function[4:], argument)
        values = {key: self.value(item) for key, item in node.items()}
        return {key: value for key, value in values.items() if value is not NO_VALUE}

    def _function(self, function: str, argument: Any) -> Any:
        match function:
            case "If":
                return self.value(argument[1] if self._condition(argument[0]) else argument[2])
            case "Equals":
                left, right = (str(self.value(side)) for side in argument)
                return left == right
            case "Not":
                return not self.value(argument[0])
            case "FindInMap":
                name, first, second = map(self.value, argument)
                return self._template["Mappings"][name][first][second]
            case "GetAtt":
                logical, attribute = argument if isinstance(argument, list) else argument.split(".")
                return self._attribute(logical, attribute)
            case "Sub":
                return self._substituted(argument)
        raise NotImplementedError(function)

    def _condition(self, name: str) -> bool:
        return bool(self.value(self._template["Conditions"][name]))

    def _attribute(self, logical: str, attribute: str) -> str:
        name = str(self._refs.get(logical, f"<{logical}>")).rpartition("/")[2]
        kind = self._template["Resources"][logical]["Type"]
        if attribute == "Arn" and kind == "AWS::S3::Bucket":
            return f"arn:aws:s3:::{name}"
        if attribute == "Arn":
            return f"arn:aws:{kind.split('::')[1].lower()}:{REGION}:{ACCOUNT}:{name}"
        return name

    def _substituted(self, text: str) -> str:
        for name in [*self._refs, *self._template["Resources"]]:
            text = text.replace(f"${{{name}}}", str(self._refs.get(name, f"<{name}>")))
            if f"${{{name}.Arn}}" in text:
                text = text.replace(f"${{{name}.Arn}}", self._attribute(name, "Arn"))
        assert "${" not in text, text
        return text
