/** What went wrong, in words a person can act on: what happened, why, and what to try next. */
export class ApiError extends Error {
  constructor(
    /** HTTP status; 0 when no answer came at all. */
    readonly status: number,
    /** One short sentence: what happened. */
    readonly title: string,
    /** The server's own words, or ours where it had none. */
    message: string,
    /** What to do about it; may be empty. */
    readonly next: string,
    readonly code = '',
    readonly requestId = '',
  ) {
    super(message);
    this.name = 'ApiError';
  }
}

interface ErrorBody {
  message: string;
  code: string;
}

/** The message and code in any of the forms our API families use; null if the text is none of them. */
export function readErrorBody(text: string): ErrorBody | null {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    return null;
  }
  if (typeof json !== 'object' || json === null) return null;
  const error = (json as Record<string, unknown>).error;
  if (typeof error === 'string') return { message: error, code: '' };
  if (typeof error !== 'object' || error === null) return null;
  const { message, code, type } = error as Record<string, unknown>;
  if (typeof message !== 'string') return null;
  return { message, code: typeof code === 'string' ? code : typeof type === 'string' ? type : '' };
}

function titleOf(status: number, code: string): string {
  if (code === 'context_length_exceeded') return 'This chat is longer than the model can read';
  if (code === 'model_not_found') return 'This model is not available';
  if (status === 401) return 'The key was not accepted';
  if (status === 403) return 'This key may not do that';
  if (status === 404) return 'Not found';
  if (status === 413) return 'The message is too large';
  if (status === 429) return 'Too many requests for this key';
  if (code === 'loading') return 'The model is still loading';
  if (code === 'draining') return 'The model is being moved';
  if (status === 503) return 'No GPU is free to answer now';
  if (status === 502) return 'The replicas that were asked failed';
  if (status === 504) return 'The answer took too long';
  if (status >= 500) return 'The server had a fault';
  return 'The request was refused';
}

function nextOf(status: number, code: string, retryAfterS: number | null): string {
  if (code === 'context_length_exceeded') return 'Start a new chat, or deploy the model with a larger --ctx.';
  if (code === 'model_not_found') return 'Pick another model, or deploy it with: aiv up MODEL';
  if (status === 401) return 'Enter a key that is known here. An admin makes one with: aiv key create NAME';
  if (status === 403) return 'Ask an admin for a key with the right role.';
  if (retryAfterS !== null) return `Try again in about ${retryAfterS} s.`;
  if (status === 429 || status === 503) return 'Try again in a moment.';
  if (status === 502 || status === 504) return 'Regenerate, or look at the cluster page for failed replicas.';
  return '';
}

/** From an HTTP answer that is not a success. `retryAfter` is the header's value, seconds. */
export function errorFromResponse(
  status: number,
  body: string,
  retryAfter: string | null,
  requestId: string,
): ApiError {
  const known = readErrorBody(body);
  const seconds = retryAfter !== null && /^\d{1,6}$/.test(retryAfter.trim()) ? Number(retryAfter) : null;
  const code = known?.code ?? '';
  const message = known?.message ?? `The server answered ${status} without saying why.`;
  return new ApiError(status, titleOf(status, code), message, nextOf(status, code, seconds), code, requestId);
}

/** The error event of a stream that had already begun. */
export function errorFromStream(data: string, requestId: string): ApiError {
  const known = readErrorBody(data);
  return new ApiError(
    0,
    'The answer broke off',
    known?.message ?? 'The server reported an error in the middle of the answer.',
    'What arrived is shown above. Regenerate to try again.',
    known?.code ?? '',
    requestId,
  );
}

export function cutOff(requestId: string): ApiError {
  return new ApiError(
    0,
    'The answer was cut off',
    'The connection ended before the server said that the answer was complete.',
    'What arrived is shown above. Regenerate to try again.',
    'cut_off',
    requestId,
  );
}

export function unreachable(where: string): ApiError {
  return new ApiError(
    0,
    'The server cannot be reached',
    `No answer came from ${where}.`,
    'Check that the server runs (aiv ps) and that this computer has a network.',
    'unreachable',
  );
}
