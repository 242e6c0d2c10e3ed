"""A workflow's copy that wrkflw can run on this machine.

What the actions of this repository are given stays as it is. Replaced is what needs GitHub or an account: each kind
by one function below. Which of these steps a workflow has is written down where it is run; another step, or one that
is missing, is an error, so that a workflow that changes is looked at again here.

Of what the engine does otherwise than GitHub, a copy makes up for these:

- `with` of a local action is not evaluated: a value that holds an expression is put in as text, and a step before
  compares it with what the engine makes of the expression;
- inputs whose names have a hyphen are lost, with their defaults: they are handed over as the variables that the
  engine reads an input from;
- a checkout brings neither history nor another commit than the present one: it is made with git;
- `GITHUB_WORKSPACE` and `RUNNER_TEMP` are no folders of the job, and `GITHUB_ACTION_PATH` is not set: a first step
  sets them. Artifacts keep their path in the workspace.
"""

import copy
import re
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import LiteralScalarString

EXPRESSION = re.compile(r"\$\{\{\s*(.*?)\s*\}\}")
SET_UP = """\
mkdir -p target/temp
{
  echo "GITHUB_WORKSPACE=$PWD"
  echo "RUNNER_TEMP=$PWD/target/temp"
  echo "RUNNER_TOOL_CACHE=$E2E_TOOL_CACHE"
  echo "GITHUB_ACTION_PATH=$PWD/dist/build"
} >>"$GITHUB_ENV"
"""
CHECKOUT = """\
git init --quiet .
if [ "$FETCH_DEPTH" = 0 ]; then
  git fetch --quiet "file://$E2E_ORIGIN" '+refs/heads/*:refs/remotes/origin/*' '+refs/tags/*:refs/tags/*'
  git checkout --quiet --detach "${REF:-$GITHUB_SHA}"
else
  git fetch --quiet --no-tags --depth 1 "file://$E2E_ORIGIN" "${REF:-$GITHUB_SHA}"
  git checkout --quiet --detach FETCH_HEAD
fi
cp -R "$E2E_DIST" dist
"""
CREDENTIALS = """\
[[ $ROLE == arn:aws:iam::*:role/* ]]
for name in AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN; do echo "$name=test"; done >>"$GITHUB_ENV"
for name in AWS_REGION AWS_DEFAULT_REGION; do echo "$name=$REGION"; done >>"$GITHUB_ENV"
"""
RECORD = """\
jq --null-input '$ENV | with_entries(select(.key | startswith("OUTPUT_")) | .key |= ltrimstr("OUTPUT_"))' \\
  >"$E2E_RECORDS/$RECORD"
"""


class Drift(Exception):
    """The workflow is not what this program knows how to copy."""


class Copy:
    """The copy of one workflow, for one event.

    source     its text
    event      the one that happened
    values     what expressions stand for that need GitHub, or are in an action's `with`: {"vars.NAME": "text"}
    more       inputs that the actions get on top, because there is no AWS here: {"publish": {"input": "text"}}
    dist       the release tree
    """

    def __init__(self, source, event, values, more, dist):
        self.workflow = YAML().load(source)
        self.event, self.values, self.more, self.dist = event, values, more, Path(dist)
        self.unused = set(values)
        self.replaced = {}

    def make(self):
        """The copy. Then `replaced` has what was not taken as it is, by job."""
        made = copy.deepcopy(self.workflow)
        # The engine takes the first for the one that happened.
        made["on"] = {self.event: made["on"][self.event]}
        for name, job in made["jobs"].items():
            self.replaced[name] = []
            steps = [{"name": "Set up the job", "run": LiteralScalarString(SET_UP)}]
            for step in job["steps"]:
                steps += self.step(name, self.known(step))
            job["steps"] = steps
        made = self.known(made)
        if self.unused:
            raise Drift(f"nothing asks for {', '.join(sorted(self.unused))}")
        return made

    def step(self, job, step):
        """The steps that take the place of one."""
        kind = kind_of(step)
        if kind is None:
            return [step]
        self.replaced[job].append(kind)
        return self.action(kind, job, step) if kind in ACTIONS else REPLACE[kind](step)

    def action(self, kind, job, step):
        """A step that uses an action of the release tree, between one that checks and one that writes down."""
        # The one line that a person changes for actions that are not released: where they are.
        step["uses"] = f"./dist/{kind}"
        declared = YAML().load(self.dist / kind / "action.yml")
        given = step.setdefault("with", {})
        for name, text in self.more.get(kind, {}).items():
            given[name] = text
        unknown = set(given) - set(declared["inputs"])
        if unknown:
            raise Drift(f"{job}: {kind} has no input {', '.join(sorted(unknown))}")
        environment = step.setdefault("env", {})
        before = []
        for name, declaration in declared["inputs"].items():
            value = str(given.get(name, declaration.get("default", "")))
            if "-" in name:
                environment["INPUT_" + name.upper().replace("-", "_")] = value
            elif EXPRESSION.search(value):
                given[name] = self.evaluated(value)
                before.append(compare(f"Expect the {name} that {kind} is given", value, given[name]))
        after = []
        if "id" in step:
            told = f"steps.{step['id']}.outputs"
            outputs = {f"OUTPUT_{name}": f"${{{{ {told}.{name} }}}}" for name in declared["outputs"]}
            after.append(run(f"Record the outputs of {kind}", RECORD, **outputs, RECORD=f"{job}-{step['id']}.json"))
        return before + [step] + after

    def evaluated(self, text):
        """With the values in place of all expressions."""

        def value(match):
            if match[1] not in self.values:
                raise Drift(f"no value is known for `{match[1]}`")
            self.unused.discard(match[1])
            return self.values[match[1]]

        return EXPRESSION.sub(value, text)

    def known(self, node):
        """With the values in place of the expressions that the engine can't know, anywhere below `node`."""
        if isinstance(node, dict):
            return {key: self.known(value) for key, value in node.items()}
        if isinstance(node, list):
            return [self.known(value) for value in node]
        if not isinstance(node, str):
            return node

        def value(match):
            return self.evaluated(match[0]) if re.match(r"(vars|inputs)\.", match[1]) else match[0]

        return EXPRESSION.sub(value, node)


def kind_of(step):
    """What a step is replaced as; None for one that runs as it is."""
    if "run" in step:
        return next((kind for kind, start in COMMANDS.items() if start in step["run"]), None)
    folder, _, kind = step["uses"].split("@")[0].rpartition("/")
    if (folder == "OWNER/REPO" and kind in ACTIONS) or (folder in ("actions", "aws-actions") and kind in REPLACE):
        return kind
    raise Drift(f"nothing is known about `{step['uses']}`")


def run(name, script, **environment):
    return {"name": name, "env": environment, "run": LiteralScalarString(script)}


def compare(name, expression, text):
    return run(name, '[ "$EVALUATED" = "$GIVEN" ]\n', EVALUATED=expression, GIVEN=text)


def given(step, required=(), optional=()):
    """`with` of a step, which has to hold these inputs and may hold those."""
    inputs = step.get("with", {})
    names = set(inputs)
    if not set(required) <= names <= set(required) | set(optional):
        raise Drift(f"`{step['uses']}` has other inputs now: {', '.join(sorted(names))}")
    return inputs


def checkout(step):
    inputs = given(step, ["persist-credentials"], ["fetch-depth", "ref"])
    depth = str(inputs.get("fetch-depth", 1))
    return [run("Check out with git", CHECKOUT, REF=inputs.get("ref", ""), FETCH_DEPTH=depth)]


def upload(step):
    path = given(step, ["name", "path", "retention-days"], ["if-no-files-found"])["path"]
    # The engine takes files, and no folder.
    if not path.endswith(".tar"):
        step["with"]["path"] = f"{path}/**/*"
    return [step]


def download(step):
    if given(step, ["name", "path"])["path"] != "${{ runner.temp }}":
        raise Drift("an artifact is unpacked elsewhere than in the temporary folder")
    # Where it was in the workspace of the job that uploaded it: in the temporary folder as well.
    del step["with"]["path"]
    return [step]


def credentials(step):
    inputs = given(step, ["role-to-assume", "aws-region"], ["unset-current-credentials"])
    return [run("Assume a role", CREDENTIALS, ROLE=inputs["role-to-assume"], REGION=inputs["aws-region"])]


def tag(step):
    step["run"] = LiteralScalarString('git --git-dir "$E2E_ORIGIN" tag "$TAG" "$GITHUB_SHA"\n')
    return [step]


ACTIONS = ("build", "publish", "promote")
# By a part of the command.
COMMANDS = {"tag": "gh api"}
REPLACE = {
    "checkout": checkout,
    "upload-artifact": upload,
    "download-artifact": download,
    "configure-aws-credentials": credentials,
    "tag": tag,
}
