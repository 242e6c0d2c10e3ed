// The entry point of the Lambda function. It reads the deployment once at startup, so that invalid variables fail early.

import type { APIGatewayProxyEvent } from "aws-lambda";

import { serve, type Response } from "./api.js";
import { readDeployment } from "./deployment.js";
import { createLog } from "./log.js";

const deployment = readDeployment(process.env);
const log = createLog(
  { service: "exemplar-api", environment: deployment.environment, version: deployment.version },
  (line) => process.stdout.write(line),
);

export async function handler(event: APIGatewayProxyEvent): Promise<Response> {
  return serve(deployment, log, event);
}
