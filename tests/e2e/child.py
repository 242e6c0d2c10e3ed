"""Runs a program that runs a workflow, and keeps what it prints."""

import os
import re
import subprocess

DEADLINE = 600  # seconds; the longest workflow takes some minutes
FOREIGN = re.compile(r"(AWS|GITHUB|RUNNER|INPUT|SNYK|DOCKER)_")


def run(command, folder, environment, log):
    """Runs a command in a folder. Both streams are in the file `log` then. Returns the exit code and the text."""
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=DEADLINE,
    )
    log.write_text(done.stdout)
    return done.returncode, done.stdout


def clean():
    """The environment of this process, without what belongs to a run of a workflow or to an account."""
    return {name: value for name, value in os.environ.items() if not FOREIGN.match(name)}
