import assert from "node:assert/strict";
import { test } from "node:test";

import { ConfigurationError, readDeployment } from "../src/deployment.js";

const REGISTRY = "111122223333.dkr.ecr.us-east-1.amazonaws.com";
const DIGEST = `sha256:${"0a".repeat(32)}`;
const VARIABLES = {
  PATH: "/usr/bin",
  ENVIRONMENT: "test",
  VERSION: "1.2.3",
  IMAGE_NginxService: `${REGISTRY}/exemplar-nginx:test-1.2.3`,
  IMAGE_BusyBoxService: `${REGISTRY}/exemplar-busybox:test-1.2.3`,
};

test("images are sorted by name, with their digests", () => {
  assert.deepEqual(readDeployment({ ...VARIABLES, DIGESTS: JSON.stringify({ NginxService: DIGEST }) }), {
    environment: "test",
    version: "1.2.3",
    images: [
      {
        name: "BusyBoxService",
        reference: `${REGISTRY}/exemplar-busybox:test-1.2.3`,
        repository: `${REGISTRY}/exemplar-busybox`,
        tag: "test-1.2.3",
      },
      {
        name: "NginxService",
        reference: `${REGISTRY}/exemplar-nginx:test-1.2.3`,
        repository: `${REGISTRY}/exemplar-nginx`,
        tag: "test-1.2.3",
        digest: DIGEST,
      },
    ],
  });
});

test("no digest is told where none was given", () => {
  for (const DIGESTS of [undefined, "", "{}"]) {
    const { images } = readDeployment({ ...VARIABLES, DIGESTS });
    assert.deepEqual(images.map((image) => "digest" in image), [false, false]);
  }
});

test("a port in the registry's host is not a tag", () => {
  const { images } = readDeployment({ ENVIRONMENT: "dev", VERSION: "1.0.0", IMAGE_Api: "localhost:5000/shop/api:dev-1" });
  assert.equal(images[0]?.repository, "localhost:5000/shop/api");
  assert.equal(images[0]?.tag, "dev-1");
});

const REFUSED: readonly (readonly [string, Record<string, string | undefined>, RegExp])[] = [
  ["no environment", { ENVIRONMENT: undefined }, /^ENVIRONMENT is not set$/],
  ["an empty version", { VERSION: "" }, /^VERSION is not set$/],
  ["a reference without a tag", { IMAGE_Api: "localhost:5000/shop/api" }, /^IMAGE_Api is not `repository:tag`: localhost/],
  ["an empty tag", { IMAGE_Api: "shop/api:" }, /^IMAGE_Api is not `repository:tag`/],
  ["an empty reference", { IMAGE_Api: "" }, /^IMAGE_Api is not `repository:tag`/],
  ["digests that are not JSON", { DIGESTS: "{" }, /^DIGESTS is not JSON$/],
  ["digests that are a list", { DIGESTS: "[]" }, /^DIGESTS is not a JSON object$/],
  ["digests that are null", { DIGESTS: "null" }, /^DIGESTS is not a JSON object$/],
  ["a short digest", { DIGESTS: '{"NginxService":"sha256:00"}' }, /^DIGESTS holds no sha256 digest for `NginxService`$/],
  ["a digest that is a number", { DIGESTS: '{"NginxService":1}' }, /^DIGESTS holds no sha256 digest/],
  ["the digest of a stranger", { DIGESTS: `{"Other":"${DIGEST}"}` }, /^DIGESTS names `Other`/],
];

for (const [what, variables, message] of REFUSED) {
  test(`${what} is refused`, () => {
    assert.throws(
      () => readDeployment({ ...VARIABLES, ...variables }),
      (error) => error instanceof ConfigurationError && message.test(error.message),
    );
  });
}
