"""Evaluates templates with evaluators that others wrote, and prints the images that each of them finds.

    evaluate.py EVALUATOR... <CASES

CASES is a JSON list of `{"name", "text", "parameters", "ssm"}`. The output is `{NAME: {EVALUATOR: RESULT}}`, where a
RESULT is `{RESOURCE: [IMAGE, ...]}`, or why there is none. What an evaluator cannot know is prepared here: parameters
of SSM types have the value that is looked up, and dynamic references are replaced in what it returns.
"""

import copy
import io
import json
import re
import sys

import yaml

ACCOUNT = "555555555555"
REGION = "us-east-1"

# Paths from `Properties` to the images of a type. `*` stands for each item of a list.
IMAGES = {
    "AWS::ECS::TaskDefinition": ["ContainerDefinitions/*/Image"],
    "AWS::Serverless::Function": ["ImageUri"],
    "AWS::Lambda::Function": ["Code/ImageUri"],
    "AWS::Batch::JobDefinition": ["ContainerProperties/Image", "EcsProperties/TaskProperties/*/Containers/*/Image"],
    "AWS::AppRunner::Service": ["SourceConfiguration/ImageRepository/ImageIdentifier"],
    "AWS::SageMaker::Model": ["PrimaryContainer/Image", "Containers/*/Image"],
}


class Loader(yaml.SafeLoader):
    """YAML with CloudFormation's short tags. Numbers and dates stay as they are written."""


def construct(loader, suffix, node):
    name = suffix if suffix in ("Ref", "Condition") else "Fn::" + suffix
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
        value = value.split(".", 1) if name == "Fn::GetAtt" else value
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_mapping(node, deep=True)
    return {name: value}


Loader.add_multi_constructor("!", construct)
def number(loader, node):
    """Returns an index as a number, and everything else as it is written: an account ID keeps its zeros."""
    text = loader.construct_scalar(node)
    return int(text) if re.fullmatch("[1-9]?[0-9]", text) else text


for tag in ("int", "float", "timestamp"):
    Loader.add_constructor("tag:yaml.org,2002:" + tag, number)


def prepared(case):
    """Returns the template and the values of its parameters, with SSM types as what they stand for."""
    template = yaml.load(case["text"], Loader)
    values = {}
    for name, parameter in (template.get("Parameters") or {}).items():
        value = case["parameters"].get(name, parameter.get("Default"))
        kind = re.fullmatch(r"AWS::SSM::Parameter::Value<(.*)>", parameter["Type"])
        if kind:
            parameter["Type"] = {"List<String>": "CommaDelimitedList"}.get(kind[1], kind[1])
            value = case["ssm"][value]
            parameter["Default"] = value
        if value is not None:
            values[name] = str(value)
    return template, values


def found(resources, ssm):
    """Returns the images of evaluated resources."""

    def at(node, steps):
        if not steps:
            return [node]
        if steps[0] == "*":
            return [image for item in node if item for image in at(item, steps[1:])] if isinstance(node, list) else []
        return at(node[steps[0]], steps[1:]) if isinstance(node, dict) and steps[0] in node else []

    def text(image):
        if not isinstance(image, str):
            return json.dumps(image, sort_keys=True, default=str)
        return re.sub(r"\{\{resolve:ssm:([^}]*)\}\}", lambda name: ssm.get(name[1], "?"), image)

    images = {}
    for name, resource in resources.items():
        paths = IMAGES.get(resource.get("Type"), []) if isinstance(resource, dict) else []
        every = [text(image) for path in paths for image in at(resource.get("Properties") or {}, path.split("/"))]
        if every:
            images[name] = every
    return images


def has_loops(template):
    return "AWS::LanguageExtensions" in str(template.get("Transform"))


def expanded(template, values):
    from samcli.lib.cfn_language_extensions.sam_integration import expand_language_extensions

    pseudo = {"AWS::AccountId": ACCOUNT, "AWS::Region": REGION, "AWS::Partition": "aws"}
    given = {**values, **pseudo, "AWS::URLSuffix": "amazonaws.com"}
    return expand_language_extensions(template, parameter_values=given, enabled=True).expanded_template


def deployed(template, holds):
    """Returns the resources whose condition holds."""
    conditions = {name for name in template.get("Conditions") or {} if holds(name)}
    return {
        name: resource
        for name, resource in template["Resources"].items()
        if not isinstance(resource.get("Condition"), str) or resource["Condition"] in conditions
    }


def cloud_radar(template, values, ssm):
    """It fails at any loop of resources, so it gets them written out by the SAM command line."""
    from cloud_radar.cf.unit import Template

    if has_loops(template):
        template = expanded(template, values)
    Template.AccountId = ACCOUNT
    return Template(template, dynamic_references={"ssm": ssm}).render(values, region=REGION)["Resources"]


def pycfmodel(template, values, _ssm):
    """It knows no loops, so it gets them written out by the SAM command line."""
    from pycfmodel import parse

    if has_loops(template):
        template = expanded(template, values)
    pseudo = {"AWS::AccountId": ACCOUNT, "AWS::Region": REGION, "AWS::Partition": "aws"}
    model = parse(copy.deepcopy(template)).resolve({**values, **pseudo, "AWS::URLSuffix": "amazonaws.com"})
    dumped = model.model_dump()
    conditions = dumped.get("Conditions") or {}
    return deployed({**dumped, "Conditions": conditions}, lambda name: bool(conditions[name]))


def samcli(template, values, _ssm):
    """Evaluates what is in a template with loops, and leaves conditions of resources to CloudFormation."""
    return expanded(template, values)["Resources"]


def ministack(template, values, _ssm):
    from ministack.core import responses
    from ministack.services.cloudformation import engine, language_extensions

    responses.set_request_account_id(ACCOUNT)
    responses.set_request_region(REGION)
    engine.refuse_undeclared_language_extensions(template)
    if has_loops(template):
        template = language_extensions.apply(template, values)
    given = [{"Key": name, "Value": value} for name, value in values.items()]
    parameters = engine._resolve_parameters(template, given)
    conditions = engine._evaluate_conditions(template, parameters)
    resources = deployed(template, lambda name: conditions[name])

    def resolve(node):
        return engine._resolve_refs(
            copy.deepcopy(node), {}, parameters, conditions, template.get("Mappings") or {}, "shop", "shop"
        )

    return {name: {**resource, "Properties": resolve(resource.get("Properties") or {})} for name, resource in resources.items()}


EVALUATORS = {"cloud-radar": cloud_radar, "pycfmodel": pycfmodel, "samcli": samcli, "ministack": ministack}


def main():
    cases = json.load(sys.stdin)
    output, sys.stdout = sys.stdout, io.StringIO()
    results = {}
    for case in cases:
        of_case = results[case["name"]] = {}
        for name in sys.argv[1:]:
            template, values = prepared(case)
            if name == "samcli" and not has_loops(template):
                continue
            try:
                of_case[name] = found(EVALUATORS[name](template, values, case["ssm"]), case["ssm"])
            except Exception as error:  # What it does not know is a difference as well.
                of_case[name] = f"{type(error).__name__}: {error}".splitlines()[0][:200]
    json.dump(results, output)


main()
