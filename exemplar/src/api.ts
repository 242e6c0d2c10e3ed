// The API, which returns all deployed images or one of them.

import type { APIGatewayProxyEventV2, APIGatewayProxyStructuredResultV2 } from "aws-lambda";

import type { Deployment } from "./deployment.js";
import { errorFields, type Log } from "./log.js";

/** The part of a request that is read. API Gateway sends more. */
export type Request = Pick<APIGatewayProxyEventV2, "routeKey" | "pathParameters"> & {
  readonly requestContext: Pick<APIGatewayProxyEventV2["requestContext"], "requestId">;
};
export type Response = APIGatewayProxyStructuredResultV2 & { statusCode: number; body: string };

/** Handles one request and writes one line to the log. Never throws. */
export function serve(deployment: Deployment, log: Log, request: Request): Response {
  const started = performance.now();
  const about = { requestId: request.requestContext.requestId, route: request.routeKey };
  try {
    const response = answer(deployment, request);
    const milliseconds = Math.round(performance.now() - started);
    log("INFO", "request served", { ...about, status: response.statusCode, milliseconds });
    return response;
  } catch (error) {
    log("ERROR", "request failed", { ...about, status: 500, ...errorFields(error) });
    return problem(500, "Internal Server Error", "The reason is in the log, under this request's id.");
  }
}

function answer(deployment: Deployment, request: Request): Response {
  const { environment, version, images } = deployment;
  switch (request.routeKey) {
    case "GET /images":
      return json(200, { environment, version, images });
    case "GET /images/{name}": {
      const name = request.pathParameters?.["name"];
      const image = images.find((image) => image.name === name);
      if (image === undefined) return problem(404, "Not Found", `No image is called ${JSON.stringify(name ?? "")}.`);
      return json(200, { environment, version, ...image });
    }
    default:
      return problem(404, "Not Found", "There are GET /images and GET /images/{name}.");
  }
}

// Problem details according to RFC 9457.
function problem(status: number, title: string, detail: string): Response {
  return json(status, { title, status, detail }, "application/problem+json");
}

function json(statusCode: number, body: unknown, type = "application/json"): Response {
  return {
    statusCode,
    headers: { "content-type": type, "cache-control": "no-store" },
    body: JSON.stringify(body),
  };
}
