"""Reads statements with the bindings of the in-toto attestation framework.

    statements.py <STATEMENTS

STATEMENTS is a JSON list of texts. The output is a list with the errors of each, in order. A predicate is read as well
where the bindings have its type.
"""

import json
import sys

from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
from in_toto_attestation.predicates.vsa.v1 import vsa_pb2
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement

PREDICATES = {
    "https://slsa.dev/provenance/v1": provenance_pb2.Provenance,
    "https://slsa.dev/verification_summary/v1": vsa_pb2.VerificationSummary,
}


# What version 1.1 of the verification summary has, and the bindings of version 1.0 refuse.
NEWER = [("verifier", "version"), ("verifiedLevels",)]


def errors(text):
    """Returns why a statement cannot be read, and then why only a part of its predicate can."""
    found = []
    try:
        document = json.loads(text)
        statement = json_format.ParseDict(document, statement_pb2.Statement())
        Statement.copy_from_pb(statement).validate()
        read = PREDICATES.get(document["predicateType"])
        predicate = document["predicate"]
        if read == vsa_pb2.VerificationSummary:
            for *path, name in NEWER:
                parent = predicate[path[0]] if path else predicate
                if parent.pop(name, None):
                    found.append(f"only newer bindings can read {'/'.join([*path, name])}")
        if read:
            json_format.ParseDict(predicate, read())
    except Exception as error:  # Whatever it is, the statement cannot be read.
        found.append(f"{type(error).__name__}: {error}".replace("\n", " ")[:400])
    return found


json.dump([errors(text) for text in json.load(sys.stdin)], sys.stdout)
