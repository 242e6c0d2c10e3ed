"""Validates documents against the JSON Schemas of the OCI image specification.

    schemas.py FOLDER <CASES

CASES is a JSON list of `[SCHEMA, TEXT]`. The output is a list with the errors of each, in order.
"""

import json
import pathlib
import sys

from jsonschema import Draft4Validator
from referencing import Registry
from referencing.jsonschema import DRAFT4

folder = pathlib.Path(sys.argv[1])
schemas = {path.name: json.loads(path.read_text()) for path in folder.glob("*.json")}


def without_identifiers(node):
    """Returns a schema without `id`: the schemas refer to each other by file name, whatever their identifiers are."""
    if isinstance(node, list):
        return [without_identifiers(item) for item in node]
    if isinstance(node, dict):
        return {key: without_identifiers(value) for key, value in node.items() if key != "id" or isinstance(value, dict)}
    return node


registry = Registry()
for name, schema in schemas.items():
    registry = registry.with_resource("file:///" + name, DRAFT4.create_resource(without_identifiers(schema)))
validators = {
    name: Draft4Validator({"$ref": f"file:///{name}"}, registry=registry, format_checker=Draft4Validator.FORMAT_CHECKER)
    for name in schemas
}


def errors(name, text):
    found = sorted(validators[name].iter_errors(json.loads(text)), key=str)
    return [f"/{'/'.join(map(str, error.absolute_path))}: {error.message}"[:400] for error in found]


json.dump([errors(*case) for case in json.load(sys.stdin)], sys.stdout)
