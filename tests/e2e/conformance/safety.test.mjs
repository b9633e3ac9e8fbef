// What must not get through whatever API is used: an engine's own routes, secrets in logs, metrics that no tool reads.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import crypto from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { promtool } from '../lib/places.mjs';
import { withCluster } from '../lib/suite.mjs';

const model = 'fake-small';
// Of the engine and of older APIs: none of them is a route here (gateway/api_table.hpp lists what is).
const DENIED = [
  ['GET', '/slots'], ['GET', '/props'], ['POST', '/props'], ['POST', '/completion'], ['POST', '/completions'], ['POST', '/infill'], ['POST', '/tokenize'],
  ['POST', '/detokenize'], ['POST', '/apply-template'], ['POST', '/chat/completions'], ['POST', '/embeddings'], ['POST', '/rerank'],
  ['GET', '/lora-adapters'], ['POST', '/lora-adapters'], ['POST', '/models/load'], ['POST', '/models/unload'], ['GET', '/cors-proxy'], ['GET', '/tools'],
  ['POST', '/v1/chat/completions/control'], ['POST', '/v1/chat/completions/input_tokens'], ['POST', '/v1/responses/input_tokens'], ['GET', '/v1/stream'],
  ['POST', '/v1/streams/lookup'], ['GET', '/v1/stream/x'], ['POST', '/v1/audio/transcriptions'], ['POST', '/slots/0'], ['POST', '/api/create'],
  ['DELETE', '/api/delete'], ['POST', '/api/push'], ['POST', '/v1/messages/batches'],
];

withCluster('Whatever API is used', { engine: 'fake', gpus: 'A:2GiB' }, (test) => {
  test('an engine’s own routes are none of ours', async (cluster) => {
    for (const [method, route] of DENIED) {
      const response = await cluster.fetch(route, { method, body: method === 'GET' ? undefined : { model, prompt: 'x', content: 'x', messages: [] } });
      const text = await response.text();
      assert.ok(response.status === 404 || response.status === 405, `${method} ${route}: ${response.status} ${text.slice(0, 200)}`);
      assert.ok(JSON.parse(text).error, `${method} ${route}: ${text.slice(0, 200)}`);
    }
  });

  test('prompts, answers and keys are in no log', async (cluster) => {
    const canary = `canary${crypto.randomBytes(8).toString('hex')}`;
    const bodies = [
      ['/v1/chat/completions', { model, messages: [{ role: 'user', content: `#fake say=${canary}` }] }],
      ['/v1/chat/completions', { model, stream: true, user: canary, messages: [{ role: 'user', content: `#fake say=${canary}` }] }],
      ['/v1/messages', { model, max_tokens: 30, system: canary, metadata: { user_id: canary }, messages: [{ role: 'user', content: `#fake say=${canary}` }] }],
      ['/v1/messages/count_tokens', { model, messages: [{ role: 'user', content: canary }] }],
      ['/v1/responses', { model, input: canary, instructions: canary }],
      ['/api/chat', { model, messages: [{ role: 'user', content: `#fake say=${canary}` }] }],
      ['/api/generate', { model, prompt: canary, system: canary, stream: false }],
      ['/v1/embeddings', { model, input: canary }],
      ['/v1/chat/completions', { model, messages: canary }],
      ['/v1/messages', `{"model":"${canary} not json`],
    ];
    for (const [route, body] of bodies) {
      const response = await cluster.fetch(route, { method: 'POST', body, headers: { 'x-conversation-id': canary, 'user-agent': canary, cookie: canary } });
      await response.text();
    }
    const wrong = `${cluster.key.slice(0, -12)}${canary.slice(0, 12)}`;
    assert.equal((await cluster.fetch('/v1/models', { key: wrong })).status, 401);
    assert.equal((await cluster.fetch('/v1/models', { key: null, headers: { 'x-api-key': wrong } })).status, 401);
    const made = await cluster.api('keys', { method: 'POST', body: { name: 'student', role: 'user' } });
    await (await cluster.fetch('/v1/models', { key: made.key })).text();
    const files = [];
    const visit = (directory) => {
      for (const entry of fs.readdirSync(directory, { withFileTypes: true })) {
        const full = path.join(directory, entry.name);
        if (entry.isDirectory()) visit(full);
        else if (entry.isFile() && entry.name !== 'admin.key') files.push(full);
      }
    };
    // The access log is written within 200 ms of a request; the last one's line says that all are there.
    const last = (await cluster.fetch('/v1/models')).headers.get('x-request-id');
    const log = path.join(cluster.dir, 'logs/access.log');
    for (const end = Date.now() + 5000; Date.now() < end && !fs.readFileSync(log, 'utf8').includes(last); ) await new Promise((resolve) => setTimeout(resolve, 20));
    assert.ok(fs.readFileSync(log, 'utf8').includes(last));
    visit(cluster.dir);
    const secretOf = (key) => key.split('-')[2].slice(0, 20);
    for (const file of files) {
      const text = fs.readFileSync(file, 'latin1');
      for (const secret of [canary, secretOf(cluster.key), secretOf(made.key)]) {
        assert.ok(!text.includes(secret), `${path.relative(cluster.dir, file)} holds ${secret === canary ? 'what a client said' : 'a key'}`);
      }
    }
    assert.ok(!cluster.output.includes(canary));
  });

  test('metrics are what Prometheus reads', async (cluster, t) => {
    const text = await (await cluster.fetch('/metrics')).text();
    for (const name of ['time_to_first_token_seconds_bucket', 'inter_token_latency_seconds_bucket', 'request_queue_time_seconds_bucket', 'prompt_tokens_total', 'generation_tokens_total', 'failovers_total']) {
      assert.match(text, new RegExp(`^aivailable_${name}\\{`, 'm'));
    }
    const check = spawnSync(promtool, ['check', 'metrics'], { input: text, encoding: 'utf8' });
    if (check.error) return t.skip('there is no promtool (scripts/fetch-promtool.sh): its rules were not tried');
    assert.equal(check.status, 0, check.stdout + check.stderr);
  });
});
