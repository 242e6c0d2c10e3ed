"""A Sigstore for tests: token issuer, certificate authority (Fulcio) and transparency log (Rekor) with keys of their own.

    serve.py FOLDER

writes `trusted-root.json` and `signing-config.json` to the folder, then prints the port. It ends with its stdin.
`POST /bundle` composes bundles that a correct client would not make.
"""

import base64
import datetime
import hashlib
import http.server
import json
import pathlib
import struct
import sys
import threading
import time

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

SCT_LIST = ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")
ISSUER_V1 = ObjectIdentifier("1.3.6.1.4.1.57264.1.1")
ISSUER_V2 = ObjectIdentifier("1.3.6.1.4.1.57264.1.8")
REPOSITORY = ObjectIdentifier("1.3.6.1.4.1.57264.1.5")
STATEMENT_TYPE = "application/vnd.in-toto+json"
BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
LOG_NAME = "rekor.test"
ECDSA = ec.ECDSA(hashes.SHA256())


def b64(data):
    return base64.b64encode(data).decode()


def der(key):
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def now():
    return datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)


def zulu(moment):
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def canonical(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


class Sigstore:
    def __init__(self):
        self.ca, self.log, self.ct = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test"), x509.NameAttribute(NameOID.ORGANIZATION_NAME, "test")])
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(self.ca.public_key())
        builder = builder.serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now() - datetime.timedelta(days=2))
        builder = builder.not_valid_after(now() + datetime.timedelta(days=2))
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        usage = {"key_cert_sign": True, "crl_sign": True}
        builder = builder.add_extension(key_usage(**usage), critical=True)
        identifier = x509.SubjectKeyIdentifier.from_public_key(self.ca.public_key())
        self.root = builder.add_extension(identifier, critical=False).sign(self.ca, hashes.SHA256())
        self.log_id, self.ct_id = (hashlib.sha256(der(key.public_key())).digest() for key in (self.log, self.ct))

    def leaf(self, key, identity, issuer, start, repository):
        """A certificate of ten minutes for a run, of a repository on GitHub if it has one, with a promise of the log."""
        builder = x509.CertificateBuilder().subject_name(x509.Name([])).issuer_name(self.root.subject)
        builder = builder.public_key(key).serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(start).not_valid_after(start + datetime.timedelta(minutes=10))
        builder = builder.add_extension(key_usage(digital_signature=True), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.ca.public_key())
        builder = builder.add_extension(authority, critical=False)
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(identity)])
        builder = builder.add_extension(names, critical=True)
        text = issuer.encode()
        builder = builder.add_extension(x509.UnrecognizedExtension(ISSUER_V1, text), critical=False)
        if repository:
            builder = builder.add_extension(x509.UnrecognizedExtension(REPOSITORY, repository.encode()), critical=False)
        utf8 = b"\x0c" + bytes([len(text)]) + text
        builder = builder.add_extension(x509.UnrecognizedExtension(ISSUER_V2, utf8), critical=False)
        # The promise covers the certificate without itself.
        bare = builder.sign(self.ca, hashes.SHA256()).tbs_certificate_bytes
        issuer_hash = hashlib.sha256(der(self.ca.public_key())).digest()
        millis = int(start.timestamp() * 1000)
        entry = struct.pack(">H", 1) + issuer_hash + struct.pack(">I", len(bare))[1:] + bare + b"\0\0"
        signature = self.ct.sign(b"\0\0" + struct.pack(">Q", millis) + entry, ECDSA)
        promise = b"\0" + self.ct_id + struct.pack(">Q", millis) + b"\0\0" + b"\x04\x03"
        promise += struct.pack(">H", len(signature)) + signature
        listed = struct.pack(">H", len(promise) + 2) + struct.pack(">H", len(promise)) + promise
        value = b"\x04" + length(listed) + listed
        return builder.add_extension(x509.UnrecognizedExtension(SCT_LIST, value), critical=False).sign(self.ca, hashes.SHA256())

    def entry(self, body):
        """The log's answer about an entry. Every entry is the only one of a log of its own."""
        at = int(time.time())
        text = b64(body)
        promise = {"body": text, "integratedTime": at, "logID": self.log_id.hex(), "logIndex": 0}
        root = hashlib.sha256(b"\0" + body).digest()
        note = f"{LOG_NAME} - 1\n1\n{b64(root)}\n"
        signed = b64(self.log_id[:4] + self.log.sign(note.encode(), ECDSA))
        proof = {
            "checkpoint": f"{note}\n\u2014 {LOG_NAME} {signed}\n",
            "hashes": [], "logIndex": 0, "rootHash": root.hex(), "treeSize": 1,
        }
        return promise | {
            "verification": {"inclusionProof": proof, "signedEntryTimestamp": b64(self.log.sign(canonical(promise), ECDSA))},
        }

    def bundle(self, case, digest, identity, issuer, repository):
        """A bundle with a signature of an image, broken as the case says."""
        key = ec.generate_private_key(ec.SECP256R1())
        start = now() - datetime.timedelta(hours=1 if case == "expired" else 0, minutes=1)
        certificate = self.leaf(key.public_key(), identity, issuer, start, repository)
        subject = hashlib.sha256(b"other").hexdigest() if case == "other-digest" else digest.removeprefix("sha256:")
        statement = {
            "_type": "https://in-toto.io/Statement/v1", "predicate": {},
            "predicateType": "https://sigstore.dev/cosign/sign/v1", "subject": [{"digest": {"sha256": subject}}],
        }
        payload = canonical(statement)
        encoded = f"DSSEv1 {len(STATEMENT_TYPE)} {STATEMENT_TYPE} {len(payload)} ".encode() + payload
        signature = key.sign(b"x" + encoded if case == "invalid-signature" else encoded, ECDSA)
        envelope = {"payload": b64(payload), "payloadType": STATEMENT_TYPE, "signatures": [{"sig": b64(signature)}]}
        pem = certificate.public_bytes(serialization.Encoding.PEM)
        entry = self.entry(dsse_body(envelope, pem))
        proof = entry["verification"]["inclusionProof"]
        logged = {
            "logIndex": "0", "logId": {"keyId": b64(self.log_id)}, "kindVersion": {"kind": "dsse", "version": "0.0.1"},
            "integratedTime": str(entry["integratedTime"]),
            "inclusionPromise": {"signedEntryTimestamp": entry["verification"]["signedEntryTimestamp"]},
            "inclusionProof": {
                "logIndex": "0", "rootHash": b64(bytes.fromhex(proof["rootHash"])), "treeSize": "1", "hashes": [],
                "checkpoint": {"envelope": proof["checkpoint"]},
            },
            "canonicalizedBody": entry["body"],
        }
        material = {"certificate": {"rawBytes": b64(certificate.public_bytes(serialization.Encoding.DER))}, "tlogEntries": [logged]}
        if case == "no-log-entry":
            material["tlogEntries"] = []
        if case == "empty-chain":
            material = {"x509CertificateChain": {"certificates": []}, "tlogEntries": [logged]}
        if case == "wrong-material":
            material = {"publicKey": {"hint": "none"}, "tlogEntries": [logged]}
        return {"mediaType": BUNDLE_TYPE, "verificationMaterial": material, "dsseEnvelope": envelope}

    def trusted_root(self):
        valid = {"start": zulu(now() - datetime.timedelta(days=2))}
        public = lambda key: {"rawBytes": b64(der(key.public_key())), "keyDetails": "PKIX_ECDSA_P256_SHA_256", "validFor": valid}
        log = lambda key, key_id: {"baseUrl": "https://" + LOG_NAME, "hashAlgorithm": "SHA2_256", "publicKey": public(key), "logId": {"keyId": b64(key_id)}}
        chain = {"certificates": [{"rawBytes": b64(self.root.public_bytes(serialization.Encoding.DER))}]}
        authority = {"subject": {"organization": "test", "commonName": "test"}, "uri": "https://fulcio.test", "certChain": chain, "validFor": valid}
        return {
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [log(self.log, self.log_id)], "certificateAuthorities": [authority], "ctlogs": [log(self.ct, self.ct_id)],
        }


def signing_config(address):
    service = {"url": address, "majorApiVersion": 1, "validFor": {"start": zulu(now() - datetime.timedelta(days=2))}, "operator": "test"}
    return {
        "mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json",
        "caUrls": [service], "oidcUrls": [service], "rekorTlogUrls": [service], "rekorTlogConfig": {"selector": "ANY"},
        "tsaConfig": {"selector": "ANY"},
    }


def key_usage(**wanted):
    names = ["digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
             "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"]
    return x509.KeyUsage(**{name: wanted.get(name, False) for name in names})


def length(data):
    """A length in DER."""
    if len(data) < 128:
        return bytes([len(data)])
    size = len(data).to_bytes(2, "big").lstrip(b"\0")
    return bytes([128 + len(size)]) + size


def dsse_body(envelope, pem):
    signature = envelope["signatures"][0]["sig"]
    digest = lambda data: {"algorithm": "sha256", "value": hashlib.sha256(data).hexdigest()}
    spec = {
        "envelopeHash": digest(canonical(envelope)), "payloadHash": digest(base64.b64decode(envelope["payload"])),
        "signatures": [{"signature": signature, "verifier": b64(pem)}],
    }
    return canonical({"apiVersion": "0.0.1", "kind": "dsse", "spec": spec})


def claims(token):
    text = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


def token(identity, issuer, repository):
    part = lambda value: base64.urlsafe_b64encode(canonical(value)).decode().rstrip("=")
    at = int(time.time())
    body = {"iss": issuer, "sub": identity, "aud": "sigstore", "iat": at, "exp": at + 600}
    body |= {"repository": repository, "job_workflow_ref": identity.removeprefix("https://github.com/")}
    return ".".join([part({"alg": "none", "typ": "JWT"}), part(body), "AA"])


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def answer(self, status, value, **headers):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, text in headers.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        # The token service of a workflow's run: the path is the identity.
        _, _, identity = self.path.partition("/token/")
        identity, _, _ = identity.partition("?")
        self.answer(200, {"value": token(base64.urlsafe_b64decode(identity).decode(), ISSUER, "shop/backend")})

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/bundle":
            self.answer(200, SIGSTORE.bundle(asked["case"], asked["digest"], asked["identity"], asked["issuer"], asked["repository"]))
        elif self.path == "/api/v2/signingCert":
            self.answer(200, certificate(asked, self.headers["Authorization"]))
        elif self.path == "/api/v1/log/entries":
            body = logged_body(asked)
            name = hashlib.sha256(b"\0" + body).hexdigest()
            self.answer(201, {name: SIGSTORE.entry(body)}, ETag=name, Location=f"/api/v1/log/entries/{name}")
        else:
            self.answer(404, {"message": self.path})


def certificate(asked, authorization):
    who = claims(authorization.removeprefix("Bearer "))
    if "certificateSigningRequest" in asked:
        request = base64.b64decode(asked["certificateSigningRequest"])
        key = x509.load_pem_x509_csr(request).public_key()
    else:
        key = serialization.load_pem_public_key(asked["publicKeyRequest"]["publicKey"]["content"].encode())
    leaf = SIGSTORE.leaf(key, who["sub"], who["iss"], now() - datetime.timedelta(seconds=5), who.get("repository"))
    chain = [made.public_bytes(serialization.Encoding.PEM).decode() for made in (leaf, SIGSTORE.root)]
    return {"signedCertificateEmbeddedSct": {"chain": {"certificates": chain}}}


def logged_body(asked):
    content = asked["spec"]["proposedContent"]
    envelope = json.loads(content["envelope"])
    body = json.loads(dsse_body(envelope, base64.b64decode(content["verifiers"][0])))
    body["spec"]["envelopeHash"]["value"] = hashlib.sha256(content["envelope"].encode()).hexdigest()
    return canonical(body)


ISSUER = "https://token.actions.githubusercontent.com"
SIGSTORE = Sigstore()

if __name__ == "__main__":
    folder = pathlib.Path(sys.argv[1])
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    address = f"http://127.0.0.1:{server.server_port}"
    (folder / "trusted-root.json").write_text(json.dumps(SIGSTORE.trusted_root()))
    (folder / "signing-config.json").write_text(json.dumps(signing_config(address)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)
    sys.stdin.read()
