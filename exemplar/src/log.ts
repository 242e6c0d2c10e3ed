// One JSON object a line. CloudWatch takes such lines as they are and finds their fields by name.

export type Level = "INFO" | "ERROR";
export type Fields = Readonly<Record<string, unknown>>;
export type Log = (level: Level, message: string, fields?: Fields) => void;

/** A log whose lines all carry `context`; `write` takes each line with its line feed. */
export function createLog(context: Fields, write: (line: string) => void): Log {
  return (level, message, fields = {}) => {
    const timestamp = new Date().toISOString();
    // The line's own fields come last, so that none of the others can stand in for them.
    write(`${JSON.stringify({ ...context, ...fields, timestamp, level, message })}\n`);
  };
}

/** An error as fields, its causes included: an `Error` by itself is `{}` in JSON. */
export function errorFields(error: unknown): Fields {
  if (!(error instanceof Error)) return { error: String(error) };
  const { name, message, stack, cause } = error;
  return { error: name, reason: message, stack, ...(cause !== undefined && { cause: errorFields(cause) }) };
}
