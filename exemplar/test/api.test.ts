import assert from "node:assert/strict";
import { test } from "node:test";

import { serve, type Request } from "../src/api.js";
import type { Deployment } from "../src/deployment.js";
import { createLog, type Log } from "../src/log.js";

const DEPLOYMENT: Deployment = {
  environment: "prod",
  version: "1.2.3",
  images: [
    {
      name: "NginxService",
      reference: "registry.example/exemplar-nginx:prod-1.2.3",
      repository: "registry.example/exemplar-nginx",
      tag: "prod-1.2.3",
      digest: `sha256:${"0a".repeat(32)}`,
    },
  ],
};

function get(resource: string, pathParameters: Record<string, string> | null = null): Request {
  return { httpMethod: "GET", resource, pathParameters, requestContext: { requestId: "request-1" } };
}

function call(request: Request, deployment = DEPLOYMENT) {
  const lines: string[] = [];
  const response = serve(deployment, createLog({ service: "test" }, (line) => lines.push(line)), request);
  const { timestamp, milliseconds, stack, ...logged } = JSON.parse(lines.join(""));
  return { response, body: JSON.parse(response.body), logged };
}

test("all images, with the environment and the version", () => {
  const { response, body, logged } = call(get("/images"));
  assert.equal(response.statusCode, 200);
  assert.deepEqual(response.headers, { "content-type": "application/json", "cache-control": "no-store" });
  assert.deepEqual(body, DEPLOYMENT);
  assert.deepEqual(logged, {
    service: "test",
    requestId: "request-1",
    route: "GET /images",
    status: 200,
    level: "INFO",
    message: "request served",
  });
});

test("one image", () => {
  const { response, body } = call(get("/images/{name}", { name: "NginxService" }));
  assert.equal(response.statusCode, 200);
  assert.deepEqual(body, { environment: "prod", version: "1.2.3", ...DEPLOYMENT.images[0] });
});

test("an unknown image is a problem, its name quoted", () => {
  const { response, body, logged } = call(get("/images/{name}", { name: 'a"b' }));
  assert.equal(response.statusCode, 404);
  assert.equal(response.headers?.["content-type"], "application/problem+json");
  assert.deepEqual(body, { title: "Not Found", status: 404, detail: String.raw`No image is called "a\"b".` });
  assert.equal(logged.status, 404);
});

test("an unknown route is a problem", () => {
  assert.equal(call(get("/other")).response.statusCode, 404);
});

test("what fails is in the log and not in the answer", () => {
  const broken = { ...DEPLOYMENT, images: undefined } as unknown as Deployment;
  const { response, body, logged } = call(get("/images/{name}", { name: "NginxService" }), broken);
  assert.equal(response.statusCode, 500);
  assert.deepEqual(Object.keys(body), ["title", "status", "detail"]);
  assert.equal(logged.level, "ERROR");
  assert.equal(logged.error, "TypeError");
  assert.match(logged.reason, /undefined/);
  assert.doesNotMatch(response.body, /undefined/);
});

test("a log line keeps its own fields and ends with a line feed", () => {
  const lines: string[] = [];
  const log: Log = createLog({ level: "context" }, (line) => lines.push(line));
  log("INFO", "first\nsecond", { message: "other" });
  assert.equal(lines.length, 1);
  assert.match(lines[0] ?? "", /^\{[^\n]*\}\n$/);
  const line = JSON.parse(lines[0] ?? "");
  assert.deepEqual([line.level, line.message], ["INFO", "first\nsecond"]);
  assert.match(line.timestamp, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
});
