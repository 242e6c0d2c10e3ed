// excerpt.mjs DESCRIPTION EXCERPT: GitHub's description of its API, cut down to what the actions call and what that refers
// to. Prism takes half a minute for the whole one, and a second for this.
import { readFileSync, writeFileSync } from "node:fs";

const PATHS = [
  "/orgs/{org}/artifacts/metadata/deployment-record",
  "/orgs/{org}/artifacts/metadata/storage-record",
  "/orgs/{org}/artifacts/{subject_digest}/metadata/storage-records",
  "/repos/{owner}/{repo}/code-scanning/sarifs",
  "/repos/{owner}/{repo}/deployments",
  "/repos/{owner}/{repo}/deployments/{deployment_id}/statuses",
  "/repos/{owner}/{repo}/issues/comments/{comment_id}",
  "/repos/{owner}/{repo}/issues/{issue_number}/comments",
  "/user",
];

const [description, excerpt] = process.argv.slice(2);
const whole = JSON.parse(readFileSync(description, "utf8"));
const part = { openapi: whole.openapi, info: whole.info, paths: {}, components: {} };

function follow(node) {
  if (node === null || typeof node !== "object") return;
  const found = typeof node.$ref === "string" && node.$ref.match(/^#\/components\/([^/]+)\/([^/]+)/);
  if (found) {
    const [, kind, name] = found;
    const kept = (part.components[kind] ??= {});
    if (!(name in kept)) follow((kept[name] = whole.components[kind][name]));
  }
  Object.values(node).forEach(follow);
}

for (const path of PATHS) {
  if (!(path in whole.paths)) throw new Error(`${path} is not in ${description}`);
  follow((part.paths[path] = whole.paths[path]));
}
writeFileSync(excerpt, JSON.stringify(part));
