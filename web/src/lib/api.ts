/** Calls to the server's own API and to /v1, with the key and with errors in full words. */
import { errorFromResponse, unreachable } from './errors';
import type { Deployment, Device, ModelEntry, NodeEntry, Replica } from './types';

export interface Page<T> {
  items: T[];
  revision: number;
}

let currentKey = '';
export function useKey(key: string): void {
  currentKey = key;
}

export function headers(extra: Record<string, string> = {}): Record<string, string> {
  return currentKey === '' ? extra : { ...extra, authorization: `Bearer ${currentKey}` };
}

/** A fetch whose failure is an ApiError; an abort by the caller stays an AbortError. */
export async function call(path: string, init: RequestInit = {}): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(path, { credentials: 'same-origin', cache: 'no-store', ...init });
  } catch (error) {
    if (error instanceof DOMException && error.name === 'AbortError') throw error;
    throw unreachable(location.host);
  }
  if (!response.ok) {
    const body = await response.text().catch(() => '');
    throw errorFromResponse(
      response.status,
      body,
      response.headers.get('retry-after'),
      response.headers.get('x-request-id') ?? '',
    );
  }
  return response;
}

/** Whether the server says, to anyone, that it wants a key; false where it does not tell. */
export async function wantsKey(): Promise<boolean> {
  try {
    const json = (await (await call('/health')).json()) as { auth?: unknown };
    return json.auth === true;
  } catch {
    return false;
  }
}

async function list<T>(path: string, signal?: AbortSignal): Promise<Page<T>> {
  const response = await call(path, { headers: headers(), signal: signal ?? null });
  const json = (await response.json()) as Partial<Page<T>>;
  return { items: Array.isArray(json.items) ? json.items : [], revision: json.revision ?? 0 };
}

export const listNodes = (signal?: AbortSignal) => list<NodeEntry>('/aiv/v1/nodes', signal);
export const listDevices = (signal?: AbortSignal) => list<Device>('/aiv/v1/devices', signal);
export const listDeployments = (signal?: AbortSignal) => list<Deployment>('/aiv/v1/deployments', signal);
export const listReplicas = (signal?: AbortSignal) => list<Replica>('/aiv/v1/replicas', signal);

export async function listModels(signal?: AbortSignal): Promise<ModelEntry[]> {
  const response = await call('/v1/models', { headers: headers(), signal: signal ?? null });
  const json = (await response.json()) as { data?: unknown };
  if (!Array.isArray(json.data)) return [];
  return json.data.filter((m): m is ModelEntry => typeof m === 'object' && m !== null && typeof m.id === 'string');
}
