"""wrkflw, and what it says about a run."""

import re
from dataclasses import dataclass, field

from ruamel.yaml import YAML

import child

SUCCEEDED, FAILED, SKIPPED = "✔", "✖", "⊘"
DONE = "Workflow execution completed successfully!"


@dataclass
class Run:
    code: int
    log: str
    # Status and name, in order.
    jobs: list = field(default_factory=list)
    steps: dict = field(default_factory=dict)

    @property
    def succeeded(self):
        return self.code == 0 and DONE in self.log

    def executed(self, name):
        return f"Executing step: {name}\n" in self.log


class Engine:
    """state: a folder with `checkout`, from which the workflows are run, and room for logs and temporary files."""

    def __init__(self, program, state, environment):
        self.program, self.state, self.environment = program, state, environment
        (state / "temp").mkdir()

    def run(self, name, workflow, job=None, **environment):
        """Runs a workflow. What it printed is in `NAME.log` then."""
        path = self.state / f"{name}.yml"
        with path.open("w") as file:
            yaml = YAML()
            yaml.width = 1 << 16
            yaml.dump(workflow, file)
        command = [self.program, "--verbose", "run", "--runtime", "emulation", *(["--job", job] if job else []), path]
        variables = {**self.environment, "NO_COLOR": "1", "TMPDIR": str(self.state / "temp"), **environment}
        return read(*child.run(command, self.state / "checkout", variables, self.state / f"{name}.log"))


def read(code, log):
    """The list at the end of a successful run, or the jobs and steps that failed."""
    run = Run(code, log)
    _, _, summary = log.rpartition("\nJob summary\n" if code == 0 else f"\n{FAILED} Workflow execution failed:")
    for line in summary.splitlines():
        job = re.fullmatch(rf" *([{SUCCEEDED}{FAILED}{SKIPPED}]) Job \w+: (.+)", line)
        step = re.fullmatch(rf"  ([{SUCCEEDED}{FAILED}{SKIPPED}]) (.+?)(?: \(skipped\)|: .*)?", line)
        if job:
            run.jobs.append((job[1], job[2]))
            run.steps[job[2]] = []
        elif step and run.jobs:
            run.steps[run.jobs[-1][1]].append((step[1], step[2]))
    return run


def expected(workflow, jobs):
    """Name and steps of the jobs, as the engine has to list them when all of them were run to the end."""

    def steps(job):
        return [(SUCCEEDED, step.get("name", f"Step {number}")) for number, step in enumerate(job["steps"], 1)]

    return {name: steps(workflow["jobs"][name]) for name in jobs}
