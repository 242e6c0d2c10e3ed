// The API, which returns all deployed images or one of them.

import type { APIGatewayProxyEvent, APIGatewayProxyResult } from "aws-lambda";

import type { Deployment } from "./deployment.js";
import { errorFields, type Log } from "./log.js";

/** The part of a request that is read. API Gateway sends more. */
export type Request = Pick<APIGatewayProxyEvent, "httpMethod" | "resource" | "pathParameters"> & {
  readonly requestContext: Pick<APIGatewayProxyEvent["requestContext"], "requestId">;
};
export type Response = APIGatewayProxyResult;

/** Handles one request and writes one line to the log. Never throws. */
export function serve(deployment: Deployment, log: Log, request: Request): Response {
  const started = performance.now();
  const route = `${request.httpMethod} ${request.resource}`;
  const about = { requestId: request.requestContext.requestId, route };
  try {
    const response = answer(deployment, route, request.pathParameters?.["name"]);
    const milliseconds = Math.round(performance.now() - started);
    log("INFO", "request served", { ...about, status: response.statusCode, milliseconds });
    return response;
  } catch (error) {
    log("ERROR", "request failed", { ...about, status: 500, ...errorFields(error) });
    return problem(500, "Internal Server Error", "The reason is in the log, under this request's id.");
  }
}

function answer(deployment: Deployment, route: string, name = ""): Response {
  const { environment, version, images } = deployment;
  switch (route) {
    case "GET /images":
      return json(200, { environment, version, images });
    case "GET /images/{name}": {
      const image = images.find((image) => image.name === name);
      if (image === undefined) return problem(404, "Not Found", `No image is called ${JSON.stringify(name)}.`);
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
