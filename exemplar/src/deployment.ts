// The deployed images, from the environment variables of the template. They are parsed once.

/** One container image of this deployment. */
export interface Image {
  /** Its key in the template's `ImageBuildConfiguration`. */
  readonly name: string;
  /** The reference that the task definition pulls: `registry/repository:tag`. */
  readonly reference: string;
  readonly repository: string;
  readonly tag: string;
  /** The digest that promote reported: `sha256:` and 64 hexadecimal digits. Absent if the deployment did not pass it. */
  readonly digest?: string;
}

export interface Deployment {
  readonly environment: string;
  readonly version: string;
  /** Sorted by name. */
  readonly images: readonly Image[];
}

/** An environment variable with an invalid value, which the template should have set correctly. */
export class ConfigurationError extends Error {
  override readonly name = "ConfigurationError";
}

type Variables = Readonly<Record<string, string | undefined>>;

const IMAGE_PREFIX = "IMAGE_";
const DIGEST = /^sha256:[0-9a-f]{64}$/;

/**
 * Reads `ENVIRONMENT`, `VERSION`, `DIGESTS` (a JSON object from image name to digest, empty by default) and one
 * `IMAGE_<name>` for each image.
 */
export function readDeployment(variables: Variables): Deployment {
  const digests = parseDigests(variables["DIGESTS"] || "{}");
  const images = Object.entries(variables)
    .filter(([key]) => key.startsWith(IMAGE_PREFIX))
    .map(([key, reference = ""]) => {
      const name = key.slice(IMAGE_PREFIX.length);
      const digest = digests.get(name);
      return { name, ...parseReference(key, reference), ...(digest !== undefined && { digest }) };
    })
    .sort((a, b) => (a.name < b.name ? -1 : 1));

  const names = new Set(images.map((image) => image.name));
  const stranger = [...digests.keys()].find((name) => !names.has(name));
  if (stranger !== undefined) {
    throw new ConfigurationError(`DIGESTS names \`${stranger}\`, which this deployment does not have`);
  }
  return { environment: required(variables, "ENVIRONMENT"), version: required(variables, "VERSION"), images };
}

function required(variables: Variables, key: string): string {
  const value = variables[key];
  if (!value) throw new ConfigurationError(`${key} is not set`);
  return value;
}

// A registry's host may contain a port, so only a colon after the last slash separates the tag.
function parseReference(key: string, reference: string): Pick<Image, "reference" | "repository" | "tag"> {
  const colon = reference.indexOf(":", reference.lastIndexOf("/") + 1);
  const repository = reference.slice(0, colon);
  const tag = reference.slice(colon + 1);
  if (colon < 1 || tag === "") throw new ConfigurationError(`${key} is not \`repository:tag\`: ${reference}`);
  return { reference, repository, tag };
}

function parseDigests(text: string): ReadonlyMap<string, string> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new ConfigurationError("DIGESTS is not JSON", { cause });
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new ConfigurationError("DIGESTS is not a JSON object");
  }
  const digests = new Map<string, string>();
  for (const [name, digest] of Object.entries(value)) {
    if (typeof digest !== "string" || !DIGEST.test(digest)) {
      throw new ConfigurationError(`DIGESTS holds no sha256 digest for \`${name}\``);
    }
    digests.set(name, digest);
  }
  return digests;
}
