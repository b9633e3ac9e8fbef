// `aiv server --tls`: https with a certificate that the cluster's own authority makes, for browsers, programs and the
// command line.
import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import fs from 'node:fs';
import https from 'node:https';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { runCli } from '../lib/cluster.mjs';
import { Site } from '../lib/site.mjs';

describe('a server with --tls', { concurrency: false }, () => {
  let site;
  before(async () => {
    site = await Site.start({ serverArgs: ['--tls', '--tls-name', 'lab.example.org', '--tls-name', '192.0.2.7'] });
  });
  after(async () => {
    await site?.stop();
  });
  const authority = () => path.join(site.data, 'ca/ca.pem');
  const certificate = () => new crypto.X509Certificate(fs.readFileSync(path.join(site.data, 'ca/https.pem')));
  const get = (options) =>
    new Promise((resolve, reject) => {
      const request = https.get(`${site.url}/health`, { agent: false, ...options }, (answer) => resolve(answer.resume().statusCode));
      request.on('error', reject);
    });
  const cli = (url, ...args) => runCli(['node', 'ls', '--server', url, ...args], { env: { ...site.env, AIV_KEY: site.key } });

  it('is known by the authority, under each of its names, and under no other', async () => {
    assert.match(site.url, /^https:/);
    const ca = fs.readFileSync(authority());
    assert.equal(await get({ ca }), 200);
    assert.equal(await get({ ca, servername: 'lab.example.org' }), 200);
    await assert.rejects(get({ ca, servername: 'lab.example.com' }), { code: 'ERR_TLS_CERT_ALTNAME_INVALID' });
    await assert.rejects(get({}), { code: 'UNABLE_TO_VERIFY_LEAF_SIGNATURE' });
    assert.ok(certificate().checkIP('192.0.2.7') && certificate().checkHost('localhost'));
    assert.equal(fs.statSync(path.join(site.data, 'ca/https.key')).mode & 0o077, 0);
    // With its key nobody can pass for a node.
    assert.deepEqual(certificate().keyUsage, ['1.3.6.1.5.5.7.3.1']);
  });

  it('is reached by the command line, which refuses to talk to one that it cannot know', async () => {
    const known = await cli(site.url, '--ca', authority());
    assert.equal(known.code, 0, known.stderr);
    assert.equal((await cli(site.url.replace('127.0.0.1', 'localhost'), '--ca', authority())).code, 0);
    const unknown = await cli(site.url);
    assert.notEqual(unknown.code, 0);
    assert.match(unknown.stderr, /certificate/);
    const other = await Site.start();
    try {
      const wrong = await cli(site.url, '--ca', path.join(other.data, 'ca/ca.pem'));
      assert.notEqual(wrong.code, 0);
      assert.match(wrong.stderr, /certificate/);
    } finally {
      await other.stop();
    }
    const plain = await cli(site.url.replace('https', 'http'));
    assert.notEqual(plain.code, 0);
  });

  it('keeps its certificate when it is started again, and makes another one for a new name', async () => {
    const first = certificate().fingerprint256;
    await site.stopRun(site.server);
    await site.startServer();
    assert.equal(certificate().fingerprint256, first);
    await site.stopRun(site.server);
    site.serverArgs.push('--tls-name', 'lab2.example.org');
    await site.startServer();
    assert.notEqual(certificate().fingerprint256, first);
    assert.equal(await get({ ca: fs.readFileSync(authority()), servername: 'lab2.example.org' }), 200);
  });

  it('refuses what it cannot mean', async () => {
    for (const [args, words] of [
      [['--tls', '--tls-cert', 'a.pem', '--tls-key', 'a.key'], /leave it out/],
      [['--tls-name', 'lab.example.org'], /goes with --tls/],
      [['--tls', '--tls-name', 'a b,URI:aiv://x/node/n1'], /neither a host name nor an address/],
    ]) {
      const run = await runCli(['server', '--data', path.join(site.dir, 'x'), '--listen', '127.0.0.1:0', ...args], { env: site.env });
      assert.equal(run.code, 2, `${args}: ${run.stderr}`);
      assert.match(run.stderr, words);
    }
  });
});
