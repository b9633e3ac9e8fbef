// The official clients, each as its users make it, on one cluster. No retries of their own: a test sees what happened.
import Anthropic from '@anthropic-ai/sdk';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { ChatOpenAI, OpenAIEmbeddings } from '@langchain/openai';
import { Ollama } from 'ollama';

export const anthropic = (cluster, options = {}) =>
  new Anthropic({ baseURL: cluster.url, apiKey: cluster.key, maxRetries: 0, timeout: 60_000, ...options });

export const ollama = (cluster, key = cluster.key) =>
  new Ollama({ host: cluster.url, headers: { authorization: `Bearer ${key}` } });

export const vercel = (cluster) =>
  createOpenAICompatible({ name: 'aiv', baseURL: `${cluster.url}/v1`, apiKey: cluster.key, includeUsage: true });

export const langchain = (cluster, options = {}) =>
  new ChatOpenAI({ apiKey: cluster.key, maxRetries: 0, ...options, configuration: { baseURL: `${cluster.url}/v1` } });

export const langchainEmbeddings = (cluster, options = {}) =>
  new OpenAIEmbeddings({ apiKey: cluster.key, maxRetries: 0, ...options, configuration: { baseURL: `${cluster.url}/v1` } });

export async function collect(stream) {
  const all = [];
  for await (const each of stream) all.push(each);
  return all;
}
