"""Reads statements with the bindings of the in-toto attestation framework.

    statements.py <STATEMENTS

STATEMENTS is a JSON list of texts. The output is a list with the error of each, or null, in order. A predicate is read
as well where the bindings have its type.
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


def error(text):
    try:
        document = json.loads(text)
        statement = json_format.ParseDict(document, statement_pb2.Statement())
        Statement.copy_from_pb(statement).validate()
        read = PREDICATES.get(document["predicateType"])
        if read:
            json_format.ParseDict(document["predicate"], read())
    except Exception as error:  # Whatever it is, the statement cannot be read.
        return f"{type(error).__name__}: {error}".replace("\n", " ")[:400]
    return None


json.dump([error(text) for text in json.load(sys.stdin)], sys.stdout)
