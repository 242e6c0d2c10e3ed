"""A plugin for pytest: runs moto's tests against another server than moto. Each test gets a new one.

`FAKE` is an address. A connection to it starts a server, and yields the URL of its API as a line. `RESULTS` names the
file for the results: `{TEST: null or why it failed}`. A test that was skipped is left out.
"""

import json
import os
import socket

import moto
import pytest

results = {}


def mock_aws(function=None, config=None):
    """Stands in for moto's decorator, which would answer in place of the server."""
    return function if callable(function) else lambda wrapped: wrapped


moto.mock_aws = mock_aws


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    host, port = os.environ["FAKE"].split(":")
    with socket.create_connection((host, int(port))) as connection:
        os.environ["AWS_ENDPOINT_URL"] = connection.makefile().readline().strip()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    name = item.nodeid.removeprefix("tests/test_ecr/")
    if report.failed:
        error = call.excinfo.value
        results[name] = f"{type(error).__name__}: {error}".replace("\n", " ")[:300]
    elif report.when == "call" and report.passed:
        results.setdefault(name, None)


def pytest_sessionfinish():
    with open(os.environ["RESULTS"], "w") as file:
        json.dump(results, file)
