// Writes one JSON object per line. CloudWatch stores such lines unchanged and makes their fields searchable.

export type Level = "INFO" | "ERROR";
export type Fields = Readonly<Record<string, unknown>>;
export type Log = (level: Level, message: string, fields?: Fields) => void;

/** A log that adds `context` to every line. `write` gets each line with its line feed. */
export function createLog(context: Fields, write: (line: string) => void): Log {
  return (level, message, fields = {}) => {
    const timestamp = new Date().toISOString();
    // The line's own fields come last, so that no other field can replace them.
    write(`${JSON.stringify({ ...context, ...fields, timestamp, level, message })}\n`);
  };
}

/** Converts an error and its causes to fields, because an `Error` itself is `{}` in JSON. */
export function errorFields(error: unknown): Fields {
  if (!(error instanceof Error)) return { error: String(error) };
  const { name, message, stack, cause } = error;
  return { error: name, reason: message, stack, ...(cause !== undefined && { cause: errorFields(cause) }) };
}
